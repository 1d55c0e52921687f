"""What only a process of its own can have: the options of Pool for process workers.

The environment is given to the child; the rest it sets on itself, first of all (adopt); that a
worker is replaced after some tasks, or when it has run out of memory, is its proxy's affair.
Design: docs/design/process.md
"""

import numbers
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from plait import _kinds
from plait._options import given

_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_LEAST_MEMORY: Final = 64 << 20  # an interpreter alone, with its threads' stacks, needs about half

_memory_limit: int | None = None  # of this process, once adopt() has set it


class Limits(NamedTuple):
    """Checked; as they are without options, nothing is done."""

    memory_limit: int | None = None  # bytes
    max_tasks_per_worker: int | None = None
    niceness: int = 0
    cpu_affinity: tuple[int, ...] | None = None
    env: dict[str, str] | None = None

    def environment(self) -> tuple[bytes, ...]:
        """All variables of a child's, as b"name=value"; () for those of this process as they are.

        Without a GIL, CPython's allocator reserves a GiB at a time, which a limit would count; it
        can be told to reserve KiB instead.
        """
        own = dict(self.env or {})
        if self.memory_limit is not None and _kinds.FREE_THREADED:
            own = {"MIMALLOC_ARENA_RESERVE": "4096"} | own
        if not own:
            return ()
        return tuple(os.fsencode(f"{name}={value}") for name, value in (os.environ | own).items())

    def of_the_child(self) -> dict[str, Any]:
        """What adopt() is given there, natively encodable."""
        return {name: getattr(self, name) for name in given(self) if name in _ADOPTERS}


def check(
    memory_limit: int | str | None,
    max_tasks_per_worker: int | None,
    niceness: int,
    cpu_affinity: Iterable[int] | None,
    env: Mapping[str, str] | None,
) -> Limits:
    """The options of Pool; raises TypeError or ValueError where one is none."""
    return Limits(
        None if memory_limit is None else _bytes(memory_limit),
        None if max_tasks_per_worker is None else _tasks(max_tasks_per_worker),
        _whole("niceness", niceness),
        None if cpu_affinity is None else _cpus(cpu_affinity),
        None if env is None else _environment(env),
    )


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    return int(value)


def _bytes(limit: int | str) -> int:
    if isinstance(limit, str):
        parts = _SIZE.fullmatch(limit)
        if parts is None:
            raise ValueError(
                f"memory_limit is like '2GB', '512MiB' or a number of bytes, not {limit!r}"
            )
        number, prefix, binary = parts.groups()
        power = "kmgt".index(prefix.lower()) + 1 if prefix else 0
        size = int(float(number) * (1024 if binary else 1000) ** power)
    else:
        size = _whole("memory_limit", limit)
    if size < _LEAST_MEMORY:
        raise ValueError(
            f"memory_limit must be at least 64 MiB, which an interpreter needs, not {limit!r}"
        )
    return size


def _tasks(count: int) -> int:
    if _whole("max_tasks_per_worker", count) < 1:
        raise ValueError(f"max_tasks_per_worker must be at least 1, not {count}")
    return count


def _cpus(numbers_: Iterable[int]) -> tuple[int, ...]:
    cpus = tuple(sorted({_whole("a CPU in cpu_affinity", number) for number in numbers_}))
    allowed = os.sched_getaffinity(0)
    if not cpus or not allowed.issuperset(cpus):
        raise ValueError(
            f"cpu_affinity must be some of the CPUs of this process, {sorted(allowed)}, "
            f"not {list(cpus)}"
        )
    return cpus


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"env maps str to str, not {name!r} to {value!r}")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"env cannot have {name!r} as {value!r}")
    return dict(env)


# ---- in the child ----


def adopt(limits: dict[str, Any]) -> None:
    """What of_the_child() gave; raises OSError or ValueError where the system refuses it."""
    for name, value in limits.items():
        _ADOPTERS[name](value)


def _limit_memory(size: int) -> None:
    import resource

    global _memory_limit
    _memory_limit = size
    resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))


_ADOPTERS: Final[dict[str, Any]] = {
    "niceness": os.nice,
    "cpu_affinity": lambda cpus: os.sched_setaffinity(0, cpus),
    "memory_limit": _limit_memory,
}


def explain(error: MemoryError) -> None:
    """One that was raised under a limit says so; telling it may need some, so the limit ends here.

    This process is replaced before it runs anything else.
    """
    if _memory_limit is None:
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    error.add_note(
        f"The worker's memory_limit is {_memory_limit:,} bytes; it is replaced by a fresh one."
    )
