"""Who takes part: plait's kinds and the standard library's pools, behind one small face."""

import concurrent.futures
import importlib.util
import multiprocessing
import multiprocessing.pool
import site
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plait
from plait import _plait as binding

HERE = str(Path(__file__).resolve().parent)
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# Names, as they stand in tables and in --json files.
BUILTIN = "builtin map"
THREADS = "ThreadPoolExecutor"
PROCESSES = "ProcessPoolExecutor"
INTERPRETERS = "InterpreterPoolExecutor"
MULTIPROCESSING = "multiprocessing.Pool"
PLAIT_THREAD = "plait thread"
PLAIT_INTERPRETER = "plait interpreter"
PLAIT_PROCESS = "plait process"
PLAIT_COPIES = "plait process, preload"
HERE_ITSELF = "this process"


@dataclass(frozen=True)
class Contestant:
    """One pool: its name, how to make it with so many workers, and what it can do.

    slowness: about how many times plait's cost per task: such contestants get fewer tasks.
    chunked: its map() needs a chunk size to do well.
    submits: it has submit(), and not only map().
    """

    name: str
    open: Callable[[int], Any]
    slowness: int = 1
    chunked: bool = False
    submits: bool = True

    @property
    def is_plait(self) -> bool:
        return self.name.startswith("plait")

    def map(self, pool: Any, fn: Callable[..., Any], items: Any, chunk: int = 0) -> Iterator[Any]:
        """The pool's map, with a chunk size where that helps; 0 for the pool's own default."""
        if not self.chunked:
            return pool.map(fn, items)
        if isinstance(pool, multiprocessing.pool.Pool):
            return iter(pool.map(fn, items, chunk or None))
        return pool.map(fn, items, chunksize=chunk or 1)


def _interpreters(workers: int) -> Any:
    # Its interpreters do not look where this script looks.
    pool = concurrent.futures.InterpreterPoolExecutor  # type: ignore[attr-defined]
    return pool(workers, initializer=site.addsitedir, initargs=(HERE,))


def _stdlib() -> Iterator[Contestant]:
    yield Contestant(THREADS, concurrent.futures.ThreadPoolExecutor, slowness=4)
    yield Contestant(PROCESSES, concurrent.futures.ProcessPoolExecutor, slowness=20, chunked=True)
    if hasattr(concurrent.futures, "InterpreterPoolExecutor"):
        yield Contestant(INTERPRETERS, _interpreters, slowness=20)
    yield Contestant(
        MULTIPROCESSING, multiprocessing.Pool, slowness=20, chunked=True, submits=False
    )


def _plait() -> Iterator[Contestant]:
    for kind in ("thread", "interpreter", "process"):
        yield Contestant(f"plait {kind}", lambda workers, kind=kind: plait.Pool(workers, kind=kind))


# Processes that are copies of one, which has what they run; so has a forkserver that of __main__.
COPIES = Contestant(
    PLAIT_COPIES, lambda workers: plait.Pool(workers, kind="process", preload=["work"])
)


def _serves(contestant: Contestant) -> bool:
    try:
        close(contestant.open(1))
    except (RuntimeError, ValueError):
        return False
    return True


def all_contestants() -> list[Contestant]:
    """Everybody that serves on this interpreter."""
    return [*filter(_serves, _plait()), *_stdlib()]


def by_name(name: str) -> Contestant:
    """Without trying whether it serves, which would leave something for the next pool."""
    return next(one for one in (*_plait(), *_stdlib()) if one.name == name)


def auto_kind() -> str:
    """The contestant that is plait's choice here."""
    with plait.Pool(1) as pool:
        return f"plait {pool.kind}"


HAS_NUMPY = importlib.util.find_spec("numpy") is not None


def forget_kept() -> None:
    """Ends what plait keeps for later pools."""
    binding._end_kept(False)


def forks(contestant: Contestant) -> bool:
    return contestant.name in (PROCESSES, MULTIPROCESSING)


@contextmanager
def opened(contestants: Iterable[Contestant], workers: int) -> Iterator[dict[str, Any]]:
    """Pools of so many workers by name, all warm; processes first, while there are few threads."""
    pools: dict[str, Any] = {}
    try:
        for contestant in sorted(contestants, key=forks, reverse=True):
            pools[contestant.name] = pool = contestant.open(workers)
            list(contestant.map(pool, abs, range(workers * 4)))
        yield pools
    finally:
        for pool in pools.values():
            close(pool)


def close(pool: Any) -> None:
    """Ends the pool and waits for its workers."""
    if isinstance(pool, multiprocessing.pool.Pool):
        pool.close()
        pool.join()
    else:
        pool.shutdown()
