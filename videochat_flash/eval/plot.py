"""report.png: scores with their intervals, beside what a model without eyes would get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..files import beside

Facts = Mapping[str, Any]
TITLES = {"answers": "right answers", "intervals": "overlap with the right interval (mIoU)"}
DOTS = 120  # an inch
ROW, HEAD, WIDTH = 0.3, 1.3, 8.0  # inches
COLOUR, BARE = "#2a6f97", "#8d99ae"


def draw(facts: Facts, path: Path) -> Path:
    """A panel for answers and one for intervals, each with a line for every label; returns the file.

    Raises:
        OSError: it cannot be written.
    """
    panels = {name: list(_lines(facts[name])) for name in TITLES if facts[name]}
    heights = [HEAD + ROW * len(lines) for lines in panels.values()]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.5), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for one, (name, lines) in zip(axes, panels.items(), strict=True):
        _panel(one, TITLES[name], lines)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    with beside(path) as part:
        figure.savefig(part, format="png", dpi=DOTS)
    return path


def _lines(section: Facts) -> Iterator[tuple[str, Facts]]:
    """Names and rows, from top to bottom."""
    yield "all", section["all"]
    for axis, labels in section["axes"].items():
        yield from ((label if axis == "group" else f"{axis}: {label}", row) for label, row in labels.items())


def _panel(axes: Axes, title: str, lines: list[tuple[str, Facts]]) -> None:
    places = range(len(lines))
    rows = [row for _, row in lines]
    scores = [row["score"] for row in rows]
    reach = [[row["score"] - row["clustered"][0] for row in rows], [row["clustered"][1] - row["score"] for row in rows]]
    axes.barh(places, scores, height=0.6, color=COLOUR, alpha=0.35, label="score")
    spread = [[max(0.0, one) for one in side] for side in reach]
    axes.errorbar(scores, places, xerr=spread, fmt="none", ecolor=COLOUR, capsize=3, label="95 %, by video")
    for name, marker in (("blind", "o"), ("constant", "|")):
        there = [(row[name], place) for place, row in zip(places, rows, strict=True) if row[name] is not None]
        if there:
            shares, heights = zip(*there, strict=True)
            axes.plot(shares, heights, marker, color=BARE, markersize=8, markerfacecolor="white", label=name)
    axes.set_yticks(places, [f"{name}  (n {row['asked']:,})" for name, row in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
