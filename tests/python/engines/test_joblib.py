"""plait.engines.joblib: joblib's Parallel on every kind of worker."""

import contextlib
import math
import operator
import os
import pickle
import signal
import threading
import time
import traceback
import warnings

import helpers
import joblib
import plait
import plait.engines.joblib as engine
import pytest
from helpers import LONG
from joblib import Parallel, delayed


@pytest.fixture(autouse=True, scope="module")
def _no_pool_stays():
    yield
    engine.shutdown()


@pytest.fixture
def on(kind):
    """Selects the backend: `with on(2):`."""
    return lambda n_jobs, **options: joblib.parallel_config(
        "plait", kind=kind, n_jobs=n_jobs, **options
    )


def pool_of(parallel):
    return parallel._backend._call._pool


def squares(count):
    return Parallel()(delayed(pow)(n, 2) for n in range(count))


def tree(depth):
    """Leaves of a tree of nested calls."""
    if depth == 0:
        return 1
    return sum(Parallel(n_jobs=2)(delayed(tree)(depth - 1) for _ in range(2)))


def spin_unless(index, wanted):
    if index == wanted:
        raise ValueError(f"task {index}")
    while True:
        pass


def where():
    return os.getpid(), helpers.interpreters_id(), threading.get_ident()


# ---- choosing ----


def test_the_kind_is_chosen_as_for_a_pool(kind):
    backend = engine.PlaitBackend(kind)
    assert (backend.kind, backend.reason) == (kind, "asked for")
    assert backend.supports_sharedmem == backend.uses_threads == (kind == "thread")
    with pytest.raises(ValueError, match="kind must be one of"):
        joblib.parallel_config("plait", kind="fibre")
    with joblib.parallel_config("plait", n_jobs=2):
        assert squares(5) == [0, 1, 4, 9, 16]


def test_a_kind_can_be_given_to_parallel_itself(kind):
    with Parallel(n_jobs=2, backend="plait", kind=kind) as parallel:
        assert pool_of(parallel).kind == kind
        places = set(parallel(delayed(helpers.where)() for _ in range(4)))
    assert ({process for process, _ in places} == {os.getpid()}) == (kind != "process")
    assert (helpers.where() in places) == (kind == "thread")


@pytest.mark.parametrize(("n_jobs", "workers"), [(1, 1), (2, 2), (7, 7), (-1, 4), (-2, 3), (-9, 1)])
def test_n_jobs_means_what_it_means_to_joblib(on, monkeypatch, n_jobs, workers):
    monkeypatch.setattr(engine, "cpu_count", lambda: 4)
    with on(n_jobs):
        assert joblib.effective_n_jobs(n_jobs) == workers
        with Parallel() as parallel:
            if workers == 1:
                assert type(parallel._backend).__name__ == "SequentialBackend"
            else:
                assert pool_of(parallel).max_workers == workers


def test_n_jobs_none_and_zero(on):
    with on(None):
        assert joblib.effective_n_jobs(None) == 1
        assert squares(3) == [0, 1, 4]
    with on(0), pytest.raises(ValueError, match="n_jobs == 0"):
        squares(3)


# ---- tasks and results ----


def test_results_come_in_order_whatever_the_batches(on):
    with on(2):
        assert squares(0) == []
        assert squares(3000) == [n * n for n in range(3000)]
        for size in (1, 7, 5000):
            results = Parallel(batch_size=size)(delayed(operator.neg)(n) for n in range(100))
            assert results == [-n for n in range(100)]


def test_functions_travel_as_with_a_pool(on):
    def outer(factor):
        return lambda value, *, plus=0: value * factor + plus

    functions = [outer(3), math.sqrt, abs, "{:>4}".format, outer(5)] * 20
    with on(2):
        tripled = Parallel()(delayed(outer(3))(n, plus=1) for n in range(50))
        mixed = Parallel()(delayed(function)(4) for function in functions)
    assert tripled == [3 * n + 1 for n in range(50)]
    assert mixed == [12, 2.0, 4, "   4", 20] * 20


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_generators(on, return_as):
    with on(2):
        results = Parallel(return_as=return_as)(delayed(abs)(-n) for n in range(200))
        assert sorted(results) == list(range(200))


def test_an_unordered_generator_does_not_wait_for_the_slow(on, gate):
    def task(index):
        if index == 0:
            gate.wait()
        return index

    with on(2):
        results = Parallel(return_as="generator_unordered", batch_size=1)(
            delayed(task)(index) for index in range(6)
        )
        assert sorted(next(results) for _ in range(5)) == [1, 2, 3, 4, 5]
        gate.open()
        assert list(results) == [0]


def test_the_input_of_a_call_may_be_the_output_of_another(on):
    """Neither's callbacks wait for the other's."""
    with on(2):
        first = Parallel(return_as="generator")(delayed(abs)(-n) for n in range(100))
        second = Parallel(return_as="generator")(delayed(operator.neg)(n) for n in first)
        assert Parallel()(delayed(str)(n) for n in second) == [str(-n) for n in range(100)]


def test_a_generator_that_is_given_up_cancels_its_own_tasks_only(on, gate):
    with on(2):
        other = Parallel(return_as="generator")(delayed(abs)(-n) for n in range(1000))
        results = Parallel(return_as="generator")(delayed(spin_unless)(n, -1) for n in range(99))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            results.close()
        assert "cancelled" in str(told[0].message)
        assert list(other) == list(range(1000))
        assert squares(5) == [0, 1, 4, 9, 16]


def test_a_with_block_keeps_its_pool(on, monkeypatch):
    monkeypatch.setattr(engine, "_GRACE", LONG)
    with on(2), Parallel() as parallel:
        pool = pool_of(parallel)
        assert parallel(delayed(abs)(n) for n in range(5)) == list(range(5))
        with pytest.raises(ZeroDivisionError):
            parallel(delayed(operator.truediv)(1, n) for n in range(5))
        assert parallel(delayed(abs)(n) for n in range(5)) == list(range(5))
        assert pool_of(parallel) is pool
    assert parallel(delayed(abs)(n) for n in range(5)) == list(range(5))


def test_what_a_failed_call_had_prepared_is_not_run_by_the_next(on, gate):
    """The first task's callback slices two more off, and has submitted one of them."""

    def work(n):
        if n == 1:
            gate.wait()
            raise ZeroDivisionError
        return n if n == 0 else spin_unless(n, -1)

    def tasks():
        for n in range(4):
            if n == 3:
                gate.open()
            yield delayed(work)(n)

    with on(2), Parallel(pre_dispatch="n_jobs", batch_size=1) as parallel:
        with pytest.raises(ZeroDivisionError):
            parallel(tasks())
        assert parallel(delayed(abs)(-n) for n in range(5)) == list(range(5))


def test_many_threads_at_once(on):
    def work(index):
        with on(2 + index % 2):
            for _ in range(5):
                assert squares(50 + index) == [n * n for n in range(50 + index)]

    helpers.in_threads(4, work)


# ---- failing ----


def test_an_error_shows_where_the_task_failed(on):
    def failing(n):
        return 1 / n

    with on(2):
        with pytest.raises(ZeroDivisionError) as caught:
            Parallel()(delayed(failing)(n) for n in range(3))
        report = "".join(traceback.format_exception(caught.value))
        assert "return 1 / n" in report
        assert "in failing" in report


def test_an_error_stops_what_else_runs(on, monkeypatch):
    monkeypatch.setattr(engine, "_GRACE", LONG)
    with on(2), Parallel(batch_size=1) as parallel:
        pool = pool_of(parallel)
        with pytest.raises(ValueError, match="task 5"):
            parallel(delayed(spin_unless)(n, 5) for n in [0, 5, 2, 3, 4])
        # both workers are free again
        assert parallel(delayed(abs)(n) for n in range(5)) == list(range(5))
        assert pool_of(parallel) is pool


def test_what_cannot_be_stopped_keeps_its_pool_to_itself(on):
    with on(2):
        with Parallel(batch_size=1) as parallel:
            pool = pool_of(parallel)
            with pytest.raises(ZeroDivisionError):
                parallel([delayed(time.sleep)(4), delayed(operator.truediv)(1, 0)])
            assert pool_of(parallel) is not pool
        assert squares(5) == [0, 1, 4, 9, 16]


def test_an_error_of_the_input_is_raised(on):
    def inputs(good):
        yield from (delayed(abs)(n) for n in range(good))
        raise LookupError("no more")

    with on(2):
        for good in (0, 3, 50):
            with pytest.raises(LookupError, match="no more"):
                Parallel()(inputs(good))
        assert squares(3) == [0, 1, 4]


def test_a_timeout(on):
    with on(2):
        with pytest.raises(joblib.parallel.TimeoutError):
            Parallel(timeout=0.1)(delayed(spin_unless)(n, -1) for n in range(3))
        assert Parallel(timeout=LONG)(delayed(abs)(n) for n in range(3)) == [0, 1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RecursionError])
def test_any_exception_of_a_task_is_raised(on, error):
    def failing():
        raise error("on purpose")

    with on(2):
        with pytest.raises(error, match="on purpose"):
            Parallel()(delayed(failing)() for _ in range(3))
        assert squares(3) == [0, 1, 4]


def test_what_cannot_travel_says_so(on, kind):
    lock = threading.Lock()
    with on(2):
        if kind == "thread":  # nothing travels
            assert Parallel()(delayed(id)(lock) for _ in range(3)) == [id(lock)] * 3
        else:
            with pytest.raises(pickle.PicklingError, match="cannot travel"):
                Parallel()(delayed(id)(lock) for _ in range(3))
        assert squares(3) == [0, 1, 4]


# ---- calls inside tasks ----


def test_nested_calls_end_at_any_depth(on):
    with on(2):
        assert Parallel()(delayed(tree)(5) for _ in range(3)) == [32, 32, 32]


def test_nested_calls_run_in_the_same_pool(on, kind):
    def inside():
        backend, _ = joblib.parallel.get_active_backend()
        found = Parallel(n_jobs=3)(delayed(where)() for _ in range(20))
        return (backend.kind, backend.nesting_level, joblib.effective_n_jobs(-1)), found

    with on(2):
        backends, found = zip(*Parallel()(delayed(inside)() for _ in range(4)), strict=True)
    assert set(backends) == {(kind, 1, 2)}
    assert 1 <= len({place for places in found for place in places}) <= 2


def test_nested_calls_by_default_run_one_by_one(on):
    def inside():
        return {thread for _, _, thread in Parallel()(delayed(where)() for _ in range(4))}

    with on(2):
        assert all(len(threads) == 1 for threads in Parallel()(delayed(inside)() for _ in range(4)))


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_a_generator_inside_a_task(on, return_as):
    def inside():
        return sum(Parallel(n_jobs=2, return_as=return_as)(delayed(abs)(n) for n in range(9)))

    with on(2):
        assert Parallel()(delayed(inside)() for _ in range(4)) == [36] * 4


def test_an_error_of_a_nested_call(on):
    def inside(n):
        return Parallel(n_jobs=2)(delayed(operator.truediv)(1, m) for m in range(n, n + 30))

    with on(2):
        with pytest.raises(ZeroDivisionError):
            Parallel()(delayed(inside)(n) for n in (5, -3, 7))
        assert squares(3) == [0, 1, 4]


def test_a_timeout_of_a_nested_call(on):
    def inside():
        try:
            Parallel(n_jobs=2, timeout=0.1)(delayed(spin_unless)(n, -1) for n in range(2))
        except joblib.parallel.TimeoutError:
            return squares(3)

    with on(3):
        assert Parallel()(delayed(inside)() for _ in range(1)) == [[0, 1, 4]]


def test_another_kind_inside_a_task(on):
    def inside():
        with joblib.parallel_config("plait", kind="thread", n_jobs=2):
            return squares(5)

    with on(2):
        assert Parallel()(delayed(inside)() for _ in range(3)) == [[0, 1, 4, 9, 16]] * 3


# ---- pools ----


def test_a_pool_stays_for_the_next_call(on):
    with on(2):
        with Parallel() as first, Parallel() as second:
            pool = pool_of(first)
            assert pool_of(second) is not pool  # n_jobs holds for each of them
        with Parallel() as third, Parallel() as fourth:
            assert pool in (pool_of(third), pool_of(fourth))
        engine.shutdown()
        with Parallel() as fifth:
            assert pool_of(fifth) is not pool
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(abs, 1)


def test_few_unused_pools_are_kept(on):
    pools = []
    for workers in range(2, 9):
        with on(workers), Parallel() as parallel:
            pools.append(pool_of(parallel))
    for pool in pools[:-4]:
        with pytest.raises(RuntimeError, match="shutdown"):
            pool.submit(abs, 1)
    assert [pool.submit(abs, -1).result(LONG) for pool in pools[-4:]] == [1] * 4


def note(path, line):
    with open(path, "a") as file:
        file.write(line + "\n")


def test_an_initializer_runs_in_every_worker_of_its_pool(on, tmp_path):
    path = os.fspath(tmp_path / "notes")
    for _ in range(2):
        with on(2, initializer=note, initargs=(path, "started")):
            assert squares(50) == [n * n for n in range(50)]
    Parallel(n_jobs=2, backend="plait", initializer=note, initargs=(path, "given"))(
        delayed(abs)(n) for n in range(50)
    )
    lines = (tmp_path / "notes").read_text().split()
    assert 1 <= lines.count("started") <= 2  # the second call used the first one's pool
    assert 1 <= lines.count("given") <= 2


def test_an_initializer_that_raises_breaks_no_later_call(on, tmp_path):
    path = os.fspath(tmp_path / "absent" / "notes")
    with on(2, initializer=note, initargs=(path, "started")):
        with pytest.raises(plait.BrokenPool, match="No such file"):
            squares(5)
        (tmp_path / "absent").mkdir()
        assert squares(5) == [0, 1, 4, 9, 16]


# ---- the process ----

PROLOGUE = """
import os, signal, sys, threading, time
from joblib import Parallel, delayed, parallel_config
import plait.engines.joblib
parallel_config("plait", kind=sys.argv[1], n_jobs=2)

def square(n):
    return n * n

def spin(_):
    os.write(1, b"running\\n")  # in one piece
    while True:
        pass
"""


@pytest.mark.parametrize("how", ["-c", "stdin", "file"])
def test_scripts_need_no_guard(kind, how, tmp_path):
    script = PROLOGUE + "print(Parallel()(delayed(square)(n) for n in range(5)))"
    assert helpers.run_quietly(script, kind, how=how, folder=tmp_path) == ["[0, 1, 4, 9, 16]"]


def test_ctrl_c_ends_a_call_and_what_it_runs(kind):
    script = PROLOGUE + (
        "try:\n"
        "    Parallel()(delayed(spin)(n) for n in range(9))\n"
        "except KeyboardInterrupt:\n"
        "    print(Parallel()(delayed(square)(n) for n in range(3)))\n"
    )
    child = helpers.start(script, kind)
    child.wait_for("running")
    child.process.send_signal(signal.SIGINT)
    ended = child.finish()
    assert ended.code == 0, ended.show()
    assert "[0, 1, 4]" in ended.lines(), ended.show()


def test_the_exit_gives_generators_up(kind):
    script = PROLOGUE + (
        'results = Parallel(return_as="generator")(delayed(spin)(n) for n in range(99))\n'
        "print('leaving')"
    )
    ended = helpers.run(script, kind)
    assert "leaving" in ended.out
    assert "engines" not in ended.err, ended.show()
    # CPython 3.13t empties joblib's modules before it closes the generator, which then complains,
    # on joblib's own backends as well.
    if not helpers.FREE_THREADED:
        assert "Exception" not in ended.err, ended.show()


def test_the_child_of_a_fork_makes_pools_of_its_own(kind):
    script = PROLOGUE + (
        "import warnings; warnings.simplefilter('ignore')\n"
        "Parallel()(delayed(square)(n) for n in range(3))\n"
        "if (child := os.fork()) == 0:\n"
        "    print(Parallel()(delayed(square)(n) for n in range(4)), flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(Parallel()(delayed(square)(n) for n in range(5)))"
    )
    assert helpers.run(script, kind).lines() == ["[0, 1, 4, 9]", "[0, 1, 4, 9, 16]"]


def test_nothing_is_left(on):
    def use():
        with on(2):
            squares(10)
            with contextlib.suppress(ZeroDivisionError):
                Parallel()(delayed(operator.truediv)(1, n) for n in range(5))
        engine.shutdown()

    before = helpers.interpreters_of_process()  # other tests' pools may still be ending
    use()
    assert helpers.settles(lambda: helpers.interpreters_of_process() <= before)
    held = helpers.Holdings.now()
    for _ in range(5):
        use()
    # images of extension modules (joblib imports NumPy if it is there) stay mapped by design
    assert helpers.settled(held, 400), (held, helpers.Holdings.now())
