"""The stages of `make test`: each gets what it needs, runs its commands and says whether they
passed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import debian, host
from .cache import CHECKOUT, Failure, Word, cache_root, checkout_cache, locked
from .environment import Environment
from .interpreters import NAMES, Interpreter, load, recorded

TOOLS = CHECKOUT / "tools"
SCRIPTS = (
    "pythons",
    "test",
    "format",
    "system-packages",
    "sanitized-python",
)  # Python without a suffix


@dataclass(frozen=True)
class Stage:
    """One line of the summary. `run` prints as it goes and returns whether all passed; it may raise
    Failure.
    """

    name: str
    about: str
    run: Callable[[], bool]


def fixed_stages() -> dict[str, Stage]:
    """All stages but those of single interpreters, in the order in which they run."""
    stages = [
        Stage("lint", "ruff, clang-format, mypy, stubtest", _lint),
        Stage("core", "C tests with all assertions", lambda: _core("core", ["-Dassertions=2"])),
        Stage(
            "core-release",
            "C tests as released",
            lambda: _core("core-release", ["-Dbuildtype=release"]),
        ),
        Stage("tsan", "C tests under ThreadSanitizer", _tsan),
        Stage("asan", "C tests under ASan and UBSan", _asan),
        Stage("models", "models of the lock-free protocols", _models),
        Stage("fuzz", "a short run of each fuzz target", _fuzz),
        Stage("soak", "random use of pools, on every kind", _soak),
        Stage("chaos", "worker processes killed and stopped while they work", _chaos),
        Stage("interpreters", "find or install the interpreters", _interpreters),
        Stage("instructions", "instruction counts of the hot paths", _instructions),
    ]
    return {stage.name: stage for stage in stages}


def extra_stages() -> dict[str, Stage]:
    """Those that run only when they are named: they take long, and much to download."""
    stages = [
        Stage("packages", "well-known packages in interpreter workers", _packages),
        Stage("packages-soak", "random imports in four interpreters", _packages_soak),
        Stage("packages-times", "what two workers do with them, and the table", _packages_times),
        Stage("numpy-suite", "NumPy's own tests in two workers", lambda: _suite("numpy")),
        Stage("pandas-suite", "some of pandas' own in two workers", lambda: _suite("pandas")),
    ]
    return {stage.name: stage for stage in stages}


def python_stage(name: str) -> Stage:
    return Stage(f"python-{name}", f"Python tests on {name}", lambda: _python(name))


def python_stages() -> list[Stage]:
    return [python_stage(interpreter.name) for interpreter in recorded()]


def _run(command: Sequence[Word], env: Mapping[str, str] | None = None) -> bool:
    """Run a command from the checkout, its output going straight through."""
    print("$", *(os.fspath(word).replace(f"{CHECKOUT}/", "") for word in command), flush=True)
    full = {**os.environ, **(env or {})}
    done = subprocess.run(command, cwd=CHECKOUT, env=full, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        print(f"exit status {done.returncode}", flush=True)
    return done.returncode == 0


def _path_with(folder: Path) -> str:
    return f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"


# C


def _core(
    name: str,
    options: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    test_options: Sequence[str] = (),
    need: str = "core",
) -> bool:
    tools = host.ensure_tools()
    host.ensure_system([need])
    meson = tools / "meson"
    build = checkout_cache() / name
    path = {"PATH": _path_with(tools)}
    fixed = [
        "-Dbinding=false",
        "-Dcore_tests=true",
        "-Dwerror=true",
        "-Dbuildtype=debugoptimized",
        *options,
    ]
    again = ["--reconfigure"] if (build / "build.ninja").exists() else []
    with locked(build.with_name(f"{name}.lock"), f"the stage {name}"):
        return (
            _run([meson, "setup", *again, build, CHECKOUT, *fixed], path)
            and _run([meson, "compile", "-C", build], path)
            and _run(
                [meson, "test", "-C", build, "--print-errorlogs", *test_options],
                {**path, **(env or {})},
            )
        )


def _tsan() -> bool:
    # Without address randomisation: ThreadSanitizer refuses the layouts of newer kernels.
    wrapper = ["--wrapper", "setarch -R"] if shutil.which("setarch") else []
    return _core(
        "core-tsan",
        ["-Db_sanitize=thread", "-Dassertions=1"],
        env={"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"},
        test_options=["--timeout-multiplier=4", *wrapper],
        need="tsan",
    )


def _asan() -> bool:
    return _core(
        "core-asan",
        [
            "-Db_sanitize=address,undefined",
            "-Dassertions=2",
            "-Dc_args=-fno-sanitize-recover=undefined",
        ],
        env={
            "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        },
        test_options=["--timeout-multiplier=4"],
        need="asan",
    )


def _models() -> bool:
    host.ensure_system(["models"])
    return _run([CHECKOUT / "tests/model/run"])


def _fuzz() -> bool:
    tools = host.ensure_tools()
    host.ensure_system(["fuzz"])
    env = {"PATH": _path_with(tools), "PLAIT_FUZZ_BUILD": os.fspath(checkout_cache() / "fuzz")}
    return _run([CHECKOUT / "tests/fuzz/run", os.environ.get("FUZZ_SECONDS", "20")], env)


def _soak() -> bool:
    """Where the kinds differ most: with a GIL and without. SOAK_SECONDS are for all of them.

    Without a GIL there is no fork: a lock that is handed over while CPython 3.13 stops the world
    stays locked in the child, for ever. test_signals.py forks where no lock is contended.
    """
    pairs = [(name, kind) for name in _soaked() for kind in ("thread", "interpreter", "process")]
    seconds = float(os.environ.get("SOAK_SECONDS", "180")) / len(pairs)
    soak: list[Word] = [CHECKOUT / "tests/python/soak", "--seconds", f"{seconds:.0f}"]
    results = []
    for name, kind in pairs:
        without = ["--without", "fork"] if name.endswith("t") else []
        results.append(_run([TOOLS / "py", name, *soak, "--kind", kind, *without]))
    return all(results)


def _chaos() -> bool:
    """CHAOS_SECONDS are for all interpreters."""
    names = _soaked()
    seconds = float(os.environ.get("CHAOS_SECONDS", "300")) / len(names)
    chaos: list[Word] = [CHECKOUT / "tests/python/soak/chaos.py", "--seconds", f"{seconds:.0f}"]
    results = [_run([TOOLS / "py", name, *chaos]) for name in names]
    return all(results)


def _soaked() -> list[str]:
    names = [name for name in ("3.14", "3.13t") if load(name) is not None]
    if not names:
        raise Failure("no interpreter for it: tools/pythons 3.14 3.13t gets them")
    return names


# Python


def _interpreters() -> bool:
    return _run([sys.executable, TOOLS / "pythons", "--all"])


def _python(name: str) -> bool:
    interpreter = load(name)
    if interpreter is None or debian.lacks_tests(interpreter):
        _run([sys.executable, TOOLS / "pythons", name])
    if load(name) is None:
        return False
    chosen: list[Word] = [*os.environ.get("PYTEST_ARGS", "").split()]
    parts = [chosen] if chosen else _parts(_PROCESSES.get(name, 1))
    results = [_run([TOOLS / "py", name, "-m", "pytest", *part]) for part in parts]
    return all(results)


# So many share the tests, one after the other: CPython loses 11 MB with every interpreter there,
# and none is kept, which makes 7 GB of all tests.
_PROCESSES = {"3.13t": 4}


def _parts(count: int) -> list[list[Word]]:
    """The test files, in so many parts; one part is all that pytest finds."""
    files: list[Word] = [*sorted((CHECKOUT / "tests/python").rglob("test_*.py"))]
    return [files[part::count] for part in range(count)] if count > 1 else [[]]


def _instructions() -> bool:
    host.ensure_system(["guards"])
    results = []
    for interpreter in recorded():
        if interpreter.name not in NAMES:
            continue  # an older patch has no bounds of its own
        tree = interpreter.tree_path
        if tree and not (tree / "usr/bin/valgrind").exists():
            with locked(cache_root() / "lock", "packages"):
                debian.install_in_tree(tree, ["valgrind"])
        guard = ["benchmarks/instructions.py", "--check"]
        results.append(_run([TOOLS / "py", interpreter.name, *guard]))
    return bool(results) and all(results)


# Packages

_PACKAGES_ON = ("3.13", "3.14", "3.15")


def _packages() -> bool:
    """PACKAGES_ROUNDS=2 opens pools less often."""
    tests = CHECKOUT / "tests/packages"
    results = []
    for interpreter in filter(None, map(load, _PACKAGES_ON)):
        folder = _package_folder(interpreter)
        env = {"PYTHONPATH": os.fspath(folder)}
        rounds = os.environ.get("PACKAGES_ROUNDS", "20")
        options: list[Word] = ["--report", _report(interpreter, "tests"), "--rounds", rounds]
        scripts: list[list[Word]] = [[tests, *options], [tests / "native_threads.py"]]
        if (folder / "sklearn").is_dir():
            scripts.append([tests / "grid_search.py"])
        results += [_run([TOOLS / "py", interpreter.name, *words], env) for words in scripts]
    return bool(results) and all(results) and _packages_times()


def _packages_soak() -> bool:
    """For PACKAGES_SOAK_SECONDS."""
    interpreter = _packages_interpreter()
    env = {"PYTHONPATH": os.fspath(_package_folder(interpreter))}
    seconds = os.environ.get("PACKAGES_SOAK_SECONDS", "300")
    soak: list[Word] = [CHECKOUT / "tests/packages/soak.py", "--seconds", seconds]
    return _run([TOOLS / "py", interpreter.name, *soak], env)


def _packages_times() -> bool:
    """PACKAGES_TABLE=FILE writes the table there, with what the tests before have found."""
    interpreters = list(filter(None, map(load, _PACKAGES_ON)))
    results = []
    for interpreter in interpreters:
        env = {"PYTHONPATH": os.fspath(_package_folder(interpreter))}
        script = CHECKOUT / "benchmarks/packages.py"
        options: list[Word] = ["--json", _report(interpreter, "times"), *_package_names()]
        results.append(_run([TOOLS / "py", interpreter.name, script, *options], env))
    if os.environ.get("PACKAGES_TABLE") and all(results):
        _write_table(Path(os.environ["PACKAGES_TABLE"]), interpreters)
    return all(results)


def _package_names() -> dict[str, str]:
    """Import name: distribution."""
    names: dict[str, str] = json.loads((CHECKOUT / "tests/packages/packages.json").read_text())
    return names


def _package_folder(interpreter: Interpreter) -> Path:
    return Environment(interpreter).ensure_packages(list(_package_names().values()))


def _report(interpreter: Interpreter, what: str) -> Path:
    return checkout_cache() / f"packages-{interpreter.name}-{what}.json"


def _write_table(path: Path, interpreters: Sequence[Interpreter]) -> None:
    tests, times = (
        [json.loads(_report(interpreter, what).read_text()) for interpreter in interpreters]
        for what in ("tests", "times")
    )
    rows = [["", *(column["python"] for column in tests)], ["---"] * (len(tests) + 1)]
    for package, distribution in _package_names().items():
        cells = [
            _cell(tried["packages"].get(package), timed.get(package, {}))
            for tried, timed in zip(tests, times, strict=True)
        ]
        rows.append([distribution, *cells])
    rows.append(["*two busy processes*", *map(_attained, times)])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    begin, end = "<!-- made by make packages -->\n", "<!-- end -->"
    before, _, rest = path.read_text().partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}{table}{end}{after}")


def _cell(tried: list[str] | None, timed: Mapping[str, float]) -> str:
    if tried is None:
        return "no wheel"
    version, verdict = tried
    ratio = timed.get("ratio")
    return f"{version}: {verdict}" + (f", {ratio:.2f}x" if ratio else "")


def _attained(times: Mapping[str, object]) -> str:
    """What the machine gave meanwhile."""
    given = [
        found["attainable"]
        for found in times.values()
        if isinstance(found, dict) and "attainable" in found
    ]
    return f"{min(given):.2f}x to {max(given):.2f}x" if given else ""


def _packages_interpreter() -> Interpreter:
    interpreter = load("3.14")
    if interpreter is None:
        raise Failure("no interpreter for it: tools/pythons 3.14 gets it")
    return interpreter


def _suite(package: str) -> bool:
    interpreter = _packages_interpreter()
    env = {"PYTHONPATH": os.fspath(_package_folder(interpreter))}
    suite = CHECKOUT / "tests/packages/suite.py"
    return _run([TOOLS / "py", interpreter.name, "-X", "faulthandler", suite, package], env)


# Lint


def _lint() -> bool:
    tools = host.ensure_tools()
    caches = cache_root() / "lint"
    env = {
        "RUFF_CACHE_DIR": f"{caches}/ruff",
        "MYPY_CACHE_DIR": f"{caches}/mypy",
        "MYPYPATH": os.fspath(TOOLS),
    }
    checker = os.fspath(TOOLS / "py")
    name = _typing_interpreter().name
    scripts = [TOOLS / script for script in SCRIPTS] + sorted((TOOLS / "harness").glob("*.py"))
    own_types = [
        "--strict",
        "--config-file=",
        "--python-version=3.11",
        "--scripts-are-modules",
        "--explicit-package-bases",
    ]
    commands: list[list[Word]] = [
        [tools / "ruff", "check", "."],
        [tools / "ruff", "format", "--check", "."],
        [tools / "clang-format", "--dry-run", "--Werror", "--ferror-limit=1", *c_files()],
        [tools / "mypy", *own_types, *scripts],
        [checker, name, "-m", "mypy", "-p", "plait"],
        [checker, name, "-m", "mypy.stubtest", "plait._plait"],
    ]
    results = [_run(command, env) for command in commands]
    return all(results)


def c_files() -> list[str]:
    """The C and C++ files that are formatted: all but third parties'."""
    command = [
        "git",
        "ls-files",
        "-z",
        "-co",
        "--exclude-standard",
        "--",
        "*.c",
        "*.h",
        "*.cpp",
        "*.hpp",
    ]
    names = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [
        name
        for name in names
        if name and not name.startswith("third_party/") and (CHECKOUT / name).exists()
    ]


def _typing_interpreter() -> Interpreter:
    """The newest interpreter on which mypy could be installed."""
    for name in ("3.14", "3.15", "3.13", "3.12"):
        interpreter = load(name)
        if interpreter:
            environment = Environment(interpreter)
            environment.ensure_base()
            if "mypy" not in environment.missing():
                return interpreter
    raise Failure("no interpreter that mypy runs on: tools/pythons 3.14 gets one")
