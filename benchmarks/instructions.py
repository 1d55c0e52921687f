"""Counts the instructions of the hot paths with valgrind, and checks them against allowed bounds.

    tools/py 3.14 benchmarks/instructions.py [--check | --update] [--only KIND]...

Times drift with the machine; instruction counts do not. The paths of a kind (hot_paths.py) run in
one process under callgrind, which writes down and forgets what it has counted whenever that process
calls getppid(): so start and end are not in the counts, and each path is by itself.

Needs valgrind where the interpreter runs (tools/test instructions gets it). Without it, says so and
ends well. `--check` fails (exit status 1) where a count is above its bound in instructions.json, or
where there is no bound for it; `--update` writes the bounds anew, a tenth above what was counted.
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
from pathlib import Path

import harness
import plait

BOUNDS = Path(__file__).with_suffix(".json")
MARGIN = 1.1
CHILD = Path(__file__).with_name("hot_paths.py")


# ---- counting ----


def kinds_here() -> list[str]:
    """What hot_paths.py can run on this interpreter."""
    found = ["flat"]
    for kind in ("thread", "interpreter"):
        try:
            plait.Pool(1, kind=kind).shutdown()
        except RuntimeError:
            continue
        found.append(kind)
    return found


def count(kind: str) -> dict[str, int]:
    """Instructions per operation of each path of the kind."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--tool=callgrind", "--dump-before=getppid", "--dump-line=no"]
        out = Path(folder, "out")
        command = ["valgrind", *options, f"--callgrind-out-file={out}"]
        done = subprocess.run(
            [*command, sys.executable, CHILD, kind],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{kind} failed under valgrind:\n{done.stderr[-2000:]}")
        counts: dict[str, int] = {}
        for part, line in enumerate(done.stdout.splitlines(), 1):
            name, operations = line.split("\t")
            if name:
                full = name if kind == "flat" else f"{kind} {name}"
                counts[full] = round(total(Path(f"{out}.{part}")) / int(operations))
    return counts


def total(part: Path) -> int:
    """What one of callgrind's files adds up to."""
    found = re.search(r"^(?:summary|totals): (\d+)", part.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{part} has no total")
    return int(found[1])


def measure(kinds: list[str]) -> dict[str, int]:
    """Instructions per operation of all paths of these kinds."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(count, kinds))
    return {name: number for counts in found for name, number in counts.items()}


# ---- bounds ----


def show(counts: dict[str, int], bounds: dict[str, int]) -> list[str]:
    """A table of counts and bounds; returns the names of those above, or without a bound."""
    lines, above = [], []
    for name, number in counts.items():
        bound = bounds.get(name)
        over = bound is None or number > bound
        above += [name] * over
        verdict = "no bound" if bound is None else "ABOVE" if over else "ok"
        told = "-" if bound is None else f"{bound:,}"
        lines.append([name, f"{number:,}", told, verdict])
    harness.table("instructions per operation", ["path", "counted", "allowed", ""], lines)
    return above


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="fail where a count is above its bound"
    )
    parser.add_argument("--update", action="store_true", help="write the bounds anew")
    parser.add_argument("--only", action="append", metavar="KIND", help="flat, thread, interpreter")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = arguments(argv)
    harness.announce("instructions of hot paths", times=False)
    if shutil.which("valgrind") is None:
        print("valgrind is not here: nothing counted")
        return 0
    all_bounds = json.loads(BOUNDS.read_text()) if BOUNDS.exists() else {}
    bounds = all_bounds.setdefault(harness.interpreter(), {})
    counts = measure([kind for kind in kinds_here() if kind in (options.only or kinds_here())])
    if options.update:
        bounds |= {name: math.ceil(number * MARGIN) for name, number in counts.items()}
        BOUNDS.write_text(json.dumps(all_bounds, indent=2, sort_keys=True) + "\n")
    above = show(counts, bounds)
    if options.check and above:
        print(f"above the bounds, or without one: {', '.join(above)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
