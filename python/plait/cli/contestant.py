"""One contestant of the demo: a program that analyses files with one kind of pool, and reports on
itself.

`contest.py` copies this file and `code_report.py` into an empty folder and runs it there as a
script, in a process of its own, so that

- peak memory is the contestant's own;
- the standard library's pools do not import plait in their workers, as they would not in a user's
  program.

It talks in lines of JSON. From standard input it reads its task, `{"contestant", "workers",
"files"}`; to standard output it writes events:

    {"event": "hello", "python"}            which Python this is, for people {"event": "start"}
    imports are done, the clock starts {"event": "progress", "done"}           so many results have
    been received, a few times a second {"event": "end"}                        the last result has
    been received, the clock has stopped;
                                            it waits, pool and results alive, until it reads another
                                            line
    {"event": "result", "seconds", "cpu_seconds", "peak_bytes", "digest", "summary"} {"event":
    "refused", "reason"}          instead of "result": this interpreter cannot serve this kind

`seconds` includes the creation of the pool, but not its end. `cpu_seconds` includes the children's,
and the end of the pool: children can be counted only when they are gone. `peak_bytes` is this
process's alone.
"""

import hashlib
import json
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from plait.cli import code_report
else:
    import code_report  # beside this script

type Reports = Iterable[code_report.FileReport]
type Analyse = Callable[[list[str]], Reports]
type OpenPool = Callable[[], AbstractContextManager[Analyse]]

CHUNKS_PER_WORKER = 16
"""For the process pool. `multiprocessing.Pool` makes 4 chunks for each worker; files are so unequal
that smaller chunks even out the load, and a chunk's transport still costs next to nothing."""

PROGRESS_SECONDS = 0.1


class RefusedError(Exception):
    """This interpreter cannot serve the contestant; the message says why."""


def _serial(workers: int) -> OpenPool:
    @contextmanager
    def open_pool() -> Iterator[Analyse]:
        yield lambda files: map(code_report.analyse_file, files)

    return open_pool


def _executor(make: Callable[[], Any], workers: int, *, chunks: bool = False) -> OpenPool:
    """Open the executor that `make` returns; `chunks`: its `map` should be told a chunk size."""

    @contextmanager
    def open_pool() -> Iterator[Analyse]:
        with make() as pool:

            def analyse(files: list[str]) -> Reports:
                options = {}
                if chunks:
                    options["chunksize"] = max(1, len(files) // (CHUNKS_PER_WORKER * workers))
                reports: Reports = pool.map(code_report.analyse_file, files, **options)
                return reports

            yield analyse

    return open_pool


def _threads(workers: int) -> OpenPool:
    from concurrent.futures import ThreadPoolExecutor

    return _executor(lambda: ThreadPoolExecutor(workers), workers)


def _processes(workers: int) -> OpenPool:
    from concurrent.futures import ProcessPoolExecutor

    return _executor(lambda: ProcessPoolExecutor(workers), workers, chunks=True)


def _interpreters(workers: int) -> OpenPool:
    from concurrent import futures

    make = getattr(futures, "InterpreterPoolExecutor", None)
    if make is None:
        raise RefusedError("new in Python 3.14")
    return _executor(lambda: make(workers), workers)


def _plait(kind: str) -> Callable[[int], OpenPool]:
    def prepare(workers: int) -> OpenPool:
        import plait

        def make() -> Any:
            try:
                return plait.Pool(workers, kind=kind)
            except RuntimeError as error:
                raise RefusedError(str(error)) from None

        return _executor(make, workers)

    return prepare


CONTESTANTS: dict[str, tuple[str, Callable[[int], OpenPool]]] = {
    "serial": ("serial: map()", _serial),
    "threads": ("ThreadPoolExecutor", _threads),
    "processes": ("ProcessPoolExecutor", _processes),
    "interpreters": ("InterpreterPoolExecutor", _interpreters),
    "plait-thread": ('plait.Pool(kind="thread")', _plait("thread")),
    "plait-interpreter": ('plait.Pool(kind="interpreter")', _plait("interpreter")),
    "plait-process": ('plait.Pool(kind="process")', _plait("process")),
}
"""Title of each contestant, and what does its imports and returns how to open its pool."""


def main() -> None:
    """Do the task on standard input."""
    # Events go to a copy of standard output, which itself becomes standard error: nothing that
    # workers might print can be taken for an event.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: str, **fields: object) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")
        events.flush()

    task = json.loads(sys.stdin.readline())
    emit("hello", python=_python())
    try:
        open_pool = CONTESTANTS[task["contestant"]][1](task["workers"])
        emit("start")
        emit("result", **_compete(open_pool, task["files"], emit))
    except RefusedError as refusal:
        emit("refused", reason=str(refusal))


def _compete(open_pool: OpenPool, files: list[str], emit: Callable[..., None]) -> dict[str, object]:
    reports: list[code_report.FileReport] = []
    cpu_before = _cpu_seconds()
    began = time.perf_counter()
    reported = began
    with open_pool() as analyse:
        for report in analyse(files):
            reports.append(report)
            now = time.perf_counter()
            if now - reported >= PROGRESS_SECONDS:
                emit("progress", done=len(reports))
                reported = now
        seconds = time.perf_counter() - began
        peak_bytes = _peak_bytes()
        emit("end")
        sys.stdin.readline()
    cpu_seconds = _cpu_seconds() - cpu_before + _children_cpu_seconds()
    summary = code_report.summarise(reports)
    answer = json.dumps([summary, reports], sort_keys=True)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_bytes": peak_bytes,
        "digest": hashlib.sha256(answer.encode()).hexdigest(),
        "summary": summary,
    }


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of those children it has waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _children_cpu_seconds() -> float:
    """Return the CPU time of the children that still run, and of those they have waited for.

    With the start method forkserver, the workers are children of the server, which outlives the
    pool.
    """
    import psutil  # only now, when time and memory have been measured

    total = 0.0
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _peak_bytes() -> int:
    """Return the most memory that this process has had resident."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    # On Linux ru_maxrss would not do: a new program inherits it from the process that started it.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _python() -> str:
    """Return the name and version of this interpreter, for people."""
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
    variant = " free-threaded" if free_threaded else ""
    if free_threaded and getattr(sys, "_is_gil_enabled", lambda: True)():
        variant += ", GIL on"
    return f"{platform.python_implementation()} {platform.python_version()}{variant}"


if __name__ == "__main__":
    main()
