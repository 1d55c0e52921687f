"""The hot paths that instructions.py counts: all of a kind, one after the other, in one process.

    hot_paths.py KIND       thread, interpreter, or flat: encoding and decoding alone

Each path is between two calls of os.getppid(), at which valgrind writes down what it has counted;
what it was and how many operations it had goes to the standard output. Imports little, since
valgrind is slow, and ends without clean-up, which is not to be counted.
"""

import gc
import os
import sys
from itertools import repeat
from operator import neg
from typing import Any

from plait import Pool, _plait

TASKS = 10_000
ITEMS = 50_000
MESSAGES = 500

SMALL = {"name": "plait", "sizes": list(range(300, 320)), "ratio": 0.5, "flags": (True, None)}
INTS = list(range(ITEMS))
FLOATS = [number + 0.5 for number in INTS]
TEXTS = {f"key {number}": f"value {number}" for number in range(ITEMS // 5)}
ROWS = [(number, f"row {number}", number / 7) for number in range(ITEMS // 5)]


def mark(name: str = "", operations: int = 1) -> None:
    """Here ends what was begun at the last mark; without a name it is not to be counted."""
    os.getppid()
    print(name, operations, sep="\t", flush=True)


def tasks(pool: Pool) -> None:
    """Tasks are made behind a worker that is kept waiting, are run, and are asked for."""
    blocked, free = os.pipe()
    ready, started = os.pipe()
    pool.submit(neg, 1).result()
    pool.submit(os.write, started, b"!").result()
    pool.submit(os.read, blocked, 1)
    os.read(ready, 1)
    mark()
    futures = [pool.submit(neg, 1) for _ in repeat(None, TASKS)]
    mark("submit", TASKS)
    os.write(free, b"!")
    futures[-1].exception()  # one worker: the last is done last
    mark("complete", TASKS)
    for future in futures:
        future.result()
    mark("result", TASKS)


def items(pool: Pool) -> None:
    """A no-op over ints."""
    for _ in pool.map(neg, range(1_000)):
        pass
    mark()
    for _ in pool.map(neg, range(ITEMS)):
        pass
    mark("map", ITEMS)


def coded(name: str, sample: Any, parts: int, times: int = 1) -> None:
    """A message of something with so many parts, so many times, and back."""
    _plait._decode(_plait._encode(sample))
    mark()
    for _ in repeat(None, times):
        message = _plait._encode(sample)
    mark(f"encode {name}", parts * times)
    for _ in repeat(None, times):
        _plait._decode(message)
    mark(f"decode {name}", parts * times)


def run(kind: str) -> None:
    if kind == "flat":
        coded("small", SMALL, 1, MESSAGES)
        coded("ints", INTS, len(INTS))
        coded("floats", FLOATS, len(FLOATS))
        coded("texts", TEXTS, len(TEXTS))
        coded("rows", ROWS, len(ROWS))
        return
    pool = Pool(1, kind=kind)
    tasks(pool)
    items(pool)


if __name__ == "__main__":
    gc.disable()  # when it runs is not up to the path
    run(sys.argv[1])
    os._exit(0)
