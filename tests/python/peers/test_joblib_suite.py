"""joblib's own test_parallel.py on plait; see joblib_suite.py."""

import os
import subprocess
import sys
from pathlib import Path

import helpers
import pytest

HERE = Path(__file__).resolve().parent
SECONDS = 1800  # far more than it takes


@pytest.mark.timeout(SECONDS + 20)
def test_parallel(tmp_path):
    """Threads stand in for joblib's threads, interpreters for its processes if NumPy serves there.

    Not processes: theirs start too slowly for what joblib expects within ten seconds of the clock.
    """
    own_gil = "interpreter" in helpers.kinds_here() and not helpers.FREE_THREADED
    kind = "interpreter" if own_gil else "thread"
    (tmp_path / "pytest.ini").write_text("[pytest]\ntimeout = 300\n")
    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-p", "joblib_suite"]
    options = ["-q", "-rfE", "--tb=short", "-W", "ignore", "-p", "no:cacheprovider"]
    where = ["-c", tmp_path / "pytest.ini", "--rootdir", tmp_path]
    ended = subprocess.run(
        [*command, *options, *where, "--pyargs", "joblib.test.test_parallel"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(os.fspath, (HERE / "joblib_site", HERE))),
            "PLAIT_JOBLIB_KIND": kind,
        },
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:]
    assert " passed" in ended.stdout, ended.stdout
