"""What workers have done for them in the interpreter of their pool's maker.

Called by the binding while a worker's thread visits that interpreter. Arguments have travelled as
a message; what is raised travels back.
"""

import sys

from plait import _plait


def write(index: int, text: str, flush: bool) -> None:
    """Whole lines from a worker, for sys.stdout (index 0) or sys.stderr (1), as they are now."""
    stream = sys.stderr if index else sys.stdout
    if stream is None:
        return
    method = stream.write
    lines = getattr(method, "__self__", None)
    if isinstance(lines, _plait.Lines):
        method = lines._write_whole
    if text:
        method(text)
    if flush:
        stream.flush()


def handle(attributes: dict[str, object], pickled: dict[str, bytes]) -> None:
    """A log record from a worker, for the loggers and handlers of this interpreter."""
    from plait import _logging

    _logging.handle(attributes, pickled)
