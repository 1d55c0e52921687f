"""What makes a worker's interpreter resemble its maker's, as that was when the pool was made.

The environment, the working directory and the locale belong to the process (a child starts with
its parent's), and command line options are taken over by CPython itself. Design:
docs/design/workers.md
"""

import os
import sys

TYPE_CHECKING = False  # every worker imports this module, and pays for what it imports
if TYPE_CHECKING:
    from typing import Any

# Of a release build without options; other filters are sent.
_USUAL_FILTERS = [
    ("default", None, DeprecationWarning, "__main__", 0),
    ("ignore", None, DeprecationWarning, None, 0),
    ("ignore", None, PendingDeprecationWarning, None, 0),
    ("ignore", None, ImportWarning, None, 0),
    ("ignore", None, ResourceWarning, None, 0),
]


def describe(
    kind: str,
    forward_logging: bool,
    isolation: str | None,
    limits: "dict[str, Any]",
    preload: "tuple[str, ...]",
) -> "dict[str, Any]":
    """What a worker's interpreter is to take over, natively encodable.

    sys: attributes of sys, and arguments of functions there. eager: whether what is printed to
    stdout and stderr is to be seen line by line. isolation: for plait._isolate; isolation_else:
    what holds there if that is None, as pools with another one need other interpreters. parts: what
    adopt() is given, if there is any; limits of them are for plait._limits, preload for
    plait._preload.
    """
    setup: dict[str, Any] = {
        "sys": {
            "path": [str(entry) for entry in sys.path],
            "argv": [str(argument) for argument in getattr(sys, "argv", [])],
            "dont_write_bytecode": sys.dont_write_bytecode,
            "pycache_prefix": sys.pycache_prefix,
            "setrecursionlimit": sys.getrecursionlimit(),
            "set_int_max_str_digits": sys.get_int_max_str_digits(),
            "setswitchinterval": sys.getswitchinterval(),
        },
        "eager": (_is_eager(sys.stdout), _is_eager(sys.stderr)),
        "isolation": isolation,
        "isolation_else": os.environ.get("PLAIT_ISOLATION"),
    }
    parts: dict[str, Any] = {}
    warnings = sys.modules.get("warnings")
    if warnings is not None and warnings.filters != _USUAL_FILTERS:
        from plait import _filters

        parts["filters"] = _filters.dump(warnings.filters)
    if forward_logging:
        from plait import _logging

        parts["levels"] = _logging.levels()
    if kind == "process":  # whose children start when there is work for them
        try:
            parts["folder"] = os.getcwd()
        except OSError:  # it is gone
            parts["folder"] = ""
    if limits:
        parts["limits"] = limits
    if preload:
        parts["preload"] = preload
    if parts:
        setup["parts"] = parts
    return setup


def _is_eager(stream: object) -> bool:
    return getattr(stream, "line_buffering", True) or getattr(stream, "write_through", True)


def adopt(parts: "dict[str, Any]") -> None:
    """In the worker: what describe() put into its parts."""
    if "limits" in parts:
        from plait import _limits

        _limits.adopt(parts["limits"])
    if "folder" in parts:
        try:  # noqa: SIM105  contextlib would bring ten modules
            os.chdir(parts["folder"])
        except OSError:
            pass  # it is gone
    if "filters" in parts:
        import warnings

        from plait import _filters

        warnings.resetwarnings()
        filters: Any = warnings.filters  # a list, though it may not be called one
        filters.extend(_filters.load(parts["filters"]))
    if "levels" in parts:
        from plait import _logging

        _logging.adopt(parts["levels"])
    if "preload" in parts:
        from plait import _preload

        _preload.load(parts["preload"])
