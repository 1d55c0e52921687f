"""The lives of pools: many tasks in flat memory, many pools without a leak, exits, and kinds.

PLAIT_TEST_POOLS=1000 opens and closes so many pools of the interpreter kind, too: by default fewer,
since each costs a new interpreter.
"""

import contextlib
import gc
import itertools
import os
import re
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from pathlib import Path

import helpers
import jobs
import plait
import pytest
from helpers import FREE_THREADED, INTERPRETERS_CRASH, Holdings, settled
from plait import _plait

LONG = helpers.LONG
MEGABYTE = 1 << 20

# ---- many tasks through one pool ----


def through_windows(pool, count, window=5000):
    """Submits `count` tasks, at most `window` at a time, and checks every result."""
    futures, checked = deque(), 0
    for number in range(count):
        futures.append(pool.submit(jobs.same, number))
        if len(futures) == window:
            for _ in range(window // 2):
                assert futures.popleft().result(LONG) == checked
                checked += 1
    while futures:
        assert futures.popleft().result(LONG) == checked
        checked += 1
    assert checked == count


@pytest.mark.timeout(300)
def test_a_million_tasks_in_flat_memory(kind):
    """100,000 submits and 900,000 items of map. Without a GIL memory goes up and down by as much as
    a window's objects take, since each thread frees its own later: so the lowest levels count.
    """
    levels = []
    with plait.Pool(2, kind=kind) as pool:
        for turn in range(10):
            through_windows(pool, 10_000)
            total = sum(pool.map(jobs.same, range(90_000), buffersize=20_000))
            assert total == sum(range(90_000))
            gc.collect()
            levels.append(helpers.memory_of_process())
            if turn == 0:
                held = Holdings.now()
        assert min(levels[6:]) - min(levels[2:6]) < 4 * MEGABYTE, levels
        assert settled(held, 50), (held, Holdings.now())


def growth(work):
    """By how many bytes work(turn) makes the process grow in three turns, without the one by which
    it grows most: CPython without a GIL takes 10 MB at a time now and then."""
    levels = [helpers.memory_of_process()]
    for turn in range(3):
        work(turn)
        levels.append(helpers.memory_of_process())
    growths = [after - before for before, after in itertools.pairwise(levels)]
    return sum(growths) - max(growths)


def test_functions_by_value_in_flat_memory(kind):
    """A new function for every task: caches on both sides have their bounds."""
    with plait.Pool(2, kind=kind) as pool:

        def some(count, start):
            ballast = b"x" * 10_000
            for number in range(start, start + count):
                function = eval(f"lambda b: len(b) + {number}")
                assert pool.submit(function, ballast).result(LONG) == 10_000 + number

        some(1500, 0)
        assert growth(lambda turn: some(1000, 1500 + 1000 * turn)) < 8 * MEGABYTE


def test_failures_in_flat_memory(kind):
    with plait.Pool(2, kind=kind) as pool:

        def some(count):
            for _ in range(count):
                assert pool.submit(jobs.odd_or_fail, 2).exception(LONG).args == ("2 is even",)
                pool.submit(jobs.same, jobs.Locked()).exception(LONG)
                results = pool.map(jobs.odd_or_fail, [1, 2, 3])
                assert next(results) == 1
                with pytest.raises(ValueError, match="2 is even"):
                    next(results)

        some(300)
        assert growth(lambda _: some(230)) < 8 * MEGABYTE


def test_results_never_asked_for_are_given_up(kind):
    """500 MB in every round. Without a GIL, CPython frees what one thread let go of once all others
    have been seen between two bytecodes, and keeps it for later: memory goes up, then stays."""
    with plait.Pool(2, kind=kind) as pool:
        levels = []
        for _ in range(6):
            for _ in range(500):
                pool.submit(bytes, MEGABYTE)
            for _ in range(2):
                pool.submit(jobs.same, 1).result(LONG)
            levels.append(helpers.memory_of_process() // MEGABYTE)
        assert min(levels[3:]) - min(levels[:3]) < (200 if FREE_THREADED else 20), levels


def test_threads_of_a_worker_run_beside_tasks_without_bytecode(kind):
    def start():
        def count_on():
            while sys.counted < 1000:
                sys.counted += 1
                time.sleep(0.001)

        sys.counted = 0
        threading.Thread(target=count_on).start()

    def stop():
        counted, sys.counted = sys.counted, 1000
        return counted

    with plait.Pool(1, kind=kind) as pool:
        pool.submit(start)
        for _ in range(300):
            pool.submit(pow, 7, 60_000)  # 2 ms each
        assert pool.submit(stop).result(LONG) >= 5


def test_arguments_and_results_are_let_go(kind):
    """A task that is over holds neither; a future holds its result, and no more."""

    class Item:
        pass

    with plait.Pool(1, kind=kind) as pool:
        item = Item()
        watched = weakref.ref(item)
        future = pool.submit(type, item)
        del item
        future.result(LONG)
        pool.submit(jobs.double, 1).result(LONG)
        assert helpers.settles(lambda: gc.collect() * 0 or watched() is None, 20)
        future = pool.submit(Item)
        watched = weakref.ref(future.result(LONG))
        assert watched() is not None
        del future
        pool.submit(jobs.double, 1).result(LONG)
        assert helpers.settles(lambda: gc.collect() * 0 or watched() is None, 20)


# ---- many pools ----


def pools_to_open(kind):
    if kind == "thread":
        return 1000
    return int(os.environ.get("PLAIT_TEST_POOLS", "100" if kind == "interpreter" else "40"))


def open_and_close(kind, count, submitters=4):
    """`count` pools in several threads, each with real work, closed in one of several ways."""
    counter, lock = iter(range(count)), threading.Lock()

    def body(_):
        while True:
            with lock:
                number = next(counter, None)
            if number is None:
                return
            pool = plait.Pool(1 if kind == "interpreter" else 2, kind=kind)
            if number % 4 == 0:
                with pool:
                    assert pool.submit(jobs.double, number).result(LONG) == number * 2
            elif number % 4 == 1:
                assert sum(pool.map(jobs.double, range(100))) == 9900
                pool.shutdown()
            elif number % 4 == 2:
                future = pool.submit(jobs.double, number)
                pool.shutdown(wait=False)
                assert future.result(LONG) == number * 2
            else:
                futures = [pool.submit(jobs.same, [n]) for n in range(50)]
                del pool  # collected, with its work still queued
                assert [f.result(LONG) for f in futures] == [[n] for n in range(50)]

    helpers.in_threads(submitters, body)


def cpython_leak():
    """Bytes that CPython itself loses with each interpreter: on 3.13 some two megabytes."""
    interpreters = pytest.importorskip("_interpreters")
    for _ in range(5):
        interpreters.destroy(interpreters.create())
    before = helpers.memory_of_process()
    for _ in range(20):
        interpreters.destroy(interpreters.create())
    return max(helpers.memory_of_process() - before, 0) // 20


@pytest.fixture(params=["kept", "not kept"])
def keeping(request, kind, monkeypatch) -> bool:
    """Whether interpreters outlive their pools; then there is room for all that there are."""
    kept = request.param == "kept"
    if kind != "interpreter" and not kept:
        pytest.skip("only interpreters are kept")
    monkeypatch.setenv("PLAIT_KEEP_INTERPRETERS", "16" if kept else "0")
    _plait._end_kept(False)
    return kept


def memory_stays(kind, count, keeping, leak):
    """Whether memory does, over so many pools; everything else that they leave is counted, too."""
    held, before = Holdings.now(), helpers.memory_of_process()
    made = -helpers.newest_interpreter()
    open_and_close(kind, count)
    made += helpers.newest_interpreter()
    assert made <= (16 if keeping and helpers.KEEPS_INTERPRETERS else count) + 1, made
    # CPython loses twice as much of interpreters that were used as of empty ones. It lies in maps,
    # which the kernel joins: some 20 MB each.
    lost = 2 * made * leak if kind == "interpreter" else 0
    assert _plait._count_kept("interpreter") <= (16 if keeping else 0)
    _plait._end_kept(False)
    assert settled(held, 40 + lost // (16 * MEGABYTE)), (held, Holdings.now())
    allowed = 8 * MEGABYTE
    if kind == "interpreter":
        allowed += made * (MEGABYTE // 8) + lost * 3 // 2

    def grown():
        gc.collect()  # without a GIL, what another thread dropped last waits for its maker
        return helpers.memory_of_process() - before

    return helpers.settles(lambda: grown() < allowed, 20)


@pytest.mark.timeout(400)
def test_many_pools_leave_nothing_behind(kind, keeping):
    count = pools_to_open(kind)
    open_and_close(kind, max(count // 4, 20))  # what is made once is made: arenas, malloc's heaps
    settled(Holdings.now(), 0)
    _plait._end_kept(False)  # here and below: as many are kept both times; see test_reuse.py, too
    leak = cpython_leak() if kind == "interpreter" else 0
    # Heaps grow once more when more threads happen to live at once than before; a leak always does.
    assert any(memory_stays(kind, count, keeping, leak) for _ in range(3))


def test_pools_without_work_cost_nothing(kind):
    _plait._end_kept(False)
    held = Holdings.now()
    for _ in range(300):
        plait.Pool(8, kind=kind).shutdown()
    assert settled(held, 10), (held, Holdings.now())
    pool = plait.Pool(64, kind=kind)
    assert pool.submit(jobs.double, 1).result(LONG) == 2
    assert Holdings.now().threads <= held.threads + 64
    pool.shutdown()
    _plait._end_kept(False)
    assert settled(held, 40)


def test_one_pool_after_another_by_garbage_collection_alone(kind):
    _plait._end_kept(False)
    held = Holdings.now()
    for _ in range(100 if kind == "thread" else 10):
        pool = plait.Pool(2, kind=kind)
        pool.me = pool  # a cycle
        assert pool.submit(jobs.double, 1).result(LONG) == 2
        del pool
        gc.collect()
    _plait._end_kept(False)
    assert settled(held, 40), (held, Holdings.now())


def test_a_pool_in_a_worker(kind):
    """Tasks may use plait themselves."""

    def nested(kind):
        import plait

        with plait.Pool(2, kind=kind) as inner:
            return sum(inner.map(lambda x: x + 1, range(100))), list(plait.map(abs, [-1]))

    with plait.Pool(2, kind=kind) as pool:
        assert pool.submit(nested, "thread").result(LONG) == (5050, [1])
        assert pool.submit(nested, kind).result(LONG) == (5050, [1])


def test_names_and_identities_of_workers(kind):
    def identity():
        import threading

        return threading.current_thread().name, (os.getpid(), threading.get_ident())

    with plait.Pool(2, kind=kind, thread_name_prefix="strand") as pool:
        pool.submit(jobs.double, 1).result(LONG)
        names = {
            Path(f"/proc/self/task/{task}/comm").read_text().strip()
            for task in os.listdir("/proc/self/task")
        }
        assert any(name.startswith("strand") for name in names), names
        name, ident = pool.submit(identity).result(LONG)
        assert ident != (os.getpid(), threading.get_ident())
        assert kind != "thread" or name.startswith("strand_")
    with plait.Pool(2, kind=kind) as pool:
        name, _ = pool.submit(identity).result(LONG)
        assert kind != "thread" or re.fullmatch(r"plait-\d+_\d+", name)


# ---- exits ----


def test_no_hang_at_exit(kind):
    script = """
import sys, plait
pool = plait.Pool(2, kind=sys.argv[1])
print(pool.submit(abs, -1).result(), sum(pool.map(abs, range(-100, 0))))
pools = [plait.Pool(1, kind=sys.argv[1]) for _ in range(5)]
print([p.submit(pow, 2, n).result() for n, p in enumerate(pools)])
print(list(plait.map(abs, [-1])))
"""
    assert helpers.run_quietly(script, kind) == ["1 5050", "[1, 2, 4, 8, 16]", "[1]"]


WORK_LEFT = """
import sys, threading, time, plait, gc
kind, how, folder = sys.argv[1:]
def mark(name):
    time.sleep(0.01)
    open(name, "x").close()
    return name
pool = plait.Pool(2, kind=kind)
futures = [pool.submit(mark, f"{folder}/submitted{n}") for n in range(20)]
results = pool.map(mark, [f"{folder}/mapped{n}" for n in range(20)])
if how == "collected":
    del pool, results, futures
    gc.collect()
elif how == "not waited for":
    pool.shutdown(wait=False)
elif how == "thread":
    def ask(): print(len({f.result() for f in futures}), flush=True)
    threading.Thread(target=ask).start()
elif how == "error":
    raise SystemExit(7)
elif how == "default pool":
    for n in range(10): plait.submit(mark, f"{folder}/default{n}")
"""


@pytest.mark.parametrize(
    "how", ["kept", "collected", "not waited for", "thread", "error", "default pool"]
)
def test_work_is_done_before_the_exit(kind, how, tmp_path):
    """As the standard library's pools do it."""
    ended = helpers.run(WORK_LEFT, kind, how, str(tmp_path), code=7 if how == "error" else 0)
    assert ended.err == "", ended.show()
    assert len(list(tmp_path.glob("submitted*"))) == 20
    assert len(list(tmp_path.glob("mapped*"))) == 20
    assert len(list(tmp_path.glob("default*"))) == (10 if how == "default pool" else 0)
    assert ended.lines() == (["20"] if how == "thread" else [])


def test_callbacks_are_called_before_the_exit(kind):
    script = """
import sys, time, plait
pool = plait.Pool(1, kind=sys.argv[1])
for n in range(3):
    pool.submit(time.sleep, 0.2).add_done_callback(lambda f, n=n: print("called", n))
"""
    assert sorted(helpers.run_quietly(script, kind)) == ["called 0", "called 1", "called 2"]


@pytest.mark.parametrize("daemon", [True, False])
@pytest.mark.parametrize("where", ["result", "map", "wait", "shutdown"])
def test_threads_that_wait_at_the_exit(kind, daemon, where):
    """Whatever a thread waits for in plait, the process ends, and ends well."""
    script = """
import concurrent.futures as cf, sys, threading, time, plait
kind, daemon, where = sys.argv[1], sys.argv[2] == "True", sys.argv[3]
pool = plait.Pool(1, kind=kind)
pool.submit(abs, -1).result()
futures = [pool.submit(time.sleep, 0.02) for _ in range(30)]
def wait():
    if where == "result":
        for f in futures: f.result()
    elif where == "map": list(pool.map(time.sleep, [0.02] * 10))
    elif where == "wait": cf.wait(futures)
    else: pool.shutdown()
threads = [threading.Thread(target=wait, daemon=daemon) for _ in range(4)]
for t in threads: t.start()
time.sleep(0.05)
print("end")
"""
    assert helpers.run_quietly(script, kind, str(daemon), where) == ["end"]


def test_a_daemon_thread_that_submits_for_ever(kind):
    script = """
import sys, threading, time, plait
pool = plait.Pool(2, kind=sys.argv[1])
def submit():
    try:
        while True: pool.submit(abs, -1); list(pool.map(abs, range(50)))
    except RuntimeError as error: pass
for _ in range(3): threading.Thread(target=submit, daemon=True).start()
time.sleep(0.3)
print("end")
"""
    for _ in range(3):
        assert helpers.run_quietly(script, kind) == ["end"]


def test_os_exit_and_unhandled_exceptions(kind):
    script = """
import os, sys, time, plait
pool = plait.Pool(2, kind=sys.argv[1])
running = [pool.submit(time.sleep, 0.2) for _ in range(4)]
print("here", flush=True)
if sys.argv[2] == "exit": os._exit(5)
raise ValueError("unhandled")
"""
    assert helpers.run(script, kind, "exit", code=5).err == ""
    ended = helpers.run(script, kind, "raise", code=1)
    assert ended.err.count("Traceback") == 1
    assert ended.err.endswith("ValueError: unhandled\n")


def test_workers_modules_are_finalised_with_a_pool(kind):
    """atexit functions and threads of the workers' own have their time."""
    script = """
import sys, plait
def task():
    import atexit, threading, time
    atexit.register(lambda: print("at exit", flush=True))
    threading.Thread(target=lambda: time.sleep(0.2) or print("thread", flush=True)).start()
with plait.Pool(1, kind=sys.argv[1]) as pool:
    pool.submit(task).result()
print("end", flush=True)
"""
    lines = helpers.run_quietly(script, kind)
    assert sorted(lines) == ["at exit", "end", "thread"]
    if kind == "interpreter":
        assert lines[-1] == "end"


# ---- kinds ----


def gil_is_off():
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def test_auto_chooses_and_says_why():
    with plait.Pool(1) as pool:
        version = ".".join(map(str, sys.version_info[:3]))
        if FREE_THREADED:
            assert pool.kind == "thread"
            assert "GIL" in pool.reason
        elif INTERPRETERS_CRASH:
            assert pool.kind == "process"
            assert "crashes with own-GIL interpreters" in pool.reason
        else:
            assert pool.kind == ("interpreter" if sys.version_info >= (3, 13) else "process")
        assert version in pool.reason
        assert pool.max_workers == 1
        assert pool.submit(jobs.double, 1).result(LONG) == 2
    with plait.Pool() as pool:
        assert pool.max_workers == plait.cpu_count() >= 1
        assert plait.cpu_count() <= len(os.sched_getaffinity(0))


def test_asking_for_a_kind(kind):
    with plait.Pool(3, kind=kind) as pool:
        assert pool.kind == kind
        assert pool.max_workers == 3
        assert "asked for" in pool.reason
        same = pool.submit(helpers.where).result(LONG) == helpers.where()
        assert same == (kind == "thread")


@pytest.mark.skipif(not INTERPRETERS_CRASH, reason="own-GIL interpreters serve here")
def test_the_refusal_where_cpython_crashes():
    needed = "3.13.1" if sys.version_info >= (3, 13) else "3.12.8"
    with pytest.raises(RuntimeError) as caught:
        plait.Pool(kind="interpreter")
    for part in (".".join(map(str, sys.version_info[:3])), needed, "kind='thread'", "crash"):
        assert part in str(caught.value)
    assert needed in plait.Pool().reason
    assert plait.Pool().kind == "process"


@pytest.mark.skipif(not FREE_THREADED, reason="for free-threaded builds")
@pytest.mark.parametrize("gil", ["0", "1"])
def test_a_free_threaded_build_with_and_without_the_gil(gil):
    script = """
import plait
with plait.Pool(2) as pool:
    print(pool.kind)
    print(pool.reason)
    print(sum(pool.map(abs, range(-100, 0))))
"""
    kind, reason, total = helpers.run_quietly(script, env={"PYTHON_GIL": gil})
    assert (kind, total) == ("process" if gil == "1" else "thread", "5050")
    if gil == "1":
        assert "PYTHON_GIL=1" in reason
    else:
        assert "its GIL is off" in reason


@pytest.mark.skipif(not FREE_THREADED, reason="for free-threaded builds")
def test_an_extension_that_switches_the_gil_on(tmp_path):
    """What is imported decides, and when: a pool made before stays what it is."""
    helpers.compile_module(tmp_path, "single", "SINGLE_PHASE")
    script = """
import sys, plait
sys.path.insert(0, sys.argv[1])
before = plait.Pool(2)
import single
after = plait.Pool(2)
for pool in (before, after):
    print(pool.kind, sum(pool.map(lambda n: n + 1, range(100))))
print(after.reason)
"""
    ended = helpers.run(script, os.fspath(tmp_path), env={"PYTHON_GIL": ""})
    before, after, reason = ended.lines()
    assert (before, after) == ("thread 5050", "process 5050")
    assert "an extension switched it on" in reason


@pytest.mark.skipif(not FREE_THREADED, reason="for free-threaded builds")
def test_importing_plait_leaves_the_gil_off():
    script = "import sys, plait; plait.submit(abs, -1).result(); print(sys._is_gil_enabled())"
    assert helpers.run_quietly(script, env={"PYTHON_GIL": ""}) == ["False"]


@pytest.mark.skipif(not FREE_THREADED or "interpreter" in helpers.kinds_here(), reason="they serve")
def test_the_refusal_of_interpreters_on_a_free_threaded_build():
    with pytest.raises(RuntimeError, match="kind='thread'"):
        plait.Pool(kind="interpreter")


def test_modules_with_static_types_in_workers(kind):
    """What crashes CPython before 3.14 unless the main interpreter has it already."""

    def use():
        import ctypes
        import datetime
        import decimal
        import hashlib
        import socket
        import sqlite3

        rows = sqlite3.connect(":memory:").execute("select 1 + 1").fetchall()
        return (
            rows,
            str(decimal.Decimal("1.1") + 1),
            datetime.date(2024, 2, 29).isoformat(),
            hashlib.sha256(b"x").hexdigest()[:4],
            ctypes.sizeof(ctypes.c_int),
            socket.AF_INET > 0,
        )

    for _ in range(1 if kind == "process" else 3):
        with plait.Pool(2, kind=kind) as pool, contextlib.ExitStack() as stack:
            futures = [pool.submit(use) for _ in range(6)]
            stack.callback(gc.collect)
            for future in futures:
                error = future.exception(LONG)
                if isinstance(error, ImportError):  # an extension this interpreter kind refuses
                    assert "subinterpreter" in str(error)
                    continue
                assert future.result()[:3] == ([(2,)], "2.1", "2024-02-29")


def test_the_face_of_the_package():
    assert set(plait.__all__) <= set(dir(plait))
    for name in plait.__all__:
        assert getattr(plait, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        plait.nothing  # noqa: B018
    assert list(plait.map(jobs.add, [1, 2], [3, 4], buffersize=1)) == [4, 6]
    assert plait.submit(jobs.add, 1, y=2).result(LONG) == 3


# ---- what the garbage collector must find, or must leave alone ----


class Holder:
    """Leads back to the future of a call that it was given to, and does not travel."""

    future = None

    def __reduce__(self):
        raise TypeError("stays here")


@pytest.mark.parametrize("call", [jobs.same, jobs.fail_holding])
@pytest.mark.parametrize("asked", [True, False])
def test_a_future_and_what_leads_back_to_it(kind, call, asked):
    """By its result, or by its exception's traceback."""
    with plait.Pool(1, kind=kind) as pool:
        holder = Holder()
        watched = weakref.ref(holder)
        holder.future = pool.submit(call, holder)
        if asked:
            holder.future.exception(LONG)
        pool.submit(jobs.double, 1).result(LONG)
        del holder
        assert helpers.settles(lambda: gc.collect() * 0 or watched() is None, 20)


def test_a_map_and_what_leads_back_to_it(kind):
    with plait.Pool(1, kind=kind) as pool:
        holder = Holder()
        watched = weakref.ref(holder)
        holder.results = pool.map(jobs.same, [0, holder, holder])
        pool.submit(jobs.double, 1).result(LONG)
        assert next(holder.results) == 0  # all of it has arrived, and is in the iterator's hands
        del holder
        assert helpers.settles(lambda: gc.collect() * 0 or watched() is None, 20)


def test_an_owner_whose_method_prepares_its_workers(kind):
    """The pool leads back to itself; a worker may be on its way into the method."""

    class Owner:
        def __init__(self, kind):
            prepare = self.prepare if kind == "thread" else jobs.double
            self.pool = plait.Pool(2, kind=kind, initializer=prepare, initargs=(1,))
            self.futures = [self.pool.submit(jobs.double, n) for n in range(4)]

        def prepare(self, _):
            assert self.pool is not None

    held = Holdings.now()
    for turn in range(100 if kind == "thread" else 5):
        owner = Owner(kind)
        watched, futures = weakref.ref(owner), owner.futures
        if turn % 2:
            assert futures[0].result(LONG) == 0
        del owner
        gc.collect()
        assert [future.result(LONG) for future in futures] == [0, 2, 4, 6]
        assert helpers.settles(lambda: gc.collect() * 0 or watched() is None, 20)  # noqa: B023
    assert settled(held, 40), (held, Holdings.now())


def test_pools_that_go_when_others_go(kind):
    """Letting go of a pool runs code, which lets go of a pool, and so on."""

    class Link:
        def __init__(self, pool):
            self.pool = pool

        def __call__(self):
            pass

    held = Holdings.now()
    for _ in range(5):
        pool = None
        for _ in range(20 if kind == "thread" else 3):
            link = Link(pool) if kind == "thread" else None
            pool = plait.Pool(1, kind=kind, initializer=link)
            pool.submit(jobs.double, 1)
        del pool, link

    def ended():
        plait.Pool(1, kind=kind)  # with a pool that goes, those go whose workers have ended
        _plait._end_kept(False)
        return Holdings.now().threads <= held.threads

    assert helpers.settles(ended), (held, Holdings.now())


def test_a_worker_that_ends_while_it_watches_a_call_of_another_pool(kind):
    """Its callbacks are called first."""

    def watch(pool, path):
        pool.submit(time.sleep, 0.3).add_done_callback(lambda _: open(path, "x").close())

    with plait.Pool(1, kind=kind) as outer, tempfile.TemporaryDirectory() as folder:
        outer.submit(jobs.double, 1).result(LONG)
        for number in range(3):
            path = Path(folder, str(number))
            with plait.Pool(1, kind=kind) as pool:
                pool.submit(watch, outer, os.fspath(path)).result(LONG)
            assert kind == "thread" or path.exists()
