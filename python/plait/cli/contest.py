"""Runs the contestants of the demo, each in a fresh process, and measures what they cannot measure
themselves.

What a contestant says on its standard output, and what it waits for, is documented in
`contestant.py`.
"""

import contextlib
import json
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import psutil

SAMPLE_SECONDS = 0.05
SAMPLE_SHARE = 0.02
"""At most this share of one core goes into sampling: a sample of a large tree can take
milliseconds."""

STDERR_LINES = 8


@dataclass
class Outcome:
    """How one contestant did. Figures are those of "ok" only."""

    name: str
    status: Literal["ok", "refused", "failed"] = "failed"
    reason: str = ""  # why it was refused, or how it failed
    stderr: list[str] = field(default_factory=list)  # the last lines, if it failed
    python: str = ""  # name and version of its interpreter, if it came to say so
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    digest: str = ""  # equal for equal answers
    summary: Any = None  # of the work's own type


def format_seconds(seconds: float) -> str:
    """Write a time for people, a short one in milliseconds."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


class TreeSampler:
    """Keeps the peak of the memory of a process and its descendants, sampled in a thread.

    Memory shared between processes counts once: a sample is the sum of their proportional shares
    (PSS), or where the system does not know these, of what each has for itself (USS). A process
    without descendants is not sampled, since it knows its own peak exactly; `peak_bytes` is then 0.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end; may be called again."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self._sample()

    def _run(self) -> None:
        pause = SAMPLE_SECONDS
        while not self._stop.wait(pause):
            began = time.thread_time()
            self._sample()
            pause = max(SAMPLE_SECONDS, (time.thread_time() - began) / SAMPLE_SHARE)

    def _sample(self) -> None:
        try:
            root = psutil.Process(self._pid)
            children = root.children(recursive=True)
        except psutil.Error:  # it has just ended
            return
        if children:
            total = sum(map(_memory_bytes, [root, *children]))
            self.peak_bytes = max(self.peak_bytes, total)


def _memory_bytes(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
    except psutil.Error:  # it has just ended, or belongs to another user
        return 0
    return int(getattr(memory, "pss", memory.uss))


def run_contestant(
    name: str,
    workers: int,
    items: Sequence[str | int],
    on_progress: Callable[[int], None],
    *,
    work: str = "code",
    pictures: Path | None = None,
) -> Outcome:
    """Let the contestant `name` analyse `items`; call `on_progress` with how many are done.

    `pictures`: the file to which those go that the work makes.
    However this ends, and be it by an exception, no process of the contestant is left.
    """
    outcome = Outcome(name)
    with tempfile.TemporaryDirectory(prefix="plait-demo-") as folder, _stderr_file() as stderr:
        process = _start(folder, stderr)
        try:
            threading.Thread(target=_end_with_leader, args=(process,), daemon=True).start()
            task = {"contestant": name, "workers": workers, "work": work, "items": list(items)}
            task["pictures"] = os.fspath(pictures.absolute()) if pictures else ""
            _converse(process, json.dumps(task), outcome, on_progress)
            status = process.wait()
        finally:
            if process.poll() is None:
                _kill_all(process)
            _close_pipes(process)
        if status:
            outcome.status = "failed"
            outcome.reason = _describe_status(status)
        elif outcome.status == "failed":
            outcome.reason = "ended without an answer"
        if outcome.status == "failed":
            stderr.seek(0)
            outcome.stderr = stderr.read().splitlines()[-STDERR_LINES:]
    return outcome


def _stderr_file() -> IO[str]:
    # A file, not a pipe: nobody has to read it while the contestant runs.
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


def _start(folder: str, stderr: IO[str]) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    for script in ("contestant.py", "code_report.py", "image_report.py"):
        shutil.copyfile(here / script, Path(folder, script))
    options = [f"-X{key}" if value is True else f"-X{key}={value}" for key, value in _x_options()]
    return subprocess.Popen(
        # Many files of the standard library's tests are written to make the parser warn.
        [sys.executable, *options, "-Wignore", str(Path(folder, "contestant.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding="utf-8",
        env=_environment(folder),
        start_new_session=True,  # Ctrl-C reaches us alone, and one kill reaches all it has started
    )


def _x_options() -> list[tuple[str, str | bool]]:
    """Return this interpreter's -X options, such as gil=0."""
    return list(sys._xoptions.items())


def _environment(folder: str) -> dict[str, str]:
    """Let every interpreter of the contestant find its modules, and plait where we have found
    it."""
    paths = [folder]
    home = str(Path(__file__).parents[2])
    if home in map(os.path.abspath, sys.path) and home not in site.getsitepackages():
        paths.append(home)  # a checkout
    if inherited := os.environ.get("PYTHONPATH"):
        paths.append(inherited)
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _converse(
    process: subprocess.Popen[str],
    task: str,
    outcome: Outcome,
    on_progress: Callable[[int], None],
) -> None:
    """Hand over the task, then follow the events up to the end of the output."""
    sampler = TreeSampler(process.pid)
    try:
        _say(process, task)
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            match message.pop("event"):
                case "hello":
                    outcome.python = message["python"]
                case "progress":
                    on_progress(message["done"])
                case "end":
                    sampler.stop()
                    _say(process, "go on")
                case "refused":
                    outcome.status = "refused"
                    outcome.reason = message["reason"]
                case "result":
                    outcome.status = "ok"
                    for key, value in message.items():
                        setattr(outcome, key, value)
    finally:
        sampler.stop()
    outcome.peak_bytes = max(outcome.peak_bytes, sampler.peak_bytes)


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended: its exit status will tell
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(
                BrokenPipeError
            ):  # what it has not read is still to be written
                pipe.close()


def _end_with_leader(process: subprocess.Popen[str]) -> None:
    """End what a crashed contestant leaves: forked workers would keep its output open for ever."""
    if process.wait():
        _kill_all(process)


def _kill_all(process: subprocess.Popen[str]) -> None:
    """Kill a contestant, if it still runs, and everything it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _describe_status(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
