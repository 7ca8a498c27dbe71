"""What a model answers about the videos that were held out, what it answers blind, and what guessing is worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from ..bucket import fetched
from ..chat import VideoChatFlash
from ..prefix import prepare
from ..video import Sampling
from .records import Question, read_lines
from .rows import PLACE
from .sieve import right
from .weave import alike
from .write import FOLDER

ROOM = 16  # tokens beyond the bytes of the right answer, after which a wrong one may end
TOLD = ("caption", "summary")  # families whose answers are texts: scored by the words that they share with the truth
FORM = "reference"  # the layout that is read


@dataclass
class Score:
    """Sums of a family: of questions, of points with and without the video, and of chances to guess."""

    asked: int = 0
    seen: float = 0.0
    blind: float = 0.0
    chance: float = 0.0


def held_out(built: Path) -> Iterator[tuple[str, Question]]:
    """Videos and questions of the validation part, in its order.

    Raises:
        FileNotFoundError: nothing was written, or not in the layout that is read.
        ValueError: a damaged line.
    """
    path = built / FOLDER / "validation.jsonl"
    if path.parent.is_dir() and not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name {FORM} in write.formats, and write the set again")
    for number, line in enumerate(read_lines(path), 1):
        try:
            yield _read(json.loads(line))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{path} line {number} is damaged: {error}") from None


def _read(one: dict[str, Any]) -> tuple[str, Question]:
    options = tuple(one.get("options", ()))
    asked = one["conversations"][0]["value"].removeprefix(PLACE)
    text = asked.rsplit("\n", len(options))[0] if options else asked
    answer = one["right"] if options else one["conversations"][1]["value"]
    start, end = one["evidence"]
    question = Question(one["id"], one["family"], one["kind"], text, answer, start, end, one["maker"], options)
    return one["video"], question


def exam(
    vc: VideoChatFlash, asked: Iterable[tuple[str, Question]], sampling: Sampling, told: Callable[[int], None]
) -> dict[str, Score]:
    """Ask each question twice, with the video and without; each video is seen once.

    Args:
        vc: the model.
        asked: videos and questions, those of one video in a row.
        sampling: which frames are seen.
        told: questions that were asked.

    Returns:
        Scores by family.
    """
    scores: dict[str, Score] = {}
    count = 0
    for video, some in groupby(asked, key=lambda pair: pair[0]):
        with fetched(video) as place:
            sight = vc.see(place, sampling)
        begun = prepare(vc, sight)
        for _, question in some:
            score = scores.setdefault(question.family, Score())
            score.asked += 1
            how = replace(vc.decoding, max_new_tokens=ROOM + len(question.reply.encode()))
            score.seen += points(vc.answer(sight, question.prompt, decoding=how, prefix=begun), question)
            score.blind += points(vc.answer(None, question.prompt, decoding=how), question)
            score.chance += chance(question)
            count += 1
            told(count)
    return dict(sorted(scores.items()))


def chance(question: Question) -> float:
    """How likely who knows nothing is right: of two things one came first, whether or not they are options."""
    if question.kind == "order":
        return 0.5
    return 1 / len(question.options) if question.options else 0.0


def points(said: str, question: Question) -> float:
    """1 or 0; of captions and summaries the share of words in common with the truth."""
    if question.family in TOLD and not question.options:
        return alike(said, question.answer)
    return float(right(said, question))
