"""Debian: the machine's own mirror, packages, a sid tree, and CPython's source packages.

Nothing here names a mirror: it is read from the machine's apt sources.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cache import AbsentError, Failure, cache_root, in_tree, locked, run_logged, say
from .interpreters import Interpreter, probe, split_name

SID_NAMES = ("3.13", "3.14", "3.15")

# Newest first: the suite whose source has gone from the mirror is followed by one that keeps an
# older patch.
_SOURCE_SUITES = ("sid", "forky", "trixie")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What a build of CPython needs for the modules of its standard library.
HEADERS = (
    "gcc make libssl-dev libffi-dev zlib1g-dev libsqlite3-dev "
    "libbz2-dev liblzma-dev libreadline-dev uuid-dev"
).split()

# Mirrors that keep a day's state serve lists that expired since; signatures are still checked.
_APT_OPTIONS = "-o Acquire::Check-Valid-Until=false -o Acquire::Retries=2".split()
_APT_ENV = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def is_usable() -> str | None:
    """None if packages can be installed here, else why not."""
    if _os_release().get("ID") != "debian":
        return "this is not Debian"
    if os.geteuid() != 0:
        return "installing Debian packages needs root"
    return None


# The machine's apt sources


@dataclass(frozen=True)
class _Source:
    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def mirror() -> str:
    """The address this machine gets its own release's main component from."""
    codename = _os_release().get("VERSION_CODENAME", "")
    for source in _sources():
        if codename in source.suites and "main" in source.components:
            return source.uri
    raise Failure("no Debian mirror in this machine's apt sources")


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key: value.strip('"') for key, value in pairs}


def _sources() -> Iterator[_Source]:
    folder = Path("/etc/apt/sources.list.d")
    for path in [folder.with_name("sources.list"), *sorted(folder.glob("*.list"))]:
        if path.exists():
            yield from _one_line_sources(path.read_text())
    for path in sorted(folder.glob("*.sources")):
        yield from _deb822_sources(path.read_text())


def _one_line_sources(text: str) -> Iterator[_Source]:
    """Lines such as `deb [signed-by=KEY] URI SUITE COMPONENT...`."""
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", " ", line.split("#")[0]).split()
        if len(words) >= 4 and words[0] == "deb":
            yield _Source(words[1].rstrip("/"), (words[2],), tuple(words[3:]))


def _deb822_sources(text: str) -> Iterator[_Source]:
    """Stanzas with the fields Types, URIs, Suites, Components; a field goes on in lines that begin
    with a space.
    """
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", kept):
        joined = re.sub(r"\n[ \t]+", " ", stanza)
        fields = {
            k.strip().lower(): v.split()
            for k, _, v in (line.partition(":") for line in joined.splitlines())
        }
        if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"]) != ["no"]:
            for uri in fields.get("uris", []):
                yield _Source(
                    uri.rstrip("/"),
                    tuple(fields.get("suites", [])),
                    tuple(fields.get("components", [])),
                )


# Packages of this machine


def install_packages(packages: Sequence[str]) -> None:
    """Install what is missing of these packages, from this machine's own release."""
    missing = [package for package in packages if not _is_installed(package)]
    if not missing:
        return
    reason = is_usable()
    if reason:
        raise Failure(f"these packages are needed and missing: {' '.join(missing)}; {reason}")
    say(f"installing Debian packages: {' '.join(missing)}")
    # The release is named because another suite among the sources could bring a newer libc.
    target = ["-t", _os_release()["VERSION_CODENAME"]]
    flags = ["-y", "--no-install-recommends", *target]
    install = ["apt-get", *_APT_OPTIONS, "install", *flags, *missing]
    with locked(cache_root() / "apt.lock", "this machine's packages"):
        try:
            run_logged(install, "apt", env=_APT_ENV)
        except Failure:
            run_logged(["apt-get", *_APT_OPTIONS, "update"], "apt", env=_APT_ENV)
            run_logged(install, "apt", env=_APT_ENV, append=True)


def _is_installed(package: str) -> bool:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True
    )
    return done.stdout.endswith(" installed")


# The sid tree


def install_from_sid(names: Sequence[str]) -> list[Interpreter]:
    """Have these interpreters (of SID_NAMES) in the sid tree; the tree is made if need be."""
    tree = _sid_tree()
    say(f"installing in the sid tree: {' '.join('python' + name for name in names)}")
    flags = ["install", "-y", "--no-install-recommends"]
    packages = [f"python{name}{part}" for name in names for part in ("", "-venv", "-dev")]
    _run_in_sid(tree, "sid", ["apt-get", "update"])
    # Takes up what an interrupted installation left.
    _run_in_sid(tree, "sid", ["dpkg", "--configure", "-a"])
    _run_in_sid(tree, "sid", ["apt-get", *flags, *packages, "gcc", "libc6-dev", "ca-certificates"])
    _run_in_sid(tree, "sid", ["apt-get", "clean"])
    result = []
    for name in names:
        found = probe(name, f"/usr/bin/python{name}", tree, "of Debian sid")
        if isinstance(found, str):
            raise Failure(f"in the sid tree: {found}")
        result.append(found)
    return result


def lacks_tests(interpreter: Interpreter) -> bool:
    """Whether CPython's own `test` package, which Debian packages apart, is not in the sid tree."""
    folder = f"usr/lib/python{split_name(interpreter.name)[0]}/test/test_concurrent_futures"
    return interpreter.tree_path is not None and not (interpreter.tree_path / folder).exists()


def ensure_tests(interpreter: Interpreter) -> None:
    """Install CPython's own tests where they are lacking; if they cannot be had, say so."""
    if interpreter.tree_path is None or not lacks_tests(interpreter):
        return
    package = f"libpython{split_name(interpreter.name)[0]}-testsuite"
    try:
        install_in_tree(interpreter.tree_path, [package])
    except Failure as failure:
        say(f"CPython's own tests for {interpreter.name} CANNOT BE HAD: {failure}")


def install_in_tree(tree: Path, packages: Sequence[str]) -> None:
    """Install packages in the tree of sid."""
    say(f"installing in {tree}: {' '.join(packages)}")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    try:
        _run_in_sid(tree, "sid", install)
    except Failure:
        _run_in_sid(tree, "sid", ["apt-get", "update"])
        _run_in_sid(tree, "sid", install)


def _run_in_sid(tree: Path, log: str, command: Sequence[str]) -> None:
    run_logged(in_tree(command, tree, "--bare"), log, env=_APT_ENV, append=True)


def _sid_tree() -> Path:
    tree = cache_root() / "sid"
    if tree.exists():
        return tree
    install_packages(["debootstrap", "debian-archive-keyring"])
    say("making a Debian sid tree (about half a minute)")
    partial = tree.with_name("sid.partial")
    shutil.rmtree(partial, ignore_errors=True)
    run_logged(
        ["debootstrap", "--variant=minbase", "sid", partial, mirror()], "debootstrap", env=_APT_ENV
    )
    # No package may start a service from inside the tree.
    policy = partial / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (partial / "etc/apt/apt.conf.d/90plait").write_text(_tree_apt_configuration())
    partial.rename(tree)
    return tree


def _tree_apt_configuration() -> str:
    """The machine's proxies and certificates for apt, and the options above."""
    dumped = subprocess.run(
        ["apt-config", "dump"], capture_output=True, text=True, check=True
    ).stdout
    kept = [line for line in dumped.splitlines() if re.match(r'Acquire::https?::\S+ "[^"]', line)]
    options = [option.replace("=", ' "') + '";' for option in _APT_OPTIONS if option != "-o"]
    return "\n".join([*kept, *options, ""])


# Free-threaded interpreters from CPython's source packages


def build_from_source(name: str) -> Interpreter:
    """Build a free-threaded interpreter from the newest source the mirror really has."""
    minor, _, _ = split_name(name)
    work = cache_root() / "built" / f"{name}.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        archive = download_source(f"python{minor}", work)
        install_packages(HEADERS)
        prefix = _build(archive, name, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found = probe(name, f"{prefix}/bin/python{name}", None, "built from Debian's source package")
    if isinstance(found, str):
        raise Failure(f"the build of {name} cannot be used: {found}")
    return found


def download_source(package: str, work: Path) -> Path:
    """Fetch the package's upstream archive: the newest version that downloads. apt checks its
    signature.
    """
    options = _source_lists()
    shown = subprocess.run(
        ["apt-cache", *options, "showsrc", package], capture_output=True, text=True
    ).stdout
    versions = set(re.findall(r"^Version: (\S+)$", shown, re.MULTILINE))
    for version in sorted(versions, key=_version_key, reverse=True):
        which = ["--only-source", f"{package}={version}"]
        command = ["apt-get", *options, "source", "--download-only", *which]
        done = subprocess.run(command, cwd=work, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode == 0:
            say(f"downloaded the source of {package} {version}")
            return next(work.glob("*.orig.tar.*z"))
    raise AbsentError(f"no source of {package} can be downloaded ({len(versions)} listed)")


def _version_key(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _source_lists() -> list[str]:
    """apt's options to use source lists of our own, without touching the machine's; refreshes the
    lists.
    """
    folder = cache_root() / "apt-sources"
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    address = mirror()
    lines = [f"deb-src [signed-by={_KEYRING}] {address} {suite} main\n" for suite in _SOURCE_SUITES]
    (folder / "sources.list").write_text("".join(lines))
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    options = [
        *_APT_OPTIONS,
        *(word for key, value in settings.items() for word in ("-o", f"{key}={value}")),
    ]
    run_logged(["apt-get", *options, "update"], "apt-sources", env=_APT_ENV)
    return options


def _build(archive: Path, name: str, work: Path) -> Path:
    prefix = cache_root() / "built" / name
    source, image = work / "source", work / "image"
    source.mkdir()
    run_logged(["tar", "-xf", archive, "-C", source, "--strip-components=1"], f"build-{name}")
    say(f"building {name} from {archive.name} (about four minutes)")
    nice = ["nice", "-n", "10"]
    configure = [*nice, "./configure", "--disable-gil", f"--prefix={prefix}"]
    run_logged(configure, f"build-{name}", cwd=source, append=True)
    run_logged(
        [*nice, "make", f"-j{os.cpu_count() or 1}"], f"build-{name}", cwd=source, append=True
    )
    run_logged(
        [*nice, "make", "install", f"DESTDIR={image}"], f"build-{name}", cwd=source, append=True
    )
    shutil.rmtree(prefix, ignore_errors=True)
    Path(f"{image}{prefix}").rename(prefix)
    return prefix
