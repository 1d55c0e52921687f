"""Modules of the standard library that belong to the process, as interpreter workers see them.

CPython refuses faulthandler and _tracemalloc in own-GIL interpreters, since what they switch on is
switched on for the whole process, and packages fail for it that merely import them, scikit-learn
by way of joblib among them. A worker imports what lies here instead: it answers as if nothing were
switched on, and says so where somebody asks for more.

This module is imported by the workers of GIL builds alone. See docs/design/isolate.md.
"""

import sys
from _frozen_importlib_external import PathFinder  # importlib would bring ten modules

TYPE_CHECKING = False  # as in plait itself
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NAMES = frozenset({"faulthandler", "_tracemalloc"})


class _Finder:
    """Of this folder's modules, under their names in the standard library."""

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        return PathFinder.find_spec(name, __path__) if name in NAMES else None


def install() -> None:
    """Has this interpreter import the modules of this folder in place of CPython's."""
    sys.meta_path.insert(0, _Finder)
