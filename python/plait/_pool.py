"""plait.Pool: workers behind one concurrent.futures.Executor."""

import concurrent.futures
import functools
import itertools
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from plait import _kinds, _limits, _placement, _plait, _preload, _resemble, _reuse
from plait._errors import Interrupted
from plait._future import Future, stop_notifier
from plait._options import Options, given
from plait._view import Calls, PoolView

_NO_OPTIONS: Final = Options()
_STOPS: Final = (KeyboardInterrupt, Interrupted)
_exiting: Final = threading.Event()  # the interpreter's exit has begun
_numbers: Final = itertools.count()  # of pools, for the names of their threads
_pools: Final[weakref.WeakSet["Pool"]] = weakref.WeakSet()


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


class Pool(_plait.PoolBase, Calls):
    """Runs functions on several workers at once: a concurrent.futures.Executor.

    max_workers: at most so many workers; None for cpu_count(). They start as work arrives.
    kind: "thread", "interpreter", "process", or "auto" for the best that serves here; see the
        attributes kind and reason. Where that is interpreters, "auto" has functions that need a
        package that those refuse (plait.isolation) run in processes beside them, if it can see
        that: if the function, or a module of the program that it uses, names or imports it.
    initializer: called as initializer(*initargs) in every worker before its first task; if it
        raises, the pool is broken, and every task fails with BrokenPool.
    thread_name_prefix: of the workers' threads; "" for "plait-" and a number.
    forward_logging: what is logged in workers of other interpreters and processes goes to the
        loggers of this one, at their levels as they are now; their handlers have run before the
        task's result is there. Workers that are threads share the loggers anyway.
    preload: names of modules that every worker imports before its first task; if that fails, the
        pool is broken. Process workers then are copies of one process, the template, that has
        imported them once: they start in a fraction of the time, with or without modules, and
        share the memory. A module that starts threads is imported by each for itself. What it
        registers to be done at exit is done by each.
    isolation: which packages with extension modules interpreter workers import: "probe", those that
        passed a trial in a child process; "force", all; "off", those that CPython itself imports;
        None for what the environment's PLAIT_ISOLATION says, else "probe".

    For process workers, which kind="auto" chooses where one of these is given:

    memory_limit: how much private memory a worker may have, all its own included: bytes, or text
        like "2GB" or "512MiB". A task that asks for more gets a MemoryError that says so, and its
        worker is replaced. (RLIMIT_DATA: code that does not expect a refusal may die of it.)
    max_tasks_per_worker: a worker that has run so many tasks, or items of a map, is replaced.
    niceness: added to the workers' own, as by os.nice().
    cpu_affinity: the numbers of the CPUs that the workers run on, of those of this process.
    env: environment variables that the workers have besides this process's, or instead of them.

    Interpreters of workers take over sys.path, sys.argv, the working directory, the warnings
    filters and the limits of sys as they are now. A task sees the context variables of its
    submitter. What workers print comes out in whole lines, on sys.stdout and sys.stderr of this
    interpreter.

    Raises ValueError for an unknown kind or isolation, isolation for kinds without interpreters,
    limits for kinds without processes, or max_workers < 1, TypeError or ValueError for limits that
    are none, RuntimeError for a kind that cannot serve on this interpreter. All methods may
    be called from any thread.
    """

    _beside: "_placement.Beside | None" = None

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        kind: str = "auto",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        thread_name_prefix: str = "",
        forward_logging: bool = False,
        preload: Iterable[str] | None = None,
        isolation: str | None = None,
        memory_limit: int | str | None = None,
        max_tasks_per_worker: int | None = None,
        niceness: int = 0,
        cpu_affinity: Iterable[int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if _exiting.is_set() or sys.is_finalizing():
            raise RuntimeError("cannot make a pool after interpreter shutdown")
        if max_workers is None:
            max_workers = _plait.cpu_count()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        isolation = _kinds.checked_isolation(isolation, kind)
        modules = _preload.check(preload)
        limits = _limits.check(memory_limit, max_tasks_per_worker, niceness, cpu_affinity, env)
        self.kind, self.reason = _kinds.choose(kind, given(limits))
        mode = isolation or os.environ.get("PLAIT_ISOLATION") or "probe"
        mixed = kind == "auto" and self.kind == "interpreter" and mode != "off"
        needs = [("preload", name.partition(".")[0]) for name in modules or ()]
        for what, one in ("initializer", initializer), *needs:
            refusal = _placement.refusal(mode, one) if mixed and one else None
            if refusal is not None:
                mixed, self.kind = False, "process"
                self.reason = f"its {what} needs {_placement.told(refusal)}"
        self.max_workers = max_workers
        self._home = os.getpid()  # the process whose pool it is
        if self.kind == "interpreter":
            _kinds.prepare_main()
        if self.kind == "thread" and modules:
            initializer = _preload.before(modules, initializer)
        setup: dict[str, Any] = {}
        if self.kind != "thread":
            setup = _resemble.describe(
                self.kind, forward_logging, isolation, limits.of_the_child(), modules or ()
            )
        process: tuple[Any, ...] = ()
        if self.kind == "process":
            from plait import _child

            process = (
                _child.command(),
                () if modules is None else _child.template_command(modules),
                limits.environment(),
                limits.max_tasks_per_worker or 0,
                limits.memory_limit is not None,
            )
        keep = 0
        if initializer is None and not forward_logging and not given(limits):
            keep = _reuse.limit(self.kind)
        self._open(
            self.kind,
            max_workers,
            thread_name_prefix or f"plait-{next(_numbers)}",
            setup,
            initializer,
            tuple(initargs),
            process,
            keep,
        )
        if mixed:
            make = functools.partial(
                Pool,
                max_workers,
                kind="process",
                initializer=initializer,
                initargs=initargs,
                thread_name_prefix=thread_name_prefix,
                forward_logging=forward_logging,
                preload=modules,
            )
            self._beside = _placement.Beside(mode, make)
            self._place_with(self._beside.decide)
        _pools.add(self)

    def options(
        self, *, priority: int = 0, deadline: float | None = None, retries: int = 0
    ) -> PoolView:
        """This pool under options: a light view, usable wherever it is, whose calls carry them.

        priority: -2 to 2, the greater the sooner: it orders what has not begun. A task may wait for
            as long as more urgent ones keep coming. What a task submits to its own pool has none.
        deadline: seconds from the submit, or for a map from its start and for all of it. A call
            that has not ended by then fails with plait.DeadlineExceeded, a TimeoutError. If it
            runs, it has plait.Interrupted raised in it, as by Future.interrupt(), and fails when it
            has ended, whatever it does then; the process of a worker whose call goes on for a
            second is killed. A map raises it instead of its next result that is not there, and has
            ended.
        retries: how often a call, or an item of a map, is run again whose worker process died;
            then it fails with plait.WorkerDied. What it did before is done twice, so it is for what
            may be repeated. Exceptions are not retried, nor is what was interrupted or is past its
            deadline. Only processes die alone: other kinds accept it, to no effect.

        Raises TypeError or ValueError for what is neither. Any thread.
        """
        return PoolView(
            self, _NO_OPTIONS.changed(priority=priority, deadline=deadline, retries=retries)
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more submits. wait: return only when every task has run and every worker has ended.

        cancel_futures: cancel what no worker has begun. May be called more than once.
        """
        pools = self._closing()
        for pool in pools:
            pool._close(cancel_futures)
        if wait:
            for pool in pools:
                pool._join()

    def _closing(self) -> list["Pool"]:
        """This pool and the one beside it, if there is one; none will be made from here on."""
        beside = self._beside.end() if self._beside else None
        return [self] if beside is None else [self, beside]

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        if exc_type is not None and issubclass(exc_type, _STOPS):
            self._stop()
            return
        try:
            self.shutdown(wait=True)
        except _STOPS:
            self._stop()
            raise

    def _stop(self) -> None:
        """After Ctrl-C, or in a call that is interrupted: nobody wants the queue to be worked off,
        nor what runs to be waited for.
        """
        pools = self._closing()
        for pool in pools:
            pool._close(True)
        for pool in pools:
            pool._interrupt()
        for pool in pools:
            pool._join()

    def _elsewhere(self, fn: Callable[..., Any]) -> "Pool":
        """Where fn's calls run: _place_with() has said that they do not run here."""
        assert self._beside is not None
        pool, news = self._beside.pool_for(fn)
        self.reason += news
        return pool

    def __repr__(self) -> str:
        return f"<plait.Pool kind={self.kind!r} max_workers={self.max_workers}>"

    def __reduce__(self) -> Any:
        return _attached, (self._id, self._home, self.kind, self.reason, self.max_workers)

    def _target(self) -> tuple["Pool", Options]:
        return self, _NO_OPTIONS


def _attached(identity: int, process: int, kind: str, reason: str, max_workers: int) -> Pool:
    """A task's view of a pool that it was given: the same workers, from another interpreter, or
    from a worker's process.
    """
    pool = Pool.__new__(Pool)
    pool._attach(identity, process, kind)
    pool._home, pool.kind, pool.reason, pool.max_workers = process, kind, reason, max_workers
    return pool


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


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
            _reuse.end()
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

# In the child of a fork, the threads that did not come along are let go of before threading makes
# its lock anew; it takes that lock for threads it has not started, as thread workers are.
_threads_lock: Final = threading._active_limbo_lock  # type: ignore[attr-defined]
os.register_at_fork(
    before=_threads_lock.acquire,
    after_in_parent=_threads_lock.release,
    after_in_child=_threads_lock.release,
)
