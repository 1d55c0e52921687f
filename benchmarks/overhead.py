"""What handing work over costs: plait's kinds and the standard library's pools, side by side.

    tools/py 3.14 benchmarks/overhead.py [--quick] [--only ROW]... [--markdown] [--json FILE]

See README.md for what the rows mean. Ends with the targets and whether they are met; the exit
status does not depend on them.
"""

import argparse
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contestants as who
import harness
import targets
import work
from contestants import Contestant
from harness import Row, Trial

WORKERS = 2
PIPELINED_TASKS = 20_000
ROUND_TRIPS = 1_000
MAP_ITEMS = 1_000_000
CHUNKS = (1_000, 5_000, 25_000, 100_000)
SWEEP = (0, 1, 2, 4, 6, 9, 14, 20, 30, 45, 70, 100, 150, 300, 600, 1_500, 4_000, 10_000)


@dataclass(frozen=True)
class Session:
    """Whom to measure, and how often."""

    contestants: list[Contestant]
    repetitions: int
    scale: int  # --quick divides counts by it

    def submitters(self) -> list[Contestant]:
        return [one for one in self.contestants if one.submits]

    def plaits(self) -> list[Contestant]:
        return [one for one in self.contestants if one.is_plait]

    def copiers(self) -> list[Contestant]:
        """Those whose arguments really travel."""
        here = (who.THREADS, who.PLAIT_THREAD)
        return [one for one in self.submitters() if one.name not in here]

    def count(self, full: int, contestant: Contestant) -> int:
        return max(full // self.scale // contestant.slowness, 20)

    def run(self, row: Row, chosen: list[Contestant], make: Callable[..., Trial]) -> Row:
        """Interleaves make(pool, contestant) over warm pools."""
        with who.opened(chosen, WORKERS) as pools:
            trials = {one.name: make(pools[one.name], one) for one in chosen}
            return harness.interleave(row, trials, self.repetitions)


# ---- tasks one by one ----


def _pipelined(session: Session, row: Row, chosen: list[Contestant], fn: Any) -> Row:
    def make(pool: Any, contestant: Contestant) -> Trial:
        count = session.count(PIPELINED_TASKS, contestant)

        def everything() -> None:
            futures = [pool.submit(fn) for _ in range(count)]
            for future in futures:
                future.result()

        return lambda: harness.seconds(everything) / count * 1e6

    return session.run(row, chosen, make)


def pipelined(session: Session) -> Row:
    """submit N no-ops, then take all N results; per task"""
    row = Row("pipelined", str(pipelined.__doc__), "µs")
    return _pipelined(session, row, session.submitters(), work.nothing)


def pipelined_lambda(session: Session) -> Row:
    """the same with a lambda, which travels by value; per task"""
    row = Row("lambda", str(pipelined_lambda.__doc__), "µs")
    return _pipelined(session, row, session.plaits(), lambda: None)


def round_trip(session: Session) -> Row:
    """submit one no-op and wait for its result; per task"""

    def make(pool: Any, contestant: Contestant) -> Trial:
        count = session.count(ROUND_TRIPS, contestant)

        def everything() -> None:
            for _ in range(count):
                pool.submit(work.nothing).result()

        return lambda: harness.seconds(everything) / count * 1e6

    return session.run(Row("roundtrip", str(round_trip.__doc__), "µs"), session.submitters(), make)


# ---- map ----


def _best_chunk(pool: Any, contestant: Contestant, fn: Any, items: Any) -> int:
    """The chunk size that does best here, of those that give every worker something; 0 without."""
    if not contestant.chunked:
        return 0
    sizes = [size for size in CHUNKS if size * WORKERS <= len(items)] or [len(items) // WORKERS]
    times = {
        size: harness.seconds(
            lambda size=size: harness.exhaust(contestant.map(pool, fn, items, size))
        )
        for size in sizes
    }
    return min(times, key=lambda size: times[size])


def map_items(session: Session) -> Row:
    """map of a no-op over ints, all results taken; per item"""
    row = Row("map", str(map_items.__doc__), "µs")
    notes: dict[str, str] = {}

    def make(pool: Any, contestant: Contestant) -> Trial:
        slowness = 1 if contestant.chunked or contestant.is_plait else contestant.slowness * 4
        count = max(MAP_ITEMS // session.scale // slowness, 1_000)
        items = range(count)
        chunk = _best_chunk(pool, contestant, work.nothing, items)
        notes[contestant.name] = f"{count:,} items" + (f", chunks of {chunk:,}" if chunk else "")
        return lambda: (
            harness.seconds(
                lambda: harness.exhaust(contestant.map(pool, work.nothing, items, chunk))
            )
            / count
            * 1e6
        )

    session.run(row, session.contestants, make)
    for name, note in notes.items():
        row.measured[name].note = note
    return row


def break_even(session: Session) -> Row:
    """least work per item at which two workers' map beats the builtin map, which then needs"""
    row = Row("breakeven", str(break_even.__doc__), "µs")
    with who.opened(session.contestants, WORKERS) as pools:
        waiting = {one.name: one for one in session.contestants if one.name != who.THREADS}
        for turns in SWEEP:
            if not waiting:
                break
            for name, needed in _beats(session, pools, waiting, turns).items():
                row.measured[name] = harness.Measured([needed], f"burn({turns})")
                del waiting[name]
    for name in waiting:
        row.measured[name] = harness.Measured(error=f"not at burn({SWEEP[-1]:,})")
    return row


def _beats(
    session: Session, pools: dict[str, Any], waiting: dict[str, Contestant], turns: int
) -> dict[str, float]:
    """Who beats the builtin map at burn(turns); with what that needs per item, in µs."""
    count = max(2_000_000 // (turns + 5) // session.scale, 100)
    items = [turns] * count

    def trial(name: str) -> Trial:
        contestant, pool = waiting[name], pools[name]
        chunk = max(count // (4 * WORKERS), 1)
        return lambda: harness.seconds(
            lambda: harness.exhaust(contestant.map(pool, work.burn, items, chunk))
        )

    trials = {name: trial(name) for name in waiting}
    trials[who.BUILTIN] = lambda: harness.seconds(lambda: harness.exhaust(map(work.burn, items)))
    row = harness.interleave(Row("", "", "s"), trials, session.repetitions)
    serial = row.measured[who.BUILTIN].least
    return {
        name: serial / count * 1e6
        for name in waiting
        if row.measured[name].samples and row.measured[name].least < serial
    }


# ---- start ----


def _start(
    session: Session,
    row: Row,
    until: Callable[[Any, Contestant], None],
    chosen: list[Contestant],
    other: str = "",  # another such pool, before: "closed" or "open"
) -> Row:
    def trial(contestant: Contestant) -> Trial:
        def measure() -> float:
            pools: list[Any] = []
            who.forget_kept()

            def begin() -> None:
                pools.append(contestant.open(WORKERS))
                until(pools[-1], contestant)

            try:
                if other:
                    begin()
                    list(contestant.map(pools[0], abs, range(WORKERS * 4)))
                if other == "closed":
                    who.close(pools.pop())
                return harness.seconds(begin) * 1e3
            finally:
                for pool in pools:
                    who.close(pool)

        return measure

    chosen = sorted(chosen, key=who.forks, reverse=True)
    return harness.interleave(row, {one.name: trial(one) for one in chosen}, session.repetitions)


def _first_result(pool: Any, _: Contestant) -> None:
    pool.submit(work.nothing).result()


def _first_array(pool: Any, _: Contestant) -> None:
    pool.submit(work.array).result()


def start(session: Session) -> Row:
    """a two-worker pool, from nothing to its first result"""
    row = Row("start", str(start.__doc__), "ms")
    return _start(session, row, _first_result, session.submitters())


def start_in_new_program(session: Session) -> Row:
    """the same as the first pool of a new program"""

    def trial(contestant: Contestant) -> Trial:
        command = [sys.executable, str(Path(__file__).with_name("first_result.py"))]
        return lambda: float(subprocess.check_output([*command, contestant.name]))

    row = Row("program", str(start_in_new_program.__doc__), "ms")
    trials = {one.name: trial(one) for one in session.submitters()}
    return harness.interleave(row, trials, session.repetitions)


def start_again(session: Session) -> Row:
    """the same when another such pool has just been shut down"""
    row = Row("again", str(start_again.__doc__), "ms")
    return _start(session, row, _first_result, session.submitters(), other="closed")


def start_beside(session: Session) -> Row:
    """the same beside another such pool that is open"""
    row = Row("beside", str(start_beside.__doc__), "ms")
    chosen = session.submitters()
    if any(one.name == who.PLAIT_PROCESS for one in chosen):
        chosen.append(who.COPIES)
    return _start(session, row, _first_result, chosen, other="open")


def start_numpy(session: Session) -> Row:
    """a two-worker pool, from nothing to its first result that needs NumPy"""
    row = Row("numpy", str(start_numpy.__doc__), "ms")
    return _start(session, row, _first_array, session.plaits())


def start_numpy_again(session: Session) -> Row:
    """the same when another such pool has just been shut down"""
    row = Row("numpyagain", str(start_numpy_again.__doc__), "ms")
    return _start(session, row, _first_array, session.plaits(), other="closed")


def start_both(session: Session) -> Row:
    """a two-worker pool, from nothing to a result of either worker"""

    def until(pool: Any, _: Contestant) -> None:
        seen: set[object] = set()
        while len(seen) < WORKERS:
            seen.update([one.result() for one in [pool.submit(work.who) for _ in range(WORKERS)]])

    row = Row("startboth", str(start_both.__doc__), "ms")
    return _start(session, row, until, session.submitters())


# ---- large arguments ----


def _argument(session: Session, name: str, title: str, value: Any) -> Row:
    def make(pool: Any, _: Contestant) -> Trial:
        return lambda: harness.seconds(lambda: pool.submit(len, value).result()) * 1e3

    return session.run(Row(name, title, "ms"), session.copiers(), make)


def list_argument(session: Session) -> Row:
    """a list of 100,000 ints as argument"""
    return _argument(session, "list", str(list_argument.__doc__), list(range(100_000)))


def dict_argument(session: Session) -> Row:
    """a dict of 100,000 str to str as argument"""
    value = {f"key {number}": f"value {number}" for number in range(100_000)}
    return _argument(session, "dict", str(dict_argument.__doc__), value)


def bytes_argument(session: Session) -> Row:
    """100 MB of bytes as argument"""
    return _argument(session, "bytes", str(bytes_argument.__doc__), bytes(100_000_000))


# ---- arrays between processes ----

ARRAY_ITEMS = 12_500_000  # 100 MB of float64


def _array(session: Session, row: Row, fn: Callable[[Any], Any], shared: bool) -> Row:
    """Processes only, and what the work takes without a pool. shared: a task made the array."""
    chosen = [one for one in session.submitters() if one.name in (who.PLAIT_PROCESS, who.PROCESSES)]
    if importlib.util.find_spec("numpy") is None:
        return row
    fresh = work.random_array(ARRAY_ITEMS)
    with who.opened(chosen, WORKERS) as pools:

        def make(pool: Any) -> Trial:
            value = pool.submit(work.random_array, ARRAY_ITEMS).result() if shared else fresh
            return lambda: harness.seconds(lambda: pool.submit(fn, value).result()) * 1e3

        trials = {name: make(pool) for name, pool in pools.items()}
        trials[who.HERE_ITSELF] = lambda: harness.seconds(lambda: fn(fresh)) * 1e3
        return harness.interleave(row, trials, session.repetitions)


def array_argument(session: Session) -> Row:
    """a NumPy array of 100 MB as argument, its sum back"""
    return _array(session, Row("array", str(array_argument.__doc__), "ms"), work.total, False)


def shared_array(session: Session) -> Row:
    """the same with an array that is an earlier task's result"""
    return _array(session, Row("sharedarray", str(shared_array.__doc__), "ms"), work.total, True)


def shared_handover(session: Session) -> Row:
    """such an array to a task that does nothing with it"""
    row = Row("handover", str(shared_handover.__doc__), "ms")
    return _array(session, row, work.nothing, True)


ROWS: dict[str, Callable[[Session], Row]] = {
    "start": start,
    "program": start_in_new_program,
    "startboth": start_both,
    "again": start_again,
    "beside": start_beside,
    "numpy": start_numpy,
    "numpyagain": start_numpy_again,
    "pipelined": pipelined,
    "lambda": pipelined_lambda,
    "roundtrip": round_trip,
    "map": map_items,
    "breakeven": break_even,
    "list": list_argument,
    "dict": dict_argument,
    "bytes": bytes_argument,
    "array": array_argument,
    "sharedarray": shared_array,
    "handover": shared_handover,
}


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", action="append", choices=ROWS, help="these rows only")
    parser.add_argument("--quick", action="store_true", help="fewer tasks and repetitions")
    parser.add_argument("--repetitions", type=int, help="of each trial")
    parser.add_argument(
        "--markdown", action="store_true", help="end with the tables of docs/performance.md"
    )
    parser.add_argument("--json", type=Path, help="write all samples there")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    options = arguments(argv)
    # The pools fork while others' threads exist; what they run takes no locks.
    warnings.simplefilter("ignore", DeprecationWarning)
    harness.announce("overhead of two-worker pools")
    repetitions = options.repetitions or (3 if options.quick else 7)
    session = Session(who.all_contestants(), repetitions, 10 if options.quick else 1)
    bases = [one.name for one in session.plaits()]
    rows: dict[str, Row] = {}
    for name, measure in ROWS.items():
        if name in (options.only or ROWS) and (who.HAS_NUMPY or "numpy" not in name):
            rows[name] = measure(session)
            harness.show(rows[name], bases)
    verdicts = targets.judge(rows, who.auto_kind())
    targets.show(verdicts)
    if options.markdown:
        print()
        targets.markdown(rows, verdicts)
    content = {
        name: {
            "title": row.title,
            "unit": row.unit,
            "contestants": {who_: one.as_json() for who_, one in row.measured.items()},
        }
        for name, row in rows.items()
    }
    harness.write_json(options.json, {"rows": content, "targets": [vars(one) for one in verdicts]})


if __name__ == "__main__":
    main(sys.argv[1:])
