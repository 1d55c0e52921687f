"""What the benchmarks' workers run: ordinary functions, importable by name in every worker."""

import os
import threading
import time
from typing import Any


def nothing(item: object = None) -> None:
    """The no-op: what remains is the cost of getting it to a worker and back."""


def array() -> float:
    """A little of NumPy."""
    import numpy

    return float(numpy.ones(10).sum())


def burn(turns: int) -> None:
    """A busy loop of so many turns, some ten to twenty nanoseconds each."""
    for _ in range(turns):
        pass


def total(array: Any) -> float:
    """The sum of a NumPy array."""
    return float(array.sum())


def random_array(size: int) -> Any:
    """A NumPy array of so many random float64."""
    import numpy

    return numpy.random.default_rng(1).random(size)


def who(seconds: float = 0.0005) -> tuple[int, int]:
    """Which worker this is, by process and thread, after a nap in which the others get a turn."""
    time.sleep(seconds)
    return os.getpid(), threading.get_native_id()


def collatz(span: tuple[int, int]) -> int:
    """The longest Collatz sequence of a start in range(*span): integer arithmetic."""
    longest = 0
    for start in range(*span):
        number, length = start, 1
        while number > 1:
            number = 3 * number + 1 if number & 1 else number >> 1
            length += 1
        longest = max(longest, length)
    return longest


def queens(size: int) -> int:
    """In how many ways so many queens stand on a board without attacking each other: recursion."""

    def place(columns: int, left: int, right: int) -> int:
        if columns == full:
            return 1
        free, ways = full & ~(columns | left | right), 0
        while free:
            queen = free & -free
            free ^= queen
            ways += place(columns | queen, (left | queen) << 1, (right | queen) >> 1)
        return ways

    full = (1 << size) - 1
    return place(0, 0, 0)


def word_counts(seed: int) -> dict[str, int]:
    """Counts the words of a text made from the seed: strings and a dictionary."""
    letters = "etaoin shrdlu cmfwyp vbgkqj xz "
    text = "".join(letters[(seed * 7919 + at * at * 31) % len(letters)] for at in range(6000))
    counts: dict[str, int] = {}
    for word in text.split():
        key = word.strip("xz").lower()
        counts[key] = counts.get(key, 0) + 1
    return counts
