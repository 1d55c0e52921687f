"""Pool.options(retries=): another run for what a worker process has taken with it."""

import os
import signal
import time

import jobs
import plait
import pytest

LONG = 60


@pytest.fixture
def pool():
    with plait.Pool(2, kind="process") as made:
        yield made


@pytest.fixture
def count(tmp_path):
    return Count(str(tmp_path))


class Count:
    """How often each name was counted, by files: a process that dies takes nothing along."""

    def __init__(self, folder):
        self.folder = folder

    def up(self, name=""):
        with open(os.path.join(self.folder, f"count{name}"), "ab") as file:
            file.write(b".")
        return self.of(name)

    def of(self, name=""):
        path = os.path.join(self.folder, f"count{name}")
        return os.path.getsize(path) if os.path.exists(path) else 0


def die_first(count, times, name=""):
    """Dies so many times, then tells how often it was run."""
    runs = count.up(name)
    if runs <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return runs


def fail(count):
    count.up()
    raise ValueError("ordinary")


# ---- one call ----


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_call_is_run_again(pool, count, times):
    assert pool.options(retries=3).submit(die_first, count, times).result(LONG) == times + 1
    assert count.of() == times + 1


def test_retries_are_used_up(pool, count):
    with pytest.raises(plait.WorkerDied, match="SIGKILL"):
        pool.options(retries=2).submit(die_first, count, 9).result(LONG)
    assert count.of() == 3
    assert pool.submit(abs, -1).result(LONG) == 1


def test_without_retries_there_are_none(pool, count):
    with pytest.raises(plait.WorkerDied):
        pool.submit(die_first, count, 1).result(LONG)
    with pytest.raises(plait.WorkerDied):
        pool.options(retries=5).options(retries=0).submit(die_first, count, 2).result(LONG)
    assert count.of() == 2


def test_an_exit_is_a_death_too(pool, count):
    def leave(count):
        if count.up() == 1:
            os._exit(3)
        return "here"

    assert pool.options(retries=1).submit(leave, count).result(LONG) == "here"


def test_an_exception_is_no_death(kind, count):
    with plait.Pool(1, kind=kind) as pool, pytest.raises(ValueError, match="ordinary"):
        pool.options(retries=5).submit(fail, count).result(LONG)
    assert count.of() == 1


def test_other_kinds_accept_it(kind):
    with plait.Pool(1, kind=kind) as pool:
        view = pool.options(retries=2, priority=1)
        assert view.submit(abs, -2).result(LONG) == 2
        assert list(view.map(abs, [-1, -2])) == [1, 2]


def test_large_arguments_are_there_again(pool, count):
    data = bytes(3_000_000)

    def measure(count, data):
        return die_first(count, 2), len(data)

    assert pool.options(retries=2).submit(measure, count, data).result(LONG) == (3, len(data))


# ---- maps ----


def test_each_item_of_a_map_is_run_again(pool, count):
    def item(n):
        return n, die_first(count, 1 if n % 5 == 0 else 0, n)

    results = list(pool.options(retries=1).map(item, range(20)))
    assert results == [(n, 2 if n % 5 == 0 else 1) for n in range(20)]


def test_an_item_that_always_dies_fails_alone(pool, count):
    def item(n):
        return die_first(count, 99 if n == 3 else 0, n)

    results = pool.options(retries=2).map(item, range(8))
    told = []
    for _ in range(8):
        try:
            told.append(next(results))
        except plait.WorkerDied:
            told.append("died")
    assert told == [1, 1, 1, "died", 1, 1, 1, 1]
    assert count.of(3) == 3
    assert all(count.of(n) == 1 for n in range(8) if n != 3)


def test_an_exception_of_an_item_is_no_death(pool, count):
    with pytest.raises(ValueError, match="ordinary"):
        list(pool.options(retries=3).map(fail, [count]))
    assert count.of() == 1


# ---- what nobody wants again ----


def hang_and_ignore(count):
    count.up()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def test_the_deadline_counts_all_runs(pool, count):
    def begun_by(run, before):
        """Runs by then, after one that a busy machine may not have begun before its deadline."""
        for _ in range(10):
            with pytest.raises(plait.DeadlineExceeded):
                run()
            if count.of() > before:
                break
        return count.of()

    view = pool.options(retries=5, deadline=0.5)
    # killed for its deadline, and not run again
    assert begun_by(lambda: view.submit(hang_and_ignore, count).result(LONG), 0) == 1
    assert pool.options(retries=1, deadline=60).submit(die_first, count, 2).result(LONG) == 3
    assert begun_by(lambda: list(view.map(hang_and_ignore, [count])), 3) == 4
    time.sleep(0.1)
    assert count.of() == 4


def test_what_is_interrupted_is_not_run_again(pool, count):
    def die_late(count):
        count.up()
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            os.kill(os.getpid(), signal.SIGKILL)

    future = pool.options(retries=5).submit(die_late, count)
    while count.of() == 0:
        time.sleep(0.01)
    future.interrupt()
    assert isinstance(future.exception(LONG), plait.WorkerDied)
    assert count.of() == 1


# ---- the option ----


@pytest.mark.parametrize("wrong", [1.0, "1", None, True])
def test_retries_are_an_int(kind, wrong):
    with plait.Pool(1, kind=kind) as pool, pytest.raises(TypeError, match="retries is an int"):
        pool.options(retries=wrong)


@pytest.mark.parametrize("wrong", [-1, 1_000_001])
def test_retries_have_bounds(kind, wrong):
    with plait.Pool(1, kind=kind) as pool, pytest.raises(ValueError, match="retries is from 0 to"):
        pool.options(retries=wrong)


def test_views_tell_it(kind):
    with plait.Pool(1, kind=kind) as pool:
        view = pool.options(retries=4)
        assert view.retries == 4
        assert "retries=4" in repr(view)
        assert view.options(priority=1).retries == 4
        assert view.submit(jobs.same, 1).result(LONG) == 1
