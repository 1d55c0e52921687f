"""Context variables: a task sees its submitter's as they were at the submit, and keeps its own to
itself.
"""

import asyncio
import decimal
import threading
from contextvars import Context, ContextVar, copy_context

import helpers
import jobs
import plait
import pytest

HERE = ContextVar("here", default="none")  # tests are not modules that workers import by name


@pytest.fixture(autouse=True)
def own_context(request):
    """What a test sets does not reach the next."""
    tokens = [(variable, variable.set("none")) for variable in (jobs.REQUEST, HERE)]
    yield
    for variable, token in tokens:
        variable.reset(token)


def test_values_as_at_the_submit(alive):
    token = jobs.REQUEST.set("first")
    futures = [alive.submit(jobs.request)]
    jobs.REQUEST.set("second")
    futures.append(alive.submit(jobs.request))
    jobs.REQUEST.reset(token)
    futures.append(alive.submit(jobs.request))
    assert [future.result(60) for future in futures] == ["first", "second", "none"]


def test_nothing_is_set(alive):
    assert Context().run(lambda: alive.submit(jobs.request).result(60)) == "none"
    assert (
        Context().run(lambda: list(alive.map(lambda _: jobs.request(), range(3)))) == ["none"] * 3
    )


@pytest.mark.parametrize("empty", [True, False])
def test_what_a_task_sets_stays_with_it(alive, empty):
    def check():
        for _ in range(4):
            assert alive.submit(jobs.set_request, "changed").result(60) == "none"
        assert set(alive.map(jobs.set_request, ["changed"] * 50)) == {"none"}
        assert jobs.REQUEST.get() == "none"

    Context().run(check) if empty else check()


def test_a_task_that_fails_leaves_its_context(alive):
    def spoil(_):
        jobs.REQUEST.set("spoilt")
        raise ValueError("as it should")

    for _ in range(4):
        assert isinstance(alive.submit(spoil, 0).exception(60), ValueError)
    results = alive.map_unordered(spoil, range(4))
    for _ in range(4):
        with pytest.raises(ValueError, match="as it should"):
            next(results)
    assert set(alive.map(lambda _: jobs.request(), range(50))) == {"none"}


def test_map_takes_the_context_of_the_call(alive):
    jobs.REQUEST.set("at the call")
    results = alive.map(lambda _: jobs.request(), range(200), buffersize=4)
    jobs.REQUEST.set("later")
    assert set(results) == {"at the call"}


def test_variables_of_functions_by_value(alive):
    inner = ContextVar("inner")
    HERE.set("here")
    inner.set(("any", "value", 1))
    assert alive.submit(lambda: (HERE.get(), inner.get())).result(60) == (
        "here",
        ("any", "value", 1),
    )
    inner.set(2)
    assert alive.submit(lambda: (HERE.get(), inner.get())).result(60) == ("here", 2)
    assert alive.submit(lambda: inner).result(60) is inner
    assert alive.submit(jobs.same, jobs.REQUEST).result(60) is jobs.REQUEST
    without = ContextVar("without")
    assert isinstance(alive.submit(lambda: [without.get()]).exception(60), LookupError)


def test_values_that_cannot_travel(pool):
    """By reference to threads; to others not, and the task runs without them."""
    lock, shared = threading.Lock(), pool.kind == "thread"
    jobs.REQUEST.set(lock)
    HERE.set("here")
    seen = pool.submit(lambda: (jobs.REQUEST.get() != "none", HERE.get())).result(60)
    assert seen == (shared, "here")


def test_values_of_classes(alive):
    jobs.REQUEST.set(jobs.Record("name", [1, 2]))
    assert alive.submit(jobs.request).result(60) == jobs.Record("name", [1, 2])
    assert alive.submit(lambda: type(jobs.request()) is jobs.Record).result(60)


def test_tasks_of_tasks(kind):
    with plait.Pool(1, kind=kind) as pool:

        def outer(own):
            before = own.submit(jobs.request).result(60)
            jobs.REQUEST.set("of the task")
            waiting = [own.submit(jobs.request), own.submit(jobs.set_request, "of its task")]
            inside = Context().run(lambda: own.submit(jobs.request).result(60))
            return before, [future.result(60) for future in waiting], jobs.request(), inside

        jobs.REQUEST.set("outside")
        assert pool.submit(outer, pool).result(60) == (
            "outside",
            ["of the task", "of the task"],
            "of the task",
            "none",
        )


def test_what_the_initializer_sets_lies_below(kind):
    def prepare():
        jobs.REQUEST.set("initial")
        HERE.set("initial")

    def look():
        return jobs.REQUEST.get(), HERE.get()

    def in_pool():
        with plait.Pool(1, kind=kind, initializer=prepare) as pool:
            assert pool.submit(look).result(60) == ("initial", "initial")
            HERE.set("mine")
            assert pool.submit(look).result(60) == ("initial", "mine")
            assert list(pool.map(lambda _: look(), range(2))) == [("initial", "mine")] * 2
            assert pool.submit(jobs.set_request, "gone").result(60) == "initial"
            assert pool.submit(look).result(60) == ("initial", "mine")

    Context().run(in_pool)


def test_the_decimal_context(alive):
    def third(_=None):
        return str(decimal.Decimal(1) / 3)

    def elsewhere():
        import decimal as late

        return str(late.Decimal(1) / 3)

    with decimal.localcontext() as context:
        context.prec, context.rounding = 5, decimal.ROUND_UP
        assert alive.submit(third).result(60) == "0.33334"
        assert alive.submit(elsewhere).result(60) == "0.33334"
        assert list(alive.map(third, range(3))) == ["0.33334"] * 3
        context.prec = 3
        assert alive.submit(third).result(60) == "0.334"
    assert alive.submit(third).result(60) == "0." + "3" * 28


def test_coroutines_have_contexts_of_their_own(alive):
    async def one(name):
        jobs.REQUEST.set(name)
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        return await alive.submit(jobs.request), await loop.run_in_executor(alive, jobs.request)

    async def several():
        return await asyncio.gather(*(one(f"name {index}") for index in range(20)))

    assert asyncio.run(several()) == [(f"name {index}",) * 2 for index in range(20)]


def test_many_contexts_from_many_threads(alive):
    """Every call has its own submitter's, whatever runs beside it."""

    def submit(name):
        jobs.REQUEST.set(name)
        for number in range(50):
            HERE.set(number)
            assert alive.submit(lambda: (jobs.REQUEST.get(), HERE.get())).result(60) == (
                name,
                number,
            )

    helpers.in_threads(4, lambda index: copy_context().run(submit, f"thread {index}"))
