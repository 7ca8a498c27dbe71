"""Cards hidden in a copy of a video, and chains of cards that point at each other: what is asked of them was drawn."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

from ..bucket import fetched
from ..journal import digest
from ..needle import SMALLEST, make_needle
from ..synth import ATTRIBUTES, HOPS, Card, Scene
from ..synth import Question as Drawn
from ..synth.questions import sort_of
from ..video import probe
from .records import Event, Film, Note, Question, question_id
from .settings import Ask

COPIES = "needles"  # folder of the copies
FRAMES = 512  # of a copy at most: as many as are looked at by default, so that a card of one frame is seen
LEAST = 16  # frames; fewer have no room for cards
WIDE = 640  # pixels
MAKER = "synth needle 2"
COPY = re.compile(rb'"parent":"[0-9a-f]+","path":("(?:[^"\\]|\\.)*")')  # of a video in canonical JSON


def hidden(film: Film, ask: Ask, folder: Path) -> Film:
    """A copy of a video with cards in it, as long as the video, to the second, and a frame a second (or 512 in all,
    and then it is not asked when something is shown: that would be between whole seconds).

    Its file is named by all that it depends on: what other settings hid stays as their journal lines tell it.

    Raises:
        ValueError: a video too short or too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seed = int(digest(["hide", ask.seed, film.video.key])[:8], 16)
    video = film.video
    frames = min(FRAMES, max(LEAST, int(video.duration)))
    shrink = min(1.0, WIDE / video.width)
    size = (max(SMALLEST, round(video.width * shrink)), max(SMALLEST, round(video.height * shrink)))
    whole = frames == int(video.duration)
    when = ("grounding",) if whole else ()
    kinds = ((*when, *ATTRIBUTES) if "needle" in ask.families else ()) + (HOPS if "hops" in ask.families else ())
    path = folder / f"{digest(['hide', MAKER, video.key, frames, size, 4 * ask.each, seed, kinds])[:32]}.mp4"
    with fetched(video.path) as place, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of frames that a slow video shows twice
        made = make_needle(
            str(place), frames, 4 * ask.each, seed, path, path.with_suffix(".json"),
            kinds=kinds, fps=1.0 if whole else round(frames / video.duration, 6), size=size, movers=0,
        )  # fmt: skip
    info = probe(path)
    copy = replace(
        video, key=info.fingerprint[:32], path=str(path), duration=round(info.duration, 3), fps=round(info.fps, 3),
        frames=info.frames, height=info.height, width=info.width, looks=(), parent=video.group, kind="video",
    )  # fmt: skip
    notes = tuple(_notes(made.scene))
    events = tuple(Event(note.start, note.end, note.text, "seen", (i,)) for i, note in enumerate(notes))
    bare = Film(copy, notes, events)
    return replace(bare, questions=tuple(_asked(bare, one) for one in made.questions))


def lost(line: bytes) -> bool:
    """Whether a copy that a line of the journal tells of is gone. A start looks at every line: none is read as JSON."""
    return any(not Path(json.loads(found)).is_file() for found in COPY.findall(line))


def _notes(scene: Scene) -> list[Note]:
    """What is shown when, in words."""
    notes = []
    for event in scene.events:
        if isinstance(event.what, Card):
            card = event.what
            text = f"The {card.colour} {card.shape} with the {sort_of(card.character)} {card.character}"
            if card.points is not None:
                text += f", pointing at the {card.points.colour} {card.points.shape}"
            notes.append(Note(event.start, event.end, "card", f"{text}.", MAKER))
    return notes


def _asked(film: Film, drawn: Drawn) -> Question:
    start, end = (min(one, film.video.duration) for one in drawn.seconds)
    events = tuple(i for i, event in enumerate(film.events) if event.start < end and event.end > start)
    return Question(
        question_id(film.video, drawn.question, drawn.answer), "hops" if drawn.hops else "needle", drawn.kind,
        drawn.question, drawn.answer, start, end, MAKER, (), events,
    )  # fmt: skip
