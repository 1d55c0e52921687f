"""The processes of kind="process": how they are started, and what they do."""

import os
import sys


def command() -> tuple[bytes, ...]:
    """What starts a child: this interpreter with the options it was given itself."""
    return _command("main()")


def template_command(preload: tuple[str, ...]) -> tuple[bytes, ...]:
    """What starts a process of which children are copies that have these modules."""
    return _command(f"be_template({preload!r})")


def _command(call: str) -> tuple[bytes, ...]:
    """Its sys.path comes to it as arguments, since nothing can be imported before it is there.

    Expressions only, so that __main__ stays as empty there as it is in an interpreter worker.
    """
    prepare = "__import__('sys').path[:] = __import__('sys').argv[1:]"
    code = f"{prepare}\n__import__('plait._child', fromlist=['main']).{call}"
    return tuple(map(os.fsencode, interpreter_command(code)))


def interpreter_command(code: str, *arguments: str) -> list[str]:
    """What runs code in an interpreter like this one. Its argv: the arguments, then sys.path."""
    import subprocess  # here, since children import this module too

    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *options, "-c", code, *arguments, *map(str, sys.path)]


def main() -> None:
    """In the child: serves its parent until it is told to end."""
    from plait import _plait

    _limit_native_threads()
    _plait._serve()


def be_template(preload: tuple[str, ...]) -> None:
    """In the template: as main() in each copy."""
    from plait import _preload

    _limit_native_threads()
    if _preload.serve_copies(preload):
        main()
    else:
        os._exit(0)  # what modules do at exit is for the copies


def _limit_native_threads() -> None:
    """As in interpreters (isolate/threads.h). OpenBLAS and MKL have variables of their own."""
    if not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = "1"
