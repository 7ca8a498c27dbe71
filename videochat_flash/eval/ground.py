"""Temporal grounding: when something happens in a video, and a look at it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import session
from ..chat import Reply, Stopwatch, VideoChatFlash
from ..files import beside
from ..session import Manner, Source
from ..sheet import contact_sheet
from ..sight import Sight
from ..times import Interval, interval
from ..video import Sampling, VideoInfo, decode, plan
from .prompts import Wording, grounding

FRAMES = 8  # of a strip at most
THUMB = 320  # pixels that its pictures are decoded to


@dataclass(frozen=True)
class Found:
    """Where an event is, in seconds of the video, and what was asked and said about it."""

    start: float
    end: float
    info: VideoInfo
    sight: Sight
    question: str
    reply: Reply


def find(
    vc: VideoChatFlash,
    source: Source,
    event: str,
    wording: Wording,
    sampling: Sampling,
    manner: Manner,
    watch: Stopwatch,
    bars: bool,
) -> Found:
    """Ask a model when something happens in a video.

    Raises:
        ValueError: a sight instead of a video, a picture, or an answer that states no interval of the video.
    """
    if not isinstance(source.what, VideoInfo) or source.what.kind == "image":
        raise ValueError(f"{source.name} is not a video: there is no time in it to look for anything")
    sight = session.see(vc, source, sampling, watch, bars)
    question = question_of(event, wording)
    reply = session.say(vc, sight, question, manner, watch=watch, bars=bars)
    begin = sampling.start or 0.0
    start, end = locate(reply.text, (begin, begin + sight.duration))
    return Found(start, end, source.what, sight, question, reply)


def question_of(event: str, wording: Wording) -> str:
    """What a model is asked: an event is put into a question, a question (with its mark) stays as it is."""
    event = event.strip()
    if wording == "paper":
        return grounding(event.rstrip("."), wording)
    if event.endswith("?"):
        return grounding(event, wording)
    asked = f"When is {event} shown?" if wording == "question" else f"When does this happen in the video: {event}?"
    return grounding(asked, wording)


def locate(answer: str, window: Interval) -> Interval:
    """The interval that an answer states, in seconds of the video; what lies behind the end is cut off, with a note.

    Args:
        answer: as the model gave it; its times count from where it began to look.
        window: the seconds of the video that it saw.

    Raises:
        ValueError: an answer that states no interval, or several, or one that lies outside the window.
    """
    said = interval(answer)
    if said is None:
        raise ValueError(f"the answer states no interval, or more than one: {answer!r}")
    start, end = said[0] + window[0], said[1] + window[0]
    if start >= window[1]:
        raise ValueError(f"the answer lies behind the end of what was seen, {window[1]:g} s: {answer!r}")
    if end > window[1]:
        warnings.warn(f"the answer goes beyond the end, {window[1]:g} s, and is cut to it: {answer!r}", stacklevel=2)
    return start, min(end, window[1])


def strip(found: Found, path: Path) -> None:
    """Write a contact sheet of what is shown in an interval, each picture over its time, whole or not at all.

    Raises:
        OSError: it cannot be written there.
        VideoError: the video cannot be read.
    """
    info = found.info
    chosen = plan(info, Sampling("count", num_frames=FRAMES, start=found.start, end=found.end))
    (frames,) = decode(info, chosen, THUMB, chunk=len(chosen.frames))
    _, first = np.unique(frames.seconds, return_index=True)  # a short interval has fewer frames: each once
    frames = replace(frames, pixels=frames.pixels[first], seconds=frames.seconds[first])
    sheet = contact_sheet(frames, columns=FRAMES // 2, width=THUMB, aspect=info.width / info.height)
    with beside(path) as part:
        sheet.save(part, "PNG")
