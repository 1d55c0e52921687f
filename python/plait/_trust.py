"""Which packages interpreter workers may import, and how that is known.

A package is tried out once in a child process (plait._probe), by whoever is the first to ask for
one of its extension modules. What came out is kept on disk, by package, interpreter build, libc and
plait build, and holds while the extension files that were seen stay as they were (size and time of
change, else size and checksum). A crash is kept, and so is a success; what may be better
tomorrow, an exception or a time limit, is kept by the interpreter that asked alone.

Used by workers' interpreters, and by the main one for plait.isolation(). One thread of a process at
a time tries out a package, and one process.
"""

import contextlib
import fcntl
import functools
import importlib.util
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from plait import _kinds, _plait

INSTEAD: Final = (
    "Use kind='process' for work that needs it, or kind='thread' on a free-threaded build"
)

_FORMAT: Final = 2  # of what is kept
_KEPT_SECONDS: Final = 90 * 86400  # since it was asked for last


class Isolation(NamedTuple):
    """Whether interpreter workers can import a package, as plait.isolation() gives it.

    package: its name. verdict: "native", all its extension modules support own-GIL interpreters, or
    it has none; "private image", it works, since each worker has a copy of its extension modules;
    "one interpreter only", it works as long as no other interpreter of the process uses it, so
    pools refuse it; "refused", it does not work. why: in words. instead: what to use instead; None
    where it can be imported.
    """

    package: str
    verdict: str
    why: str
    instead: str | None = None

    @property
    def usable(self) -> bool:
        """Whether interpreter workers import it."""
        return self.verdict in ("native", "private image")


REFUSALS: Final = {
    package: Isolation(package, "refused", why, INSTEAD) for package, why in _kinds.REFUSED.items()
}


class _Record(NamedTuple):
    """What is kept of a package."""

    isolation: Isolation
    files: dict[str, list[int]]  # the extension files seen: [size, time of change in ns, checksum]
    lasting: bool  # not to be tried again as long as the files stay

    def is_current(self) -> bool:
        """Whether the files are what they were."""
        return all(_is_same(path, before) for path, before in self.files.items())


def isolation(package: str) -> Isolation:
    """Whether interpreter workers can import a package, and why.

    package: the name it is imported by, or that of one of its modules. Where it is not known yet,
    it is tried out in a child process, which takes a second or so; so this blocks.

    Raises ModuleNotFoundError where there is no such package. May be called from any thread.
    """
    top = package.partition(".")[0]
    if top in REFUSALS:
        return REFUSALS[top]
    if importlib.util.find_spec(top) is None:
        raise ModuleNotFoundError(f"No module named {top!r}", name=top)
    if _kinds.FREE_THREADED:
        why = "free-threaded CPython runs threads in parallel, which import everything as ever"
        return Isolation(top, "native", why)
    refusal = _kinds.interpreter_refusal()
    if refusal is not None:
        return Isolation(top, "refused", refusal, INSTEAD)
    if top in sys.stdlib_module_names:
        return Isolation(top, "native", "it belongs to the standard library")
    return ask(top, package, None)


def known_refusal(package: str, module: str, file: str) -> Isolation | None:
    """What is known against a package, without trying it out; the rest is as in ask()."""
    if package in REFUSALS:
        return REFUSALS[package]
    record = _load(_folder(), package)
    if record is None or record.isolation.usable or not _covers(record, module, file):
        return None
    return record.isolation


def ask(package: str, module: str, file: str | None) -> Isolation:
    """The verdict on a package; `module` is imported in the trial if there must be one.

    file: of the extension module that is about to be loaded, which the verdict must cover; None
    where there is none. Blocks while a child process tries it out.
    """
    if package in REFUSALS:
        return REFUSALS[package]
    folder = _folder()
    record = _load(folder, package)
    if record is None or not _covers(record, module, file):
        with _alone(folder, package):
            record = _load(folder, package)
            if record is None or not _covers(record, module, file):
                record = _try_out(package, module, file)
                _keep(folder, record)
    return record.isolation


def _covers(record: _Record, module: str, file: str | None) -> bool:
    """A package whose trial loaded no extension modules was not tried at all, and two top-level
    modules of one name need not be the same: they can be loaded from any file.
    """
    if file is None:
        return True
    if not record.files:
        return not record.isolation.usable
    return "." in module or file in record.files


# ---- trying out ----


def _try_out(package: str, module: str, file: str | None) -> _Record:
    from plait import _probe

    try:
        both = _probe.run(module, file, 2)
    except OSError as error:
        why = (
            f"it could not be tried out in a child process: {error}. PLAIT_ISOLATION=force, or "
            "Pool(isolation='force'), trusts every package"
        )
        return _Record(Isolation(package, "refused", why, INSTEAD), {}, False)
    seen = both.files or ((file,) if file else ())  # one that died had no time to tell
    files = {path: _fingerprint(path) for path in seen}
    if both.passed:
        return _Record(_passed(package, both.unfit, len(both.files)), files, True)
    if not both.crashed:
        return _Record(Isolation(package, "refused", both.why, INSTEAD), files, False)
    alone = _probe.run(module, file, 1)
    verdict = "one interpreter only" if alone.passed else "refused"
    return _Record(Isolation(package, verdict, both.why, INSTEAD), files, bool(files))


def _passed(package: str, unfit: int, count: int) -> Isolation:
    if count == 0:
        return Isolation(package, "native", "it loads no extension modules when it is imported")
    if unfit == 0:
        why = f"all {count} extension modules that it loads support own-GIL interpreters"
        return Isolation(package, "native", why)
    why = f"{unfit} of the {count} extension modules that it loads need a copy in each worker"
    return Isolation(package, "private image", why)


# ---- keeping ----


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _folders() -> Iterator[Path]:
    """Where verdicts may be kept, the best first."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):
        yield Path(home, "plait")
    for shared in (os.environ.get("TMPDIR"), "/tmp", "/dev/shm"):
        if shared:
            yield Path(shared, f"plait-{os.getuid()}")


@functools.cache
def _folder() -> Path | None:
    """Where verdicts are kept; None where there is no place for them."""
    for parent in _folders():
        folder = parent / "isolation"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Nobody else may have put there what we would believe.
            statuses = [path.lstat() for path in (parent, folder)]
            own = all(status.st_uid == os.getuid() for status in statuses)
            if own and not statuses[1].st_mode & 0o022 and os.access(folder, os.W_OK | os.X_OK):
                return folder
    return None


def _fingerprint(path: str) -> list[int]:
    stamp = _stamp(path)
    return [*stamp, _checksum(path)] if stamp else []


def _checksum(path: str) -> int:
    checksum = 0
    with contextlib.suppress(OSError), open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _is_same(path: str, before: list[int]) -> bool:
    """Its bytes are only read where it has changed in time: installed again, or copied."""
    stamp = _stamp(path)
    return stamp == before[:2] or (stamp[:1] == before[:1] and _checksum(path) == before[-1])


@functools.cache
def _build() -> str:
    """What a verdict depends on besides the package."""
    parts = [
        _FORMAT,
        sys.version,
        sys.executable,
        os.confstr("CS_GNU_LIBC_VERSION"),
        _stamp(_plait.__file__),
    ]
    return json.dumps(parts)


def _key(package: str) -> str:
    module = sys.modules.get(package)
    spec = importlib.util.find_spec(package) if module is None else module.__spec__
    return f"{_build()} {package} {spec.origin if spec else None}"


def _path(folder: Path, package: str) -> Path:
    return folder / f"{package}-{zlib.crc32(_key(package).encode()):08x}.json"


# Of this interpreter: what it has asked for already.
_remembered: Final[dict[str, _Record]] = {}


def forget_refusals() -> None:
    """Between two pools that an interpreter serves: what failed may be better by now."""
    for package, record in list(_remembered.items()):
        if not record.isolation.usable:
            del _remembered[package]


def _load(folder: Path | None, package: str) -> _Record | None:
    if package in _remembered:
        return _remembered[package]
    if folder is None:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept: dict[str, Any] = json.loads(_path(folder, package).read_text())
        record = _Record(Isolation(*kept["isolation"]), kept["files"], True)
        if kept["key"] == _key(package) and record.is_current():
            _use(_path(folder, package))
            return _remembered.setdefault(package, record)
    return None


def _use(path: Path) -> None:
    """Notes, once a day, that a record is still asked for."""
    if time.time() - path.stat().st_mtime > 86400:
        os.utime(path)


def _keep(folder: Path | None, record: _Record) -> None:
    package = record.isolation.package
    _remembered[package] = record
    if folder is None or not record.lasting:
        return
    path = _path(folder, package)
    with contextlib.suppress(OSError):
        new = path.with_suffix(".new")  # the lock is held
        kept = {"key": _key(package), "isolation": record.isolation, "files": record.files}
        new.write_text(json.dumps(kept))
        new.replace(path)
        _drop_old(folder, package)


def _drop_old(folder: Path, package: str) -> None:
    """Records of builds that nobody has asked about for long."""
    for old in folder.glob(f"{package}-*"):
        if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
            old.unlink()


@contextlib.contextmanager
def _alone(folder: Path | None, package: str) -> Iterator[None]:
    """Held by one thread of all processes at a time, for each package."""
    with contextlib.ExitStack() as stack:
        if folder is not None:
            with contextlib.suppress(OSError):
                lock = stack.enter_context(_path(folder, package).with_suffix(".lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
