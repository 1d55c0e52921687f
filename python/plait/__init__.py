"""plait: ordinary Python on every core, in one process.

    import plait

    with plait.Pool() as pool:                    # a concurrent.futures.Executor
        total = sum(pool.map(score, rows))

Everything is imported on first use, and this module itself imports nothing: every worker's
interpreter imports it, and pays only for what it runs.
"""

TYPE_CHECKING = False  # known to type checkers; the typing module would cost twenty imports
if TYPE_CHECKING:
    from plait._default import amap, map, submit
    from plait._errors import DeadlineExceeded, Interrupted, RemoteError
    from plait._future import Future
    from plait._plait import cpu_count
    from plait._pool import BrokenPool, Pool, WorkerDied
    from plait._trust import Isolation, isolation
    from plait._view import PoolView

__all__ = [
    "BrokenPool",
    "DeadlineExceeded",
    "Future",
    "Interrupted",
    "Isolation",
    "Pool",
    "PoolView",
    "RemoteError",
    "WorkerDied",
    "amap",
    "cpu_count",
    "isolation",
    "map",
    "submit",
]
__version__ = "0.1.0"

_homes = {
    "BrokenPool": "plait._pool",
    "DeadlineExceeded": "plait._errors",
    "Future": "plait._future",
    "Interrupted": "plait._errors",
    "Isolation": "plait._trust",
    "Pool": "plait._pool",
    "PoolView": "plait._view",
    "RemoteError": "plait._errors",
    "WorkerDied": "plait._pool",
    "amap": "plait._default",
    "cpu_count": "plait._plait",
    "isolation": "plait._trust",
    "map": "plait._default",
    "submit": "plait._default",
}


def __getattr__(name: str) -> object:
    if name not in _homes:
        raise AttributeError(f"module 'plait' has no attribute {name!r}")
    value = getattr(__import__(_homes[name], fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
