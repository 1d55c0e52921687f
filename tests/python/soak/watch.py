"""What a soak watches: that it goes on, and that the process holds no more than it did."""

import ctypes
import faulthandler
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import helpers
from helpers import Holdings
from plait import _plait

MEGABYTE = 1 << 20


def share_one_arena() -> None:
    """Has all threads allocate from one arena, from the start, so that memory tells what is held.

    glibc gives them several, which grow for an hour while threads come and go, though all is freed.
    """
    m_arena_max = -8
    assert ctypes.CDLL(None).mallopt(m_arena_max, 1) == 1


def memory_held() -> int:
    """Resident bytes, without what malloc() has from the system and nobody from it: that is as much
    as a peak has left, and another round's peak may be higher.
    """
    ctypes.CDLL(None).malloc_trim(0)
    return helpers.memory_of_process()


class Log:
    """The last things that each thread did, to be shown when something went wrong."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tails: dict[str, deque[str]] = {}

    def tail(self, name: str) -> deque[str]:
        with self._lock:
            return self._tails.setdefault(name, deque(maxlen=25))

    def clear(self) -> None:
        with self._lock:
            self._tails.clear()

    def show(self) -> str:
        with self._lock:
            parts = [
                f"--- {name}\n" + "\n".join(map(str, list(tail)))
                for name, tail in sorted(self._tails.items())
            ]
        return "\n".join(parts)


class Watchdog:
    """Ends the process, with its log and the stacks of its threads, unless it is fed in time.

    Two of them: a thread that can show the log, and C code that needs no GIL, a little later.
    """

    def __init__(self, limit: float, log: Log) -> None:
        self._limit, self._log = limit, log
        self._fed = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        self.feed()

    def feed(self) -> None:
        self._fed = time.monotonic()
        faulthandler.dump_traceback_later(self._limit + 15, exit=True)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(1):
            if time.monotonic() - self._fed > self._limit:
                print(f"HANG: nothing came in {self._limit:.0f} s\n{self._log.show()}", flush=True)
                faulthandler.dump_traceback(sys.stdout, all_threads=True)
                sys.stdout.flush()
                os._exit(3)


def cpython_leak() -> float:
    """Bytes that CPython itself loses with each interpreter that imports what a worker does."""
    try:
        import _interpreters
    except ImportError:
        return 0

    def some(count: int) -> int:
        for _ in range(count):
            made = _interpreters.create()
            _interpreters.exec(made, "import concurrent.futures, functools, pickle, threading")
            _interpreters.destroy(made)
        return helpers.memory_of_process()

    before = some(5)
    return max(some(20) - before, 0) / 20


@dataclass(frozen=True)
class Reading:
    held: Holdings
    memory: int
    interpreters_made: int


class Ledger:
    """Readings between rounds, with nothing of plait's in use."""

    def __init__(self, kind: str, sanitized: bool) -> None:
        self._sanitized = sanitized
        self._own_leak = cpython_leak() if kind == "interpreter" else 0.0
        self._kind = kind
        self._first: Holdings | None = None
        self._kept = 0  # processes, at the first reading
        self.readings: list[Reading] = []

    def read(self) -> None:
        """Raises AssertionError if the process holds more than after the first round."""
        if self._first is None:
            helpers.settles(lambda: Holdings.now().threads <= 3, 5)
            self._first, self._kept = Holdings.now(), _plait._count_kept("process")
        first = self._first
        if not helpers.settles(lambda: self._is_within(Holdings.now(), first), 30):
            raise AssertionError(f"left behind: {first} became {Holdings.now()}; {self._names()}")
        made = helpers.newest_interpreter() if self._kind == "interpreter" else 0
        self.readings.append(Reading(Holdings.now(), memory_held(), made))

    @staticmethod
    def _names() -> str:
        threads = [
            Path(f"/proc/self/task/{name}/comm").read_text().strip()
            for name in os.listdir("/proc/self/task")
        ]
        folder = "/proc/self/fd"
        files = [os.path.realpath(f"{folder}/{name}") for name in os.listdir(folder)]
        return f"threads {threads}, files {files}"

    def _is_within(self, now: Holdings, first: Holdings) -> bool:
        # A sanitizer that reports something starts its symbolizer; a process that is kept has one
        # who watches it, its memory, two ends of sockets and what stands for it.
        more = _plait._count_kept("process") - self._kept
        return (
            now.threads <= first.threads + more
            and now.files <= first.files + 4 * more + 4 * self._sanitized
            and now.interpreters <= first.interpreters
        )

    def growth(self) -> str:
        """What memory and maps did between the second quarter and the last; raises if they grew."""
        if self._sanitized:
            return "memory is not judged: a sanitizer keeps what is freed"
        count = len(self.readings)
        if count < 12:
            return f"{count} rounds are too few to judge memory by"
        early, late = self.readings[count // 4 : count // 2], self.readings[-(count // 4) :]

        def mean(readings, field):
            return sum(map(field, readings)) / len(readings)

        grown = mean(late, lambda r: r.memory) - mean(early, lambda r: r.memory)
        maps = mean(late, lambda r: r.held.maps) - mean(early, lambda r: r.held.maps)
        made = mean(late, lambda r: r.interpreters_made) - mean(
            early, lambda r: r.interpreters_made
        )
        allowed = 16 * MEGABYTE + made * (MEGABYTE / 8 + self._own_leak * 1.5)
        told = (
            f"memory {grown / MEGABYTE:+.1f} MB (allowed {allowed / MEGABYTE:.1f}), "
            f"maps {maps:+.0f}, interpreters made {made:.0f}, "
            f"of which CPython loses {self._own_leak / 1024:.0f} KB each"
        )
        assert grown < allowed, told
        assert maps < 100 + made * (self._own_leak > MEGABYTE // 4) * 4, told
        return told
