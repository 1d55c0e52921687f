"""One contestant of the demo: a program that analyses things with one kind of pool, and reports on
itself.

`contest.py` copies this file, `code_report.py` and `image_report.py` into an empty folder and runs
it there as a script, in a process of its own, so that

- peak memory is the contestant's own;
- the standard library's pools do not import plait in their workers, as they would not in a user's
  program.

It talks in lines of JSON. From standard input it reads its task, `{"contestant", "workers", "work",
"items", "pictures"}`, where the work is one of `WORKS`, and pictures of what was found go to a file
if it is named; to standard output it writes events:

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
import math
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from plait.cli import code_report
else:
    import code_report  # beside this script

type Reports = Iterable[Any]
type Analyse = Callable[[Callable[[Any], Any], list[Any]], Reports]
type OpenPool = Callable[[], AbstractContextManager[Analyse]]

CHUNKS_PER_WORKER = 16
"""For the process pool. `multiprocessing.Pool` makes 4 chunks for each worker; files are so unequal
that smaller chunks even out the load, and a chunk's transport still costs next to nothing."""

PROGRESS_SECONDS = 0.1


class RefusedError(Exception):
    """This interpreter cannot serve the contestant; the message says why."""


@dataclass(frozen=True)
class Work:
    """What is done: `prepare` makes of a task's items what is analysed, before the clock starts."""

    prepare: Callable[[list[Any]], list[Any]]
    analyse: Callable[[Any], Any]  # the report on one
    summarise: Callable[[list[Any]], Any]
    draw: Callable[[Path, list[Any], list[Any]], None] | None = None
    packages: tuple[str, ...] = ()  # with extension modules


def _code() -> Work:
    return Work(list, code_report.analyse_file, code_report.summarise)


def _images() -> Work:
    if TYPE_CHECKING or __package__:
        from plait.cli import image_report as report
    else:
        import image_report as report

    def prepare(numbers: list[int]) -> list[Any]:
        return list(map(report.make_image, numbers))

    return Work(prepare, report.analyse_image, report.summarise, report.write_pictures, ("numpy",))


WORKS: dict[str, Callable[[], Work]] = {"code": _code, "images": _images}


def _serial(workers: int) -> OpenPool:
    @contextmanager
    def open_pool() -> Iterator[Analyse]:
        yield map

    return open_pool


def _executor(make: Callable[[], Any], workers: int, *, chunks: bool = False) -> OpenPool:
    """Open the executor that `make` returns; `chunks`: its `map` should be told a chunk size."""

    @contextmanager
    def open_pool() -> Iterator[Analyse]:
        with make() as pool:

            def analyse(function: Callable[[Any], Any], things: list[Any]) -> Reports:
                options = {}
                if chunks:
                    options["chunksize"] = max(1, len(things) // (CHUNKS_PER_WORKER * workers))
                reports: Reports = pool.map(function, things, **options)
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
        work = WORKS[task["work"]]()
        if task["contestant"] == "interpreters" and work.packages:
            raise RefusedError(f"CPython imports no {', '.join(work.packages)} into its workers")
        if task["contestant"] == "plait-interpreter":
            _try_out(work.packages)
        things = work.prepare(task["items"])
        emit("start")
        result, reports = _compete(open_pool, work, things, emit)
    except (RefusedError, ImportError) as refusal:
        emit("refused", reason=str(refusal))
        return
    if task["pictures"] and work.draw:
        work.draw(Path(task["pictures"]), things, reports)
    emit("result", **result)


def _try_out(packages: Iterable[str]) -> None:
    """Has plait know whether workers can import these: the trial, made once, is no contest."""
    import plait

    for package in packages:
        plait.isolation(package)


def _compete(
    open_pool: OpenPool, work: Work, things: list[Any], emit: Callable[..., None]
) -> tuple[dict[str, object], list[Any]]:
    reports: list[Any] = []
    cpu_before = _cpu_seconds()
    began = time.perf_counter()
    reported = -math.inf  # the first result is told at once, however fast all of it is
    with open_pool() as analyse:
        for report in analyse(work.analyse, things):
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
    summary = work.summarise(reports)
    answer = json.dumps([summary, reports], sort_keys=True, default=_plain)
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_bytes": peak_bytes,
        "digest": hashlib.sha256(answer.encode()).hexdigest(),
        "summary": summary,
    }
    return result, reports


def _plain(array: Any) -> list[object]:
    """Return what tells an array from others, for JSON."""
    return [str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()]


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
