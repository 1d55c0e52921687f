"""Memory of a worker that uses NumPy: plait's interpreters and processes against spawned processes.

    tools/py 3.14 benchmarks/memory.py [--workers N] [--json FILE]

Each contestant has a process of its own, which first does itself what its workers do. It makes them
one after another, and each computes something. What the process and its
children hold is the sum of their PSS: pages that several share count in parts. Told is what the
first worker takes, with whatever a pool needs besides, and what each further one does.

Told is also where that lies: heaps (Python's arenas, malloc's and stacks), in which are modules and
all other objects; static data of private images; other files.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import harness
import plait

Figures = dict[str, float]  # MB


def nothing() -> None:
    """In a worker: needs no NumPy."""


def with_numpy() -> float:
    """In a worker: NumPy and its BLAS at work."""
    import numpy as np

    return float(np.linalg.svd(np.random.default_rng(1).random((50, 50)))[1].max())


WORK: dict[str, Callable[[], object]] = {"without NumPy": nothing, "with NumPy": with_numpy}


def _spawned() -> Executor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


POOLS: dict[str, Callable[[], Executor]] = {
    "plait, interpreters": lambda: plait.Pool(1, kind="interpreter"),
    "plait, processes": lambda: plait.Pool(1, kind="process"),
    "ProcessPoolExecutor, spawn": _spawned,
}


# ---- in the contestant's process ----


def family() -> list[str]:
    """This process's id and those of its children and theirs."""
    found, more = [], ["self"]
    while more:
        found += more
        lists = [path for one in more for path in Path("/proc", one, "task").glob("*/children")]
        more = [child for path in lists for child in path.read_text().split()]
    return found


def pss() -> Counter[str]:
    """kB by where they lie, of the whole family."""
    total: Counter[str] = Counter()
    for process in family():
        for line in Path("/proc", process, "smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                place = _place(words[5] if len(words) > 5 else "")
            elif words[0] == "Pss:":
                total[place] += int(words[1])
    return total


def _place(path: str) -> str:
    if path.startswith("/memfd:plait:"):
        return "images"
    return "files" if path.startswith("/") else "heaps"


def measure(contestant: str, work: str, workers: int) -> Figures:
    """MB that the first worker takes, and each further one; that by places."""
    WORK[work]()
    samples = [pss()]
    pools = []
    for _ in range(workers):
        pools.append(POOLS[contestant]())
        pools[-1].submit(WORK[work]).result()
        samples.append(pss())
    for pool in pools:
        pool.shutdown()
    first, last = samples[1], samples[-1]
    figures = {"first": first.total() - samples[0].total()}
    figures["further"] = (last.total() - first.total()) / (workers - 1)
    for place in first | last:
        figures[place] = (last[place] - first[place]) / (workers - 1)
    return {name: round(kilobytes / 1000, 2) for name, kilobytes in figures.items()}


# ---- all of them ----


def measure_apart(contestant: str, work: str, workers: int) -> Figures:
    command = [sys.executable, __file__, "--here", contestant, work, "--workers", str(workers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(*options.here, options.workers)))
        return
    harness.announce("memory of workers", times=False)
    results = {
        f"{contestant}, {work}": measure_apart(contestant, work, options.workers)
        for contestant in POOLS
        for work in WORK
    }
    columns = ("first", "further", "heaps", "images", "files")
    heads = ["MB (PSS)", *columns, ""]
    lines = [
        [name, *(f"{figures.get(column, 0):.1f}" for column in columns), ""]
        for name, figures in results.items()
    ]
    harness.table(f"{options.workers} workers, one after another", heads, lines)
    harness.write_json(options.json, {"megabytes": results})


if __name__ == "__main__":
    main()
