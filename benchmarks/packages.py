"""What two interpreter workers do with well-known packages in the time that one takes for half.

    tools/py 3.14 benchmarks/packages.py [NAME]... [--repetitions N] [--json FILE]

The packages must be there: `tools/test packages` gets them, and runs this. Each has a process of
its own, in which its exercise (plait/_exercises.py) is repeated for a while by one worker, then by
both at once, in turns. The ratio of throughputs is 2 where nothing stands in the way; what two busy
processes gain over one meanwhile is `attainable`, as in speedup.py.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import harness
import plait
import speedup
from harness import Row, Trial
from plait._exercises import EXERCISES

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = json.loads((CHECKOUT / "tests/packages/packages.json").read_text())

GOAL = 1.7
WORKERS = 2
MORE = 3  # times as many repetitions, where few do not show it
SECONDS = 0.4  # about what one worker has to do in a trial
ONE, BOTH = "one worker", "both workers"

# The others compute in the thread that calls them; so do these, with that.
SINGLE_THREADED = {"pyarrow": {"use_threads": False}}
ENVIRONMENT = {"POLARS_MAX_THREADS": "1"}


def repeat(package: str, times: int) -> float:
    """In a worker: does the exercise so many times, and says how many seconds that took."""
    exercise = partial(EXERCISES[package], **SINGLE_THREADED.get(package, {}))
    return harness.seconds(lambda: [exercise() for _ in range(times)])


def measure(package: str, repetitions: int) -> Row:
    """Seconds of one worker and of both, each with the same work, and of the busy processes."""
    row = Row(package, f"{package} in interpreter workers", "s")
    pools = [plait.Pool(1, kind="interpreter") for _ in range(WORKERS)]

    def run(times: int, chosen: list[plait.Pool]) -> None:
        for future in [pool.submit(repeat, package, times) for pool in chosen]:
            future.result()

    run(1, pools)  # imports it
    each = min(pools[0].submit(repeat, package, 1).result() for _ in range(3))
    times = max(1, round(SECONDS / each))
    with speedup.burners() as busy:
        trials: dict[str, Trial] = {
            ONE: lambda: harness.seconds(lambda: run(times, pools[:1])),
            BOTH: lambda: harness.seconds(lambda: run(times, pools)),
        }
        harness.interleave(row, {**busy, **trials}, repetitions)
    for pool in pools:
        pool.shutdown()
    return row


def figures(row: Row) -> dict[str, float]:
    ratio = WORKERS * row.measured[ONE].least / row.measured[BOTH].least
    return {"ratio": round(ratio, 2), "attainable": round(speedup.attainable(row), 2)}


def measure_apart(package: str, repetitions: int) -> dict[str, Any]:
    """The figures, from a process of its own."""
    command = [sys.executable, __file__, package, "--here", "--repetitions", str(repetitions)]
    env = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env)
    if done.returncode != 0:
        return {"error": f"exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_well(package: str, repetitions: int) -> dict[str, Any]:
    """Where that is below the goal, more often: the least of few may be what others left."""
    found = measure_apart(package, repetitions)
    if found.get("ratio", GOAL) >= GOAL:
        return found
    return measure_apart(package, MORE * repetitions)


def line_of(package: str, found: dict[str, Any]) -> list[str]:
    if "error" in found:
        return [package, "-", "-", found["error"]]
    word = "" if found["ratio"] >= GOAL else f"below {GOAL}"
    if word and found["attainable"] < GOAL:
        word += ", but the machine gave no more"
    return [package, f"{found['ratio']:.2f}x", f"{found['attainable']:.2f}x", word]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("packages", nargs="*", metavar="NAME")
    parser.add_argument("--repetitions", type=int, default=7, help="of each trial")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.here:
        print(json.dumps(figures(measure(options.packages[0], options.repetitions))))
        return
    harness.announce("packages in two interpreter workers")
    results = {}
    for package in filter(importlib.util.find_spec, options.packages or PACKAGES):
        results[package] = measure_well(package, options.repetitions)
        print(*line_of(package, results[package]), flush=True)
    heads = ["package", "throughput", "attainable", ""]
    harness.table(
        f"target: ≥ {GOAL}x one worker's throughput",
        heads,
        [line_of(package, found) for package, found in results.items()],
    )
    harness.write_json(options.json, results)


if __name__ == "__main__":
    main(sys.argv[1:])
