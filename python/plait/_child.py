"""The processes of kind="process": how they are started, and what they do."""

import os
import sys

# An expression, so that __main__ stays as empty there as it is in an interpreter worker.
_CODE = "__import__('plait._child', fromlist=['main']).main()"


def command() -> tuple[bytes, ...]:
    """What starts a child: this interpreter with the options it was given itself.

    Its sys.path comes to it as arguments, since nothing can be imported before it is there.
    """
    prepare = "__import__('sys').path[:] = __import__('sys').argv[1:]"
    return tuple(map(os.fsencode, interpreter_command(f"{prepare}\n{_CODE}")))


def interpreter_command(code: str, *arguments: str) -> list[str]:
    """What runs code in an interpreter like this one. Its argv: the arguments, then sys.path."""
    import subprocess  # here, since children import this module too

    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *options, "-c", code, *arguments, *map(str, sys.path)]


def main() -> None:
    """In the child: serves its parent until it is told to end."""
    from plait import _plait

    # As in interpreters (isolate/threads.h). OpenBLAS and MKL look at variables of their own first.
    if not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = "1"
    _plait._serve()
