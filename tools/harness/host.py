"""What runs outside any tested interpreter: tools from PyPI in an environment of their own, and
system packages.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from . import debian
from .cache import Failure, Word, cache_root, locked, run_logged, say

# Pinned where another version would find or format other things.
_TOOLS = ("meson>=1.5", "ninja", "ruff==0.17.6", "clang-format==23.1.5", "mypy==2.4.1")


def ensure_tools() -> Path:
    """The folder with the tools' programs; installed if need be."""
    folder = cache_root() / "host"
    stamp = folder / ".complete"
    wanted = hashlib.sha256(repr(_TOOLS).encode()).hexdigest()
    if not _says(stamp, wanted):
        with locked(cache_root() / "host.lock", "the host's tools"):
            if not _says(stamp, wanted):
                _install_tools(folder)
                stamp.write_text(wanted)
    return folder / "bin"


def _says(stamp: Path, text: str) -> bool:
    return stamp.exists() and stamp.read_text() == text


def _install_tools(folder: Path) -> None:
    say(f"installing {' '.join(_TOOLS)}")
    (folder / ".complete").unlink(missing_ok=True)
    _make_venv(folder)
    env = {
        "PIP_CACHE_DIR": os.fspath(cache_root() / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    run_logged(
        [folder / "bin/python3", "-m", "pip", "install", *_TOOLS], "host", append=True, env=env
    )


def _make_venv(folder: Path) -> None:
    command: list[Word] = [os.path.realpath(sys.executable), "-m", "venv", "--clear", folder]
    try:
        run_logged(command, "host")
    except Failure:
        # Debian keeps what `venv` needs in a package apart.
        debian.install_packages(["python3-venv"])
        run_logged(command, "host")


@dataclass(frozen=True)
class _Need:
    what: str
    is_there: Callable[[], bool]
    packages: tuple[str, ...]


def _program(*names: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(name) for name in names)


def _compiles(compiler: str, suffix: str, text: str, *flags: str) -> Callable[[], bool]:
    """A check that a small program links: surer than asking whether a package is installed."""

    def check() -> bool:
        if not shutil.which(compiler):
            return False
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "try" + suffix)
            source.write_text(text)
            command: list[Word] = [compiler, *flags, source, "-o", source.with_suffix(".out")]
            return subprocess.run(command, capture_output=True).returncode == 0

    return check


_MAIN = "int main(void) { return 0; }\n"
_FUZZER = (
    "#include <stddef.h>\nint LLVMFuzzerTestOneInput(const void *p, size_t n) { return !p && n; }\n"
)
_CC = _Need("a C compiler", _compiles("cc", ".c", _MAIN), ("gcc", "libc6-dev"))

_NEEDS = {
    "core": [_CC],
    "tsan": [
        _Need(
            "a C compiler with ThreadSanitizer",
            _compiles("cc", ".c", _MAIN, "-fsanitize=thread"),
            ("gcc",),
        )
    ],
    "asan": [
        _Need(
            "a C compiler with ASan",
            _compiles("cc", ".c", _MAIN, "-fsanitize=address,undefined"),
            ("gcc",),
        )
    ],
    "models": [
        _Need("a C++ compiler", _program("c++"), ("g++",)),
        _Need(
            "Relacy",
            _compiles(
                "c++", ".cpp", "#include <relacy/relacy.hpp>\n" + _MAIN.replace("void", ""), "-w"
            ),
            ("relacy-dev",),
        ),
    ],
    "fuzz": [
        _Need("clang", _program("clang"), ("clang",)),
        # Clang 14 is Debian 12's; its run-time libraries are a package apart.
        _Need(
            "libFuzzer",
            _compiles("clang", ".c", _FUZZER, "-fsanitize=fuzzer,address"),
            ("libclang-rt-14-dev",),
        ),
    ],
    "guards": [_Need("valgrind", _program("valgrind"), ("valgrind",))],
}
PURPOSES = tuple(_NEEDS)


def ensure_system(purposes: Iterable[str]) -> None:
    """Install the system packages for these purposes, or say what is missing."""
    for purpose in purposes:
        for need in _NEEDS[purpose]:
            if not need.is_there():
                say(f"{need.what} is missing")
                debian.install_packages(need.packages)
                if not need.is_there():
                    raise Failure(
                        f"{need.what} is needed for {purpose}; {need.packages} did not bring it"
                    )
