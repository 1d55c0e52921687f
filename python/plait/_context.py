"""Context variables on their way to workers of other interpreters.

A variable is the same one on both sides if it is a global of a module that both have (it travels by
that name), or if it came along with a function that travels by value (it travels under a token,
given when it was first pickled). A value travels with a task if its variable does and it can be
pickled itself; what a worker cannot reach, or cannot be given, keeps its default there. Values of
variables in modules that the worker has not imported wait until it has: nothing is imported for
their sake. Design: docs/design/context.md
"""

import os
import sys
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Final

from plait import _travel

# Where a variable is: (module, name of the global), or (None, token).
_Home = tuple[str | None, str]

# What travels: the variable's home, the value itself if it is plain, else its pickle.
_Entry = tuple[str | None, str, Any, bytes | None]

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes)

# The variable behind decimal.getcontext() is no global of any module, but can be set.
_DECIMAL: Final[_Home] = ("decimal", "")

# Variables are meant to live for ever, and cannot be referred to weakly.
_homes: Final[dict[ContextVar[Any], _Home]] = {}
_by_token: Final[dict[str, ContextVar[Any]]] = {}
_homeless: Final[dict[ContextVar[Any], int]] = {}  # -> how many modules there were at the search


# ---- the submitter's side ----


def dump(context: Context) -> list[_Entry] | None:
    """What of a context can travel, natively encodable; None for nothing."""
    entries: list[_Entry] = []
    for variable, value in context.items():
        home = _home(variable)
        if home is None:
            continue
        if type(value) in _PLAIN:
            entries.append((*home, value, None))
            continue
        try:
            entries.append((*home, None, _travel.dump(value)))
        except Exception:
            continue
    return entries or None


def _home(variable: ContextVar[Any]) -> _Home | None:
    home = _homes.get(variable)
    if home is not None or _homeless.get(variable) == len(sys.modules):
        return home
    home = _search(variable)
    if home is None:
        _homeless[variable] = len(sys.modules)
    else:
        _homes[variable] = home
    return home


def _search(variable: ContextVar[Any]) -> _Home | None:
    if variable.name == "decimal_context":
        return _DECIMAL
    for module_name, module in list(sys.modules.items()):
        variables = getattr(module, "__dict__", None)
        if module_name == "__main__" or not isinstance(variables, dict):
            continue
        for name, value in list(variables.items()):
            if value is variable:
                return module_name, name
    return None


def reduce(variable: ContextVar[Any]) -> tuple[Callable[..., ContextVar[Any]], tuple[Any, ...]]:
    """How a variable is pickled when something that travels refers to it."""
    home = _home(variable)
    if home is not None and home[0] is not None:
        return _find, home
    if home is None:
        home = _homes.setdefault(variable, (None, os.urandom(12).hex()))
        _by_token[home[1]] = variable
    try:
        return _arrived, (home[1], variable.name, Context().run(variable.get))
    except LookupError:  # it has no default
        return _arrived, (home[1], variable.name)


# ---- the worker's side ----


def load(entries: list[_Entry]) -> tuple[Context, bool]:
    """A context with those variables set; and whether all of them could be found."""
    context, complete = Context(), True
    for module, name, value, pickled in entries:
        put = _setter(module, name)
        if put is None:
            complete = False
            continue
        try:
            context.run(put, value if pickled is None else _travel.loads(pickled))
        except Exception:
            continue
    return context, complete


def _setter(module_name: str | None, name: str) -> Callable[[Any], object] | None:
    if (module_name, name) == _DECIMAL:
        import decimal

        return decimal.setcontext
    if module_name is None:
        variable = _by_token.get(name)
    else:
        variable = getattr(sys.modules.get(module_name), name, None)
    return variable.set if isinstance(variable, ContextVar) else None


def merge(below: Context, above: Context) -> Context:
    """A copy of `above`, with what only `below` has."""
    merged = below.copy()
    for variable, value in above.items():
        merged.run(variable.set, value)
    return merged


def forget() -> None:
    """Between two pools that an interpreter serves."""
    _homes.clear()
    _by_token.clear()
    _homeless.clear()


def _find(module_name: str, name: str) -> ContextVar[Any]:
    __import__(module_name)
    variable = getattr(sys.modules[module_name], name)
    assert isinstance(variable, ContextVar)
    return variable


def _arrived(token: str, name: str, *defaults: Any) -> ContextVar[Any]:
    variable = _by_token.get(token)
    if variable is None:
        made: ContextVar[Any] = (
            ContextVar(name, default=defaults[0]) if defaults else ContextVar(name)
        )
        variable = _by_token.setdefault(token, made)
        _homes[variable] = (None, token)
    return variable
