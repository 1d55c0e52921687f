"""Ctrl-C while waiting for a pool, and fork after one was used; each in a process of its own."""

import os
import signal
import time
import warnings

import helpers
import plait
import pytest

# ---- Ctrl-C ----

# The task in hand sleeps until a file exists, which is made after the KeyboardInterrupt has come:
# so that it came promptly is seen without a clock.
PREPARE = """
import concurrent.futures as cf, os, sys, time, plait
kind, where, gate = sys.argv[1:4]
def wait(n=0):
    for _ in range(3000):
        if os.path.exists(gate): break
        time.sleep(0.01)
    return n
pool = plait.Pool(2, kind=kind)
pool.submit(abs, -1).result()
"""

INTERRUPT = (
    PREPARE
    + """
futures = [pool.submit(wait, n) for n in range(4)]
results = pool.map(wait, range(3)) if where.startswith("map") else None
print("waiting", flush=True)
try:
    if where == "result": futures[0].result()
    elif where == "result with a timeout": futures[0].result(1000)
    elif where == "exception": futures[0].exception()
    elif where == "map": list(results)
    elif where == "map_unordered": list(pool.map_unordered(wait, range(3), buffersize=1))
    elif where == "reduce": pool.reduce(lambda a, b: wait(a), range(10), 0)
    elif where == "shutdown": pool.shutdown(wait=True)
    elif where == "wait": cf.wait(futures)
    elif where == "as_completed": list(cf.as_completed(futures))
    elif where == "input":
        def slow():
            yield 1
            time.sleep(1000)
        list(pool.map(abs, slow()))
except KeyboardInterrupt:
    print("interrupted", [f.done() for f in futures], flush=True)
else:
    print("not interrupted", flush=True)
open(gate, "x").close()
try:
    print([f.result(60) for f in futures], pool.submit(abs, -5).result(60))
except RuntimeError as error:
    print(error)
"""
)

PLACES = [
    "result", "result with a timeout", "exception", "map", "map_unordered", "reduce",
    "shutdown", "wait", "as_completed", "input",
]  # fmt: skip


@pytest.mark.parametrize("where", PLACES)
def test_ctrl_c_while_waiting(kind, where, tmp_path):
    child = helpers.start(INTERRUPT, kind, where, str(tmp_path / "gate"))
    child.wait_for("waiting")
    time.sleep(0.2)  # it is about to wait; if not yet, the signal comes a little early
    child.process.send_signal(signal.SIGINT)
    ended = child.finish()
    lines = ended.lines()
    assert ended.code == 0, ended.show()
    assert ended.err == "", ended.show()
    assert lines[1] == "interrupted [False, False, False, False]", ended.show()
    closed = where == "shutdown"
    last = "cannot schedule new futures after shutdown" if closed else "[0, 1, 2, 3] 5"
    assert lines[2] == last, ended.show()


# Both workers are in their functions before the signal comes: whoever evaluates a string meanwhile,
# as imports do, makes CPython forget that it is to end with the status of an interrupt.
UNCAUGHT = (
    PREPARE
    + """
import glob, threading
def wait_a_little(n):
    open(f"{gate}-{os.getpid()}-{threading.get_ident()}", "w").close()
    time.sleep(0.3)
    return n
def wait_for_workers():
    while len(glob.glob(gate + "-*")) < 2: time.sleep(0.01)
    print("waiting", flush=True)
if where == "result":
    futures = [pool.submit(wait_a_little, n) for n in range(4)]
    wait_for_workers()
    [f.result() for f in futures] and time.sleep(1000)
elif where == "inside with":
    with pool:
        futures = [pool.submit(wait_a_little, n) for n in range(100_000)]
        wait_for_workers()
        [f.result() for f in futures]
elif where == "leaving with":
    with pool:
        futures = [pool.submit(wait_a_little, n) for n in range(100_000)]
        wait_for_workers()
elif where == "map in with":
    with pool:
        results = pool.map(wait_a_little, range(100_000))
        wait_for_workers()
        list(results)
elif where == "exit":
    futures = [pool.submit(wait_a_little, n) for n in range(100_000)]
    wait_for_workers()
"""
)


@pytest.mark.parametrize("where", ["result", "inside with", "leaving with", "map in with", "exit"])
def test_ctrl_c_ends_the_process(kind, where, tmp_path):
    """Uncaught: one traceback, the status of an interrupt, and no working off of queues."""
    child = helpers.start(UNCAUGHT, kind, where, str(tmp_path / "gate"))
    child.wait_for("waiting")
    time.sleep(0.3)
    child.process.send_signal(signal.SIGINT)
    ended = child.finish()
    told = ended.show()
    assert "Fatal Python error" not in ended.err, told
    assert "KeyboardInterrupt" in ended.err, told
    if where == "exit":  # CPython reports it, and goes on with its exit
        assert ended.code in (0, 1, 120, 130, -signal.SIGINT), told
    else:
        assert ended.code == -signal.SIGINT, told
        assert ended.err.count("Traceback") == 1, told
        assert ended.err.rstrip().endswith("KeyboardInterrupt"), told


@pytest.mark.parametrize("place", ["inside", "leaving", "arriving"])
def test_ctrl_c_in_a_with_block_stops_its_calls(kind, place, tmp_path):
    """What runs is interrupted and what is queued is cancelled; the block ends without either.

    A call whose arguments are still arriving runs as well, though its function has not begun.
    """
    script = (
        PREPARE
        + """
class Late:
    def __reduce__(self): return late, ()
def late():
    time.sleep(1)
    return 0
futures = []
try:
    with pool:
        futures += [pool.submit(wait, Late() if where == "arriving" else n) for n in range(4)]
        while not all(f.running() for f in futures[:2]): time.sleep(0.01)
        print("waiting", flush=True)
        if where == "inside": futures[0].result()
except KeyboardInterrupt:
    for f in futures:
        try: print(f.result(0))
        except (plait.Interrupted, cf.CancelledError) as error: print(type(error).__name__)
"""
    )
    child = helpers.start(script, kind, place, str(tmp_path / "gate"))
    child.wait_for("waiting")
    time.sleep(0.2)
    child.process.send_signal(signal.SIGINT)
    ended = child.finish()
    outcomes = ["Interrupted", "Interrupted", "CancelledError", "CancelledError"]
    assert ended.lines() == ["waiting", *outcomes], ended.show()
    assert (ended.code, ended.err) == (0, ""), ended.show()


def test_ctrl_c_twice(kind, tmp_path):
    """The second one, while the pool waits for a call that cannot be interrupted."""
    script = (
        PREPARE
        + """
try:
    with pool:
        future = pool.submit(time.sleep, 3)
        print("waiting", flush=True)
        future.result()
except KeyboardInterrupt:
    print("interrupted", future.done(), flush=True)
"""
    )
    child = helpers.start(script, kind, "", str(tmp_path / "gate"))
    child.wait_for("waiting")
    for _ in range(2):
        time.sleep(0.5)
        child.process.send_signal(signal.SIGINT)
    ended = child.finish()
    assert ended.lines() == ["waiting", "interrupted False"], ended.show()
    assert (ended.code, ended.err) == (0, ""), ended.show()


def test_other_handlers_run_while_waiting(kind, tmp_path):
    """A handler that returns lets the waiting go on; one that raises ends it."""
    script = (
        PREPARE
        + """
import signal
def handle(number, frame):
    print("handled", flush=True)
    open(gate, "x").close()
def fail(number, frame): raise LookupError("from the handler")
signal.signal(signal.SIGUSR1, handle)
future = pool.submit(wait, 7)
print("waiting", flush=True)
print(future.result(), flush=True)
signal.signal(signal.SIGUSR1, fail)
future = pool.submit(time.sleep, 3)
signal.setitimer(signal.ITIMER_REAL, 0.2)
signal.signal(signal.SIGALRM, fail)
try: future.result()
except LookupError as error: print(error, future.done())
"""
    )
    child = helpers.start(script, kind, "", str(tmp_path / "gate"))
    child.wait_for("waiting")
    time.sleep(0.2)
    child.process.send_signal(signal.SIGUSR1)
    ended = child.finish()
    assert ended.lines() == ["waiting", "handled", "7", "from the handler False"], ended.show()
    assert (ended.code, ended.err) == (0, ""), ended.show()


def test_ctrl_c_reaches_the_main_interpreter_only(kind):
    """While the main thread computes: its KeyboardInterrupt, and workers that go on unharmed."""
    script = """
import os, signal, sys, time, plait
pool = plait.Pool(2, kind=sys.argv[1])
def spin(n):
    import time
    for _ in range(50): time.sleep(0.01)
    return n
futures = [pool.submit(spin, n) for n in range(4)]
try:
    time.sleep(0.1); os.kill(os.getpid(), signal.SIGINT); time.sleep(1000)
except KeyboardInterrupt: print("interrupted")
print([f.result() for f in futures])
"""
    assert helpers.run_quietly(script, kind) == ["interrupted", "[0, 1, 2, 3]"]


# ---- fork ----

FORK = """
import concurrent.futures as cf, gc, os, sys, threading, time, traceback, warnings, plait
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
kind, how = sys.argv[1:3]
def body():
    inherited = []
    for action in (lambda: pool.submit(abs, -1), lambda: pool.map(abs, [1])):
        try: action()
        except RuntimeError as error: inherited.append(str(error))
    clear = all("fork" in text and "new pool" in text for text in inherited)
    print("refused", len(inherited), clear, flush=True)
    if late:
        try: late.result()
        except RuntimeError as error: assert "parent process" in str(error)
    pool.shutdown()
    print(list(plait.map(lambda x: x + 1, range(3))), flush=True)
    with plait.Pool(2, kind=kind) as own:
        print(sum(own.map(abs, range(-100, 0))), flush=True)
        futures = [own.submit(pow, 2, n) for n in range(5)]
        print(len(cf.wait(futures, 30).done), flush=True)
        called = threading.Event()
        own.submit(abs, -1).add_done_callback(lambda f: called.set())
        print(called.wait(30), flush=True)
    gc.collect()
pool = plait.Pool(2, kind=kind)
print(sum(pool.map(abs, range(-100, 0))), list(plait.map(abs, [-1])), flush=True)
busy = None
late = pool.submit(time.sleep, 1) if how == "plain" else None
if how in ("busy", "watched"):
    busy = [pool.submit(pow, n, 2) for n in range(2000)]
if how == "watched":
    cf.wait(busy[:100])
if how == "iterating":
    results = pool.map(abs, range(100_000)); next(results)
child = os.fork()
if child == 0:
    status = 1
    try:
        body()
        if how == "iterating":
            try: print("more", len(list(results)), flush=True)
            except RuntimeError as error: print("refused more", flush=True)
        status = 0
    except BaseException: traceback.print_exc()
    if how != "plain": os._exit(status)
    sys.exit(status)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
if busy: print(sum(f.result() for f in busy))
print(pool.submit(abs, -7).result())
"""


@pytest.mark.parametrize("how", ["plain", "busy", "watched"])
def test_fork_after_a_pool_was_used(kind, how):
    lines = helpers.run_quietly(FORK, kind, how)
    expected = ["5050 [1]", "refused 2 True", "[1, 2, 3]", "5050", "5", "True", "child 0"]
    if how != "plain":
        expected.append(str(sum(n * n for n in range(2000))))
    assert lines == [*expected, "7"]


def test_fork_while_a_map_is_under_way(kind):
    """The child's copy of the iterator does not hang: it gives what had come, or refuses."""
    lines = helpers.run_quietly(FORK, kind, "iterating")
    assert lines[-2:] == ["child 0", "7"]
    assert "more" in lines[-3]


def test_fork_while_other_threads_submit(kind):
    script = """
import os, sys, threading, warnings, plait
warnings.simplefilter("ignore", DeprecationWarning)
pool, over = plait.Pool(2, kind=sys.argv[1]), False
plait.submit(abs, -1).result()  # imports: CPython's own locks of modules do not survive a fork
def submit():
    while not over: pool.submit(abs, -1).result(); plait.submit(abs, -1).result()
threads = [threading.Thread(target=submit) for _ in range(2)]
for t in threads: t.start()
codes = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        ok = list(plait.map(abs, [-1, -2])) == [1, 2]
        os._exit(0 if ok else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over = True
for t in threads: t.join()
print(codes)
"""
    assert helpers.run_quietly(script, kind) == [str([0] * 10)]


def test_fork_while_other_threads_open_pools(kind):
    """Interpreters that import extensions, and threads that threading has not made, may be on their
    way: over both, CPython's child crashes or hangs by itself. What is left: without a GIL, a lock
    that CPython hands over while it stops for the fork stays locked in the child.
    """
    script = """
import os, signal, sys, threading, time, warnings, plait
warnings.simplefilter("ignore", DeprecationWarning)
plait.submit(abs, -1).result()
over = False
def opens():
    while not over:
        with plait.Pool(1, kind=sys.argv[1]) as pool: pool.submit(abs, -1).result()
def ended(child):
    late = time.monotonic() + 5
    while free_threaded and time.monotonic() < late:
        if (found := os.waitpid(child, os.WNOHANG))[0]: return found
        time.sleep(0.001)
    if free_threaded: os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)
free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
threads = [threading.Thread(target=opens) for _ in range(2)]
for t in threads: t.start()
codes, hung = [], 0
for _ in range(100):
    child = os.fork()
    if child == 0:
        os._exit(0 if list(plait.map(abs, [-1, -2])) == [1, 2] else 1)
    codes.append(os.waitstatus_to_exitcode(ended(child)[1]))
    hung += free_threaded and codes[-1] == -signal.SIGKILL
    if hung == 3: break
over = True
for t in threads: t.join()
print(sorted({*codes} - ({-signal.SIGKILL} if free_threaded else {*()})))
"""
    assert helpers.run_quietly(script, kind) == ["[0]"]


def test_fork_before_a_pool_was_used(kind):
    script = """
import os, sys, plait
child = os.fork()
with plait.Pool(1, kind=sys.argv[1]) as pool: ok = pool.submit(abs, -1).result() == 1
if child: ok = ok and os.waitpid(child, 0)[1] == 0
sys.exit(0 if ok else 1)
"""
    helpers.run_quietly(script, kind)


def test_multiprocessing_with_the_fork_context(kind):
    script = """
import multiprocessing, sys, warnings, plait
warnings.simplefilter("ignore", DeprecationWarning)
kind = sys.argv[1]
pool = plait.Pool(2, kind=kind)
print(pool.submit(abs, -1).result())
def work(n):
    with plait.Pool(1, kind=kind) as own:
        return own.submit(pow, n, 2).result() + sum(plait.map(abs, [-n]))
context = multiprocessing.get_context("fork")
with context.Pool(2) as processes: print(processes.map(work, range(5)))
child = context.Process(target=work, args=(3,))
child.start(); child.join()
print(child.exitcode, pool.submit(abs, -2).result())
"""
    assert helpers.run_quietly(script, kind) == ["1", "[0, 2, 6, 12, 20]", "0 2"]


def test_subprocesses_of_workers(kind):
    """A worker may run programs, though fork itself is refused in interpreters."""

    def run():
        import subprocess
        import sys

        return subprocess.run(
            [sys.executable, "-c", "print(5)"], capture_output=True, text=True
        ).stdout

    with plait.Pool(1, kind=kind) as pool:
        assert pool.submit(run).result(helpers.LONG) == "5\n"


def test_fork_in_a_worker_is_refused_or_works(kind):
    def fork():
        import os
        import warnings

        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            os._exit(0)
        return os.waitpid(child, 0)[1]

    with warnings.catch_warnings(), plait.Pool(1, kind=kind) as pool:
        warnings.simplefilter("ignore", DeprecationWarning)
        error = pool.submit(fork).exception(helpers.LONG)
        if kind == "interpreter":
            assert isinstance(error, RuntimeError)
            assert "fork" in str(error)
        else:
            assert error is None
        same = pool.submit(os.getpid).result(helpers.LONG) == os.getpid()
        assert same == (kind != "process")
