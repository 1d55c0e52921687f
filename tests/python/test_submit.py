"""Pool.submit: functions and arguments of every sort, and several threads that submit."""

import dataclasses
import functools
import importlib.util
import operator

import helpers
import jobs
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


def test_functions_with_a_cache(alive):
    @functools.lru_cache(maxsize=7, typed=True)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert alive.submit(fibonacci, 80).result(LONG) == 23416728348467685  # without: for ever
    assert list(alive.map(fibonacci, range(8))) == [0, 1, 1, 2, 3, 5, 8, 13]
    parameters = alive.submit(lambda fn: fn.cache_parameters(), fibonacci).result(LONG)
    assert parameters == {"maxsize": 7, "typed": True}
    assert alive.submit(jobs.cached, 3).result(LONG) == 9
    assert alive.submit(jobs.same, jobs.cached).result(LONG) is jobs.cached


def test_functions_with_variants_for_types(alive):
    @functools.singledispatch
    def told(value):
        return "something"

    @told.register
    def _(value: int):
        return f"number {value}"

    for _turn in range(2):  # the second time, with what it has remembered
        assert [alive.submit(told, value).result(LONG) for value in (1, "x")] == [
            "number 1",
            "something",
        ]
        told(1)


def test_classes_with_slots(alive):
    class Slotted:
        __slots__ = ("__hidden", "shown")

        def __init__(self, shown):
            self.shown, self.__hidden = shown, -shown

        def hidden(self):
            return self.__hidden

    class Below(Slotted):
        __slots__ = "more"

    @dataclasses.dataclass(slots=True)
    class Point:
        x: int

        def moved(self):
            return Point(self.x + 1)

    def look(value):
        value.more = value.hidden() * 2
        return value, hasattr(value, "__dict__")

    value, has_dict = alive.submit(look, Below(3)).result(LONG)
    assert (type(value), value.shown, value.hidden(), value.more) == (Below, 3, -3, -6)
    assert not has_dict
    assert alive.submit(Point(1).moved).result(LONG) == Point(2)
    assert type(next(alive.map(Point.moved, [Point(1)]))) is Point


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


# ---- several threads ----


def test_several_submitters(alive):
    def body(index):
        futures = [alive.submit(jobs.add, index * 10_000, n) for n in range(2000)]
        local = [alive.submit(lambda x, k=index: x * k, n) for n in range(100)]
        assert [f.result(LONG) for f in futures] == [index * 10_000 + n for n in range(2000)]
        assert [f.result(LONG) for f in local] == [n * index for n in range(100)]
        assert list(alive.map(lambda x: x - index, range(500))) == [n - index for n in range(500)]

    helpers.in_threads(6, body)


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
