"""The process-wide default pool, behind plait.map() and plait.submit()."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from plait._future import Future
from plait._pool import Pool

if TYPE_CHECKING:
    from plait._amap import AsyncMap


class _Default:
    """Makes the pool when it is first needed, and anew in the child of a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: Pool | None = None

    def get(self) -> Pool:
        """The pool of this process."""
        pool = self._pool
        if pool is None:
            with self._lock:
                pool = self._pool
                if pool is None:
                    pool = self._pool = Pool()
        return pool

    def forget(self) -> None:
        """In the child of a fork, where the parent's workers do not exist."""
        self._lock = threading.Lock()
        self._pool = None


_default: Final = _Default()
os.register_at_fork(after_in_child=_default.forget)


def submit(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
    """Pool.submit on the process-wide default pool."""
    future: Future = _default.get().submit(fn, *args, **kwargs)
    return future


def map(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    timeout: float | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
) -> Iterator[Any]:
    """Pool.map on the process-wide default pool."""
    return _default.get().map(
        fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize
    )


def amap(
    fn: Callable[..., Any], *iterables: Iterable[Any], buffersize: int | None = None
) -> "AsyncMap":
    """Pool.amap on the process-wide default pool."""
    return _default.get().amap(fn, *iterables, buffersize=buffersize)
