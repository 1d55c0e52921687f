"""Measuring side by side, and saying what came out: shared by all benchmarks here.

A *trial* does its work once and returns how long that took, in the row's unit. The trials of a row
take turns (A B C A B C ...), so that what else happens on the machine hits all of them alike.
"""

import gc
import importlib.util
import json
import os
import platform
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Trial = Callable[[], float]


@dataclass
class Measured:
    """What one contestant needed, in the row's unit."""

    samples: list[float] = field(default_factory=list)
    note: str = ""
    error: str = ""

    @property
    def least(self) -> float:
        return min(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def as_json(self) -> dict[str, Any]:
        if not self.samples:
            return {"error": self.error}
        told = {"note": self.note} if self.note else {}
        return {"min": self.least, "median": self.median, "samples": self.samples, **told}


@dataclass
class Row:
    """One kind of work, what it is measured in, and who needed how much."""

    name: str
    title: str
    unit: str
    measured: dict[str, Measured] = field(default_factory=dict)

    def ratio(self, name: str, base: str) -> float | None:
        """How many times base's least time `name` needed; None where one has none."""
        one, other = self.measured.get(name), self.measured.get(base)
        if one is None or other is None or not one.samples or not other.samples:
            return None
        return one.least / other.least


def interleave(row: Row, trials: dict[str, Trial], repetitions: int) -> Row:
    """Runs every trial so many times in turns, and keeps the times in the row."""
    for name in trials:
        row.measured.setdefault(name, Measured())
    for _ in range(repetitions):
        for name, trial in trials.items():
            measured = row.measured[name]
            if measured.error:
                continue
            gc.collect()
            try:
                measured.samples.append(trial())
            except Exception as error:
                measured.error = f"{type(error).__name__}: {error}"
                measured.samples.clear()
    return row


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes, in s."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def exhaust(results: Iterable[object]) -> None:
    """Takes all results one by one, as a caller would, and keeps none."""
    for _ in results:
        pass


# ---- this machine ----


def interpreter() -> str:
    """As tools/py names it: 3.13t."""
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return f"{sys.version_info[0]}.{sys.version_info[1]}{threads}"


def circumstances() -> dict[str, Any]:
    """What a reader of the numbers must know about where they come from."""
    return {
        "interpreter": interpreter(),
        "version": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def announce(what: str, times: bool = True) -> None:
    """Says what is measured and where; with times, also whether the machine is fit for them."""
    facts = circumstances()
    print(
        f"{what}: CPython {facts['version']} ({facts['interpreter']}), {facts['cpus']} processors, "
        f"load {facts['load']}",
        flush=True,
    )
    if times and busy(facts):
        print("others keep this machine busy: no figure below is to be relied on", flush=True)


def busy(facts: dict[str, Any]) -> bool:
    """Whether others run here: then a pool that gives up its processor waits to get it back."""
    return facts["load"] > facts["cpus"] / 2


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps({**circumstances(), **content}, indent=1) + "\n")


# ---- tables ----


def short(number: float) -> str:
    """Three significant digits."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.3g}"


def table(title: str, heads: list[str], lines: list[list[str]]) -> None:
    """Prints a table: with rich where that is installed and there is a terminal, else plainly."""
    rich = sys.stdout.isatty() and importlib.util.find_spec("rich") is not None
    (_rich_table if rich else _plain_table)(title, heads, lines)


def _rich_table(title: str, heads: list[str], lines: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, title_justify="left")
    for index, head in enumerate(heads):
        drawn.add_column(head, justify="right" if 0 < index < len(heads) - 1 else "left")
    for line in lines:
        drawn.add_row(*line)
    Console().print(drawn)


def _plain_table(title: str, heads: list[str], lines: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    print(f"\n{title}")
    for line in [heads, *lines]:
        cells = [
            cell.rjust(width) if 0 < index < len(line) - 1 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())
    sys.stdout.flush()


def markdown(heads: list[str], lines: list[list[str]]) -> None:
    """Prints a table as the documentation has them."""
    for line in [heads, ["---"] * len(heads), *lines]:
        print(f"| {' | '.join(line)} |")
    print(flush=True)


def show(row: Row, bases: list[str]) -> None:
    """The row as a table, with the ratio of every contestant to each of the bases."""
    bases = [base for base in bases if row.measured.get(base, Measured()).samples]
    heads = [row.name, f"min {row.unit}", "median", *(f"÷ {base}" for base in bases), ""]
    lines = []
    for name, measured in row.measured.items():
        if not measured.samples:
            lines.append([name, "-", "-", *("-" for _ in bases), measured.error[:60]])
            continue
        ratios = [short(measured.least / row.measured[base].least) for base in bases]
        lines.append([name, short(measured.least), short(measured.median), *ratios, measured.note])
    table(row.title, heads, lines)
