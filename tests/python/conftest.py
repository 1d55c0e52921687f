"""What every test of the package shares: the kinds that serve here, pools, and child processes.

This folder is put on sys.path, for helpers.py and jobs.py: workers of the interpreter kind take the
path over, and import from there what they run.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parent))

import helpers
import jobs
import plait
import pytest

# A shell ignores Ctrl-C for what it runs in the background, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=helpers.kinds_here())
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of worker that serves on this interpreter."""
    return request.param


@pytest.fixture(scope="module")
def pool(kind: str) -> Iterator[plait.Pool]:
    """Two workers for a whole module: whatever a test does to them, they go on working."""
    with plait.Pool(2, kind=kind) as shared:
        yield shared


@pytest.fixture
def alive(pool: plait.Pool) -> Iterator[plait.Pool]:
    """The module's pool, which must still serve, with both workers, when the test is over."""
    yield pool
    assert list(pool.map(abs, range(-1000, 0), timeout=60)) == list(range(1000, 0, -1))
    assert pool.submit(pow, 2, 10).result(60) == 1024


@pytest.fixture
def one(kind: str) -> Iterator[plait.Pool]:
    """One worker, which serves already, and still must in the end, without a trace of the test."""
    with plait.Pool(1, kind=kind) as pool:
        pool.submit(jobs.turn).result(helpers.LONG)
        yield pool
        assert [pool.submit(sum, [n, 1]).result(helpers.LONG) for n in range(20)] == [*range(1, 21)]
        assert list(pool.map(abs, range(-300, 0))) == [*range(300, 0, -1)]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[helpers.Gate]:
    """Opened when the test is over, whatever happened."""
    made = helpers.Gate(tmp_path / "open")
    yield made
    made.open()
