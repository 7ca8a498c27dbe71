"""Which rows stay: counts, order, parity with torch.linspace, ties, several videos, several conversations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import draw, segment
from torch import Tensor

from videochat_flash.config import Drop
from videochat_flash.dropout import Run, Segment, choose, keep_count, keep_highest, keep_uniform

By = Literal["uniform", "attention"]


def conversation(parts: Sequence[tuple[int, int]], after: int) -> Segment:
    """Text and video in turn, then text whose rows are all queries."""
    runs, at = [], 0
    for text, visual in parts:
        runs.append(Run(at + text, visual, visual))
        at += text + visual
    return Segment(at + after, tuple(runs), tuple(range(at, at + after)))


conversations = st.builds(
    conversation,
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 20)), max_size=3),
    st.integers(1, 5),
)
ratios = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))


def score_of(segments: Sequence[Segment], seed: int) -> list[Tensor | None]:
    return [draw(s.length, seed=seed + i).abs() for i, s in enumerate(segments)]


@pytest.mark.parametrize(
    ("seen", "ratio", "count"),
    [(100, 0.29, 28), (256, 0.75, 192), (256, 0.25, 64), (256, 0.37, 94), (257, 0.5, 128), (3, 0.3, 0), (7, 1.0, 7)],
)
def test_the_count_is_the_truncated_float_product(seen: int, ratio: float, count: int) -> None:
    assert keep_count(Run(0, seen, seen), ratio) == count


def test_the_count_refers_to_the_original_rows_and_never_grows() -> None:
    assert keep_count(Run(0, 50, 100), 0.25) == 25
    assert keep_count(Run(0, 10, 100), 0.25) == 10


@given(st.integers(1, 200_000), st.data())
def test_uniform_is_torch_linspace_strictly_ascending_from_first_to_last(length: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, length))
    places = keep_uniform(length, keep)
    assert torch.equal(places, torch.linspace(0, length - 1, keep, dtype=torch.long))
    assert (places.diff() > 0).all()
    assert places[0] == 0 and (keep == 1 or places[-1] == length - 1)


def test_uniform_shows_the_rounding_of_the_reference() -> None:
    """Exact arithmetic would give other places for some sizes: linspace works in float32 and truncates."""
    differing = [
        (length, keep)
        for length in range(2, 200)
        for keep in range(2, length)
        if keep_uniform(length, keep).tolist() != [i * (length - 1) // (keep - 1) for i in range(keep)]
    ]
    assert 0 < len(differing) < 2000


def test_uniform_keeps_the_first_of_one_and_nothing_of_none() -> None:
    assert keep_uniform(9, 1).tolist() == [0]
    assert keep_uniform(9, 0).tolist() == keep_uniform(0, 0).tolist() == []


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 1.0]), min_size=1, max_size=30), st.data())
def test_the_highest_stay_in_order_and_the_earlier_wins_a_tie(scores: list[float], data: st.DataObject) -> None:
    keep = data.draw(st.integers(0, len(scores)))
    exact = torch.tensor(scores).tolist()
    best = sorted(range(len(exact)), key=lambda i: (-exact[i], i))[:keep]
    assert keep_highest(torch.tensor(scores), keep).tolist() == sorted(best)


@given(st.lists(conversations, min_size=1, max_size=3), ratios, st.sampled_from(["uniform", "attention"]))
def test_a_drop_keeps_all_text_the_chosen_rows_and_their_order(segments: list[Segment], ratio: float, by: By) -> None:
    scores = score_of(segments, 0)
    kept, after = choose(segments, Drop(1, ratio, by), scores)
    assert (kept.diff() > 0).all()
    assert len(kept) == sum(s.length for s in after)
    expected: list[int] = []
    offset = 0
    for old, score in zip(segments, scores, strict=True):
        dropped: set[int] = set()
        for run in old.runs:
            keep = int(run.seen * ratio)
            if by == "uniform":
                chosen = torch.linspace(0, run.length - 1, keep, dtype=torch.long)
            else:
                assert score is not None
                chosen = score[run.start : run.start + run.length].topk(keep).indices
            stays = {run.start + i for i in chosen.tolist()}
            dropped |= set(range(run.start, run.start + run.length)) - stays
        expected += [offset + i for i in range(old.length) if i not in dropped]
        offset += old.length
    assert kept.tolist() == expected


@given(st.lists(conversations, min_size=1, max_size=3), ratios, ratios)
def test_runs_and_queries_move_with_the_rows(segments: list[Segment], one: float, other: float) -> None:
    rows = torch.arange(sum(s.length for s in segments))
    was = [_meaning(s, part) for s, part in zip(segments, rows.split([s.length for s in segments]), strict=True)]
    now: Sequence[Segment] = segments
    for ratio in sorted((one, other), reverse=True):
        kept, now = choose(now, Drop(0, ratio), score_of(now, 7))
        rows = rows[kept]
    for old, new, part in zip(was, now, rows.split([s.length for s in now]), strict=True):
        queries, runs = _meaning(new, part)
        assert queries == old[0]
        for original, left, run in zip(old[1], runs, new.runs, strict=True):
            assert set(left) <= set(original)
            assert run.seen == len(original) and len(left) == int(len(original) * min(one, other))


def _meaning(s: Segment, rows: Tensor) -> tuple[list[int], list[list[int]]]:
    """The rows that queries and runs stand for."""
    return rows[list(s.queries)].tolist(), [rows[r.start : r.start + r.length].tolist() for r in s.runs]


def test_the_second_drop_refers_to_the_rows_before_the_first() -> None:
    segments: Sequence[Segment] = [segment(3, 20, 7)]
    lengths = []
    for ratio in (0.75, 0.25, 0.25, 0.0, 0.0):
        _, segments = choose(segments, Drop(0, ratio, "uniform"), [None])
        lengths.append(segments[0].length)
    assert lengths == [25, 15, 15, 10, 10]


@pytest.mark.parametrize("by", ["uniform", "attention"])
def test_nothing_and_everything_can_stay(by: By) -> None:
    one = segment(2, 6, 3)
    kept, (after,) = choose([one], Drop(0, 1.0, by), score_of([one], 0))
    assert kept.tolist() == list(range(11)) and after == one
    kept, (after,) = choose([one], Drop(0, 0.0, by), score_of([one], 0))
    assert kept.tolist() == [0, 1, 8, 9, 10]
    assert after == Segment(5, (Run(2, 0, 6),), (4,))


def test_a_conversation_without_a_video_or_without_scores_is_left_alone() -> None:
    segments = [segment(4, 0, 2), segment(1, 8, 1), segment(1, 4, 1)]
    scores = score_of(segments, 0)
    scores[1] = None
    kept, after = choose(segments, Drop(0, 0.5), scores)
    assert after[:2] == tuple(segments[:2]) and after[2].length == 4
    assert kept.tolist()[:16] == list(range(16))
    _, after = choose(segments, Drop(0, 0.5, "uniform"), scores)
    assert [s.length for s in after] == [6, 6, 4]


def test_segments_and_scores_must_agree_in_number() -> None:
    with pytest.raises(ValueError, match="zip"):
        choose([segment(1, 2, 1)], Drop(0, 0.5), [])


def test_text_between_two_videos_stays_between_them() -> None:
    one = conversation([(2, 4), (3, 6)], 2)
    kept, (after,) = choose([one], Drop(0, 0.5, "uniform"), [None])
    assert kept.tolist() == [0, 1, 2, 5, 6, 7, 8, 9, 11, 14, 15, 16]
    assert after.runs == (Run(2, 2, 4), Run(7, 3, 6))
    assert [b - a for a, b in pairwise(after.queries)] == [1] and after.queries == (10, 11)
