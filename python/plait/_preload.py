"""Pool's preload: modules that every worker imports before its first task.

Workers that are processes are copies of one, the template, that has imported them once. Each
imports them again, which is nothing where that has worked, and else tells what went wrong. Design:
docs/design/process.md
"""

import functools
import sys

TYPE_CHECKING = False  # every worker imports this module, and pays for what it imports
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def check(modules: "Iterable[str] | None") -> "tuple[str, ...] | None":
    """The option of Pool; raises TypeError or ValueError where it is none."""
    if modules is None:
        return None
    if isinstance(modules, str):
        raise TypeError(f"preload is several names of modules: [{modules!r}], not {modules!r}")
    names = tuple(modules)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"preload is names of modules, not {type(name).__name__}")
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"preload is full names of modules, and {name!r} is none")
    return names


def before(
    names: "tuple[str, ...]", initializer: "Callable[..., object] | None"
) -> "Callable[..., object]":
    """The initializer of workers that share this interpreter."""
    return functools.partial(_load_and_call, names, initializer)


def _load_and_call(
    names: "tuple[str, ...]", initializer: "Callable[..., object] | None", *args: "Any"
) -> None:
    load(names)
    if initializer is not None:
        initializer(*args)


def load(names: "Iterable[str]") -> None:
    """In a worker: imports them."""
    for name in names:
        __import__(name)


# ---- the template of processes ----


def serve_copies(names: "tuple[str, ...]") -> bool:
    """In the template: imports the modules, and makes copies until nobody needs any more; then
    False. True in each copy.
    """
    from plait import _plait, _resemble, _reuse  # noqa: F401  which every copy needs at once

    if not _plait._template_begin():
        return False
    for name in names:
        try:  # noqa: SIM105  contextlib would be in every worker
            __import__(name)
        except BaseException:
            pass  # each copy tries it again, and tells
    _warn_of_threads(names)
    _settle()
    if not _plait._template_serve():
        return False
    _differ()
    return True


def _warn_of_threads(names: "tuple[str, ...]") -> None:
    import os

    count = len(os.listdir("/proc/self/task"))
    if count > 1:
        import warnings

        warnings.warn(
            f"plait: preload={list(names)} has started {count - 1} threads, which a copy of the "
            "process would lack: workers start one by one, and import the modules themselves",
            RuntimeWarning,
            stacklevel=1,
        )


def _settle() -> None:
    """What copies should not do again, each for itself."""
    import gc

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    gc.collect()
    gc.freeze()  # the collector writes to what it looks at, and what is written is not shared


def _differ() -> None:
    """In a copy: what two processes must not have in common. CPython's random does it itself."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()
