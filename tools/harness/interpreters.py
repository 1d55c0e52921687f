"""Which interpreters there are: names, the search on this machine, and the records in the cache."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .cache import Failure, cache_root, in_tree

NAMES = ("3.12", "3.13", "3.13t", "3.14", "3.14t", "3.15", "3.15t")

# Below these, interpreters with a GIL of their own crash at exit (gh-116510 and others). Such a
# version is taken only when no newer one can be had.
FLOORS = {"3.12": (3, 12, 8), "3.13": (3, 13, 1)}

_NAME = re.compile(r"(3\.\d+)(\.\d+)?(t?)")

_PROBE = """
import importlib.util, json, os, sys, sysconfig
print(json.dumps({
    "info": list(sys.version_info),
    "version": sys.version.split()[0],
    "cpython": sys.implementation.name == "cpython",
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "headers": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
    "venv": all(importlib.util.find_spec(m) for m in ("venv", "ensurepip")),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """One usable interpreter. `tree` is the system tree it lives in, or None for this machine's
    own.
    """

    name: str
    version: str
    info: tuple[int | str, ...]
    executable: str
    tree: str | None
    origin: str

    @property
    def tree_path(self) -> Path | None:
        return Path(self.tree) if self.tree else None

    @property
    def good(self) -> bool:
        """Whether it is at or above its version's floor."""
        return self.info[:3] >= FLOORS.get(self.name, (0,))

    def __str__(self) -> str:
        return f"{self.name} is {self.version}, {self.origin}: {self.executable}"


def split_name(name: str) -> tuple[str, bool, bool]:
    """A name's minor version ("3.13"), whether it is free-threaded, and whether it names one exact
    patch.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise Failure(f"{name!r} names no interpreter: {' '.join(NAMES)}, or exactly, as 3.13.0")
    return match[1], bool(match[3]), bool(match[2])


def probe(name: str, executable: str, tree: Path | None, origin: str) -> Interpreter | str:
    """Ask an executable what it is. Returns a sentence if it cannot serve under this name."""
    minor, free_threaded, exact = split_name(name)
    try:
        command = in_tree([executable, "-I", "-c", _PROBE], tree)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        told = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError):
        return f"{executable} does not run"
    if not told["cpython"] or told["free_threaded"] != free_threaded:
        return f"{executable} is another build"
    is_minor = told["version"].startswith(minor + ".")
    if not is_minor or (exact and told["version"] != name.removesuffix("t")):
        return f"{executable} is {told['version']}"
    for part in ("headers", "venv"):
        if not told[part]:
            return f"{executable} lacks its {part} (a -dev or -venv package?)"
    root = os.fspath(tree) if tree else None
    return Interpreter(name, told["version"], tuple(told["info"]), executable, root, origin)


def search_machine(name: str) -> list[Interpreter]:
    """What is there already: on PATH, of pyenv, of uv. Newest first."""
    found: dict[str, Interpreter] = {}
    for executable, origin in _candidates(name):
        resolved = os.path.realpath(executable)
        if resolved not in found:
            result = probe(name, resolved, None, origin)
            if isinstance(result, Interpreter):
                found[resolved] = result
    return sorted(found.values(), key=lambda interpreter: interpreter.info, reverse=True)


def older_patches() -> list[Interpreter]:
    """Interpreters below a floor, under their exact names: they test that plait refuses them
    clearly.
    """
    result = []
    for name in FLOORS:
        for interpreter in search_machine(name):
            if not interpreter.good:
                result.append(Interpreter(**{**asdict(interpreter), "name": interpreter.version}))
    return result


def _candidates(name: str) -> Iterator[tuple[str, str]]:
    minor, free_threaded, _ = split_name(name)
    program = f"python{minor}{'t' if free_threaded else ''}"
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.isabs(folder) and Path(folder) != pyenv / "shims":
            yield from _if_executable(Path(folder, program), "on PATH")
    for path in sorted((pyenv / "versions").glob(f"*/bin/{program}")):
        yield from _if_executable(path, "of pyenv")
    share = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    uv = os.environ.get("UV_PYTHON_INSTALL_DIR")
    for given in (uv, share / "uv/python", cache_root() / "uv-python"):
        if given:
            for path in sorted(Path(given).glob(f"*/bin/{program}")):
                yield from _if_executable(path, "of uv")


def _if_executable(path: Path, origin: str) -> Iterator[tuple[str, str]]:
    if os.access(path, os.X_OK) and path.is_file():
        yield os.fspath(path), origin


# Records


def _record(name: str) -> Path:
    return cache_root() / "interpreters" / f"{name}.json"


def load(name: str) -> Interpreter | None:
    """The recorded interpreter of this name, if its files are still there."""
    try:
        fields = json.loads(_record(name).read_text())
    except FileNotFoundError:
        return None
    interpreter = Interpreter(**{**fields, "info": tuple(fields["info"])})
    # An absolute link inside a tree does not resolve from outside, hence lexists.
    there = os.path.lexists(f"{interpreter.tree or ''}{interpreter.executable}")
    return interpreter if there else None


def save(interpreter: Interpreter) -> None:
    """Record an interpreter; from here on it counts as installed."""
    path = _record(interpreter.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(interpreter), indent=1))
    partial.replace(path)
    _missing_note(interpreter.name).unlink(missing_ok=True)


def recorded() -> list[Interpreter]:
    """All recorded interpreters, oldest version first."""
    names = [path.stem for path in (cache_root() / "interpreters").glob("*.json")]
    loaded = [interpreter for interpreter in map(load, names) if interpreter]
    return sorted(
        loaded,
        key=lambda interpreter: (interpreter.info[:2], len(interpreter.name), interpreter.name),
    )


# A name that could not be had today is not tried again by every `make test`.


def _missing_note(name: str) -> Path:
    return cache_root() / "interpreters" / f"{name}.missing"


def note_missing(name: str, reason: str) -> None:
    path = _missing_note(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(reason)


def recently_missing(name: str, seconds: float = 86400) -> str | None:
    """Why this name could not be had, if that was found out not long ago."""
    path = _missing_note(name)
    try:
        return path.read_text() if time.time() - path.stat().st_mtime < seconds else None
    except FileNotFoundError:
        return None
