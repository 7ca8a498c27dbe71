"""A film's questions as records that trainers read: the reference's layout, and that of ms-swift and LLaMA-Factory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..bucket import is_url
from ..journal import digest
from .hide import COPIES
from .records import Film, Question

PLACE = "<image>\n"  # where the video stands, as the reference writes it
OURS = "<video>"  # the same as ms-swift and LLaMA-Factory write it
Talk = tuple[Question, ...]  # what one conversation asks


def reference(film: Film, talk: Talk, place: str) -> dict[str, Any]:
    """A record as the reference has it; readers pass over the keys that they do not know.

    Args:
        film: that is asked about.
        talk: the questions of one conversation.
        place: of the video, as the record says it.
    """
    turns = [
        turn
        for number, question in enumerate(talk)
        for turn in (
            {"from": "human", "value": PLACE * (number == 0) + question.prompt},
            {"from": "gpt", "value": question.reply},
        )
    ]
    return {
        "id": _name(talk),
        "video": place,
        "duration": film.video.duration,
        "conversations": turns,
        **({"video_read_type": "img"} if film.video.kind == "folder" else {}),
        **meta(film, talk),
    }


def messages(film: Film, talk: Talk, place: str) -> dict[str, Any]:
    """A record as ms-swift and LLaMA-Factory have it."""
    turns = [
        turn
        for number, question in enumerate(talk)
        for turn in (
            {"role": "user", "content": OURS * (number == 0) + question.prompt},
            {"role": "assistant", "content": question.reply},
        )
    ]
    return {"id": _name(talk), "messages": turns, "videos": [place], **meta(film, talk)}


def talks(questions: Talk, turns: int) -> list[Talk]:
    """Questions as conversations of ``turns`` at most; several are mixed by their names, and shared out evenly."""
    if turns == 1:
        return [(question,) for question in questions]
    mixed = sorted(questions, key=lambda question: question.id)
    count = math.ceil(len(mixed) / turns)
    return [tuple(mixed[i::count]) for i in range(count)]


def _name(talk: Talk) -> str:
    return talk[0].id if len(talk) == 1 else digest([question.id for question in talk])[:16]


def place_of(film: Film, to: str) -> str:
    """Where a film is found by whoever reads the set: a copy with hidden cards goes where the set goes."""
    path = film.video.path
    if film.video.parent and to:
        return f"{to}/{COPIES}/{Path(path).name}"
    return path if is_url(path) else str(Path(path).resolve())


def meta(film: Film, talk: Talk) -> dict[str, Any]:
    """What is asked, from when to when it is seen, and where every sentence of the answer comes from; of a conversation
    of several questions, for each."""
    asked = [_asked(film, question) for question in talk]
    named = [{"id": question.id, **one} for question, one in zip(talk, asked, strict=True)]
    return {
        **(asked[0] if len(talk) == 1 else {"questions": named}),
        "source": film.video.source,
        "license": film.video.license,
        "video_key": film.video.key,
    }


def _asked(film: Film, question: Question) -> dict[str, Any]:
    notes = {*question.notes, *(place for event in question.events for place in film.events[event].notes)}
    return {
        "family": question.family,
        "kind": question.kind,
        "evidence": [question.start, question.end],
        "maker": question.maker,
        "origins": sorted({film.notes[place].origin for place in notes}),
        **({"options": list(question.options), "right": question.answer} if question.options else {}),
        **({"blind": question.blind, "guessed": question.guessed} if question.blind else {}),
    }
