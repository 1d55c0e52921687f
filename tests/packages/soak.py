"""A soak of packages: imported and used at random in four interpreters at once.

    PYTHONPATH=FOLDER tools/py 3.14 tests/packages/soak.py --seconds 1800 --seed 7

Rounds in turn, each with a pool of its own, and results equal to the main interpreter's. In this
process interpreters are kept from one pool to the next: they soon have all that there is, and then
memory must stay what it is. Every fourth round has a child process, whose pools get new ones, which
import in another order each time. What those leave is told, not judged: images stay mapped until
the process ends, with what their libraries hold and the threads that these started, some 12 MB of
NumPy's. The child must end well and say nothing. Exit status as the soak's.
"""

import argparse
import faulthandler
import importlib
import importlib.util
import json
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "python"))
sys.path.insert(2, str(Path(__file__).resolve().parents[1] / "python/soak"))

import helpers
import jobs
import plait
import watch
from plait._exercises import EXERCISES

HERE = Path(__file__).resolve()
PACKAGES: dict[str, str] = json.loads(HERE.with_name("packages.json").read_text())
WORKERS = 4
CHILD_POOLS = 2
MODULES = 30  # that one call imports, at most


@dataclass(frozen=True)
class Known:
    """What comes of each package's exercise in the main interpreter, and modules to import."""

    want: dict[str, object]
    modules: list[str]

    @classmethod
    def find(cls) -> "Known":
        """Of the packages that are here, all of which interpreters must be able to import."""
        names = [name for name in PACKAGES if importlib.util.find_spec(name)]
        refused = [found for found in map(plait.isolation, names) if not found.usable]
        assert names, "no package is here"
        assert not refused, refused
        with warnings.catch_warnings():  # whose filters are part of what pools are known by
            want = {name: EXERCISES[name]() for name in names}
        found = [name for name in sorted(sys.modules) if name.partition(".")[0] in want]
        return cls(want, [name for name in found if importable(name)])


def importable(name: str) -> bool:
    """Whether a module is what an import of its name gives, in an interpreter without it."""
    spec = getattr(sys.modules[name], "__spec__", None)
    return spec is not None and spec.name == name and bool(spec.has_location)


def tour(names: list[str]) -> dict[str, object]:
    """Imports each module, and exercises each package, in that order."""
    from plait._exercises import EXERCISES

    results = {}
    for name in names:
        if name in EXERCISES:
            results[name] = EXERCISES[name]()
        else:
            importlib.import_module(name)
    manager = sys.modules.get("matplotlib.font_manager")
    if manager is not None:  # it keeps files of fonts open for each of the last 64 threads
        manager._get_font.cache_clear()
    return results


def tour_together(folder: str, number: int, names: list[str]) -> dict[str, object]:
    """In each of the workers at once."""
    jobs.meet(folder, WORKERS, number)
    return tour(names)


def random_names(rng: random.Random, known: Known) -> list[str]:
    names = rng.sample(list(known.want), rng.randint(1, len(known.want)))
    names += rng.sample(known.modules, rng.randint(0, min(MODULES, len(known.modules))))
    rng.shuffle(names)
    return names


def run_pool(rng: random.Random, known: Known, log: watch.Log) -> None:
    """Each worker makes a tour, then whoever is free; some pools close before all have begun."""
    tail = log.tail("tours")
    with tempfile.TemporaryDirectory() as folder, plait.Pool(WORKERS, kind="interpreter") as pool:
        plans = [random_names(rng, known) for _ in range(rng.randint(WORKERS, 3 * WORKERS))]
        tail.extend(plans)
        first = [pool.submit(tour_together, folder, at, plans[at]) for at in range(WORKERS)]
        rest = [pool.submit(tour, plan) for plan in plans[WORKERS:]]
        if rng.random() < 0.3:  # the main interpreter works, too
            names = list(known.want)
            check(tour(rng.sample(names, 3)), known)
        for future in first:
            check(future.result(), known)
        if rng.random() < 0.3:
            pool.shutdown(cancel_futures=True)
        for future in rest:
            if not future.cancelled():
                check(future.result(), known)


def check(results: dict[str, object], known: Known) -> None:
    for name, got in results.items():
        assert got == known.want[name], f"{name}: {got!r}, not {known.want[name]!r}"


# ---- new interpreters, in a child process ----


def memory_in_all() -> int:
    """Resident bytes. Pages that are mapped many times, as the code of images is, count once."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s*(\d+) kB", rollup, re.MULTILINE)[1]) * 1024


def run_child(seed: int, known: Known, options: argparse.Namespace) -> str:
    """What it told of its memory."""
    command = [sys.executable, "-X", "faulthandler", os.fspath(HERE), "--child", f"--seed={seed}"]
    command += [f"--limit={options.limit}"] + ["--sanitized"] * options.sanitized
    done = subprocess.run(command, input=pickle.dumps(known), capture_output=True)
    said, errors = done.stdout.decode(), done.stderr.decode()
    well = done.returncode == 0 and (not errors or options.sanitized)
    assert well, f"a child ended with {done.returncode}\n{said}{errors}"
    return said.strip()


def be_child(seed: int, limit: float) -> int:
    known: Known = pickle.load(sys.stdin.buffer)
    rng = random.Random(seed)
    os.environ["PLAIT_KEEP_INTERPRETERS"] = "0"
    log = watch.Log()
    watchdog = watch.Watchdog(limit, log)
    if rng.random() < 0.5:  # the main interpreter has them first, or only in the midst of it
        check(tour(list(known.want)), known)
    sizes = [memory_in_all()]
    for _ in range(CHILD_POOLS):
        watchdog.feed()
        try:
            run_pool(rng, known, log)
        except BaseException:
            traceback.print_exc()
            print(log.show(), flush=True)
            return 1
        assert helpers.settles(lambda: helpers.interpreters_of_process() == 1), "interpreters"
        sizes.append(memory_in_all())
    watchdog.stop()
    left = (sizes[-1] - sizes[1]) / watch.MEGABYTE / (CHILD_POOLS - 1) / WORKERS
    print(f"{left:.0f}")
    return 0


# ---- kept interpreters, here ----


def warm_up(known: Known, log: watch.Log) -> None:
    """All interpreters have all packages, and shared libraries the threads that they want."""
    with tempfile.TemporaryDirectory() as folder, plait.Pool(WORKERS, kind="interpreter") as pool:
        names = [*known.modules, *known.want]
        for future in [pool.submit(tour_together, folder, at, names) for at in range(WORKERS)]:
            check(future.result(), known)
    for seed in range(3):
        run_pool(random.Random(seed), known, log)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--limit", type=float, default=900, help="seconds a round may take")
    parser.add_argument("--sanitized", action="store_true", help="runs under a sanitizer")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    faulthandler.enable()
    if options.child:
        return be_child(options.seed, options.limit)
    watch.share_one_arena()
    print(f"soak: packages, seed {options.seed}, {options.seconds:.0f} s", flush=True)
    os.environ["PLAIT_KEEP_INTERPRETERS"] = str(WORKERS)
    known, log, told = Known.find(), watch.Log(), []
    print(f"soak: {len(known.want)} packages, {len(known.modules)} modules", flush=True)
    watchdog = watch.Watchdog(options.limit, log)
    # No interpreter may be made any more, so none is allowed for, as with processes.
    ledger = watch.Ledger("process", options.sanitized)
    began, number = time.monotonic(), 0
    try:
        warm_up(known, log)
        made = helpers.newest_interpreter()
        while time.monotonic() - began < options.seconds:
            seed = options.seed + number
            log.clear()
            watchdog.feed()
            if seed % 4 == 3:
                told.append(float(run_child(seed, known, options)))
            else:
                run_pool(random.Random(seed), known, log)
                ledger.read()
            number += 1
        made = helpers.newest_interpreter() - made - 1
        assert made == 0, f"{made} interpreters were not kept"
        growth = ledger.growth()
    except BaseException:
        traceback.print_exc()
        print(f"FAILED in round {number}: repeat with --seed {options.seed + number}\n{log.show()}")
        return 1
    watchdog.stop()
    print(f"soak: {number} rounds in {time.monotonic() - began:.0f} s; {growth}")
    if told:
        print(f"soak: {len(told)} children; {max(told):.0f} MB left by an interpreter, at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
