"""Pool.options(deadline=...): calls and maps that end by themselves.

Nothing here measures time: what is to be stopped would never end, and what is to end has a deadline
that a hanging test would need to reach.
"""

import asyncio
import concurrent.futures as cf
import gc
import math
import os
import pickle
import time
import weakref

import helpers
import jobs
import plait
import pytest

LONG = 60
SOON = 0.1


def exceeded(future):
    with pytest.raises(plait.DeadlineExceeded) as caught:
        future.result(LONG)
    assert future.exception(0) is caught.value
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert not future.cancel()
    assert not future.interrupt()
    assert isinstance(caught.value, TimeoutError)
    return caught.value


# ---- calls ----


def test_a_call_in_time_is_as_any_other(one):
    view = one.options(deadline=LONG)
    assert view.submit(abs, -1).result(LONG) == 1
    with pytest.raises(ZeroDivisionError):
        view.submit(lambda: 1 // 0).result(LONG)
    assert [f.result() for f in [view.submit(jobs.same, n) for n in range(500)]] == list(range(500))


def test_a_call_that_runs_is_stopped(one, tmp_path):
    path = tmp_path / "stopped"
    error = exceeded(one.options(deadline=SOON).submit(jobs.clean_up, os.fspath(path)))
    assert "while it ran" in str(error)
    assert type(error.__cause__) is plait.Interrupted
    assert path.exists()


def test_a_call_that_was_not_begun_never_is(one, gate, tmp_path):
    path = tmp_path / "begun"
    held = one.submit(gate.wait)
    error = exceeded(one.options(deadline=SOON).submit(path.touch))
    assert not held.done()
    assert "before a worker began it" in str(error)
    assert error.__cause__ is None
    gate.open()
    assert held.result(LONG) == "passed"
    one.submit(abs, -1).result(LONG)
    assert not path.exists()


def test_a_call_that_runs_no_python_ends_when_it_returns(one):
    error = exceeded(one.options(deadline=SOON).submit(time.sleep, 4 * SOON))
    assert "while it ran" in str(error)


def test_what_a_late_call_raises_is_the_cause(one):
    def late():
        try:
            jobs.spin()
        except plait.Interrupted:
            raise jobs.Mistake(3) from None

    def too_late():
        try:
            jobs.spin()
        except plait.Interrupted:
            return "a result"

    view = one.options(deadline=SOON)
    error = exceeded(view.submit(late))
    assert type(error.__cause__) is jobs.Mistake
    assert error.__cause__.code == 3
    assert exceeded(view.submit(too_late)).__cause__ is None


def test_a_deadline_stops_one_call_only(kind):
    with plait.Pool(2, kind=kind) as pool:
        for _ in range(5):
            futures = [pool.options(deadline=SOON).submit(jobs.spin)]
            rest = [pool.submit(jobs.add, n, n) for n in range(200)]
            assert [future.result(LONG) for future in rest] == [2 * n for n in range(200)]
            exceeded(futures[0])


def test_deadlines_as_calls_end(kind):
    """Each ends in time or not, by chance; never with somebody else's exception or result."""

    def work(turns):
        for _ in range(turns):
            pass
        return turns

    ends = set()
    with plait.Pool(2, kind=kind) as pool:
        for turn in range(300):
            turns = (turn % 5) * 20_000
            future = pool.options(deadline=0.0001 + turn % 7 * 0.0004).submit(work, turns)
            beside = pool.submit(work, 100)
            try:
                assert future.result(LONG) == turns
                ends.add("in time")
            except plait.DeadlineExceeded:
                ends.add("late")
                cause = future.exception(0).__cause__
                assert cause is None or type(cause) is plait.Interrupted
            assert beside.result(LONG) == 100
    assert ends == {"in time", "late"}


def test_a_cancelled_call_stays_cancelled(one, gate):
    held = one.submit(gate.wait)
    future = one.options(deadline=SOON).submit(abs, -1)
    assert future.cancel()
    exceeded(one.options(deadline=2 * SOON).submit(abs, -1))  # the time has passed
    assert future.cancelled()
    with pytest.raises(cf.CancelledError):
        future.result(0)
    gate.open()
    assert held.result(LONG) == "passed"


def test_an_interrupt_before_the_deadline_is_an_interrupt(one):
    future = one.options(deadline=LONG).submit(jobs.spin)
    while not future.running():
        time.sleep(0.001)
    assert future.interrupt()
    with pytest.raises(plait.Interrupted):
        future.result(LONG)


def test_calls_that_are_forgotten_leave_nothing(one, gate):
    """Neither those that are done, nor those that expire while nobody has their future."""
    view = one.options(deadline=LONG)
    argument = jobs.Holder()
    gone = weakref.ref(argument)
    view.submit(jobs.same, argument).result(LONG)
    held = one.submit(gate.wait)
    for _ in range(100):
        one.options(deadline=SOON).submit(jobs.same, argument)
    exceeded(one.options(deadline=2 * SOON).submit(abs, -1))
    gate.open()
    held.result(LONG)
    one.submit(abs, -1).result(LONG)
    del argument

    def is_gone():
        gc.collect()
        return gone() is None

    assert helpers.settles(is_gone)


def test_who_waits_or_watches_is_told(one, gate):
    held = one.submit(gate.wait)
    futures = [one.options(deadline=SOON).submit(abs, -1) for _ in range(3)]
    called = []
    futures[0].add_done_callback(called.append)
    assert set(cf.as_completed(futures, LONG)) == set(futures)
    assert helpers.settles(lambda: called == [futures[0]])

    async def main():
        with pytest.raises(plait.DeadlineExceeded):
            await one.options(deadline=SOON).submit(abs, -1)

    asyncio.run(main())
    gate.open()
    held.result(LONG)


def test_a_call_that_waits_for_its_own_pool_is_stopped(kind):
    def parent(pool):  # its worker may run the child meanwhile: then it hears afterwards
        return pool.submit(time.sleep, 10 * SOON).result(LONG)

    def hold(pool):
        try:
            pool.options(deadline=SOON).submit(jobs.spin).result(LONG)
        except plait.DeadlineExceeded as error:
            return str(error)

    with plait.Pool(2, kind=kind) as pool:
        future = pool.options(deadline=5 * SOON).submit(parent, pool)
        exceeded(future)
        assert "while it ran" in pool.submit(hold, pool).result(LONG)


def test_a_call_that_waits_for_another_pool_is_stopped(one, kind):
    def parent(kind):
        with plait.Pool(1, kind=kind) as own:
            return own.submit(jobs.spin).result(LONG)

    assert type(exceeded(one.options(deadline=5 * SOON).submit(parent, kind)).__cause__) is (
        plait.Interrupted
    )


def test_a_view_in_a_worker_has_its_deadline(kind):
    def child(view):
        return view.deadline, view.priority, view.submit(jobs.spin).exception(LONG)

    with plait.Pool(2, kind=kind) as pool:
        view = pool.options(priority=1, deadline=SOON)
        deadline, priority, error = pool.submit(child, view).result(LONG)
    assert (deadline, priority, type(error)) == (SOON, 1, plait.DeadlineExceeded)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args) == (plait.DeadlineExceeded, error.args)


def test_a_pool_that_closes_waits_for_deadlines_only(kind):
    with plait.Pool(1, kind=kind) as pool:
        pool.submit(jobs.turn).result(LONG)
        futures = [pool.options(deadline=SOON).submit(jobs.spin) for _ in range(3)]
    for future in futures:
        exceeded(future)


def test_a_process_that_goes_on_is_killed(gate):
    """That one alone."""
    with plait.Pool(2, kind="process") as pool:
        held = pool.submit(gate.wait)
        pool.submit(jobs.turn).result(LONG)
        future = pool.options(deadline=SOON).submit(jobs.survive)
        error = exceeded(future)
        assert "was killed" in str(error)
        assert type(error.__cause__) is plait.WorkerDied
        assert error.__cause__.task.endswith("survive")
        assert error.__cause__.signal == 9
        assert not held.done()
        gate.open()
        assert held.result(LONG) == "passed"
        assert pool.submit(abs, -1).result(LONG) == 1


def test_a_process_that_crashes_in_time_has_died():
    with plait.Pool(1, kind="process") as pool:
        with pytest.raises(plait.WorkerDied):
            pool.options(deadline=LONG).submit(os._exit, 3).result(LONG)
        assert pool.submit(abs, -1).result(LONG) == 1


def test_the_process_may_exit_with_deadlines_ahead_and_passed(kind):
    script = """
import plait, sys, time
pool = plait.Pool(1, kind=sys.argv[1])
def spin():
    while True: pass
pool.submit(abs, -1).result()
ahead = [pool.options(deadline=1000).submit(abs, -1) for _ in range(10)]
passing = pool.options(deadline=0.3).submit(spin)
behind = pool.options(deadline=0.1).submit(abs, -1)
results = pool.options(deadline=0.5).map(time.sleep, [0.01] * 5)
print("end")
"""
    assert helpers.run_quietly(script, kind) == ["end"]


# ---- maps ----


def drawn(results):
    """What it gives until the deadline, and the exception; nothing may come after that."""
    got = []
    with pytest.raises(plait.DeadlineExceeded) as caught:
        got.extend(results)
    assert list(results) == []
    return got, caught.value


def test_a_map_in_time_is_as_any_other(one):
    view = one.options(deadline=LONG)
    assert list(view.map(abs, range(-2000, 0))) == list(range(2000, 0, -1))
    assert sorted(view.map_unordered(abs, range(-200, 0))) == list(range(1, 201))
    assert list(view.starmap(pow, [(2, 3)])) == [8]
    assert view.reduce(jobs.add, range(1000), 0) == 499_500


@pytest.mark.parametrize("how", ["map", "map_unordered", "starmap"])
def test_a_map_is_stopped(one, how):
    view = one.options(deadline=3 * SOON)
    items = [(n, 5) for n in range(100)]
    results = (
        view.starmap(jobs.spin_at, items)
        if how == "starmap"
        else getattr(view, how)(jobs.spin_at, range(100), [5] * 100)
    )
    got, error = drawn(results)
    assert got == list(range(len(got)))
    assert len(got) <= 5
    assert isinstance(error, TimeoutError)


def test_a_map_whose_results_are_asked_for_later_was_stopped_all_the_same(one):
    results = one.options(deadline=SOON).map(jobs.spin_at, range(100), [5] * 100)
    assert one.submit(abs, -1).result(LONG) == 1  # its turn comes when the map is over
    got, error = drawn(results)
    assert got == list(range(5))
    assert type(error.__cause__) is plait.Interrupted


def test_all_items_that_run_are_stopped(kind):
    with plait.Pool(3, kind=kind) as pool:
        got, _ = drawn(pool.options(deadline=SOON).map(jobs.spin, range(1000)))
        assert got == []


def test_a_map_that_no_worker_has_begun(one, gate):
    held = one.submit(gate.wait)
    got, _ = drawn(one.options(deadline=SOON).map(abs, range(10)))
    assert got == []
    gate.open()
    assert held.result(LONG) == "passed"


def test_a_map_over_an_input_without_end(one):
    def numbers():
        n = 0
        while True:
            yield (n := n + 1)

    got, _ = drawn(one.options(deadline=2 * SOON).map(jobs.same, numbers(), buffersize=10))
    assert got == list(range(1, len(got) + 1))
    assert got


def test_items_that_wait_for_another_pool_are_stopped(one, kind):
    def parent(kind):
        with plait.Pool(1, kind=kind) as own:
            return own.submit(jobs.spin).result(LONG)

    drawn(one.options(deadline=5 * SOON).map(parent, [kind] * 3))


def test_items_that_wait_for_their_own_pool_are_stopped(kind):
    def parent(n):
        try:
            pool.submit(time.sleep, 10 * SOON).result(LONG)
        except plait.Interrupted:
            try:
                for _ in range(100_000):
                    pass
            except plait.Interrupted:
                os._exit(9)  # the second one
            raise

    with plait.Pool(2, kind=kind) as pool:
        drawn(pool.options(deadline=5 * SOON).map(parent, range(5)))
        assert pool.submit(abs, -1).result(LONG) == 1


def test_a_reduction_has_one_deadline(one):
    with pytest.raises(plait.DeadlineExceeded):
        one.options(deadline=2 * SOON).reduce(lambda a, b: jobs.spin(), range(1000), 0)


def test_a_map_in_a_coroutine_is_stopped(one):
    async def main():
        got = []
        late = one.options(deadline=3 * SOON).amap(jobs.spin_at, range(100), [5] * 100)

        async def draw():
            async for result in late:
                got.append(result)

        with pytest.raises(plait.DeadlineExceeded):
            await draw()
        assert got == list(range(len(got)))
        assert len(got) <= 5
        return [n async for n in one.options(deadline=LONG).amap(jobs.same, range(500))]

    assert asyncio.run(main()) == list(range(500))


def test_processes_whose_items_go_on_are_killed():
    with plait.Pool(2, kind="process") as pool:
        results = pool.options(deadline=SOON).map(jobs.survive, range(4))
        for _ in range(2):
            assert pool.submit(abs, -1).result(LONG) == 1  # in a new process
        got, error = drawn(results)
        assert got == []
        assert isinstance(error.__cause__, plait.WorkerDied | plait.Interrupted | None)


# ---- options ----

BAD = [
    (0, ValueError, "more than 0 seconds away, not 0"),
    (-1, ValueError, "not -1"),
    (math.nan, ValueError, "not nan"),
    ("1", TypeError, "a number of seconds, or None, not str"),
    (True, TypeError, "not bool"),
    (1j, TypeError, "not complex"),
    ([1], TypeError, "not list"),
]


@pytest.mark.parametrize(("deadline", "error", "text"), BAD)
def test_bad_deadlines_are_refused(pool, deadline, error, text):
    with pytest.raises(error, match=text):
        pool.options(deadline=deadline)
    with pytest.raises(error, match=text):
        pool.options(priority=1).options(deadline=deadline)


def test_views_keep_what_is_not_given(pool):
    view = pool.options(deadline=3)
    assert (view.priority, view.deadline) == (0, 3)
    both = view.options(priority=2)
    assert (both.priority, both.deadline) == (2, 3)
    assert repr(both).startswith("<plait.PoolView priority=2 deadline=3 of <plait.Pool ")
    never = both.options(deadline=None)
    assert (never.priority, never.deadline) == (2, None)
    assert repr(pool.options()).startswith("<plait.PoolView of <plait.Pool ")
    assert pool.options(deadline=math.inf).submit(abs, -1).result(LONG) == 1
    copy = pickle.loads(pickle.dumps(both))
    assert (copy.priority, copy.deadline, copy.kind) == (2, 3, pool.kind)
    assert copy.submit(abs, -1).result(LONG) == 1
