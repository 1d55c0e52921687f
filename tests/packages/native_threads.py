"""Threads of pyarrow and polars that call Python back, in two interpreter workers at once.

Part of `tools/test packages`. Each callback must come to the interpreter that its worker is, so
many times in all; prints how often it did, and on how many threads that were not the worker's.
"""

import argparse
import importlib.util
import io
import sys
import threading
from collections import Counter
from collections.abc import Callable

import plait

WORKERS = 2
LINE = b"12345,abcdefgh\n"
COLUMNS = 100  # that polars computes at once

Visits = Counter[tuple[int, int]]  # interpreter, thread


def interpreter() -> int:
    import _interpreters

    return _interpreters.get_current()[0]


def read_csv(visit: Callable[[], None], times: int) -> None:
    """pyarrow reads ahead in a thread of its own, and each time calls the file's read()."""
    from pyarrow import csv

    class Lines(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            visit()
            return super().read(size)

    options = csv.ReadOptions(use_threads=True, block_size=4 * len(LINE), column_names=["a", "b"])
    table = csv.read_csv(Lines(LINE * (4 * times)), options)
    assert table.num_rows == 4 * times, table.num_rows


def query(visit: Callable[[], None], times: int) -> None:
    """polars computes the columns of a selection, each with a step in Python, on its threads."""
    import polars as pl

    def double(values: pl.Series) -> pl.Series:
        visit()
        return values * 2

    doubled = pl.col("a").map_batches(double, return_dtype=pl.Int64)
    columns = [(doubled + number).alias(str(number)) for number in range(COLUMNS)]
    frame = pl.DataFrame({"a": [1]})
    for _ in range(-(-times // COLUMNS)):
        assert frame.select(columns).row(0) == tuple(range(2, COLUMNS + 2))


WORK = {"pyarrow": read_csv, "polars": query}


def count(package: str, times: int) -> tuple[int, int, Visits]:
    """In a worker: which interpreter and thread it is, and where the callbacks came."""
    visits: list[tuple[int, int]] = []
    WORK[package](lambda: visits.append((interpreter(), threading.get_native_id())), times)
    return interpreter(), threading.get_native_id(), Counter(visits)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/packages/native_threads.py")
    parser.add_argument("packages", nargs="*", metavar="NAME", help=f"of {', '.join(WORK)}")
    parser.add_argument("--times", type=int, default=100_000, help="by all workers together")
    options = parser.parse_args()
    for package in options.packages or filter(importlib.util.find_spec, WORK):
        pools = [plait.Pool(1, kind="interpreter") for _ in range(WORKERS)]
        times = -(-options.times // WORKERS)
        for future in [pool.submit(count, package, times) for pool in pools]:
            home, own, visits = future.result()
            right = sum(number for (where, _), number in visits.items() if where == home)
            threads = {thread for _, thread in visits} - {own}
            print(f"{package}: {right} callbacks in interpreter {home}, {len(threads)} threads")
            assert right == visits.total() >= times, (home, visits)
            assert threads, "only the worker itself has called"
        for pool in pools:
            pool.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
