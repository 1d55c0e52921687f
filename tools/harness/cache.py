"""The cache folder, its lock, and how a script says what it does.

Everything that can be made again lives under one folder outside the checkout, so that several
clones share interpreters and downloads:

    interpreters/   one record (JSON) per interpreter, written last: it means "usable"
    sid/            a Debian sid tree with the interpreters that come as packages
    built/          interpreters built from source
    envs/           per interpreter: a virtual environment with the build and test dependencies
    checkouts/      per clone and interpreter: build folder, wheels, installed plait
    host/           tools that run outside any tested interpreter (meson, ruff, clang-format)
    pip/ pip-sid/   pip's downloads, and logs/: what each long step printed
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

Word = str | os.PathLike[str]  # of a command

_START = time.monotonic()


class Failure(Exception):
    """Something the user must know about; the message is all they need."""


class AbsentError(Failure):
    """Something cannot be had on this machine, now; nothing went wrong."""


def cache_root() -> Path:
    """The cache folder; made when first asked for."""
    given = os.environ.get("PLAIT_CACHE")
    if given:
        root = Path(given).absolute()
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait"
    if root == CHECKOUT or CHECKOUT in root.parents:
        raise Failure(f"the cache folder {root} must lie outside the checkout")
    root.mkdir(parents=True, exist_ok=True)
    return root


def checkout_cache() -> Path:
    """This clone's own folder in the cache."""
    digest = hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:8]
    return cache_root() / "checkouts" / f"{CHECKOUT.name}-{digest}"


def say(text: str) -> None:
    """Print one line of progress with the time since the script began."""
    print(f"[{time.monotonic() - _START:5.0f}s] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel releases it if this process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: another process is busy with {what}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_logged(
    command: Sequence[Word],
    log: str | Path,
    *,
    tree: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    append: bool = False,
) -> None:
    """Run a command with its output in a log file; on failure show the end of the log and raise
    Failure.

    `tree` is the system tree to run in (see enter.py), None for this machine's own.
    """
    path = cache_root() / "logs" / f"{log}.log" if isinstance(log, str) else log
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [os.fspath(word) for word in command]
    with open(path, "ab" if append else "wb") as out:
        out.write(f"$ {shlex.join(words)}\n".encode())
        out.flush()
        done = subprocess.run(
            in_tree(words, tree),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
    if done.returncode != 0:
        # pip explains at length, after the output that matters, that a program it ran has failed.
        output = path.read_text(errors="replace").split("error: subprocess-exited-with-error")[0]
        tail = "\n".join(output.rstrip().splitlines()[-40:])
        raise Failure(
            f"failed ({done.returncode}): {shlex.join(words)}\n\n{tail}\n\nfull log: {path}"
        )


def in_tree(command: Sequence[str], tree: Path | None, *options: str) -> list[str]:
    """The command that runs `command` inside a system tree; the options are those of enter.py."""
    if tree is None:
        return list(command)
    return [
        sys.executable,
        "-S",
        os.fspath(Path(__file__).with_name("enter.py")),
        *options,
        os.fspath(tree),
        *command,
    ]
