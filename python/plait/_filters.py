"""Warnings filters on their way to a worker, which imports nothing for them.

A category goes by name, and stands for nothing until somebody has imported its module: no warning
can be of it before. NumPy has such a filter, and whoever has imported it would have it imported by
every worker as it starts. A pattern is compiled by the first warning.
"""

import builtins
import sys

TYPE_CHECKING = False  # every worker imports this module, and pays for what it imports
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class _Category(type):
    """The type of stand-ins for categories: known by module and qualified name."""

    def __new__(cls, module: str, name: str) -> "_Category":
        return type.__new__(cls, name, (Warning,), {"__module__": module, "__qualname__": name})

    def __init__(cls, module: str, name: str) -> None:
        pass

    def __subclasscheck__(cls, subclass: type) -> bool:
        real = _find(cls.__module__, cls.__qualname__)
        return isinstance(real, type) and issubclass(subclass, real)


class _Pattern:
    """A regular expression that is compiled when it is needed."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.pattern, self.flags = pattern, flags

    def match(self, text: str) -> object:
        import re

        return re.compile(self.pattern, self.flags).match(text)


def dump(filters: "Iterable[Any]") -> "list[Any]":
    """Entries of warnings.filters, natively encodable; without those that cannot travel."""
    dumped = []
    for action, message, category, module, line in filters:
        try:
            patterns = _dump_pattern(message), _dump_pattern(module)
            dumped.append((action, patterns[0], _dump_category(category), patterns[1], line))
        except Exception:
            continue  # a category that cannot travel is none that a worker could meet
    return dumped


def load(dumped: "Iterable[Any]") -> "list[Any]":
    """What dump() was given."""
    filters = []
    for action, message, category, module, line in dumped:
        try:
            found = _load_category(category)
        except Exception:
            continue  # nor is one that cannot be made here
        filters.append((action, _load_pattern(message), found, _load_pattern(module), line))
    return filters


def _find(module: str, name: str) -> object:
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _dump_category(category: type) -> "tuple[str, str] | bytes":
    module, name = category.__module__, category.__qualname__
    if isinstance(category, _Category):
        return module, name
    if _find(module, name) is category and module != "__main__" and not _goes_by_value(module):
        return module, name
    from plait import _travel

    return _travel.dump(category)


def _goes_by_value(module: str) -> bool:
    cloudpickle: Any = sys.modules.get("cloudpickle")
    registered = () if cloudpickle is None else cloudpickle.list_registry_pickle_by_value()
    return any(f"{module}.".startswith(f"{name}.") for name in registered)


def _load_category(dumped: "tuple[str, str] | bytes") -> "Any":
    if isinstance(dumped, bytes):
        import pickle

        return pickle.loads(dumped)
    module, name = dumped
    return getattr(builtins, name) if module == "builtins" else _Category(module, name)


def _dump_pattern(pattern: "Any") -> "tuple[str, int] | str | None":
    return pattern if pattern is None or type(pattern) is str else (pattern.pattern, pattern.flags)


def _load_pattern(dumped: "tuple[str, int] | str | None") -> "_Pattern | str | None":
    return _Pattern(*dumped) if isinstance(dumped, tuple) else dumped
