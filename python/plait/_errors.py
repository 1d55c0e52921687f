"""The exceptions that plait raises of its own."""

from concurrent.futures import BrokenExecutor


class BrokenPool(BrokenExecutor):
    """A pool whose workers cannot run: an initializer raised, or no worker could be made.

    The cause is the exception that broke it. The pool refuses everything; make a new one.
    """

    def __init__(self, cause: BaseException | None = None) -> None:
        self.reason = cause
        told = f"{type(cause).__name__}: {cause}" if cause is not None else "a worker could not start"
        super().__init__(f"the pool is broken, since a worker could not be prepared ({told})")


class RemoteError(Exception):
    """Stands in for an exception of a worker that could not travel.

    `type_name` is the original's type, the message is its text and, where there was one, its traceback.
    """

    def __init__(self, type_name: str, text: str = "") -> None:
        self.type_name = type_name
        super().__init__(type_name, text)

    def __str__(self) -> str:
        type_name, text = self.args
        return f"a worker raised {type_name}, which cannot travel between interpreters\n{text}".rstrip()
