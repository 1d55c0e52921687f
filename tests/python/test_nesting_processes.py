"""Calls of process workers' children to pools of their parent: deaths, threads, forks, sizes."""

import asyncio
import concurrent.futures as cf
import os
import signal
import threading
import time

import helpers
import jobs
import plait
import pytest
from helpers import LONG
from plait import _plait


@pytest.fixture
def pools():
    """Makes pools of processes, which must still serve in the end."""
    made = []

    def make(workers=1, **options):
        made.append(plait.Pool(workers, kind="process", **options))
        return made[-1]

    yield make
    for pool in made:
        assert pool.submit(pow, 2, 10).result(LONG) == 1024
        pool.shutdown()


def chain(pool, depth):
    """So many calls on top of each other, in one process if there is one worker."""
    return 0 if depth == 0 else 1 + pool.submit(chain, pool, depth - 1).result(LONG)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_below(pool, depth):
    if depth == 0:
        die()
    return pool.submit(die_below, pool, depth - 1).result(LONG)


# ---- recursion ----


def test_a_deep_recursion_in_one_process(pools):
    pool = pools()
    assert pool.submit(chain, pool, 300).result(LONG) == 300


def test_a_wide_recursion_in_one_process(pools):
    def fibonacci(n, pool):
        if n < 2:
            return n
        ahead = pool.submit(fibonacci, n - 1, pool)
        return fibonacci(n - 2, pool) + ahead.result(LONG)

    pool = pools()
    assert pool.submit(fibonacci, 17, pool).result(LONG) == 1597  # 2,583 calls


def test_children_that_submit_at_once_share_the_work(pools):
    def outer(pool, n):
        return sorted({inner.result(LONG) for inner in [pool.submit(os.getpid)] * 3} | {n})[:1]

    pool = pools(2)
    futures = [pool.submit(outer, pool, 0) for _ in range(40)]
    assert [future.result(LONG) for future in futures] == [[0]] * 40


# ---- what travels ----


@pytest.mark.parametrize("size", [0, 1000, 100_000, 300_000, 5_000_000])
def test_messages_of_all_sizes(pools, size):
    def outer(pool, size):
        data = os.urandom(size)
        futures = [pool.submit(jobs.same, data) for _ in range(3)]
        return all(future.result(LONG) == data for future in futures)

    for workers in (1, 2):
        pool = pools(workers)
        assert pool.submit(outer, pool, size).result(LONG)


def test_more_functions_than_are_kept(pools):
    def outer(pool):
        functions = [eval(f"lambda x: x + {n}") for n in range(500)]
        futures = [pool.submit(function, 1) for function in functions]
        again = [pool.submit(function, 2) for function in functions]
        return [future.result(LONG) for future in futures + again]

    pool = pools()
    wanted = [*range(1, 501), *range(2, 502)]
    assert pool.submit(outer, pool).result(LONG) == wanted


def test_pools_of_other_kinds(pools):
    pool = pools()
    if "interpreter" in helpers.kinds_here():
        with plait.Pool(1, kind="interpreter") as other:
            assert pool.submit(lambda: other.submit(pow, 2, 5).result(LONG)).result(LONG) == 32
            there = other.submit(lambda: pool.submit(os.getpid).result(LONG)).result(LONG)
            assert there != os.getpid()
    with (
        plait.Pool(1, kind="thread") as other,
        pytest.raises(RuntimeError, match="serves its own interpreter only"),
    ):
        pool.submit(jobs.same, other).result(LONG)


def test_a_pool_comes_back_as_itself(pools):
    pool = pools()
    back = pool.submit(jobs.same, pool).result(LONG)
    assert back.submit(pow, 2, 5).result(LONG) == 32


def test_a_pool_goes_no_further_than_a_child(pools):
    def outer(pool):
        with plait.Pool(1, kind="process") as own:
            return own.submit(jobs.same, pool).result(LONG)

    pool = pools()
    with pytest.raises(RuntimeError, match="of another process"):
        pool.submit(outer, pool).result(LONG)


def test_what_is_printed_belongs_to_whoever_prints(pools, capfd):
    def outer(pool):
        print("outer", end=" ")
        pool.submit(print, "inner").result(LONG)
        print("outer again")

    pool = pools()
    pool.submit(outer, pool).result(LONG)
    assert capfd.readouterr().out.splitlines() in (
        ["outer inner", "outer again"],
        ["inner", "outer outer again"],
    )


# ---- futures ----


def test_the_whole_of_a_future(pools):
    def outer(pool):
        future = pool.submit(pow, 2, 5)
        called = threading.Event()
        future.add_done_callback(lambda _: called.set())
        seen = [future.result(LONG), future.done(), future.running(), future.cancelled()]
        seen += [future.exception(), called.wait(LONG), future.cancel(), future.interrupt()]
        return seen

    pool = pools()
    wanted = [32, True, False, False, None, True, False, False]
    assert pool.submit(outer, pool).result(LONG) == wanted


def test_what_runs_and_what_is_queued(pools, gate):
    """Of two workers one runs the test and the other is held."""

    def outer(pool, hold):
        held = pool.submit(hold)
        while not held.running():
            time.sleep(0.001)
        queued = pool.submit(abs, -1)
        seen = [held.cancel(), queued.running(), queued.cancel(), queued.cancelled()]
        with pytest.raises(TimeoutError):
            held.result(0.05)
        seen += [held.done(), held.interrupt(), type(held.exception(LONG)).__name__]
        with pytest.raises(cf.CancelledError):
            queued.result()
        return seen

    def hold():
        while True:
            time.sleep(0.001)

    pool = pools(2)
    wanted = [False, False, True, True, False, True, "Interrupted"]
    assert pool.submit(outer, pool, hold).result(LONG) == wanted


def test_waits_of_the_standard_library(pools):
    def outer(pool):
        futures = [pool.submit(jobs.same, n) for n in range(20)]
        done, left = cf.wait(futures, LONG)
        found = sorted(future.result(0) for future in cf.as_completed(futures, LONG))
        return len(done), len(left), found

    pool = pools(2)
    assert pool.submit(outer, pool).result(LONG) == (20, 0, [*range(20)])


def test_coroutines(pools):
    def outer(pool):
        async def main():
            total = await pool.submit(pow, 2, 5)
            async for value in pool.amap(abs, range(-20, 0)):
                total += value
            return total

        return asyncio.run(main())

    pool = pools(2)
    assert pool.submit(outer, pool).result(LONG) == 32 + 210


def test_other_threads_of_a_task(pools):
    def outer(pool):
        def body():
            got.append([pool.submit(abs, -n).result() for n in range(50)])

        got = []
        threads = [threading.Thread(target=body) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return got == [[*range(50)]] * 4

    pool = pools(2)
    assert pool.submit(outer, pool).result(LONG)


def test_a_thread_that_goes_on_when_its_task_is_over(pools, tmp_path):
    def outer(pool, path):
        ended = threading.Event()

        def go_on():
            ended.wait()
            time.sleep(0.2)
            try:
                pool.submit(abs, -1)
            except RuntimeError as error:
                text = str(error)
            else:
                text = "accepted"
            with open(path, "w") as file:
                file.write(text)

        threading.Thread(target=go_on).start()
        ended.set()

    pool, path = pools(), tmp_path / "told"
    pool.submit(outer, pool, os.fspath(path)).result(LONG)
    assert helpers.settles(lambda: path.exists() and path.read_text(), LONG)
    assert "only while it runs a task" in path.read_text()


def test_futures_that_nobody_keeps(pools, tmp_path):
    def outer(pool, path):
        for _ in range(200):
            pool.submit(jobs.append, path, "x")

    pool, path = pools(), tmp_path / "marks"
    path.touch()
    pool.submit(outer, pool, os.fspath(path)).result(LONG)
    assert helpers.settles(lambda: len(path.read_text()) == 200, LONG)


def test_a_copy_by_fork_refuses(pools):
    def outer(pool):
        future = pool.submit(time.sleep, 0)
        child = os.fork()
        if child == 0:
            try:
                pool.submit(abs, -1)
            except RuntimeError:
                os._exit(future.cancelled())
            os._exit(3)
        return os.waitpid(child, 0)[1], future.result(LONG)

    pool = pools(2)
    assert pool.submit(outer, pool).result(LONG) == (0, None)


# ---- maps ----


def test_maps_in_a_task(pools):
    def outer(pool):
        view = pool.options(priority=1, deadline=LONG)
        results = [
            list(pool.map(abs, range(-5, 0))),
            list(pool.map(pow, [1, 2], [3, 4])),
            list(pool.starmap(pow, [(2, 3)])),
            sorted(pool.map_unordered(abs, range(-30, 0))),
            view.reduce(max, range(1000), 0),
            list(pool.map(abs, [])),
            list(pool.map(abs, range(-50, 0), buffersize=3)),
        ]
        errors = []
        mapped = pool.map(jobs.reciprocal, [1, 0, 2])
        for _ in range(3):
            try:
                errors.append(next(mapped))
            except ZeroDivisionError:
                errors.append("zero")
        return results, errors

    wanted = [
        [5, 4, 3, 2, 1], [1, 16], [8], [*range(1, 31)], 999, [], [*range(50, 0, -1)],
    ]  # fmt: skip
    for workers in (1, 2):
        pool = pools(workers)
        assert pool.submit(outer, pool).result(LONG) == (wanted, [1, "zero", 0.5])


def test_a_map_whose_items_map(pools):
    def inner(pool, n):
        return sum(pool.map(abs, range(-n, 0)))

    def outer(pool):
        return list(pool.map(lambda n: inner(pool, n), range(5)))

    pool = pools()
    assert pool.submit(outer, pool).result(LONG) == [0, 1, 3, 6, 10]
    assert list(pool.map(lambda n: inner(pool, n), range(20))) == [
        n * (n + 1) // 2 for n in range(20)
    ]


def test_a_map_in_a_task_has_timeouts_and_deadlines(pools, gate):
    """Over another pool, whose items the task does not run itself."""

    def item(n, wait):
        if n > 0:
            wait()

    def outer(pool, wait):
        ends = []
        for view, timeout in [(pool, 0.05), (pool.options(deadline=0.05), None)]:
            try:
                list(view.map(lambda n: item(n, wait), [0, 1, 2], timeout=timeout))
            except Exception as error:
                ends.append(type(error).__name__)
        return ends

    future = pools().submit(outer, pools(), gate.wait)
    assert future.result(LONG) == ["TimeoutError", "DeadlineExceeded"]
    gate.open()


# ---- deaths ----


def test_a_death_fails_all_that_lies_on_the_stack(pools):
    pool = pools()
    with pytest.raises(plait.WorkerDied, match="die_below") as info:
        pool.submit(die_below, pool, 5).result(LONG)
    assert info.value.signal == signal.SIGKILL


def test_a_death_elsewhere_fails_the_call_that_died(pools):
    def outer(pool):
        mine, error = os.getpid(), None
        future = pool.submit(die_with, mine)
        while not future.done():  # without helping: another worker runs it
            time.sleep(0.001)
        error = future.exception()
        return type(error).__name__, error.pid != mine, pool.submit(abs, -1).result(LONG)

    def die_with(mine):
        assert os.getpid() != mine
        die()

    pool = pools(2)
    assert pool.submit(outer, pool).result(LONG) == ("WorkerDied", True, 1)


def test_retries_run_what_died_again(pools, tmp_path):
    def once(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return "again"
        return die()

    def outer(pool, path):
        return pool.options(retries=1).submit(once, path).result(LONG)

    pool = pools()
    # The child that dies takes the one along that waits for it.
    path = os.fspath(tmp_path / "both")
    assert pool.options(retries=1).submit(outer, pool, path).result(LONG) == "again"
    path = os.fspath(tmp_path / "one")
    with pytest.raises(plait.WorkerDied):
        pool.submit(outer, pool, path).result(LONG)
    assert os.path.exists(path)


def test_items_that_wait_and_one_that_dies(pools, tmp_path):
    """What is done stays so, and what comes runs, once: only what lies below the one that dies,
    items that wait and help meanwhile, dies with it.
    """

    def item(n, pool, path):
        if n == 30:
            pool.submit(die).result(LONG)
        pool.submit(jobs.append, path, f"{n} ").result(LONG)
        return n

    pool, path = pools(), tmp_path / "items"
    path.touch()
    results = pool.starmap(item, [(n, pool, os.fspath(path)) for n in range(60)])
    died = []
    for n in range(60):
        try:
            assert next(results) == n
        except plait.WorkerDied:
            died.append(n)
    seen = [*map(int, path.read_text().split())]
    assert 30 in died
    assert len(died) <= 10
    assert len(seen) == len(set(seen))
    assert {*range(60)} - {*died} <= {*seen}


def test_calls_of_the_dead_end_by_themselves(pools, tmp_path):
    def outer(pool, path):
        for _ in range(20):
            pool.submit(jobs.append, path, "x")
        die()

    pool, path = pools(2), tmp_path / "marks"
    path.touch()
    with pytest.raises(plait.WorkerDied):
        pool.submit(outer, pool, os.fspath(path)).result(LONG)
    assert helpers.settles(lambda: len(path.read_text()) == 20, LONG)


def test_children_killed_at_random_while_they_nest(pools):
    """Each call ends: with its value, or since the process died. Nothing hangs."""
    pool = pools(2)
    ends = {"value": 0, "died": 0}
    for _ in range(6):
        futures = [pool.submit(chain, pool, 6) for _ in range(10)]
        pids = {pool.submit(os.getpid) for _ in range(2)}
        killed = set()
        for future in pids:
            pid = future.exception(LONG) is None and future.result()
            if pid and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        for future in futures:
            error = future.exception(LONG)
            assert error is None or type(error) is plait.WorkerDied, repr(error)
            ends["died" if error else "value"] += 1
    assert sum(ends.values()) == 60


# ---- ends ----


def test_a_child_that_is_replaced_ends_when_its_calls_have(pools):
    """max_tasks_per_worker counts what runs on top, too."""

    def outer(pool, n):
        if n == 0:
            return os.getpid()
        pool.submit(abs, -n).add_done_callback(abs_of)
        return pool.submit(outer, pool, n - 1).result(LONG)

    def abs_of(future):
        assert future.result() >= 0

    pool = pools(1, max_tasks_per_worker=3)
    pids = {pool.submit(outer, pool, 5).result(LONG) for _ in range(4)}
    assert len(pids) > 1


def test_a_broken_pool_says_so_in_a_child(pools):
    def outer(broken):
        try:
            broken.submit(abs, -1)
        except plait.BrokenPool as error:
            return type(error.reason).__name__

    with plait.Pool(1, kind="process", initializer=jobs.reciprocal, initargs=(0,)) as broken:
        with pytest.raises(plait.BrokenPool):
            broken.submit(abs, -1).result(LONG)
        assert pools().submit(outer, broken).result(LONG) == "ZeroDivisionError"


def test_a_closed_pool_says_so_in_a_child(pools):
    def outer(other):
        try:
            other.submit(abs, -1)
        except RuntimeError as error:
            return str(error)

    other = plait.Pool(1, kind="process")
    pool, told = pools(), "cannot schedule new futures after shutdown"
    other.submit(abs, -1).result(LONG)
    other.shutdown()
    assert pool.submit(outer, other).result(LONG) == told


def test_nothing_is_left_of_nesting():
    def use():
        with plait.Pool(2, kind="process") as pool:
            assert pool.submit(chain, pool, 5).result(LONG) == 5
        _plait._end_kept(False)  # one or two: the second worker starts if the first one takes long

    use()
    held = helpers.Holdings.now()
    for _ in range(9):
        use()
    # an allocator may map some memory more
    assert helpers.settled(held, 8), (held, helpers.Holdings.now())
