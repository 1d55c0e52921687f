"""Pool.options(): a pool under other options, and the calls that a pool and its views share."""

import concurrent.futures
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from plait._future import Future
from plait._options import Options

if TYPE_CHECKING:
    from plait._amap import AsyncMap
    from plait._plait import MapIterator
    from plait._pool import Pool

# reduce() cuts its input here, so that the tree of calls depends on the input alone.
_REDUCE_BLOCK: Final = 256


class _Kept:
    """Stands for what is not given where None means something."""

    def __repr__(self) -> str:
        return "as it is"


_KEPT: Final[Any] = _Kept()


class Calls(concurrent.futures.Executor):
    """map() and its kin, over a pool and under options: what Pool and PoolView have in common."""

    def _target(self) -> "tuple[Pool, Options]":
        """The pool and the options."""
        raise NotImplementedError

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
        return self._start_map(fn, items, star, True, timeout, _window(chunksize, buffersize))

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
        return self._start_map(fn, items, star, False, timeout, _window(chunksize, buffersize))

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
        return self._start_map(fn, iter(iterable), True, True, timeout, window)

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
        window = _window(None, buffersize)
        return AsyncMap(self._start_map(fn, items, star, True, None, window, lazy=True))

    def reduce(self, fn: Callable[[Any, Any], Any], iterable: Iterable[Any], initial: Any) -> Any:
        """initial combined with every item by fn, which must be associative.

        The items are combined in a tree whose shape depends on their number alone, never on the
        workers, so that the result is the same every time even where fn is only nearly associative
        (floats).
        """
        level: Iterable[Any] = iterable
        combine = functools.partial(_reduce_block, fn)
        pool, options = self._target()
        ends = None if options.deadline is None else time.monotonic() + options.deadline
        while True:
            if ends is not None:  # one deadline for the maps of all levels
                options = options._replace(deadline=ends - time.monotonic())
            blocks = _blocks(level, _REDUCE_BLOCK)
            level = list(pool._map(combine, blocks, False, True, None, 0, options, False))
            if len(level) <= 1:
                return functools.reduce(fn, level, initial)

    def _start_map(
        self,
        fn: Callable[..., Any],
        items: Iterator[Any],
        star: bool,
        ordered: bool,
        timeout: float | None,
        window: int,
        *,
        lazy: bool = False,
    ) -> "MapIterator":
        pool, options = self._target()
        return pool._map(fn, items, star, ordered, timeout, window, options, lazy)


class PoolView(Calls):
    """A pool whose calls carry a priority, a deadline or retries: what Pool.options() returns.

    Wherever the pool can be used so can the view; it has no workers of its own. Shutting it down,
    or leaving a with block of it, shuts the pool down. Any thread.
    """

    def __init__(self, pool: "Pool", options: Options) -> None:
        self.pool: Final = pool
        self._options: Final = options

    @property
    def priority(self) -> int:
        """-2 to 2, the greater the sooner."""
        return self._options.priority

    @property
    def deadline(self) -> float | None:
        """Seconds from the submit, or from the start of a map."""
        return self._options.deadline

    @property
    def retries(self) -> int:
        """How often a call is run again whose worker process died."""
        return self._options.retries

    @property
    def kind(self) -> str:
        """The pool's."""
        return self.pool.kind

    @property
    def reason(self) -> str:
        """The pool's."""
        return self.pool.reason

    @property
    def max_workers(self) -> int:
        """The pool's."""
        return self.pool.max_workers

    def options(
        self, *, priority: int = _KEPT, deadline: float | None = _KEPT, retries: int = _KEPT
    ) -> "PoolView":
        """Another view of the pool; what is not given is as it is here."""
        given = {"priority": priority, "deadline": deadline, "retries": retries}
        changes = {name: value for name, value in given.items() if value is not _KEPT}
        return PoolView(self.pool, self._options.changed(**changes))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Pool.submit under the view's options."""
        future: Future = self.pool._submit_with(self._options, fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """The pool's, for all who use it."""
        self.pool.shutdown(wait, cancel_futures=cancel_futures)

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        self.pool.__exit__(exc_type, exc_val, exc_tb)

    def __repr__(self) -> str:
        return f"<plait.PoolView {' '.join([*self._options.told(), 'of'])} {self.pool}>"

    def __reduce__(self) -> Any:
        return PoolView, (self.pool, self._options)

    def _target(self) -> "tuple[Pool, Options]":
        return self.pool, self._options


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


def _blocks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while block := list(itertools.islice(iterator, size)):
        yield block


def _reduce_block(fn: Callable[[Any, Any], Any], block: list[Any]) -> Any:
    return functools.reduce(fn, block)
