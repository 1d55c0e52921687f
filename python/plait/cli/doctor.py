"""`python -m plait doctor PACKAGE...`: whether interpreter workers can import packages, and why.

Exit status: 0, all can be imported; 1, at least one cannot; 2, wrong arguments or no such package;
130, interrupted.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import plait

_HEADER = ("package", "version", "interpreter workers", "why")


def add_command(commands: Any) -> None:
    """Declare the command and its arguments to `commands`, which argparse's `add_subparsers`
    made."""
    summary = "say whether interpreter workers can import packages, and why"
    about = f"{summary}. A package is tried out in a child process, once; the verdict is kept."
    parser = commands.add_parser("doctor", help=summary, description=about)
    parser.set_defaults(run=run)
    parser.add_argument(
        "packages", metavar="PACKAGE", nargs="+", help="as it is imported: numpy, PIL, lxml.etree"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    found: list[plait.Isolation] = []
    status = 0
    try:
        for package in options.packages:
            try:
                found.append(plait.isolation(package))
            except ModuleNotFoundError as error:
                print(f"python -m plait doctor: {error}", file=sys.stderr)
                status = 2
    except KeyboardInterrupt:
        return 130
    _print_table(found)
    refused = [one for one in found if not one.usable]
    for instead in dict.fromkeys(one.instead for one in refused if one.instead):
        print(
            f"\n{', '.join(one.package for one in refused if one.instead == instead)}: {instead}."
        )
    return status or (1 if refused else 0)


def find_version(package: str) -> str:
    """Return the version of the distribution that a package belongs to; "" where it has none."""
    for name in importlib.metadata.packages_distributions().get(package, [package]):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


def _print_table(found: Sequence[plait.Isolation]) -> None:
    if not found:
        return
    rows = [(one.package, find_version(one.package), one.verdict, one.why) for one in found]
    if importlib.util.find_spec("rich") is None:
        widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)][:-1]
        for row in (_HEADER, *rows):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            print("  ".join([*cells, row[-1]]))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_HEADER, box=SIMPLE_HEAD)
    for one, (package, version, verdict, why) in zip(found, rows, strict=True):
        table.add_row(package, version, Text(verdict, "green" if one.usable else "red"), Text(why))
    Console(highlight=False).print(table)
