"""Interpreters that serve one pool after another: which are kept, and what is left in them."""

import contextvars
import importlib
import os
import random
import sys
import warnings

import helpers
import jobs
import leftovers
import plait
import pytest
from plait import _plait

pytestmark = pytest.mark.skipif(
    not helpers.KEEPS_INTERPRETERS, reason="interpreters end with their pools here"
)

LONG = helpers.LONG
VARIABLE = "PLAIT_KEEP_INTERPRETERS"


@pytest.fixture(autouse=True)
def room_for_four(monkeypatch):
    monkeypatch.setenv(VARIABLE, "4")
    _plait._end_kept(False)
    yield
    _plait._end_kept(False)


def run(function, *args, **options):
    """In a worker of a pool of its own: which interpreter that was, and what came of it."""
    with plait.Pool(1, kind="interpreter", **options) as pool:
        result = pool.submit(function, *args).result(LONG)
        return pool.submit(leftovers.identity).result(LONG), result


def leave_and_see(change, see):
    """`see` in a fresh interpreter, and in the same one after another pool's task, `change`."""
    first, before = run(see)
    assert run(change)[0] == first
    again, after = run(see)
    assert again == first, "it was not kept"
    return before, after


# ---- which are kept ----


def test_the_next_pool_gets_the_interpreter():
    made = helpers.interpreters_of_process()
    first, _ = run(jobs.double, 1)
    assert _plait._count_kept() == 1
    assert run(jobs.double, 2) == (first, 4)
    with plait.Pool(2, kind="interpreter") as pool:
        assert pool.submit(leftovers.identity).result(LONG) == first
        assert list(pool.map(jobs.double, range(100))) == [2 * n for n in range(100)]
    assert helpers.interpreters_of_process() == made


def test_a_pool_that_goes_by_itself_leaves_it_too():
    pool = plait.Pool(1, kind="interpreter")
    first = pool.submit(leftovers.identity).result(LONG)
    del pool
    assert helpers.settles(lambda: _plait._count_kept() == 1)
    assert run(leftovers.identity)[0] == first


def fill(count):
    """The interpreters of a pool whose workers all have something to do."""
    with plait.Pool(count, kind="interpreter") as pool:
        return {f.result(LONG) for f in [pool.submit(leftovers.busy, 0.2) for _ in range(count)]}


def test_no_more_than_the_limit(monkeypatch):
    assert len(fill(6)) > 4
    assert _plait._count_kept() == 4
    monkeypatch.setenv(VARIABLE, "1")
    run(abs, 1)
    assert _plait._count_kept() == 1


def test_the_oldest_ones_end(monkeypatch):
    numbers = []
    for name in "abcdef":
        monkeypatch.setattr(sys, "argv", [name])
        numbers.append(run(abs, 1)[0])
    assert len(set(numbers)) == 6
    monkeypatch.setattr(sys, "argv", ["c"])
    assert run(abs, 1)[0] == numbers[2]
    monkeypatch.setattr(sys, "argv", ["b"])
    assert run(abs, 1)[0] not in numbers


def test_none(monkeypatch):
    monkeypatch.setenv(VARIABLE, "0")
    first, _ = run(abs, 1)
    assert _plait._count_kept() == 0
    assert run(abs, 1)[0] != first


@pytest.mark.parametrize("text", ["-1", "many", "1.5", "9" * 30, "²"])
def test_a_limit_that_is_none(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ValueError, match=VARIABLE):
        plait.Pool(1, kind="interpreter")
    plait.Pool(1, kind="thread").shutdown()


@pytest.mark.parametrize(
    "options",
    [{"initializer": leftovers.nothing}, {"forward_logging": True}],
    ids=lambda o: next(iter(o)),
)
def test_pools_that_neither_take_nor_leave_one(options):
    first, _ = run(abs, 1)
    assert run(abs, 1, **options)[0] != first
    assert _plait._count_kept() == 1


def change_path(monkeypatch, folder):
    monkeypatch.syspath_prepend(os.fspath(folder))


def change_filters(monkeypatch, _):
    monkeypatch.setattr(warnings, "filters", [("error", None, UserWarning, None, 0)])


def change_limit(monkeypatch, _):
    monkeypatch.setattr(sys, "getrecursionlimit", lambda: 1234)


def change_isolation(monkeypatch, _):
    monkeypatch.setenv("PLAIT_ISOLATION", "off")


@pytest.mark.parametrize("change", [change_path, change_filters, change_limit, change_isolation])
def test_another_setup_is_for_another_interpreter(monkeypatch, tmp_path, change):
    first, _ = run(abs, 1)
    with monkeypatch.context() as patch:
        change(patch, tmp_path)
        second, _ = run(abs, 1)
        assert second != first
        assert run(abs, 1)[0] == second
    assert run(abs, 1)[0] == first


def test_isolation_is_part_of_the_setup():
    first, _ = run(abs, 1)
    assert run(abs, 1, isolation="off")[0] != first
    assert run(abs, 1)[0] == first


def test_not_of_a_broken_pool():
    pool = plait.Pool(1, kind="interpreter", initializer=leftovers.fail)
    with pool, pytest.raises(plait.BrokenPool):
        pool.submit(abs, 1).result(LONG)
    assert _plait._count_kept() == 0


def test_not_where_a_call_was_interrupted(tmp_path):
    with plait.Pool(1, kind="interpreter") as pool:
        future = pool.submit(leftovers.spin, os.fspath(tmp_path / "begun"))
        assert helpers.settles((tmp_path / "begun").exists)
        future.interrupt()
        with pytest.raises(plait.Interrupted):
            future.result(LONG)
        assert pool.submit(abs, -1).result(LONG) == 1
    assert _plait._count_kept() == 0


def test_not_of_an_interrupted_pool(tmp_path):
    pool = plait.Pool(1, kind="interpreter")
    pool.submit(leftovers.spin, os.fspath(tmp_path / "begun"))
    assert helpers.settles((tmp_path / "begun").exists)
    with pytest.raises(KeyboardInterrupt), pool:
        raise KeyboardInterrupt
    assert _plait._count_kept() == 0


def test_what_raises_is_no_reason():
    with plait.Pool(1, kind="interpreter") as pool, pytest.raises(ValueError, match="initializer"):
        pool.submit(leftovers.fail).result(LONG)
    assert _plait._count_kept() == 1


# ---- what was set up for good ----


@pytest.mark.parametrize(
    "task",
    [
        leftovers.start_thread,
        leftovers.log_to_stderr,
        leftovers.capture_warnings,
        leftovers.watch_calls,
        leftovers.trace_threads,
        leftovers.close_stdout,
        leftovers.open_pool,
        leftovers.keep_pool,
    ],
    ids=lambda task: task.__name__,
)
def test_not_with_what_cannot_be_undone(task):
    first, _ = run(task)
    assert _plait._count_kept() == 0
    assert run(abs, 1)[0] != first


def test_what_is_to_be_called_at_the_end_is_called_at_the_end_of_the_pool(tmp_path):
    run(leftovers.call_at_exit, os.fspath(tmp_path / "called"))
    assert (tmp_path / "called").exists()
    assert _plait._count_kept() == 0


def test_what_the_library_wants_called_at_the_end_can_wait():
    first, _ = run(leftovers.import_logging)
    assert run(abs, 1)[0] == first


def test_a_pool_that_a_task_had_and_closed_is_no_reason():
    first, result = run(leftovers.use_pool)
    assert result == [1, 2]
    assert run(leftovers.use_pool) == (first, [1, 2])


# ---- what is left ----


def test_main_is_empty():
    before, after = leave_and_see(leftovers.dirty_main, leftovers.names_of_main)
    assert before == after
    assert "leftover" not in after[0]
    assert after[1] == "__main__"


def test_builtins_are_as_they_were():
    before, after = leave_and_see(leftovers.patch_builtins, leftovers.use_builtins)
    assert before == after == (1, False, 2, True, "1")


def test_nothing_of_the_thread_is_left():
    before, after = leave_and_see(leftovers.change_thread, leftovers.describe_thread)
    assert before == after
    assert before[:2] == (28, None)


def test_warnings_filters_are_as_they_were():
    before, after = leave_and_see(leftovers.change_warnings, leftovers.what_warns)
    assert before == after
    assert after[0] == "passed"


def test_the_interpreter_is_as_it_was():
    before, after = leave_and_see(leftovers.change_interpreter, leftovers.describe_interpreter)
    assert before == after


def test_the_environment_is_that_of_now(monkeypatch):
    monkeypatch.setenv("PLAIT_TEST_WORD", "before")
    first, word = run(lambda: os.environ.get("PLAIT_TEST_WORD"))
    monkeypatch.setenv("PLAIT_TEST_WORD", "after")
    assert run(lambda: os.environ.get("PLAIT_TEST_WORD")) == (first, "after")
    monkeypatch.delenv("PLAIT_TEST_WORD")
    assert run(lambda: os.environ.get("PLAIT_TEST_WORD")) == (first, None)
    assert word == "before"


def make_function(value):
    def function():
        global count
        count = count + 1 if "count" in globals() else 1
        return value, count

    function.__module__ = "__main__"  # so that it travels by value
    return function


def test_a_function_that_has_changed_is_the_new_one():
    first, result = run(make_function("old"))
    assert run(make_function("new")) == (first, ("new", 1))
    assert run(make_function("old")) == (first, ("old", 1))
    assert result == ("old", 1)


VARIABLE_OF_CONTEXT = contextvars.ContextVar("of_context", default="default")


def test_context_variables_are_those_of_the_new_pool():
    def see():
        before = VARIABLE_OF_CONTEXT.get()
        VARIABLE_OF_CONTEXT.set("task's")
        return before

    def outside():
        VARIABLE_OF_CONTEXT.set("submitter's")
        return run(see)

    first, seen = contextvars.Context().run(outside)
    assert seen == "submitter's"
    assert run(see) == (first, "default")


def test_modules_of_the_program_are_imported_anew(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    path = tmp_path / "plait_test_module.py"
    path.write_text("word, seen = 'old', 0\n")
    first, result = run(leftovers.read_module)
    assert result == ("old", 1)
    assert run(leftovers.read_module) == (first, ("old", 1))
    path.write_text("word, seen = 'newer', 0\n")
    importlib.invalidate_caches()
    assert run(leftovers.read_module) == (first, ("newer", 1))


def test_a_module_of_the_program_named_like_one_of_the_library(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    path = tmp_path / "cmd.py"
    path.write_text("word = 'old'\n")
    first, word = run(lambda: importlib.import_module("cmd").word)
    path.write_text("word = 'newer'\n")
    assert run(lambda: importlib.import_module("cmd").word) == (first, "newer")
    assert word == "old"


def test_packages_go_with_all_their_parts(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    for name in ("plain/__init__.py", "plain/part.py", "space/part.py", "plain/space/part.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("word = 'old'\n")
    names = ["plain", "plain.part", "space", "space.part", "plain.space", "plain.space.part"]

    def imported():
        return [name for name in names if name in sys.modules]

    first, _ = run(lambda: [importlib.import_module(name) for name in names] and None)
    assert run(imported) == (first, [])
    assert run(lambda: importlib.import_module("plain.space.part").word) == (first, "old")


def test_a_module_that_was_not_there(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    first, _ = run(abs, 1)
    with pytest.raises(ModuleNotFoundError):
        run(leftovers.read_module)
    (tmp_path / "plait_test_module.py").write_text("word, seen = 'new', 0\n")
    assert run(leftovers.read_module) == (first, ("new", 1))


def test_extension_modules_of_the_program_end_with_their_pool(monkeypatch, tmp_path):
    helpers.compile_module(tmp_path, "plait_test_extension", "MULTI_PHASE")
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    run(lambda: importlib.import_module("plait_test_extension").__name__)
    assert _plait._count_kept() == 0


def test_random_numbers_are_others():
    drawn = [run(lambda: random.getrandbits(64)) for _ in range(3)]
    assert len({number for number, _ in drawn}) == 1
    assert len({bits for _, bits in drawn}) == 3
    first, of_seed = run(leftovers.seed)
    assert run(leftovers.seed) == (first, of_seed)
    after = [(run(leftovers.seed), run(lambda: random.getrandbits(64))[1])[1] for _ in range(2)]
    assert after[0] != after[1]


def test_garbage_goes_with_its_pool(tmp_path, capfd):
    first, _ = run(leftovers.leave_garbage, os.fspath(tmp_path / "gone"))
    assert (tmp_path / "gone").exists()
    assert "the last word" in capfd.readouterr().out
    assert run(abs, 1)[0] == first


def test_what_another_thread_printed_comes_out_under_its_pool(capsys):
    first, _ = run(leftovers.print_in_thread, "one")
    assert capsys.readouterr().out == "one"
    assert run(leftovers.print_in_thread, "two")[0] == first
    assert capsys.readouterr().out == "two"


def test_what_is_printed_comes_out_under_each_pool(capsys):
    def say(text):
        print(text)
        print("unfinished", end="")

    first, _ = run(say, "one")
    assert run(say, "two")[0] == first
    assert capsys.readouterr().out == "one\nunfinishedtwo\nunfinished"


# ---- NumPy ----


def test_numpy_is_there_already():
    pytest.importorskip("numpy")
    first, (module, total) = run(leftovers.singular_values, 40)
    assert run(lambda: id(sys.modules.get("numpy"))) == (first, module)
    assert run(leftovers.singular_values, 40) == (first, (module, total))
    numbers = []
    for _ in range(2):
        run(leftovers.draw)
        numbers.append(run(leftovers.draw_again)[1])
    assert numbers[0] != numbers[1]


# ---- many, forks, exits ----


def test_many_pools_of_two_threads():
    def open_some(index):
        for number in range(100):
            with plait.Pool(1, kind="interpreter") as pool:
                assert pool.submit(jobs.double, number).result(LONG) == 2 * number
                assert list(pool.map(lambda n: n + index, range(10))) == [*range(index, index + 10)]

    helpers.in_threads(2, open_some)
    settled, made = helpers.Holdings.now(), helpers.newest_interpreter()
    before = helpers.memory_of_process()
    helpers.in_threads(2, open_some)
    assert helpers.newest_interpreter() - made <= 3
    assert helpers.settled(settled, 20)
    assert helpers.memory_of_process() - before < 4 << 20


SETUP = """
import os, sys, plait
from plait import _plait
def run(kind="interpreter"):
    with plait.Pool(2, kind=kind) as pool:
        return sum(pool.map(abs, range(-100, 0)))
assert run() == 5050
assert _plait._count_kept() > 0
"""


def test_exit_with_some_kept():
    assert helpers.run_quietly(SETUP + "print('end')") == ["end"]


def test_exit_with_some_kept_and_some_at_work():
    script = SETUP + "pool = plait.Pool(2, kind='interpreter')\n"
    script += "fs = [pool.submit(pow, 2, n) for n in range(100)]; print(fs[3].result())"
    assert helpers.run_quietly(script) == ["8"]


def test_exit_with_numpy_in_those_that_are_kept():
    pytest.importorskip("numpy")
    script = SETUP + "def use():\n    import numpy\n    return int(numpy.arange(5).sum())\n"
    script += "with plait.Pool(2, kind='interpreter') as p:\n    print(p.submit(use).result())\n"
    assert helpers.run_quietly(script) == ["10"]


def test_exit_while_memory_is_traced():
    script = SETUP + "import tracemalloc; tracemalloc.start(); print(tracemalloc.is_tracing())"
    assert helpers.run_quietly(script) == ["True"]


def test_exit_by_an_exception():
    ended = helpers.run(SETUP + "raise SystemExit(3)", code=3)
    assert ended.err == ""


def test_a_fork_forgets_them():
    script = (
        SETUP
        + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    assert _plait._count_kept() == 0
    assert run() == 5050 and _plait._count_kept() > 0
    assert run() == 5050
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert run() == 5050
print("end")
"""
    )
    assert helpers.run_quietly(script) == ["end"]


def test_only_pools_of_the_main_interpreter():
    def nested():
        with plait.Pool(1, kind="interpreter") as inner:
            inner.submit(abs, 1).result()
        return _plait._count_kept()

    assert run(nested)[1] == 0
