"""plait.Pool: workers behind one concurrent.futures.Executor."""

import concurrent.futures
import functools
import itertools
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from plait import _kinds, _plait
from plait._future import Future, stop_notifier

if TYPE_CHECKING:
    from plait._amap import AsyncMap

_exiting: Final = threading.Event()  # the interpreter's exit has begun
_pools: Final[weakref.WeakSet["Pool"]] = weakref.WeakSet()

# reduce() cuts its input here, so that the tree of calls depends on the input alone.
_REDUCE_BLOCK: Final = 256


class BrokenPool(concurrent.futures.BrokenExecutor):
    """A pool whose workers cannot run: an initializer raised, or no worker could be made.

    The cause is the exception that broke it. The pool refuses everything; make a new one.
    """

    def __init__(self, cause: BaseException | None = None) -> None:
        self.reason = cause
        told = (
            f"{type(cause).__name__}: {cause}" if cause is not None else "a worker could not start"
        )
        super().__init__(f"the pool is broken, since a worker could not be prepared ({told})")


class WorkerDied(concurrent.futures.BrokenExecutor):
    """The process of a worker died while it ran a task, which is lost; the pool goes on.

    task: the name of the function that ran. pid: of the process. signal: the number of the signal
    that killed it, or None. status: its exit status, or None.
    """

    def __init__(
        self,
        task: bytes | str = "a task",
        pid: int = 0,
        signal: int | None = None,
        status: int | None = None,
        corrupt: bool = False,
    ) -> None:
        self.task = task.decode(errors="replace") if isinstance(task, bytes) else task
        self.pid, self.signal, self.status = pid, signal, status
        super().__init__(self.task, pid, signal, status, corrupt)

    def __str__(self) -> str:
        if self.args[4]:
            how = "wrote over its channel to this process, and was stopped,"
        elif self.signal is not None:
            how = f"was killed by {_signal_name(self.signal)}"
        elif self.status is not None:
            how = f"ended with exit status {self.status}"
        else:
            how = "ended"
        return f"the worker process {self.pid} {how} while it ran {self.task}"


class Pool(_plait.PoolBase, concurrent.futures.Executor):
    """Runs functions on several workers at once: a concurrent.futures.Executor.

    max_workers: at most so many workers; None for cpu_count(). They start as work arrives.
    kind: "thread", "interpreter", "process", or "auto" for the best that serves here; see the
        attributes kind and reason.
    initializer: called as initializer(*initargs) in every worker before its first task; if it
        raises, the pool is broken, and every task fails with BrokenPool.
    thread_name_prefix: of the workers' threads.

    Raises ValueError for an unknown kind or max_workers < 1, RuntimeError for a kind that cannot
    serve on this interpreter. All methods may be called from any thread.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        kind: str = "auto",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        thread_name_prefix: str = "",
    ) -> None:
        if _exiting.is_set() or sys.is_finalizing():
            raise RuntimeError("cannot make a pool after interpreter shutdown")
        if max_workers is None:
            max_workers = _plait.cpu_count()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self.kind, self.reason = _kinds.choose(kind)
        self.max_workers = max_workers
        if self.kind == "interpreter":
            _kinds.prepare_main()
        setup = {} if self.kind == "thread" else _setup()
        command: tuple[bytes, ...] = ()
        if self.kind == "process":
            from plait import _child

            command = _child.command()
        self._open(
            self.kind,
            max_workers,
            thread_name_prefix,
            setup,
            initializer,
            tuple(initargs),
            command,
        )
        _pools.add(self)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """fn(*items) for the items of all iterables in step, in order.

        The work is divided among the workers as they become idle; chunksize is accepted for
        compatibility and not needed. buffersize: at most so many items are taken from the iterables
        and not yet given back as results; None bounds them by memory instead (about a million items
        or 256 MiB). timeout: seconds from now after which waiting for a result raises TimeoutError.

        What fn raises is raised at its item's place; the iterator can be asked for the next one
        after that. Giving up an iterator that was begun, by its close() or by letting go of it,
        cancels the rest. One thread at a time may use it.
        """
        star, items = _in_step(iterables)
        return self._map(fn, items, star, True, timeout, _window(chunksize, buffersize), False)

    def map_unordered(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Like map(), but each result as soon as it is there."""
        star, items = _in_step(iterables)
        return self._map(fn, items, star, False, timeout, _window(chunksize, buffersize), False)

    def starmap(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        *,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """fn(*item) for every item, in order; otherwise like map()."""
        window = _window(chunksize, buffersize)
        return self._map(fn, iter(iterable), True, True, timeout, window, False)

    def amap(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        buffersize: int | None = None,
    ) -> "AsyncMap":
        """map() for coroutines: `async for result in pool.amap(fn, items)`.

        As map(), but waiting blocks no thread. The iterables are ordinary ones, taken from in the
        thread of the event loop, a block at a time. Leaving the loop, `await results.aclose()` and
        the cancelling of the task that waits cancel what is left. One task at a time may use it;
        several, each with its own, in any number of event loops.
        """
        from plait._amap import AsyncMap  # here, since only coroutines come here

        star, items = _in_step(iterables)
        return AsyncMap(self._map(fn, items, star, True, None, _window(None, buffersize), True))

    def reduce(self, fn: Callable[[Any, Any], Any], iterable: Iterable[Any], initial: Any) -> Any:
        """initial combined with every item by fn, which must be associative.

        The items are combined in a tree whose shape depends on their number alone, never on the
        workers, so that the result is the same every time even where fn is only nearly associative
        (floats).
        """
        level: Iterable[Any] = iterable
        combine = functools.partial(_reduce_block, fn)
        while True:
            blocks = _blocks(level, _REDUCE_BLOCK)
            level = list(self.map(combine, blocks))
            if len(level) <= 1:
                return functools.reduce(fn, level, initial)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more submits. wait: return only when every task has run and every worker has ended.

        cancel_futures: cancel what no worker has begun. May be called more than once.
        """
        self._close(cancel_futures)
        if wait:
            self._join()

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        if exc_type is not None and issubclass(exc_type, KeyboardInterrupt):
            self._stop()
            return
        try:
            self.shutdown(wait=True)
        except KeyboardInterrupt:
            self._stop()
            raise

    def _stop(self) -> None:
        """After Ctrl-C, which asks neither for the queue to be worked off nor for what runs to be
        waited for.
        """
        self._close(True)
        self._interrupt()
        self._join()

    def __repr__(self) -> str:
        return f"<plait.Pool kind={self.kind!r} max_workers={self.max_workers}>"

    def __reduce__(self) -> Any:
        # To another interpreter of this process, never to another process: there the id means
        # nothing.
        return _attached, (self._id, os.getpid(), self.kind, self.reason, self.max_workers)


def _attached(identity: int, process: int, kind: str, reason: str, max_workers: int) -> Pool:
    """A task's view of a pool that it was given: the same workers, from another interpreter."""
    if process != os.getpid():
        raise RuntimeError("a plait.Pool cannot travel to another process: make one there")
    pool = Pool.__new__(Pool)
    pool._attach(identity)
    pool.kind, pool.reason, pool.max_workers = kind, reason, max_workers
    return pool


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _in_step(iterables: tuple[Iterable[Any], ...]) -> tuple[bool, Iterator[Any]]:
    """Whether each item is a tuple of arguments, and the items."""
    for iterable in iterables:
        if hasattr(iterable, "__aiter__") and not hasattr(iterable, "__iter__"):
            raise TypeError(
                f"{type(iterable).__name__} is an async iterable: a pool takes its items from "
                "ordinary ones; submit() each item as it comes"
            )
    if len(iterables) == 1:
        return False, iter(iterables[0])
    return True, zip(*iterables, strict=False)


def _window(chunksize: int | None, buffersize: int | None) -> int:
    if chunksize is not None and chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is None:
        return 0
    if not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    return buffersize


def _setup() -> dict[str, Any]:
    """What makes a worker's interpreter resemble this one: sys attributes, natively encodable."""
    return {
        "path": [str(entry) for entry in sys.path],
        "argv": [str(argument) for argument in getattr(sys, "argv", [])],
        "recursion_limit": sys.getrecursionlimit(),
        "dont_write_bytecode": sys.dont_write_bytecode,
        "pycache_prefix": sys.pycache_prefix,
    }


def _blocks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while block := list(itertools.islice(iterator, size)):
        yield block


def _reduce_block(fn: Callable[[Any, Any], Any], block: list[Any]) -> Any:
    return functools.reduce(fn, block)


def _at_exit() -> None:
    """Before the interpreter goes: whatever was submitted is done, as the standard library's pools
    do.

    After Ctrl-C only what cannot be interrupted is waited for; workers must have ended before the
    interpreter.
    """
    _exiting.set()
    pools = list(_pools)
    for pool in pools:
        pool._close(False)
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            for pool in pools:
                pool._join()
            _plait._join_orphans()
            break
        except KeyboardInterrupt as error:
            interrupted = error
            for pool in pools:
                pool._close(True)
                pool._interrupt()
    stop_notifier()
    if interrupted is not None:
        raise interrupted


_plait._register(Future, BrokenPool)
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
