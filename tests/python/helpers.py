"""For tests: which kinds serve here, child processes under a watchdog, and what a process holds."""

import contextlib
import functools
import gc
import os
import random
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jobs
import plait
import pytest
from plait import _plait

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# CPython's own defects: here kind="interpreter" must be refused, and nowhere else on a GIL build.
INTERPRETERS_CRASH = sys.version_info[:3] < (3, 12, 8) or sys.version_info[:3] == (3, 13, 0)

# Whether interpreters outlive their pools, for later ones.
KEEPS_INTERPRETERS = sys.version_info >= (3, 13) and not FREE_THREADED and not INTERPRETERS_CRASH

# For timeouts in seconds: never reached unless something hangs.
LONG = 60

# What a child process may take: far more than it needs, since machines are slow at times.
WATCHDOG = float(os.environ.get("PLAIT_TEST_WATCHDOG", "100"))


def kinds_here() -> list[str]:
    """The kinds to run the tests on: known beforehand where there is a GIL, asked for where not.

    PLAIT_TEST_KINDS="thread process" names them.
    """
    if "PLAIT_TEST_KINDS" in os.environ:
        return os.environ["PLAIT_TEST_KINDS"].split()
    if INTERPRETERS_CRASH:
        return ["thread", "process"]
    if FREE_THREADED:
        try:
            plait.Pool(1, kind="interpreter").shutdown()
        except RuntimeError:
            return ["thread", "process"]
    return ["thread", "interpreter", "process"]


def in_threads(count: int, function: Callable[[int], object]) -> None:
    """Runs function(index) in several threads at once; what any of them raised is raised."""
    barrier, errors = threading.Barrier(count), []

    def body(index: int) -> None:
        try:
            barrier.wait()
            function(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Gate:
    """Holds tasks of any kind back: they call gate.wait(), which returns after open()."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wait = functools.partial(jobs.wait_for_file, os.fspath(path))

    def open(self) -> None:
        self.path.touch()


# ---- child processes ----


@dataclass(frozen=True)
class Ended:
    """How a child process ended."""

    code: int
    out: str
    err: str

    def lines(self) -> list[str]:
        return self.out.splitlines()

    def show(self) -> str:
        return f"exit status {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Child:
    """A Python process of its own. Killed, with the stacks of its threads shown, if it hangs."""

    def __init__(self, args: Sequence[str], stdin: str | None, env: dict[str, str] | None) -> None:
        self._out: list[str] = []
        self._err: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *args],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        )
        if stdin is not None:
            self.process.stdin.write(stdin)
            self.process.stdin.close()
        self._said = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self._out), (self.process.stderr, self._err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, lines: list[str]) -> None:
        for line in stream:
            with self._said:
                lines.append(line)
                self._said.notify_all()
        with self._said:
            lines.append("")  # nothing more comes
            self._said.notify_all()

    def wait_for(self, word: str, timeout: float = WATCHDOG) -> None:
        """Until the child has printed a line `word`."""
        with self._said:
            self._said.wait_for(lambda: word + "\n" in self._out or "" in self._out, timeout)
            found = word + "\n" in self._out
        if not found:
            self.kill()
            pytest.fail(f"the child did not say {word!r}: {self.finish(5).show()}")

    def kill(self) -> None:
        """With SIGABRT, for the sake of faulthandler's stacks, then for good."""
        for number in (signal.SIGABRT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            time.sleep(0.5)

    def finish(self, timeout: float = WATCHDOG) -> Ended:
        """Waits for its end."""
        hung = False
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            hung = True
            self.kill()
        for reader in self._readers:
            reader.join(10)
        ended = Ended(self.process.wait(), "".join(self._out), "".join(self._err))
        if hung:
            pytest.fail(f"the child process hung: {ended.show()}")
        return ended


def start(script: str, *args: str, how: str = "-c", folder: Path | None = None, env=None) -> Child:
    """A child that runs a script: how is "-c", "stdin", or "file" (in `folder`)."""
    if how == "stdin":
        return Child(["-", *args], script, env)
    if how == "file":
        path = folder / "script.py"
        path.write_text(script)
        return Child([os.fspath(path), *args], None, env)
    return Child(["-c", script, *args], None, env)


def run(script: str, *args: str, code: int | None = 0, timeout: float = WATCHDOG, **how) -> Ended:
    """Runs a script in a child; fails unless it ends with exit status `code`."""
    ended = start(script, *args, **how).finish(timeout)
    assert code is None or ended.code == code, ended.show()
    assert "Fatal Python error" not in ended.err, ended.show()
    return ended


def run_quietly(script: str, *args: str, **how) -> list[str]:
    """Like run(); nothing may be written to stderr. Its lines."""
    ended = run(script, *args, **how)
    assert ended.err == "", ended.show()
    return ended.lines()


# ---- extension modules ----

EXTENSIONS = Path(__file__).parent / "extensions"


def compile_module(folder: Path, name: str, how: str, source: str = "sample.c") -> None:
    """Makes an extension module of extensions/SOURCE in a folder; how: as defined there."""
    *packages, last = name.split(".")
    target = folder.joinpath(*packages)
    target.mkdir(parents=True, exist_ok=True)
    for depth in range(len(packages)):
        folder.joinpath(*packages[: depth + 1], "__init__.py").touch()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    include = sysconfig.get_path("include")
    command = ["cc", "-O1", "-shared", "-fPIC", "-pthread", f"-I{include}", f"-DNAME={last}"]
    command += [f"-D{how}", os.fspath(EXTENSIONS / source), "-o"]
    command.append(os.fspath(target / f"{last}{suffix}"))
    subprocess.run(command, check=True, timeout=WATCHDOG)


# ---- what this process holds ----


def threads_of_process() -> int:
    return len(os.listdir("/proc/self/task"))


def files_of_process() -> int:
    return len(os.listdir("/proc/self/fd"))


def _state_and_parent(pid: int) -> tuple[str, int]:
    """Of a process, as proc(5) has them; "" and 0 where it is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])


def children_of(pid: int) -> list[int]:
    """Every process whose parent is `pid`, zombies too."""
    processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [one for one in processes if _state_and_parent(one)[1] == pid]


def state_of(pid: int) -> str:
    """Of a process: "S" asleep, "T" stopped, "Z" a zombie, "" not there."""
    return _state_and_parent(pid)[0]


def own_children() -> list[int]:
    return children_of(os.getpid())


def grandchildren() -> list[int]:
    return [grandchild for child in own_children() for grandchild in children_of(child)]


def hit_a_child(
    rng: random.Random,
    pause: float,
    stop: float,
    find: Callable[[], list[int]] = own_children,
) -> signal.Signals | None:
    """After a pause kills one of the children, or stops it for a while.

    pause, stop: seconds at most. The signal, or None where there was no child just then.
    """
    time.sleep(rng.random() * pause)
    number = rng.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
    try:
        victim = rng.choice(find())
        os.kill(victim, number)
        if number == signal.SIGSTOP:
            time.sleep(rng.random() * stop)
            os.kill(victim, signal.SIGCONT)
    except (IndexError, ProcessLookupError):  # it has gone
        return None
    return number


def maps_of_process() -> int:
    with open("/proc/self/maps") as maps:
        return sum(1 for _ in maps)


def memory_of_process() -> int:
    """Resident bytes."""
    with open("/proc/self/status") as status:
        return int(re.search(r"VmRSS:\s*(\d+) kB", status.read())[1]) * 1024


def interpreters_of_process() -> int:
    """Without those that are kept for later pools."""
    try:
        import _interpreters
    except ImportError:
        import _xxsubinterpreters as _interpreters
    return len(_interpreters.list_all()) - _plait._count_kept("interpreter")


def newest_interpreter() -> int:
    """Counts all interpreters that there have been."""
    try:
        import _interpreters
    except ImportError:
        return 0
    made = _interpreters.create()
    _interpreters.destroy(made)
    return int(made)


@dataclass(frozen=True)
class Holdings:
    """A snapshot of what leaks are made of."""

    threads: int
    files: int
    maps: int
    interpreters: int

    @classmethod
    def now(cls) -> "Holdings":
        gc.collect()
        return cls(
            threads_of_process(), files_of_process(), maps_of_process(), interpreters_of_process()
        )


def settles(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Whether a condition comes to hold: a thread that was joined leaves /proc a moment later."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def settled(held: Holdings, maps_more: int) -> bool:
    """Whether this process holds no more than at a time before, soon; nothing is kept afterwards.

    Workers of a pool that nobody has waited for are kept at any time.
    """

    def within() -> bool:
        _plait._end_kept(False)
        now = Holdings.now()
        return (
            now.threads <= held.threads
            and now.files <= held.files
            and now.interpreters <= held.interpreters
            and now.maps <= held.maps + maps_more
        )

    return settles(within, 30)


def interpreters_id() -> int:
    """Which interpreter this runs in."""
    try:
        import _interpreters
    except ImportError:
        import _xxsubinterpreters as _interpreters
    current = _interpreters.get_current()
    return int(current[0] if isinstance(current, tuple) else current)


def where() -> tuple[int, int]:
    """Which interpreter of which process this runs in."""
    return os.getpid(), interpreters_id()
