"""Calls that wait for calls of their own pool, and calls that are interrupted."""

import asyncio
import contextlib
import io
import os
import random
import time

import helpers
import plait
import pytest

LONG = 60


def fibonacci(n, pool):
    if n < 2:
        return n
    ahead = pool.submit(fibonacci, n - 1, pool)
    return fibonacci(n - 2, pool) + ahead.result(LONG)


def quicksort(items, pool):
    if len(items) < 20:
        return sorted(items)
    pivot = items[len(items) // 2]
    low = pool.submit(quicksort, [item for item in items if item < pivot], pool)
    high = pool.submit(quicksort, [item for item in items if item > pivot], pool)
    same = [item for item in items if item == pivot]
    return low.result(LONG) + same + high.result(LONG)


def spin():
    while True:
        pass


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_recursion_ends_on_any_number_of_workers(kind, workers):
    with plait.Pool(workers, kind=kind) as pool:
        assert pool.submit(fibonacci, 12, pool).result(LONG) == 144
        numbers = [random.Random(7).randrange(1000) for _ in range(800)]
        assert pool.submit(quicksort, numbers, pool).result(LONG) == sorted(numbers)


def test_a_task_maps_over_its_own_pool(kind):
    def total(pool):
        return sum(pool.map(lambda n: n * n, range(1000)))

    with plait.Pool(1, kind=kind) as pool:
        assert pool.submit(total, pool).result(LONG) == sum(n * n for n in range(1000))


def test_a_closure_carries_its_pool(kind):
    with plait.Pool(1, kind=kind) as pool:
        assert pool.submit(lambda: pool.submit(abs, -3).result(LONG) + 1).result(LONG) == 4
        inside = pool.submit(lambda: (pool.kind, pool.max_workers, pool.reason)).result(LONG)
        assert inside == (kind, 1, pool.reason)


def test_a_nested_call_that_fails_fails_its_parent(kind):
    def parent(pool):
        return pool.submit(lambda: 1 // 0).result(LONG)

    with plait.Pool(1, kind=kind) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.submit(parent, pool).result(LONG)
        assert pool.submit(abs, -1).result(LONG) == 1


def test_a_pool_inside_a_worker_of_another(kind):
    def inner(kind):
        with plait.Pool(2, kind=kind) as own:
            return sum(own.map(abs, range(-10, 0)))

    with plait.Pool(2, kind=kind) as pool:
        futures = [pool.submit(inner, kind) for _ in range(3)]
        assert [future.result(LONG) for future in futures] == [55] * 3


def wait_for_other(how, gate, other):
    """Holds its pool's only worker, and then wants something of the other pool's."""
    gate()
    if how == "submit":
        return other.submit(pow, 2, 5).result(LONG)
    return sum(other.map(abs, range(-3, 0)))


@pytest.mark.parametrize(("how", "result"), [("submit", 32), ("map", 6)])
def test_calls_of_two_pools_that_wait_for_each_other(kind, gate, how, result):
    with plait.Pool(1, kind=kind) as one, plait.Pool(1, kind=kind) as two:
        futures = [
            pool.submit(wait_for_other, how, gate.wait, other)
            for pool, other in [(one, two), (two, one)]
        ]
        while not all(future.running() for future in futures):
            time.sleep(0.001)
        gate.open()
        assert [future.result(LONG) for future in futures] == [result, result]


def test_an_interrupted_call_leaves_its_worker_alive(kind):
    with plait.Pool(1, kind=kind) as pool:
        running, queued = pool.submit(spin), pool.submit(abs, -1)
        while not running.running():
            time.sleep(0.001)
        assert queued.interrupt()
        assert queued.cancelled()
        assert running.interrupt()
        with pytest.raises(plait.Interrupted, match="interrupted"):
            running.result(LONG)
        assert not running.interrupt()
        assert pool.submit(abs, -2).result(LONG) == 2


def test_an_interrupt_can_be_caught(kind):
    def stubborn():
        try:
            while True:
                pass
        except plait.Interrupted:
            return "caught"

    with plait.Pool(1, kind=kind) as pool:
        pool.submit(lambda: None).result(LONG)  # a worker imports for its first lambda
        future = pool.submit(stubborn)
        while not future.running():
            time.sleep(0.001)
        time.sleep(0.2)  # it is in the loop, not on its way there
        assert future.interrupt()
        assert future.result(LONG) == "caught"


def test_an_interrupt_hits_no_other_call(kind):
    """Calls of all lengths, interrupted at random instants; those beside and after are whole."""

    def work(turns):
        for _ in range(turns):
            pass
        return turns

    rng, hit = random.Random(3), 0
    with plait.Pool(2, kind=kind) as pool:
        for _ in range(150):
            turns = rng.choice([0, 100, 10_000, 1_000_000])
            victim, beside = pool.submit(work, turns), pool.submit(work, 1000)
            time.sleep(rng.random() * 0.002)
            victim.interrupt()
            after = pool.submit(work, 500)
            assert beside.result(LONG) == 1000
            assert after.result(LONG) == 500
            try:
                assert victim.cancelled() or victim.result(LONG) == turns
            except plait.Interrupted:
                hit += 1
    assert hit > 0


def test_an_interrupt_in_a_finalizer_is_raised_after_it(kind, tmp_path):
    """Where the workers have an unraisablehook of their own; what else is raised there is told."""
    if kind == "thread":
        pytest.skip("threads share the program's hook")

    def work(begun):
        class Endless:
            def __del__(self):
                open(begun, "x").close()
                spin()

        class Broken:
            def __del__(self):
                raise ValueError("told")

        with contextlib.redirect_stderr(io.StringIO()) as told:
            Broken()
        Endless()
        try:
            spin()
        except plait.Interrupted:
            return told.getvalue()

    begun = tmp_path / "begun"
    with plait.Pool(1, kind=kind) as pool:
        future = pool.submit(work, os.fspath(begun))
        while not begun.exists():
            time.sleep(0.001)
        time.sleep(0.1)
        assert future.interrupt()
        assert "ValueError: told" in future.result(LONG)
        assert pool.submit(abs, -2).result(LONG) == 2


def test_a_call_that_waits_for_another_is_interrupted(kind):
    def parent(pool):
        return pool.submit(time.sleep, 2).result(LONG)

    with plait.Pool(2, kind=kind) as pool:
        future = pool.submit(parent, pool)
        while not future.running():
            time.sleep(0.001)
        time.sleep(0.1)
        assert future.interrupt()
        with pytest.raises(plait.Interrupted):
            future.result(LONG)
        assert pool.submit(abs, -2).result(LONG) == 2


def test_a_call_that_waits_for_another_pool_is_interrupted(kind, gate):
    """While it waits: what it waits for ends later only."""

    def parent(kind, wait, begun):
        with plait.Pool(1, kind=kind) as own:
            future = own.submit(wait)
            open(begun, "x").close()
            try:
                future.result(LONG)
            except plait.Interrupted:
                return "interrupted", future.done(), own.submit(abs, -1).cancel()
            return "not interrupted"

    with plait.Pool(1, kind=kind) as pool:
        for other in {kind, "thread"}:
            begun = gate.path.with_suffix(f".{other}")
            future = pool.submit(parent, other, gate.wait, os.fspath(begun))
            while not begun.exists():
                time.sleep(0.001)
            time.sleep(0.1)  # it waits
            assert future.interrupt()
            time.sleep(0.5)
            gate.open()
            assert future.result(LONG)[:2] == ("interrupted", False)
            gate.path.unlink()


def test_a_pool_in_an_interrupted_call_is_stopped(kind, tmp_path):
    """In its with block, or as that is left; what its workers run is interrupted as well."""

    def parent(kind, begun, where):
        with plait.Pool(1, kind=kind) as own:
            own.submit(spin)
            if where == "inside":
                own.submit(lambda: None)
                open(begun, "x").close()
                spin()
            open(begun, "x").close()

    with plait.Pool(1, kind=kind) as pool:
        for where in ("inside", "leaving"):
            begun = tmp_path / where
            future = pool.submit(parent, kind, os.fspath(begun), where)
            while not begun.exists():
                time.sleep(0.001)
            time.sleep(0.2)
            assert future.interrupt()
            with pytest.raises(plait.Interrupted):
                future.result(LONG)
        assert pool.submit(abs, -2).result(LONG) == 2


def test_interrupts_at_once_are_one_and_hit_no_other_call(kind):
    """Of a call that ends before it is hit, since it runs no Python code."""
    with plait.Pool(1, kind=kind) as pool:
        for _ in range(30):
            future = pool.submit(time.sleep, 0.02)
            while not (future.running() or future.done()):
                time.sleep(0.0005)
            helpers.in_threads(4, lambda _, future=future: future.interrupt())
            after = [pool.submit(sum, range(2000)), pool.submit(lambda: sum(n for n in range(9)))]
            assert [one.result(LONG) for one in after] == [1999000, 36]
            with contextlib.suppress(plait.Interrupted):
                assert future.result(LONG) is None


def harass(future, rng):
    """Interrupts a call at random instants until it ends. How often; and what it returned, or None
    if it was hit where it does not catch.
    """
    count = 0
    while not (future.running() or future.done()):
        time.sleep(0.001)
    while not future.done():
        time.sleep(rng.random() * 0.003)
        count += future.interrupt()
    try:
        return count, future.result(LONG)
    except plait.Interrupted:
        return count, None


def test_an_interrupt_is_raised_once(kind):
    """In a call that runs, waits or helps, and that goes on afterwards."""

    def parent(pool, enough):
        seen = 0
        while seen < enough:
            try:
                for _ in range(100):
                    pass
                pool.submit(abs, -seen).result(LONG)
            except plait.Interrupted:
                seen += 1
        return seen

    rng, ended = random.Random(5), 0
    with plait.Pool(1, kind=kind) as pool:
        for _ in range(20):
            count, seen = harass(pool.submit(parent, pool, 5), rng)
            assert seen in (None, 5)
            assert (seen or 0) <= count
            ended += seen is not None
        assert pool.submit(abs, -1).result(LONG) == 1
    assert ended > 0


def test_an_interrupt_of_a_call_that_waits_hits_none_that_runs_meanwhile(kind):
    def child():
        try:
            for _ in range(300):
                pass
        except plait.Interrupted:
            return "hit"
        return "whole"

    def parent(pool, turns):
        ends = set()
        for _ in range(turns):
            future = None
            while future is None or not future.done():
                try:
                    future = future or pool.submit(child)
                    ends.add(future.result(LONG))
                except plait.Interrupted as error:
                    if future is not None and future.done() and future.exception() is error:
                        ends.add("hit before it began")
        return ends

    rng, ended = random.Random(6), 0
    with plait.Pool(1, kind=kind) as pool:
        for _ in range(20):
            _, ends = harass(pool.submit(parent, pool, 400), rng)
            assert ends in (None, {"whole"})
            ended += ends is not None
    assert ended > 0


def test_a_future_is_awaited(kind):
    async def main(pool):
        first, second = pool.submit(abs, -1), pool.submit(lambda: 1 // 0)
        assert await first == 1
        with pytest.raises(ZeroDivisionError):
            await second
        return await asyncio.gather(*(pool.submit(abs, -n) for n in range(20)))

    with plait.Pool(2, kind=kind) as pool:
        assert asyncio.run(main(pool)) == list(range(20))
