"""The joblib engine's part in a worker: importing joblib, running a batch, knowing its pool.

An interpreter's worker imports this module before anything of the user's.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

# How a worker finds its pool again (see Pool.__reduce__), and the nesting level of its tasks.
Nest = tuple[tuple[int, int, str, str, int], int]
Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def _import_joblib() -> None:
    """Imports joblib; where loky cannot be imported, as on a system without multiprocessing.

    loky wants faulthandler. The interpreters of a GIL build have a stand-in for it; those of a
    free-threaded one have none, and there joblib's own backends run one task after the other.
    """
    modules: dict[str, Any] = sys.modules
    wanted = "_multiprocessing"  # what joblib looks for
    had = {wanted: modules[wanted]} if wanted in modules else {}
    try:
        importlib.import_module("faulthandler")
    except ImportError:
        modules[wanted] = None  # cannot be imported
    try:
        importlib.import_module("joblib")
    finally:
        if modules.get(wanted) is None:
            modules.pop(wanted, None)
        modules.update(had)


_import_joblib()


class _Here(threading.local):
    """What this thread runs a batch for."""

    nest: Nest | None = None


here = _Here()


def prepare(initializer: Callable[..., object] | None, *initargs: Any) -> None:
    """An interpreter worker's initializer: the user's, decoded after joblib has been imported."""
    importlib.import_module("plait.engines.joblib")  # registers the backend here
    if initializer is not None:
        initializer(*initargs)


def run(nest: Nest, tasks: Sequence[Task]) -> list[Any]:
    """The results of a batch, whose own calls of Parallel go to the pool that runs it."""
    from joblib.parallel import BatchedCalls

    from plait.engines.joblib import PlaitBackend

    (_, _, kind, _, _), level = nest
    outer, here.nest = here.nest, nest
    try:
        results: list[Any] = BatchedCalls(tasks, (PlaitBackend(kind, nesting_level=level), None))()
    finally:
        here.nest = outer
    return results
