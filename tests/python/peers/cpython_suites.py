"""Runs one of CPython's own suites for concurrent.futures on plait.Pool: one process per suite.

    python -m peers.cpython_suites SUITE OUTCOMES

with site/ on PYTHONPATH, which puts stand_in's classes into concurrent.futures in this process and
in every one that a test starts; PLAIT_PEER_KIND says which kind they are. OUTCOMES is written as
JSON: test -> ["passed" | "skipped" | "failed", detail].

Taken of a suite is what it runs on ThreadPoolExecutor, and, for the kind that it is about, all of
test_interpreter_pool: its other tests are these again, on other executors.
"""

import importlib
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path

import helpers
import plait
from peers import stand_in
from test import support
from test.support import script_helper

PACKAGE = "test.test_concurrent_futures"


class Event(helpers.Gate):
    """A threading.Event, as far as the suites use it, that travels to workers of any kind."""

    def __init__(self, folder: str) -> None:
        super().__init__(Path(tempfile.mktemp(dir=folder)))

    def set(self) -> None:
        self.open()


class Outcomes(unittest.TestResult):
    """Each test's outcome; of several failures in one test, the first."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, tuple[str, str]] = {}

    def _note(self, test: unittest.TestCase, outcome: str, detail: str = "") -> None:
        name = ".".join(test.id().split(".")[-2:])
        if self.of.get(name, ("", ""))[0] != "failed":
            self.of[name] = (outcome, detail)

    def startTest(self, test):
        super().startTest(test)
        support.environment_altered = False

    def stopTest(self, test):
        super().stopTest(test)
        if support.environment_altered:
            self._note(test, "failed", "it left threads or child processes behind")

    def addSuccess(self, test):
        self._note(test, "passed")

    def addSkip(self, test, reason):
        self._note(test, "skipped", reason)

    def addFailure(self, test, error):
        self._note(test, "failed", self._exc_info_to_string(error, test))

    addError = addFailure

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.addFailure(test, error)

    def addExpectedFailure(self, test, error):
        self._note(test, "passed", "expected by CPython to fail")

    def addUnexpectedSuccess(self, test):
        self._note(test, "failed", "expected by CPython to fail, but passed")


def watch_children() -> None:
    """Children of the suites see site/; one that has made no pool of ours fails its test."""
    witness = os.environ[stand_in.WITNESS]
    run = script_helper.run_python_until_end

    def watched(*args, **env):
        before = os.path.getsize(witness)
        ended = run(*args, **env)
        if os.path.getsize(witness) == before:
            raise AssertionError("the child process has made no plait.Pool")
        return ended

    script_helper.run_python_until_end = watched
    if "PLAIT_PEER_ISOLATED" not in os.environ:  # set to see that the check above can fail
        script_helper.interpreter_requires_environment = lambda: True


def is_ours(test: unittest.TestCase, suite: str) -> bool:
    """Whether it is one of the tests that this suite has for plait."""
    executor = getattr(test, "executor_type", None)
    if not (isinstance(executor, type) and issubclass(executor, plait.Pool)):
        return False
    return executor is stand_in.ThreadPoolExecutor or suite == "test_interpreter_pool"


def tests_of(suite: str, folder: str) -> list[unittest.TestCase]:
    util = importlib.import_module(f"{PACKAGE}.util")
    util.ThreadPoolMixin.create_event = lambda self: Event(folder)
    module = importlib.import_module(f"{PACKAGE}.{suite}")
    found = unittest.defaultTestLoader.loadTestsFromModule(module)
    return [test for tests in found for test in tests if is_ours(test, suite)]


def main(suite: str, path: str) -> None:
    with plait.Pool(1, kind="thread") as pool:
        # The notifier's thread lives from now on: it is not one that a test leaves behind.
        pool.submit(int).add_done_callback(id)
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as folder:
        os.environ[stand_in.WITNESS] = os.path.join(folder, "witness")
        open(os.environ[stand_in.WITNESS], "w").close()
        watch_children()
        unittest.TestSuite(tests_of(suite, folder)).run(outcomes)
    with open(path, "w") as file:
        json.dump(outcomes.of, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
