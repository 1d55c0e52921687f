"""Requests that a worker process has before it has answered the present one: short calls go ahead,
and whatever holds them up gives them back. All of it must look as if each went by itself."""

import concurrent.futures
import os
import random
import signal
import time

import helpers
import jobs
import plait
import pytest

LONG = 60
SHORT = 300  # so many short calls, and the next ones go ahead


def short(pool):
    """Has the pool see that its calls are short."""
    assert [f.result(LONG) for f in [pool.submit(abs, -n) for n in range(SHORT)]] == [*range(SHORT)]


@pytest.fixture(params=[1, 3])
def pool(request):
    with plait.Pool(request.param, kind="process") as made:
        short(made)
        yield made


def note(path, number, seconds=0.0):
    with open(path, "ab") as file:
        file.write(b"%d\n" % number)
    if seconds:
        time.sleep(seconds)
    return number


def noted(path):
    with open(path, "rb") as file:
        return [int(line) for line in file]


def test_one_worker_keeps_the_order(tmp_path):
    """What is recalled behind a long call runs before what was submitted later."""
    path = tmp_path / "notes"
    with plait.Pool(1, kind="process") as pool:
        short(pool)
        for number in range(400):
            pool.submit(note, path, number, 0.01 if number % 50 == 49 else 0)
    assert noted(path) == [*range(400)]


def test_no_call_waits_behind_a_long_one(gate):
    with plait.Pool(2, kind="process") as pool:
        short(pool)
        for _ in range(20):
            before = [pool.submit(abs, n) for n in range(20)]
            long = pool.submit(gate.wait)
            after = [pool.submit(abs, n) for n in range(100)]
            assert [f.result(LONG) for f in before + after] == [*range(20), *range(100)]
            assert not long.done()
            gate.open()
            assert long.result(LONG) == "passed"
            gate.path.unlink()


def meet(folder, me, other):
    (folder / me).touch()
    deadline = time.monotonic() + LONG
    while not (folder / other).exists():
        assert time.monotonic() < deadline, "the other one does not run"
        time.sleep(0.001)
    return me


def test_calls_that_need_each_other(tmp_path):
    """Both must run at once, though the first may have been sent along with the other."""
    with plait.Pool(2, kind="process") as pool:
        short(pool)
        for turn in range(30):
            calls = [pool.submit(abs, n) for n in range(turn)]
            one, other = f"{turn}a", f"{turn}b"
            calls += [pool.submit(meet, tmp_path, one, other)]
            calls += [pool.submit(meet, tmp_path, other, one)]
            assert [f.result(LONG) for f in calls] == [*range(turn), one, other]


def test_cancelling_what_is_ahead(tmp_path):
    """At once, while the child may or may not have begun them; who is cancelled has not run."""
    path = tmp_path / "notes"
    path.touch()
    with plait.Pool(1, kind="process") as pool:
        for turn in range(50):
            short(pool)
            calls = [pool.submit(note, path, 100 * turn + n) for n in range(20)]
            cancelled = [f.cancel() for f in reversed(calls)][::-1]
            assert [f.cancelled() for f in calls] == cancelled
            ran = [f.result(LONG) for f, was in zip(calls, cancelled, strict=True) if not was]
            pool.submit(abs, 1).result(LONG)
            assert [n for n in noted(path) if n >= 100 * turn] == ran


def test_cancelling_while_none_is_begun():
    """What the proxy waits for is recalled with what is ahead, and must be asked for again."""
    rng = random.Random(4)
    with plait.Pool(1, kind="process") as pool:
        child = pool.submit(os.getpid).result(LONG)
        for _ in range(150):
            short(pool)
            os.kill(child, signal.SIGSTOP)
            assert helpers.settles(lambda: helpers.state_of(child) == "T")
            calls = [pool.submit(abs, -n) for n in range(32)]
            then = time.perf_counter() + rng.random() * 0.0001
            while time.perf_counter() < then:
                pass
            cancelled = [f.cancel() for f in calls[1:]]
            os.kill(child, signal.SIGCONT)
            assert calls[0].result(LONG) == 0
            assert all(cancelled)


def test_cancelling_at_any_instant(pool):
    """Recalls race with what goes ahead, and with the request that the child is about to begin."""
    rng = random.Random(3)
    for _ in range(3000):
        calls = [pool.submit(abs, -n) for n in range(rng.randint(2, 40))]
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.0002)
        order = calls if rng.random() < 0.5 else calls[::-1]
        for call in order[: rng.randint(1, len(calls))]:
            call.cancel()
        assert not concurrent.futures.wait(calls, LONG).not_done
        assert all(f.cancelled() or f.result() == n for n, f in enumerate(calls))


def test_what_is_ahead_of_a_long_call_can_be_cancelled(gate):
    with plait.Pool(1, kind="process") as pool:
        short(pool)
        calls = [pool.submit(abs, n) for n in range(8)]
        long = pool.submit(gate.wait)
        later = [pool.submit(abs, n) for n in range(50)]
        assert helpers.settles(long.running)
        assert not any(f.running() for f in later)
        assert all(f.cancel() for f in later[::2])
        gate.open()
        assert [f.result(LONG) for f in calls] == [*range(8)]
        assert [f.result(LONG) for f in later[1::2]] == [*range(1, 50, 2)]
        assert all(f.cancelled() for f in later[::2])


def test_shutdown_cancels_what_is_ahead(gate):
    pool = plait.Pool(1, kind="process")
    short(pool)
    long = pool.submit(gate.wait)
    later = [pool.submit(abs, n) for n in range(50)]
    assert helpers.settles(long.running)
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(f.cancelled() for f in later)
    gate.open()
    assert long.result(LONG) == "passed"
    pool.shutdown()


def fail_if(n, what):
    if n == what:
        raise ValueError(n)
    return n


def test_exceptions_in_between(pool):
    calls = [pool.submit(fail_if, n, 70) for n in range(150)]
    for n, call in enumerate(calls):
        if n == 70:
            with pytest.raises(ValueError, match="70"):
                call.result(LONG)
        else:
            assert call.result(LONG) == n


def die_at(path, n, places, times):
    note(path, n)
    if n in places and noted(path).count(n) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_a_death_fails_one_call_and_runs_none_twice(pool, tmp_path):
    """Those behind the one that ran are not begun, and run in another child."""
    path = tmp_path / "notes"
    places = {30, 31, 60, 149}
    calls = [pool.submit(die_at, path, n, places, 1) for n in range(150)]
    for n, call in enumerate(calls):
        if n in places:
            with pytest.raises(plait.WorkerDied, match="SIGKILL"):
                call.result(LONG)
        else:
            assert call.result(LONG) == n
    assert sorted(noted(path)) == [*range(150)]
    short(pool)


def test_retries_of_what_ran_alone(pool, tmp_path):
    path = tmp_path / "notes"
    places = {30, 31, 60, 149}
    again = pool.options(retries=2)
    calls = [again.submit(die_at, path, n, places, 2) for n in range(150)]
    assert [f.result(LONG) for f in calls] == [*range(150)]
    assert sorted(noted(path)) == sorted([*range(150)] + 2 * [*places])


def test_interrupts_hit_the_one_they_are_for(pool):
    for turn in range(20):
        before = [pool.submit(abs, n) for n in range(turn)]
        victim = pool.submit(jobs.spin)
        after = [pool.submit(abs, n) for n in range(50)]
        assert helpers.settles(victim.running)
        victim.interrupt()
        with pytest.raises(plait.Interrupted):
            victim.result(LONG)
        assert [f.result(LONG) for f in before + after] == [*range(turn), *range(50)]


def test_calls_of_many_sorts(pool):
    """Some suit to go ahead, some do not: large, by value, with a deadline, urgent, a map's."""
    big = b"x" * 5000
    for turn in range(10):
        calls, right = [], []
        for n in range(100):
            match n % 10:
                case 3:
                    calls.append(pool.submit(len, big))
                    right.append(5000)
                case 5:
                    calls.append(pool.submit(lambda a, b=n: a + b, turn))
                    right.append(turn + n)
                case 7:
                    calls.append(pool.options(deadline=LONG).submit(abs, -n))
                    right.append(n)
                case 8:
                    calls.append(pool.options(priority=2).submit(abs, -n))
                    right.append(n)
                case _:
                    calls.append(pool.submit(abs, -n))
                    right.append(n)
        squares = pool.map(jobs.double, range(200))
        assert [f.result(LONG) for f in calls] == right
        assert list(squares) == [2 * n for n in range(200)]


def nest(pool, depth):
    if depth == 0:
        return 1
    return sum(f.result() for f in [pool.submit(nest, pool, depth - 1) for _ in range(3)])


def test_calls_that_wait_for_their_own(pool):
    for _ in range(5):
        calls = [pool.submit(abs, n) for n in range(50)]
        deep = [pool.submit(nest, pool, 3) for _ in range(3)]
        more = [pool.submit(abs, n) for n in range(50)]
        assert [f.result(LONG) for f in calls + more] == 2 * [*range(50)]
        assert [f.result(LONG) for f in deep] == 3 * [27]


def test_a_stopped_child_keeps_no_call_but_one():
    """The other worker runs all that it was sent ahead."""
    with plait.Pool(2, kind="process") as pool:
        short(pool)
        pids = {pool.submit(os.getpid).result(LONG) for _ in range(100)}
        victim = min(pids)
        os.kill(victim, signal.SIGSTOP)
        try:
            calls = [pool.submit(abs, n) for n in range(500)]
            assert helpers.settles(lambda: sum(f.done() for f in calls) >= 499, LONG)
        finally:
            os.kill(victim, signal.SIGCONT)
        assert [f.result(LONG) for f in calls] == [*range(500)]
