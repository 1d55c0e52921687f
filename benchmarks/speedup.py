"""CPU-bound map on two workers against the builtin map: what is gained of two processors.

    tools/py 3.14 benchmarks/speedup.py [--quick] [--only WORK]... [--json FILE]

A pool cannot gain more than the machine gives at that moment: between the trials, a busy loop runs
in one process, then in two at once, and `attainable` is what two processes gain over one.
"""

import argparse
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contestants as who
import harness
import work
from harness import Measured, Row, Trial

WORKERS = 2
GOAL = 1.85
SERIAL = who.BUILTIN
ALONE, TOGETHER = "one busy process", "two busy processes"

_BURNER = """
import time
for line in iter(input, "end"):
    began = time.perf_counter()
    for _ in range(int(line)):
        pass
    print(time.perf_counter() - began, flush=True)
"""


@dataclass(frozen=True)
class Work:
    """A function and the items to call it with; `small` items are about 50 µs each."""

    title: str
    function: Callable[[Any], object]
    items: list[Any]

    def shortened(self, divisor: int) -> "Work":
        return Work(self.title, self.function, self.items[: max(len(self.items) // divisor, 8)])


WORKS = {
    "collatz": Work(
        "Collatz sequences, a few ms an item",
        work.collatz,
        [(start, start + 300) for start in range(1, 60_001, 1_000)],
    ),
    "small": Work(
        "Collatz sequences, about 50 µs an item",
        work.collatz,
        [(start, start + 8) for start in range(1_000, 41_000, 10)],
    ),
    "queens": Work("eight queens, a few ms an item", work.queens, [8] * 40),
    "words": Work("counting words, about 1 ms an item", work.word_counts, list(range(200))),
}


class Burner:
    """A process that burns a processor on demand, and says how long that took, in s."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _BURNER]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, turns: int) -> None:
        self._tell(str(turns))

    def took(self) -> float:
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self._tell("end")
        self.process.communicate()

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()


@contextmanager
def burners() -> Iterator[dict[str, Trial]]:
    """Trials of a busy loop, about 0.2 s, in one process and in two at once."""
    pair = [Burner() for _ in range(WORKERS)]

    def burn(chosen: list[Burner]) -> float:
        for one in chosen:
            one.begin(turns)
        return max([one.took() for one in chosen])

    turns = 1_000_000
    turns = int(turns * 0.2 / min(burn(pair[:1]) for _ in range(3)))
    try:
        yield {ALONE: lambda: burn(pair[:1]), TOGETHER: lambda: burn(pair)}
    finally:
        for one in pair:
            one.end()


def attainable(row: Row) -> float:
    """What two processes gained over one, at the best moments of each."""
    return WORKERS * row.measured[ALONE].least / row.measured[TOGETHER].least


def measure(name: str, chosen: Work, repetitions: int) -> Row:
    """Everybody's time for the whole work, in ms, interleaved with the busy processes."""
    row = Row(name, chosen.title, "ms")
    chunk = max(len(chosen.items) // (4 * WORKERS), 1)
    everybody = who.all_contestants()
    with who.opened(everybody, WORKERS) as pools, burners() as trials:

        def timed(results: Callable[[], Any]) -> Trial:
            return lambda: harness.seconds(lambda: harness.exhaust(results())) * 1e3

        trials[SERIAL] = timed(lambda: map(chosen.function, chosen.items))
        for one in everybody:
            trials[one.name] = timed(
                lambda one=one: one.map(pools[one.name], chosen.function, chosen.items, chunk)
            )
        harness.interleave(row, trials, repetitions)
    return row


def show(row: Row, items: int) -> None:
    """Times and speed-ups, over serial and as a part of what was attainable."""
    serial, limit = row.measured[SERIAL], attainable(row)
    lines = []
    for name, measured in row.measured.items():
        if name in (ALONE, TOGETHER):
            continue
        if not measured.samples:
            lines.append([name, "-", "-", "-", "-", measured.error[:60]])
            continue
        gain = serial.least / measured.least
        numbers = [measured.least, measured.median, gain, 100 * gain / limit]
        lines.append([name, *map(harness.short, numbers), ""])
    per_item = serial.least / items
    title = f"{row.title} ({items} of {harness.short(per_item)} ms); attainable: {limit:.2f}x"
    harness.table(title, [row.name, "min ms", "median", "speed-up", "% of attainable", ""], lines)


def judge(row: Row) -> list[str]:
    """The line about plait's own choice on this interpreter."""
    auto, limit = who.auto_kind(), attainable(row)
    gained: float | None = row.ratio(SERIAL, auto)
    if gained is None:
        return [row.name, auto, "-", "-", "no result"]
    met = "met" if gained >= GOAL else "NOT MET"
    if met != "met" and limit < GOAL:
        met += f", but the machine gave {limit:.2f}x only"
    return [row.name, auto, f"{gained:.2f}x", f"{limit:.2f}x", met]


def as_json(row: Row) -> dict[str, Any]:
    everybody: dict[str, Measured] = row.measured
    return {
        "title": row.title,
        "unit": row.unit,
        "attainable": attainable(row),
        "contestants": {name: measured.as_json() for name, measured in everybody.items()},
    }


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", action="append", choices=WORKS, help="these works only")
    parser.add_argument("--quick", action="store_true", help="fewer items and repetitions")
    parser.add_argument("--repetitions", type=int, help="of each trial")
    parser.add_argument("--json", type=Path, help="write all samples there")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    options = arguments(argv)
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking: see overhead.py
    harness.announce("speed-up of two-worker pools")
    repetitions = options.repetitions or (3 if options.quick else 7)
    rows = []
    for name, full in WORKS.items():
        if options.only and name not in options.only:
            continue
        chosen = full.shortened(4) if options.quick else full
        rows.append(measure(name, chosen, repetitions))
        show(rows[-1], len(chosen.items))
    heads = ["work", "contestant", "speed-up", "attainable", ""]
    harness.table(f"target: ≥ {GOAL}x on two idle processors", heads, [judge(row) for row in rows])
    harness.write_json(options.json, {row.name: as_json(row) for row in rows})


if __name__ == "__main__":
    main(sys.argv[1:])
