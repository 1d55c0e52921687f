"""_tracemalloc, of which tracemalloc is made, in interpreter workers: nothing is traced.

The allocator's hooks belong to the process. Tracing is switched on in the main interpreter, and
seen there.
"""

from typing import Any


def start(nframe: int = 1, /) -> None:
    """Raises RuntimeError: this cannot be done here."""
    raise RuntimeError(
        "tracemalloc traces the whole process: start it in the main interpreter, not in a worker"
    )


def stop() -> None:
    """Does nothing."""


def is_tracing() -> bool:
    """False."""
    return False


def clear_traces() -> None:
    """Does nothing."""


def reset_peak() -> None:
    """Does nothing."""


def get_traceback_limit() -> int:
    """1, which CPython starts with."""
    return 1


def get_traced_memory() -> tuple[int, int]:
    """(0, 0)."""
    return 0, 0


def get_tracemalloc_memory() -> int:
    """0."""
    return 0


def _get_traces() -> list[Any]:
    return []


def _get_object_traceback(obj: object, /) -> None:
    return None
