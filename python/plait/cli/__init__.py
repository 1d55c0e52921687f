"""The command line, `python -m plait COMMAND`.

Each command is a module with `add_command(commands)`, which declares its arguments and sets `run`,
a function of the parsed arguments that returns the exit status. Such a module imports at its top
only what is always there and cheap; what the command itself needs, it imports in `run`.
"""

import argparse
from collections.abc import Sequence

from plait.cli import demo, doctor


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's arguments); return its exit status.

    Raises SystemExit, as argparse does, after `--help` (0) and on wrong arguments (2).
    """
    parser = argparse.ArgumentParser(
        prog="python -m plait", description="Ordinary Python on every core, in one process."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo.add_command(commands)
    doctor.add_command(commands)
    options = parser.parse_args(argv)
    status: int = options.run(options)
    return status
