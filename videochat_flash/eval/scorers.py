"""What an answer is worth, strictly: what cannot be read counts as wrong and is told as such, nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..grade import EMPTY, RIGHT, UNPARSED, WRONG, iou, option
from ..times import Interval, interval

VERDICTS = (RIGHT, WRONG, UNPARSED, EMPTY)
THRESHOLDS = (0.3, 0.5, 0.7)  # of overlap, in recall
HALF = 0.5  # overlap from which on an interval is called right
GRID = 33  # starts and as many ends that a constant interval is looked for among


@dataclass(frozen=True)
class Score:
    """Of one answer.

    Attributes:
        value: 0 to 1: whether it is right, or how much of an interval it meets.
        verdict: one of ``VERDICTS``.
    """

    value: float
    verdict: str


def choice(text: str, options: Sequence[str], answer: int, lettered: bool = True) -> Score:
    """Whether an answer names the right option, as ``grade.option`` reads it.

    Args:
        text: what was said.
        options: the texts of the options.
        answer: index of the right one.
        lettered: whether the options were shown with letters; if not, only their own words are read.
    """
    found = option(text, options, lettered)
    return _of(text, None if found is None else float(found == answer))


def exact(text: str, references: Sequence[str]) -> Score:
    """Whether an answer is one of the references, but for case and for marks around it."""
    return _of(text, float(any(option(text, [one], lettered=False) == 0 for one in references)))


def grounding(text: str, truth: Interval, offset: float = 0.0) -> Score:
    """How much of an interval in seconds an answer meets: intersection over union.

    Args:
        text: what was said.
        truth: the interval.
        offset: the second of the video at which what the model saw begins; its times count from there.
    """
    said = interval(text)
    if said is None:
        return _of(text, None)
    value = iou((said[0] + offset, said[1] + offset), truth)
    return Score(value, RIGHT if value >= HALF else WRONG)


def _of(text: str, value: float | None) -> Score:
    if not text.strip():
        return Score(0.0, EMPTY)
    if value is None:
        return Score(0.0, UNPARSED)
    return Score(value, RIGHT if value else WRONG)


def recall(overlaps: Sequence[float], least: float) -> float:
    """R@``least``: the share of overlaps that reach it; 0 of none."""
    return sum(one >= least for one in overlaps) / len(overlaps) if overlaps else 0.0


def constant_interval(truths: Sequence[Interval]) -> tuple[Interval, list[float]]:
    """The one interval that would answer all questions best, and how much of each truth it meets: a blind baseline.

    Looked for among 33 quantiles of the starts and 33 of the ends, by the mean overlap.

    Raises:
        ValueError: no truths.
    """
    if not truths:
        raise ValueError("no interval is best for no questions")
    table = np.array(truths, dtype=np.float64)
    shares = np.linspace(0, 1, GRID)
    best, met = (float(table[0, 0]), float(table[0, 1])), np.zeros(len(table))
    for start in np.unique(np.quantile(table[:, 0], shares)):
        for end in np.unique(np.quantile(table[:, 1], shares)):
            if end <= start:
                continue
            both = np.minimum(end, table[:, 1]) - np.maximum(start, table[:, 0])
            either = np.maximum(end, table[:, 1]) - np.minimum(start, table[:, 0])
            overlap = np.clip(both, 0, None) / either
            if overlap.mean() > met.mean():
                best, met = (float(start), float(end)), overlap
    return best, met.tolist()
