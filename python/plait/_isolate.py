"""Extension modules in own-GIL interpreters: imported by workers of GIL builds alone.

CPython refuses there what does not declare its support. Here a module gets a private image, even if
it does: it may keep what it was given by one that has an image. See docs/design/isolate.md.
"""

import atexit
import os
import sys
from _frozen_importlib_external import ExtensionFileLoader  # importlib would bring ten modules

from plait import _plait, stand_ins

TYPE_CHECKING = False  # as in plait itself
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from plait import _trust

    _Check = Callable[[str, ModuleSpec], _trust.Isolation | None]
    _Creator = Callable[[ExtensionFileLoader, ModuleSpec], ModuleType | None]

# From 3.13 on, what of the standard library may be loaded declares it; before, much does not.
_TRUSTED = (sys.stdlib_module_names if sys.version_info >= (3, 13) else frozenset()) | {"plait"}

_create = ExtensionFileLoader.create_module


def install(asked: str | None) -> None:
    """Has this interpreter load extensions from private images. Once; for workers alone.

    asked: the pool's isolation. If that is None, the environment's PLAIT_ISOLATION says what to
    trust: "probe", the default, packages that were tried out in a child process; "force", all;
    "off", nothing that CPython does not. "trial" is for such a child, in which nothing is tried out
    whatever a pool asks for. Raises ValueError for anything else.
    """
    given = os.environ.get("PLAIT_ISOLATION") or "probe"
    mode = given if asked is None or (given, asked) == ("trial", "probe") else asked
    if mode == "off":
        source = "PLAIT_ISOLATION=off" if asked is None else "isolation='off'"
        replacement = _make_noting(source)
    elif mode in _CHECKS:
        _plait._isolate()
        atexit.register(_plait._leave_native_threads)  # first, so that it runs last
        replacement = _make_creator(_CHECKS[mode])
    else:
        raise ValueError(f"PLAIT_ISOLATION must be 'off', 'probe' or 'force', not {mode!r}")
    stand_ins.install()
    ExtensionFileLoader.create_module = replacement  # type: ignore[assignment, method-assign]


def _make_noting(source: str) -> "_Creator":
    def create(loader: ExtensionFileLoader, spec: "ModuleSpec") -> "ModuleType | None":
        try:
            return _create(loader, spec)
        except ImportError as error:
            error.add_note(f"plait could give it a private image, but {source} is set")
            raise

    return create


def _make_creator(check: "_Check") -> "_Creator":
    def create(loader: ExtensionFileLoader, spec: "ModuleSpec") -> "ModuleType | None":
        return _create_privately(check, loader, spec)

    return create


def _create_privately(
    check: "_Check", loader: ExtensionFileLoader, spec: "ModuleSpec"
) -> "ModuleType | None":
    package = spec.name.partition(".")[0]
    if package in _TRUSTED or spec.origin is None:
        return _create(loader, spec)
    refusal = check(package, spec)
    if refusal is not None:
        raise ImportError(
            f"{package} cannot be imported by plait's interpreter workers: {refusal.why}. "
            f"{refusal.instead}",
            name=spec.name,
            path=spec.origin,
        )
    module = _plait._load_extension(spec)
    _files[spec.origin] = None
    return module


def _probe(package: str, spec: "ModuleSpec") -> "_trust.Isolation | None":
    from plait import _trust

    found = _trust.ask(package, spec.name, spec.origin)
    return None if found.usable else found


def _force(package: str, spec: "ModuleSpec") -> "_trust.Isolation | None":
    from plait import _trust

    return _trust.REFUSALS.get(package)


def _know(package: str, spec: "ModuleSpec") -> "_trust.Isolation | None":
    from plait import _trust

    return _trust.known_refusal(package, spec.name, spec.origin or "")


# By mode: what is said against a package before one of its modules is loaded.
_CHECKS = {"probe": _probe, "force": _force, "trial": _know}


# Those that have images here, in order.
_files: dict[str, None] = {}


def files_loaded() -> list[str]:
    """The files of the modules that have private images in this interpreter."""
    return list(_files)
