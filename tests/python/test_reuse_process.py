"""Processes that serve one pool after another: what only they can leave behind, and how they end.

test_reuse.py has what interpreters have in common with them.
"""

import contextlib
import faulthandler
import locale
import os
import signal
import subprocess
import sys

import helpers
import leftovers
import plait
import pytest
from plait import _plait

LONG = helpers.LONG


@pytest.fixture(autouse=True)
def room_for_four(monkeypatch):
    monkeypatch.setenv("PLAIT_KEEP_PROCESSES", "4")
    _plait._end_kept(False)
    yield
    _plait._end_kept(False)


def kept():
    return _plait._count_kept("process")


def run(function, *args, **options):
    """In a process of a pool of its own: its number, and what came of it."""
    with plait.Pool(1, kind="process", **options) as pool:
        result = pool.submit(function, *args).result(LONG)
        return pool.submit(os.getpid).result(LONG), result


def is_there(pid):
    return os.path.exists(f"/proc/{pid}")


# ---- what belongs to the process ----


def set_variable():
    os.environ["PLAIT_TEST_LEFT"] = "1"


def set_variable_secretly():
    os.putenv("PLAIT_TEST_LEFT", "1")


def handle_signal():
    signal.signal(signal.SIGUSR1, lambda *_: None)


def block_signal():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


def set_timer():
    signal.setitimer(signal.ITIMER_REAL, 1000)


def redirect_stdout():
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)


def be_nice():
    os.nice(1)


def change_mask():
    os.umask(0o070)


def limit_files():
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))


def set_locale():
    for name in ("C", "C.UTF-8", "POSIX"):
        if locale.setlocale(locale.LC_ALL) != name:
            locale.setlocale(locale.LC_ALL, name)
            return


def start_process():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.2)"])


def switch_faulthandler():
    if faulthandler.is_enabled():
        faulthandler.disable()
    else:
        faulthandler.enable()


@pytest.mark.parametrize(
    "task",
    [
        set_variable,
        set_variable_secretly,
        handle_signal,
        block_signal,
        set_timer,
        redirect_stdout,
        be_nice,
        change_mask,
        limit_files,
        set_locale,
        start_process,
        switch_faulthandler,
    ],
    ids=lambda task: task.__name__,
)
def test_not_with_another_process_than_it_was(task):
    first, _ = run(task)
    assert kept() == 0
    assert not is_there(first)
    assert run(abs, 1)[0] != first


def test_the_folder_is_that_of_the_new_pool(tmp_path, monkeypatch):
    first, _ = run(os.chdir, "/")
    assert run(os.getcwd) == (first, os.getcwd())
    monkeypatch.chdir(tmp_path)
    second, folder = run(os.getcwd)
    assert second != first
    assert folder == os.fspath(tmp_path)


def test_a_process_that_has_ended_is_waited_for():
    first, _ = run(lambda: subprocess.run([sys.executable, "-c", ""], check=True).returncode)
    assert run(abs, 1)[0] == first


def test_ctrl_c_is_still_the_parents_affair():
    first, _ = run(signal.signal, signal.SIGINT, signal.default_int_handler)
    with plait.Pool(1, kind="process") as pool:
        pid = pool.submit(os.getpid).result(LONG)
        os.kill(pid, signal.SIGINT)
        assert pool.submit(os.getpid).result(LONG) == pid
    assert pid == first


@pytest.mark.parametrize(
    "options",
    [{"env": {"A": "1"}}, {"niceness": 1}, {"memory_limit": "4GB"}, {"max_tasks_per_worker": 9}],
    ids=lambda options: next(iter(options)),
)
def test_pools_with_limits_neither_take_nor_leave_one(options):
    first, _ = run(abs, 1)
    assert run(abs, 1, **options)[0] != first
    assert kept() == 1


def test_other_streams_are_for_another_process(tmp_path):
    first, _ = run(abs, 1)
    saved = os.dup(1)
    try:
        with open(tmp_path / "out", "w") as out:
            os.dup2(out.fileno(), 1)
        second, _ = run(os.write, 1, b"there")
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert second != first
    assert (tmp_path / "out").read_bytes() == b"there"
    assert run(abs, 1)[0] == first


def test_it_serves_pools_of_other_threads():
    numbers = set()

    def use(_):
        numbers.add(run(abs, 1)[0])

    for _ in range(3):
        helpers.in_threads(1, use)
    assert len(numbers) == 1


def test_interrupts_reach_it_again(tmp_path):
    run(abs, 1)
    with plait.Pool(1, kind="process") as pool:
        future = pool.submit(leftovers.spin, os.fspath(tmp_path / "begun"))
        assert helpers.settles((tmp_path / "begun").exists)
        future.interrupt()
        with pytest.raises(plait.Interrupted):
            future.result(LONG)
        assert pool.submit(abs, -1).result(LONG) == 1


# ---- ends ----


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_one_that_dies_while_it_waits(number):
    first, _ = run(abs, 1)
    os.kill(first, number)
    assert helpers.settles(lambda: not is_there(first))  # reaped, though nobody looks after it
    second, _ = run(abs, 1)
    assert second != first
    assert kept() == 1
    assert run(abs, 1)[0] == second


def test_nothing_is_left_of_those_that_end():
    def open_some():
        for _ in range(3):
            with plait.Pool(2, kind="process") as pool:
                assert list(pool.map(abs, range(-9, 0))) == [*range(9, 0, -1)]

    for _ in range(2):  # the allocator's arenas for threads are there then
        open_some()
        _plait._end_kept(False)
    held = helpers.Holdings.now()
    open_some()
    _plait._end_kept(False)
    assert helpers.settled(held, 8)
    with contextlib.suppress(ChildProcessError):  # else others live: the default pool's
        assert os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


KEPT = """
import os, signal, sys, plait
from plait import _plait
with plait.Pool(1, kind="process") as pool:
    child = pool.submit(os.getpid).result()
assert _plait._count_kept("process") == 1
print(child, flush=True)
"""


def ends(how):
    """Runs a script that keeps a process and ends in some way; the process must go with it."""
    started = helpers.start(KEPT + how)
    ended = started.finish()
    child = int(ended.lines()[0])
    assert helpers.settles(lambda: not is_there(child), 20)
    return ended


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(child, signal.SIGSTOP); os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(5)'])", 5),
        ("os.kill(child, signal.SIGKILL)", 0),
    ],
    ids=["end", "exit", "at once", "killed", "killed while it is stopped", "another", "before"],
)
def test_it_ends_with_its_parent(how, code):
    assert ends(how).code == code


def test_a_fork_does_not_hold_it():
    """The copy of the parent that a fork makes is not its parent, whatever it has open."""
    script = """
if os.fork() == 0:
    assert _plait._count_kept("process") == 0
    sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)
    import time; time.sleep(5)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert ends(script).code == -signal.SIGKILL
