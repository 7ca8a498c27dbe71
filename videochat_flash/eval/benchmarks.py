"""The public benchmarks: how the reference reads their answers, what they are told by, how scores become one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from . import reference
from .reference import Reader


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark of options is scored by the reference; strict scores need none of this.

    Attributes:
        title: its name.
        reader: how the reference reads a letter.
        axes: what items are grouped by. The first one are its tasks.
        counts: whom the reference divides by: all items, or in each task those that got an answer at all.
    """

    title: str
    reader: Reader
    axes: tuple[str, ...]
    counts: Literal["all", "answered"] = "all"


BENCHMARKS: dict[str, Benchmark] = {
    "mvbench": Benchmark("MVBench", reference.mvbench, ("task",), "answered"),
    "perception-test": Benchmark("Perception Test", reference.perception_test, ("area", "reasoning")),
    "longvideobench": Benchmark("LongVideoBench", reference.longvideobench, ("duration_group", "question_category")),
    "mlvu": Benchmark("MLVU", reference.mvbench, ("task",), "answered"),
    "video-mme": Benchmark("Video-MME", reference.video_mme, ("duration", "domain", "sub_category", "task_type")),
    "lvbench": Benchmark("LVBench", reference.mvbench, ("type", "ability"), "answered"),
    "charades-sta": Benchmark("Charades-STA", reference.mvbench, ()),
    "videoeval-pro": Benchmark("VideoEval-Pro, multiple choice", reference.mvbench, ("qa_type",)),
    "videoeval-pro-open": Benchmark("VideoEval-Pro", reference.mvbench, ("qa_type",)),
    "vdc": Benchmark("VDC", reference.mvbench, ("aspect",)),
}


@dataclass(frozen=True)
class Graded:
    """An item with its score.

    Attributes:
        score: 0 to 1.
        groups: its labels on every axis; on some (LVBench's abilities) it has several.
        empty: whether the answer was an empty text.
    """

    score: float
    groups: Mapping[str, tuple[str, ...]]
    empty: bool = False


def by_group(items: Sequence[Graded], axis: str) -> dict[str, list[Graded]]:
    """Items of each label, in the order of labels; those of several labels count in each."""
    found: dict[str, list[Graded]] = {}
    for one in items:
        for label in one.groups.get(axis, ()):
            found.setdefault(label, []).append(one)
    return dict(sorted(found.items()))


def micro(items: Sequence[Graded]) -> float | None:
    """The mean over items; None of none."""
    return sum(one.score for one in items) / len(items) if items else None


def macro(items: Sequence[Graded], axis: str) -> float | None:
    """The mean of the groups' means: MLVU's official M-Avg, over its tasks."""
    means = [sum(one.score for one in some) / len(some) for some in by_group(items, axis).values()]
    return sum(means) / len(means) if means else None


def reference_mean(items: Sequence[Graded], benchmark: Benchmark) -> float | None:
    """The reference's own number: over all items, or tasks without their empty answers, weighted by size.

    A task of which every answer is empty has no score there, and is left out of the mean. Items without tasks are one.
    """
    if benchmark.counts == "all" or not benchmark.axes:
        return micro(items)
    total, size = 0.0, 0
    for some in (by_group(items, benchmark.axes[0]) or {"": list(items)}).values():
        answered = [one for one in some if not one.empty]
        if answered:
            total += len(some) * sum(one.score for one in answered) / len(answered)
            size += len(some)
    return total / size if size else None
