"""Functions and classes that workers import by name. Nothing but the standard library here."""

import enum
import functools
import itertools
import os
import threading
import time
from collections import OrderedDict, namedtuple
from contextvars import ContextVar
from dataclasses import dataclass, field

Point = namedtuple("Point", "x y")


REQUEST = ContextVar("request", default="none")
UNSET = ContextVar("unset")


def request():
    return REQUEST.get()


def set_request(value):
    before = REQUEST.get()
    REQUEST.set(value)
    return before


@functools.cache
def cached(x):
    return x * x


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"
    CRIMSON = 1  # noqa: PIE796 - an alias


class Number(enum.IntEnum):
    ONE = 1
    TWO = 2


class Flags(enum.Flag):
    A = 1
    B = 2
    C = 4


class Text(str):
    __slots__ = ("note",)


class Ordered(OrderedDict):
    pass


@dataclass
class Record:
    name: str
    values: list = field(default_factory=list)


class Holder:
    """Holds anything: what is not native, around what may be."""

    def __init__(self, held=None):
        self.held = held

    def double(self):
        return self.held * 2

    def __call__(self, more):
        return self.held + more

    @staticmethod
    def static(x):
        return x + 1

    @classmethod
    def made_by(cls, x):
        return cls(x).held

    class Inner:
        pass


class Locked:
    """Cannot be pickled, for a reason of its own."""

    def __reduce__(self):
        raise TypeError("a Locked holds something that cannot be copied")


class Slow:
    """Takes its time to be unpickled."""

    def __setstate__(self, state):
        time.sleep(0.02)

    def __getstate__(self):
        return 1


class Caution(Warning):
    pass


class Mistake(Exception):
    """An exception with a signature that pickle can follow, and attributes."""

    def __init__(self, code, detail="none"):
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


class Stubborn(Exception):
    """An exception that pickle writes and cannot read: its arguments are not its constructor's."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Carrier(Exception):
    """An exception with an attribute that cannot travel."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def append(path, text):
    """One write, which is whole whoever else appends."""
    with open(path, "a") as file:
        file.write(text)


def reciprocal(x):
    return 1 / x


def same(x):
    return x


def arguments(*args, **kwargs):
    return args, kwargs


def fail(error):
    raise error


def fail_with(type_, *args):
    raise type_(*args)


def fail_holding(x):
    raise ValueError(type(x).__name__)


def odd_or_fail(x):
    if x % 2 == 0:
        raise ValueError(f"{x} is even")  # this very line is looked for
    return x


def recurse(n=0):
    return recurse(n + 1) + 1


def double(x):
    return x * 2


def add(x, y):
    return x + y


def wait_for_file(path):
    for _ in range(15_000):  # half a minute: a test that failed meanwhile never opens its gate
        if os.path.exists(path):
            break
        time.sleep(0.002)
    return "passed"


def meet(folder, count, number):
    """Returns when so many workers are in it at once, each with a number of its own."""
    with open(os.path.join(folder, str(number)), "w"):
        pass
    while len(os.listdir(folder)) < count:
        time.sleep(0.001)
    return os.getpid()


def shell(command):
    with os.popen(command) as out:
        return out.read()


def open_files():
    """What the descriptors of this process stand for."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue  # the folder's own
    return names


_turns = itertools.count()


def turn():
    """How many times this was called before in this worker's interpreter."""
    return next(_turns)


def spin(_=None):
    while True:
        pass


def spin_at(n, place):
    return spin() if n == place else n


def clean_up(path):
    """Notes that it was stopped."""
    try:
        spin()
    finally:
        open(path, "x").close()


def survive(_=None):
    """Ends only with its process."""
    while True:
        try:
            spin()
        except BaseException:
            continue
