"""map() in a process worker's child, over a pool of the parent's: one call for each item.

Everything that a map promises holds: order, what an item raises at its place, the window, timeouts,
deadlines and retries. Only its blocks and its stealing by halves are missing, since the scheduler
is the parent's: an item costs as much as a submit().
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import Future as PlainFuture
from typing import TYPE_CHECKING, Any, Final

from plait._errors import DeadlineExceeded
from plait._future import Future
from plait._options import Options

if TYPE_CHECKING:
    from plait._pool import Pool

# So many items are taken and not yet given back, where the caller says nothing.
_WINDOW: Final = 10_000
_SLICE: Final = 0.005  # seconds; how long one of several calls is waited for at a time


class Map:
    """What MapIterator is elsewhere, with the same methods. One thread at a time."""

    def __init__(
        self,
        pool: "Pool",
        fn: Callable[..., Any],
        items: Iterator[Any],
        star: bool,
        ordered: bool,
        timeout: float | None,
        window: int,
        options: Options,
        lazy: bool,
    ) -> None:
        now = time.monotonic()
        self._begun = False
        self._pool: Pool | None = pool
        self._fn, self._star, self._ordered = fn, star, ordered
        self._window = window or _WINDOW
        self._options = options
        self._input: Iterator[Any] | None = items
        self._pending: deque[Future] = deque()
        self._ends = None if timeout is None else now + timeout
        self._waited = 0.0  # seconds
        self._deadline = None if options.deadline is None else now + options.deadline
        while self._has_room() and not self._is_late():
            self._feed()
            if lazy:
                break

    def __iter__(self) -> "Map":
        return self

    def __next__(self) -> Any:
        """The next result; waits for it."""
        self._begun = True
        while (value := self._next()) is self:
            self._wait()
        return value

    def close(self) -> None:
        """Gives up what is left, and cancels what has not begun if a result was asked for."""
        pending, self._pending = self._pending, deque()
        self._pool = self._input = None
        if self._begun:
            for future in pending:
                future.cancel()

    def __del__(self) -> None:
        if getattr(self, "_begun", False) and self._pending:
            self.close()

    def _step(self) -> Any:
        """The next value, or this itself if it is not there yet. Does not wait, but helps."""
        self._begun = True
        while (value := self._next()) is self:
            if not self._pending[0]._help(self._waited):
                return self
        return value

    def _arrival(self) -> Any:
        """A future that is done as soon as another _step() may get further; None if it may now."""
        if self._due() is not None:
            return None
        arrival: PlainFuture[None] = PlainFuture()

        def tell(_: Future) -> None:
            if arrival.set_running_or_notify_cancel():
                arrival.set_result(None)

        self._pending[0].add_done_callback(tell)
        return arrival

    def _has_room(self) -> bool:
        return self._input is not None and len(self._pending) < self._window

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _feed(self) -> None:
        """One item of the input; raises what that raises."""
        assert self._input is not None
        assert self._pool is not None
        try:
            item = next(self._input)
        except StopIteration:
            self._pool = self._input = None
            return
        except BaseException:
            self._pool = self._input = None
            raise
        options = self._options
        if self._deadline is not None:
            left = max(self._deadline - time.monotonic(), 1e-9)
            options = options._replace(deadline=left)
        args = tuple(item) if self._star else (item,)
        self._pending.append(self._pool._submit_with(options, self._fn, *args))

    def _next(self) -> Any:
        """The next value if it is there, else this itself. Raises StopIteration at the end."""
        late = self._is_late()
        while self._has_room() and not late:
            self._feed()
            late = self._is_late()
        if not self._pending and self._input is None:
            raise StopIteration
        index = self._due()
        if index is not None:
            future = self._pending[index]
            del self._pending[index]
            return self._give(future)
        if late:
            self._give_up()
        return self

    def _due(self) -> int | None:
        if self._ordered:
            return 0 if self._pending and self._pending[0].done() else None
        return next((n for n, future in enumerate(self._pending) if future.done()), None)

    def _give(self, future: Future) -> Any:
        try:
            error = future.exception()
        except CancelledError:  # nothing more will come
            self.close()
            raise
        if isinstance(error, DeadlineExceeded) and self._is_late():
            self._give_up()
        if isinstance(error, StopIteration):  # it would end the iteration in silence
            raise RuntimeError("the function of a map raised StopIteration") from error
        return future.result()

    def _give_up(self) -> None:
        self.close()
        raise DeadlineExceeded("the deadline of the map passed before all its results were there")

    def _wait(self) -> None:
        """Until something may have come; raises TimeoutError when that takes too long.

        The patience of a worker that waits for another pool is for the map, not for each item.
        """
        now = time.monotonic()
        waits = [end - now for end in (self._ends, self._deadline) if end is not None]
        if self._waited > 0 or (not self._ordered and len(self._pending) > 1):
            waits.append(_SLICE)
        try:
            if not self._pending[0]._help(self._waited):
                self._pending[0].exception(max(min(waits), 0) if waits else None)
        except CancelledError:
            pass
        except TimeoutError:
            if self._due() is None and self._ends is not None and time.monotonic() >= self._ends:
                raise
        self._waited += time.monotonic() - now
