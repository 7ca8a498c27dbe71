"""Progressive visual dropout: which rows of a packed axis stay (paper section 3.2). Values in, values out.

A conversation is a Segment of the packed axis; its visual rows lie in Runs. Text rows always stay, order is preserved,
and ratios always refer to the rows that a run had before any drop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .config import Drop


@dataclass(frozen=True)
class Run:
    """Visual rows of one video or image within a conversation."""

    start: int  # first row, counted from the conversation's first
    length: int  # rows now
    seen: int  # rows before any drop
    skipped: int = 0  # rows before any drop that were left out in front: as many positions as stay of them are free


@dataclass(frozen=True)
class Segment:
    """One conversation on the packed axis T."""

    length: int
    runs: tuple[Run, ...] = ()
    queries: tuple[int, ...] = ()  # rows whose attention ranks the visual rows


def keep_count(run: Run, ratio: float) -> int:
    """int(N * r) of the original rows N, and never more than are left."""
    return min(int(run.seen * ratio), run.length)


def keep_uniform(length: int, keep: int) -> Int[Tensor, " k"]:
    """Evenly spaced places, first and last included; torch's own linspace, whose rounding the reference shows."""
    return torch.linspace(0, length - 1, keep, dtype=torch.long)


def keep_highest(scores: Float[Tensor, " n"], keep: int) -> Int[Tensor, " k"]:
    """The places of the highest scores, ascending; the earlier place wins a tie."""
    order = scores.argsort(descending=True, stable=True)
    return order[:keep].sort().values


def choose(
    segments: Sequence[Segment], drop: Drop, scores: Sequence[Float[Tensor, " _"] | None]
) -> tuple[Int[Tensor, " k"], tuple[Segment, ...]]:
    """Decide one drop.

    Args:
        segments: the conversations, in the order in which they are packed.
        drop: how many stay, and by which rule.
        scores: for each conversation, a score for each of its rows; None where nothing is ranked (a conversation
            without visual rows or, in training, without an answer): ``attention`` leaves it alone.

    Returns:
        Indices into the packed axis of the rows that stay, ascending, and the conversations as they are afterwards.
    """
    kept, after, offset = [], [], 0
    for segment, score in zip(segments, scores, strict=True):
        drops = segment.runs and (drop.by == "uniform" or score is not None)
        places, shrunk = _choose_rows(segment, drop, score) if drops else (torch.arange(segment.length), segment)
        kept.append(places + offset)
        after.append(shrunk)
        offset += segment.length
    device = next((s.device for s in scores if s is not None), None)
    return torch.cat([k.to(device) for k in kept]), tuple(after)


def _choose_rows(segment: Segment, drop: Drop, score: Float[Tensor, " n"] | None) -> tuple[Int[Tensor, " k"], Segment]:
    """The rows of one conversation that stay, and the conversation with its runs and queries moved accordingly."""
    device = None if score is None else score.device
    pieces, runs, at, gone = [], [], 0, 0
    shifts = []  # (first row behind a run, rows dropped up to there)
    for run in segment.runs:
        keep = keep_count(run, drop.ratio)
        if drop.by == "uniform":
            chosen = keep_uniform(run.length, keep).to(device)
        else:
            assert score is not None, "ranking needs scores"
            chosen = keep_highest(score[run.start : run.start + run.length], keep)
        pieces += [torch.arange(at, run.start, device=device), chosen + run.start]
        runs.append(replace(run, start=run.start - gone, length=keep))
        at, gone = run.start + run.length, gone + run.length - keep
        shifts.append((at, gone))
    pieces.append(torch.arange(at, segment.length, device=device))
    queries = tuple(q - max((lost for first, lost in shifts if q >= first), default=0) for q in segment.queries)
    return torch.cat(pieces), Segment(segment.length - gone, tuple(runs), queries)
