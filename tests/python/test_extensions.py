"""Extension modules that know nothing of own-GIL interpreters, in workers that have one each.

The modules are compiled here from extensions/sample.c, once per way to define one. Each test has a
child process: what can go wrong takes the process.
"""

import os
import sys
import sysconfig
from pathlib import Path

import helpers
import pytest

pytestmark = pytest.mark.skipif(
    helpers.FREE_THREADED or helpers.INTERPRETERS_CRASH,
    reason="private images are for own-GIL interpreters",
)

# Module name and how it is defined.
KINDS = {
    "single": "SINGLE_PHASE",
    "multi": "MULTI_PHASE",
    "native": "NATIVE",
    "pack.inner": "SINGLE_PHASE",
}
if sys.version_info >= (3, 15):
    KINDS["export"] = "EXPORT"

PREAMBLE = """
import sys, importlib, os
sys.path.insert(0, sys.argv[1])
name = sys.argv[2]
import plait
def module():
    return importlib.import_module(name)
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all the modules."""
    folder = tmp_path_factory.mktemp("extensions")
    for name, how in KINDS.items():
        helpers.compile_module(folder, name, how)
    return folder


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def run(
    built: Path, name: str, script: str, *args: str, env: dict[str, str] | None = None
) -> list[str]:
    """The lines that a script prints in a child, which must end well and say nothing else.

    Without trying the modules out before: test_isolation.py does.
    """
    env = {"PLAIT_ISOLATION": "force", **(env or {})}
    return helpers.run_quietly(PREAMBLE + script, os.fspath(built), name, *args, env=env)


def test_each_worker_has_static_data_of_its_own(built: Path, name: str) -> None:
    lines = run(
        built,
        name,
        """
def count(i):
    m = module()
    assert m.__name__ == name, m.__name__
    assert m.count.__module__ == name, m.count.__module__
    assert m.__spec__.origin == m.__file__ and "extension" in m.__file__, m.__file__
    return m.count()
for when in "before", "after":
    with plait.Pool(1, kind="interpreter") as one, plait.Pool(1, kind="interpreter") as other:
        print(*one.map(count, range(3)), *other.map(count, range(2)))
    print(module().count())
""",
    )
    assert lines == ["1 2 3 1 2", "1", "1 2 3 1 2", "2"]


def test_objects_in_static_variables_stay_in_their_interpreter(built: Path, name: str) -> None:
    lines = run(
        built,
        name,
        """
def keep(i):
    return module().keep([i])
module().keep("main")
with plait.Pool(1, kind="interpreter") as pool:
    print(*pool.map(keep, range(3)))
print(module().keep(None))
""",
    )
    assert lines == ["None [0] [1]", "main"]


def test_a_module_can_be_imported_again(built: Path, name: str) -> None:
    lines = run(
        built,
        name,
        """
def again():
    first = module()
    first.count()
    del sys.modules[name]
    second = module()
    importlib.reload(second)
    assert sys.modules[name] is second
    return second.count()
with plait.Pool(1, kind="interpreter") as pool:
    print(pool.submit(again).result())
""",
    )
    assert lines == ["2"]


def test_native_threads_come_to_their_own_interpreter(built: Path, name: str) -> None:
    lines = run(
        built,
        name,
        """
def call(times):
    m, calls = module(), []
    return m.call_from_thread(lambda: calls.append(1), times), len(calls)
with plait.Pool(2, kind="interpreter") as pool:
    print(sorted(set(pool.map(call, [300] * 4))))
""",
    )
    assert lines == ["[(0, 300)]"]


CALLS, NATIVE_THREADS, WORKERS = 100_000, 2, 3


def test_a_hundred_thousand_callbacks_come_to_their_own_interpreters(
    built: Path, name: str
) -> None:
    """From native threads of several interpreters at once, each of which counts its own."""
    lines = run(
        built,
        name,
        """
import itertools
calls, native_threads, workers = map(int, sys.argv[3:])
def call(times):
    import _interpreters
    m, current, numbers, strays = module(), _interpreters.get_current, itertools.count(), []
    home = current()
    def back():
        next(numbers)
        if current() != home:
            strays.append(current())
    wrong = m.call_from_thread(back, times, native_threads)
    return home[0], wrong, strays, next(numbers), m.main_id() == home[0]
pools = [plait.Pool(1, kind="interpreter") for _ in range(workers)]
times = -(-calls // (native_threads * workers))
found = [future.result() for future in [pool.submit(call, times) for pool in pools]]
homes = {home for home, *_ in found}
print(len(homes), 0 in homes, sum(count for *_, count, _ in found) >= calls)
for _, wrong, strays, count, right in found:
    print(wrong, strays, count == times * native_threads, right)
for pool in pools:
    pool.shutdown()
""",
        *map(str, (CALLS, NATIVE_THREADS, WORKERS)),
    )
    assert lines == [f"{WORKERS} False True"] + ["0 [] True True"] * WORKERS


def test_other_interpreters_can_call_in(built: Path, name: str) -> None:
    lines = run(
        built,
        name,
        """
def address():
    return module().address_of_visit()
def visit(address, attached):
    return all(module().visit_other(address, attached) for _ in range(100))
with plait.Pool(1, kind="interpreter") as one, plait.Pool(1, kind="interpreter") as other:
    there = one.submit(address).result()
    for attached in True, False:
        print(*(pool.submit(visit, there, attached).result() for pool in (other, one)))
""",
    )
    assert lines == ["True True", "True True"]


def test_the_end_waits_for_native_threads(built: Path, name: str, tmp_path: Path) -> None:
    lines = run(
        built,
        name,
        """
def linger(path):
    module().linger(lambda: open(path, "w").close(), 300_000)
with plait.Pool(1, kind="interpreter") as pool:
    pool.submit(linger, sys.argv[3]).result()
print(os.path.exists(sys.argv[3]))
""",
        os.fspath(tmp_path / "called"),
    )
    assert lines == ["True"]


def test_native_threads_are_told_of_the_end(built: Path, name: str, tmp_path: Path) -> None:
    """They ask Py_IsInitialized() before they come in, and would hang where they came too late."""
    lines = run(
        built,
        name,
        """
import time
path = sys.argv[3]
def watch():
    return module().watch_python(path)
with plait.Pool(1, kind="interpreter") as pool:
    print(pool.submit(watch).result(), os.path.exists(path))
while not os.path.exists(path):
    time.sleep(0.01)
print("told")
""",
        os.fspath(tmp_path / "told"),
    )
    assert lines == ["True False", "told"]


def test_at_exit_functions_run_when_the_interpreter_is_gone(
    built: Path, name: str, tmp_path: Path
) -> None:
    lines = run(
        built,
        name,
        """
path = sys.argv[3]
def note():
    return module().note_exit(path)
with plait.Pool(1, kind="interpreter") as pool:
    print(pool.submit(note).result(), os.path.exists(path))
print(open(path).read().split())
""",
        os.fspath(tmp_path / "left"),
    )
    assert lines == ["0 False", "['left']"]


def test_main_interpreter_is_the_one_at_home(built: Path, name: str) -> None:
    lines = run(
        built,
        name,
        """
def ids():
    import _interpreters
    return module().main_id() == _interpreters.get_current()[0] != 0
with plait.Pool(1, kind="interpreter") as pool:
    print(pool.submit(ids).result())
""",
    )
    assert lines == ["True"]


def test_cpython_still_checks_everything_else(built: Path, name: str) -> None:
    lines = run(
        built,
        name,
        """
def check():
    import _imp
    module()
    return _imp._override_multi_interp_extensions_check(0)
with plait.Pool(1, kind="interpreter") as pool:
    print(pool.submit(check).result())
""",
    )
    assert lines == ["0"]


def test_missing_init_function_is_named(built: Path, tmp_path: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    (tmp_path / f"other{suffix}").write_bytes((built / f"single{suffix}").read_bytes())
    (tmp_path / f"broken{suffix}").write_bytes(b"no shared object")
    lines = run(
        tmp_path,
        "other",
        """
def attempt(name):
    try:
        importlib.import_module(name)
    except ImportError as error:
        return type(error).__name__, error.name, str(error)
with plait.Pool(1, kind="interpreter") as pool:
    for name in "other", "broken":
        print(*pool.submit(attempt, name).result())
""",
    )
    assert "other cannot be loaded" in lines[0]
    assert "PyInit" in lines[0]
    assert "broken" in lines[1]
    assert "malformed" in lines[1]


def test_many_pools_one_after_another(built: Path) -> None:
    lines = run(
        built,
        "multi",
        """
def call(i):
    return module().call_from_thread(int, 3)
for round in range(20):
    with plait.Pool(2, kind="interpreter") as pool:
        assert not any(pool.map(call, range(4)))
print("done")
""",
    )
    assert lines == ["done"]


REPORT = """
def attempt():
    try:
        module()
    except ImportError as error:
        print(error.name, error, *getattr(error, "__notes__", ()))
    else:
        print("imported")
with plait.Pool(1, kind="interpreter") as pool:
    error = pool.submit(attempt).exception()
    if error is not None:
        print(type(error).__name__, type(error.__cause__).__name__, error.__cause__)
"""


@pytest.fixture
def installed(built: Path, tmp_path: Path) -> Path:
    """The modules where packages are installed: they stay in an interpreter that is used again."""
    if not helpers.KEEPS_INTERPRETERS:
        pytest.skip("interpreters end with their pools here")
    (tmp_path / "site-packages").symlink_to(built)
    return tmp_path / "site-packages"


USE = """
from plait import _plait
def use():
    import _interpreters
    m = module()
    outside = m.call_from_thread(lambda: None, 3)
    return _interpreters.get_current()[0], m.count(), m.omp_threads(), outside, m.main_id()
"""


def test_modules_of_interpreters_that_are_used_again(installed: Path, name: str) -> None:
    lines = run(
        installed,
        name,
        USE
        + """
for _ in range(3):
    with plait.Pool(1, kind="interpreter") as pool:
        print(*pool.submit(use).result())
print(_plait._count_kept("interpreter"))
""",
        env={"OMP_NUM_THREADS": "", "PLAIT_KEEP_INTERPRETERS": "2"},
    )
    assert lines == ["1 1 1 0 1", "1 2 1 0 1", "1 3 1 0 1", "1"]


def test_native_threads_and_ends_of_interpreters_that_are_used_again(
    installed: Path, name: str, tmp_path: Path
) -> None:
    lines = run(
        installed,
        name,
        USE
        + """
def linger(microseconds):
    module().linger(lambda: None, microseconds)
def note(path):
    module().note_exit(path)
with plait.Pool(1, kind="interpreter") as pool:
    pool.submit(note, sys.argv[3]).result()
with plait.Pool(1, kind="interpreter") as pool:
    print(*pool.submit(use).result())
assert not os.path.exists(sys.argv[3])
def is_kept_after(microseconds):
    with plait.Pool(1, kind="interpreter") as pool:
        pool.submit(linger, microseconds).result()
    return _plait._count_kept("interpreter") == 1
# A moment is waited for, on a busy machine not always long enough.
print(any(is_kept_after(10_000) for _ in range(10)), is_kept_after(3_000_000))
with plait.Pool(1, kind="interpreter") as pool:
    pool.submit(note, sys.argv[3] + "2").result()
""",
        os.fspath(tmp_path / "note"),
        env={"OMP_NUM_THREADS": "", "PLAIT_KEEP_INTERPRETERS": "2"},
    )
    assert lines == ["1 1 1 0 1", "True False"]
    assert [(tmp_path / note).read_text() for note in ("note", "note2")] == ["left\n", "left\n"]


@pytest.mark.parametrize("package", ["torch", "uvloop"])
def test_what_cannot_work_is_refused_with_the_way_out(tmp_path: Path, package: str) -> None:
    helpers.compile_module(tmp_path, f"{package}._C", "MULTI_PHASE")
    lines = run(tmp_path, f"{package}._C", REPORT + "module(); print('imported')")
    assert lines[0].startswith(f"{package}._C {package} cannot be imported")
    assert "kind='process'" in lines[0]
    assert lines[1:] == ["imported"]  # the main interpreter is not asked


def test_isolation_can_be_switched_off(built: Path) -> None:
    (line,) = run(built, "multi", REPORT, env={"PLAIT_ISOLATION": "off"})
    assert "does not support loading in subinterpreters" in line
    assert "PLAIT_ISOLATION=off is set" in line
    assert run(built, "native", REPORT, env={"PLAIT_ISOLATION": "off"}) == ["imported"]
    assert run(built, "multi", REPORT, env={"PLAIT_ISOLATION": "force"}) == ["imported"]


def test_an_unknown_setting_is_named(built: Path) -> None:
    ended = helpers.run(
        PREAMBLE + REPORT, os.fspath(built), "multi", env={"PLAIT_ISOLATION": "perhaps"}
    )
    assert "BrokenPool" in ended.out
    assert "PLAIT_ISOLATION must be 'off', 'probe' or 'force', not 'perhaps'" in ended.out


def test_modules_that_belong_to_the_process_are_harmless(tmp_path: Path) -> None:
    lines = helpers.run_quietly(
        """
import sys, plait
def ask(path):
    import faulthandler, tracemalloc
    faulthandler.enable()
    with open(path, "w") as file:
        faulthandler.dump_traceback(file)
        file.flush()
        faulthandler.dump_traceback(file.fileno(), all_threads=False)
    for function, argument in (faulthandler.register, 10), (tracemalloc.start, 1):
        try:
            function(argument)
        except RuntimeError as error:
            print("main interpreter" in str(error))
    return faulthandler.is_enabled(), faulthandler.disable(), tracemalloc.is_tracing()
with plait.Pool(1, kind="interpreter") as pool:
    print(*pool.submit(ask, sys.argv[1]).result())
import faulthandler, tracemalloc
tracemalloc.start()
print(faulthandler.is_enabled(), tracemalloc.is_tracing())
""",
        os.fspath(tmp_path / "stacks"),
    )
    assert lines == ["True", "True", "False False False", "True True"]
    assert (tmp_path / "stacks").read_text().count(", in ask\n") == 2
