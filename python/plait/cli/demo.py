"""`python -m plait demo`: analyse the standard library, then images with NumPy, on every kind of
pool, and compare.

Exit status: 0, all contestants gave the same answer; 1, an answer differs or a contestant failed;
2, wrong arguments, no files, or a missing dependency; 130, interrupted.
"""

import argparse
import contextlib
import functools
import importlib.util
import os
import random
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.contestant import CONTESTANTS

if TYPE_CHECKING:
    from plait.cli.contest import Outcome
    from plait.cli.display import Describe, Display

EXTRA = ("rich", "psutil", "matplotlib")
"""What the demo needs besides plait: the modules that use it are imported once it is known to be
there."""


@dataclass(frozen=True)
class Contest:
    """What is analysed, by whom, and how often."""

    work: str  # one of contestant.WORKS
    title: str  # of what is analysed
    items: Sequence[str | int]
    chart: Path
    pictures: Path | None
    describe: "Describe"
    names: list[str]  # of the contestants
    workers: int
    repeat: int


def add_command(commands: Any) -> None:
    """Declare the command and its arguments to `commands`, which argparse's `add_subparsers`
    made."""
    summary = "a contest of pools: analyse the standard library's source, then images, with each"
    parser = commands.add_parser("demo", help=summary, description=summary)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--path",
        metavar="DIR",
        type=Path,
        help="analyse every .py file below DIR, and nothing else",
    )
    parser.add_argument(
        "--images",
        metavar="N",
        type=_positive,
        default=40,
        help="analyse so many images (default: %(default)s)",
    )
    parser.add_argument("--only-images", action="store_true", help="leave the source out")
    parser.add_argument("--workers", metavar="N", type=_positive, help="default: plait.cpu_count()")
    parser.add_argument(
        "--chart",
        metavar="FILE",
        type=Path,
        default=Path("plait-demo.png"),
        help="write the bar chart to FILE, a PNG (default: ./%(default)s), that of the images "
        "to FILE-images, and some of them to FILE-pictures",
    )
    parser.add_argument(
        "--repeat", metavar="N", type=_positive, default=1, help="run N times, take the best"
    )
    parser.add_argument(
        "--only",
        metavar="NAME",
        choices=CONTESTANTS,
        action="append",
        help=f"run only NAME; may be given several times: {', '.join(CONTESTANTS)}",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        return _complain(f"the demo needs {', '.join(missing)}: pip install plait[demo]")
    if not options.chart.absolute().parent.is_dir():
        return _complain(f"no folder for {options.chart}")  # now, not after minutes of work
    contests = []
    if not options.only_images:
        contests.append(_contest_on_code(options))
        if not contests[0].items:
            return _complain(f"no .py files below {options.path}")
    if options.path is None:
        if importlib.util.find_spec("numpy") is None:
            print("No images are analysed: that needs NumPy (pip install numpy).")
        else:
            contests.append(_contest_on_images(options))
    try:
        return max(map(_hold, contests), default=0)
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130


def _contest_on_code(options: argparse.Namespace) -> Contest:
    from plait.cli.display import describe_code

    whole_library = options.path is None
    root = Path(sysconfig.get_path("stdlib")) if whole_library else options.path
    files = list_files(root, skip_packages=whole_library)
    return Contest(
        work="code",
        title=f"{len(files):,} files of {'the standard library' if whole_library else root}",
        items=files,
        chart=options.chart,
        pictures=None,
        describe=functools.partial(describe_code, root=root),
        **_common(options),
    )


def _contest_on_images(options: argparse.Namespace) -> Contest:
    from plait.cli.display import describe_images

    chart: Path = options.chart
    return Contest(
        work="images",
        title=f"{options.images:,} images, with NumPy",
        items=range(options.images),
        chart=chart.with_stem(f"{chart.stem}-images"),
        pictures=chart.with_stem(f"{chart.stem}-pictures"),
        describe=describe_images,
        **_common(options),
    )


def _common(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "names": [name for name in CONTESTANTS if not options.only or name in options.only],
        "workers": options.workers or _default_workers(),
        "repeat": options.repeat,
    }


def _hold(contest: Contest) -> int:
    """Run the contest, show how it went, and return the exit status."""
    from plait.cli import chart, display

    with display.choose_display(contest.title, contest.workers, len(contest.items)) as shown:
        rounds = [_run_round(contest, number, shown) for number in range(contest.repeat)]
    outcomes = [pick_best(runs) for runs in zip(*rounds, strict=True)]
    differing = find_differing(outcome for outcomes in rounds for outcome in outcomes)
    display.print_result(outcomes, differing, contest.describe)
    if any(outcome.status == "ok" for outcome in outcomes):
        chart.write_chart(contest.chart, outcomes, contest.title, contest.workers)
        print(f"Chart: {contest.chart}")
        if contest.pictures:
            print(f"Pictures: {contest.pictures}")
    failed = any(outcome.status == "failed" for outcome in outcomes)
    return 1 if failed or differing else 0


def _run_round(contest: Contest, number: int, shown: "Display") -> "list[Outcome]":
    """Let every contestant run once.

    Repetitions are rounds, not runs in a row, so that a slow minute of the machine harms them all.
    """
    from plait.cli.contest import run_contestant

    outcomes = []
    for name in contest.names:
        shown.begin(name, number)
        outcome = run_contestant(
            name,
            contest.workers,
            contest.items,
            shown.progress,
            work=contest.work,
            pictures=contest.pictures,
        )
        shown.end(outcome)
        outcomes.append(outcome)
    return outcomes


def list_files(root: Path, *, skip_packages: bool) -> list[str]:
    """Return the paths of all .py files below `root`, shuffled, always in the same way.

    In the order of their names, related files, and so the large ones, stand together: by chance at
    the end, or all in one chunk. `skip_packages`: leave out what was installed by others below
    `root`.
    """
    files = []
    for folder, folders, names in os.walk(root):
        if skip_packages:
            folders[:] = [f for f in folders if f not in ("site-packages", "dist-packages")]
        files += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    files.sort()
    random.Random("plait").shuffle(files)
    for file in files:
        # Read once now: otherwise the first contestant alone would wait for the disk.
        with contextlib.suppress(OSError):  # a broken link: the analysis counts it as skipped
            Path(file).read_bytes()
    return files


def pick_best(runs: "Sequence[Outcome]") -> "Outcome":
    """Return the fastest of one contestant's runs; if not all went well, the first that did not."""
    for outcome in runs:
        if outcome.status != "ok":
            return outcome
    return min(runs, key=lambda outcome: outcome.seconds)


def find_differing(outcomes: "Iterable[Outcome]") -> list[str]:
    """Return the names of the contestants that gave another answer than the first one that gave
    any."""
    answers = [outcome for outcome in outcomes if outcome.status == "ok"]
    differing = (outcome.name for outcome in answers if outcome.digest != answers[0].digest)
    return list(dict.fromkeys(differing))


def _default_workers() -> int:
    import plait

    return plait.cpu_count()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _complain(message: str) -> int:
    print(f"plait demo: {message}", file=sys.stderr)
    return 2
