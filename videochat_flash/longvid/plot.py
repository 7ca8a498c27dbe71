"""The report's pictures: how long, of which kind, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ..files import beside
from .report import FAILURES, Facts

DOTS = 120  # an inch
BLUE, RED = "#4C78A8", "#E45756"
MOST = 20  # bars
WIDEST = 72  # letters beside a bar
LEAST = 6.0  # times its shortest length that the axis of lengths reaches to


def draw(facts: Facts, folder: Path) -> list[Path]:
    """Write tasks.png, lengths.png and aside.png; returns the files.

    Raises:
        OSError: they cannot be written.
    """
    tasks = [(f"{name}: {kind}", n) for name, kinds in sorted(facts.tasks.items()) for kind, n in sorted(kinds.items())]
    reasons = [
        (shortened(f"{name}: {reason}"), number, name.endswith(FAILURES))
        for name, found in facts.reasons.items()
        for reason, number in found.items()
    ]
    reasons = sorted(reasons, key=lambda one: -one[1])[:MOST]
    return [
        _save(bars([one[0] for one in tasks], [one[1] for one in tasks], "questions"), folder / "tasks.png"),
        _save(lengths(facts), folder / "lengths.png"),
        _save(
            bars(
                [one[0] for one in reasons],
                [one[1] for one in reasons],
                "times (red: failed, blue: sorted out or mended)",
                [RED if one[2] else BLUE for one in reasons],
            ),
            folder / "aside.png",
        ),
    ]


def shortened(words: str) -> str:
    """Words that leave room for their bar."""
    return words if len(words) <= WIDEST else f"{words[: WIDEST - 1]}\u2026"


def bars(names: Sequence[str], numbers: Sequence[int], label: str, colours: Sequence[str] = ()) -> Figure:
    """Horizontal bars with their numbers, the first one on top."""
    figure = Figure(figsize=(9, 1.2 + 0.3 * max(1, len(names))), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(names))[::-1]
    shown = axes.barh(places, numbers, color=list(colours) or BLUE)
    axes.bar_label(shown, [f"{number:,}" for number in numbers], padding=3)
    axes.set_yticks(places, names)
    figure.supxlabel(label, fontsize="medium")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def lengths(facts: Facts) -> Figure:
    """How long films and answers are, both on a logarithmic scale."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, values, counted, label in zip(
        figure.subplots(1, 2),
        (facts.durations, facts.answers),
        ("films", "answers"),
        ("seconds of a film", "words of an answer"),
        strict=True,
    ):
        some = np.array(values, np.float64)
        if len(some):
            low, high = max(0.5, some.min() * 0.9), some.max() * 1.1
            wider = max(1.0, LEAST * low / high) ** 0.5  # so that two of its ticks are on the axis
            axes.set_xscale("log")
            axes.hist(some, bins=np.geomspace(low / wider, high * wider, 25), color=BLUE)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:,g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(counted)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    with beside(path) as part:
        figure.savefig(part, format="png", dpi=DOTS)
    return path
