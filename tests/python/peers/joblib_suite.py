"""A pytest plugin for joblib's own test_parallel.py, run on plait: which tests, and what fails.

joblib_site/ puts plait in the place of joblib's backends. A test that is listed and passes is an
error, as is an entry without a test: the list stays true.
"""

import fnmatch
import multiprocessing
import os
from dataclasses import dataclass

import joblib.testing
import joblib_stand_in
import pytest
from joblib.parallel import BACKENDS, Parallel, delayed

LOKY_KIND = os.environ[joblib_stand_in.KIND]


@dataclass(frozen=True)
class Entry:
    """`test`: a pattern of fnmatch; brackets are themselves. `kinds`: if one of these stands in
    for loky. `run`: False for one that would only wait.
    """

    test: str
    why: str
    kinds: tuple[str, ...] = ("thread", "interpreter", "process")
    run: bool = True


APART = ("interpreter", "process")  # the kinds whose workers share no objects with the caller

_NESTED = "wants nested calls in joblib's threads or one by one; plait's run in the task's own pool"
_MEMORY_MAPS = "wants arrays to arrive as memory maps of files, which only processes need"
_MANAGER = "NOT YET: a manager's proxy wants the authkey, which each interpreter draws anew"
_SHARED = "wants loky's workers to share no memory; the threads that stand in for them do"
_PROCESSES = "counts its workers by their process ids"

EXPECTED = (
    Entry("test_nested_parallel_warnings[*-True]", "wants a warning that pools cannot be nested"),
    Entry("test_parallel_pickling", "wants the words of loky's error"),
    Entry("test_batching_auto_threading", "wants no batches with threads; plait batches"),
    Entry("test_nested_backend_context_manager[*]", _NESTED),
    Entry("test_nested_parallelism_limit[*]", _NESTED),
    Entry(
        "test_parallel_with_interactively_defined_bound_method_loky",
        "wants loky's log",
    ),
    Entry(
        "test_multiple_generator_call_separated_gc[*-loky-True]",
        "wants a second call to fail if the first one's generator is collected; here it goes on",
    ),
    Entry("test_auto_memmap_on_arrays_from_generator[*]", _MEMORY_MAPS),
    Entry("test_memmapping_leaks[*]", _MEMORY_MAPS),
    Entry("test_threadpool_limitation_in_child_override[*]", "wants environments of processes"),
    Entry("test_initializer_reused[*]", _PROCESSES, run=False),
    Entry("test_initializer_not_reused[*]", _PROCESSES, run=False),
    Entry("test_backend_hinting_and_constraints[*]", _SHARED, ("thread",)),
    Entry("test_invalid_backend_hinting_and_constraints", _SHARED, ("thread",)),
    Entry("test_dispatch_multiprocessing[loky]", _MANAGER, APART),
    Entry("test_dispatch_multiprocessing[multiprocessing]", _MANAGER, APART),
    Entry("test_initializer_context[*]", _MANAGER, APART),
    Entry("test_initializer_parallel[*]", _MANAGER, APART),
)

# Variants that repeat others here: plait under its own name is what stands in for loky, and so is a
# backend derived from it; instances are what their names make.
REPEATED = ("plait", "back_compat_backend", "backend")


def _check_subprocess_call(cmd, timeout=None, **regexes):
    """joblib's own, which gives scripts ten seconds: little where much else runs."""
    _original(cmd, timeout=None, **regexes)


_original = joblib.testing.check_subprocess_call
joblib.testing.check_subprocess_call = _check_subprocess_call


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def pytest_collection_modifyitems(config, items):
    chosen, left = [], []
    for item in items:
        values = item.name.partition("[")[2].rstrip("]").split("-")
        repeated = any(value.rstrip("0123456789") in REPEATED for value in values)
        (left if repeated else chosen).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = chosen
    for entry in EXPECTED:
        listed = [item for item in items if _matches(item.name, entry.test)]
        if not listed:
            raise pytest.UsageError(f"{entry.test} is listed, but there is no such test")
        for item in listed:
            if LOKY_KIND in entry.kinds:
                item.add_marker(pytest.mark.xfail(reason=entry.why, strict=True, run=entry.run))


def _kinds_of(name):
    return BACKENDS[name]().kind


def pytest_sessionstart():
    """plait must be what runs: here, and in a worker."""
    assert issubclass(BACKENDS["loky"], joblib_stand_in.StandIn)
    names = ["loky", "threading", "multiprocessing"]
    kinds = Parallel(n_jobs=2)(delayed(_kinds_of)(name) for name in names)
    assert kinds == [_kinds_of(name) for name in names]
    assert kinds[:2] == [LOKY_KIND, "thread"]


def pytest_sessionfinish():
    """Ends managers that a test has left when it failed: multiprocessing waits for them at exit."""
    for process in multiprocessing.active_children():
        process.kill()
