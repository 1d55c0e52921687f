"""Chaos: processes of a pool are killed and stopped at random instants while they work.

    tools/py 3.14 tests/python/soak/chaos.py --seconds 3600

Rounds of tasks over four workers, by turns without retries, where each task gives its result or
fails with WorkerDied and is never run twice, and with retries, where all results are right. Every
hundred tasks a process gets SIGKILL, SIGSEGV, or SIGSTOP and, a moment later, SIGCONT. After each
round the pool works at full width, and when it has ended the process holds no more than after the
first round: no zombie, file, map of shared memory, thread or memory. Exit status as the soak's.
"""

import argparse
import collections
import faulthandler
import os
import queue
import random
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import helpers
import jobs
import plait
import tasks
import watch
from plait import _plait

WORKERS = 4
RETRIES = 5
LONG = 120
LARGE = 400_000  # bytes: such messages lie in blocks


# Set by --copies: what a pool is made with, and where the processes of its workers are.
options: dict[str, list[str]] = {}
find_workers = helpers.own_children


def only_kept_children() -> bool:
    return len(find_workers()) <= _plait._count_kept("process")


class Killer:
    """A thread that hits one process, at a random instant, each time it is asked to.

    Asking waits for all hits but the last one. Were they to outrun the tasks, they would go on when
    one task is left and nothing but its process lives, and hit it more often than it has retries.
    """

    def __init__(self, seed: int) -> None:
        self.hits: collections.Counter[str] = collections.Counter()
        self._rng = random.Random(seed)
        self._asked: queue.Queue[bool] = queue.Queue(1)
        self._thread = threading.Thread(target=self._run, name="killer")
        self._thread.start()

    def ask(self) -> None:
        self._asked.put(True)

    def end(self) -> None:
        """When all is done that it was asked for."""
        self._asked.put(False)
        self._thread.join()

    def _run(self) -> None:
        while self._asked.get():
            number = helpers.hit_a_child(self._rng, 0.005, 0.05, find_workers)
            if number is not None:
                self.hits[number.name] += 1


class Round:
    """So many tasks over a pool, half of them submitted, half of them items of a map."""

    def __init__(self, count: int, seed: int, retries: int, killer: Killer) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._count, self._retries, self._killer = count, retries, killer
        self._rng = random.Random(seed)
        self._called: collections.Counter[int] = collections.Counter()
        self._loads = [self._rng.randbytes(LARGE) for _ in range(3)]

    def run(self) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            plait.Pool(WORKERS, kind="process", **options) as pool,
        ):
            marks = Path(folder, "marks")
            marks.touch()
            self._submit(pool.options(retries=self._retries), str(marks))
            self._map(pool.options(retries=self._retries), str(marks))
            self._killer.end()
            self._check(marks)
            meeting = Path(folder, "meeting")
            meeting.mkdir()
            met = [
                pool.submit(jobs.meet, str(meeting), WORKERS, number) for number in range(WORKERS)
            ]
            assert len({future.result(LONG) for future in met}) == WORKERS

    def _call(self, number: int, marks: str) -> tuple[int, str, bytes]:
        return number, marks, self._loads[number % 3] if number % 97 == 0 else b""

    def _submit(self, pool: plait.PoolView, marks: str) -> None:
        waiting: collections.deque[tuple[plait.Future, tuple[int, str, bytes]]]
        waiting = collections.deque()
        for number in range(self._count):
            call = self._call(number, marks)
            future = pool.submit(tasks.mark_and_echo, *call)
            future.add_done_callback(lambda _, number=number: self._called.update([number]))
            waiting.append((future, call))
            if len(waiting) > 300:
                self._take(*waiting.popleft())
        while waiting:
            self._take(*waiting.popleft())

    def _map(self, pool: plait.PoolView, marks: str) -> None:
        calls = [self._call(number, marks) for number in range(self._count, 2 * self._count)]
        results = pool.starmap(tasks.mark_and_echo, calls, buffersize=600)
        for call in calls:
            self._note(call, lambda: next(results))
        assert next(results, None) is None

    def _take(self, future: plait.Future, call: tuple[int, str, bytes]) -> None:
        self._note(call, lambda: future.result(LONG))

    def _note(self, call, ask) -> None:
        number, _, load = call
        if number % 100 == 99:
            self._killer.ask()
        try:
            assert ask() == (number, sum(range(number % 5000)), load), f"task {number}"
            self.outcomes["result"] += 1
        except plait.WorkerDied:
            assert self._retries == 0, f"task {number} died in spite of its retries"
            self.outcomes["died"] += 1

    def _check(self, marks: Path) -> None:
        data = marks.read_bytes()
        ran = collections.Counter(
            int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)
        )
        assert sum(self.outcomes.values()) == 2 * self._count
        assert helpers.settles(lambda: sum(self._called.values()) >= self._count)
        assert self._called == dict.fromkeys(range(self._count), 1), "callbacks"
        assert max(ran.values()) <= 1 + self._retries, "a task was run twice"
        assert len(ran) >= self.outcomes["result"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tasks", type=int, default=5000, help="of a round, of either sort")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--copies", action="store_true", help="workers are copies of a template")
    args = parser.parse_args()
    if args.copies:
        global find_workers
        options["preload"], find_workers = ["tasks"], helpers.grandchildren
    faulthandler.enable()
    watch.share_one_arena()
    print(f"chaos: seed {args.seed}, {args.seconds:.0f} s", flush=True)
    log = watch.Log()
    watchdog, ledger = watch.Watchdog(300, log), watch.Ledger("process", False)
    total: collections.Counter[str] = collections.Counter()
    hits: collections.Counter[str] = collections.Counter()
    began, number = time.monotonic(), 0
    while time.monotonic() - began < args.seconds:
        watchdog.feed()
        killer = Killer(args.seed + number)
        try:
            one = Round(args.tasks, args.seed + number, number % 2 * RETRIES, killer)
            one.run()
            assert one.outcomes["died"] <= killer.hits["SIGKILL"] + killer.hits["SIGSEGV"]
            assert helpers.settles(only_kept_children), "children"
            ledger.read()
        except BaseException:
            traceback.print_exc()
            print(f"FAILED in round {number}: repeat with --seed {args.seed + number}", flush=True)
            os._exit(1)  # whatever still runs
        total += one.outcomes
        hits += killer.hits
        number += 1
    watchdog.stop()
    told = ", ".join(f"{count} {name}" for name, count in (*total.items(), *hits.items()))
    print(f"chaos: {number} rounds in {time.monotonic() - began:.0f} s: {told}; {ledger.growth()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
