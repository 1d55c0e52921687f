"""Run an interpreter with plait and its test dependencies: what tools/py does. See USAGE."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from harness.cache import CHECKOUT, Failure, cache_root
from harness.enter import enter, execute
from harness.environment import Environment
from harness.interpreters import Interpreter, load, recorded

USAGE = """\
usage: tools/py NAME ARGS...     run that interpreter with plait and its test dependencies installed
       tools/py --list           the names there are
       tools/py --info NAME      what that interpreter is, and which optional dependencies it lacks
       tools/py --wheel NAME     build if need be, print where the wheel is

plait is built and installed again when its sources changed. PLAIT_PY_NO_BUILD=1 takes what was used
last. PLAIT_PY_SETUP has options for meson's set-up (-Dassertions=2, say) and selects a build of its
own."""


def find(name: str) -> Interpreter:
    interpreter = load(name)
    if interpreter is None:
        there = " ".join(i.name for i in recorded()) or "none"
        raise Failure(
            f"{name} is not installed; run tools/pythons {name} first (there are: {there})"
        )
    return interpreter


def prepare(environment: Environment) -> Path:
    if os.environ.get("PLAIT_PY_NO_BUILD") == "1":
        return environment.latest_plait()
    return environment.ensure_plait()


def become(interpreter: Interpreter, program: Path, args: list[str]) -> None:
    if interpreter.tree_path:
        enter(interpreter.tree_path, also=[CHECKOUT, cache_root()])
    execute(os.fspath(program), args, os.environ)


def main(argv: list[str]) -> int:
    if argv == ["--list"]:
        print(*(interpreter.name for interpreter in recorded()), sep="\n")
        return 0
    if len(argv) == 2 and argv[0] in ("--info", "--wheel"):
        environment = Environment(find(argv[1]))
        if argv[0] == "--wheel":
            print(environment.wheel(prepare(environment)))
        else:
            environment.ensure_base()
            print(environment.interpreter)
            print("lacks:", " ".join(environment.missing()) or "nothing")
        return 0
    if not argv or argv[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 0 if argv in (["-h"], ["--help"]) else 2
    interpreter = find(argv[0])
    become(interpreter, prepare(Environment(interpreter)) / "bin/python", argv[1:])
    return 1  # not reached


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        sys.exit(f"tools/py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
