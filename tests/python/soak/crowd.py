"""Several threads use pools at random, all at once; each knows what must come out of what it does.

Each thread draws from a random number generator of its own, so what it does depends on the seed
alone; when it happens does not. Whatever is submitted has an expectation, which is checked while
other things go on, and once more when all is over.
"""

import asyncio
import concurrent.futures as cf
import contextlib
import gc
import itertools
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import plait
import tasks
from watch import Log

LONG = 120
OUTSTANDING = 60  # futures that a thread keeps before it checks some


@dataclass
class Pending:
    """A future, and the check of how it ended."""

    future: plait.Future
    check: Callable[[plait.Future], object]
    told: str


# ---- checks ----


def gives(value, future):
    got = future.result(LONG)
    assert got == value, f"{got!r} is not {value!r}"
    assert future.exception(LONG) is None
    assert future.done()
    assert not future.running()
    assert not future.cancelled()


def raises(type_, args, future):
    error = future.exception(LONG)
    assert type(error) is type_, repr(error)
    assert args is None or error.args == args, repr(error)
    try:
        future.result(LONG)
    except type_:
        pass
    else:
        raise AssertionError(f"{type_} was not raised")


def gives_or_was_stopped(value, stops, future):
    """After cancel() or interrupt(): the value, unless it was stopped."""
    try:
        got = future.result(LONG)
    except stops:
        return
    assert got == value, f"{got!r} is not {value!r}"


def was_cancelled(future):
    assert future.cancelled()
    assert future.done()
    try:
        future.result(LONG)
    except cf.CancelledError:
        pass
    else:
        raise AssertionError("a cancelled future has a result")


STOPPED = (plait.Interrupted, cf.CancelledError)


class Round:
    """What the threads of one round share."""

    def __init__(self, kind: str, seed: int, log: Log, until: float, folder: Path) -> None:
        self.kind, self.seed, self.log, self.until = kind, seed, log, until
        rng = random.Random(f"round {seed}")
        self.pools = [plait.Pool(rng.randint(1, 4), kind=kind) for _ in range(rng.randint(1, 2))]
        self.marks = folder / f"marks-{seed}"
        self.marks.touch()
        self.numbers = itertools.count(1)  # of marks
        self.failures: list[BaseException] = []
        self.forking = threading.Lock()

    def run(self, threads: int, steps: int, operations: list[str]) -> None:
        users = [User(self, index, steps, operations) for index in range(threads)]
        bodies = [threading.Thread(target=user.run, name=user.name) for user in users]
        for body in bodies:
            body.start()
        for body in bodies:
            body.join()
        if not self.failures:
            self._close(users)
        for pool in self.pools:
            pool.shutdown(cancel_futures=bool(self.failures))
        if self.failures:
            raise self.failures[0]
        self._count_marks(users)
        self.marks.unlink()

    def _close(self, users: list["User"]) -> None:
        """One thread closes a pool while the others go on submitting to it."""
        rng = random.Random(f"close {self.seed}")
        pool = self.pools[0]
        racers = [threading.Thread(target=user.race, args=(pool,)) for user in users]
        for racer in racers:
            racer.start()
        time.sleep(rng.random() * 0.01)
        pool.shutdown(wait=rng.random() < 0.5, cancel_futures=rng.random() < 0.5)
        for racer in racers:
            racer.join()

    def _count_marks(self, users: list["User"]) -> None:
        """Every call that ended with a value has run once, and every cancelled one never."""
        data = self.marks.read_bytes()
        seen = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
        assert len(seen) == len(set(seen)), "a call was run twice"
        wanted = {number for user in users for number in user.marked}
        refused = {number for user in users for number in user.unmarked}
        assert wanted <= set(seen), f"never run: {sorted(wanted - set(seen))[:5]}"
        assert not refused & set(seen), f"cancelled and run: {sorted(refused & set(seen))[:5]}"


class User:
    """One thread and what it does."""

    def __init__(self, round_: Round, index: int, steps: int, operations: list[str]) -> None:
        self.round, self.steps = round_, steps
        self.name = f"user {index}"
        self.rng = random.Random(f"{round_.seed} {index}")
        self.operations = operations
        self.tail = round_.log.tail(self.name)
        self.pending: list[Pending] = []
        self.marked: set[int] = set()
        self.unmarked: set[int] = set()
        self.calls: dict[int, int] = {}  # callbacks: how often each was called
        self.step = 0

    # -- the run --

    def run(self) -> None:
        try:
            for step in range(self.steps):
                self.step = step
                if self.round.failures:
                    return
                if time.monotonic() > self.round.until:
                    break
                getattr(self, "do_" + self.rng.choice(self.operations))()
                if len(self.pending) > OUTSTANDING:
                    self.settle(self.rng.randint(1, OUTSTANDING))
            self.settle(len(self.pending))
            self.say("all settled")
            deadline = time.monotonic() + LONG
            while any(count == 0 for count in self.calls.values()):
                assert time.monotonic() < deadline, "a callback was never called"
                time.sleep(0.001)
            assert set(self.calls.values()) <= {1}, "a callback was called twice"
        except BaseException as error:
            self.say(f"FAILED: {error!r}")
            self.round.failures.append(error)

    def say(self, text: str) -> None:
        self.tail.append(f"{self.step:4} {text}")

    def pool(self) -> plait.Pool:
        return self.rng.choice(self.round.pools)

    def expect(self, future, check, told) -> plait.Future:
        self.say(told)
        self.pending.append(Pending(future, check, f"{self.step} {told}"))
        return future

    def settle(self, count: int) -> None:
        for _ in range(min(count, len(self.pending))):
            one = self.pending.pop(self.rng.randrange(len(self.pending)))
            try:
                one.check(one.future)
                one.check(one.future)  # an outcome does not change
            except BaseException as error:
                error.add_note(f"the outcome of: {one.told}; the future: {one.future!r}")
                raise

    # -- single calls --

    def value(self):
        rng = self.rng
        return rng.choice(
            [
                lambda: rng.randrange(-(10**20), 10**20),
                rng.random,
                lambda: "ä€𝄞x" * rng.randrange(100),
                lambda: bytes(rng.randrange(5000)),
                lambda: [rng.randrange(10) for _ in range(rng.randrange(300))],
                lambda: {str(n): (n, None, True) for n in range(rng.randrange(50))},
                lambda: {rng.randrange(100) for _ in range(20)},
                lambda: tasks.Box([1, tasks.Box("x")]),
                lambda: bytes(rng.randrange(1 << 20)),
            ]
        )()

    def do_submit(self) -> None:
        value = self.value()
        self.expect(self.pool().submit(tasks.same, value), partial(gives, value), "submit same")

    def do_submit_many(self) -> None:
        pool, count = self.pool(), self.rng.randint(10, 200)
        futures = [pool.submit(tasks.add, n, 1) for n in range(count)]
        self.say(f"submit {count} adds")
        for n, future in enumerate(futures):
            gives(n + 1, future)

    def do_submit_arguments(self) -> None:
        args = tuple(self.value() for _ in range(self.rng.randrange(20)))
        kwargs = {f"k{n}": n for n in range(self.rng.randrange(4))}
        future = self.pool().submit(tasks.arguments, *args, **kwargs)
        self.expect(future, partial(gives, (args, kwargs)), "submit arguments")

    def do_submit_closure(self) -> None:
        held = self.value()
        future = self.pool().submit(lambda x: (held, x), 1)
        self.expect(future, partial(gives, (held, 1)), "submit a closure")

    def do_submit_method(self) -> None:
        value = self.value()
        future = self.pool().submit(tasks.Box(value).unpack)
        self.expect(future, partial(gives, value), "submit a method")

    def do_fail(self) -> None:
        number = self.rng.randrange(1000)
        call, type_, args = self.rng.choice(
            [
                (tasks.trouble, tasks.Trouble, (number,)),
                (tasks.trouble_below, ValueError, (f"above {number}",)),
                (tasks.leave, SystemExit, (number,)),
                (tasks.add, TypeError, None),
            ]
        )
        self.expect(self.pool().submit(call, number), partial(raises, type_, args), "submit fails")

    def do_stuck(self) -> None:
        """An argument or a result that cannot travel, or may not need to."""
        if self.rng.random() < 0.5:
            future = self.pool().submit(type, tasks.Stuck())
        else:
            future = self.pool().submit(tasks.Stuck)
        if self.round.kind == "thread":
            future.result(LONG)
        else:
            self.expect(future, partial(raises, pickle.PicklingError, None), "submit Stuck")

    def do_mark(self) -> None:
        number = next(self.round.numbers)
        future = self.pool().submit(tasks.mark, os.fspath(self.round.marks), number)
        if self.rng.random() < 0.3 and future.cancel():
            self.unmarked.add(number)
            self.expect(future, was_cancelled, "mark, cancelled")
        else:
            self.marked.add(number)
            self.expect(future, partial(gives, number), "mark")

    def do_forget(self) -> None:
        """Futures that nobody asks."""
        pool = self.pool()
        for _ in range(self.rng.randint(1, 20)):
            pool.submit(tasks.same, self.value())
        self.say("submit and forget")

    def do_cycle(self) -> None:
        """A future that its own exception, or result, leads back to."""
        box = tasks.Box(None)
        box.held = self.pool().submit(self.rng.choice([tasks.same, tasks.trouble]), box)
        if self.rng.random() < 0.5:
            box.held.exception(LONG)
        self.say("a cycle")

    # -- waiting --

    def futures(self) -> list[tuple[int, plait.Future]]:
        pool, count = self.pool(), self.rng.randint(1, 30)
        return [(n, pool.submit(tasks.same, n)) for n in range(count)]

    def do_wait(self) -> None:
        futures = {future: n for n, future in self.futures()}
        how = self.rng.choice([cf.ALL_COMPLETED, cf.FIRST_COMPLETED, cf.FIRST_EXCEPTION])
        self.say(f"wait {how}")
        done, left = cf.wait(futures, LONG, how)
        assert done
        assert how == cf.FIRST_COMPLETED or not left
        assert all(future.result(0) == futures[future] for future in done)
        assert all(future.result(LONG) == futures[future] for future in left)

    def do_as_completed(self) -> None:
        futures = {future: n for n, future in self.futures()}
        self.say("as_completed")
        for future in cf.as_completed(futures, LONG):
            assert future.result(0) == futures.pop(future)
        assert not futures

    def do_ask_from_threads(self) -> None:
        """Several threads ask one future; all get the same object."""
        future = self.pool().submit(tasks.same, [self.value()])
        self.say("ask from threads")
        got = []
        threads = [
            threading.Thread(target=lambda: got.append(future.result(LONG))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 3
        assert all(one is got[0] for one in got)

    def do_time_out(self) -> None:
        future = self.pool().submit(tasks.nap, 0.01, 5)
        self.say("time out")
        with contextlib.suppress(TimeoutError):
            assert future.result(self.rng.choice([0, 0.001, 0.02])) == 5
        self.expect(future, partial(gives, 5), "nap")

    def do_await(self) -> None:
        self.say("await")

        async def main() -> None:
            futures = self.futures()
            assert await asyncio.gather(*(f for _, f in futures)) == [n for n, _ in futures]
            slow = asyncio.ensure_future(asyncio.wrap_future(self.pool().submit(tasks.work, 1000)))
            await asyncio.sleep(0)
            if self.rng.random() < 0.5:
                slow.cancel()
            await asyncio.wait([slow])
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(self.pool(), tasks.add, 1, 2) == 3

        asyncio.run(main())

    def do_callback(self) -> None:
        number, calls = len(self.calls), self.calls
        calls[number] = 0

        def called(future) -> None:
            assert future.done()
            calls[number] += 1

        future = self.pool().submit(tasks.work, self.rng.choice([0, 1000, 30000]))
        if self.rng.random() < 0.3:
            future.cancel()
        future.add_done_callback(called)
        self.say("callback")
        if self.rng.random() < 0.3:
            future.interrupt()

    # -- stopping --

    def do_interrupt(self) -> None:
        """At any moment of a short call's life, or in one that would never end."""
        if self.rng.random() < 0.3:
            future, value = self.pool().submit(tasks.spin), "nothing, ever"
        else:
            turns = self.rng.choice([0, 100, 10_000, 300_000])
            future, value = self.pool().submit(tasks.work, turns), turns * (turns - 1) // 2
        beside = self.pool().submit(tasks.work, 500)
        time.sleep(self.rng.choice([0, 0, 0.0005, 0.002, 0.01]))
        self.say(f"interrupt {value}")
        stopped = future.interrupt()
        gives(500 * 499 // 2, beside)
        check = partial(gives_or_was_stopped, value, STOPPED) if stopped else partial(gives, value)
        self.expect(future, check, "interrupted" if stopped else "not interrupted")

    def do_interrupt_caught(self) -> None:
        pool, turns = self.pool(), self.rng.choice([0, 10_000, 100_000])
        future = pool.submit(tasks.catches, pool, turns)
        time.sleep(self.rng.choice([0, 0.001, 0.005, 0.01]))
        self.say("interrupt one that may catch it")
        future.interrupt()
        try:
            got = future.result(LONG)
        except STOPPED:
            return
        assert got in (turns * (turns - 1) // 2, "interrupted once"), got

    def do_cancel(self) -> None:
        futures = [self.pool().submit(tasks.work, 3000) for _ in range(self.rng.randint(1, 10))]
        self.say("cancel")
        for future in reversed(futures):
            cancelled = future.cancel()
            check = was_cancelled if cancelled else partial(gives, 3000 * 2999 // 2)
            self.expect(future, check, f"cancel: {cancelled}")

    # -- options --

    def view(self, pool=None, **options) -> plait.PoolView:
        if self.rng.random() < 0.5:
            options["priority"] = self.rng.randint(-2, 2)
        return (pool or self.pool()).options(**options)

    def do_options(self) -> None:
        """Options that change no result."""
        view, count = self.view(deadline=LONG), self.rng.choice([1, 10, 300])
        self.say(f"options {view}")
        assert list(view.map(tasks.same, range(count))) == list(range(count))
        self.expect(view.submit(tasks.add, 1, count), partial(gives, count + 1), "options")

    def do_deadline(self) -> None:
        """At any moment of a short call's life, or in one that would never end."""
        view = self.view(deadline=self.rng.choice([0.0001, 0.001, 0.01]))
        if self.rng.random() < 0.3:
            future, value = view.submit(tasks.spin), "nothing, ever"
        else:
            turns = self.rng.choice([0, 100, 10_000, 300_000])
            future, value = view.submit(tasks.work, turns), turns * (turns - 1) // 2
        beside = self.pool().submit(tasks.work, 500)
        self.say(f"deadline {value}")
        stops: tuple[type[BaseException], ...] = (plait.DeadlineExceeded,)
        if self.rng.random() < 0.3:
            time.sleep(self.rng.choice([0, 0.001, 0.01]))
            (future.interrupt if self.rng.random() < 0.5 else future.cancel)()
            stops += STOPPED
        gives(500 * 499 // 2, beside)
        self.expect(future, partial(gives_or_was_stopped, value, stops), "under a deadline")

    def do_map_deadline(self) -> None:
        """Results in order up to some place; after the deadline nothing."""
        view, count = self.view(deadline=self.rng.choice([0.001, 0.01])), 2000
        fails = self.rng.random() < 0.5
        items = [0] * (count // 2) + [-1] * fails + [0] * (count // 2)
        results, got = view.map(tasks.work_or_spin, items, buffersize=self.window()), []
        self.say("map under a deadline")
        try:
            got.extend(results)
        except plait.DeadlineExceeded:
            assert list(results) == []
        else:
            assert not fails
            assert len(got) == len(items)
        assert got == [0] * len(got)

    def do_amap(self) -> None:
        """To its end, or left, cancelled or late in the middle."""
        count, how = self.rng.choice([0, 1, 10, 1000]), self.rng.randrange(4)
        view = self.view(deadline=0.005) if how == 3 else self.view()
        self.say(f"amap {count}, {how}")

        async def main() -> None:
            got = []
            results = view.amap(tasks.same, range(count), buffersize=self.window())
            try:
                async for one in results:
                    got.append(one)
                    if how == 1 and one == count // 2:
                        break
                    if how == 2 and one == count // 2:
                        await results.aclose()
            except plait.DeadlineExceeded:
                assert how == 3
            else:
                assert how != 0 or len(got) == count
            assert got == list(range(len(got)))

        asyncio.run(main())

    # -- maps --

    def window(self):
        return self.rng.choice([None, None, 1, 3, 50])

    def do_map(self) -> None:
        count, pool = self.rng.choice([0, 1, 10, 300, 3000]), self.pool()
        self.say(f"map {count}")
        how, window = self.rng.randrange(5), self.window()
        items = range(1, count + 1)
        if how == 0:
            got = list(pool.map(tasks.add, items, items, buffersize=window, timeout=LONG))
            assert got == [n * 2 for n in items]
        elif how == 1:
            got = sorted(pool.map_unordered(tasks.same, items, buffersize=window, timeout=LONG))
            assert got == list(items)
        elif how == 2:
            pairs = [(n, n) for n in items]
            got = list(pool.starmap(tasks.add, pairs, buffersize=window, timeout=LONG))
            assert got == [n * 2 for n in items]
        elif how == 3:
            assert pool.reduce(tasks.add, items, 5) == sum(items) + 5
        else:
            self.do_map_errors(items, pool)

    def do_map_errors(self, items=range(1, 100), pool=None) -> None:
        """What fails, fails at its place; the iterator goes on."""
        results, got = (pool or self.pool()).map(tasks.trouble_at_sevens, items), []
        self.say("map with errors")
        while True:
            try:
                got.append(next(results))
            except StopIteration:
                break
            except tasks.Trouble as error:
                got.append(-error.number)
        assert got == [-n if n % 7 == 0 else n * 2 for n in items]

    def do_map_dropped(self) -> None:
        """Given up in the middle, or before the beginning, or without end."""
        pool, count = self.pool(), self.rng.choice([10, 1000])
        method = self.rng.choice([pool.map, pool.map_unordered])
        results = method(tasks.same, range(count), buffersize=self.window())
        taken = list(itertools.islice(results, self.rng.choice([0, 1, 5])))
        assert method == pool.map_unordered or taken == list(range(len(taken)))
        endless = pool.map(tasks.same, itertools.count(), buffersize=20)
        assert list(itertools.islice(endless, 50)) == list(range(50))
        self.say("maps dropped")

    def do_map_input_fails(self) -> None:
        def items():
            yield from range(20)
            raise tasks.Trouble(20)

        self.say("map over an input that fails")
        got = []
        try:
            for one in self.pool().map(tasks.same, items(), buffersize=5):
                got.append(one)
        except tasks.Trouble:
            pass
        else:
            raise AssertionError("the input's exception was not raised")
        assert got == list(range(len(got)))

    # -- calls that call --

    def do_nest(self) -> None:
        pool, n = self.pool(), self.rng.choice([1, 5, 7])
        future = pool.submit(tasks.fibonacci, n, pool)
        self.expect(future, partial(gives, {1: 1, 5: 5, 7: 13}[n]), f"nest {n}")

    def do_nest_map(self) -> None:
        pool, other, count = self.pool(), self.pool(), self.rng.choice([0, 5, 200])
        future = pool.submit(tasks.total_of_map, count, other)
        self.expect(future, partial(gives, sum(range(count))), "nest a map")

    def do_nest_pools(self) -> None:
        future = self.pool().submit(tasks.total_elsewhere, 10, self.pool())
        self.expect(future, partial(gives, 45 + 11), "nest pools")

    # -- lives of pools --

    def own_pool(self, **options) -> plait.Pool:
        return plait.Pool(self.rng.randint(1, 3), kind=self.round.kind, **options)

    def do_pool(self) -> None:
        """One of its own, which ends in one of several ways."""
        pool, how = self.own_pool(), self.rng.randrange(7)
        self.say(f"a pool, {how}")
        futures = [pool.submit(tasks.work, 2000) for _ in range(self.rng.randrange(20))]
        if how == 0:
            pool.shutdown()
        elif how == 1:
            pool.shutdown(wait=False)
        elif how in (2, 3):
            pool.shutdown(wait=how == 2, cancel_futures=True)
        elif how == 4:
            pool.me = pool
            del pool
            gc.collect()
        elif how == 5:
            results = pool.map(tasks.same, range(500))
            del pool
            assert list(results) == list(range(500))
        else:
            copy = pickle.loads(pickle.dumps(pool))
            futures.append(copy.submit(tasks.work, 2000))
            pool.shutdown()
            del copy
        check = partial(gives, 2000 * 1999 // 2)
        if how in (2, 3):
            check = partial(gives_or_was_stopped, 2000 * 1999 // 2, cf.CancelledError)
        for future in futures:
            self.expect(future, check, f"of a pool that ended by {how}")

    def do_pool_unused(self) -> None:
        pool = self.own_pool()
        self.say("a pool without work")
        if self.rng.random() < 0.5:
            pool.shutdown()

    def do_initializer(self) -> None:
        """A good one, or one that breaks the pool."""
        fails = self.rng.random() < 0.5
        initializer = partial(tasks.trouble, 1) if fails else partial(tasks.same, 1)
        self.say(f"an initializer {fails}")
        with self.own_pool(initializer=initializer) as pool:
            try:
                futures = [pool.submit(tasks.add, 1, n) for n in range(self.rng.randint(1, 5))]
            except plait.BrokenPool:
                assert fails
                return
            for n, future in enumerate(futures):
                if fails:
                    error = future.exception(LONG)
                    assert type(error) is plait.BrokenPool, repr(error)
                    assert type(error.__cause__) is tasks.Trouble, repr(error.__cause__)
                else:
                    gives(n + 1, future)

    def do_leave_watched(self) -> None:
        """A worker of a pool that ends is to be told of a call that still runs in another pool."""
        self.say("leave a watched call")
        with self.own_pool() as pool:
            future = pool.submit(tasks.watched_and_left, self.rng.choice([0, 0.02]), self.pool())
            gives(1, future)

    def do_default_pool(self) -> None:
        self.say("the default pool")
        assert list(plait.map(tasks.same, range(10))) == list(range(10))
        gives(3, plait.submit(tasks.add, 1, 2))

    def do_collect(self) -> None:
        self.say("gc.collect()")
        gc.collect()

    def do_fork(self) -> None:
        """The child's copies refuse; a new pool in it serves."""
        with self.round.forking, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.say("fork")
            child = os.fork()
            if child == 0:
                os._exit(self.in_child())
            status = wait_for_child(child)
            assert status == 0, f"the child of a fork ended with {status}"

    def in_child(self) -> int:
        try:
            self.round.pools[0].submit(tasks.same, 1)
        except RuntimeError:
            pass
        else:
            return 4
        try:
            with plait.Pool(1, kind=self.round.kind) as pool:
                return 0 if pool.submit(tasks.add, 1, 2).result(LONG) == 3 else 5
        except BaseException:
            sys.excepthook(*sys.exc_info())
            return 6

    # -- the end of a shared pool --

    def race(self, pool: plait.Pool) -> None:
        """Submits until the pool is closed; what was accepted ends."""
        futures, maps = [], []
        try:
            while True:
                try:
                    futures.append(pool.submit(tasks.add, 1, 2))
                    if len(futures) % 50 == 0:
                        maps.append(pool.map(tasks.same, range(100)))
                except RuntimeError as error:
                    if "after shutdown" not in str(error):
                        raise
                    break
                if len(futures) > 20_000:
                    futures = [future for future in futures if not future.done()]
            self.say(f"the pool is closed, {len(futures)} are there")
            for future in futures:
                gives_or_was_stopped(3, cf.CancelledError, future)
            for results in maps:
                with contextlib.suppress(cf.CancelledError):
                    assert list(results) == list(range(100))
        except BaseException as error:
            self.say(f"FAILED: {error!r}")
            self.round.failures.append(error)


def wait_for_child(child: int) -> int:
    deadline = time.monotonic() + LONG / 2
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGABRT)
            deadline += LONG
        time.sleep(0.005)


# How often each is chosen; what makes interpreters or processes is dear.
WEIGHTS = {
    "submit": 12,
    "submit_many": 3,
    "submit_arguments": 6,
    "submit_closure": 6,
    "submit_method": 4,
    "fail": 8,
    "stuck": 3,
    "mark": 8,
    "forget": 3,
    "cycle": 3,
    "wait": 4,
    "as_completed": 4,
    "ask_from_threads": 3,
    "time_out": 3,
    "await": 3,
    "callback": 6,
    "interrupt": 8,
    "interrupt_caught": 4,
    "cancel": 4,
    "options": 4,
    "deadline": 8,
    "map_deadline": 4,
    "amap": 4,
    "map": 8,
    "map_errors": 4,
    "map_dropped": 4,
    "map_input_fails": 3,
    "nest": 4,
    "nest_map": 4,
    "nest_pools": 2,
    "pool": 3,
    "pool_unused": 2,
    "initializer": 1,
    "leave_watched": 1,
    "default_pool": 2,
    "collect": 1,
    "fork": 1,
}


def operations(only: list[str], without: list[str]) -> list[str]:
    """The names to choose from, each as often as its weight says."""
    unknown = {*only, *without} - {*WEIGHTS}
    if unknown:
        raise SystemExit(f"no operation {', '.join(unknown)}; there are: {', '.join(WEIGHTS)}")
    chosen = [name for name in WEIGHTS if name not in without and (not only or name in only)]
    return [name for name in chosen for _ in range(WEIGHTS[name])]


def run(
    kind: str, seed: int, log: Log, until: float, threads: int, steps: int, chosen: list[str]
) -> None:
    """One round: all of it happens, unless it is late (monotonic time), and nothing is left."""
    with tempfile.TemporaryDirectory() as folder:
        Round(kind, seed, log, until, Path(folder)).run(threads, steps, chosen)
