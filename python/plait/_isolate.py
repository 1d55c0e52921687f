"""Extension modules in own-GIL interpreters: imported by workers of GIL builds alone.

CPython refuses there what does not declare its support. Here such a module gets a private image:
docs/design/isolate.md.
"""

import atexit
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import Final

from plait import _plait

# From 3.13 on, what of the standard library may be loaded declares it; before, much does not.
_TRUSTED: Final = sys.stdlib_module_names if sys.version_info >= (3, 13) else frozenset()

_create: Final = ExtensionFileLoader.create_module


def install() -> None:
    """Has this interpreter load extensions from private images. Once; for workers alone."""
    _plait._isolate()
    atexit.register(_plait._leave_native_threads)  # first, so that it runs last
    ExtensionFileLoader.create_module = _create_module  # type: ignore[assignment, method-assign]


def _create_module(loader: ExtensionFileLoader, spec: ModuleSpec) -> ModuleType | None:
    if spec.name.partition(".")[0] in _TRUSTED or spec.origin is None:
        return _create(loader, spec)
    module = _plait._load_extension(spec)
    return _create(loader, spec) if module is None else module
