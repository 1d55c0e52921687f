"""NumPy's own tests in interpreter workers, two at once: `tools/test numpy-suite`, or
tests/packages/numpy_suite.py [PACKAGE...] [--workers N] [-k EXPRESSION]

Each worker has a pytest of its own, in its own interpreter, and runs all of them. Captured is
sys.stdout, not the descriptor, which the workers share. What may not pass there, and why, is listed
in EXPECTED; a listed test that passes is an error, as is an entry without a test.
"""

import argparse
import faulthandler
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import plait

PACKAGES = ("numpy._core", "numpy.linalg", "numpy.random", "numpy.fft")

WATCHDOG = 3600  # seconds: far more than it takes

# Larger arrays are left out: filling them takes minutes, and there are two workers.
MEMORY = "2 GB"

# What is the process's, or needless here.
OFF = ("faulthandler", "cacheprovider", "terminal", "timeout")

Outcomes = dict[str, tuple[str, str]]  # test: passed, skipped or failed; and what was said


@dataclass(frozen=True)
class Entry:
    """`test`: its node id. `run`: False for one that would only wait, or disturb the others."""

    test: str
    why: str
    run: bool = True


EXPECTED = (
    Entry("linalg/tests/test_linalg.py::test_xerbla_override", "forks"),
    Entry(
        "_core/tests/test_nditer.py::test_debug_print",
        "captures file descriptors, which the workers share",
        run=False,
    ),
    Entry(
        "_core/tests/test_multiarray.py::TestCreation::test_tracemalloc",
        "traces memory, which is the whole process's",
    ),
    Entry(
        "_core/tests/test_multiprocessing.py::test_read_write_bool_array",
        "ProcessPoolExecutor fails for want of daemon threads, which CPython refuses here",
        run=False,
    ),
)


class Recorder:
    """A pytest plugin that keeps what came of each test, and leaves out those not to be run."""

    def __init__(self, left_out: list[str]) -> None:
        self.outcomes: Outcomes = {}
        self._left_out = left_out

    def pytest_collection_modifyitems(self, items) -> None:
        for item in items:
            if item.nodeid in self._left_out:
                self.outcomes[item.nodeid] = ("left out", "")
        items[:] = [item for item in items if item.nodeid not in self._left_out]

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self._note(report, "failed")

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self._note(report, "failed")
        elif report.when == "call" or report.skipped:
            self._note(report, report.outcome)

    def _note(self, report, outcome: str) -> None:
        if self.outcomes.get(report.nodeid, ("",))[0] != "failed":  # a teardown after it passed
            said = str(report.longrepr)[-2000:] if report.failed else ""
            self.outcomes[report.nodeid] = (outcome, said)


def run(recorder: Recorder, arguments: list[str]) -> Outcomes:
    """In a worker: runs pytest."""
    import pytest

    status = pytest.main(arguments, plugins=[recorder])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest: {status!r}")
    return recorder.outcomes


def judge(outcomes: Outcomes, whole: bool) -> list[str]:
    """What is wrong with the outcomes; nothing if they are as listed. `whole`: no test was left
    out but those listed.
    """
    wrong = []
    listed = {entry.test for entry in EXPECTED}
    for test, (outcome, said) in outcomes.items():
        if outcome == "failed" and test not in listed:
            wrong.append(f"{test}: {said}")
        if outcome == "passed" and test in listed:
            wrong.append(f"{test} passed: strike it from the list in {Path(__file__).name}")
    if whole:
        unmet = sorted(listed - outcomes.keys())
        wrong += [f"{test} is listed, but there is no such test" for test in unmet]
    return wrong if outcomes else ["no test was run"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/packages/numpy_suite.py")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", default=PACKAGES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-k", dest="chosen", help="as pytest's")
    options = parser.parse_args()
    import numpy

    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    os.environ["NPY_AVAILABLE_MEM"] = MEMORY
    with tempfile.TemporaryDirectory() as folder:
        ini = Path(folder, "pytest.ini")
        ini.write_text("[pytest]\n")
        arguments = [*(f"-pno:{name}" for name in OFF), "--capture=sys", "-c", os.fspath(ini)]
        arguments += ["--rootdir", os.fspath(Path(numpy.__file__).parent)]
        arguments += ["-k", options.chosen] if options.chosen else []
        arguments += ["--pyargs", *options.packages]
        left_out = [entry.test for entry in EXPECTED if not entry.run]
        pools = [plait.Pool(1, kind="interpreter") for _ in range(options.workers)]
        futures = [pool.submit(run, Recorder(left_out), arguments) for pool in pools]
        results = [future.result() for future in futures]
        for pool in pools:
            pool.shutdown()
    whole = options.packages == PACKAGES and not options.chosen
    failed = False
    for number, outcomes in enumerate(results, 1):
        counts = Counter(outcome for outcome, _ in outcomes.values())
        print(f"NumPy {numpy.__version__}, worker {number}: {dict(counts)}")
        wrong = judge(outcomes, whole)
        print(*wrong, sep="\n", end="\n" if wrong else "")
        failed |= bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
