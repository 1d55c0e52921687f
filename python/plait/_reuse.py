"""Workers that serve one pool after another: how many are kept, and how one begins anew.

What an interpreter, or a process, has imported from the standard library and from installed
packages stays, as it is; everything else goes, the modules of the program among it. One that cannot
be brought there ends with its pool, as all do elsewhere. See docs/design/workers.md.
"""

import _imp
import atexit
import builtins
import gc
import os
import sys

from plait import _plait

TYPE_CHECKING = False  # as in plait itself
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

# ---- the process that makes pools ----

_VARIABLES = {"interpreter": "PLAIT_KEEP_INTERPRETERS", "process": "PLAIT_KEEP_PROCESSES"}


def limit(kind: str) -> int:
    """How many workers of a kind may be kept when a pool ends that is made now; 0: none.

    The environment's PLAIT_KEEP_INTERPRETERS or PLAIT_KEEP_PROCESSES, else cpu_count(). Raises
    ValueError.
    """
    variable = _VARIABLES.get(kind)
    if variable is None:
        return 0
    asked = os.environ.get(variable) or str(_plait.cpu_count())
    if not (asked.isascii() and asked.isdigit() and len(asked) < 9):
        told = "processes" if kind == "process" else "interpreters"
        raise ValueError(f"{variable} must be a number of {told}, 0 or more, not {asked!r}")
    return int(asked) if _can_keep(kind) else 0


def _can_keep(kind: str) -> bool:
    from plait import _kinds

    if os.environ.get("PLAIT_ISOLATION") == "trial":  # where ends are what is tried out
        return False
    return kind == "process" or (sys.version_info >= (3, 13) and not _kinds.FREE_THREADED)


def end() -> None:
    """At an interpreter's exit: if it is the main one, what is kept ends before it does."""
    if _plait._count_kept("interpreter"):
        _stop_tracing_memory()
    _plait._end_kept(True)


def _stop_tracing_memory() -> None:
    """CPython hangs or crashes when an interpreter with a GIL of its own ends under tracemalloc,
    which may have been started when no pool was open any more.
    """
    tracemalloc = sys.modules.get("_tracemalloc")
    if tracemalloc is not None and tracemalloc.is_tracing():
        tracemalloc.stop()


# ---- a worker's: what is put back ----


class _Start:
    """An interpreter before anything of the program's has run in it."""

    def __init__(self) -> None:
        import _warnings

        self.modules = dict(sys.modules)
        self.main: dict[str, Any] = dict(vars(sys.modules["__main__"]))
        self.builtins: dict[str, Any] = dict(vars(builtins))
        self.system: dict[str, Any] = dict(vars(sys))
        self.environment = os.environ
        self.filters: list[Any] = list(_warnings.filters)
        self.thresholds = gc.get_threshold()
        self.hooks = (sys.gettrace(), sys.getprofile())
        self.process: object = None  # of a process that is a worker: what _process() said
        self.dlopen_flags = sys.getdlopenflags()


_start: _Start
_registrants: list[str] = []  # modules of the program with something to do at the end
_register = atexit.register


def watch() -> None:
    """Before anything of the program's runs."""
    global _start
    _start = _Start()
    atexit.register = _watched_register


def watch_process() -> None:
    """The same in a process that is a worker."""
    watch()
    try:
        _start.process = _process()
    except OSError:
        _start.process = ()  # it cannot be told, so that this one will end with its pool


def _watched_register(func: "Callable[..., Any]", /, *args: "Any", **kwargs: "Any") -> "Any":
    """atexit.register: what packages want done at the end can wait as long as they stay."""
    caller = sys._getframe(1).f_globals.get("__name__") or ""
    if not _Staying().has(caller):
        _registrants.append(caller)
    return _register(func, *args, **kwargs)


# ---- which modules stay ----

_OWN = frozenset({"plait", "cloudpickle"})  # wherever they are
_LIBRARY = f"{getattr(sys, '_stdlib_dir', None)}{os.sep}"
_FOLDERS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class _Staying:
    """The modules of the standard library and of installed packages."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def has(self, name: str) -> bool:
        """Whether the module of that name stays."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._find_out(name)
        return known

    def _find_out(self, name: str) -> bool:
        module = sys.modules.get(name)
        if module is None or name == "__main__":
            return False
        if _start.modules.get(name) is module or name.partition(".")[0] in _OWN:
            return True
        parent = name.rpartition(".")[0]
        if parent and not self.has(parent):  # a package that is imported anew wants its parts anew
            return False
        places = _places(module)
        return all(map(_is_installed_at, places)) if places else bool(parent)


def _attribute(module: "ModuleType", name: str) -> "Any":
    """Without asking the module, which may have something to say that imports more."""
    variables = getattr(module, "__dict__", None)
    return variables.get(name) if isinstance(variables, dict) else None


def _places(module: "ModuleType") -> list[str]:
    """Where it was loaded from; empty for what was made at run time."""
    spec = _attribute(module, "__spec__")
    if getattr(spec, "origin", None) in ("built-in", "frozen"):
        return [_LIBRARY]
    file = _attribute(module, "__file__")
    if file:
        return [file]
    return [f"{place}{os.sep}" for place in _attribute(module, "__path__") or ()]


def _is_installed_at(place: str) -> bool:
    return place.startswith(_LIBRARY) or any(folder in place for folder in _FOLDERS)


def is_installed(module: "ModuleType") -> bool:
    """Whether it belongs to the standard library or an installed package, not to the program."""
    places = _places(module)
    return bool(places) and all(map(_is_installed_at, places))


def is_extension(module: "ModuleType") -> bool:
    """Whether it was loaded from a shared object."""
    return str(_attribute(module, "__file__")).endswith(tuple(_imp.extension_suffixes()))


# ---- the end of a pool ----


def leave() -> bool:
    """Whether this interpreter can serve another pool; then nothing of the last one is left."""
    _put_back(vars(builtins), _start.builtins)  # first, as all of this uses them
    staying = _Staying()
    leaving = {name for name in list(sys.modules) if not staying.has(name)} - {"__main__"}
    if _registrants or _is_bound() or any(is_extension(sys.modules[name]) for name in leaving):
        return False
    _put_back(vars(sys), _start.system)
    for name in leaving:
        del sys.modules[name]
    sys.modules.update(_start.modules)
    _put_back(vars(sys.modules["__main__"]), _start.main)
    _drop_strangers(leaving | {"__main__"})
    _put_back_settings()
    _forget()
    gc.collect()
    return not _has_pools()


def _is_bound() -> bool:
    """Whether something was set up that cannot be undone, or only by those who did it."""
    streams = (_start.system["stdout"], _start.system["stderr"])
    tools = (sys.monitoring.get_tool(number) for number in range(6))
    return (
        any(stream is not None and stream.closed for stream in streams)
        or any(tool is not None for tool in tools)
        or _has_thread_hooks()
        or _has_log_handlers()
        or _shows_warnings_differently()
        or (_start.process is not None and (_process() != _start.process or _has_children()))
        or sys.modules.get("plait._plait") is not _plait
    )


def _has_thread_hooks() -> bool:
    threading = sys.modules.get("threading")
    return threading is not None and bool(
        threading.gettrace()
        or threading.getprofile()
        or threading.excepthook is not threading.__excepthook__
    )


def _has_log_handlers() -> bool:
    """Those that are imported anew would add theirs once more."""
    logging = sys.modules.get("logging")
    if logging is None:
        return False
    handlers = [reference() for reference in logging._handlerList]
    harmless = (logging.NullHandler, type(logging.lastResort), type(None))
    return (
        not all(isinstance(handler, harmless) for handler in handlers)
        or logging.root.level != logging.WARNING
        or logging.root.manager.disable != logging.NOTSET
    )


def _shows_warnings_differently() -> bool:
    warnings = sys.modules.get("warnings")
    return warnings is not None and warnings.showwarning is not warnings._showwarning_orig


def _has_pools() -> bool:
    module = sys.modules.get("plait._pool")
    return module is not None and len(module._pools) > 0


def _put_back(variables: "dict[str, Any]", start: "dict[str, Any]") -> None:
    for name in variables.keys() - start.keys():
        del variables[name]
    variables.update(start)


def _drop_strangers(leaving: set[str]) -> None:
    """Out of the lists that the interpreter calls what lies in them."""
    every: tuple[list[Any], ...] = (sys.meta_path, sys.path_hooks, gc.callbacks)
    for hooks in every:
        hooks[:] = [hook for hook in hooks if _module_of(hook) not in leaving]


def _module_of(hook: object) -> object:
    return getattr(hook, "__module__", None) or type(hook).__module__


def _put_back_settings() -> None:
    vars(os)["environ"] = _start.environment
    warnings = sys.modules.get("warnings")
    if warnings is not None:
        warnings.resetwarnings()
        warnings.filters.extend(_start.filters)
        warnings.onceregistry.clear()
    sys.settrace(_start.hooks[0])
    sys.setprofile(_start.hooks[1])
    sys.setdlopenflags(_start.dlopen_flags)
    gc.set_threshold(*_start.thresholds)
    gc.set_debug(0)
    gc.enable()
    gc.unfreeze()


def _forget() -> None:
    """What caches know of the last pool's, and where its generators of random numbers were."""
    sys.path_importer_cache.clear()
    context = sys.modules.get("plait._context")
    if context is not None:
        context.forget()
    trust = sys.modules.get("plait._trust")
    if trust is not None:
        trust.forget_refusals()
    if "linecache" in sys.modules:
        sys.modules["linecache"].clearcache()
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed()


# ---- of a process that is a worker ----


def _process() -> object:
    """What belongs to the process that a task can change, equal if it has not."""
    import _locale
    import _signal  # type: ignore[import-not-found]  # signal would bring enum

    faulthandler = sys.modules.get("faulthandler")
    umask = os.umask(0o077)
    os.umask(umask)
    with open("/proc/self/limits", "rb", buffering=0) as limits:
        return (
            _plait._environment(),
            dict(_start.environment._data),  # type: ignore[attr-defined]
            [_signal.getsignal(number) for number in _signal.valid_signals()],
            _signal.pthread_sigmask(_signal.SIG_BLOCK, ()),
            [_signal.getitimer(timer) for timer in range(3)],
            [_file(descriptor) for descriptor in range(3)],
            _locale.setlocale(_locale.LC_ALL),
            faulthandler is not None and faulthandler.is_enabled(),
            (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)),
            umask,
            limits.read(10_000),
        )


def _file(descriptor: int) -> object:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


# ---- the beginning of the next ----


def begin() -> None:
    """In a thread of another pool. What was set up by watch() and before still is."""
    environment: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    environment.clear()
    environment.update(_plait._environment())
    _plait._enter_thread()
