"""plait.Pool under the names of the standard library's executors, for programs written for those.

Signatures are the standard library's. Of its private attributes only those are here that say what a
public method says, too.
"""

import concurrent.futures
import itertools
import os
import weakref

import plait
import test
from plait import _plait

# Environment: the kind of every pool; a file to which each process adds a line per pool made; where
# CPython's own tests are if they were not installed.
KIND = "PLAIT_PEER_KIND"
WITNESS = "PLAIT_PEER_WITNESS"
TESTS = "CPYTHON_TESTS"

_numbers = itertools.count()


class _Worker:
    """One of executor._threads: all of them end together."""

    def __init__(self, pool: plait.Pool) -> None:
        self._pool = weakref.ref(pool)

    def join(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool._join()
        else:
            _plait._join_orphans()


class ThreadPoolExecutor(plait.Pool):
    """A plait.Pool of the kind that the environment names."""

    def __init__(
        self, max_workers=None, thread_name_prefix="", initializer=None, initargs=()
    ) -> None:
        super().__init__(
            max_workers,
            kind=os.environ[KIND],
            initializer=initializer,
            initargs=initargs,
            thread_name_prefix=thread_name_prefix or f"{type(self).__name__}-{next(_numbers)}",
        )
        if WITNESS in os.environ:
            with open(os.environ[WITNESS], "a") as file:
                print(os.getpid(), self.kind, file=file)

    @property
    def _max_workers(self) -> int:
        return self.max_workers

    @property
    def _threads(self) -> list[_Worker]:
        return [_Worker(self) for _ in range(self._living)]

    @property
    def _broken(self) -> bool:
        try:
            self.submit(int)
        except concurrent.futures.BrokenExecutor:
            return True
        return False


class InterpreterPoolExecutor(ThreadPoolExecutor):
    """The same: the standard library's class differs from ThreadPoolExecutor in its workers."""


def install() -> None:
    """From now on `concurrent.futures` has these classes in place of its own."""
    if TESTS in os.environ:
        test.__path__.append(os.environ[TESTS])
    concurrent.futures.ThreadPoolExecutor = ThreadPoolExecutor
    concurrent.futures.InterpreterPoolExecutor = InterpreterPoolExecutor
