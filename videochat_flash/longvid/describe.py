"""describe: a caption for each shot, from an endpoint that is shown its frames; or only what annotations say."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ..bucket import fetched
from ..mp4 import write
from ..remote import Refused, Reply, film, picture
from ..video import SamplePlan, VideoInfo, decode, probe
from .answers import Answers, prompt, prompt_mark
from .records import Aside, Film, Note
from .scan import timed
from .settings import Describe, Setting
from .steps import Made, Step, Work

VERSION = 1
COVERED = 0.5  # share of a shot over which annotations speak, so that it needs no caption
TEXTS = ("narration", "speech", "step", "caption")  # kinds of notes that say what happens


def step(setting: Setting) -> Step:
    """The step."""
    mark: dict[str, Any] = {"version": VERSION, "how": setting.describe.how}
    if setting.describe.how != "text":
        mark |= {**vars(setting.describe), "model": setting.endpoint.model, "prompt": prompt_mark("caption")}
    return Step("describe", mark, partial(worker, setting))


def worker(setting: Setting) -> Work:
    """Captions one film; its shots are asked about several at a time."""
    if setting.describe.how == "text":
        return lambda made: Made((made,))
    answers = Answers(setting)

    def work(made: Film) -> Made:
        told = made.notes
        if setting.describe.how == "endpoint":
            told = tuple(note for note in told if note.kind not in TEXTS)
        spans = [note for note in told if note.kind == "shot" and not _covered(note, told)]
        if not spans:
            return Made((replace(made, notes=told),))
        with fetched(made.video.path) as place:
            info = timed(probe(place), made.video.rate)
            notes, asides = _captions(made, info, spans, answers, setting)
        return Made((replace(made, notes=tuple(sorted((*told, *notes), key=_order))),), tuple(asides), len(spans))

    return work


def _order(note: Note) -> tuple[float, float, str]:
    return note.start, note.end, note.kind


def _covered(shot: Note, notes: tuple[Note, ...]) -> bool:
    """Whether annotations speak over half of a shot."""
    some = [(max(note.start, shot.start), min(note.end, shot.end)) for note in notes if note.kind in TEXTS]
    covered, reached = 0.0, shot.start
    for start, end in sorted(some):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered >= COVERED * (shot.end - shot.start)


def _captions(
    made: Film, info: VideoInfo, spans: list[Note], answers: Answers, setting: Setting
) -> tuple[list[Note], list[Aside]]:
    """A note for each span, or why there is none. Raises Unanswered where the endpoint cannot be reached."""
    describe, mark = setting.describe, prompt_mark("caption")

    def one(span: Note) -> Reply | str:
        words = prompt("caption").format(start=clock(span.start), end=clock(span.end))
        shown = {"send": describe.send, "frames": describe.frames, "side": describe.side}
        what = {"video": made.video.key, "start": span.start, "end": span.end, **shown}
        try:
            return answers.ask(what, lambda: _shown(info, span, describe), words, describe.tokens)
        except Refused as error:
            return str(error)

    with ThreadPoolExecutor(max(1, setting.endpoint.parallel // setting.workers)) as pool:
        replies = list(pool.map(one, spans))
    notes, asides = [], []
    for span, reply in zip(spans, replies, strict=True):
        text = " ".join(reply.text.split()) if isinstance(reply, Reply) else ""
        place = f"{made.video.path} {span.start:g} to {span.end:g} s"
        if text and isinstance(reply, Reply) and reply.finish != "length":
            notes.append(Note(span.start, span.end, "caption", text, f"{answers.model} {mark}"))
        else:
            why = reply if isinstance(reply, str) else "the caption was cut off" if text else "an empty caption"
            asides.append(Aside("describe", "entry", place, why, text))
    return notes, asides


def clock(seconds: float) -> str:
    """``1:02:03``, or ``2:03``."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def _shown(info: VideoInfo, span: Note, describe: Describe) -> list[dict[str, Any]]:
    """The frames of a stretch as parts of a message."""
    frames = _frames(info, span, describe)
    if describe.send == "frames":
        return [picture(frame) for frame in frames]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "clip.mp4"
        write(path, frames, describe.frames / (span.end - span.start))
        return [film(path.read_bytes())]


def _frames(info: VideoInfo, span: Note, describe: Describe) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    times = span.start + (np.arange(describe.frames) + 0.5) / describe.frames * (span.end - span.start)
    numbers = np.maximum(np.searchsorted(info.seconds, times, "right") - 1, 0).astype(np.int64)
    plan = SamplePlan(numbers, info.seconds[numbers], (span.start, span.end), span.end - span.start)
    shrink = min(1.0, describe.side / max(info.width, info.height))
    size = (max(1, round(info.width * shrink)), max(1, round(info.height * shrink)))
    for chunk in decode(info, plan, None, chunk=8):
        for frame in chunk.pixels:
            yield np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) if shrink < 1 else frame
