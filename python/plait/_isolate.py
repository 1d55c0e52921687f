"""Extension modules in own-GIL interpreters: imported by workers of GIL builds alone.

CPython refuses there what does not declare its support. Here a module gets a private image, even if
it does: it may keep what it was given by one that has an image. See docs/design/isolate.md.
"""

import atexit
import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import Final

from plait import _plait, stand_ins

# From 3.13 on, what of the standard library may be loaded declares it; before, much does not.
_TRUSTED: Final = (sys.stdlib_module_names if sys.version_info >= (3, 13) else frozenset()) | {
    "plait"
}

# What cannot work in several interpreters of a process, however it is loaded, and why.
_REFUSED: Final = {
    "torch": "its C++ registries reach over the whole process",
    "uvloop": "it needs the process's signal wake-up descriptor, which the main interpreter has",
}
_INSTEAD: Final = (
    "Import it in the main interpreter alone, and let workers do what comes before and after; "
    "or use kind='thread', whose workers share that interpreter"
)

_create: Final = ExtensionFileLoader.create_module


def install() -> None:
    """Has this interpreter load extensions from private images. Once; for workers alone.

    The environment's PLAIT_ISOLATION=off leaves all to CPython. Raises ValueError if it is neither
    that nor "force", which is the default.
    """
    mode = os.environ.get("PLAIT_ISOLATION", "force")
    if mode == "off":
        replacement = _create_with_note
    elif mode == "force":
        _plait._isolate()
        atexit.register(_plait._leave_native_threads)  # first, so that it runs last
        replacement = _create_privately
    else:
        raise ValueError(f"PLAIT_ISOLATION must be 'off' or 'force', not {mode!r}")
    stand_ins.install()
    ExtensionFileLoader.create_module = replacement  # type: ignore[assignment, method-assign]


def _create_with_note(loader: ExtensionFileLoader, spec: ModuleSpec) -> ModuleType | None:
    try:
        return _create(loader, spec)
    except ImportError as error:
        error.add_note("plait could give it a private image, but PLAIT_ISOLATION=off is set")
        raise


def _create_privately(loader: ExtensionFileLoader, spec: ModuleSpec) -> ModuleType | None:
    package = spec.name.partition(".")[0]
    if package in _REFUSED:
        raise ImportError(
            f"{package} cannot be imported by plait's interpreter workers: {_REFUSED[package]}. "
            f"{_INSTEAD}",
            name=spec.name,
            path=spec.origin,
        )
    if package in _TRUSTED or spec.origin is None:
        return _create(loader, spec)
    return _plait._load_extension(spec)
