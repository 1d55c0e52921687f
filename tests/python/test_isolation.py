"""Which packages interpreter workers trust: trials in child processes, verdicts that are kept, and
plait.isolation() and `python -m plait doctor`, which tell them.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import helpers
import plait
import pytest
from plait import _probe, _trust
from plait.cli import doctor
from plait.cli import main as command_line

needs_images = pytest.mark.skipif(
    helpers.FREE_THREADED or helpers.INTERPRETERS_CRASH,
    reason="private images are for own-GIL interpreters",
)

UNFIT = {"twice": "TWICE", "always": "ALWAYS", "at_exit": "AT_EXIT", "raises": "RAISES"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules: two that are fit, and others."""
    folder = tmp_path_factory.mktemp("extensions")
    helpers.compile_module(folder, "multi", "MULTI_PHASE")
    helpers.compile_module(folder, "native", "NATIVE")
    helpers.compile_module(folder, "pack.inner", "SINGLE_PHASE")
    for name, how in UNFIT.items():
        helpers.compile_module(folder, name, how, "unfit.c")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where verdicts are kept, empty; and nothing is remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    monkeypatch.setattr(_trust, "_remembered", {})
    _trust._folder.cache_clear()
    yield tmp_path / "plait" / "isolation"
    _trust._folder.cache_clear()


@pytest.fixture
def verdict_of(built: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(built)
    return plait.isolation


IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import plait
def attempt(name):
    import importlib
    try:
        return importlib.import_module(name).__name__
    except ImportError as error:
        return str(error)
with plait.Pool(2, kind="interpreter") as pool:
    for result in pool.map(attempt, sys.argv[2:]):
        print(result)
"""


# ---- what comes out ----


@needs_images
@pytest.mark.parametrize(
    ("package", "verdict", "why"),
    [
        ("multi", "private image", "1 of the 1"),
        ("native", "native", "all 1 extension modules"),
        ("pack.inner", "private image", "1 of the 1"),
        ("pack", "native", "no extension modules"),
        ("json", "native", "standard library"),
        ("twice", "one interpreter only", "SIGABRT"),
        ("always", "refused", "SIGABRT"),
        ("at_exit", "refused", "at its exit (SIGABRT)"),
        ("raises", "refused", "ImportError: not today"),
        ("torch", "refused", "registries"),
    ],
)
def test_verdicts(verdict_of, package: str, verdict: str, why: str) -> None:
    found = verdict_of(package)
    assert found.verdict == verdict, found
    assert why in found.why
    assert found.usable == (verdict in ("native", "private image"))
    assert found.usable != ("kind='process'" in (found.instead or ""))
    assert found.package == package.partition(".")[0]
    assert package.partition(".")[0] not in sys.modules or package == "json"


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        plait.isolation("no_such_package")


@pytest.mark.skipif(not helpers.FREE_THREADED, reason="of builds without a GIL")
def test_without_a_gil_threads_do_it(cache: Path) -> None:
    found = plait.isolation("pytest")
    assert found.verdict == "native"
    assert "threads" in found.why


@pytest.mark.skipif(not helpers.INTERPRETERS_CRASH, reason="of the first 3.12 and 3.13")
def test_where_interpreters_crash_all_is_refused(cache: Path) -> None:
    found = plait.isolation("pytest")
    assert found.verdict == "refused"
    assert "crashes" in found.why


# ---- in workers ----


@needs_images
def test_workers_import_what_passes_and_refuse_what_does_not(built: Path, cache: Path) -> None:
    env = {"XDG_CACHE_HOME": os.fspath(cache.parent.parent)}
    names = ["multi", "multi", "pack.inner", "always", "always"]
    for _ in range(2):
        lines = helpers.run_quietly(IMPORT, os.fspath(built), *names, env=env)
        assert lines[:3] == ["multi", "multi", "pack.inner"]
        for line in lines[3:]:
            assert line.startswith("always cannot be imported by plait's interpreter workers: ")
            assert "SIGABRT" in line
            assert "kind='process'" in line
        kept = {path.name.partition("-")[0]: path for path in cache.glob("*.json")}
        assert set(kept) == {"multi", "pack", "always"}
        times = [path.stat().st_mtime_ns for path in kept.values()]
    assert times == [path.stat().st_mtime_ns for path in kept.values()]


@needs_images
def test_what_was_tried_without_its_extension_modules_is_tried_with_them(
    built: Path, cache: Path, verdict_of
) -> None:
    assert verdict_of("pack").verdict == "native"
    env = {"XDG_CACHE_HOME": os.fspath(cache.parent.parent)}
    assert helpers.run_quietly(IMPORT, os.fspath(built), "pack.inner", env=env) == ["pack.inner"]
    (kept,) = cache.glob("pack-*.json")
    assert json.loads(kept.read_text())["isolation"][1] == "private image"


LOAD = """
import sys
import plait
def attempt(file):
    import importlib.util
    spec = importlib.util.spec_from_file_location("thing", file)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        return str(error)
    return module.__name__
with plait.Pool(2, kind="interpreter") as pool:
    for result in pool.map(attempt, sys.argv[1:]):
        print(result)
"""


@needs_images
def test_a_module_is_tried_from_the_file_that_it_is_loaded_from(
    tmp_path: Path, cache: Path
) -> None:
    """Its folder is not on sys.path, and another file has the same name."""
    helpers.compile_module(tmp_path / "fit", "thing", "MULTI_PHASE")
    helpers.compile_module(tmp_path / "unfit", "thing", "ALWAYS", "unfit.c")
    fit, unfit = (next((tmp_path / name).glob("thing*")) for name in ("fit", "unfit"))
    env = {"XDG_CACHE_HOME": os.fspath(cache.parent.parent)}
    for _ in range(2):
        files = [os.fspath(file) for file in (fit, unfit, fit)]
        lines = helpers.run_quietly(LOAD, *files, env=env)
        assert lines[::2] == ["thing", "thing"]
        assert "SIGABRT" in lines[1]


# ---- a pool's own setting ----

OF_POOLS = """
import sys
sys.path.insert(0, sys.argv[1])
import plait
def attempt(name):
    import importlib
    try:
        return importlib.import_module(name).__name__
    except ImportError as error:
        return " ".join([str(error), *getattr(error, "__notes__", ())])
for isolation in ("off", "probe", "force", None):
    with plait.Pool(1, kind=sys.argv[2], isolation=isolation) as pool:
        name = "raises" if isolation == "probe" else "multi"
        print(isolation, pool.submit(attempt, name).result())
"""


@needs_images
@pytest.mark.parametrize("kind", ["interpreter", "auto"])
@pytest.mark.parametrize("environment", ["off", "force", ""])
def test_a_pool_says_what_it_trusts(built: Path, cache: Path, kind: str, environment: str) -> None:
    """Whatever the environment says, which holds for pools that say nothing."""
    if kind == "auto" and sys.version_info < (3, 13):
        pytest.skip("it takes processes")
    env = {"XDG_CACHE_HOME": os.fspath(cache.parent.parent), "PLAIT_ISOLATION": environment}
    off, probe, force, unsaid = helpers.run_quietly(OF_POOLS, os.fspath(built), kind, env=env)
    assert "isolation='off' is set" in off
    assert "PLAIT_ISOLATION" not in off
    assert probe.startswith("probe raises cannot be imported by plait's interpreter workers: ")
    assert force == "force multi"
    assert ("PLAIT_ISOLATION=off is set" in unsaid) == (environment == "off")
    assert (unsaid == "None multi") == (environment != "off")
    kept = {path.name.partition("-")[0] for path in cache.glob("*.json")}
    assert kept == (set() if environment else {"multi"})  # what raises is not kept


@needs_images
def test_in_a_trial_nothing_is_tried_out(built: Path, cache: Path) -> None:
    env = {"XDG_CACHE_HOME": os.fspath(cache.parent.parent), "PLAIT_ISOLATION": "trial"}
    lines = helpers.run_quietly(OF_POOLS, os.fspath(built), "interpreter", env=env)
    assert lines[1] == "probe not today"
    assert not list(cache.glob("*"))


def test_an_unknown_isolation_is_refused(kind: str) -> None:
    for unknown in ("", "trial", "maybe", True, b"off"):
        with pytest.raises(ValueError, match="isolation must be one of 'probe', 'force', 'off'"):
            plait.Pool(1, kind=kind, isolation=unknown)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_isolation_means_nothing_to_other_kinds(kind: str) -> None:
    with pytest.raises(ValueError, match=f"kind='{kind}' imports all"):
        plait.Pool(1, kind=kind, isolation="force")
    plait.Pool(1, kind=kind, isolation=None).shutdown()


@pytest.mark.parametrize("isolation", ["probe", "force", "off"])
def test_auto_takes_an_isolation_whatever_it_chooses(isolation: str) -> None:
    with plait.Pool(1, isolation=isolation) as pool:
        assert pool.submit(abs, -1).result(helpers.LONG) == 1


# ---- what is kept ----


class Trials:
    """In place of _probe.run: says what it is told to, and counts."""

    def __init__(self, **outcome: object) -> None:
        self.count = 0
        self.outcome = {"passed": True, "crashed": False, "unfit": 1, "why": "", **outcome}

    def __call__(self, module: str, file: str | None, workers: int) -> _probe.Trial:
        self.count += 1
        return _probe.Trial(**self.outcome)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The extension file of a package that is there for its name."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "thing.py").touch()
    file = tmp_path / "thing.so"
    file.write_text("one")
    return file


def ask(file: Path) -> plait.Isolation:
    return _trust.ask("thing", "thing", os.fspath(file))


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process would begin."""
    monkeypatch.setattr(_trust, "_remembered", {})


def test_a_verdict_holds_while_the_files_stay(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(files=(os.fspath(package),))
    monkeypatch.setattr(_probe, "run", trials)
    first = ask(package)
    forget(monkeypatch)
    assert ask(package) == first
    assert trials.count == 1
    package.write_text("other")
    forget(monkeypatch)
    assert ask(package) == first
    assert trials.count == 2
    package.unlink()
    forget(monkeypatch)
    ask(package)
    assert trials.count == 3


def test_the_same_file_installed_again_is_the_same(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(files=(os.fspath(package),))
    monkeypatch.setattr(_probe, "run", trials)
    ask(package)
    package.write_text("one")
    os.utime(package, ns=(1, 1))
    forget(monkeypatch)
    ask(package)
    assert trials.count == 1
    package.write_text("two")  # of the same size
    forget(monkeypatch)
    ask(package)
    assert trials.count == 2


def test_records_that_nobody_asks_for_go(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(files=(os.fspath(package),))
    monkeypatch.setattr(_probe, "run", trials)
    ask(package)
    (record,) = cache.glob("thing-*.json")
    asked_for, forgotten, other = (
        record.with_name(name) for name in ("thing-1.json", "thing-2.json", "another-2.json")
    )
    for copy in (asked_for, forgotten, other):
        copy.write_text("{}")
    long_ago = time.time() - 100 * 86400
    for path in (record, forgotten, other):
        os.utime(path, (long_ago, long_ago))
    forget(monkeypatch)
    ask(package)  # which notes that it is still asked for
    package.write_text("changed")
    forget(monkeypatch)
    ask(package)
    assert sorted(cache.glob("*.json")) == sorted([record, asked_for, other])


@pytest.mark.parametrize(("crashed", "kept"), [(True, 1), (False, 0)])
def test_only_crashes_are_held_against_a_package(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, crashed: bool, kept: int
) -> None:
    trials = Trials(files=(os.fspath(package),), passed=False, crashed=crashed, why="it did")
    monkeypatch.setattr(_probe, "run", trials)
    for _ in range(2):
        assert ask(package).verdict == "refused"  # and remembered by the interpreter
    assert len(list(cache.glob("*.json"))) == kept
    before = trials.count
    forget(monkeypatch)
    ask(package)
    assert (trials.count == before) == crashed


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', '{"key": "other build"}'])
def test_a_spoilt_record_is_none(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    trials = Trials(files=(os.fspath(package),))
    monkeypatch.setattr(_probe, "run", trials)
    ask(package)
    (record,) = cache.glob("*.json")
    record.write_text(content)
    forget(monkeypatch)
    assert ask(package).usable
    assert trials.count == 2


def test_without_a_place_to_keep_it_the_interpreter_remembers(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(files=(os.fspath(package),))
    monkeypatch.setattr(_probe, "run", trials)
    monkeypatch.setattr(_trust, "_folders", lambda: iter([Path("/proc/nowhere")]))
    for _ in range(3):
        assert ask(package).usable
    assert trials.count == 1


def test_what_others_may_write_is_not_believed(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    monkeypatch.setattr(_trust, "_folders", lambda: iter([cache.parent]))
    assert _trust._folder() is None


def test_many_ask_at_once_and_one_tries(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, trials = threading.Event(), Trials(files=(os.fspath(package),))

    def slowly(module: str, file: str | None, workers: int) -> _probe.Trial:
        begun.wait(helpers.LONG)
        return trials(module, file, workers)

    monkeypatch.setattr(_probe, "run", slowly)
    ready = threading.Barrier(5, action=begun.set)

    def body(index: int) -> None:
        ready.wait(helpers.LONG)
        assert ask(package).usable

    helpers.in_threads(5, body)
    assert trials.count == 1


def test_where_no_child_can_be_started_nothing_is_trusted(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    found = ask(package)
    assert found.verdict == "refused"
    assert "PLAIT_ISOLATION=force" in found.why
    assert not list(cache.glob("*.json"))


# ---- the command ----


@pytest.mark.parametrize("rich", [True, False])
def test_doctor_tells_verdicts(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rich: bool
) -> None:
    if not rich:
        monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    verdicts = {
        "good": plait.Isolation("good", "private image", "it works"),
        "bad": plait.Isolation("bad", "refused", "it does not", "use something else"),
    }
    monkeypatch.setattr(plait, "isolation", verdicts.__getitem__)
    assert command_line(["doctor", "good"]) == 0
    assert command_line(["doctor", "good", "bad"]) == 1
    out = capsys.readouterr().out
    for word in ("private image", "it works", "refused", "it does not", "bad: use something else."):
        assert word in out


def test_doctor_names_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["doctor", "no_such_package"]) == 2
    assert "no_such_package" in capsys.readouterr().err
