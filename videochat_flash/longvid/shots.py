"""shots: where a video's shots begin and end, and which notes of its annotations hold for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..bucket import fetched
from ..video import SamplePlan, VideoInfo, decode, probe
from . import layouts
from .matches import Matches
from .records import Aside, Film, Note, line_of, read_asides, read_films, read_videos
from .scan import SUFFIXES, timed
from .settings import Setting, Shots
from .steps import Made, Step, Work

VERSION = 2
SIDE = 128  # pixels at which frames are compared
REACH = 10.0  # seconds that a note without an end lasts at most; chapters last until the next one
BEYOND = 1.0  # seconds by which a note may end behind its video without a word
SPEECH = ("speech",)
ROLLED = 3  # words that two lines have in common, where one rolls on into the other
MISSING = "scenedetect is not installed: pip install 'videochat-flash[longvid]', or set shots.fps to 0"


def step(setting: Setting, more: Callable[[], Iterable[Aside]] = tuple) -> Step:
    """The step. ``more``: what is known only when all videos were seen."""
    return Step("shots", {"version": VERSION, **vars(setting.shots)}, partial(worker, setting.shots), more=more)


class Joined:
    """Films of the scan with the notes that annotations have of them, and what no video was there for.

    Raises:
        FileNotFoundError: annotations that are not there.
    """

    def __init__(self, setting: Setting, scanned: Path) -> None:
        self.path = scanned
        self.read = {
            source.label: Matches(layouts.read(source.annotations, source.format, _is_video))
            for source in setting.source
            if source.annotations
        }
        for video in read_videos(scanned) if self.read else ():
            if video.source in self.read:
                self.read[video.source].meet(video.path, video.stem)
        for aside in read_asides(scanned.with_suffix(".aside.jsonl")) if self.read else ():
            for found in self.read.values():
                found.miss(aside.what)
        for found in self.read.values():
            found.settle()

    def lines(self) -> Iterator[str]:
        """A line for each film."""
        for film in read_films(self.path):
            found = self.read.get(film.video.source)
            yield line_of(replace(film, notes=found.of(film.video.path)) if found else film)

    def asides(self) -> Iterator[Aside]:
        """Entries that could not be read, and one aside for each track whose video is missing."""
        for found in self.read.values():
            yield from found.asides()


def _is_video(path: PurePath) -> bool:
    return path.suffix.lower() in SUFFIXES


def worker(shots: Shots) -> Work:
    """Checks the notes of one film, and finds its shots.

    Raises:
        ValueError: PySceneDetect is wanted and not installed.
    """
    if shots.fps and find_spec("scenedetect") is None:
        raise ValueError(MISSING)

    def work(film: Film) -> Made:
        entries = len(film.notes)
        notes, asides = fitted(film)
        if shots.fps:
            with fetched(film.video.path) as place:
                found = cuts(timed(probe(place), film.video.rate), shots)
            spans = bounded(found, film.video.duration, shots.shortest, shots.longest)
            notes += [Note(start, end, "shot", "", f"scenedetect {shots.detector}") for start, end in spans]
        return Made((replace(film, notes=tuple(notes)),), tuple(asides), entries)

    return work


# -- notes -------------------------------------------------------------------------------------------------------------


def fitted(film: Film) -> tuple[list[Note], list[Aside]]:
    """The notes that hold for a film, in order, within its time; and what was changed or left out."""
    length = film.video.duration
    asides: list[Aside] = []

    def aside(kind: Any, note: Note, reason: str) -> None:
        asides.append(Aside("shots", kind, f"{film.video.path} {note.origin}", reason, line_of(note)))

    kept: list[Note] = []
    for note in film.notes:
        if note.end < note.start:
            aside("entry", note, f"it ends at {note.end:g} s, before it begins at {note.start:g} s")
        elif note.start < 0 or note.start >= length:
            aside("entry", note, f"it begins at {note.start:g} s of a video of {length:g} s")
        else:
            if note.end > length + BEYOND:
                aside("mended", note, f"it ends at {note.end:g} s of a video of {length:g} s: cut there")
            kept.append(replace(note, end=min(note.end, length)))
    ended = _ended(kept, length)
    spread: list[Note] = []
    for kind in dict.fromkeys(note.kind for note in ended):
        some = [note for note in ended if note.kind == kind]
        spread += _apart(some, aside) if kind in SPEECH else some
    return sorted(spread, key=lambda note: (note.start, note.end, note.kind)), asides


def _ended(notes: list[Note], length: float) -> list[Note]:
    """Notes of one moment last until the next one of their kind."""
    later: dict[str, float] = {}
    ended = []
    for note in reversed(notes):
        if note.open or note.end <= note.start:
            after = later.get(note.kind, length)
            end = after if note.kind == "chapter" else min(after, note.start + REACH)
            end = round(max(end, min(note.start + 0.5, length)), 3)
            note = replace(note, end=end, open=note.kind != "chapter")
        later[note.kind] = min(note.start, later.get(note.kind, length))
        ended.append(note)
    return ended[::-1]


def _apart(notes: list[Note], aside: Any) -> list[Note]:
    """Subtitles that overlap: what rolls on is said once, what begins together is one, and any other ends where the
    next one begins."""
    kept: list[Note] = []
    shown: list[str] = []  # words of the one before, as it stood there
    for note in notes:
        last, words = kept[-1] if kept else None, note.text.split()
        again = rolled(shown, words) if last and note.start <= last.end + 0.1 else 0
        shown = words
        if last and again == len(words):
            kept[-1] = replace(last, end=max(last.end, note.end))
            continue
        note = replace(note, text=" ".join(words[again:]))
        if last and last.start == note.start:
            aside("mended", last, "it begins together with the next one: they are one")
            both = f"{last.text} {note.text}", f"{last.origin}, {note.origin}"
            kept[-1] = replace(last, end=max(last.end, note.end), text=both[0], origin=both[1])
            continue
        if last and last.start < note.start < last.end - 0.05:
            aside("mended", last, f"it overlaps the next one, which begins at {note.start:g} s: cut there")
            kept[-1] = replace(last, end=note.start)
        kept.append(note)
    return kept


def rolled(before: Sequence[str], words: Sequence[str]) -> int:
    """How many words at the beginning are those at the end of the line before, which rolls on.

    A word or two may be said twice: they count only where all of either line comes back.
    """
    for count in range(min(len(before), len(words)), 0, -1):
        if before[-count:] == words[:count] and (count >= ROLLED or count in (len(before), len(words))):
            return count
    return 0


# -- shots -------------------------------------------------------------------------------------------------------------


def cuts(info: VideoInfo, shots: Shots) -> list[float]:
    """Seconds at which a shot begins, by PySceneDetect on frames ``1 / shots.fps`` apart.

    Raises:
        VideoError: the video cannot be read.
    """
    from scenedetect import FrameTimecode  # type: ignore[import-untyped, unused-ignore]
    from scenedetect.detectors import (  # type: ignore[import-untyped, unused-ignore]
        AdaptiveDetector,
        ContentDetector,
    )

    times = np.arange(0, info.duration, 1 / shots.fps)
    numbers = np.unique(np.maximum(np.searchsorted(info.seconds, times + 1e-3, "right") - 1, 0)).astype(np.int64)
    if len(numbers) < 3:
        return []
    rate = len(numbers) / info.duration
    least = max(1, round(shots.shortest * rate))
    detector = (
        AdaptiveDetector(adaptive_threshold=shots.threshold or 3.0, min_scene_len=least)
        if shots.detector == "adaptive"
        else ContentDetector(threshold=shots.threshold or 27.0, min_scene_len=least)
    )
    plan = SamplePlan(numbers, info.seconds[numbers], (0.0, info.duration), info.duration)
    found: list[Any] = []
    for place, frame in enumerate(frame for chunk in decode(info, plan, SIDE) for frame in chunk.pixels):
        found += detector.process_frame(FrameTimecode(place, fps=1.0), frame[..., ::-1])  # it wants BGR
    found += detector.post_process(FrameTimecode(len(numbers) - 1, fps=1.0))
    at = sorted({int(one.frame_num) for one in found})
    return [round(float(info.seconds[numbers[one]]), 3) for one in at if 0 < one < len(numbers)]


def bounded(at: list[float], length: float, shortest: float, longest: float) -> list[tuple[float, float]]:
    """Stretches between cuts, from 0 to the end: none shorter than ``shortest`` if there is another one to join, none
    longer than ``longest``."""
    edges = [0.0]
    for one in at:
        if one - edges[-1] >= shortest and length - one >= shortest:
            edges.append(one)
    edges.append(length)
    spans = []
    for start, end in pairwise(edges):
        parts = max(1, int(np.ceil((end - start) / longest - 1e-9)))
        marks = [round(start + (end - start) * i / parts, 3) for i in range(parts + 1)]
        spans += list(pairwise(marks))
    return spans
