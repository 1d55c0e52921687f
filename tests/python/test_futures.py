"""plait.Future: states, timeouts, cancelling, callbacks, asyncio, several threads that wait."""

import asyncio
import concurrent.futures as cf
import logging
import sys
import threading

import helpers
import jobs
import plait
import pytest

LONG = helpers.LONG


# ---- states ----


def test_it_is_an_executor_with_real_futures(pool):
    future = pool.submit(jobs.double, 1)
    assert isinstance(pool, cf.Executor)
    assert isinstance(future, plait.Future)
    assert isinstance(future, cf.Future)
    assert future.result(LONG) == future.result() == 2
    assert future.exception() is None
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert not future.cancel()
    assert "finished" in repr(future)
    assert "int" in repr(future)
    assert "ValueError" in repr(_finished(pool.submit(jobs.fail, ValueError())))


def _finished(future):
    cf.wait([future], LONG)
    return future


def test_a_decoded_result_is_the_same_object_every_time(pool):
    future = pool.submit(lambda: [1])
    assert future.result(LONG) is future.result()
    future = pool.submit(jobs.fail, ValueError())
    assert future.exception(LONG) is future.exception()


def test_several_threads_decode_a_result_and_get_the_same(kind):
    """Decoding runs Python code, which lets other threads come in between."""
    got = []
    with plait.Pool(1, kind=kind) as pool:
        for _ in range(5):
            future = pool.submit(jobs.Slow)
            helpers.in_threads(4, lambda _: got.append(future.result(LONG)))  # noqa: B023
            assert all(one is got[0] for one in got)
            got.clear()


def test_states_timeouts_cancelling(kind, gate):
    with plait.Pool(1, kind=kind) as pool:
        running = pool.submit(gate.wait)
        assert helpers.settles(running.running)
        pending = [pool.submit(jobs.double, n) for n in range(10)]
        assert not pending[0].running()
        assert not pending[0].done()
        assert "pending" in repr(pending[0])
        assert "running" in repr(running)
        for timeout in (0, 0.01, -1):
            with pytest.raises(TimeoutError):
                running.result(timeout=timeout)
            with pytest.raises(TimeoutError):
                running.exception(timeout)
        with pytest.raises(cf.TimeoutError):
            running.result(0)
        assert not running.cancel()
        assert pending[3].cancel()
        assert pending[3].cancel()  # again: still cancelled
        assert pending[3].cancelled()
        assert pending[3].done()
        assert not pending[3].running()
        assert "cancelled" in repr(pending[3])
        with pytest.raises(cf.CancelledError):
            pending[3].result()
        with pytest.raises(cf.CancelledError):
            pending[3].exception()
        gate.open()
        assert running.result(LONG) == "passed"
        assert [f.result(LONG) for n, f in enumerate(pending) if n != 3] == [
            0,
            2,
            4,
            8,
            10,
            12,
            14,
            16,
            18,
        ]
        with pytest.raises(cf.CancelledError):
            pending[3].result(LONG)


def test_bad_timeouts(pool):
    future = _finished(pool.submit(jobs.double, 1))
    with pytest.raises(TypeError):
        future.result(1, 2)
    with pytest.raises(TypeError):
        future.result(limit=1)
    assert future.result(float("inf")) == 2
    assert future.result(1e300) == 2


def test_cancelled_tasks_never_run(kind, gate, tmp_path):
    with plait.Pool(1, kind=kind) as pool:
        first = pool.submit(gate.wait)
        marks = [pool.submit(open, tmp_path / f"ran{n}", "x") for n in range(20)]
        for future in marks[::2]:
            assert future.cancel()
        gate.open()
        first.result(LONG)
        for future in marks[1::2]:
            future.exception(LONG)
    assert sorted(int(p.name[3:]) for p in tmp_path.glob("ran*")) == list(range(1, 20, 2))


def test_callbacks(alive, gate, caplog):
    called, done = [], threading.Event()
    future = alive.submit(gate.wait)

    def raising(f):
        called.append("raising")
        raise ValueError("in a callback")

    future.add_done_callback(called.append)
    future.add_done_callback(raising)
    future.add_done_callback(lambda f: called.append(f.result()))
    future.add_done_callback(lambda f: done.set())
    assert called == []
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        gate.open()
        assert done.wait(LONG)
    assert called == [future, "raising", "passed"]
    assert "in a callback" in caplog.text
    future.add_done_callback(called.append)  # after the end: called at once, here
    assert called[-1] is future
    failed, seen = alive.submit(jobs.fail, ValueError(5)), threading.Event()
    failed.add_done_callback(lambda f: f.exception().args == (5,) and seen.set())
    assert seen.wait(LONG)


def test_callbacks_of_cancelled_futures(kind, gate):
    with plait.Pool(1, kind=kind) as pool:
        first = pool.submit(gate.wait)
        second, called = pool.submit(jobs.double, 1), []
        second.add_done_callback(called.append)
        assert second.cancel()
        assert called == [second]
        assert cf.wait([second], LONG).done == {second}
        gate.open()
        first.result(LONG)


def test_a_callback_may_submit_and_wait(alive):
    """Whatever a callback does, callbacks of other futures come through."""
    results, done = [], threading.Event()

    def again(future):
        results.append(future.result())
        if len(results) < 20:
            alive.submit(jobs.double, len(results)).add_done_callback(again)
        else:
            done.set()

    alive.submit(jobs.double, 0).add_done_callback(again)
    assert done.wait(LONG)
    assert results == [n * 2 for n in range(20)]
    done.clear()
    alive.submit(jobs.double, 1).add_done_callback(
        lambda f: alive.submit(jobs.double, 2).result(LONG) == 4 and done.set()
    )
    assert done.wait(LONG)


def test_a_callback_that_exits_does_not_stop_the_others(kind):
    """In a child, since what is broken stays broken. The callback's fault is told, and no more."""
    script = """
import concurrent.futures as cf, sys, threading, time, plait
pool = plait.Pool(1, kind=sys.argv[1])
for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
    def leave(future, error=error): raise error
    first = pool.submit(time.sleep, 0.3)
    try: first.add_done_callback(leave)
    except BaseException: pass
    done = threading.Event()
    second = pool.submit(abs, -2)
    second.add_done_callback(lambda f: done.set())
    print(done.wait(10), first.result(), second.result())
"""
    ended = helpers.run(script, kind, code=None)
    assert ended.lines() == ["True None 2"] * 3, ended.show()


def test_wait_and_as_completed(alive, gate):
    futures = [alive.submit(jobs.double, n) for n in range(100)]
    assert cf.wait(futures, LONG) == (set(futures), set())
    futures = [alive.submit(jobs.double, n) for n in range(500)]
    assert sorted(f.result() for f in cf.as_completed(futures, LONG)) == [n * 2 for n in range(500)]
    slow = alive.submit(gate.wait)
    quick = alive.submit(jobs.double, 1)
    done, pending = cf.wait([slow, quick], LONG, return_when=cf.FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {slow})
    assert next(cf.as_completed([slow, quick], LONG)) is quick
    with pytest.raises(TimeoutError):
        list(cf.as_completed([slow], 0.01))
    assert cf.wait([slow], 0.01).not_done == {slow}
    wrong = alive.submit(jobs.fail, ValueError())
    done, _ = cf.wait([slow, wrong], LONG, return_when=cf.FIRST_EXCEPTION)
    assert wrong in done
    gate.open()
    assert cf.wait([slow], LONG).done == {slow}


def test_wait_mixed_with_futures_of_the_standard_library(pool):
    with cf.ThreadPoolExecutor(1) as other:
        futures = [executor.submit(jobs.double, n) for n in range(20) for executor in (pool, other)]
        assert len(cf.wait(futures, LONG).done) == 40
        assert len(list(cf.as_completed(futures, LONG))) == 40


def test_asyncio(alive):
    async def main():
        loop = asyncio.get_running_loop()
        results = [await asyncio.wrap_future(alive.submit(jobs.double, 1))]
        results.append(await loop.run_in_executor(alive, jobs.double, 2))
        results += await asyncio.gather(
            *(loop.run_in_executor(alive, lambda n=n: n * n) for n in range(50))
        )
        with pytest.raises(jobs.Mistake):
            await asyncio.wrap_future(alive.submit(jobs.fail, jobs.Mistake(1)))
        return results

    assert asyncio.run(asyncio.wait_for(main(), LONG)) == [2, 4, *(n * n for n in range(50))]


def test_asyncio_cancelling(kind, gate):
    async def main(pool):
        blocked = pool.submit(gate.wait)
        future = pool.submit(jobs.double, 1)
        task = asyncio.wrap_future(future)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)  # the loop hands the cancellation on
        gate.open()
        assert await asyncio.wrap_future(blocked) == "passed"
        assert future.cancelled()

    with plait.Pool(1, kind=kind) as pool:
        asyncio.run(asyncio.wait_for(main(pool), LONG))


def test_the_result_is_the_workers_to_set(pool):
    future = pool.submit(jobs.double, 1)
    for action in (lambda: future.set_result(3), lambda: future.set_exception(ValueError())):
        with pytest.raises(cf.InvalidStateError):
            action()
    assert future.result(LONG) == 2
    for cls in (plait.Future, type(future).__mro__[1]):
        with pytest.raises(TypeError):
            cls()


# ---- several threads ----


def test_several_threads_wait_for_one_future(alive, gate):
    future = alive.submit(lambda wait: [wait()], gate.wait)
    seen = []

    def body(index):
        if index == 0:
            gate.open()
        elif index % 2:
            seen.append(future.result(LONG))
        else:
            cf.wait([future], LONG)
            seen.append(future.result(0))

    helpers.in_threads(8, body)
    assert len(seen) == 7
    assert all(value is seen[0] for value in seen)


def test_several_threads_add_callbacks_while_futures_finish(alive):
    """Every callback is called exactly once, whenever it was added; so is every waiter told."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(150):
            futures = [alive.submit(jobs.double, n) for n in range(8)]
            lock, calls = threading.Lock(), []

            def count(future, lock=lock, calls=calls):
                with lock:
                    calls.append(future)

            def body(index, futures=futures, count=count):
                for future in futures:
                    if index == 3:
                        assert len(cf.wait([future], LONG).done) == 1
                    else:
                        future.add_done_callback(count)

            helpers.in_threads(4, body)
            assert helpers.settles(lambda calls=calls: len(calls) == 24, 20), len(calls)
    finally:
        sys.setswitchinterval(interval)
