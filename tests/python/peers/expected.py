"""Which tests of CPython's own suites plait does not pass, and why: the whole list.

A test that is listed and passes is an error, as is an entry whose test does not exist: the list
stays true. What a suite itself skips is listed, too.
"""

import fnmatch
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """`test` is Class.method, a pattern of fnmatch; `kinds`: of these only; `always`: False for
    what depends on which thread is faster.
    """

    test: str
    why: str
    kinds: tuple[str, ...] = ("thread", "interpreter", "process")
    always: bool = True


APART = ("interpreter", "process")  # the kinds whose workers share no objects with the caller

_NAMES = "names of executor._threads, which is private; test_lifecycle.py looks at real ones"
_SHARES = "its calls share a lock or a list with the caller, which is what kind='thread' is for"
_REPORTS = "wants it in a log or on stderr; plait raises it, as the cause of every BrokenPool"
_BETTER = "wants NotShareableError for what plait's workers can run"
_OTHER_ERROR = "wants an exception class of concurrent.interpreters"
_NOT_BEGUN = "wants one of its calls to have begun by then, and a first worker may take longer"

EXPECTED: dict[str, tuple[Entry, ...]] = {
    "test_init": (Entry("ThreadPoolFailingInitializerTest.test_initializer", _REPORTS),),
    "test_shutdown": (
        # ..._wait_false: CPython's own from 3.12.3 on allows it.
        Entry("ThreadPoolShutdownTest.test_cancel_futures*", _NOT_BEGUN, always=False),
        Entry("ThreadPoolShutdownTest.test_thread_names_*", _NAMES),
        Entry("ThreadPoolShutdownTest.test_threads_terminate", _SHARES, APART),
    ),
    "test_thread_pool": (
        Entry(
            "ThreadPoolExecutorTest.test_default_workers",
            "plait has as many workers as the process may use processors",
        ),
        Entry("ThreadPoolExecutorTest.test_executor_map_current_future_cancel", _SHARES, APART),
        Entry(
            "ThreadPoolExecutorTest.test_idle_thread_reuse",
            "a worker in parallel with the caller may not be idle yet at the next submit: CPython "
            "skips this without a GIL, and here each worker has its own",
            always=False,
        ),
        Entry("ThreadPoolExecutorTest.test_map_submits_without_iteration", _SHARES, APART),
        Entry(
            "ThreadPoolExecutorTest.test_process_fork_from_a_threadpool",
            "CPython refuses fork() in interpreters with a GIL of their own",
            ("interpreter",),
        ),
        Entry("ThreadPoolExecutorTest.test_saturation", _SHARES, APART),
    ),
    "test_interpreter_pool": (
        Entry("*.test_idle_thread_reuse", "as in test_thread_pool", always=False),
        Entry(
            "*.test_import_interpreter_pool_executor",
            "is about concurrent.futures without the module _interpreters",
        ),
        Entry("*.test_init_closure", _BETTER),
        Entry("*.test_init_exception_in_func", _REPORTS),
        Entry("*.test_init_instance_method", _REPORTS),
        Entry("*.test_pickle_errors_propagate", _OTHER_ERROR),
        Entry("*.test_submit_closure", _BETTER),
        Entry("*.test_submit_exception_in_func", _OTHER_ERROR),
        Entry("*.test_submit_instance_method", _BETTER),
        Entry("*.test_submit_local_instance", _BETTER),
        Entry("*.test_thread_name_prefix", "reads executor._thread_name_prefix, which is private"),
        Entry("*.test_no_stale_references", "CPython skips it: not applicable"),
        Entry("*.test_free_reference", "CPython skips it: not applicable"),
    ),
}


def judge(suite: str, kind: str, outcomes: dict[str, tuple[str, str]]) -> list[str]:
    """What is wrong with the outcomes of a suite; nothing if they are as listed."""
    entries = [entry for entry in EXPECTED.get(suite, ()) if kind in entry.kinds]
    wrong = []
    met = set()
    for name, (outcome, detail) in outcomes.items():
        listed = [entry for entry in entries if fnmatch.fnmatchcase(name, entry.test)]
        met.update(listed)
        if not listed and outcome != "passed":
            wrong.append(f"{name} {outcome}: {detail}")
        if outcome == "passed" and any(entry.always for entry in listed):
            wrong.append(f"{name} passed: strike it from the list in peers/expected.py")
    unmet = [entry.test for entry in entries if entry not in met]
    wrong += [f"{test} is listed, but there is no such test" for test in unmet]
    return wrong if outcomes else ["no test was run"]
