"""Scores that a judging language model gives: what it said is read strictly, and averaged as the benchmarks do it.

Who judges is not decided here: these functions take what a judge wrote.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..grade import option

ASPECTS = ("camera", "short", "background", "main_object", "detailed")  # of VDC
BEST = 5.0
LABELS = ("correct", "incorrect", "not attempted")  # A, B and C of VideoEval-Pro's rubric


@dataclass(frozen=True)
class Judgement:
    """Of one question about a caption: whether the answer drawn from it is right, and how good, 0 to 5."""

    right: bool
    score: float


@dataclass(frozen=True)
class Average:
    """Of judgements.

    Attributes:
        accuracy: share of right ones.
        score: mean score.
        judged: questions.
        unparsed: of them, those whose judgement cannot be read; they count as wrong with score 0.
    """

    accuracy: float
    score: float
    judged: int
    unparsed: int


def judgement(text: str) -> Judgement | None:
    """What a VDC judge wrote, as ``{'pred': 'yes', 'score': 4}``; None for anything else, or for several."""
    found = {one for one in map(_judged, re.findall(r"\{[^{}]*\}", text)) if one is not None}
    return found.pop() if len(found) == 1 else None


def _judged(text: str) -> Judgement | None:
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # whatever a judge may write
        return None
    if not isinstance(values, dict):
        return None
    said, score = values.get("pred"), values.get("score")
    if not isinstance(said, str) or isinstance(score, bool) or not isinstance(score, int | float):
        return None
    if said.strip().lower() not in ("yes", "no") or not 0 <= score <= BEST:
        return None
    return Judgement(said.strip().lower() == "yes", float(score))


def vdc(aspects: Mapping[str, Mapping[str, Sequence[Judgement | None]]]) -> dict[str, Average]:
    """VDCscore: each aspect's mean over the means of its videos, and ``all``, the mean of the five aspects.

    Args:
        aspects: of each, the judgements of every video's questions; None where one cannot be read.

    Raises:
        ValueError: an aspect that there is not, or a video without questions.
    """
    unknown = set(aspects) - set(ASPECTS)
    if unknown:
        raise ValueError(f"VDC has no aspect {', '.join(sorted(unknown))}: its aspects are {', '.join(ASPECTS)}")
    told = {name: _mean(list(_videos(name, videos))) for name, videos in aspects.items() if videos}
    if len(told) == len(ASPECTS):
        parts = list(told.values())
        accuracy, score = (sum(getattr(one, name) for one in parts) / len(parts) for name in ("accuracy", "score"))
        told["all"] = Average(accuracy, score, sum(one.judged for one in parts), sum(one.unparsed for one in parts))
    return told


def _videos(aspect: str, videos: Mapping[str, Sequence[Judgement | None]]) -> Iterator[Average]:
    for video, judged in videos.items():
        if not judged:
            raise ValueError(f"VDC: no question about the {aspect} caption of {video} was judged")
        read = [one for one in judged if one is not None]
        right, score = sum(one.right for one in read), sum(one.score for one in read)
        yield Average(right / len(judged), score / len(judged), len(judged), len(judged) - len(read))


def _mean(videos: Sequence[Average]) -> Average:
    accuracy, score = (sum(getattr(one, name) for one in videos) / len(videos) for name in ("accuracy", "score"))
    return Average(accuracy, score, sum(one.judged for one in videos), sum(one.unparsed for one in videos))


def three_way(text: str) -> str | None:
    """What a judge with VideoEval-Pro's rubric wrote, A, B or C, as a label; None for anything else."""
    found = option(text, LABELS)
    return None if found is None else LABELS[found]
