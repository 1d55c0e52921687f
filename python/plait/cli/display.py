"""What the demo shows: progress while it runs, then the report, the table of the contestants, the
verdict."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from plait.cli.code_report import MIN_DUPLICATE_PARTS, Place, Summary
from plait.cli.contest import Outcome, format_seconds
from plait.cli.contestant import CONTESTANTS

if TYPE_CHECKING:
    from plait.cli import image_report

type Describe = Callable[[Console, Any], None]
"""Prints a summary."""

GROUPS = 5
"""How many groups of duplicates are printed."""


class Display(Protocol):
    """Shows the progress of a contest; a context manager around the whole of it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def begin(self, name: str, number: int) -> None:
        """The contestant `name` starts its run `number`, counted from 0."""

    def progress(self, done: int) -> None:
        """It has analysed so many files or images."""

    def end(self, outcome: Outcome) -> None:
        """It has ended."""


def choose_display(title: str, workers: int, total: int) -> Display:
    """Return a live display on a terminal, else one of plain lines. `total`: the number of
    files or images."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(title)}[/bold], {workers} workers")
    return _Live(console, total) if console.is_terminal else _Lines(console)


class _Lines:
    """A line for each run, once it has ended."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def begin(self, name: str, number: int) -> None:
        pass

    def progress(self, done: int) -> None:
        pass

    def end(self, outcome: Outcome) -> None:
        figure = format_seconds(outcome.seconds) if outcome.status == "ok" else outcome.reason
        line = f"{CONTESTANTS[outcome.name][0]}: {outcome.status}, {figure}"
        self._console.print(line, markup=False, soft_wrap=True)


class _Live:
    """A bar for each contestant; they vanish at the end, since the table says it all."""

    def __init__(self, console: Console, total: int) -> None:
        self._total = total
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[result]}", markup=False),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._current = TaskID(0)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def begin(self, name: str, number: int) -> None:
        title = escape(CONTESTANTS[name][0]) + (f" [dim]run {number + 1}[/dim]" if number else "")
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(title, total=self._total, result="")
        self._current = self._tasks[name]
        self._bars.reset(self._current, description=title)

    def progress(self, done: int) -> None:
        self._bars.update(self._current, completed=done)

    def end(self, outcome: Outcome) -> None:
        if outcome.status == "ok":
            result = format_seconds(outcome.seconds)
            self._bars.update(self._current, completed=self._total, result=result)
        else:
            self._bars.update(self._current, result=outcome.status)


def print_result(outcomes: list[Outcome], differing: Iterable[str], describe: Describe) -> None:
    """Print what the analysis found, how each contestant did, and whether all gave one answer."""
    console = Console(highlight=False)
    summary = next((outcome.summary for outcome in outcomes if outcome.summary), None)
    if summary:
        describe(console, summary)
    _print_outcomes(console, outcomes)
    _print_verdict(console, outcomes, list(differing))


def describe_images(console: Console, summary: "image_report.Summary") -> None:
    """Print what was found in images."""
    console.print(
        f"\n{summary['images']:,} images, {summary['pixels']:,} pixels, of brightness "
        f"{summary['brightness']:.1f}; {summary['edges']:.1%} lie on an edge. The darkest tile is "
        f"in image {summary['darkest']}, the liveliest in image {summary['liveliest']}.\n"
    )


def describe_code(console: Console, summary: Summary, root: Path) -> None:
    """Print what was found in files; paths below `root` relative to it."""
    console.print(
        f"\n{summary['files']:,} files ({summary['skipped']:,} more do not parse): "
        f"{summary['lines']:,} lines, {summary['classes']:,} classes, "
        f"{summary['functions']:,} functions of complexity {summary['complexity']:,} in all."
    )
    for place in summary["longest"]:
        name, where = _name_and_place(place, root)
        console.print(f"Longest function: {name}, {place[3]:,} lines, {where}.")
    console.print(
        f"Duplicates: {summary['duplicated_functions']:,} functions in "
        f"{summary['duplicate_groups']:,} groups, equal but for names, constants and docstrings "
        f"(those of fewer than {MIN_DUPLICATE_PARTS} parts of syntax left out).\n"
    )
    table = _table("Most complex functions", "complexity")
    for place in summary["most_complex"]:
        table.add_row(f"{place[3]:,}", *_name_and_place(place, root))
    console.print(table)
    if summary["duplicates"]:
        table = _table("Largest groups of duplicates", "copies", "lines")
        for group in summary["duplicates"][:GROUPS]:
            places = group["places"]
            table.add_row(
                f"{len(places):,}", f"{group['lines']:,}", *_name_and_place(places[0], root)
            )
        console.print(table)


def _table(title: str, *figures: str) -> Table:
    """Make a table with columns of figures, then a function and its place."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for header in figures:
        table.add_column(header, justify="right")
    table.add_column("function", overflow="fold")
    table.add_column("", overflow="fold")
    return table


def _name_and_place(place: Place, root: Path) -> tuple[str, str]:
    path, line, name, _ = place
    return escape(name), f"[dim]{escape(os.path.relpath(path, root))}:{line}[/]"


def _print_outcomes(console: Console, outcomes: list[Outcome]) -> None:
    serial = next((o.seconds for o in outcomes if o.name == "serial" and o.status == "ok"), None)
    table = Table(title="Contestants", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("")
    for header in ("time", "speed-up", "CPU time", "peak memory"):
        table.add_column(header, justify="right", no_wrap=True)
    for outcome in outcomes:
        title = escape(CONTESTANTS[outcome.name][0])
        if outcome.name.startswith("plait"):
            title = f"[bold green]{title}[/]"
        if outcome.status != "ok":
            style = "yellow" if outcome.status == "refused" else "bold red"
            title += f"\n[dim]{escape(outcome.reason)}[/]"
            table.add_row(title, f"[{style}]{outcome.status}[/]")
            continue
        table.add_row(
            title,
            format_seconds(outcome.seconds),
            f"{serial / outcome.seconds:.2f}\N{MULTIPLICATION SIGN}" if serial else "",
            format_seconds(outcome.cpu_seconds),
            f"{outcome.peak_bytes / 1e6:,.0f} MB",
        )
    console.print(table)


def _print_verdict(console: Console, outcomes: list[Outcome], differing: list[str]) -> None:
    answers = [outcome.name for outcome in outcomes if outcome.status == "ok"]
    for outcome in outcomes:
        if outcome.status == "failed":
            title = CONTESTANTS[outcome.name][0]
            console.print(f"{title} failed: {outcome.reason}", style="bold red", markup=False)
            for line in outcome.stderr:
                console.print(f"    {line}", markup=False, soft_wrap=True)
    if differing:
        console.print(
            f"DIFFERENT ANSWERS: {', '.join(differing)} against {answers[0]}.", style="bold red"
        )
    elif len(answers) > 1:
        console.print(f"All {len(answers)} gave the same answer.", style="bold green")
    elif answers:
        console.print("One answer: there is none to compare it with.")
