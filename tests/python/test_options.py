"""Pool.options(): priorities, and views in the pool's place."""

import asyncio
import concurrent.futures as cf
import time

import helpers
import jobs
import plait
import pytest

LONG = 60


# ---- priorities ----


def test_what_waits_is_ordered_by_priority(one, gate):
    held = one.submit(gate.wait)
    assert helpers.settles(held.running)  # else the worker may find something more urgent first
    levels = [0, -2, 2, 1, -1, 0, 2, -2, 1, -1]
    futures = [one.options(priority=level).submit(jobs.turn) for level in levels]
    gate.open()
    assert held.result(LONG) == "passed"
    turns = [future.result(LONG) for future in futures]
    order = sorted(range(len(levels)), key=turns.__getitem__)
    assert order == sorted(range(len(levels)), key=lambda index: -levels[index])  # a stable sort


def test_the_most_urgent_level_is_found_by_a_pool_at_rest(one):
    for level in (2, -2, 1, -1, 0):
        assert one.options(priority=level).submit(abs, level).result(LONG) == abs(level)


def test_a_map_gives_way_to_what_is_more_urgent(one, gate):
    """To be told by the turns of one worker: those of the map come after, though it was first."""
    held = one.submit(gate.wait)
    low = one.options(priority=-1).map(lambda n: jobs.turn(), range(50))
    normal = one.map(lambda n: jobs.turn(), range(50))
    urgent = [one.options(priority=1).submit(jobs.turn) for _ in range(5)]
    gate.open()
    held.result(LONG)
    first = [future.result(LONG) for future in urgent]
    second, third = list(normal), list(low)
    assert max(first) < min(second)
    assert max(second) < min(third)


def test_a_running_map_gives_way(kind):
    """Between two of its items, each of which lasts."""
    with plait.Pool(1, kind=kind) as pool:
        results = pool.options(priority=-2).map(lambda n: time.sleep(0.05) or n, range(100))
        assert next(results) == 0
        assert pool.submit(abs, -1).result(LONG) == 1
        rest = list(results)
    assert rest == list(range(1, 100))


def test_nested_calls_of_any_priority_end(kind):
    def fibonacci(n, pool):
        if n < 2:
            return n
        ahead = pool.options(priority=n % 5 - 2).submit(fibonacci, n - 1, pool)
        return fibonacci(n - 2, pool) + ahead.result(LONG)

    with plait.Pool(1, kind=kind) as pool:
        assert pool.submit(fibonacci, 12, pool).result(LONG) == 144


def test_cancelling_finds_every_level(kind, gate):
    with plait.Pool(1, kind=kind) as pool:
        held = pool.submit(gate.wait)
        assert helpers.settles(held.running)
        futures = [pool.options(priority=level).submit(abs, 1) for level in range(-2, 3)]
        pool.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in futures)
        gate.open()


# ---- views ----


def test_a_view_stands_for_its_pool(pool):
    view = pool.options(priority=1)
    assert isinstance(view, cf.Executor)
    assert (view.kind, view.reason, view.max_workers) == (pool.kind, pool.reason, pool.max_workers)
    assert (view.pool, view.priority) == (pool, 1)
    assert repr(view).startswith("<plait.PoolView priority=1 of <plait.Pool ")
    assert list(view.map(pow, [2, 3], [3, 2])) == [8, 9]
    assert sorted(view.map_unordered(abs, [-1, -2])) == [1, 2]
    assert list(view.starmap(pow, [(2, 3)])) == [8]
    assert view.reduce(jobs.add, range(5), 0) == 10
    assert [f.result(LONG) for f in cf.as_completed([view.submit(abs, -3)])] == [3]


def test_a_view_serves_an_event_loop(pool):
    async def main():
        view = pool.options(priority=2)
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(view, abs, -1) == 1
        assert await view.submit(abs, -2) == 2

    asyncio.run(main())


def test_a_view_travels(kind):
    def ask(view):
        return view.priority, view.submit(abs, -1).result(LONG)

    with plait.Pool(1, kind=kind) as pool:
        assert pool.submit(ask, pool.options(priority=1)).result(LONG) == (1, 1)


def test_shutting_a_view_down_shuts_its_pool(kind):
    with plait.Pool(1, kind=kind).options(priority=2) as view:
        future = view.submit(abs, -1)
    assert future.result(0) == 1
    with pytest.raises(RuntimeError, match="after shutdown"):
        view.submit(abs, -1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        view.pool.submit(abs, -1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        view.map(abs, [1])


BAD = [
    ({"priority": 3}, ValueError, "from -2 to 2"),
    ({"priority": -3}, ValueError, "from -2 to 2"),
    ({"priority": 1.0}, TypeError, "an int"),
    ({"priority": True}, TypeError, "bool"),
    ({"priority": "high"}, TypeError, "str"),
]


@pytest.mark.parametrize(("options", "error", "text"), BAD)
def test_bad_options_are_refused(pool, options, error, text):
    with pytest.raises(error, match=text):
        pool.options(**options)
    with pytest.raises(error, match=text):
        pool.options(priority=1).options(**options)
