"""Log records of workers in other interpreters, handled by the loggers of their pool's maker.

In the worker the root logger's only handler sends each record to the maker, in whose interpreter
its logger and handlers take it up. Records of other threads than the worker's own wait for that to
send one. Design: docs/design/output.md
"""

import atexit
import copy
import logging
import os
from typing import Any

from plait import _plait, _travel

_PLAIN = (type(None), bool, int, float, str)


def levels() -> dict[str, int]:
    """The levels of all loggers that have one of their own; "" for what logging.disable() set."""
    found = {"": logging.root.manager.disable, "root": logging.root.level}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            found[name] = logger.level
    return found


def adopt(levels: dict[str, int]) -> None:
    """In a worker: from now on, records go to the maker."""
    logging.disable(levels.pop(""))
    handler = _ToMaker()
    logging.root.handlers[:] = [handler]
    # A copy that a task makes of its process has no maker: it logs as Python starts with it.
    os.register_at_fork(after_in_child=lambda: logging.root.removeHandler(handler))
    logging.root.setLevel(levels.pop("root"))
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class _ToMaker(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[dict[str, Any], dict[str, bytes]]] = []  # guarded by self.lock
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.append(_dump(record))
        except Exception:
            self.handleError(record)
            return
        self.flush()

    def flush(self) -> None:
        self.acquire()
        try:
            while self._waiting:
                record = self._waiting.pop(0)
                if not _plait._send_record(record):
                    self._waiting.insert(0, record)
                    break
        finally:
            self.release()


def _dump(record: logging.LogRecord) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A record's attributes, natively encodable, and the pickles of those that are not.

    Message and exception become text, as QueueHandler does it; what cannot be pickled, too.
    """
    record = copy.copy(record)
    record.msg, record.args = record.getMessage(), None
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    record.exc_info = None
    plain: dict[str, Any] = {}
    pickled: dict[str, bytes] = {}
    for name, value in record.__dict__.items():
        if type(value) in _PLAIN:
            plain[name] = value
            continue
        try:
            pickled[name] = _travel.dump(value)
        except Exception:
            plain[name] = str(value)
    return plain, pickled


def handle(attributes: dict[str, Any], pickled: dict[str, bytes]) -> None:
    """In the maker's interpreter."""
    values = {name: _travel.loads(data) for name, data in pickled.items()}
    record = logging.makeLogRecord(attributes | values)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
