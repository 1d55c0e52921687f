"""Pool.amap(): map() for coroutines."""

import asyncio
import contextlib
import threading
import time

import jobs
import plait
import pytest

LONG = 60


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, LONG))


async def all_of(results):
    return [result async for result in results]


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 1000, 50_000])
def test_all_results_in_order(pool, count):
    assert run(all_of(pool.amap(jobs.double, range(count)))) == [2 * n for n in range(count)]


def test_several_iterables_and_lambdas(pool):
    assert run(all_of(pool.amap(lambda x, y: x - y, [5, 6, 7], [1, 2]))) == [4, 4]
    assert run(all_of(pool.amap(lambda n: {"n": n}, "ab"))) == [{"n": "a"}, {"n": "b"}]


def test_errors_at_their_place(pool):
    async def main():
        results, told = pool.amap(jobs.odd_or_fail, range(6)), []
        while True:
            try:
                told.append(await anext(results))
            except ValueError as error:
                told.append(str(error))
            except StopAsyncIteration:
                return told

    assert run(main()) == ["0 is even", 1, "2 is even", 3, "4 is even", 5]


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
def test_an_end_that_the_function_raises_is_an_error(pool, error):
    with pytest.raises(RuntimeError, match=error.__name__):
        run(all_of(pool.amap(jobs.fail, [error()])))


def test_the_loop_goes_on_meanwhile(kind, gate):
    """What the results wait for is done by another task of the same loop."""

    async def main(pool):
        async def open_later():
            await asyncio.sleep(0.05)
            gate.open()

        opening = asyncio.create_task(open_later())
        told = await all_of(pool.amap(lambda n: gate.wait() and n, range(3)))
        await opening
        return told

    with plait.Pool(1, kind=kind) as pool:
        assert run(main(pool)) == [0, 1, 2]


def test_no_thread_for_each_await(pool):
    async def main():
        await pool.submit(abs, -1)  # the notifier is there now
        before = threading.active_count()
        most = 0

        async def one(n):
            nonlocal most
            async for _ in pool.amap(time.sleep, [0.001] * 5):
                most = max(most, threading.active_count())

        await asyncio.gather(*(one(n) for n in range(20)))
        return most - before

    assert run(main()) <= 0


def test_results_that_are_there_leave_the_loop_its_turns(pool):
    async def main():
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await all_of(pool.amap(abs, range(20_000)))
        counting.cancel()
        return turns

    assert run(main()) > 20


def test_input_is_taken_as_results_are_given(alive):
    taken = 0

    def count():
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async def main():
        given = 0
        async for result in alive.amap(abs, count(), buffersize=100):
            given += 1
            assert result == given
            assert taken - given < 100
            if given == 5000:
                break

    run(main())


@pytest.mark.parametrize("way", ["break", "aclose", "aclosing", "task", "error"])
def test_leaving_cancels_what_is_left(kind, gate, way):
    """The worker is held by one of the first items; of the others only its stretch is run."""

    async def fail_in_the_middle(results):
        async for _ in results:
            raise LookupError

    async def main(pool):
        results = pool.amap(lambda n: gate.wait() and jobs.turn() if n else -1, range(50))
        if way == "break":
            async for _ in results:
                break
        elif way == "aclose":
            assert await anext(results) == -1
            await results.aclose()
            await results.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(results)
        elif way == "aclosing":
            async with contextlib.aclosing(results):
                assert await anext(results) == -1
        elif way == "task":
            task = asyncio.create_task(all_of(results))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
        else:
            with pytest.raises(LookupError):
                await fail_in_the_middle(results)
        del results

    with plait.Pool(1, kind=kind) as pool:
        before = pool.submit(jobs.turn).result(LONG)
        run(main(pool))
        gate.open()
        assert pool.submit(jobs.turn).result(LONG) - before < 10


def test_two_tasks_cannot_wait_for_one_iterator(pool):
    async def main():
        results = pool.amap(time.sleep, [0.2])
        first = asyncio.create_task(anext(results))
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(results)
        return await first

    assert run(main()) is None


def test_several_loops_at_once(alive):
    sums, failures = [], []

    def loop():
        try:
            sums.append(sum(run(all_of(alive.amap(abs, range(3000))))))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sums == [sum(range(3000))] * 4


def test_many_in_one_loop(alive):
    async def main():
        several = (all_of(alive.amap(jobs.double, range(n))) for n in range(40))
        return await asyncio.gather(*several)

    assert run(main()) == [[2 * n for n in range(count)] for count in range(40)]


def test_inside_a_task_of_its_own_pool(kind):
    async def total(pool):
        return sum([n async for n in pool.amap(abs, range(-1000, 0))])

    def task(pool):
        return asyncio.run(total(pool))

    with plait.Pool(1, kind=kind) as pool:
        assert pool.submit(task, pool).result(LONG) == sum(range(1, 1001))


def test_of_the_default_pool():
    assert run(all_of(plait.amap(lambda n: n + 1, range(10)))) == list(range(1, 11))


def test_what_it_refuses(pool):
    async def items():
        yield 1

    with pytest.raises(TypeError, match="async_generator is an async iterable"):
        pool.amap(abs, items())
    with pytest.raises(ValueError, match="buffersize"):
        pool.amap(abs, [1], buffersize=0)
    with pytest.raises(TypeError):
        pool.amap(abs, 5)


def test_after_shutdown(kind):
    pool = plait.Pool(1, kind=kind)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.amap(abs, [1])
