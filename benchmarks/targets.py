"""What plait is to reach, as ratios within one run, and whether it does."""

from dataclasses import dataclass

import harness
from contestants import (
    INTERPRETERS,
    MULTIPROCESSING,
    PLAIT_COPIES,
    PLAIT_INTERPRETER,
    PLAIT_PROCESS,
    PLAIT_THREAD,
    PROCESSES,
    THREADS,
)
from harness import Row

AUTO = "plait's own choice"


@dataclass(frozen=True)
class Target:
    """`row`: `plait` needs at most 1/`times` of what `against` does; without one, at most `limit`.

    Where a contestant does not serve on an interpreter, the target does not apply there.
    """

    stage: str
    row: str
    plait: str
    against: str = ""
    times: float = 1.0
    limit: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """A target that applied: what was asked and measured, in words."""

    stage: str
    row: str
    plait: str
    asked: str
    measured: str
    met: bool


TARGETS = (
    Target("first", "pipelined", PLAIT_INTERPRETER, INTERPRETERS, 8),
    Target("first", "map", PLAIT_INTERPRETER, INTERPRETERS, 100),
    Target("first", "start", PLAIT_INTERPRETER, INTERPRETERS, 1),
    Target("full", "pipelined", PLAIT_INTERPRETER, INTERPRETERS, 20),
    Target("full", "pipelined", PLAIT_INTERPRETER, THREADS, 3),
    Target("full", "pipelined", PLAIT_THREAD, THREADS, 5),
    Target("full", "roundtrip", PLAIT_INTERPRETER, INTERPRETERS, 3),
    Target("full", "roundtrip", AUTO, THREADS, 1),
    Target("full", "map", AUTO, MULTIPROCESSING, 2),
    Target("full", "list", PLAIT_INTERPRETER, INTERPRETERS, 4),
    Target("full", "dict", PLAIT_INTERPRETER, INTERPRETERS, 3),
    Target("full", "breakeven", AUTO, limit=0.5),
    Target("full", "start", PLAIT_INTERPRETER, INTERPRETERS, 1 / 0.7),
    Target("full", "pipelined", PLAIT_PROCESS, PROCESSES, 20),
    Target("full", "roundtrip", PLAIT_PROCESS, PROCESSES, 4),
    Target("full", "map", PLAIT_PROCESS, MULTIPROCESSING, 1),
    Target("full", "program", PLAIT_PROCESS, PROCESSES, 1),
    Target("full", "beside", PLAIT_COPIES, PROCESSES, 1),  # whose forkserver runs, too
    Target("full", "again", PLAIT_PROCESS, PROCESSES, 5),
    Target("full", "array", PLAIT_PROCESS, PROCESSES, 5),
    Target("full", "sharedarray", PLAIT_PROCESS, PROCESSES, 100),
    Target("full", "handover", PLAIT_PROCESS, PROCESSES, 100),
)


def judge(rows: dict[str, Row], auto: str) -> list[Verdict]:
    """The targets that apply to the rows measured; `auto` is the contestant of plait's choice."""
    verdicts = []
    for target in TARGETS:
        row = rows.get(target.row)
        # What is asked of threads is asked where they run in parallel, of interpreters elsewhere.
        if row is None or target.plait not in (AUTO, auto, PLAIT_PROCESS, PLAIT_COPIES):
            continue
        name = auto if target.plait == AUTO else target.plait
        verdict = _judge_limit(target, row, name) if target.limit else _judge(target, row, name)
        if verdict is not None:
            verdicts.append(verdict)
    return verdicts


def _judge(target: Target, row: Row, plait: str) -> Verdict | None:
    ratio = row.ratio(target.against, plait)
    if ratio is None:
        return None
    asked = f"≥ {target.times:.3g}x less than {target.against}"
    measured = f"{harness.short(ratio)}x"
    return Verdict(target.stage, target.row, plait, asked, measured, ratio >= target.times)


def _judge_limit(target: Target, row: Row, plait: str) -> Verdict | None:
    measured = row.measured.get(plait)
    if measured is None:
        return None
    asked = f"≤ {target.limit} {row.unit}"
    if not measured.samples:
        return Verdict(target.stage, target.row, plait, asked, measured.error, False)
    told = f"{harness.short(measured.least)} {row.unit}"
    return Verdict(target.stage, target.row, plait, asked, told, measured.least <= target.limit)


def markdown(rows: dict[str, Row], verdicts: list[Verdict]) -> None:
    """The least times of everybody, and the full executor's targets, for docs/performance.md."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row.measured))
    lines = []
    for row in rows.values():
        found = [row.measured.get(name) for name in names]
        cells = [harness.short(one.least) if one and one.samples else "" for one in found]
        lines.append([f"{row.title}, {row.unit}", *cells])
    harness.markdown(["work", *names], lines)
    harness.markdown(
        ["row", "contestant", "must reach", "measured", ""],
        [
            [one.row, one.plait, one.asked, one.measured, "met" if one.met else "not met"]
            for one in verdicts
            if one.stage == "full"
        ],
    )


def show(verdicts: list[Verdict]) -> None:
    """A table of all verdicts."""
    if not verdicts:
        return
    lines = [
        [one.row, one.stage, one.plait, one.asked, one.measured, "met" if one.met else "NOT MET"]
        for one in verdicts
    ]
    heads = ["row", "stage", "contestant", "target", "measured", ""]
    harness.table("targets (first: the first version's; full: the executor's)", heads, lines)
