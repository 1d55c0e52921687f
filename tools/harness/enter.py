"""Run a program inside another system tree, with the rest of this machine in its usual place.

The tree has the folders a distribution owns (/usr, /etc, /var and the links into /usr); every other
folder of the machine, /proc, /dev, /sys, /tmp and the homes among them, is mounted over the tree at
the same path. All mounts live in a mount namespace of this process: they vanish with it, however it
ends. The process is replaced, never forked, so signals, standard streams, process id and exit
status are the program's own.

Needs root and Linux. As a script: enter.py [--bare] TREE PROGRAM ARGS...
With --bare, no configuration or certificate files are shown: packages that own such a file could
not replace it while something is mounted there.
"""

from __future__ import annotations

import configparser
import ctypes
import os
import signal
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_TREE_OWNS = frozenset(
    ["bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "lost+found", "sbin", "usr", "var"]
)

# Single files of the machine that programs in the tree need.
_NETWORK_FILES = ["/etc/resolv.conf", "/etc/hosts"]
_PIP_FILES = ["/etc/pip.conf", "/etc/xdg/pip/pip.conf"]

# Variables that name certificate bundles or configuration files. What they name must exist inside
# the tree, too.
_FILE_VARIABLES = [
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
]

_CLONE_NEWNS = 0x00020000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000


def enter(tree: Path, also: Sequence[Path] = (), *, bare: bool = False) -> None:
    """Make this process see `tree` as its root, keeping its working directory.

    `also` names folders that must be visible even if they lie below a folder that the tree owns.
    `bare` leaves out files of configuration and certificates.
    """
    cwd = os.getcwd()
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS), "unshare", "needs root")
    _mount(libc, None, "/", _MS_REC | _MS_PRIVATE)
    for folder in _machine_folders(tree):
        _bind(libc, tree, folder)
    for path in [*also, *_machine_files(bare)]:
        if path.parts[1] in _TREE_OWNS and path.exists():
            _bind(libc, tree, path)
    os.chroot(tree)
    try:
        os.chdir(cwd)
    except FileNotFoundError:
        sys.exit(
            f"{cwd} cannot be seen from inside {tree}: run from the checkout, a home folder or /tmp"
        )


def execute(program: str, args: Sequence[str], env: Mapping[str, str]) -> None:
    """Replace this process, undoing what the interpreter running this script did to signals."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    os.execvpe(program, [program, *args], env)


def _machine_folders(tree: Path) -> list[Path]:
    """Top-level folders to show inside the tree, the one holding the tree first (it is copied with
    its mounts).
    """
    with os.scandir("/") as entries:
        names = [
            e.name for e in entries if e.name not in _TREE_OWNS and e.is_dir(follow_symlinks=False)
        ]
    return [
        Path("/", name) for name in sorted(names, key=lambda name: (name != tree.parts[1], name))
    ]


def _machine_files(bare: bool) -> list[Path]:
    if bare:
        return [Path(name) for name in _NETWORK_FILES if os.path.isfile(name)]
    named = [os.environ[name] for name in _FILE_VARIABLES if name in os.environ]
    named = [*_NETWORK_FILES, *_PIP_FILES, *named, *_named_by_pip()]
    return [Path(name) for name in named if os.path.isabs(name) and os.path.isfile(name)]


def _named_by_pip() -> list[str]:
    """What may be files in pip's configuration: constraints, certificates."""
    config = configparser.RawConfigParser(strict=False)
    config.read(_PIP_FILES)
    values = [value for section in config.sections() for _, value in config.items(section)]
    return " ".join(values).split()


def _bind(libc: ctypes.CDLL, tree: Path, path: Path) -> None:
    target = Path(f"{tree}{path}")
    if path.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not _is_regular(target):
        # A link would lead out of the tree; a missing file cannot be mounted over.
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.touch()
    _mount(libc, path, target, _MS_BIND | _MS_REC)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _mount(libc: ctypes.CDLL, source: Path | None, target: Path | str, flags: int) -> None:
    encoded = os.fsencode(source) if source else None
    _check(
        libc.mount(encoded, os.fsencode(target), None, ctypes.c_ulong(flags), None),
        "mount",
        str(target),
    )


def _check(result: int, call: str, detail: str) -> None:
    if result != 0:
        sys.exit(f"{call}: {os.strerror(ctypes.get_errno())} ({detail})")


if __name__ == "__main__":
    bare = sys.argv[1] == "--bare"
    tree, program, *args = sys.argv[2 if bare else 1 :]
    enter(Path(tree), bare=bare)
    execute(program, args, os.environ)
