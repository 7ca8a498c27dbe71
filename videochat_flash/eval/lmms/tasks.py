"""What the YAML files in ``tasks`` name: rows of ``vcflash rows`` -> what is shown, asked, right, and scored.

A row knows its benchmark (``meta``); a task knows the folder of its rows. All else is what ``vcflash eval`` does: its
wording ``paper``, the reference's reading beside the strict one, all rows in the denominator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...grade import EMPTY, LETTERS, UNPARSED
from .. import judges, judging, scorers
from ..benchmarks import BENCHMARKS, Graded, reference_mean
from ..benchmarks import macro as macro_mean
from ..items import NO_OPTION, Item, Wrong, item_of
from ..prompts import prompt
from ..score import as_reference, worth

Doc = Mapping[str, Any]  # a row, with None for what it lacks
Kwargs = Mapping[str, Any]  # of a task: ``folder``, in which videos are looked for
Scored = dict[str, Any]
NOWHERE = Path()
RECALLS = ("recall_0.3", "recall_0.5", "recall_0.7")


def to_messages(doc: Doc, lmms_eval_specific_kwargs: Kwargs) -> list[dict[str, Any]]:
    """A chat message: the video, or the stretch of it that is asked about, and the text."""
    item, text = _asked(doc, lmms_eval_specific_kwargs)
    video = {"type": "video", "url": str(item.video), "start_time": item.start, "end_time": item.end}
    return [{"role": "user", "content": [video, {"type": "text", "text": text}]}]


def to_visual(doc: Doc, lmms_eval_specific_kwargs: Kwargs) -> list[object]:
    """The video for models without chat messages; a stretch of it as lmms-eval says one."""
    item, _ = _asked(doc, lmms_eval_specific_kwargs)
    if item.start is None and item.end is None:
        return [str(item.video)]
    return [{"type": "video", "path": str(item.video), "video_start": item.start, "video_end": item.end}]


def to_text(doc: Doc, lmms_eval_specific_kwargs: Kwargs) -> str:
    """The question in the reference's words. lmms-eval takes it of all rows before it asks for any answer.

    Raises:
        ValueError: a row that cannot be asked, or one that needs a judge where none is named.
    """
    return _asked(doc, lmms_eval_specific_kwargs)[1]


def to_target(doc: Doc) -> str:
    """What is right."""
    item, possible = _item(doc, NOWHERE)
    if item.judged:
        return " / ".join(answer for _, answer in item.judged)
    if item.interval is not None:
        return "{:g} - {:g}".format(*item.interval)
    return LETTERS[item.answer] if possible else str(doc["answer"])


def scores(doc: Doc, answers: Sequence[str]) -> dict[str, Any]:
    """What an answer is worth, by name of the metric; of each label of the row once more."""
    item, possible = _item(doc, NOWHERE)
    if item.judged:
        return _judged(doc, item, answers[0])
    strict = worth(item, answers[0], lettered=True)
    told = as_reference(item, answers[0], True, BENCHMARKS[_benchmark(doc)])
    shared: Scored = {"video": item.name, "groups": dict(item.groups), "benchmark": _benchmark(doc)}
    shared |= {"empty": strict.verdict == EMPTY}
    read = {
        "paper": {**shared, "score": told if possible else 0.0},
        "strict": {**shared, "score": strict.value if possible else 0.0},
    }
    unparsed = float(strict.verdict in (UNPARSED, EMPTY))
    if item.interval is not None:
        met = {f"{kind}_{name}": one for kind, one in read.items() for name in ("miou", *RECALLS)}
        return {**met, "unparsed": unparsed, "constant": list(item.interval)}
    facts = {"chance": 1 / len(item.options), "constant": to_target(doc), "impossible": float(not possible)}
    more = {"paper_macro": read["paper"], **{f"paper_{label}": read["paper"] for label in labels(item)}}
    return {**read, "unparsed": unparsed, **facts, **more}


def labels(item: Item) -> Iterator[str]:
    """``duration_short``, ``task_action_sequence``: its labels, as names of metrics have them."""
    for axis, some in item.groups:
        yield from (re.sub(r"\W+", "_", f"{axis}_{label}".lower()).strip("_") for label in some)


# -- aggregation -------------------------------------------------------------------------------------------------------


def mean(some: Sequence[Scored]) -> float:
    """Of all."""
    return float(np.mean([_value(one) for one in some]))


def reference(some: Sequence[Scored]) -> float | None:
    """The reference's number; of a task whose every answer is empty it has none."""
    return reference_mean(_graded(some), BENCHMARKS[some[0]["benchmark"]])


def macro(some: Sequence[Scored]) -> float | None:
    """The mean over tasks of their means."""
    return macro_mean(_graded(some), BENCHMARKS[some[0]["benchmark"]].axes[0])


def constant(right: Sequence[str]) -> float:
    """What the one letter that is right most often would get, without a look at any video."""
    return max(list(right).count(letter) for letter in set(right)) / len(right)


def constant_interval(right: Sequence[Sequence[float]]) -> float:
    """What the one interval that is best for all would get, in mIoU."""
    return float(np.mean(scorers.constant_interval([(one[0], one[1]) for one in right])[1]))


def recall_3(some: Sequence[Scored]) -> float:
    """R@0.3."""
    return scorers.recall([one["score"] for one in some], 0.3)


def recall_5(some: Sequence[Scored]) -> float:
    """R@0.5."""
    return scorers.recall([one["score"] for one in some], 0.5)


def recall_7(some: Sequence[Scored]) -> float:
    """R@0.7."""
    return scorers.recall([one["score"] for one in some], 0.7)


def vdc_accuracy(some: Sequence[Scored]) -> float | None:
    """VDCscore's accuracy: the mean of the five aspects; None where they are not all there."""
    total = judges.vdc(_by_aspect(some)).get("all")
    return None if total is None else total.accuracy


def vdc_score(some: Sequence[Scored]) -> float | None:
    """VDCscore's score, 0 to 5."""
    total = judges.vdc(_by_aspect(some)).get("all")
    return None if total is None else total.score


def unjudged(some: Sequence[Scored]) -> int:
    """How many judgements could not be read; they count as wrong."""
    return sum(one["unjudged"] for one in some)


# -- rows --------------------------------------------------------------------------------------------------------------


def _benchmark(doc: Doc) -> str:
    return str(doc["meta"]["benchmark"])


def _item(doc: Doc, folder: Path) -> tuple[Item, bool]:
    """A row, and whether it can be answered: where the answer is none of the options, no letter is right (MLVU)."""
    row = {name: value for name, value in doc.items() if value is not None}
    if "group" in row:
        row["group"] = {axis: labels for axis, labels in row["group"].items() if labels is not None}
    try:
        return item_of(row, folder), True
    except Wrong as error:
        if error.kind != NO_OPTION:
            raise
        return item_of({**row, "answer": LETTERS[0]}, folder), False


def _asked(doc: Doc, kwargs: Kwargs) -> tuple[Item, str]:
    item, _ = _item(doc, Path(kwargs["folder"]))
    if not item.video.exists():
        raise ValueError(f"row {item.id}: its video {item.video} is missing")
    if item.judged:
        judging.judge_of()  # or fail now, not after all answers
    return item, prompt(item, "paper", _benchmark(doc))


def _judged(doc: Doc, item: Item, said: str) -> dict[str, Any]:
    judge = judging.judge_of()
    shared = {"video": item.name, "groups": dict(item.groups), "judge": judge.model}
    if _benchmark(doc) == "videoeval-pro-open":
        [(question, truth)] = item.judged
        raw = judging.verdict(judge, said, question, truth)
        label = judges.three_way(raw)
        one = {**shared, "score": float(label == judges.LABELS[0]), "unjudged": int(label is None), "raw": raw}
        return {"accuracy": one, "unjudged": one, **{f"accuracy_{label}": one for label in labels(item)}}
    raws = list(judging.from_caption(judge, said, item.judged))
    read = [judges.judgement(verdict) for _, verdict in raws]
    one = {
        **shared,
        "score": sum(found is not None and found.right for found in read) / len(read),
        "judgements": [None if found is None else [found.right, found.score] for found in read],
        "unjudged": read.count(None),
        "raw": [list(pair) for pair in raws],
    }
    return {"accuracy": one, "score": one, "unjudged": one, **{f"accuracy_{label}": one for label in labels(item)}}


def _by_aspect(some: Sequence[Scored]) -> dict[str, dict[str, list[judges.Judgement | None]]]:
    found: dict[str, dict[str, list[judges.Judgement | None]]] = {}
    for one in some:
        [aspect] = one["groups"]["aspect"]
        said = [None if two is None else judges.Judgement(bool(two[0]), float(two[1])) for two in one["judgements"]]
        found.setdefault(aspect, {}).setdefault(one["video"], []).extend(said)
    return found


def _value(one: Scored | float) -> float:
    return float(one["score"]) if isinstance(one, dict) else float(one)


def _graded(some: Sequence[Scored]) -> list[Graded]:
    return [Graded(one["score"], {k: tuple(v) for k, v in one["groups"].items()}, one["empty"]) for one in some]
