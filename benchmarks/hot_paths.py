"""The hot paths that instructions.py counts: one of them, so many times, then the process is gone.

    hot_paths.py NAME KIND COUNT

Imports little, since valgrind is slow, and ends without clean-up, which is not to be counted.
"""

import gc
import os
import sys
from itertools import repeat
from operator import neg

from plait import Pool, _plait

SAMPLE = {"name": "plait", "sizes": list(range(300, 320)), "ratio": 0.5, "flags": (True, None)}


def _submitted(kind, count):
    """Queues no-ops behind a worker that is kept waiting: the word to free it, and the futures."""
    pool = Pool(1, kind=kind)
    blocked, free = os.pipe()
    ready, started = os.pipe()
    pool.submit(os.write, started, b"!")
    pool.submit(os.read, blocked, 1)
    os.read(ready, 1)
    return free, [pool.submit(neg, 1) for _ in repeat(None, count)]


def submit(kind, count):
    """N tasks made and queued; none is run."""
    _submitted(kind, count)


def complete(kind, count):
    """The same, and a worker runs and completes them."""
    free, futures = _submitted(kind, count)
    os.write(free, b"!")
    futures[-1].exception()  # one worker: the last is done last
    return futures


def result(kind, count):
    """The same, and the results are asked for."""
    for future in complete(kind, count):
        future.result()


def encode(_, count):
    """One small mixed object into a message."""
    for _ in repeat(None, count):
        _plait._encode(SAMPLE)


def decode(_, count):
    """And back."""
    message = _plait._encode(SAMPLE)
    for _ in repeat(None, count):
        _plait._decode(message)


def nothing(_, count):
    """The loop of the two above."""
    for _ in repeat(None, count):
        len(SAMPLE)


RUNS = {one.__name__: one for one in (submit, complete, result, encode, decode, nothing)}

if __name__ == "__main__":
    gc.disable()  # when it runs is not up to the path
    RUNS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    os._exit(0)
