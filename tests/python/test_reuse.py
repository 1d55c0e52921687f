"""Workers that serve one pool after another: which are kept, and what is left in them.

Of interpreters and of processes; test_reuse_process.py has what processes alone can do.
"""

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

LONG = helpers.LONG
VARIABLES = {"interpreter": "PLAIT_KEEP_INTERPRETERS", "process": "PLAIT_KEEP_PROCESSES"}


class Own:
    """Workers of one kind, in pools of their own."""

    def __init__(self, kind):
        self.kind = kind
        self.variable = VARIABLES[kind]

    def kept(self):
        return _plait._count_kept(self.kind)

    def pool(self, workers=1, **options):
        return plait.Pool(workers, kind=self.kind, **options)

    def run(self, function, *args, **options):
        """In a pool of its own: which worker that was, and what came of it."""
        with self.pool(**options) as pool:
            result = pool.submit(function, *args).result(LONG)
            return pool.submit(leftovers.identity).result(LONG), result

    def leave_and_see(self, change, see):
        """`see` in a fresh worker, and in the same one after another pool's task, `change`."""
        first, before = self.run(see)
        assert self.run(change)[0] == first
        again, after = self.run(see)
        assert again == first, "it was not kept"
        return before, after


@pytest.fixture(params=["interpreter", "process"])
def own(request, monkeypatch):
    if request.param == "interpreter" and not helpers.KEEPS_INTERPRETERS:
        pytest.skip("interpreters end with their pools here")
    made = Own(request.param)
    monkeypatch.setenv(made.variable, "4")
    _plait._end_kept(False)
    yield made
    _plait._end_kept(False)


@pytest.fixture
def interpreters(own):
    if own.kind != "interpreter":
        pytest.skip("of interpreters")
    return own


# ---- which are kept ----


def test_the_next_pool_gets_the_worker(own):
    first, _ = own.run(jobs.double, 1)
    assert own.kept() == 1
    assert own.run(jobs.double, 2) == (first, 4)
    with own.pool(2) as pool:
        assert pool.submit(leftovers.identity).result(LONG) == first
        assert list(pool.map(jobs.double, range(100))) == [2 * n for n in range(100)]


def test_a_pool_that_goes_by_itself_leaves_it_too(own):
    pool = own.pool()
    first = pool.submit(leftovers.identity).result(LONG)
    del pool
    assert helpers.settles(lambda: own.kept() == 1)
    assert own.run(leftovers.identity)[0] == first


def test_no_more_than_the_limit(own, monkeypatch, tmp_path):
    with own.pool(6) as pool:
        met = [pool.submit(leftovers.meet, os.fspath(tmp_path), 6, number) for number in range(6)]
        assert len({future.result(LONG) for future in met}) == 6
    assert own.kept() == 4
    monkeypatch.setenv(own.variable, "1")
    own.run(abs, 1)
    assert own.kept() == 1


def test_the_oldest_ones_end(own, monkeypatch):
    numbers = []
    for name in "abcdef":
        monkeypatch.setattr(sys, "argv", [name])
        numbers.append(own.run(abs, 1)[0])
    assert len(set(numbers)) == 6
    monkeypatch.setattr(sys, "argv", ["c"])
    assert own.run(abs, 1)[0] == numbers[2]
    monkeypatch.setattr(sys, "argv", ["b"])
    assert own.run(abs, 1)[0] not in numbers


def test_none(own, monkeypatch):
    monkeypatch.setenv(own.variable, "0")
    first, _ = own.run(abs, 1)
    assert own.kept() == 0
    assert own.run(abs, 1)[0] != first


@pytest.mark.parametrize("text", ["-1", "many", "1.5", "9" * 30, "²"])
def test_a_limit_that_is_none(own, monkeypatch, text):
    monkeypatch.setenv(own.variable, text)
    with pytest.raises(ValueError, match=own.variable):
        own.pool()
    plait.Pool(1, kind="thread").shutdown()


@pytest.mark.parametrize(
    "options",
    [{"initializer": leftovers.nothing}, {"forward_logging": True}],
    ids=lambda o: next(iter(o)),
)
def test_pools_that_neither_take_nor_leave_one(own, options):
    first, _ = own.run(abs, 1)
    assert own.run(abs, 1, **options)[0] != first
    assert own.kept() == 1


def change_path(monkeypatch, folder):
    monkeypatch.syspath_prepend(os.fspath(folder))


def change_filters(monkeypatch, _):
    monkeypatch.setattr(warnings, "filters", [("error", None, UserWarning, None, 0)])


def change_limit(monkeypatch, _):
    monkeypatch.setattr(sys, "getrecursionlimit", lambda: 1234)


def change_isolation(monkeypatch, _):
    monkeypatch.setenv("PLAIT_ISOLATION", "off")


@pytest.mark.parametrize("change", [change_path, change_filters, change_limit, change_isolation])
def test_another_setup_is_for_another_worker(own, monkeypatch, tmp_path, change):
    first, _ = own.run(abs, 1)
    with monkeypatch.context() as patch:
        change(patch, tmp_path)
        second, _ = own.run(abs, 1)
        assert second != first
        assert own.run(abs, 1)[0] == second
    assert own.run(abs, 1)[0] == first


def test_isolation_is_part_of_the_setup(interpreters):
    own = interpreters
    first, _ = own.run(abs, 1)
    assert own.run(abs, 1, isolation="off")[0] != first
    assert own.run(abs, 1)[0] == first


def test_not_of_a_broken_pool(own):
    pool = own.pool(initializer=leftovers.fail)
    with pool, pytest.raises(plait.BrokenPool):
        pool.submit(abs, 1).result(LONG)
    assert own.kept() == 0


def test_not_where_a_call_was_interrupted(own, tmp_path):
    with own.pool() as pool:
        future = pool.submit(leftovers.spin, os.fspath(tmp_path / "begun"))
        assert helpers.settles((tmp_path / "begun").exists)
        future.interrupt()
        with pytest.raises(plait.Interrupted):
            future.result(LONG)
        assert pool.submit(abs, -1).result(LONG) == 1
    assert own.kept() == 0


def test_not_of_an_interrupted_pool(own, tmp_path):
    pool = own.pool()
    pool.submit(leftovers.spin, os.fspath(tmp_path / "begun"))
    assert helpers.settles((tmp_path / "begun").exists)
    with pytest.raises(KeyboardInterrupt), pool:
        raise KeyboardInterrupt
    assert own.kept() == 0


def test_what_raises_is_no_reason(own):
    with own.pool() as pool, pytest.raises(ValueError, match="initializer"):
        pool.submit(leftovers.fail).result(LONG)
    assert own.kept() == 1


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
def test_not_with_what_cannot_be_undone(own, task):
    first, _ = own.run(task)
    assert own.kept() == 0
    assert own.run(abs, 1)[0] != first


def test_what_is_to_be_called_at_the_end_is_called_at_the_end_of_the_pool(own, tmp_path):
    own.run(leftovers.call_at_exit, os.fspath(tmp_path / "called"))
    assert (tmp_path / "called").exists()
    assert own.kept() == 0


def test_what_the_library_wants_called_at_the_end_can_wait(own):
    first, _ = own.run(leftovers.import_logging)
    assert own.run(abs, 1)[0] == first


def test_a_pool_that_a_task_had_and_closed_is_no_reason(own):
    first, result = own.run(leftovers.use_pool)
    assert result == [1, 2]
    assert own.run(leftovers.use_pool) == (first, [1, 2])


# ---- what is left ----


def test_main_is_empty(own):
    before, after = own.leave_and_see(leftovers.dirty_main, leftovers.names_of_main)
    assert before == after
    assert "leftover" not in after[0]
    assert after[1] == "__main__"


def test_builtins_are_as_they_were(own):
    before, after = own.leave_and_see(leftovers.patch_builtins, leftovers.use_builtins)
    assert before == after == (1, False, 2, True, "1")


def test_nothing_of_the_thread_is_left(own):
    before, after = own.leave_and_see(leftovers.change_thread, leftovers.describe_thread)
    assert before == after
    assert before[:2] == (28, None)


def test_warnings_filters_are_as_they_were(own):
    before, after = own.leave_and_see(leftovers.change_warnings, leftovers.what_warns)
    assert before == after
    assert after[0] == "passed"


def test_the_worker_is_as_it_was(own):
    before, after = own.leave_and_see(leftovers.change_interpreter, leftovers.describe_interpreter)
    assert before == after


def test_the_environment_is_that_of_now(own, monkeypatch):
    def word():
        return os.environ.get("PLAIT_TEST_WORD")

    monkeypatch.setenv("PLAIT_TEST_WORD", "before")
    first, before = own.run(word)
    monkeypatch.setenv("PLAIT_TEST_WORD", "after")
    second, after = own.run(word)
    monkeypatch.delenv("PLAIT_TEST_WORD")
    third, none = own.run(word)
    assert (before, after, none) == ("before", "after", None)
    if own.kind == "interpreter":
        assert first == second == third
    else:  # where it belongs to the process
        assert len({first, second, third}) == 3
        monkeypatch.setenv("PLAIT_TEST_WORD", "before")
        assert own.run(word) == (first, "before")


def make_function(value):
    def function():
        global count
        count = count + 1 if "count" in globals() else 1
        return value, count

    function.__module__ = "__main__"  # so that it travels by value
    return function


def test_a_function_that_has_changed_is_the_new_one(own):
    first, result = own.run(make_function("old"))
    assert own.run(make_function("new")) == (first, ("new", 1))
    assert own.run(make_function("old")) == (first, ("old", 1))
    assert result == ("old", 1)


VARIABLE_OF_CONTEXT = contextvars.ContextVar("of_context", default="default")


def test_context_variables_are_those_of_the_new_pool(own):
    def see():
        before = VARIABLE_OF_CONTEXT.get()
        VARIABLE_OF_CONTEXT.set("task's")
        return before

    def outside():
        VARIABLE_OF_CONTEXT.set("submitter's")
        return own.run(see)

    first, seen = contextvars.Context().run(outside)
    assert seen == "submitter's"
    assert own.run(see) == (first, "default")


def test_modules_of_the_program_are_imported_anew(own, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    path = tmp_path / "plait_test_module.py"
    path.write_text("word, seen = 'old', 0\n")
    first, result = own.run(leftovers.read_module)
    assert result == ("old", 1)
    assert own.run(leftovers.read_module) == (first, ("old", 1))
    path.write_text("word, seen = 'newer', 0\n")
    importlib.invalidate_caches()
    assert own.run(leftovers.read_module) == (first, ("newer", 1))


def test_a_module_of_the_program_named_like_one_of_the_library(own, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    path = tmp_path / "cmd.py"
    path.write_text("word = 'old'\n")
    first, word = own.run(lambda: importlib.import_module("cmd").word)
    path.write_text("word = 'newer'\n")
    assert own.run(lambda: importlib.import_module("cmd").word) == (first, "newer")
    assert word == "old"


def test_packages_go_with_all_their_parts(own, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    for name in ("plain/__init__.py", "plain/part.py", "space/part.py", "plain/space/part.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("word = 'old'\n")
    names = ["plain", "plain.part", "space", "space.part", "plain.space", "plain.space.part"]

    def imported():
        return [name for name in names if name in sys.modules]

    first, _ = own.run(lambda: [importlib.import_module(name) for name in names] and None)
    assert own.run(imported) == (first, [])
    assert own.run(lambda: importlib.import_module("plain.space.part").word) == (first, "old")


def test_a_module_that_was_not_there(own, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    first, _ = own.run(abs, 1)
    with pytest.raises(ModuleNotFoundError):
        own.run(leftovers.read_module)
    (tmp_path / "plait_test_module.py").write_text("word, seen = 'new', 0\n")
    assert own.run(leftovers.read_module) == (first, ("new", 1))


def test_extension_modules_of_the_program_end_with_their_pool(own, monkeypatch, tmp_path):
    helpers.compile_module(tmp_path, "plait_test_extension", "MULTI_PHASE")
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    own.run(lambda: importlib.import_module("plait_test_extension").__name__)
    assert own.kept() == 0


def test_random_numbers_are_others(own):
    drawn = [own.run(lambda: random.getrandbits(64)) for _ in range(3)]
    assert len({number for number, _ in drawn}) == 1
    assert len({bits for _, bits in drawn}) == 3
    first, of_seed = own.run(leftovers.seed)
    assert own.run(leftovers.seed) == (first, of_seed)
    after = [
        (own.run(leftovers.seed), own.run(lambda: random.getrandbits(64))[1])[1] for _ in range(2)
    ]
    assert after[0] != after[1]


def test_garbage_goes_with_its_pool(own, tmp_path, capfd):
    first, _ = own.run(leftovers.leave_garbage, os.fspath(tmp_path / "gone"))
    assert (tmp_path / "gone").exists()
    assert "the last word" in capfd.readouterr().out
    assert own.run(abs, 1)[0] == first


def test_what_another_thread_printed_comes_out_under_its_pool(own, capsys):
    first, _ = own.run(leftovers.print_in_thread, "one")
    assert capsys.readouterr().out == "one"
    assert own.run(leftovers.print_in_thread, "two")[0] == first
    assert capsys.readouterr().out == "two"


def test_what_is_printed_comes_out_under_each_pool(own, capsys):
    def say(text):
        print(text)
        print("unfinished", end="")

    first, _ = own.run(say, "one")
    assert own.run(say, "two")[0] == first
    assert capsys.readouterr().out == "one\nunfinishedtwo\nunfinished"


# ---- NumPy ----


def test_numpy_is_there_already(own):
    pytest.importorskip("numpy")
    first, (module, total) = own.run(leftovers.singular_values, 40)
    assert own.run(lambda: id(sys.modules.get("numpy"))) == (first, module)
    assert own.run(leftovers.singular_values, 40) == (first, (module, total))
    numbers = []
    for _ in range(2):
        own.run(leftovers.draw)
        numbers.append(own.run(leftovers.draw_again)[1])
    assert numbers[0] != numbers[1]


# ---- many, forks, exits ----


def test_many_pools_of_two_threads(interpreters):
    own = interpreters

    def open_some(index):
        for number in range(100):
            with own.pool() as pool:
                assert pool.submit(jobs.double, number).result(LONG) == 2 * number
                assert list(pool.map(lambda n: n + index, range(10))) == [*range(index, index + 10)]

    helpers.in_threads(2, open_some)
    settled, made = helpers.Holdings.now(), helpers.newest_interpreter()
    before = helpers.memory_of_process()
    helpers.in_threads(2, open_some)
    assert helpers.newest_interpreter() - made <= 3
    assert helpers.memory_of_process() - before < 4 << 20
    assert helpers.settled(settled, 20)


SETUP = """
import os, sys, plait
from plait import _plait
def run(kind=sys.argv[1]):
    with plait.Pool(2, kind=kind) as pool:
        return sum(pool.map(abs, range(-100, 0)))
assert run() == 5050
assert _plait._count_kept(sys.argv[1]) > 0
"""


def test_exit_with_some_kept(own):
    assert helpers.run_quietly(SETUP + "print('end')", own.kind) == ["end"]


def test_exit_with_some_kept_and_some_at_work(own):
    script = SETUP + "pool = plait.Pool(2, kind=sys.argv[1])\n"
    script += "fs = [pool.submit(pow, 2, n) for n in range(100)]; print(fs[3].result())"
    assert helpers.run_quietly(script, own.kind) == ["8"]


def test_exit_with_numpy_in_those_that_are_kept(own):
    pytest.importorskip("numpy")
    script = SETUP + "def use():\n    import numpy\n    return int(numpy.arange(5).sum())\n"
    script += "with plait.Pool(2, kind=sys.argv[1]) as p:\n    print(p.submit(use).result())\n"
    assert helpers.run_quietly(script, own.kind) == ["10"]


def test_exit_while_memory_is_traced(own):
    script = SETUP + "import tracemalloc; tracemalloc.start(); print(tracemalloc.is_tracing())"
    assert helpers.run_quietly(script, own.kind) == ["True"]


def test_exit_by_an_exception(own):
    ended = helpers.run(SETUP + "raise SystemExit(3)", own.kind, code=3)
    assert ended.err == ""


def test_a_fork_forgets_them(own):
    script = (
        SETUP
        + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    assert _plait._count_kept(sys.argv[1]) == 0
    assert run() == 5050 and _plait._count_kept(sys.argv[1]) > 0
    assert run() == 5050
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert run() == 5050
print("end")
"""
    )
    assert helpers.run_quietly(script, own.kind) == ["end"]


def test_only_pools_of_the_main_interpreter(interpreters):
    def nested():
        with plait.Pool(1, kind="interpreter") as inner:
            inner.submit(abs, 1).result()
        return _plait._count_kept("interpreter")

    assert interpreters.run(nested)[1] == 0
