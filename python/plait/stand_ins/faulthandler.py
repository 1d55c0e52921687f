"""faulthandler in interpreter workers: the process's handlers are the main interpreter's to set.

enable() and disable() leave them alone, so is_enabled() is False; tracebacks are written by Python.
"""

import _thread
import sys
import traceback
from typing import Any, NoReturn


def enable(file: Any = None, all_threads: bool = True, c_stack: bool = True) -> None:
    """Does nothing: the handlers of fatal errors serve the whole process."""


def disable() -> bool:
    """Does nothing; False."""
    return False


def is_enabled() -> bool:
    """False: they are not this interpreter's."""
    return False


def dump_traceback(file: Any = None, all_threads: bool = True) -> None:
    """Writes the stacks of this interpreter's threads, or this thread's alone, to a file object or
    descriptor; None: sys.stderr.
    """
    frames = {_thread.get_ident(): sys._getframe(1)}
    if all_threads:
        frames = sys._current_frames() | frames
    text = "\n".join(
        f"Thread 0x{thread:x}:\n{''.join(traceback.format_stack(frame))}"
        for thread, frame in frames.items()
    )
    if isinstance(file, int):
        with open(file, "w", closefd=False) as stream:
            stream.write(text)
    else:
        (sys.stderr if file is None else file).write(text)


def cancel_dump_traceback_later() -> None:
    """Does nothing: none can have been asked for."""


def unregister(signum: int) -> bool:
    """Does nothing; False: none can have been registered."""
    return False


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises RuntimeError."""
    raise RuntimeError(
        "faulthandler's watchdog and signals serve the whole process: "
        "call this in the main interpreter, not in a worker"
    )


dump_traceback_later = register = _refuse
