"""CPython's own suites for concurrent.futures, run on plait.Pool; see cpython_suites.py.

They come from the `test` package of the interpreter that runs this. Where it has none,
CPYTHON_TESTS may name the folder Lib/test of its source.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import helpers
import pytest
from peers import expected, stand_in

SUITES = ["test_init", "test_wait", "test_as_completed", "test_shutdown", "test_thread_pool"]

CASES = [(kind, suite) for kind in helpers.kinds_here() for suite in SUITES]
if sys.version_info >= (3, 14) and "interpreter" in helpers.kinds_here():
    CASES.append(("interpreter", "test_interpreter_pool"))

Case = tuple[str, str]

HERE = Path(__file__).resolve().parent
SECONDS = 400  # for one suite: far more than it takes
AT_ONCE = 4  # suites: they sleep most of the time


def run_suite(suite: str, kind: str, folder: Path, **env: str) -> dict[str, tuple[str, str]]:
    """Runs a suite in a process of its own. Its outcomes, test by test."""
    path = folder / "outcomes.json"
    command = [sys.executable, "-X", "faulthandler", "-m", "peers.cpython_suites", suite, path]
    ended = subprocess.run(
        command,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(os.fspath, (HERE.parent, HERE / "site"))),
            stand_in.KIND: kind,
            **env,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert ended.returncode == 0, ended.stdout
    return json.loads(path.read_text())


@pytest.fixture(scope="module", autouse=True)
def _package():
    """CPython's tests must be there: a run without them proves nothing, and says so."""
    if stand_in.TESTS not in os.environ and not _has_tests():
        version = ".".join(map(str, sys.version_info[:3]))
        reason = (
            f"CPython's own suites were NOT run: this {version} was installed without "
            "test.test_concurrent_futures (set CPYTHON_TESTS to Lib/test of its source)"
        )
        pytest.skip(reason)


def _has_tests() -> bool:
    try:
        return importlib.util.find_spec("test.test_concurrent_futures.util") is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory) -> Iterator[dict[Case, Future]]:
    """What is to come of every case that was chosen: they run beside each other."""
    items = [item for item in request.session.items if item.function is test_suite]
    cases = [(item.callspec.params["kind"], item.callspec.params["suite"]) for item in items]
    with ThreadPoolExecutor(AT_ONCE) as executor:
        yield {
            (kind, suite): executor.submit(run_suite, suite, kind, tmp_path_factory.mktemp(suite))
            for kind, suite in cases
        }


@pytest.mark.timeout(SECONDS + 20)
@pytest.mark.parametrize(("kind", "suite"), CASES)
def test_suite(kind, suite, outcomes):
    wrong = expected.judge(suite, kind, outcomes[kind, suite].result())
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(SECONDS + 20)
def test_a_child_that_gets_the_standard_librarys_executor_is_noticed(tmp_path):
    """Children that do not see site/ (isolated ones) get it: their tests must fail for that."""
    outcomes = run_suite("test_shutdown", "thread", tmp_path, PLAIT_PEER_ISOLATED="1")
    noticed = {
        name.split(".")[1]
        for name, (_, detail) in outcomes.items()
        if "has made no plait.Pool" in detail
    }
    assert noticed == {
        "test_interpreter_shutdown",
        "test_submit_after_interpreter_shutdown",
        "test_hang_gh83386",
        "test_cancel_futures_wait_false",
    }
