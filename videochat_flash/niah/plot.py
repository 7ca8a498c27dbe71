"""Heat maps with their numbers in the cells, on a fixed scale from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ..files import beside
from .compat import depth_label

COLOURS = ("#F0496E", "#EBB839", "#9AD5B3")  # of 0, 0.5 and 1, as in the published figure
LINES = {"trained": ("trained length", "-"), "window": ("rope window", "--"), "unique": ("unique frames", ":")}
DOTS = 120  # an inch
CELL = (0.62, 0.5)  # inches


def draw(facts: Mapping[str, Any], folder: Path) -> list[Path]:
    """Heat maps of what a summary holds, each as PNG and SVG; returns the files.

    Raises:
        OSError: they cannot be written.
    """
    made = []
    for name, rows, label, title in (
        ("single", "depth", "depth of the needle", "single-hop: share right"),
        ("multi", "hops", "hops", "multi-hop: share of chains with everything right"),
    ):
        if facts[name] is not None:
            figure = heatmap(facts[name]["cells"], rows, label, title, facts["lines"])
            made += save(figure, folder / ("heatmap" if name == "single" else "heatmap-multi"))
    return made


def _told(share: float) -> str:
    """Two digits, or three where two would claim all or nothing."""
    return f"{share:.2f}" if share in (0, 1) or 0.005 <= share < 0.995 else f"{share:.3f}"


def heatmap(
    cells: Sequence[Mapping[str, Any]], rows: str, label: str, title: str, lines: Mapping[str, float | None]
) -> Figure:
    """A grid of shares: columns are lengths, rows are ``rows`` of the cells.

    Args:
        cells: each with length, the row's value, accuracy and asked.
        rows: ``depth`` or ``hops``.
        label: of the axis of rows.
        title: of the picture.
        lines: lengths at which something changes, or None.
    """
    lengths, values = (sorted({cell[name] for cell in cells}) for name in ("length", rows))
    told = {(cell["length"], cell[rows]): cell["accuracy"] for cell in cells if cell["accuracy"] is not None}
    table = [[told.get((length, value), float("nan")) for length in lengths] for value in values]
    size = (2.6 + CELL[0] * len(lengths), 1.9 + CELL[1] * len(values))
    figure = Figure(figsize=(max(5.0, size[0]), max(2.6, size[1])), layout="constrained")
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("shares", COLOURS).with_extremes(bad="#dddddd")
    image = axes.imshow(table, cmap=colours, vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(table):
        for x, share in enumerate(row):
            axes.text(x, y, "–" if share != share else _told(share), ha="center", va="center", fontsize=8)
    axes.set_xticks(
        range(len(lengths)), [f"{length:,.0f}" for length in lengths], rotation=45 if len(lengths) > 8 else 0
    )
    names = [depth_label(value) if rows == "depth" else f"{value:g}" for value in values]
    axes.set_yticks(range(len(values)), names)
    axes.set_xlabel("frames")
    axes.set_ylabel(label)
    axes.set_title(title)
    for name, (words, style) in LINES.items():
        place = crossing(lengths, lines.get(name))
        if place is not None:
            axes.axvline(place, color="black", linestyle=style, linewidth=1.4, label=f"{words}: {lines[name]:,.0f}")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.colorbar(image, ax=axes, ticks=[0, 0.25, 0.5, 0.75, 1])
    return figure


def crossing(lengths: Sequence[float], at: float | None) -> float | None:
    """Where a length lies on the axis of columns, before all of them if they are longer; None if none is."""
    if at is None or not lengths or at >= lengths[-1]:
        return None
    return sum(length <= at for length in lengths) - 0.5


def save(figure: Figure, stem: Path) -> list[Path]:
    """PNG and SVG; the same bytes for the same figures."""
    made = []
    for form in ("png", "svg"):
        path = stem.with_suffix(f".{form}")
        with beside(path) as part, rc_context({"svg.hashsalt": stem.name}):
            figure.savefig(part, format=form, dpi=DOTS, metadata={"Date": None} if form == "svg" else None)
        made.append(path)
    return made
