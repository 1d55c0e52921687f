"""Well-known packages in interpreter workers: `tools/test packages`, or tests/packages NAME...

The same work in the main interpreter and in two workers at once, with equal results, and that again
each time when the pools are closed and opened anew: with interpreters that are kept in between, and
with new ones. Either has a process of its own, which must end well and say nothing. Prints a line
for each package, and writes what came out to the file that --report names, as JSON.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

# Import name: distribution. Each has an exercise in plait._exercises.
PACKAGES: dict[str, str] = json.loads(Path(__file__).with_name("packages.json").read_text())

WATCHDOG = 900  # seconds: far more than it takes

# What becomes of interpreters between two pools: PLAIT_KEEP_INTERPRETERS.
KEEPING = {"kept": "2", "new": "0"}

CHILD = """
import sys
import plait
package, rounds = sys.argv[1], int(sys.argv[2])
def work():
    from plait._exercises import EXERCISES
    return EXERCISES[package]()
want = work()
for _ in range(rounds):
    with plait.Pool(1, kind="interpreter") as one, plait.Pool(1, kind="interpreter") as other:
        for future in [pool.submit(work) for pool in (one, other, one, other)]:
            got = future.result()
            assert got == want, (got, want)
found = plait.isolation(package)
assert found.usable, found
print(found.verdict)
"""


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(PACKAGES[package])
    except importlib.metadata.PackageNotFoundError:
        return None


def try_out(package: str, rounds: int, keep: str) -> tuple[str, str]:
    """The verdict, or "failed"; and what was said beyond it."""
    command = [sys.executable, "-X", "faulthandler", "-c", CHILD, package, str(rounds)]
    env = {**os.environ, "PLAIT_KEEP_INTERPRETERS": keep}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG, env=env)
    except subprocess.TimeoutExpired:
        return "failed", f"it was not done after {WATCHDOG} s"
    if done.returncode != 0 or done.stderr:
        return "failed", f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip(), ""


def try_all(package: str, rounds: int) -> tuple[str, str]:
    """The verdict on all that there is to try; and what went wrong."""
    found = {what: try_out(package, rounds, keep) for what, keep in KEEPING.items()}
    verdicts = {verdict for verdict, _ in found.values()}
    said = "\n".join(f"{what} interpreters: {text}" for what, (_, text) in found.items() if text)
    return ("failed" if len(verdicts) > 1 else verdicts.pop()), said


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/packages")
    parser.add_argument("packages", nargs="*", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=20, help="how often pools are opened")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    report: dict[str, list[str]] = {}
    failed = False
    for package in options.packages or PACKAGES:
        version = version_of(package)
        if version is None:
            print(f"{package}: not to be had here")
            continue
        verdict, said = try_all(package, options.rounds)
        print(f"{package} {version}: {verdict}", said, flush=True)
        failed |= verdict == "failed"
        report[package] = [version, verdict]
    if options.report:
        python = ".".join(map(str, sys.version_info[:3]))
        options.report.write_text(json.dumps({"python": python, "packages": report}))
    return 1 if failed or not report else 0


if __name__ == "__main__":
    sys.exit(main())
