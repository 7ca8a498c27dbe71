"""Scores of a run: with intervals, blind and constant baselines, by category, and everything that was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..grade import EMPTY, LETTERS, UNPARSED, bare, iou
from ..stats import Outcome, bootstrap, paired, wilson
from . import reference, scorers
from .benchmarks import BENCHMARKS, Benchmark, Graded, macro, reference_mean
from .items import Flaw, Item, counted
from .run import Record, Records
from .scorers import VERDICTS, Score

Facts = dict[str, Any]
ANSWERS, INTERVALS = "answers", "intervals"


@dataclass(frozen=True)
class Scored:
    """A question with what its answers were worth.

    Attributes:
        item: the question.
        score: of the answer that saw the video.
        blind: of the one that did not; None where there is none.
        reference: of the first, as the reference would score it; None where it has no rule.
    """

    item: Item
    score: Score
    blind: float | None
    reference: float | None

    @property
    def section(self) -> str:
        """Answers are right or wrong, intervals more or less met: they are never averaged together."""
        return INTERVALS if self.item.kind == "interval" else ANSWERS

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Its labels on every axis."""
        return dict(self.item.groups)


def scored(items: Sequence[Item], records: Records, run: Mapping[str, Any], benchmark: Benchmark) -> list[Scored]:
    """Every question that was answered; errors are none.

    Args:
        items: the questions.
        records: what came of them.
        run: what ``begin_run`` wrote: the wording tells whether options were shown with letters.
        benchmark: how the reference reads a letter.
    """
    lettered = run["settings"]["prompt"] != "question"
    found = []
    for item in items:
        seen, blind = (_text(records.get((item.id, item.mark, without))) for without in (False, True))
        if seen is not None:
            unseen = None if blind is None else worth(item, blind, lettered).value
            found.append(
                Scored(item, worth(item, seen, lettered), unseen, as_reference(item, seen, lettered, benchmark))
            )
    return found


def _text(record: Record | None) -> str | None:
    return record.text if record is not None and record.status == "ok" else None


def worth(item: Item, text: str, lettered: bool) -> Score:
    """The strict score of an answer."""
    if item.interval is not None:
        return scorers.grounding(text, item.interval, item.start or 0.0)
    if item.references:
        return scorers.exact(text, item.references)
    return scorers.choice(text, item.options, item.answer, lettered)


def as_reference(item: Item, text: str, lettered: bool, benchmark: Benchmark) -> float | None:
    """The reference's score of an answer; None where it has no rule. Letters that it draws depend on the row alone."""
    if item.interval is not None:
        said = reference.charades(text)
        offset = item.start or 0.0
        return 0.0 if said is None else iou((said[0] + offset, said[1] + offset), item.interval)
    if not item.options or not lettered:
        return None
    letter = benchmark.reader(text, item.options, np.random.default_rng(int(item.mark, 16)))
    return float(letter == LETTERS[item.answer])


def summary(
    items: Sequence[Item], flaws: Sequence[Flaw], records: Records, run: Mapping[str, Any], benchmark: str = "mvbench"
) -> Facts:
    """Everything that can be said of a run, as JSON holds it.

    Raises:
        ValueError: nothing was answered.
    """
    rule = BENCHMARKS[benchmark]
    every = scored(items, records, run, rule)
    if not every:
        failed = [one.error for one in records.values() if one.status == "error"]
        last = f"; the last error: {failed[-1]}" if failed else ""
        raise ValueError(f"nothing was answered: there is nothing to score{last}")
    counts = _counts(items, flaws, records, every)
    lettered = run["settings"]["prompt"] != "question"
    facts: Facts = {
        "complete": not (counts["unasked"] or counts["failed"] or counts["missing"]),
        "counts": counts,
        "flaws": [str(one) for one in flaws],
        "flaw_kinds": counted(flaws),
        "errors": dict(Counter(one.error for one in records.values() if one.status == "error").most_common(5)),
        "reference": rule.title,
        "run": dict(run),
    }
    for name in (ANSWERS, INTERVALS):
        some = [one for one in every if one.section == name]
        asked = sum((one.kind == "interval") == (name == INTERVALS) for one in items)
        facts[name] = _section(some, asked - len(some) + len(flaws), rule, lettered) if some else None
    return facts


def _counts(items: Sequence[Item], flaws: Sequence[Flaw], records: Records, every: Sequence[Scored]) -> Facts:
    verdicts = Counter(one.score.verdict for one in every)
    keys = {(item.id, item.mark) for item in items}
    own = [one for one in records.values() if (one.id, one.mark) in keys]
    failed = sum(one.status == "error" and not one.blind for one in own)
    return {
        "rows": len(items) + len(flaws),
        "unasked": len(flaws),
        "answered": len(every),
        "failed": failed,
        "missing": len(items) - len(every) - failed,
        **{name: verdicts[name] for name in VERDICTS},
        "videos": len({one.item.name for one in every}),
        "others": len(records) - len(own),
        "seconds": round(sum(one.seconds for one in own), 1),
    }


def _section(some: Sequence[Scored], left_out: int, rule: Benchmark, lettered: bool) -> Facts:
    """Of answers or of intervals: all together, and each label of each axis."""
    axes = dict.fromkeys(axis for one in some for axis in one.groups)
    graded = [Graded(one.score.value, one.groups) for one in some]
    total = _row(some, lettered)
    if total["reference"] is not None and some[0].section == ANSWERS:
        total["reference"] = reference_mean(_read(some), rule)
    return {
        "all": total,
        "at_least": total["score"] * len(some) / (len(some) + left_out),
        "means": {axis: macro(graded, axis) for axis in axes},
        "axes": {axis: _labels(some, axis, rule, lettered) for axis in axes},
    }


def _read(some: Sequence[Scored]) -> list[Graded]:
    """As the reference reads answers."""
    return [Graded(one.reference or 0.0, one.groups, one.score.verdict == EMPTY) for one in some]


def _labels(some: Sequence[Scored], axis: str, rule: Benchmark, lettered: bool) -> dict[str, Facts]:
    told = {}
    for label in sorted({label for one in some for label in one.groups.get(axis, ())}):
        own = [one for one in some if label in one.groups.get(axis, ())]
        told[label] = _row(own, lettered)
        if told[label]["reference"] is not None and rule.counts == "answered" and own[0].section == ANSWERS:
            alone = [replace(one, groups={}) for one in _read(own)]  # a task's own number leaves out empty answers, too
            told[label]["reference"] = reference_mean(alone, rule)
    return told


def _row(some: Sequence[Scored], lettered: bool) -> Facts:
    """One line of a table. ``wilson`` takes questions as independent, ``clustered`` videos."""
    values = [one.score.value for one in some]
    clustered = bootstrap([Outcome((), one.item.name, 0, one.score.value) for one in some], np.random.default_rng(0))
    intervals = some[0].section == INTERVALS
    blind = [one.blind for one in some if one.blind is not None]
    read = [one.reference for one in some if one.reference is not None]
    chances = [1 / len(one.item.options) for one in some if one.item.options]
    row: Facts = {
        "asked": len(some),
        "videos": len({one.item.name for one in some}),
        "score": clustered.mean,
        "wilson": None if intervals else wilson(sum(values), len(some)),
        "clustered": (clustered.low, clustered.high),
        "design": clustered.design,
        "blind": sum(blind) / len(blind) if len(blind) == len(some) else None,
        "chance": sum(chances) / len(some) if len(chances) == len(some) else None,
        "constant": _constant(some, lettered),
        "reference": sum(read) / len(read) if len(read) == len(some) else None,
        "unparsed": sum(one.score.verdict == UNPARSED for one in some),
        "empty": sum(one.score.verdict == EMPTY for one in some),
    }
    return {**row, "recall": _recall(values), "reference_recall": _recall(read)} if intervals else row


def _recall(overlaps: Sequence[float]) -> dict[str, float]:
    return {f"{least:g}": scorers.recall(overlaps, least) for least in scorers.THRESHOLDS}


def _constant(some: Sequence[Scored], lettered: bool) -> float:
    """What the one answer that is best for all of them would get, without a look at any video."""
    truths = [one.item.interval for one in some if one.item.interval is not None]
    if truths:
        return float(np.mean(scorers.constant_interval(truths)[1]))
    said: Counter[object] = Counter()
    for one in some:
        item = one.item
        words = item.references or (() if lettered else (item.options[item.answer],))
        said.update({bare(one).casefold() for one in words} or [item.answer])
    return max(said.values()) / len(some)


def compared(first: Sequence[Scored], second: Sequence[Scored]) -> Facts:
    """Two runs on the questions that both have answered, answers and intervals apart.

    Raises:
        ValueError: there are none.
    """
    other = {(one.item.id, one.item.mark): one for one in second}
    told: Facts = {}
    for name in (ANSWERS, INTERVALS):
        mine = [one for one in first if one.section == name and (one.item.id, one.item.mark) in other]
        if not mine:
            continue
        theirs = [other[one.item.id, one.item.mark] for one in mine]
        own, others = ([one.score.value for one in some] for some in (mine, theirs))
        test = paired(own, others, [one.item.name for one in mine], np.random.default_rng(0))
        told[name] = {**asdict(test), "against": float(np.mean(others))}
    if not told:
        raise ValueError("the two runs share no question that both have answered: they cannot be compared")
    return told
