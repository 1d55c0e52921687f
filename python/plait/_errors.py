"""Exceptions that workers know; every worker may import this, so it imports nothing."""


class Interrupted(BaseException):
    """Raised inside a call that Future.interrupt() or its deadline stops, and by its future.

    Not an Exception, so that `except Exception` in the call does not swallow it (as
    KeyboardInterrupt).
    """

    def __init__(self, reason: str = "the call was interrupted") -> None:
        super().__init__(reason)


class DeadlineExceeded(TimeoutError):
    """The deadline of a call or a map (Pool.options) passed before it had ended.

    Where the call had begun, the cause is what it raised when it was stopped, plait.Interrupted if
    it does nothing about it, or the WorkerDied of a process that had to be killed.
    """


class RemoteError(Exception):
    """Stands in for an exception of a worker that could not travel.

    `type_name` is the original's type, the message is its text and, where there was one, its
    traceback.
    """

    def __init__(self, type_name: str, text: str = "") -> None:
        self.type_name = type_name
        super().__init__(type_name, text)

    def __str__(self) -> str:
        type_name, text = self.args
        told = f"a worker raised {type_name}, which cannot travel between interpreters"
        return f"{told}\n{text}".rstrip()
