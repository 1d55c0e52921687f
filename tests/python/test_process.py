"""Process workers: what dies, what survives it, and what is left behind.

PLAIT_TEST_CHAOS=50000 runs so many tasks of chaos instead of fewer.
"""

import concurrent.futures
import contextlib
import ctypes
import os
import pickle
import random
import re
import signal
import sys
import time
from pathlib import Path

import helpers
import jobs
import plait
import pytest
from plait import _plait

LONG = helpers.LONG


@pytest.fixture
def pool():
    with plait.Pool(2, kind="process") as made:
        yield made


def is_gone(pid):
    """Whether a process has ended: gone, or a zombie that only its parent has to reap."""
    return helpers.state_of(pid) in ("", "Z", "X")


# ---- one crash is one failed task ----


def segfault():
    ctypes.string_at(0)


def kill_myself(number):
    os.kill(os.getpid(), number)
    time.sleep(LONG)


@pytest.mark.parametrize(
    ("function", "args", "number", "status"),
    [
        (kill_myself, (signal.SIGKILL,), signal.SIGKILL, None),
        (kill_myself, (signal.SIGSEGV,), signal.SIGSEGV, None),
        (os.abort, (), signal.SIGABRT, None),
        (os._exit, (3,), None, 3),
        (os._exit, (0,), None, 0),
    ],
)
def test_a_death_fails_one_task(pool, function, args, number, status):
    before = [pool.submit(jobs.same, n) for n in range(50)]
    dying = pool.submit(function, *args)
    after = [pool.submit(jobs.same, n) for n in range(50)]
    error = dying.exception(LONG)
    assert type(error) is plait.WorkerDied
    assert isinstance(error, concurrent.futures.BrokenExecutor)
    assert (error.signal, error.status, error.task) == (number, status, function.__qualname__)
    assert error.pid > 0
    assert error.pid != os.getpid()
    assert str(error.pid) in str(error)
    assert (f"signal {int(number)}" if number else f"exit status {status}") in str(error)
    assert [future.result(LONG) for future in before + after] == [*range(50), *range(50)]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert list(pool.map(jobs.same, range(1000))) == list(range(1000))


def test_a_real_segmentation_fault(pool):
    error = pool.submit(segfault).exception(LONG)
    assert isinstance(error, plait.WorkerDied)
    assert error.signal == signal.SIGSEGV
    assert pool.submit(jobs.double, 2).result(LONG) == 4


def test_a_dead_worker_is_replaced():
    with plait.Pool(1, kind="process") as pool:
        first = pool.submit(os.getpid).result(LONG)
        for _ in range(3):
            assert isinstance(pool.submit(os._exit, 1).exception(LONG), plait.WorkerDied)
            second = pool.submit(os.getpid).result(LONG)
            assert second != first
            assert is_gone(first)
            assert helpers.children_of(os.getpid()).count(second) == 1
            first = second


def test_one_that_dies_idle_fails_nothing():
    """Killed between two tasks: the second had not begun, and runs in another process."""
    with plait.Pool(1, kind="process") as pool:
        for _ in range(5):
            pid = pool.submit(os.getpid).result(LONG)
            os.kill(pid, signal.SIGKILL)
            assert pool.submit(os.getpid).result(LONG) != pid


def test_only_the_running_item_of_a_map_fails(pool, tmp_path):
    """Those before it in its grain are neither lost nor run again."""
    log = os.fspath(tmp_path / "log")

    def item(n):
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{n}\n".encode())
        os.close(descriptor)
        if n in (0, 333, 334, 2999):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(LONG)
        return (n, "x" * (n % 50), [n])

    results, died = pool.map(item, range(3000)), []
    for n in range(3000):
        try:
            assert next(results) == (n, "x" * (n % 50), [n])
        except plait.WorkerDied as error:
            died.append((n, error.signal))
    assert list(results) == []
    assert died == [(n, signal.SIGKILL) for n in (0, 333, 334, 2999)]
    with open(log) as lines:
        assert sorted(map(int, lines)) == list(range(3000))


def test_results_of_a_map_that_are_large(pool):
    """Larger than what the parent can save of a dead process, one by one or together."""
    sizes = [10, 2_000_000, 20, 900_000, 300_000, 3_000_000, 1, 400_000] * 3
    assert [len(b) for b in pool.map(bytes, sizes)] == sizes
    sizes = [3000] * 2000
    assert [len(b) for b in pool.map(bytes, sizes)] == sizes


@pytest.mark.parametrize("size", [1, 30_000, 33_000, 131_000, 1_000_000, 30_000_000])
def test_messages_of_all_sizes(pool, size):
    data = random.Random(size).randbytes(size)
    assert pool.submit(jobs.same, data).result(LONG) == data
    assert pool.submit(lambda: data).result(LONG) == data
    assert list(pool.map(jobs.same, [data, data])) == [data, data]


# ---- beginnings ----


def test_an_initializer_that_raises_breaks_the_pool():
    with plait.Pool(1, kind="process", initializer=jobs.fail, initargs=(KeyError("no"),)) as pool:
        error = pool.submit(abs, -1).exception(LONG)
        assert isinstance(error, plait.BrokenPool)
        assert isinstance(error.__cause__, KeyError)


def test_an_initializer_that_dies_breaks_the_pool():
    with plait.Pool(2, kind="process", initializer=os._exit, initargs=(5,)) as pool:
        error = pool.submit(abs, -1).exception(LONG)
        assert isinstance(error, plait.BrokenPool)
        assert "exit status 5" in str(error)


def test_an_initializer_runs_in_a_replacement_too():
    with plait.Pool(1, kind="process", initializer=os.putenv, initargs=("PLAIT_X", "y")) as pool:
        assert isinstance(pool.submit(os._exit, 1).exception(LONG), plait.WorkerDied)
        assert pool.submit(jobs.shell, "echo $PLAIT_X").result(LONG) == "y\n"


def test_a_child_resembles_its_parent(pool):
    def look():
        import os
        import sys

        names = sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("__"))
        return os.getcwd(), sys.executable, sys.path, sys.flags.optimize, names

    import sys

    cwd, executable, path, optimize, names = pool.submit(look).result(LONG)
    assert (cwd, executable, path) == (os.getcwd(), sys.executable, sys.path)
    assert optimize == sys.flags.optimize
    assert names == []


def test_a_child_has_no_files_of_its_parent(pool, tmp_path):
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        held = pool.submit(jobs.open_files).result(LONG)
        again = plait.Pool(1, kind="process")
        with again:
            held = again.submit(jobs.open_files).result(LONG)
    assert not any("secret" in name for name in held)


# ---- what is left ----


def named_shared_memory():
    """What this process and its children use of /dev/shm, where names outlive processes.

    The folder itself is everybody's: another program may come and go in it meanwhile.
    """
    found = set()
    for pid in (os.getpid(), *helpers.children_of(os.getpid())):
        found.update(re.findall(r"/dev/shm/.*", Path(f"/proc/{pid}/maps").read_text()))
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed
                found.add(os.readlink(file))
    return {name for name in found if name.startswith("/dev/shm/")}


def test_nothing_is_left_behind():
    """Processes, files, maps, threads: not after many deaths either."""
    named = named_shared_memory()

    def use(deaths):
        with plait.Pool(2, kind="process") as pool:
            shared = pool.submit(bytes, 4 << 20).result(LONG)
            for _ in range(deaths):
                pool.submit(os._exit, 1).exception(LONG)
            assert sum(pool.map(jobs.double, range(100))) == 9900
            assert pool.submit(len, shared).result(LONG) == 4 << 20
            assert named_shared_memory() <= named
        _plait._end_kept(False)

    use(1)
    others = helpers.children_of(os.getpid())  # the default pool's, say
    before = helpers.Holdings.now()
    for _ in range(3):
        use(4)
    assert helpers.children_of(os.getpid()) == others
    assert helpers.settles(lambda: helpers.Holdings.now().threads <= before.threads)
    after = helpers.Holdings.now()
    assert after.files <= before.files
    assert after.maps <= before.maps + 8


@pytest.mark.parametrize("how", ["SIGKILL", "os._exit", "SIGSEGV"])
def test_children_die_with_their_parent(how):
    script = """
import os, signal, sys, time, plait
pool = plait.Pool(2, kind="process")
pids = {pool.submit(os.getpid).result() for _ in range(20)}
def spin():
    while True: pass
futures = [pool.submit(spin) for _ in range(2)]
while not all(f.running() for f in futures): time.sleep(0.01)
print(*pids, flush=True)
print("ready", flush=True)
how = sys.argv[1]
if how == "os._exit": os._exit(0)
if how == "SIGSEGV": os.kill(os.getpid(), signal.SIGSEGV)
time.sleep(1000)
"""
    child = helpers.start(script, how)
    child.wait_for("ready")
    if how == "SIGKILL":
        child.process.kill()
    pids = [int(word) for word in child.finish().lines()[0].split()]
    assert pids
    assert helpers.settles(lambda: all(map(is_gone, pids)), 20)


def channel():
    """In a worker process: where its channel to the parent begins and ends."""
    with open("/proc/self/maps") as maps:
        line = next(line for line in maps if "memfd:plait" in line)
    return [int(part, 16) for part in line.split()[0].split("-")]


def scribble(seed, share):
    """Writes over the channel to the parent, as a bug in an extension may."""
    low, high = channel()
    rng = random.Random(seed)
    memory = (ctypes.c_ubyte * (high - low)).from_address(low)
    for _ in range(2000):
        memory[rng.randrange(int((high - low) * share))] = rng.randrange(256)
    return "scribbled"


@pytest.mark.parametrize("share", [0.0002, 0.4, 1])
def test_a_child_that_scribbles_over_its_channel(pool, share):
    for seed in range(8):
        future = pool.submit(scribble, seed, share)
        with contextlib.suppress(plait.WorkerDied, ValueError, pickle.UnpicklingError):
            assert future.result(LONG) == "scribbled"
        for _ in range(3):  # until a process that nobody has written over serves
            try:
                assert pool.submit(jobs.double, 4).result(LONG) == 8
            except (plait.WorkerDied, ValueError):
                continue


def test_a_child_that_has_begun_more_than_there_is():
    """Which no answer would show: it takes every request for one that was taken back."""

    def raise_begun():
        ctypes.c_uint64.from_address(channel()[0] + 64).value += 1 << 40

    with plait.Pool(1, kind="process") as pool:
        pool.submit(raise_begun).result(LONG)
        with pytest.raises(plait.WorkerDied, match="wrote over its channel"):
            pool.submit(abs, -1).result(LONG)
        assert pool.submit(abs, -1).result(LONG) == 1


def test_processes_that_are_all_killed_while_they_start(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", os.fspath(program))
    told = r"\(RuntimeError: the worker process \d+ was killed by signal 9 while it started\)"
    with plait.Pool(1, kind="process") as pool, pytest.raises(plait.BrokenPool, match=told):
        pool.submit(abs, -1).result(LONG)


# ---- chaos ----


def work(n):
    total = 0
    for k in range(n % 200):
        total += k
    return n, total


@pytest.mark.timeout(400)
def test_chaos():
    """Workers are killed and stopped at random instants: every task ends exactly once.

    By tasks, not by the clock, so that a slow machine is not killed faster than it can start
    children.
    """
    count, batch = int(os.environ.get("PLAIT_TEST_CHAOS", "3000")), 300
    rng, outcomes, kills = random.Random(5), {"result": 0, "died": 0}, 0
    _plait._end_kept(False)
    others = helpers.children_of(os.getpid())  # the default pool's, say

    def disturb():
        return helpers.hit_a_child(rng, 0.002, 0.01) is not None

    def take(n, ask):
        try:
            assert ask() == work(n)
            outcomes["result"] += 1
        except plait.WorkerDied:
            outcomes["died"] += 1

    with plait.Pool(3, kind="process") as pool:
        pool.submit(abs, -1).result(LONG)
        for first in range(0, count, batch):
            numbers = range(first, first + batch)
            futures = [pool.submit(work, n) for n in numbers]
            kills += disturb()
            for n, future in zip(numbers, futures, strict=True):
                take(n, lambda future=future: future.result(LONG))
        mapped = pool.map(work, range(count), buffersize=2 * batch)
        for n in range(count):
            kills += n % batch == 0 and disturb()
            take(n, lambda: next(mapped))
        assert list(mapped) == []
        assert sum(outcomes.values()) == 2 * count
        assert kills > 0
        assert outcomes["died"] <= kills
        assert list(pool.map(work, range(1000))) == [work(n) for n in range(1000)]
    _plait._end_kept(False)
    assert set(helpers.children_of(os.getpid())) <= set(others)
