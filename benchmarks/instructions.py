"""Counts the instructions of the hot paths with valgrind, and checks them against allowed bounds.

    tools/py 3.13t benchmarks/instructions.py [--check | --update] [--only PATH]...

Times drift with the machine; instruction counts do not. Each hot path is run in two lengths in
processes of their own under callgrind: the difference of the counts, divided by the difference of
the lengths, is what one operation costs, free of start and end. Paths that build on others are
given as differences: `complete` is a process that submits and completes, less one that only
submits. map is not counted: how it divides its work depends on time, and under valgrind that stands
almost still.

Needs valgrind on this interpreter's side (outside of system trees: 3.12 and 3.13t). Without it,
says so and ends well. `--check` fails (exit status 1) where a count is above its bound in
instructions.json, `--update` writes the bounds anew, a tenth above what was counted.
"""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import harness
import plait

BOUNDS = Path(__file__).with_suffix(".json")
MARGIN = 1.1
SHORT, LONG = 500, 2_500
CHILD = Path(__file__).with_name("hot_paths.py")


@dataclass(frozen=True)
class Hot:
    """A hot path: the instructions of one `run`, less those of one `less`."""

    run: str
    less: str = "nothing"


PATHS = {
    "submit": Hot("submit"),
    "complete": Hot("complete", "submit"),
    "result": Hot("result", "complete"),
}
FLAT_PATHS = {"encode": Hot("encode"), "decode": Hot("decode")}


# ---- counting ----


def count_run(run: str, kind: str, length: int) -> int:
    """All instructions of a process that does this run."""
    with tempfile.NamedTemporaryFile() as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}"]
        child = [sys.executable, CHILD, run, kind, str(length)]
        done = subprocess.run(
            [*command, *child],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
        )
        match = re.search(r"^(?:summary|totals): (\d+)", Path(out.name).read_text(), re.MULTILINE)
    if done.returncode != 0 or match is None:
        raise RuntimeError(f"{run} failed under valgrind:\n{done.stderr[-2000:]}")
    return int(match[1])


def per_operation(wanted: set[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """(run, kind) -> instructions by which the run grows with each operation."""
    jobs = [(run, kind, length) for run, kind in sorted(wanted) for length in (SHORT, LONG)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        counts = dict(zip(jobs, threads.map(lambda job: count_run(*job), jobs), strict=True))
    return {
        (run, kind): (counts[run, kind, LONG] - counts[run, kind, SHORT]) / (LONG - SHORT)
        for run, kind in wanted
    }


def paths_here() -> dict[str, tuple[str, Hot]]:
    """Every path that serves on this interpreter, by its full name, with its kind."""
    found = {name: ("thread", path) for name, path in FLAT_PATHS.items()}
    for kind in ("thread", "interpreter"):
        try:
            plait.Pool(1, kind=kind).shutdown()
        except RuntimeError:
            continue
        found |= {f"{kind} {name}": (kind, path) for name, path in PATHS.items()}
    return found


def measure(names: list[str] | None) -> dict[str, int]:
    """Instructions per operation of the named paths, or of all."""
    chosen = {n: entry for n, entry in paths_here().items() if names is None or n in names}
    wanted = {(run, kind) for kind, path in chosen.values() for run in (path.run, path.less)}
    grown = per_operation(wanted)
    return {
        name: round(grown[path.run, kind] - grown[path.less, kind])
        for name, (kind, path) in chosen.items()
    }


# ---- bounds ----


def show(counts: dict[str, int], bounds: dict[str, int]) -> list[str]:
    """A table of counts and bounds; returns the names of those above."""
    lines, above = [], []
    for name, count in counts.items():
        bound = bounds.get(name)
        over = bound is not None and count > bound
        above += [name] * over
        verdict = "ABOVE" if over else "" if bound is None else "ok"
        lines.append([name, f"{count:,}", "-" if bound is None else f"{bound:,}", verdict])
    harness.table("instructions per operation", ["path", "counted", "allowed", ""], lines)
    return above


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="fail where a count is above its bound"
    )
    parser.add_argument("--update", action="store_true", help="write the bounds anew")
    parser.add_argument("--only", action="append", metavar="PATH", help="these paths only")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = arguments(argv)
    harness.announce("instructions of hot paths", times=False)
    if shutil.which("valgrind") is None:
        print("valgrind is not here: nothing counted")
        return 0
    all_bounds = json.loads(BOUNDS.read_text()) if BOUNDS.exists() else {}
    bounds = all_bounds.setdefault(harness.interpreter(), {})
    counts = measure(options.only)
    above = show(counts, bounds)
    if options.update:
        bounds |= {name: math.ceil(count * MARGIN) for name, count in counts.items()}
        BOUNDS.write_text(json.dumps(all_bounds, indent=2, sort_keys=True) + "\n")
    if options.check and above:
        print(f"above the bounds: {', '.join(above)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
