"""Which kind of worker serves on this interpreter, and why."""

import importlib
import sys
from collections.abc import Sequence
from typing import Final

KINDS: Final = ("auto", "thread", "interpreter", "process")
ISOLATIONS: Final = ("probe", "force", "off")

# Packages that cannot work in several interpreters of a process, however they are loaded, and why.
REFUSED: Final = {
    "torch": "its C++ registries reach over the whole process",
    "uvloop": "it needs the process's signal wake-up descriptor, which the main interpreter has",
}

# Modules of the standard library with static types, and those that bring them along: CPython 3.12
# and 3.13 crash when several interpreters are the first to import them (gh-136421 and its like).
_STATIC_TYPES: Final = (
    "datetime",
    "decimal",
    "ctypes",
    "ssl",
    "asyncio",
    "hashlib",
    "socket",
    "sqlite3",
)


# Not by sysconfig, which takes a lock that a fork can leave held, and imports that fail at the
# exit.
FREE_THREADED: Final = "free-threading" in sys.version


def _gil_enabled() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _version() -> str:
    return ".".join(map(str, sys.version_info[:3])) + ("t" if FREE_THREADED else "")


def interpreter_refusal() -> str | None:
    """Why own-GIL interpreters cannot serve here; None where they can."""
    version = sys.version_info[:3]
    if version < (3, 12, 8):
        return f"CPython {_version()} crashes with own-GIL interpreters; use 3.12.8 or later"
    if (3, 13) <= version < (3, 13, 1):
        return f"CPython {_version()} crashes with own-GIL interpreters; use 3.13.1 or later"
    return None


def choose(kind: str, limits: Sequence[str] = ()) -> tuple[str, str]:
    """(kind, reason) for what the caller asked for; limits: the options that need processes.

    Raises ValueError for an unknown kind, or limits that it cannot keep, RuntimeError for one that
    cannot serve here, with the way out.
    """
    if limits and kind in ("thread", "interpreter"):
        raise ValueError(
            f"{limits[0]}= is for process workers, which kind={kind!r} has none of: leave it "
            "out, or use kind='process' or kind='auto'"
        )
    if limits and kind == "auto":
        return "process", f"{limits[0]}= needs workers with a process of their own"
    if kind == "auto":
        return _choose_automatically()
    if kind == "thread":
        return kind, "asked for"
    if kind == "interpreter":
        refusal = interpreter_refusal()
        if refusal is not None:
            raise RuntimeError(f"kind='interpreter' cannot serve: {refusal}, or kind='thread'")
        return kind, "asked for"
    if kind == "process":
        return kind, "asked for"
    raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")


def checked_isolation(isolation: str | None, kind: str) -> str | None:
    """What was asked for with a kind, if it means anything there.

    Under "auto" it does, whatever is chosen: that depends on the interpreter. Raises ValueError.
    """
    if isolation is None:
        return None
    if isolation not in ISOLATIONS:
        known = ", ".join(map(repr, ISOLATIONS))
        raise ValueError(f"isolation must be one of {known}, or None, not {isolation!r}")
    if kind in ("thread", "process"):
        raise ValueError(
            f"isolation={isolation!r} is for interpreter workers, and kind={kind!r} imports all "
            "packages as ever: leave it out, or use kind='interpreter' or kind='auto'"
        )
    return isolation


def _choose_automatically() -> tuple[str, str]:
    version = _version()
    if FREE_THREADED:
        if not _gil_enabled():
            return "thread", f"CPython {version} runs threads in parallel: its GIL is off"
        return "process", (
            f"the GIL of this free-threaded CPython {version} is on (an extension switched it on, "
            "or PYTHON_GIL=1): threads do not run in parallel, processes do"
        )
    refusal = interpreter_refusal()
    if refusal is None and sys.version_info >= (3, 13):
        return "interpreter", f"CPython {version} gives each interpreter a GIL of its own"
    told = refusal or (
        f"CPython {version} imports too little of the standard library into own-GIL interpreters"
    )
    return "process", f"{told}; processes run in parallel"


def prepare_main() -> None:
    """Imports in this interpreter what workers must not be the first to import."""
    if sys.version_info >= (3, 14):
        return
    for name in _STATIC_TYPES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # not built here, so no worker can import it either
