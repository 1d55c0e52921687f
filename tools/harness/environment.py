"""Per interpreter: an environment with the dependencies, and plait built from this checkout and
installed.

Two layers. `envs/NAME-HASH` is a virtual environment with the build and test dependencies, shared
by all clones; the hash covers the requirements and the interpreter.
`checkouts/CLONE/NAME/installs/HASH` is a second, tiny environment on top with plait in it; that
hash covers plait's sources. So a test run keeps the plait it began with while someone edits, and
going back to known sources costs nothing. A file `.complete` is written last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .cache import CHECKOUT, Failure, Word, cache_root, checkout_cache, locked, run_logged, say
from .interpreters import Interpreter

# What a wheel is made of; a change elsewhere needs no new build.
_WHEEL_SOURCES = (
    "include",
    "src",
    "python",
    "third_party",
    "meson.build",
    "meson.options",
    "pyproject.toml",
)

# Wanted beyond what pyproject.toml asks for. The optional ones have no wheel for some interpreters.
_REQUIRED = ("ninja", "meson", "rich")
_OPTIONAL = ("numpy", "mypy", "ipykernel", "nbclient")

# Never compiled here: it would take many minutes.
_ONLY_BINARY = (
    "numpy,matplotlib,contourpy,pillow,kiwisolver,fonttools,pyzmq,tornado,psutil,debugpy,rpds-py"
)

_LAYOUT = "1"  # change it when the layout of environments changes
_DAY = 86400


@dataclass(frozen=True)
class Environment:
    """Where the pieces for one interpreter and this checkout are. Making it touches nothing but
    pyproject.toml.
    """

    interpreter: Interpreter

    @cached_property
    def _requirements(self) -> tuple[list[str], list[str]]:
        """The required and the optional ones."""
        with open(CHECKOUT / "pyproject.toml", "rb") as file:
            config = tomllib.load(file)
        project = config["project"]
        extras = project["optional-dependencies"]
        required = [
            *config["build-system"]["requires"],
            *project["dependencies"],
            *extras["test"],
            *_REQUIRED,
        ]
        optional = [name for name in [*extras["demo"], *_OPTIONAL] if name not in required]
        return required, optional

    @cached_property
    def key(self) -> str:
        i = self.interpreter
        return _digest(json.dumps([_LAYOUT, *self._requirements, i.version, i.executable, i.tree]))

    @property
    def base(self) -> Path:
        return cache_root() / "envs" / f"{self.interpreter.name}-{self.key}"

    @property
    def here(self) -> Path:
        return checkout_cache() / self.interpreter.name

    def missing(self) -> list[str]:
        """Optional dependencies that could not be installed."""
        return list(json.loads((self.base / ".complete").read_text()))

    def ensure_base(self) -> Path:
        """The environment with the dependencies; installed if need be."""
        if not _is_complete(self.base):
            lock = self.base.with_name(f"{self.base.name}.lock")
            with locked(lock, f"the environment of {self.interpreter.name}"):
                if not _is_complete(self.base):
                    self._make_base()
        return self.base

    def ensure_plait(self) -> Path:
        """The environment with the present plait; built and installed if need be."""
        base = self.ensure_base()
        setup_args = os.environ.get("PLAIT_PY_SETUP", "").split()
        install = self.here / "installs" / _digest(f"{self.key} {sources_hash()} {setup_args}")
        if not _is_complete(install):
            with locked(self.here / "lock", f"building plait for {self.interpreter.name}"):
                if not _is_complete(install):
                    self._install_plait(base, install, setup_args)
        os.utime(install / ".complete")
        return install

    def latest_plait(self) -> Path:
        """The environment with the plait used last, whatever the sources are; without plait if
        there is none.
        """
        complete = [path for path in (self.here / "installs").glob("*") if _is_complete(path)]
        if not complete:
            return self.ensure_base()
        return max(complete, key=lambda path: (path / ".complete").stat().st_mtime)

    def wheel(self, install: Path) -> Path:
        return next((self.here / "wheels" / install.name).glob("*.whl"))

    def ensure_packages(self, distributions: Sequence[str]) -> Path:
        """A folder, for PYTHONPATH, with the wheels of distributions, of those that have one."""
        self.ensure_base()
        name = self.interpreter.name
        key = _digest(f"{self.key} compiled {list(distributions)}")
        place = cache_root() / "packages" / f"{name}-{key}"
        folder = place / "site-packages"  # by which installed packages are known
        with locked(place.with_name(f"{place.name}.lock"), f"the packages of {name}"):
            if not _is_complete(place):
                say(f"{name}: installing packages")
                shutil.rmtree(place, ignore_errors=True)
                # To bytecode, as users have them: else each worker compiles all that it imports,
                # for good where PYTHONDONTWRITEBYTECODE is set.
                options = ["--compile", "--only-binary", ":all:", "--upgrade"]
                options += ["--target", os.fspath(folder)]
                try:
                    self._pip_install([*options, *distributions])
                except Failure:
                    say(f"{name}: not all of them at once; one by one")
                    for distribution in distributions:
                        with contextlib.suppress(Failure):
                            self._pip_install([*options, distribution])
                (place / ".complete").touch()
        return folder

    # Making the environment with the dependencies

    def _make_base(self) -> None:
        name = self.interpreter.name
        required, optional = self._requirements
        say(f"{name}: installing build and test dependencies")
        shutil.rmtree(self.base, ignore_errors=True)
        self._log_run([self.interpreter.executable, "-m", "venv", self.base], f"env-{name}")
        missing: list[str] = []
        try:
            self._pip_install([*required, *optional])
        except Failure:
            say(f"{name}: not all of them at once; one by one")
            self._pip_install(required)
            for requirement in optional:
                try:
                    self._pip_install([requirement])
                except Failure:
                    missing.append(requirement)
        if missing:
            say(f"{name}: optional, and not to be had here: {', '.join(missing)}")
        (self.base / ".complete").write_text(json.dumps(missing))

    def _pip_install(self, requirements: Sequence[str]) -> None:
        # Without compiling to bytecode: the first import of each module does it, most are never
        # imported.
        options = ["--no-compile", "--prefer-binary", "--only-binary", _ONLY_BINARY]
        pip: list[Word] = [self.base / "bin/python", "-m", "pip"]
        command = [*pip, "install", *options, *requirements]
        self._log_run(command, f"env-{self.interpreter.name}", append=True)

    # Building and installing plait

    def _install_plait(self, base: Path, install: Path, setup_args: list[str]) -> None:
        name = self.interpreter.name
        began = time.monotonic()
        say(f"{name}: building plait")
        wheel = self._build_wheel(base, install.name, setup_args)
        shutil.rmtree(install, ignore_errors=True)
        self._log_run(
            [self.interpreter.executable, "-m", "venv", "--without-pip", install], f"install-{name}"
        )
        packages = next(install.glob("lib/python3*/site-packages"))
        below = next(base.glob("lib/python3*/site-packages"))
        (packages / "dependencies.pth").write_text(f"{below}\n")
        pip: list[Word] = [install / "bin/python", "-m", "pip"]
        command = [*pip, "install", "--no-index", "--no-deps", wheel]
        self._log_run(command, f"install-{name}", append=True)
        (install / ".complete").touch()
        say(f"{name}: built and installed plait in {time.monotonic() - began:.1f} s")
        self._forget_old()

    def _build_wheel(self, base: Path, name: str, setup_args: list[str]) -> Path:
        """A real wheel; the build folder stays, so that only what changed is compiled again."""
        wheels = self.here / "wheels" / name
        shutil.rmtree(wheels, ignore_errors=True)
        build = self.here / f"build-{_digest(f'{self.key} {setup_args}')}"
        log = self.here / "build.log"
        options = [f"-Csetup-args={arg}" for arg in ["-Dwerror=true", *setup_args]]
        pip: list[Word] = [base / "bin/python", "-m", "pip"]
        command = [*pip, "wheel", "-v", "--no-deps", "--no-build-isolation", "-w", wheels]
        command += [f"-Cbuild-dir={build}", *options, CHECKOUT]
        # meson and ninja are programs of the environment.
        path = f"{base / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        try:
            self._log_run(command, log, env={"PATH": path})
        except Failure:
            if not (build / "build.ninja").exists():
                # A first set-up that failed is not worth keeping.
                shutil.rmtree(build, ignore_errors=True)
            raise
        return next(wheels.glob("*.whl"))

    def _forget_old(self) -> None:
        """Remove installs and wheels that nobody used for a day."""
        for path in (self.here / "installs").iterdir():
            stamp = path / ".complete"
            if not stamp.exists() or time.time() - stamp.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True)
                shutil.rmtree(self.here / "wheels" / path.name, ignore_errors=True)

    def _log_run(
        self,
        command: Sequence[Word],
        log: str | Path,
        *,
        append: bool = False,
        env: dict[str, str] | None = None,
    ) -> None:
        tree = self.interpreter.tree_path
        # Wheels compiled in a tree need its libc: they must not be taken for others' from a shared
        # cache.
        pip_cache = cache_root() / (f"pip-{tree.name}" if tree else "pip")
        full = {"PIP_CACHE_DIR": os.fspath(pip_cache), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        full["PIP_ROOT_USER_ACTION"] = "ignore"
        run_logged(command, log, tree=tree, append=append, env={**full, **(env or {})})


def sources_hash() -> str:
    """A hash of all files that go into a wheel: names and contents."""
    total = hashlib.sha256()
    for name in _source_names():
        path = CHECKOUT / name
        if path.is_file():
            total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _source_names() -> list[str]:
    flags = ["-z", "--cached", "--others", "--exclude-standard"]
    command = ["git", "ls-files", *flags, "--", *_WHEEL_SOURCES]
    try:
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True)
        return sorted(set(os.fsdecode(done.stdout).split("\0")) - {""})
    except (OSError, subprocess.CalledProcessError):
        # An unpacked archive, not a clone.
        files = (
            path
            for name in _WHEEL_SOURCES
            for path in [CHECKOUT / name, *(CHECKOUT / name).rglob("*")]
        )
        return sorted(os.fspath(path.relative_to(CHECKOUT)) for path in files if path.is_file())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_complete(folder: Path) -> bool:
    return (folder / ".complete").exists()
