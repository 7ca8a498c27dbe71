"""Where the time goes: a bar for each number of frames, a colour for each stage."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..files import beside
from .report import digits
from .work import STAGES, TOKEN

COLOURS = ("#5B8FF9", "#61C9A8", "#B8D8D8", "#F6BD16", "#E8684A", "#7262FD", "#9A9A9A")  # of the stages, in order
DOTS = 120  # an inch
TITLE = 120  # letters of it in a line
THIN = 0.075  # share of the longest bar below which a number is not written into a piece


def draw(bars: Sequence[tuple[int, Mapping[str, float]]], title: str, path: Path) -> None:
    """The ``picture`` as a PNG.

    Raises:
        OSError: it cannot be written there.
    """
    with beside(path) as part:
        picture(bars, title).savefig(part, format="png", dpi=DOTS)


def picture(bars: Sequence[tuple[int, Mapping[str, float]]], title: str) -> Figure:
    """Stacked bars: seconds, and milliseconds a frame.

    Args:
        bars: frames, and seconds by stage; a generated token is no part of the way to the first one.
        title: of the picture.
    """
    lines = textwrap.wrap(title, TITLE)
    figure = Figure(figsize=(11, 1.7 + 0.2 * len(lines) + 0.55 * len(bars)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [name for name in STAGES if name != TOKEN and any(name in stages for _, stages in bars)]
    for axes, each, unit in ((left, False, "seconds to the first token"), (right, True, "milliseconds a frame")):
        scales = [1000 / frames if each else 1.0 for frames, _ in bars]
        longest = max(sum(stages.get(name, 0.0) for name in names) * scales[i] for i, (_, stages) in enumerate(bars))
        for row, (_, stages) in enumerate(bars):
            at = 0.0
            for name in names:
                wide = stages.get(name, 0.0) * scales[row]
                axes.barh(row, wide, left=at, color=COLOURS[STAGES.index(name)], label=name if row == 0 else None)
                if wide > THIN * longest:
                    axes.text(at + wide / 2, row, digits(wide), ha="center", va="center", fontsize=8)
                at += wide
            axes.text(at, row, f" {digits(at)}", va="center", fontsize=8, fontweight="bold")
        axes.margins(x=0.1)
        axes.set_xlabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yticks(range(len(bars)), [f"{frames:,} frames" for frames, _ in bars])
    left.invert_yaxis()
    figure.suptitle("\n".join(lines), fontsize=10)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False, fontsize=8
    )
    return figure
