"""What Pool.options() can set: one record, which goes down to the core as it is.

Another option is one more field here, its check, and a keyword of the two options() methods.
"""

import numbers
from typing import Any, Final, NamedTuple

PRIORITIES: Final = range(-2, 3)
RETRIES: Final = range(1_000_001)


def given(options: Any) -> list[str]:
    """The fields of a named tuple that are not as they are by default."""
    usual = options._field_defaults
    return [name for name in options._fields if getattr(options, name) != usual[name]]


class Options(NamedTuple):
    """The options of calls; the core reads the fields by their places."""

    priority: int = 0
    deadline: float | None = None  # seconds from the submit
    retries: int = 0  # after the deaths of worker processes

    def changed(self, **changes: Any) -> "Options":
        """These with others in their place; raises TypeError or ValueError where one is none."""
        for name, value in changes.items():
            _CHECKS[name](value)
        return self._replace(**changes)

    def told(self) -> list[str]:
        """Those that are not as they are without options(), as text."""
        return [f"{name}={getattr(self, name)}" for name in given(self)]


def _check_priority(priority: object) -> None:
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"a priority is an int, not {type(priority).__name__}")
    if priority not in PRIORITIES:
        raise ValueError(
            f"a priority is from {PRIORITIES[0]} to {PRIORITIES[-1]}, the greater the more urgent, "
            f"not {priority}"
        )


def _check_deadline(deadline: object) -> None:
    if deadline is None:
        return
    if isinstance(deadline, bool) or not isinstance(deadline, numbers.Real):
        raise TypeError(
            f"a deadline is a number of seconds, or None, not {type(deadline).__name__}"
        )
    if not float(deadline) > 0:  # NaN, too
        raise ValueError(f"a deadline is more than 0 seconds away, not {deadline}")


def _check_retries(retries: object) -> None:
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries is an int, not {type(retries).__name__}")
    if retries not in RETRIES:
        raise ValueError(f"retries is from 0 to {RETRIES[-1]:,}, not {retries}")


_CHECKS: Final = {
    "priority": _check_priority,
    "deadline": _check_deadline,
    "retries": _check_retries,
}
