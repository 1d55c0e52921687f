"""What an initializer leaves behind in its worker, for functions that travel by value.

Such a function has globals of its own in a worker: those that it names, as they were when it was
sent. In the program they belong to one module, `__main__` mostly, and what an initializer of that
module sets is meant for the module's other functions. So these, when they arrive, get what the
initializer has left under a name, unless the program has given the name another value since.

Used in workers' interpreters only, by the thread that runs tasks.
"""

import functools
from collections.abc import Callable
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import cloudpickle


class _Left(NamedTuple):
    space: dict[str, Any]  # the initializer's globals
    arrived: dict[str, object]  # what of them had come along, as marks


_left: dict[str, _Left] = {}  # by the name of the module


def run(initializer: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Calls an initializer that came by value, and keeps what it leaves behind."""
    space = _globals_of(initializer)
    arrived = {name: _mark(value) for name, value in space.items()}
    initializer(*arguments)
    if space:
        _left[space.get("__name__", "")] = _Left(space, arrived)


def adopt(space: dict[str, Any], came: dict[str, Any]) -> None:
    """Puts what was left behind into the globals of a function that has just arrived; `came`: those
    that came with it.
    """
    left = _left.get(space.get("__name__", ""))
    if left is None or left.space is space:
        return
    for name, value in left.space.items():
        if name not in left.arrived:
            unchanged = name not in came
        else:
            unchanged = name in came and _mark(came[name]) == left.arrived[name]
        if unchanged and not name.startswith("__"):
            space[name] = value


def exists() -> bool:
    """Whether anything was left behind."""
    return bool(_left)


def _globals_of(function: object) -> dict[str, Any]:
    while not isinstance(function, FunctionType):
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif isinstance(type(function).__call__, FunctionType):  # an instance that can be called
            function = type(function).__call__
        else:
            return {}
    return function.__globals__


def _mark(value: object) -> object:
    """Equal for two arrivals of a value that was the same, or equal; taken on arrival."""
    if isinstance(value, FunctionType):
        return value.__code__
    if isinstance(value, (type, ModuleType)):
        return value
    try:
        data = cloudpickle.dumps(value, protocol=5)
    except Exception:
        return object()  # equal to nothing
    return len(data), hash(data)
