"""The demo's bar chart."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plait.cli.contest import Outcome, format_seconds
from plait.cli.contestant import CONTESTANTS

INK = "#24292f"
MUTED = "#6e7781"
COLOURS = {"serial": "#8c959f", "plait": "#e8743b"}
OTHERS = "#6ea3d8"

WIDTH, HEADER, ROW, FOOTER = 11.0, 1.05, 0.52, 0.7
"""Inches: of the figure, above the bars, of each bar, below the bars."""

LEFT = 0.02
"""Where the header starts, as a share of the width."""


def write_chart(path: Path, outcomes: list[Outcome], title: str, workers: int) -> None:
    """Write to `path`, as a PNG, the time and the peak memory of each contestant; `title`: of what
    they did.

    At least one outcome must be "ok". Raises OSError if the file cannot be written.
    """
    height = HEADER + ROW * len(outcomes) + FOOTER
    figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
    time_axes, memory_axes = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    figure.subplots_adjust(
        left=0.25, right=0.98, bottom=FOOTER / height, top=1 - HEADER / height, wspace=0.1
    )
    _draw(time_axes, outcomes, lambda o: o.seconds, _time_labeller(outcomes))
    _draw(memory_axes, outcomes, _megabytes, lambda o: f"{_megabytes(o):,.0f} MB")
    time_axes.set_xlabel("seconds: less is better (speed-up against serial)", color=MUTED)
    memory_axes.set_xlabel("peak memory, MB", color=MUTED)
    time_axes.set_yticks(range(len(outcomes)), [CONTESTANTS[o.name][0] for o in outcomes])
    for label, outcome in zip(time_axes.get_yticklabels(), outcomes, strict=True):
        label.set_color(INK)
        label.set_fontweight("bold" if outcome.name.startswith("plait") else "normal")
    python = next(outcome.python for outcome in outcomes if outcome.python)
    workers_text = f"{workers} {'worker' if workers == 1 else 'workers'}"
    figure.suptitle(
        f"{python}, {workers_text}",
        x=LEFT,
        y=1 - 0.22 / height,
        horizontalalignment="left",
        verticalalignment="top",
        fontsize=16,
        fontweight="bold",
        color=INK,
    )
    figure.text(
        LEFT,
        1 - 0.62 / height,
        f"Report on {title}",
        verticalalignment="top",
        fontsize=11,
        color=MUTED,
    )
    figure.savefig(path, format="png")


def _draw(
    axes: Axes,
    outcomes: list[Outcome],
    value: Callable[[Outcome], float],
    label: Callable[[Outcome], str],
) -> None:
    """Draw a bar with its label for each outcome, or the word for one without figures."""
    longest = max(value(outcome) for outcome in outcomes)
    for row, outcome in enumerate(outcomes):
        if outcome.status == "ok":
            axes.barh(row, value(outcome), height=0.66, color=_colour(outcome))
            text, style, colour = label(outcome), "normal", INK
        else:
            text, style, colour = outcome.status, "italic", MUTED
        axes.text(
            value(outcome) + 0.012 * longest,
            row,
            text,
            verticalalignment="center",
            fontstyle=style,
            color=colour,
        )
    axes.set_ylim(len(outcomes) - 0.4, -0.6)  # the first on top
    axes.set_xlim(0, 1.32 * longest)  # room for the label of the longest bar
    axes.tick_params(length=0, colors=MUTED)
    axes.grid(axis="x", color="#eaeef2")
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _colour(outcome: Outcome) -> str:
    return COLOURS.get(outcome.name.partition("-")[0], OTHERS)


def _megabytes(outcome: Outcome) -> float:
    return outcome.peak_bytes / 1e6


def _time_labeller(outcomes: list[Outcome]) -> Callable[[Outcome], str]:
    """Return what writes a time, with the speed-up where there is a serial time to compare with."""
    serial = next((o.seconds for o in outcomes if o.name == "serial" and o.status == "ok"), None)

    def label(outcome: Outcome) -> str:
        text = format_seconds(outcome.seconds)
        if serial and outcome.name != "serial":
            text += f"  ({serial / outcome.seconds:.2f}\N{MULTIPLICATION SIGN})"
        return text

    return label
