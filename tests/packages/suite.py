"""A package's own tests in interpreter workers, two at once: `tools/test numpy-suite pandas-suite`,
or tests/packages/suite.py NAME [PART...] [--workers N] [-k EXPRESSION]

Each worker has a pytest of its own, in its own interpreter, and runs all of them. Captured is
sys.stdout, not the descriptor, which the workers share. What may not pass there, and why, is listed
with the suite; a listed test that passes is an error, as is an entry without a test. With
--workers 0 the main interpreter runs them, for comparison.
"""

import argparse
import faulthandler
import importlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import plait

WATCHDOG = 3600  # seconds: far more than it takes

# What is the process's, or needless here.
OFF = ("faulthandler", "cacheprovider", "terminal", "timeout")

Outcomes = dict[str, tuple[str, str]]  # test: passed, skipped or failed; and what was said


@dataclass(frozen=True)
class Entry:
    """`test`: its node id. `run`: False for one that would only wait, or disturb the others."""

    test: str
    why: str
    run: bool = True


@dataclass(frozen=True)
class Suite:
    """What is run of a package, and how. `settings`: pytest's, or the package's file of them."""

    package: str
    parts: tuple[str, ...]
    settings: str
    expected: tuple[Entry, ...]
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


NUMPY = Suite(
    package="numpy",
    parts=("numpy._core", "numpy.linalg", "numpy.random", "numpy.fft"),
    settings="[pytest]\n",
    # Larger arrays are left out: filling them takes minutes, and there are two workers.
    environment={"NPY_AVAILABLE_MEM": "2 GB"},
    expected=(
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
    ),
)

PANDAS = Suite(
    package="pandas",
    parts=("pandas.tests.groupby", "pandas.tests.frame"),
    settings="pyproject.toml",
    options=("-m", "not slow and not network and not db"),
    expected=(
        Entry(
            "tests/frame/methods/test_to_records.py"
            "::TestDataFrameToRecords::test_to_records_with_Mapping_type",
            "uses email.message, which it does not import: fails in the main interpreter, too",
        ),
    ),
)

SUITES = {suite.package: suite for suite in (NUMPY, PANDAS)}


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


def judge(suite: Suite, outcomes: Outcomes, whole: bool) -> list[str]:
    """What is wrong with the outcomes; nothing if they are as listed. `whole`: no test was left
    out but those listed.
    """
    wrong = []
    listed = {entry.test for entry in suite.expected}
    for test, (outcome, said) in outcomes.items():
        if outcome == "failed" and test not in listed:
            wrong.append(f"{test}: {said}")
        if outcome == "passed" and test in listed:
            wrong.append(f"{test} passed: strike it from the list in {Path(__file__).name}")
    if whole:
        unmet = sorted(listed - outcomes.keys())
        wrong += [f"{test} is listed, but there is no such test" for test in unmet]
    return wrong if outcomes else ["no test was run"]


def arguments(suite: Suite, home: Path, folder: Path) -> list[str]:
    """pytest's, but for the tests to run. home: of the package; folder: for temporary files."""
    settings = home / suite.settings
    if not settings.exists():
        settings = folder / "pytest.ini"
        settings.write_text(suite.settings)
    off = [f"-pno:{name}" for name in OFF]
    return [*off, "--capture=sys", "-c", str(settings), "--rootdir", str(home), *suite.options]


def run_all(workers: int, left_out: list[str], words: list[str]) -> list[Outcomes]:
    """What came of it in each worker; in the main interpreter if there are to be none."""
    if workers == 0:
        return [run(Recorder(left_out), words)]
    pools = [plait.Pool(1, kind="interpreter") for _ in range(workers)]
    futures = [pool.submit(run, Recorder(left_out), words) for pool in pools]
    results = [future.result() for future in futures]
    for pool in pools:
        pool.shutdown()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/packages/suite.py")
    parser.add_argument("name", choices=SUITES)
    parser.add_argument("parts", nargs="*", metavar="PART", help="modules, instead of the suite's")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-k", dest="chosen", help="as pytest's")
    options = parser.parse_args()
    suite = SUITES[options.name]
    package = importlib.import_module(suite.package)
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    os.environ.update(suite.environment)
    with tempfile.TemporaryDirectory() as folder:
        words = arguments(suite, Path(package.__file__).parent, Path(folder))
        words += ["-k", options.chosen] if options.chosen else []
        words += ["--pyargs", *(options.parts or suite.parts)]
        left_out = [entry.test for entry in suite.expected if not entry.run]
        results = run_all(options.workers, left_out, words)
    whole = not options.parts and not options.chosen
    failed = False
    for number, outcomes in enumerate(results, 1):
        counts = Counter(outcome for outcome, _ in outcomes.values())
        print(f"{suite.package} {package.__version__}, worker {number}: {dict(counts)}")
        wrong = judge(suite, outcomes, whole)
        print(*wrong, sep="\n", end="\n" if wrong else "")
        failed |= bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
