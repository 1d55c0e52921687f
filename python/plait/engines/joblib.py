"""joblib on plait: importing this module registers the parallel backend "plait".

    import joblib
    import plait.engines.joblib

    with joblib.parallel_config("plait", n_jobs=-1):  # kind="thread" or "interpreter" if it matters
        scores = joblib.Parallel()(joblib.delayed(score)(row) for row in rows)

A call of Parallel has a pool of its own as long as it runs, or as its with block lasts. The pool
then stays for the next call that wants the same kind, number of workers and initializer; up to four
such pools are kept, until shutdown() or the exit. A call that fails, times out or is given up
cancels and interrupts its tasks; if one of them does not stop soon (time.sleep, a long C call), its
pool is left to it and not used again. Design: docs/design/joblib.md
"""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import _base
from typing import Any, Final

from plait import _kinds
from plait._future import Future
from plait._pool import BrokenPool, Pool, _attached
from plait.engines._joblib_worker import Nest, here, prepare, run

# isort: split
# After _joblib_worker, which knows how to import it in a worker.
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    cpu_count,
    register_parallel_backend,
)

_KEPT: Final = 4  # pools that wait for a call
_GRACE: Final = 0.05  # seconds for interrupted tasks to end, before their pool is given up
_LOOK: Final = 1.0  # seconds: how late Ctrl-C is seen that came just before a wait
_FUNCTIONS: Final = 16  # that a call keeps prepared; as many as a pool recognises

_Future = concurrent.futures.Future[list[Any]]


# ---- pools ----


class _Made:
    """A pool, and what it was made from."""

    def __init__(self, kind: str, workers: int, setup: tuple[Any, ...]) -> None:
        self.kind, self.workers, self.setup = kind, workers, setup
        initializer, initargs = setup[0], setup[1:]
        if kind == "interpreter":
            initializer, initargs = prepare, setup
        self.pool = Pool(workers, kind=kind, initializer=initializer, initargs=initargs)

    def serves(self, kind: str, workers: int, setup: tuple[Any, ...]) -> bool:
        """Whether the pool is such a one. Arguments of initializers are compared by identity."""
        return (
            (self.kind, self.workers, len(self.setup)) == (kind, workers, len(setup))
            and self.setup[0] == setup[0]
            and all(own is other for own, other in zip(self.setup[1:], setup[1:], strict=True))
        )


class _Pools:
    """The pools that no call uses now. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collected generator gives back, wherever it is collected
        self._idle: list[_Made] = []  # the one given back last comes last

    def borrow(self, kind: str, workers: int, setup: tuple[Any, ...]) -> _Made:
        """A pool that is the caller's until it is given back."""
        with self._lock:
            for made in reversed(self._idle):
                if made.serves(kind, workers, setup):
                    with contextlib.suppress(ValueError):  # ended just now, by a collection
                        self._idle.remove(made)
                        return made
        return _Made(kind, workers, setup)

    def give_back(self, made: _Made, *, sound: bool) -> None:
        """Keeps the pool for others if it is sound, else ends it when its tasks have."""
        ended = [made]
        with self._lock:
            if sound:
                self._idle.append(made)
                ended, self._idle = self._idle[:-_KEPT], self._idle[-_KEPT:]
        for other in ended:
            other.pool.shutdown(wait=False)

    def clear(self) -> None:
        """Ends them all."""
        with self._lock:
            ended, self._idle = self._idle, []
        for made in ended:
            made.pool.shutdown()


_pools = _Pools()


def shutdown() -> None:
    """Ends the pools that are kept. What calls use stays with them."""
    _pools.clear()


# ---- calls of Parallel ----

_active: Final[set["_Call"]] = set()


def _bind(nest: Nest, function: Callable[..., Any]) -> Callable[..., list[Any]]:
    def bound(calls: list[Any]) -> list[Any]:
        return run(nest, [(function, args, kwargs) for args, kwargs in calls])

    return bound


class _Call:
    """What one call of Parallel has running in a pool. Any thread.

    joblib's callbacks run in a thread of the call's own, not in plait's notifier: in them joblib
    takes the next items from the user's iterator, which may block, or wait for another call.
    """

    def __init__(self, pool: Pool, level: int, made: _Made | None) -> None:
        self._pool = pool
        self._made = made  # to be given back
        self._sound = True  # with no task left that does not stop
        self._nest: Nest = (pool.__reduce__()[1], level)
        self._bound: dict[int, Callable[..., list[Any]]] = {}
        self._unfinished: set[_Future] = set()
        self._finished: queue.SimpleQueue[tuple[_Future, Callable[..., object]] | None]
        self._finished = queue.SimpleQueue()
        self._calling = threading.RLock()  # held while a callback runs
        self._stopped = False  # no callback begins any more
        self._lock = threading.RLock()  # guards what follows; entered as in plait._future
        self._changed = threading.Condition(self._lock)
        self._undelivered = 0
        self._thread: threading.Thread | None = None
        self._closed = False
        _active.add(self)

    def start(self, tasks: list[Any]) -> _Future:
        """Submits a batch. What it raises, its future does."""
        future: _Future
        try:
            if self._pool.kind == "thread" or any(task[0] is not tasks[0][0] for task in tasks):
                future = self._pool.submit(run, self._nest, tasks)
            else:
                future = self._pool.submit(
                    self._bind(tasks[0][0]), [(args, kwargs) for _, args, kwargs in tasks]
                )
        except Exception as error:
            future = concurrent.futures.Future()
            future.set_exception(error)
        self._unfinished.add(future)
        return future

    def _bind(self, function: Callable[..., Any]) -> Callable[..., list[Any]]:
        """What runs batches of one function, which then travels once and not with every batch."""
        bound = self._bound.get(id(function))
        if bound is None:
            if len(self._bound) == _FUNCTIONS:
                self._bound.clear()
            bound = self._bound[id(function)] = _bind(self._nest, function)
        return bound

    def deliver(self, future: _Future, callback: Callable[..., object]) -> None:
        """Calls callback(future) in the call's thread, once the future is final."""
        with self._lock:
            self._undelivered += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver_all, name="plait-joblib")
                self._thread.start()
        future.add_done_callback(functools.partial(self._hand_over, callback))

    def _hand_over(self, callback: Callable[..., object], future: _Future) -> None:
        self._unfinished.discard(future)
        self._finished.put((future, callback))

    def _deliver_all(self) -> None:
        while self._deliver_one(self._finished.get()):
            pass

    def _deliver_one(self, finished: tuple[_Future, Callable[..., object]] | None) -> bool:
        if finished is None:
            return False
        future, callback = finished
        error = None if future.cancelled() else future.exception()
        frames = None if error is None else error.__traceback__
        with self._calling:
            try:
                if not self._stopped:
                    callback(future)
            except BaseException:
                _base.LOGGER.exception("exception calling callback for %r", future)
        if error is not None:
            error.__traceback__ = frames  # joblib drops it, and it shows where the task failed
            if isinstance(error, BrokenPool):
                self._sound = False
        with self._lock:
            self._undelivered -= 1
            self._changed.notify_all()
        return True

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Until everything is delivered, or stopped() after something was."""
        with self._lock:
            while not (self._undelivered == 0 or stopped()):
                self._changed.wait(_LOOK)

    def result(self, future: _Future, timeout: float | None) -> list[Any]:
        """A result that a worker waits for, while it runs what else there is.

        What takes longer than the timeout may lie on top of the one who waits, who then cannot
        look at the clock: so everything is interrupted.
        """
        late = threading.Event()
        timer = None if timeout is None else threading.Timer(timeout, self._time_out, [late])
        if timer is not None:
            timer.start()
        try:
            return future.result()
        except BaseException:
            if late.is_set():
                raise multiprocessing.TimeoutError from None
            raise
        finally:
            self._unfinished.discard(future)
            if timer is not None:
                timer.cancel()

    def _time_out(self, late: threading.Event) -> None:
        late.set()
        self._interrupt()

    def _interrupt(self) -> list[_Future]:
        futures = list(self._unfinished)
        for future in futures:
            if isinstance(future, Future):
                future.interrupt()
        return futures

    def _stop(self) -> None:
        """No callback runs from now on: it would count for the next call of the same Parallel."""
        self._stopped = True
        with self._calling:
            pass

    def abort(self) -> None:
        """Cancels what is queued, interrupts what runs."""
        self._stop()
        futures = self._interrupt()
        if self._made is not None and isinstance(sys.exception(), KeyboardInterrupt):
            # It may have come between a submit and the note of its future: the whole pool ends.
            self._sound = False
            self._made.pool._close(True)
            self._made.pool._interrupt()
        elif self._made is not None and futures:
            _, late = concurrent.futures.wait(futures, _GRACE)
            self._sound &= not late

    def close(self) -> None:
        """Lets go of the pool. May be called more than once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._stop()
        _active.discard(self)
        self._finished.put(None)
        if self._made is not None:
            _pools.give_back(self._made, sound=self._sound)


# ---- the backend ----


class PlaitBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """joblib's parallel backend "plait".

    kind: as for plait.Pool; it is an attribute, as is the reason of "auto".
    initializer, initargs: called in every worker before its first task.

    Calls of Parallel inside a task run in the same pool: whoever waits there runs other tasks, so
    any depth of them ends, and no further worker is started. Asked for a generator inside a task,
    joblib runs the items one by one as they are taken.
    """

    supports_return_generator = True
    supports_timeout = True
    supports_retrieve_callback = True  # of an instance that serves inside a task: False

    # Seconds. joblib's own are for processes: here a hundredth pays for the hand-over of a batch.
    MIN_IDEAL_BATCH_DURATION = 0.005
    MAX_IDEAL_BATCH_DURATION = 0.05

    def __init__(
        self,
        kind: str = "auto",
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self.kind, self.reason = _kinds.choose(kind)
        self.uses_threads = self.supports_sharedmem = self.kind == "thread"
        self.parallel: Any = None
        self._setup = (initializer, *initargs)
        self._count = 0
        self._call: _Call | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers n_jobs stands for; inside a task at most as many as there are."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        nest = self._own_nest()
        most: int = cpu_count() if nest is None else nest[0][4]
        if n_jobs < 0:
            n_jobs = max(most + 1 + n_jobs, 1)
        return n_jobs if nest is None else min(n_jobs, most)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        *,
        kind: str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **_: Any,
    ) -> int:
        """Gets a pool for a call of Parallel; what its keywords say goes before the backend's.

        Further keywords are joblib's, for backends of processes.
        """
        setup = self._setup if initializer is None else (initializer, *initargs)
        other_kind = kind is not None and _kinds.choose(kind)[0] != self.kind
        if other_kind or (self._call is not None and self.parallel is not parallel):
            raise FallbackToBackend(self._another(kind or self.kind, setup))
        workers = self.effective_n_jobs(n_jobs)
        inside = self._own_nest() is not None and setup[0] is None
        # Where a worker waits it must help, which it cannot while joblib polls for a generator.
        if workers == 1 or (inside and parallel.return_as != "list"):
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel, self._count, self._setup = parallel, workers, setup
        self.supports_retrieve_callback = not inside
        self._open()
        return workers

    def _another(self, kind: str, setup: tuple[Any, ...]) -> "PlaitBackend":
        return type(self)(
            kind, initializer=setup[0], initargs=setup[1:], nesting_level=self.nesting_level
        )

    def _own_nest(self) -> Nest | None:
        """Of the task that this runs in, if its pool can serve."""
        nest = here.nest
        return nest if nest is not None and nest[0][2] == self.kind else None

    def _open(self) -> None:
        level = (self.nesting_level or 0) + 1
        if self.supports_retrieve_callback:
            made = _pools.borrow(self.kind, self._count, self._setup)
            self._call = _Call(made.pool, level, made)
        else:
            assert here.nest is not None
            self._call = _Call(_attached(*here.nest[0]), level, None)

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """What calls of Parallel inside a task use."""
        return PlaitBackend(self.kind, nesting_level=(self.nesting_level or 0) + 1), None

    def submit(self, func: Any, callback: Callable[..., object] | None = None) -> Any:
        """Starts a batch."""
        call = self._call
        if call is None:
            raise RuntimeError("this call of joblib.Parallel has ended")
        future = call.start(func.items)
        if not self.supports_retrieve_callback:
            return future, callback
        if callback is not None:
            call.deliver(future, callback)
        return future

    def retrieve_result_callback(self, out: _Future) -> list[Any]:
        """The results of a batch that has ended, or what it raised."""
        return out.result()

    def retrieve_result(
        self, out: tuple[_Future, Callable[..., object] | None], timeout: float | None = None
    ) -> list[Any]:
        """Inside a task: the results of a batch, for which the worker runs others meanwhile.

        The callback, which submits more, runs here: what its own worker submits a worker finds.
        """
        future, callback = out
        call = self._call
        if call is None:
            raise RuntimeError("this call of joblib.Parallel has ended")
        results = call.result(future, timeout)
        if callback is not None:
            callback(future)
        return results

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Waits until all is there, or something failed: joblib itself would look every 10 ms."""
        call, parallel = self._call, self.parallel
        plain = parallel.return_as == "list" and parallel.timeout is None
        if call is not None and plain and self.supports_retrieve_callback:
            call.wait(lambda: getattr(parallel, "_aborting", True))
        yield

    def terminate(self) -> None:
        """The call of Parallel, or its with block, has ended: the pool is there for others."""
        call, self._call = self._call, None
        if call is not None:
            call.close()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancels and interrupts what this call of Parallel has started, and nothing else."""
        call = self._call
        if call is None:
            return
        call.abort()
        # joblib sets batches aside for the next callback, and would give them to the next call.
        batches = getattr(self.parallel, "_ready_batches", None)
        with contextlib.suppress(queue.Empty):
            while batches is not None:
                batches.get_nowait()
        self.terminate()
        if ensure_ready:
            self._open()


def _at_exit() -> None:
    """Before the pools are waited for: generators that were not exhausted are given up."""
    for call in list(_active):
        call.abort()
        call.close()


def _after_fork() -> None:
    """In the child, which has none of the workers."""
    global _pools
    _pools = _Pools()
    _active.clear()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_after_fork)
register_parallel_backend("plait", PlaitBackend)
