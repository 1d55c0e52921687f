"""Which functions of kind="auto" go to processes: those that need what interpreter workers refuse.

A function is looked at when it is sent for the first time: at the packages that it names or
imports, and at those that the program's modules import that it comes from or uses. Installed
packages are taken as a whole, and asked about only if they have loaded extension modules here.
Design: docs/design/workers.md
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Set
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from plait import _kinds, _reuse

if TYPE_CHECKING:
    from plait import _trust
    from plait._pool import Pool

# What is looked at for one function, at most: more is no function's, but a web of objects.
_LIMIT: Final = 2000


def refusal(mode: str, fn: object) -> "_trust.Isolation | None":
    """The verdict on the first package found that fn needs and that workers refuse; None without.

    mode: the pool's isolation; "probe" tries packages out that were not tried yet, which takes a
    second or so for each. Any thread.
    """
    suspects = _kinds.REFUSED.keys() | (_with_extensions() if mode == "probe" else ())
    for package in dict.fromkeys(_packages(fn, suspects)):
        if package in suspects:
            from plait import _trust  # here, since programs without suspects come here, too

            found = _trust.ask(package, package, None)
            if not found.usable:
                return found
    return None


def told(found: "_trust.Isolation") -> str:
    """A refusal for Pool.reason."""
    return f"{found.package}, which interpreter workers refuse: {found.why}"


class Beside:
    """The processes beside a pool of interpreters, made when a function needs them. Any thread."""

    def __init__(self, mode: str, make: "Callable[[], Pool]") -> None:
        self.decide: Final = functools.partial(_needs_process, mode)
        self._mode, self._make = mode, make
        self._lock: Final = threading.Lock()
        self._pool: Pool | None = None
        self._ended = False

    def pool_for(self, fn: object) -> "tuple[Pool, str]":
        """The pool, and what is to be added to the reason of the other one, if fn is the first.

        Raises RuntimeError after end().
        """
        with self._lock:
            if self._ended:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._pool is not None:
                return self._pool, ""
            found = refusal(self._mode, fn)
            self._pool = self._make()
        return self._pool, f"; processes run what needs {told(found)}" if found else ""

    def end(self) -> "Pool | None":
        """No more pool_for(); the pool, if one was made."""
        with self._lock:
            self._ended = True
            return self._pool


def _needs_process(mode: str, fn: object) -> bool:
    return refusal(mode, fn) is not None


_extensions: frozenset[str] = frozenset()
_modules_seen = 0


def _with_extensions() -> frozenset[str]:
    """The packages, besides the standard library, of which extension modules are loaded here."""
    global _extensions, _modules_seen
    if len(sys.modules) != _modules_seen:
        modules = list(sys.modules.items())
        names = {name.partition(".")[0] for name, module in modules if _reuse.is_extension(module)}
        _extensions = frozenset(names - sys.stdlib_module_names - {"plait"})
        _modules_seen = len(modules)
    return _extensions


# ---- what a function needs ----


def _packages(fn: object, suspects: Set[str]) -> Iterator[str]:
    """Names of packages, some of them more than once, some that are none."""
    todo: list[object] = [fn]
    seen: set[int] = set()
    while todo and len(seen) < _LIMIT:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if type(one) is str:
            yield one
        else:
            todo.extend(_needs(one, suspects))


def _needs(one: object, suspects: Set[str]) -> Iterator[object]:
    """What a worker needs to have one: names of packages, and what is to be asked in turn."""
    if _is(one, ModuleType):
        yield from _needs_of_module(cast("ModuleType", one))
    elif _is(one, FunctionType):
        yield from _home(one)
        yield from _named(cast("FunctionType", one), suspects)
    elif _is(one, MethodType):
        method = cast("MethodType", one)
        yield from (method.__func__, type(method.__self__))
    elif _is(one, functools.partial):
        call = cast("functools.partial[Any]", one)
        yield from (call.func, *_telling(call.args), *_telling(call.keywords.values()))
    elif _is(one, type):
        yield from _home(one)
        if cast("type", one).__module__ == "__main__":
            yield from _telling((*vars(cast("type", one)).values(), *cast("type", one).__bases__))
    elif _is(one, BuiltinFunctionType):
        yield from _home(one)
    else:
        yield type(one)


def _is(one: object, kind: type) -> bool:
    """isinstance(), without asking a proxy what it stands for."""
    return issubclass(type(one), kind)


def _telling(values: Iterable[object]) -> Iterator[object]:
    """Of some values: what may name a package; of most objects, their class."""
    kinds = (ModuleType, FunctionType, MethodType, BuiltinFunctionType, functools.partial, type)
    for one in list(values):
        if issubclass(type(one), kinds):
            yield one
        elif type(one).__module__ != "builtins":
            yield type(one)


def _needs_of_module(module: ModuleType) -> Iterator[object]:
    """What it has imported: the bodies of its functions do not run when a worker imports it."""
    yield module.__name__.partition(".")[0]
    if module.__name__ == "__main__" or _reuse.is_installed(module):
        return
    for one in _telling(vars(module).values()):
        if _is(one, ModuleType):
            yield one
        else:
            yield from _module_of(one)


def _module_of(one: Any) -> Iterator[ModuleType]:
    name = getattr(one, "__module__", None)
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is not None and name != "__main__":
        yield module


def _home(one: Any) -> Iterator[object]:
    """The module that a worker imports it from. What comes by value only tells its package."""
    for module in _module_of(one):
        at: Any = module
        for part in one.__qualname__.split("."):
            at = vars(at).get(part) if hasattr(at, "__dict__") else None
        yield module if at is one else module.__name__.partition(".")[0]


def _named(function: FunctionType, suspects: Set[str]) -> Iterator[object]:
    """The values of its globals, cells and defaults, and names that it may import."""
    module = sys.modules.get(function.__module__ or "__main__")
    if module is not None and module.__name__ != "__main__" and _reuse.is_installed(module):
        return
    codes = [function.__code__]
    for code in codes:
        codes.extend(part for part in code.co_consts if isinstance(part, CodeType))
        for name in code.co_names:
            if name in function.__globals__:
                yield from _telling((function.__globals__[name],))
            if name.partition(".")[0] in suspects:
                yield name.partition(".")[0]
    yield from _telling(function.__defaults__ or ())
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # nothing is in it yet
            yield from _telling((cell.cell_contents,))
