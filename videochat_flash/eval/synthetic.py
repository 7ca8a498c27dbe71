"""The synthetic suite: drawn videos and a file of questions about them, whose answers are known by construction.

Half of the videos hide cards and movers, the other half chains of cards that point at each other, with decoys.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import beside
from ..grade import LETTERS as OPTION_LETTERS
from ..needle import make_needle
from ..synth import CHARACTERS, COLOURS, DIGITS, DIRECTIONS, HOPS, LETTERS, SHAPES, SPEEDS, Question

FILE = "suite.jsonl"
GROUPS = {  # of kinds of questions
    **dict.fromkeys(("character", "colour", "shape"), "needles"),
    **dict.fromkeys(("motion", "speed"), "motion"),
    "order": "order",
    "grounding": "grounding",
    "description": "description",
    **dict.fromkeys(HOPS, "multi-hop"),
}
PLAIN = tuple(kind for kind in GROUPS if kind not in HOPS)
CHOICES: dict[str, Sequence[str]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "motion": DIRECTIONS,
    "speed": SPEEDS,
    "hop_character": CHARACTERS,
    "hop_colour": COLOURS,
    "hop_shape": SHAPES,
}
SEEDS = 1000  # of videos, for each of the suite's: no two suites share one
EACH = 2  # questions of a kind about a video


@dataclass(frozen=True)
class Suite:
    """A suite that was written: its file of questions, and how many there are, about how many videos."""

    file: Path
    questions: int
    videos: int


def write_suite(
    folder: Path, haystack: str, videos: int, frames: int, seed: int, told: Callable[[int, int], None]
) -> Suite:
    """Write ``videos`` videos and ``suite.jsonl``; the same seed gives the same bytes.

    Args:
        folder: where to; made where there is none.
        haystack: ``procedural``, or a video to hide things in.
        videos: how many; every second one holds chains.
        frames: of each, one a second.
        seed: of everything that is random.
        told: videos written, of how many.

    Raises:
        ValueError: no videos, too many, or too short ones for what is to be shown; then none is left there.
        VideoError: a haystack that cannot be read.
        OSError: it cannot be written there.
    """
    if not 1 <= videos <= SEEDS:
        raise ValueError(f"a suite has 1 to {SEEDS} videos, not {videos}")
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".suite-", dir=folder) as scratch:
        for number in range(videos):
            kinds = HOPS if number % 2 else PLAIN
            film = Path(scratch) / f"{number}-{'chains' if number % 2 else 'plain'}.mp4"
            truth = film.with_suffix(".json")
            made = make_needle(haystack, frames, None, seed * SEEDS + number, film, truth, kinds=kinds)
            rng = np.random.default_rng((seed, number))
            rows = [row(question, f"{number}-{i}", film.name, rng) for i, question in enumerate(few(made.questions))]
            lines += [json.dumps(one, ensure_ascii=False) + "\n" for one in rows]
            told(number + 1, videos)
        for made_file in sorted(Path(scratch).iterdir()):
            made_file.replace(folder / made_file.name)
    with beside(folder / FILE) as part:
        part.write_text("".join(lines), encoding="utf-8")
    return Suite(folder / FILE, len(lines), videos)


def few(questions: Sequence[Question]) -> Iterator[Question]:
    """The first ``EACH`` questions of every kind."""
    taken = dict.fromkeys(GROUPS, 0)
    for one in questions:
        taken[one.kind] += 1
        if taken[one.kind] <= EACH:
            yield one


def row(question: Question, name: str, video: str, rng: np.random.Generator) -> dict[str, object]:
    """A question as a row; options come in random order."""
    common: dict[str, object] = {"id": name, "video": video, "question": question.question, "group": _groups(question)}
    if question.kind == "grounding":
        return {**common, "interval": list(question.seconds)}
    options = options_of(question)
    if not options:
        return {**common, "reference": question.answer}
    turned = [options[i] for i in rng.permutation(len(options)).tolist()]
    return {**common, "options": turned, "answer": OPTION_LETTERS[turned.index(question.answer)]}


def options_of(question: Question) -> Sequence[str]:
    """All answers that a question leaves open; none of a description, which is a sentence."""
    if question.kind == "order":
        return re.findall(r"the \w+ \w+(?= or |\?)", question.question)
    if question.kind == "character":
        return DIGITS if question.answer in DIGITS else LETTERS
    return CHOICES.get(question.kind, ())


def _groups(question: Question) -> dict[str, str]:
    task = {"task": GROUPS[question.kind], "kind": question.kind}
    return {**task, "hops": str(question.hops)} if question.hops else task
