"""Modules that workers import before their first task; processes that are copies of a template."""

import contextlib
import functools
import os
import signal
import sys

import helpers
import jobs
import plait
import preloaded
import pytest
from helpers import LONG
from plait import _plait

NAME = "preloaded"


def has_imported(name):
    return name in sys.modules


# ---- on every kind ----


def test_workers_have_imported_it(kind):
    with plait.Pool(2, kind=kind, preload=["colorsys", "json.tool"]) as pool:
        for name in ("colorsys", "json.tool"):
            assert pool.submit(has_imported, name).result(LONG)


def test_it_comes_before_the_initializer(kind):
    initializer = functools.partial(jobs.reciprocal, 0)
    with plait.Pool(1, kind=kind, preload=["nothing_like_it"], initializer=initializer) as pool:
        error = pool.submit(abs, -1).exception(LONG)
    assert type(error) is plait.BrokenPool
    assert type(error.__cause__) is ModuleNotFoundError
    with plait.Pool(1, kind=kind, preload=["colorsys"], initializer=initializer) as pool:
        assert type(pool.submit(abs, -1).exception(LONG).__cause__) is ZeroDivisionError


@pytest.mark.parametrize(
    ("source", "cause"), [("1 / 0", ZeroDivisionError), ("import sys; sys.exit(3)", SystemExit)]
)
def test_a_module_that_raises(kind, tmp_path, monkeypatch, source, cause):
    name = f"raises_{cause.__name__}_{kind}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with plait.Pool(2, kind=kind, preload=[name]) as pool:
        error = pool.submit(abs, -1).exception(LONG)
    assert type(error) is plait.BrokenPool
    assert type(error.__cause__) is cause


@pytest.mark.parametrize("modules", ["json", [1], [None], b"json"])
def test_what_is_no_names(kind, modules):
    with pytest.raises(TypeError, match=r"preload is .*names of modules"):
        plait.Pool(1, kind=kind, preload=modules)


@pytest.mark.parametrize("name", ["", ".json", "json.", "a-b", "a b", "json; import os"])
def test_what_is_no_name_of_a_module(kind, name):
    with pytest.raises(ValueError, match="preload is full names of modules"):
        plait.Pool(1, kind=kind, preload=["json", name])


def test_any_iterable_will_do(kind):
    with plait.Pool(1, kind=kind, preload=iter(("colorsys",))) as pool:
        assert pool.submit(has_imported, "colorsys").result(LONG)


def test_a_later_pool_has_it_again(kind):
    """Also where its workers have served another pool that had it."""
    for _ in range(3):
        with plait.Pool(1, kind=kind, preload=[NAME]) as pool:
            assert pool.submit(has_imported, NAME).result(LONG)


def test_auto_looks_at_it():
    with plait.Pool(1, preload=["torch"]) as pool:
        kind, reason = pool.kind, pool.reason
        if kind == "process" and not helpers.FREE_THREADED and not helpers.INTERPRETERS_CRASH:
            assert "its preload needs torch" in reason
        assert type(pool.submit(abs, -1).exception(LONG)) in (type(None), plait.BrokenPool)
    if plait.Pool(1).kind == "interpreter":
        assert kind == "process"


# ---- copies ----


@pytest.fixture
def copies():
    """Makes pools of copies, which must still serve in the end."""
    made = []
    _plait._end_kept(False)

    def make(workers=2, modules=(NAME,), **options):
        made.append(plait.Pool(workers, kind="process", preload=modules, **options))
        return made[-1]

    yield make
    for pool in made:
        assert pool.submit(pow, 2, 10).result(LONG) == 1024
        pool.shutdown()
    _plait._end_kept(False)


def template_of(pool):
    by, parent, own = pool.submit(preloaded.importer).result(LONG)
    assert by == parent != own
    return parent


def have_both_started(pool, folder):
    list(pool.map(functools.partial(jobs.meet, os.fspath(folder), 2), range(2), chunksize=1))


def test_one_process_has_imported_it_for_all(copies, tmp_path):
    pool = copies(2)
    have_both_started(pool, tmp_path)
    told = set(pool.map(preloaded.importer, range(500), chunksize=5))
    assert len({by for by, _, _ in told}) == 1
    assert {by for by, _, _ in told} == {parent for _, parent, _ in told}
    assert helpers.children_of(os.getpid()).count(told.pop()[0]) == 1


def test_without_modules_it_is_a_template_all_the_same(copies):
    pool = copies(1, [])
    assert pool.submit(os.getppid).result(LONG) in helpers.children_of(os.getpid())


def test_pools_share_a_template(copies):
    with plait.Pool(1, kind="process", preload=[NAME]) as first:
        template = template_of(first)
        assert template_of(copies(1)) == template
    assert template_of(copies(1)) == template
    others = template_of(copies(1, [NAME, "colorsys"])), template_of(copies(1, env={"A": "1"}))
    assert template not in others


def test_what_is_kept_has_its_template(monkeypatch):
    monkeypatch.setenv("PLAIT_KEEP_PROCESSES", "1")
    _plait._end_kept(False)
    seen = []
    for _ in range(3):
        with plait.Pool(1, kind="process", preload=[NAME]) as pool:
            seen.append(pool.submit(os.getpid).result(LONG))
    assert len(set(seen)) == 1
    monkeypatch.setenv("PLAIT_KEEP_PROCESSES", "0")
    with plait.Pool(1, kind="process", preload=[NAME]) as pool:
        assert pool.submit(os.getpid).result(LONG) not in seen
    _plait._end_kept(False)
    assert helpers.settles(lambda: not os.path.exists(f"/proc/{seen[0]}"))


def test_copies_differ_where_they_must(copies, tmp_path):
    pool = copies(2)
    have_both_started(pool, tmp_path)
    numbers = [*pool.map(preloaded.next_global_number, range(200), chunksize=1)]
    assert len(set(numbers)) == 200


def numpy_number(_=None):
    import numpy

    return os.getpid(), numpy.random.random()


def test_copies_have_random_numbers_of_their_own(copies, tmp_path):
    pytest.importorskip("numpy")
    pool = copies(2, ["numpy"])
    have_both_started(pool, tmp_path)
    told = [*pool.map(numpy_number, range(200), chunksize=1)]
    assert len({pid for pid, _ in told}) == 2
    assert len({number for _, number in told}) == 200


def test_what_a_module_prints_comes_once(tmp_path):
    (tmp_path / "prints.py").write_text("print('imported', end='')")
    script = """
import plait, sys
sys.path.insert(0, sys.argv[1])
with plait.Pool(2, kind="process", preload=["prints"]) as pool:
    assert sum(pool.map(abs, range(-1000, 0))) == 500500
    pids = {pool.submit(lambda: __import__("os").getpid()).result() for _ in range(50)}
"""
    done = helpers.run(script, os.fspath(tmp_path))
    assert done.out == "imported"
    assert done.err == ""


def test_arguments_and_everything_else(copies):
    """What a copy does is what any other child does."""
    pool = copies(2, (NAME, "decimal"))
    big = bytes(4 << 20)
    assert pool.submit(len, big).result(LONG) == len(big)
    assert pool.submit(bytes, 4 << 20).result(LONG) == big
    local = 7
    assert pool.submit(lambda x: x + local, 1).result(LONG) == 8
    assert list(pool.map(jobs.double, range(1000))) == [2 * x for x in range(1000)]
    assert pool.submit(os.getcwd).result(LONG) == os.getcwd()
    assert pool.submit(nest, pool, 4).result(LONG) == 4
    assert int(pool.submit(jobs.shell, "echo $PPID").result(LONG)) > 0
    with pytest.raises(ZeroDivisionError):
        pool.submit(jobs.reciprocal, 0).result(LONG)


def nest(pool, depth):
    return 0 if depth == 0 else 1 + pool.submit(nest, pool, depth - 1).result(LONG)


def test_options_of_processes(copies):
    pool = copies(1, max_tasks_per_worker=2, niceness=1, env={"PLAIT_TEST_HERE": "yes"})
    assert pool.submit(os.getenv, "PLAIT_TEST_HERE").result(LONG) == "yes"
    assert pool.submit(os.nice, 0).result(LONG) == os.nice(0) + 1
    template = template_of(pool)
    assert len({pool.submit(os.getpid).result(LONG) for _ in range(8)}) == 5
    assert template_of(pool) == template
    limited = copies(1, memory_limit="300MB")
    template = template_of(limited)
    with pytest.raises(MemoryError):
        limited.submit(bytearray, 1 << 30).result(LONG)
    assert template_of(limited) == template


def test_interrupts_and_deadlines(copies):
    pool = copies(1)
    future = pool.submit(jobs.spin)
    assert helpers.settles(future.running, LONG)
    assert future.interrupt()
    assert type(future.exception(LONG)) is plait.Interrupted
    own = pool.submit(os.getpid).result(LONG)
    stuck = pool.options(deadline=0.1).submit(jobs.survive)
    assert type(stuck.exception(LONG)) is plait.DeadlineExceeded
    assert pool.submit(os.getpid).result(LONG) != own  # it was killed


# ---- deaths ----


@pytest.mark.parametrize(
    ("die", "number", "status"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), signal.SIGKILL, None),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), signal.SIGSEGV, None),
        (lambda: os._exit(7), None, 7),
    ],
)
def test_a_copy_that_dies(copies, die, number, status):
    pool = copies(1)
    template, pid = template_of(pool), pool.submit(os.getpid).result(LONG)
    for _ in range(3):
        error = pool.submit(die).exception(LONG)
        assert type(error) is plait.WorkerDied
        assert (error.signal, error.status) == (number, status)
    assert error.pid != pid
    assert template_of(pool) == template
    states = [helpers.state_of(child) for child in helpers.children_of(template)]
    assert states != []
    assert "Z" not in states


def begin_to_spin(path):
    jobs.append(path, "begun")
    jobs.spin()


def spin_once(path):
    """Ends at once where it has been begun before."""
    again = os.path.exists(path)
    jobs.append(path, "begun")
    return again or jobs.spin()


def test_a_template_that_dies(copies, tmp_path):
    pool = copies(1)
    for n in range(3):
        template, begun = template_of(pool), tmp_path / str(n)
        future = pool.submit(begin_to_spin, os.fspath(begun))
        assert helpers.settles(begun.exists, LONG)
        os.kill(template, signal.SIGKILL)
        error = future.exception(LONG)
        assert type(error) is plait.WorkerDied
        assert error.signal == signal.SIGKILL
        assert template_of(pool) != template
    template, begun = template_of(pool), tmp_path / "retried"
    retried = pool.options(retries=2).submit(spin_once, os.fspath(begun))
    assert helpers.settles(begun.exists, LONG)
    os.kill(template, signal.SIGKILL)
    assert retried.result(LONG) is True


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import os; os._exit(5)", "ended with exit status 5"),
        ("import os; os.kill(os.getpid(), 11)", "was killed by signal 11"),
    ],
)
def test_a_template_that_dies_of_a_module(tmp_path, monkeypatch, source, told):
    (tmp_path / "deadly.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with plait.Pool(2, kind="process", preload=["deadly"]) as pool:
        error = pool.submit(abs, -1).exception(LONG)
    assert type(error) is plait.BrokenPool
    assert f"{told} while it imported modules: see preload" in str(error)


def test_a_module_that_starts_threads(tmp_path):
    """A copy would not have them, so there is none."""
    (tmp_path / "threaded.py").write_text(
        "from threading import Event, Thread\nThread(target=Event().wait, daemon=True).start()"
    )
    script = """
import os, plait, sys, threading
sys.path.insert(0, sys.argv[1])
def count():
    return threading.active_count(), os.getppid()
with plait.Pool(1, kind="process", preload=["threaded"]) as pool:
    assert pool.submit(count).result() == (2, os.getpid())
"""
    done = helpers.run(script, os.fspath(tmp_path))
    assert "preload=['threaded'] has started 1 threads" in done.err
    assert done.err.count("RuntimeWarning") == 1


@pytest.mark.parametrize("how", ["SIGKILL", "os._exit", "exit"])
def test_nothing_outlives_the_parent(how):
    script = """
import os, sys, time, plait
pool = plait.Pool(2, kind="process", preload=["json"])
pids = {pool.submit(f).result() for _ in range(20) for f in (os.getpid, os.getppid)}
def spin():
    while True: pass
if sys.argv[1] != "exit":
    futures = [pool.submit(spin) for _ in range(2)]
    while not all(f.running() for f in futures): time.sleep(0.01)
print(*pids, flush=True)
print("ready", flush=True)
if sys.argv[1] == "os._exit": os._exit(0)
if sys.argv[1] == "SIGKILL": time.sleep(1000)
"""
    child = helpers.start(script, how)
    child.wait_for("ready")
    if how == "SIGKILL":
        child.process.kill()
    pids = [int(word) for word in child.finish().lines()[0].split()]
    assert len(pids) >= 2
    assert helpers.settles(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 20)


def test_a_parent_that_dies_while_modules_are_imported(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import os, time\nprint(os.getpid())\nprint('imports', flush=True)\ntime.sleep(1000)"
    )
    script = """
import plait, sys
sys.path.insert(0, sys.argv[1])
plait.Pool(1, kind="process", preload=["slow"]).submit(abs, -1).result()
"""
    child = helpers.start(script, os.fspath(tmp_path))
    child.wait_for("imports")
    child.process.kill()
    pid = int(child.finish().lines()[0])
    assert helpers.settles(lambda: not os.path.exists(f"/proc/{pid}"), 20)


def test_nothing_is_left():
    def use():
        with plait.Pool(2, kind="process", preload=[NAME]) as pool:
            for _ in range(4):
                pool.submit(os._exit, 1).exception(LONG)
            assert sum(pool.map(jobs.double, range(100))) == 9900
        _plait._end_kept(False)

    use()
    others, held = helpers.children_of(os.getpid()), helpers.Holdings.now()
    for _ in range(3):
        use()
    assert helpers.children_of(os.getpid()) == others
    assert helpers.settled(held, 8), (held, helpers.Holdings.now())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_of_the_program_has_templates_of_its_own(copies):
    template = template_of(copies(1))
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            with plait.Pool(1, kind="process", preload=[NAME]) as pool:
                other = template_of(pool)
            status = 0 if other not in (template, os.getpid()) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
