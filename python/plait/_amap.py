"""The asynchronous iterator of Pool.amap()."""

import asyncio
from typing import Any, Final

from plait import _plait

# Results that are there are given without giving way to other tasks of the loop; so many at most.
_TURN: Final = 128


class AsyncMap:
    """The results of Pool.amap(), in order: an asynchronous iterator.

    What is there is given at once. What is not is waited for by a future that becomes done when
    something arrives from the workers; it blocks no thread and needs none of its own.
    """

    def __init__(self, results: _plait.MapIterator) -> None:
        self._results: _plait.MapIterator | None = results
        self._waiting = False
        self._given = 0

    def __aiter__(self) -> "AsyncMap":
        return self

    async def __anext__(self) -> Any:
        """The next result; raises what fn raised, and goes on after it."""
        if self._waiting:
            raise RuntimeError("another task is waiting for the next result of this amap()")
        self._waiting = True
        try:
            return await self._next()
        finally:
            self._waiting = False

    async def aclose(self) -> None:
        """Cancels what is left."""
        self._cancel()

    async def _next(self) -> Any:
        while (results := self._results) is not None:
            try:
                value = results._step()
            except StopIteration:
                self._results = None
                break
            except StopAsyncIteration as error:  # fn's; it would end the loop in silence
                raise RuntimeError("the function of a map raised StopAsyncIteration") from error
            if value is not results:
                self._given += 1
                if self._given % _TURN == 0:
                    await self._wait(asyncio.sleep(0))
                return value
            arrival = results._arrival()
            del results  # only self keeps it, so that its end is noticed
            await self._wait(asyncio.sleep(0) if arrival is None else asyncio.wrap_future(arrival))
        raise StopAsyncIteration

    async def _wait(self, awaited: Any) -> None:
        try:
            await awaited
        except BaseException:  # the task is cancelled
            self._cancel()
            raise

    def _cancel(self) -> None:
        if self._results is not None:
            self._results.close()
            self._results = None
