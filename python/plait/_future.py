"""plait.Future: what a pool's submit() returns.

Waiting for a result goes straight to the task's state in the core. Only what concurrent.futures
itself wants of a future, a condition to lock and waiters to tell, needs a *bridge*: it is made when
first asked for, and from then on the future's public state changes only under the bridge's
condition, by `_publish`, which the notifier's thread calls when the task has ended. That is the
protocol of wait() and as_completed().
"""

import concurrent.futures
import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import _base
from typing import Any

from plait import _plait


class _Bridge:
    """What concurrent.futures expects of a future that it waits for."""

    def __init__(self) -> None:
        # A condition is entered by its lock here: in Condition.__enter__, which is Python's own
        # code, Ctrl-C may come when the lock is taken and the with block has not begun.
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)
        self.waiters: list[Any] = []
        self.callbacks: list[Callable[[Any], object]] = []
        self.published = False  # under lock


class Future(_plait.FutureBase, concurrent.futures.Future):  # type: ignore[type-arg]
    """The result-to-be of a call; a concurrent.futures.Future. Made by pools only. Any thread."""

    __slots__ = ()

    def _bridged(self) -> _Bridge:
        bridge: _Bridge | None = self._bridge
        if bridge is None:
            _notifier.expect()
            # From here on the notifier may publish at any moment.
            if not self._watch(_Bridge()):
                _notifier.tell(1)
                if self.done():
                    self._publish()
            bridge = self._bridge
        return bridge

    def _publish(self) -> None:
        """Tells everybody that the future is final: once, by whoever comes first."""
        bridge = self._bridge
        with bridge.lock:
            if bridge.published:
                return
            bridge.published = True
            for waiter in bridge.waiters:
                if self.cancelled():
                    waiter.add_cancelled(self)
                elif self.exception() is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            bridge.condition.notify_all()
        for callback in bridge.callbacks:
            self._call_back(callback)

    def _call_back(self, callback: Callable[[Any], object]) -> None:
        try:
            callback(self)
        except BaseException:  # SystemExit, too: other futures' callbacks run in this thread
            _base.LOGGER.exception("exception calling callback for %r", self)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Calls fn(future) once the future is final: in the notifier's thread, or now.

        As in concurrent.futures, a callback must not block: others wait for their turn.
        """
        bridge = self._bridged()
        with bridge.lock:
            if not bridge.published:
                bridge.callbacks.append(fn)
                return
        self._call_back(fn)

    def __await__(self) -> Generator[Any, None, Any]:
        """The result, in a coroutine; if that is cancelled, so is a call that has not begun."""
        import asyncio  # here, since only coroutines come here

        return asyncio.wrap_future(self).__await__()

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        return self._bridged().condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        return self._bridged().waiters

    @property
    def _state(self) -> str:  # type: ignore[override]
        bridge = self._bridge
        final = self.done() if bridge is None else bridge.published
        if not final:
            return _base.RUNNING if self.running() else _base.PENDING
        return _base.CANCELLED_AND_NOTIFIED if self.cancelled() else _base.FINISHED

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        """(done, cancelled, result, exception): what asyncio asks for from CPython 3.15 on."""
        if not self.done() or self.cancelled():
            return self.done(), self.cancelled(), None, None
        error = self.exception()
        return True, False, self.result() if error is None else None, error

    def __repr__(self) -> str:
        state = _base._STATE_TO_DESCRIPTION_MAP[self._state]
        told = ""
        if self.done() and not self.cancelled():
            error = self.exception()
            told = (
                f" raised {type(error).__name__}"
                if error
                else f" returned {type(self.result()).__name__}"
            )
        return f"<{type(self).__name__} at {id(self):#x} state={state}{told}>"

    def set_result(self, result: object) -> None:
        """Refused: only the worker that runs the call can set its result."""
        raise _base.InvalidStateError(f"a result cannot be set on {self!r}: its worker does that")

    def set_exception(self, exception: BaseException | None) -> None:
        """Refused: only the worker that runs the call can set its exception."""
        raise _base.InvalidStateError(
            f"an exception cannot be set on {self!r}: its worker does that"
        )

    def set_running_or_notify_cancel(self) -> bool:
        """Refused: only the worker that runs the call can say so."""
        raise _base.InvalidStateError(f"{self!r} is run by its pool alone")


class _Notifier:
    """The thread that publishes watched futures; started when the first one is."""

    def __init__(self) -> None:
        # Reentrant, as what runs at any time (a signal's handler, a destructor) may use futures.
        self._lock = threading.RLock()
        self._told = threading.Condition(self._lock)
        self._expected = 0  # futures that it has to publish
        self._started = False
        self._thread: threading.Thread | None = None  # the one that serves

    def expect(self) -> None:
        """One future more."""
        with self._lock:
            if not self._started:
                # Ctrl-C may end start() when the thread is there: then another one is started, and
                # the first to run serves.
                threading.Thread(target=self._run, name="plait-notifier", daemon=False).start()
                self._started = True
            self._expected += 1

    def tell(self, count: int) -> None:
        """So many have been published, or need not be."""
        with self._lock:
            self._expected -= count
            self._told.notify_all()

    def _run(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.current_thread()
        while (futures := _plait._take_finished()) is not None:
            count = len(futures)
            for future in futures:
                future._publish()
            del futures, future
            self.tell(count)

    def stop(self) -> None:
        """At the interpreter's end: what it watches is published first, whoever runs it."""
        with self._lock:
            self._told.wait_for(lambda: self._expected == 0)
        _plait._close_notifier()
        if self._thread is not None:
            self._thread.join()


_notifier = _Notifier()


def stop_notifier() -> None:
    """At the interpreter's exit, when every pool has ended; due callbacks are called first."""
    _notifier.stop()


def _after_fork() -> None:
    """In the child: the parent's notifier is not here, and its lock may be held by nobody."""
    global _notifier
    _notifier = _Notifier()
    _plait._after_fork()


os.register_at_fork(after_in_child=_after_fork)
