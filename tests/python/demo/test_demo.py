"""The demo as a command: contestants in processes of their own, their figures, and the verdict."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from plait.cli import main
from plait.cli.contest import Outcome, run_contestant
from plait.cli.contestant import CONTESTANTS
from plait.cli.demo import find_differing, list_files, pick_best

OWN = ["serial", "threads", "processes"]
"""Contestants that every interpreter can serve without plait's core."""

STDLIB = [*OWN, "interpreters"]

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def tree(tmp_path) -> Path:
    """A folder with a few files, one of which does not parse."""
    root = tmp_path / "tree"
    (root / "inner").mkdir(parents=True)
    for number in range(12):
        function = f"def f{number}(x):\n" + "    if x: pass\n" * number + "    return x\n"
        (root / "inner" / f"file{number}.py").write_text(function)
    (root / "broken.py").write_text("def")
    (root / "note.txt").write_text("not Python")
    return root


def demo(tree: Path, chart: Path, *names: str) -> int:
    only = [argument for name in names for argument in ("--only", name)]
    return main(["demo", "--path", str(tree), "--workers", "2", "--chart", str(chart), *only])


def ignore(done: int) -> None:
    pass


def test_the_files_are_all_found_and_always_in_the_same_order(tree):
    (tree / "site-packages").mkdir()
    (tree / "site-packages" / "theirs.py").touch()
    files = list_files(tree, skip_packages=True)
    assert sorted(files) == sorted(str(p) for p in tree.rglob("*.py") if p.name != "theirs.py")
    assert files == list_files(tree, skip_packages=True)
    assert files != sorted(files)
    assert len(list_files(tree, skip_packages=False)) == len(files) + 1


@pytest.mark.parametrize("name", STDLIB)
def test_a_contestant_gives_figures_and_the_answer(tree, name):
    files = list_files(tree, skip_packages=False)
    serial = run_contestant("serial", 2, files, ignore)
    outcome = run_contestant(name, 2, files, ignore)
    if name == "interpreters" and sys.version_info < (3, 14):
        assert (outcome.status, outcome.reason) == ("refused", "new in Python 3.14")
        return
    assert outcome.status == "ok"
    assert outcome.digest == serial.digest
    assert outcome.summary is not None
    assert (outcome.summary["files"], outcome.summary["skipped"]) == (12, 1)
    assert 0 < outcome.seconds < 60
    assert outcome.cpu_seconds > 0
    assert 5e6 < outcome.peak_bytes < 2e9
    assert outcome.python.split()[1].startswith(f"{sys.version_info.major}.")


@pytest.mark.parametrize("kind", ["thread", "interpreter"])
def test_plaits_kinds_give_the_answer_or_a_reason(tree, kind):
    plait = pytest.importorskip("plait")
    if not hasattr(plait, "Pool"):
        pytest.skip("plait is not built")
    files = list_files(tree, skip_packages=False)
    outcome = run_contestant(f"plait-{kind}", 2, files, ignore)
    if outcome.status == "refused":
        assert outcome.reason
    else:
        assert outcome.status == "ok", outcome
        assert outcome.digest == run_contestant("serial", 2, files, ignore).digest


def test_the_cpu_time_of_worker_processes_counts(tmp_path):
    busy = tmp_path / "busy.py"
    busy.write_text("def f(x):\n" + "    x = [x + 1 for x in x if x and x]\n" * 800)
    files = [str(busy)] * 8
    serial = run_contestant("serial", 2, files, ignore)
    processes = run_contestant("processes", 2, files, ignore)
    assert serial.cpu_seconds > 0.1
    assert processes.cpu_seconds > 0.5 * serial.cpu_seconds


def test_progress_is_told(tree):
    seen: list[int] = []
    run_contestant("serial", 1, list_files(tree, skip_packages=False) * 200, seen.append)
    assert seen[0] == 1
    assert seen == sorted(seen)
    assert seen[-1] <= 13 * 200


def test_the_command(tree, tmp_path, capfd):
    chart = tmp_path / "chart.png"
    assert demo(tree, chart, *OWN) == 0
    printed = capfd.readouterr().out
    assert "All 3 gave the same answer" in printed
    assert "ProcessPoolExecutor" in printed
    assert "InterpreterPoolExecutor" not in printed
    assert "12 files (1 more do not parse)" in printed
    assert "f11" in printed
    assert str(chart) in printed
    assert "\x1b" not in printed  # this is not a terminal
    assert chart.read_bytes().startswith(PNG)


def test_repeated_runs(tree, tmp_path, capfd):
    chart = str(tmp_path / "chart.png")
    arguments = ["--path", str(tree), "--workers", "1", "--only", "serial", "--chart", chart]
    assert main(["demo", *arguments, "--repeat", "3"]) == 0
    assert capfd.readouterr().out.count("serial: map(): ok") == 3


def test_different_answers_are_an_error(tree, tmp_path, capfd, monkeypatch):
    def run_wrongly(name, workers, items, on_progress, **options):
        given = items[1:] if name == "threads" else items
        return run_contestant(name, workers, given, on_progress, **options)

    monkeypatch.setattr("plait.cli.contest.run_contestant", run_wrongly)
    assert demo(tree, tmp_path / "chart.png", "serial", "threads") == 1
    assert "DIFFERENT ANSWERS: threads against serial" in capfd.readouterr().out


def test_a_crash_is_shown_and_is_an_error(tree, tmp_path, capfd, monkeypatch):
    # As a fault in C code would.
    def start_and_kill(*arguments):
        process = start(*arguments)
        os.kill(process.pid, signal.SIGSEGV)
        return process

    from plait.cli import contest

    start = contest._start
    monkeypatch.setattr(contest, "_start", start_and_kill)
    chart = tmp_path / "chart.png"
    assert demo(tree, chart, "serial") == 1
    printed = capfd.readouterr().out
    assert "serial: map() failed: killed by SIGSEGV" in printed
    assert not chart.exists()


def test_the_last_lines_of_standard_error_are_kept(tree):
    outcome = run_contestant("unknown", 2, list_files(tree, skip_packages=False), ignore)
    assert (outcome.status, outcome.reason) == ("failed", "exit status 1")
    assert outcome.stderr[-1] == "KeyError: 'unknown'"


def test_an_exception_leaves_no_process(tree):
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    files = list_files(tree, skip_packages=False) * 500
    with pytest.raises(KeyboardInterrupt):
        run_contestant("processes", 2, files, interrupt)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


@pytest.mark.skipif(sys.platform == "win32", reason="a signal of POSIX")
def test_ctrl_c_ends_it_with_all_its_processes(tree, tmp_path):
    for number in range(300):
        (tree / f"more{number}.py").write_text("x = [a + b for a in c if d]\n" * 2000)
    command = ["--path", str(tree), "--only", "processes", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "plait", "demo", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    started = _wait_for_children(process.pid, 2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert error == b"plait demo: interrupted\n"
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


def _wait_for_children(pid: int, count: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = psutil.Process(pid).children(recursive=True)
        if len(children) > count:  # the contestant itself, and its workers
            return children
        time.sleep(0.05)
    raise TimeoutError(f"process {pid} has not started {count} workers")


def test_wrong_arguments(tree, tmp_path, capfd):
    assert main(["demo", "--path", str(tmp_path / "nowhere")]) == 2
    assert "no .py files" in capfd.readouterr().err
    nowhere = str(tmp_path / "nowhere" / "chart.png")
    assert main(["demo", "--path", str(tree), "--chart", nowhere]) == 2
    assert "no folder" in capfd.readouterr().err
    for wrong in (["--workers", "0"], ["--only", "nobody"], ["--repeat", "x"]):
        with pytest.raises(SystemExit) as error:
            main(["demo", *wrong])
        assert error.value.code == 2


def test_missing_dependencies_are_named(tree, capfd, monkeypatch):
    monkeypatch.setattr("plait.cli.demo.EXTRA", ("rich", "no_such_module"))
    assert main(["demo", "--path", str(tree)]) == 2
    assert "needs no_such_module: pip install plait[demo]" in capfd.readouterr().err


def outcome(seconds: float, digest: str = "a", **fields) -> Outcome:
    return Outcome("serial", **{"status": "ok", "seconds": seconds, "digest": digest, **fields})


def test_the_best_of_several_runs_counts_unless_one_failed():
    assert pick_best([outcome(2), outcome(1), outcome(3)]).seconds == 1
    assert pick_best([outcome(2), outcome(1, status="failed")]).status == "failed"


def test_differing_answers_are_named_once_and_others_do_not_count():
    wrong = Outcome("threads", "ok", digest="b")
    refused = Outcome("interpreters", "refused")
    assert find_differing([outcome(1), wrong, refused, wrong]) == ["threads"]
    assert find_differing([outcome(1), refused]) == []
    assert find_differing([]) == []


def test_every_contestant_has_a_title():
    titles = [title for title, _ in CONTESTANTS.values()]
    assert len(set(titles)) == len(titles)


# ---- images ----

IMAGES = "numpy" in sys.modules or importlib.util.find_spec("numpy") is not None
needs_numpy = pytest.mark.skipif(not IMAGES, reason="NumPy is not to be had here")


@needs_numpy
@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_contestant_analyses_images(tmp_path, name):
    picture, other = tmp_path / "a.png", tmp_path / "b.png"
    serial = run_contestant("serial", 2, range(3), ignore, work="images", pictures=picture)
    outcome = run_contestant(name, 2, range(3), ignore, work="images", pictures=other)
    if outcome.status == "refused":
        assert name in ("interpreters", "plait-interpreter")
        assert outcome.reason
        assert not other.exists()
        return
    assert outcome.status == "ok", outcome
    assert outcome.digest == serial.digest
    assert outcome.summary["images"] == 3
    assert other.read_bytes() == picture.read_bytes()


@needs_numpy
def test_other_images_have_another_answer():
    answers = [
        run_contestant("serial", 1, numbers, ignore, work="images").digest
        for numbers in ([1, 2], [1, 3], [1, 2])
    ]
    assert answers[0] == answers[2] != answers[1]


@needs_numpy
def test_the_act_on_images(tmp_path, capfd):
    chart = tmp_path / "chart.png"
    arguments = ["--only-images", "--images", "2", "--workers", "2", "--chart", str(chart)]
    assert main(["demo", *arguments, "--only", "serial", "--only", "plait-thread"]) == 0
    printed = capfd.readouterr().out
    assert "2 images, 2,097,152 pixels" in printed
    assert "All 2 gave the same answer" in printed
    for name in ("chart-images.png", "chart-pictures.png"):
        assert str(tmp_path / name) in printed
        assert (tmp_path / name).read_bytes().startswith(PNG)
    assert not chart.exists()


def test_without_numpy_the_images_are_left_out(tmp_path, capfd, monkeypatch):
    find_spec = importlib.util.find_spec

    def find_no_numpy(name, package=None):
        return None if name == "numpy" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_no_numpy)
    assert main(["demo", "--only-images", "--chart", str(tmp_path / "chart.png")]) == 0
    assert "No images are analysed: that needs NumPy" in capfd.readouterr().out
