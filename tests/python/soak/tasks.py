"""What the soak's workers run; they import it by name. Nothing but the standard library here."""

import os
import time


class Trouble(Exception):
    """An exception of ours, with an attribute."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


class Box:
    """Not native to any format of plait's: it is pickled."""

    def __init__(self, held):
        self.held = held

    def __eq__(self, other):
        return type(other) is Box and other.held == self.held

    __hash__ = None

    def unpack(self):
        return self.held


class Stuck:
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError("a Stuck stays where it is")


def same(value):
    return value


def add(a, b):
    return a + b


def arguments(*args, **kwargs):
    return args, kwargs


def trouble(number):
    raise Trouble(number)


def trouble_below(number):
    try:
        trouble(number)
    except Trouble as error:
        raise ValueError(f"above {number}") from error


def trouble_at_sevens(number):
    if number % 7 == 0:
        raise Trouble(number)
    return number * 2


def leave(status):
    raise SystemExit(status)


def work(turns):
    total = 0
    for turn in range(turns):
        total += turn
    return total


def spin():
    while True:
        pass


def work_or_spin(turns):
    return spin() if turns < 0 else work(turns)


def nap(seconds, value):
    time.sleep(seconds)
    return value


def mark(path, number):
    """Leaves a trace of having run, once: one write to the end of a file."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, number.to_bytes(8, "little"))
    finally:
        os.close(file)
    return number


def mark_and_echo(number, path, load):
    """Leaves a trace, works for a moment, and gives back what it was given, sometimes a lot."""
    mark(path, number)
    return number, sum(range(number % 5000)), load


def hold(path):
    """Until the file exists."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return "held"


def fibonacci(n, pool):
    if n < 2:
        return n
    ahead = pool.submit(fibonacci, n - 1, pool)
    return fibonacci(n - 2, pool) + ahead.result()


def total_of_map(count, pool):
    return sum(pool.map(same, range(count)))


def total_elsewhere(count, pool):
    """By a pool of its own, and by the one it was given."""
    import plait

    with plait.Pool(1, kind="thread") as own:
        return sum(own.map(same, range(count))) + pool.submit(add, count, 1).result()


def watched_and_left(seconds, pool):
    """Asks to be told of a call's end, and does not wait for it."""
    future = pool.submit(nap, seconds, 1)
    future.add_done_callback(same)
    return 1


def catches(pool, turns):
    """Waits for another call; an interrupt that is caught must not come twice."""
    import plait

    try:
        return pool.submit(work, turns).result()
    except plait.Interrupted:
        try:
            work(20_000)
        except plait.Interrupted:
            return "interrupted twice"
        return "interrupted once"
