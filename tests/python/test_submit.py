"""Pool.submit and plait.Future: callables, arguments, results and exceptions of every sort."""

import asyncio
import concurrent.futures as cf
import functools
import importlib.util
import logging
import operator
import pickle
import sys
import threading
import traceback

import helpers
import jobs
import plait
import pytest

LONG = helpers.LONG


# ---- callables and arguments ----


def test_results_arguments_keywords(alive):
    submit = alive.submit
    assert submit(pow, 2, 5).result(LONG) == 32
    assert submit(jobs.arguments).result(LONG) == ((), {})
    assert submit(jobs.arguments, 1, "two", three=[3], four=None).result(LONG) == (
        (1, "two"),
        {"three": [3], "four": None},
    )
    assert submit(jobs.arguments, fn=1, self=2, args=3, kwargs=4).result(LONG) == (
        (),
        {"fn": 1, "self": 2, "args": 3, "kwargs": 4},
    )
    assert submit(jobs.arguments, *range(500), **{f"k{n}": n for n in range(500)}).result(LONG) == (
        tuple(range(500)),
        {f"k{n}": n for n in range(500)},
    )
    assert submit(jobs.arguments, jobs.Holder, x=jobs.Point(1, 2)).result(LONG) == (
        (jobs.Holder,),
        {"x": jobs.Point(1, 2)},
    )


def test_submit_wants_a_function(alive):
    with pytest.raises(TypeError, match="fn"):
        alive.submit()
    with pytest.raises(TypeError, match="callable"):
        alive.submit(5).result(LONG)
    with pytest.raises(TypeError):
        alive.submit(jobs.double).result(LONG)
    with pytest.raises(TypeError):
        alive.submit(jobs.double, 1, y=2).result(LONG)


def test_lambdas_and_closures(alive):
    factor, table = 3, {"a": [1]}

    def closure(x, *, scale=2):
        def inner():
            return x * factor * scale, table["a"]

        return inner()

    assert alive.submit(lambda: 1).result(LONG) == 1
    assert alive.submit(lambda x, *a, y=2, **k: (x, a, y, k), 1, 3, z=4).result(LONG) == (
        1,
        (3,),
        2,
        {"z": 4},
    )
    assert alive.submit(closure, 5).result(LONG) == (30, [1])
    assert alive.submit(closure, 5, scale=1).result(LONG) == (15, [1])
    assert alive.submit(lambda f: f(2), lambda x: x + factor).result(LONG) == 5
    assert alive.submit(lambda: lambda x: x + factor).result(LONG)(1) == 4
    assert alive.submit(lambda: [n for n in range(3) if n != factor]).result(LONG) == [0, 1, 2]
    recursive = lambda n: 1 if n == 0 else n * recursive(n - 1)  # noqa: E731
    assert alive.submit(recursive, 10).result(LONG) == 3628800


def test_other_callables(alive):
    submit = alive.submit
    assert submit(functools.partial(pow, 2), 3).result(LONG) == 8
    assert submit(functools.partial(lambda x, y: x - y, y=1), 3).result(LONG) == 2
    assert submit(jobs.Holder(21).double).result(LONG) == 42
    assert submit(jobs.Holder([1]), [2]).result(LONG) == [1, 2]
    assert submit(jobs.Holder.static, 1).result(LONG) == 2
    assert submit(jobs.Holder.made_by, 1).result(LONG) == 1
    assert submit(jobs.Point, 1, y=2).result(LONG) == jobs.Point(1, 2)
    assert submit(int, "7").result(LONG) == 7
    assert submit([3, 1, 2].index, 2).result(LONG) == 2
    assert submit("{}-{}".format, 1, 2).result(LONG) == "1-2"
    assert submit(str.upper, "x").result(LONG) == "X"
    assert submit(operator.itemgetter(1), "ab").result(LONG) == "b"


def test_classes_made_here(alive):
    class Local:
        def __init__(self, x):
            self.x = x

        def more(self):
            return Local(self.x + 1)

        def __eq__(self, other):
            return type(other) is Local and other.x == self.x

        __hash__ = None

    made = alive.submit(Local(1).more).result(LONG)
    assert type(made) is Local
    assert made == Local(2)
    assert alive.submit(Local, 5).result(LONG) == Local(5)
    assert isinstance(alive.submit(lambda: [Local(1)]).result(LONG)[0], Local)


def test_a_class_of_this_process_is_left_as_it_is(alive):
    """The instance that comes back must not bring the worker's version of its class along."""

    class Counted:
        made = 0

        def method(self):
            return "old"

    original = Counted.method
    future = alive.submit(Counted)
    Counted.made = 5
    assert type(future.result(LONG)) is Counted
    assert Counted.made == 5
    assert Counted.method is original


def test_large_arguments_and_results(alive):
    data = bytes(range(256)) * 40_000  # 10 MB
    assert alive.submit(len, data).result(LONG) == len(data)
    assert alive.submit(jobs.same, data).result(LONG) == data
    assert alive.submit(jobs.same, bytearray(data)).result(LONG) == data
    assert alive.submit(lambda: list(range(200_000))).result(LONG) == list(range(200_000))
    assert alive.submit(lambda: data).result(LONG) == data
    futures = [alive.submit(jobs.same, data) for _ in range(10)]
    assert all(future.result(LONG) == data for future in futures)


@pytest.mark.skipif(not importlib.util.find_spec("numpy"), reason="numpy is not installed")
def test_arrays_that_workers_only_pass_on(pool):
    """A worker that cannot import numpy says so; a thread has it."""
    import numpy as np

    future = pool.submit(jobs.same, np.arange(5))
    error = future.exception(LONG)
    if error is None:
        assert future.result().tolist() == [0, 1, 2, 3, 4]
    else:
        assert pool.kind == "interpreter"
        assert isinstance(error, ImportError)
        assert "numpy" in str(error)


# ---- what a function refers to may change ----


def test_changes_take_effect_at_the_next_submit(alive):
    space = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(
        "base = 1\nitems = [1]\n"
        "def helper(x): return x + base\n"
        "def task(x, y=0): return helper(x) + y, items[-1]\n"
        "class Made:\n    value = 1\n"
        "def make(): return Made().value\n",
        space,
    )
    run = lambda *args: alive.submit(space["task"], *args).result(LONG)  # noqa: E731
    for _ in range(3):
        assert run(1) == (2, 1)
    space["base"] = 10
    assert run(1) == (11, 1)
    space["items"].append(5)  # in place
    assert run(1) == (11, 5)
    space["task"].__defaults__ = (100,)
    assert run(1) == (111, 5)
    exec("def helper(x): return -x", space)
    assert run(1) == (99, 5)
    space["helper"].__code__ = (lambda x: x * 1000).__code__
    assert run(1) == (1100, 5)
    exec("def task(x): return 'new'", space)
    assert run(1) == "new"
    assert alive.submit(space["make"]).result(LONG) == 1
    space["Made"].value = 2
    assert alive.submit(space["make"]).result(LONG) == 2


def test_keyword_defaults_and_attributes_may_change(alive):
    def task(*, scale=1):
        return scale

    assert alive.submit(task).result(LONG) == 1
    task.__kwdefaults__ = {"scale": 2}
    assert alive.submit(task).result(LONG) == 2
    task.__kwdefaults__["scale"] = 3  # in place
    assert alive.submit(task).result(LONG) == 3

    def counted():
        return counted.count

    counted.count = 1
    assert alive.submit(counted).result(LONG) == 1
    counted.count = 2
    assert alive.submit(counted).result(LONG) == 2


def test_a_cell_may_change(alive):
    value = 1

    def task():
        return value

    assert alive.submit(task).result(LONG) == 1
    value = 2
    assert alive.submit(task).result(LONG) == 2
    assert list(alive.map(lambda x: x + value, range(3))) == [2, 3, 4]
    value = 3
    assert list(alive.map(lambda x: x + value, range(3))) == [3, 4, 5]


def test_an_instance_may_change(alive):
    holder = jobs.Holder(1)
    assert alive.submit(holder.double).result(LONG) == 2
    holder.held = 5
    assert alive.submit(holder.double).result(LONG) == 10
    part = functools.partial(jobs.add, holder.held)
    assert alive.submit(part, 1).result(LONG) == 6


def test_many_different_functions(alive):
    """More than any cache of functions holds; the last ones and the first ones again."""
    functions = [eval(f"lambda x: x + {n}") for n in range(600)]
    for _ in range(2):
        futures = [alive.submit(function, 1) for function in functions]
        assert [future.result(LONG) for future in futures] == list(range(1, 601))


SCRIPT = """
import sys, plait
from dataclasses import dataclass
factor = 3
@dataclass
class Point:
    x: int
    def scaled(self): return Point(self.x * factor)
def helper(x): return x * factor
def task(x, y=1): return helper(x) + y
with plait.Pool(2, kind=sys.argv[1]) as pool:
    print(pool.submit(task, 1).result(), list(pool.map(task, range(3))))
    factor = 4
    print(pool.submit(task, 1).result(), list(pool.map(lambda x: task(x), range(3))))
    made = pool.submit(Point(2).scaled).result()
    print(type(made) is Point, made == Point(8), type(made).__module__)
    print(pool.submit(lambda p: p.scaled().x, Point(1)).result())
    def task(x): return "redefined"
    print(pool.submit(task, 1).result())
    class Mine(Exception): pass
    def fail(): raise Mine("mine")
    try: pool.submit(fail).result()
    except Mine as error: print("caught", error)
"""


@pytest.mark.parametrize("how", ["-c", "stdin", "file"])
def test_everything_in_main_without_a_guard(kind, how, tmp_path):
    assert helpers.run_quietly(SCRIPT, kind, how=how, folder=tmp_path) == [
        "4 [1, 4, 7]",
        "5 [1, 5, 9]",
        "True True __main__",
        "4",
        "redefined",
        "caught mine",
    ]


# ---- exceptions ----


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        KeyError("k"),
        OSError(2, "No such file", "name"),
        FileNotFoundError(2, "m", "f"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        StopIteration(3),
        SystemExit(4),
        KeyboardInterrupt("k"),
        GeneratorExit(),
        MemoryError("m"),
        jobs.Mistake(7, detail="d"),
        ImportError("no", name="n", path="p"),
        SyntaxError("bad", ("file", 1, 2, "text", 1, 3)),
        AssertionError(),
        Exception(),
        ZeroDivisionError("z"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_exceptions_come_back_as_themselves(alive, error):
    caught = alive.submit(jobs.fail, error).exception(LONG)
    assert type(caught) is type(error)
    assert caught.args == error.args
    ours, theirs = dict(vars(caught)), dict(vars(error))
    assert ours == theirs
    for name in (
        "errno",
        "filename",
        "name",
        "path",
        "object",
        "reason",
        "code",
        "value",
        "lineno",
        "text",
    ):
        assert getattr(caught, name, None) == getattr(error, name, None)
    assert caught.__cause__ is None
    with pytest.raises(type(error)):
        alive.submit(jobs.fail, error).result(LONG)


def test_cause_context_and_notes(alive):
    def chain():
        try:
            try:
                {}["missing"]
            except KeyError as error:
                error.add_note("noted inside")
                raise ValueError("middle") from error
        except ValueError:
            outer = jobs.Mistake(1)
            outer.add_note("first")
            outer.add_note("second")
            raise outer  # noqa: B904

    error = alive.submit(chain).exception(LONG)
    assert type(error) is jobs.Mistake
    assert error.__notes__ == ["first", "second"]
    middle = error.__context__
    assert (type(middle), middle.args) == (ValueError, ("middle",))
    assert error.__cause__ is None
    assert middle.__cause__ is middle.__context__
    assert type(middle.__cause__) is KeyError
    assert middle.__suppress_context__
    assert not error.__suppress_context__
    assert middle.__cause__.__notes__ == ["noted inside"]
    told = "".join(traceback.format_exception(error))
    for part in (
        "raise outer",
        '{}["missing"]',
        "noted inside",
        "second",
        "direct cause",
        "During handling",
    ):
        assert part in told


def test_raise_from_none_and_cycles(alive):
    def quiet():
        try:
            raise KeyError(1)
        except KeyError:
            raise ValueError(2) from None

    def cyclic():
        one, two = ValueError(1), ValueError(2)
        one.__cause__, two.__cause__ = two, one
        raise one

    error = alive.submit(quiet).exception(LONG)
    assert error.__suppress_context__
    assert "KeyError" not in "".join(traceback.format_exception(error))
    error = alive.submit(cyclic).exception(LONG)
    assert error.__cause__.__cause__ is error


def test_groups(alive):
    def group():
        try:
            raise OSError(5, "inner")
        except OSError as error:
            inner = error
        nested = ExceptionGroup("nested", [inner, jobs.Mistake(2)])
        nested.add_note("a note")
        raise ExceptionGroup("outer", [ValueError("v"), nested]) from inner

    error = alive.submit(group).exception(LONG)
    assert type(error) is ExceptionGroup
    assert error.message == "outer"
    value, nested = error.exceptions
    assert (type(value), value.args) == (ValueError, ("v",))
    assert nested.message == "nested"
    assert nested.__notes__ == ["a note"]
    assert nested.exceptions[1].code == 2
    assert nested.exceptions[0].errno == 5
    assert 'raise OSError(5, "inner")' in "".join(traceback.format_exception(error))
    with pytest.raises(BaseExceptionGroup):
        alive.submit(jobs.fail, BaseExceptionGroup("b", [KeyboardInterrupt()])).result(LONG)
    matched, rest = error.split(ValueError)
    assert len(matched.exceptions) == 1
    assert rest.split((OSError, jobs.Mistake))[1] is None


def test_the_workers_traceback_shows_the_source(alive):
    error = alive.submit(jobs.odd_or_fail, 4).exception(LONG)
    told = "".join(traceback.format_exception(error))
    assert 'raise ValueError(f"{x} is even")' in told
    assert "jobs.py" in told
    assert "in odd_or_fail" in told
    assert error.__traceback__.tb_lineno > 1

    def deep(n):
        return deep(n - 1) if n else 1 // n  # the line of the lambda's callee

    told = "".join(traceback.format_exception(alive.submit(deep, 2).exception(LONG)))
    assert told.count("in deep") == 3
    assert "1 // n  # the line" in told
    with pytest.raises(ValueError, match="is even") as caught:
        alive.submit(jobs.odd_or_fail, 4).result(LONG)
    names = [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0].startswith("test_")  # where it was asked for
    assert names[-1] == "odd_or_fail"  # where it was raised


def test_exceptions_that_cannot_travel(alive):
    """Threads hand over the object; elsewhere a RemoteError may stand in."""
    for make, name, text in [
        (lambda: jobs.fail_with(jobs.Stubborn, 1, 2), "Stubborn", "1 and 2"),
        (lambda: jobs.fail_with(jobs.Carrier, "carried"), "Carrier", "carried"),
    ]:
        error = alive.submit(make).exception(LONG)
        assert isinstance(error, plait.RemoteError) or type(error).__name__ == name
        assert name in f"{type(error)} {error}"
        assert text in str(error)
        if isinstance(error, plait.RemoteError):
            assert error.type_name == name
            assert pickle.loads(pickle.dumps(error)).args == error.args
        else:
            assert alive.kind == "thread"

    def around():
        raise ValueError("outer") from jobs.Carrier("inner")

    error = alive.submit(around).exception(LONG)
    assert type(error) is ValueError
    assert "inner" in str(error.__cause__)


def test_a_long_chain_of_exceptions(alive):
    def chain(length):
        error = ValueError(0)
        for number in range(1, length):
            following = ValueError(number)
            following.__cause__ = error
            error = following
        raise error

    error, length = alive.submit(chain, 150).exception(LONG), 0
    while error is not None:
        error, length = error.__cause__, length + 1
    assert length == 150
    error = alive.submit(chain, 5000).exception(LONG)
    assert "4999" in str(error)


# ---- futures ----


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


def test_several_submitters(alive):
    def body(index):
        futures = [alive.submit(jobs.add, index * 10_000, n) for n in range(2000)]
        local = [alive.submit(lambda x, k=index: x * k, n) for n in range(100)]
        assert [f.result(LONG) for f in futures] == [index * 10_000 + n for n in range(2000)]
        assert [f.result(LONG) for f in local] == [n * index for n in range(100)]
        assert list(alive.map(lambda x: x - index, range(500))) == [n - index for n in range(500)]

    helpers.in_threads(6, body)


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


def test_results_in_time_while_others_submit(alive):
    """Futures come out right while cancelled, waited for and dropped by others."""

    def body(index):
        for turn in range(300):
            future = alive.submit(jobs.same, (index, turn))
            if turn % 3 == 0 and future.cancel():
                continue
            if turn % 3 == 1:
                assert future.result(LONG) == (index, turn)

    helpers.in_threads(4, body)
