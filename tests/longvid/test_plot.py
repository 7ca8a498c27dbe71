"""The report's pictures can be read, however little there is to show."""

from __future__ import annotations

from array import array

import pytest

from videochat_flash.longvid import plot
from videochat_flash.longvid.report import Facts


@pytest.mark.parametrize("durations", [(), (60.0,), (31.0, 39.0), (8.0, 36_000.0)])
def test_lengths_have_ticks_that_are_plain_numbers(durations: tuple[float, ...]) -> None:
    figure = plot.lengths(Facts(durations=array("d", durations), answers=array("l", [1, 3, 3, 40])))
    figure.canvas.draw()
    axes, words = figure.axes
    left, right = axes.get_xlim()
    shown = [one.get_text() for one in axes.get_xticklabels() if left <= one.get_position()[0] <= right]
    assert len(shown) >= 2 or not durations
    assert all(text.replace(",", "").replace(".", "").isdigit() for text in shown)
    assert all(float(tick).is_integer() for tick in axes.get_yticks()) and words.get_ylabel() == "answers"
    assert sum(bar.get_height() for bar in axes.patches) == len(durations)


def test_bars_are_counted_in_whole_numbers() -> None:
    figure = plot.bars(["one", "two"], [1, 2], "times")
    figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())
