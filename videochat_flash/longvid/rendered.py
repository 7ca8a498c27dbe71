"""A corpus whose truth is known: videos of cards and movers that come back, with annotations in several layouts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import beside
from ..mp4 import write
from ..needle import evenly
from ..synth import Card, Event, Mover, Scene, procedural, random_style, random_what
from ..synth.questions import sort_of, thing, with_article
from ..synth.world import Image8, Rng, pick
from ..video import probe

VERSION = 2  # of what is rendered, and of the truth that lies beside it
SIZE = (320, 180)
LAYOUTS = ("captions", "steps", "narrations", "notes", "mixed")  # dealt out to the videos in turn
CARD_SECONDS, MOVER_SECONDS, GAP_SECONDS = (3, 9), (6, 9), (0, 6)  # from, and below
MOVERS = 0.2  # share of what is shown
POOL = 0.7  # different things for each thing that is shown: the rest come back
CUE = 20.0  # seconds between subtitles


@dataclass(frozen=True)
class Shown:
    """What was rendered, from when to when, and how annotations call it."""

    start: float
    end: float
    text: str
    sort: str = "seen"  # or "said", "chapter", "summary"
    thing: str = ""  # colour and shape, where it is a card or a mover, however coarsely annotations tell of it
    sign: str = ""  # character of a card


def render(folder: Path, number: int, seconds: int, seed: int, haystack: str = "", told: Any = None) -> list[Shown]:
    """Write a video of one frame a second, its annotations and its truth; whole or not at all.

    Args:
        folder: of all of them; the video is ``videoNNN.mp4``, its truth ``truth/videoNNN.json``.
        number: of the video; odd ones are told of coarsely, so that more of what is told comes back.
        seconds: that it lasts.
        seed: of all.
        haystack: a video to draw over; else a made one.
        told: frames that are written, of how many.

    Raises:
        VideoError: a haystack that cannot be read.
    """
    name = f"video{number:03d}"
    truth_of(folder / name).parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, number))
    scene = _scene(rng, seconds)
    coarse = number % 2 == 1
    truth = [_shown(event, coarse) for event in scene.events]
    layout = LAYOUTS[number % len(LAYOUTS)]
    truth += _more(truth, seconds, layout)
    stack = evenly(probe(haystack), seconds, SIZE) if haystack else _made(rng, seconds)
    write(folder / f"{name}.mp4", _drawn(scene, stack, told), 1.0, crf=20)
    _annotate(folder, name, truth, layout, seconds)
    _save(truth_of(folder / name), json.dumps([asdict(one) for one in truth], indent=1) + "\n")
    return truth


def render_plain(folder: Path, number: int, seconds: int, seed: int, told: Any = None) -> None:
    """Write a video that shows nothing, so that cards can be hidden in its copy; its truth is empty.

    Args:
        folder: of all of them; the video is ``plainNNN.mp4``.
        number: of the video.
        seconds: that it lasts.
        seed: of all.
        told: frames that are written, of how many.
    """
    path = folder / f"plain{number:03d}"
    truth_of(path).parent.mkdir(parents=True, exist_ok=True)
    stack = _made(np.random.default_rng((seed, number, 1)), seconds)
    write(path.with_suffix(".mp4"), _drawn(Scene(float(seconds), 1.0, ()), stack, told), 1.0, crf=20)
    _save(truth_of(path), "[]\n")


def _drawn(scene: Scene, stack: Iterable[Image8], told: Any) -> Iterator[Image8]:
    for i, frame in enumerate(stack):
        yield scene.frame(i, frame)[0]
        if told is not None:
            told(i + 1, round(scene.duration))


def _shown(event: Event, coarse: bool) -> Shown:
    what = event.what
    sign = what.character if isinstance(what, Card) else ""
    return Shown(event.start, event.end, words(what, coarse), thing=thing(what.colour, what.shape), sign=sign)


def truth_of(video: Path) -> Path:
    """Where the truth of a video lies."""
    return video.parent / "truth" / f"{video.stem}.json"


def read_truth(video: Path) -> list[Shown]:
    """What was rendered in a video."""
    return [Shown(**one) for one in json.loads(truth_of(video).read_text(encoding="utf-8"))]


def words(what: Card | Mover, coarse: bool) -> str:
    """How annotations call a card or a mover."""
    name = with_article(what.shape if coarse else thing(what.colour, what.shape)).capitalize()
    if isinstance(what, Mover):
        return f"{name} moves {what.direction}."
    return f"{name} is shown." if coarse else f"{name} with the {sort_of(what.character)} {what.character} is shown."


def _scene(rng: Rng, seconds: int) -> Scene:
    """Things that come at whole seconds, one at a time; no two in a row are told of in the same words."""
    pool: list[Card | Mover] = []
    events: list[Event] = []
    at = float(rng.integers(*GAP_SECONDS))
    while True:
        moving = bool(rng.random() < MOVERS)
        some = [
            one for one in pool if isinstance(one, Mover) == moving and not (events and _same(one, events[-1].what))
        ]
        what = pick(rng, some) if some and rng.random() > POOL else random_what(rng, moving, pool[-8:])
        if events and _same(what, events[-1].what):
            continue
        length = float(rng.integers(*(MOVER_SECONDS if moving else CARD_SECONDS)))
        if at + length > seconds:
            return Scene(float(seconds), 1.0, tuple(events))
        pool.append(what)
        events.append(Event(at, length, what, random_style(rng, what, length)))
        at += length + float(rng.integers(*GAP_SECONDS))


def _same(one: Card | Mover, other: Card | Mover) -> bool:
    """Whether two things are called the same, told of coarsely or not."""
    return words(one, True) == words(other, True)


def _made(rng: Rng, seconds: int) -> Iterator[Image8]:
    stack = procedural(rng, SIZE[1], SIZE[0])
    return (stack.frame(i) for i in range(seconds))


# -- annotations -------------------------------------------------------------------------------------------------------


def _more(truth: Sequence[Shown], seconds: int, layout: str) -> list[Shown]:
    """What is said, chapters and a summary, where the layout has them."""
    told = []
    if layout == "narrations":
        told.append(Shown(0.0, float(seconds), f"{len(truth)} things are shown.", "summary"))
    if layout == "mixed":
        half = float(seconds // 2)
        told += [
            Shown(0.0, half, "The first half", "chapter"),
            Shown(half, float(seconds), "The second half", "chapter"),
        ]
        for number, start in enumerate(np.arange(1.0, seconds - CUE / 2, CUE).tolist()):
            told.append(Shown(start, start + CUE / 2, f"This is sentence number {number} of what is said.", "said"))
    return told


def _annotate(folder: Path, name: str, truth: Sequence[Shown], layout: str, seconds: int) -> None:
    """The truth as annotations have it."""
    seen = [one for one in truth if one.sort == "seen"]
    times, texts = [[one.start, one.end] for one in seen], [one.text for one in seen]
    values: dict[str, Any] = {
        "captions": {name: {"duration": seconds, "timestamps": times, "sentences": texts}},
        "mixed": {name: {"duration": seconds, "timestamps": times, "sentences": texts}},
        "steps": {name: [{"step": one.text, "segment": [one.start, one.end]} for one in seen]},
        "narrations": {"videos": {name: {"narration_pass_1": _passes(seen, truth)}}},
    }
    if layout == "notes":
        rows = [{"video": name, "kind": "caption", "start": o.start, "end": o.end, "text": o.text} for o in seen]
        _save(folder / f"{name}.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    else:
        _save(folder / f"{name}.json", json.dumps(values[layout]) + "\n")
    if layout == "mixed":
        cues = [one for one in truth if one.sort == "said"]
        lines = [f"{i + 1}\n{_clock(one.start)} --> {_clock(one.end)}\n{one.text}\n" for i, one in enumerate(cues)]
        _save(folder / f"{name}.srt", "\n".join(lines))
        marks = [one for one in truth if one.sort == "chapter"]
        _save(folder / f"{name}.txt", "".join(f"{_clock(one.start)[:8]} {one.text}\n" for one in marks))


def _passes(seen: Sequence[Shown], truth: Sequence[Shown]) -> dict[str, Any]:
    return {
        "narrations": [{"timestamp_sec": one.start, "narration_text": one.text} for one in seen],
        "summaries": [
            {"start_sec": one.start, "end_sec": one.end, "summary_text": one.text}
            for one in truth
            if one.sort == "summary"
        ],
    }


def _clock(seconds: float) -> str:
    whole, part = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{part:03d}"


def _save(path: Path, text: str) -> None:
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
