"""Which video each track of annotations is about: the one beside it, else the only one that is called so."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

from ..bucket import is_url
from .layouts import Annotations, Track
from .records import Aside, Note
from .scan import SUFFIXES

# film.en.srt belongs to film, if there is no film.en
LANGUAGE = re.compile(r"\.([a-z]{2,3})([-_]\w+)?$", re.IGNORECASE)
ASKED_IN = ("en", "eng")  # the language of our questions
Rank = tuple[int, int]  # folders in common, from the innermost on; how much of the name


class Matches:
    """The tracks of a source by their videos: it meets each video once, and is settled then.

    Args:
        found: the tracks.
    """

    def __init__(self, found: Annotations) -> None:
        self.tracks, self.lost = list(found.tracks.values()), list(found.asides)
        self.by_path: dict[str, list[Track]] = {}
        self.called: defaultdict[str, list[int]] = defaultdict(list)
        for number, track in enumerate(self.tracks):
            for name in _called(track):
                self.called[name].append(number)
        self.best: list[tuple[Rank, list[str]]] = [((-1, 0), []) for _ in self.tracks]
        self.aside: set[int] = set()

    def meet(self, path: str, stem: str) -> None:
        """A video that there is."""
        for number, rank in self._ranked(path, stem):
            held, paths = self.best[number]
            if rank >= held:
                self.best[number] = rank, [path] if rank > held else [*paths, path]

    def miss(self, path: str) -> None:
        """A video that was kept aside; what was said of it is said of no other one. To be called behind ``meet``."""
        for number, rank in self._ranked(path, PurePosixPath(path).stem):
            if rank[0] == len(_folder(self.tracks[number])) and rank > self.best[number][0]:
                self.aside.add(number)

    def settle(self) -> None:
        """Give each video its tracks."""
        matched: defaultdict[str, list[tuple[Rank, Track]]] = defaultdict(list)
        for number, (track, (rank, paths)) in enumerate(zip(self.tracks, self.best, strict=True)):
            if number in self.aside:
                self._lose(track, "of a video that was kept aside")
            elif not paths:
                self._lose(track, "of a video that is not there")
            elif len(paths) > 1:
                self._lose(track, f"of one of {len(paths)} videos of this name: put them into the folder of theirs")
            else:
                matched[paths[0]].append((rank, track))
        for path, some in matched.items():
            told = [track for _, track in some if not track.own]
            self.by_path[path] = [*self._one(some, "speech"), *self._one(some, "chapter"), *told]

    def of(self, path: str) -> tuple[Note, ...]:
        """The notes of a video, in order."""
        notes = (note for track in self.by_path.get(path, ()) for note in track.notes)
        return tuple(sorted(notes, key=lambda note: (note.start, note.end, note.text)))

    def asides(self) -> Iterator[Aside]:
        """What could not be read of videos that are there, and what no video is there for."""
        yield from self.lost
        for some in self.by_path.values():
            for track in some:
                yield from track.asides

    def _ranked(self, path: str, stem: str) -> Iterator[tuple[int, Rank]]:
        """The tracks that may be about a video, and how near they are to it."""
        folders = PurePosixPath(path).parent.parts[::-1]
        for name in dict.fromkeys((stem, stem.removeprefix("v_"), f"v_{stem}")):  # ActivityNet puts v_ before its names
            for number in self.called.get(name, ()):
                track = self.tracks[number]
                pairs = zip(_folder(track)[::-1], folders, strict=False)
                shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                yield number, (shared, 2 * _called(track)[name] + (name == stem))

    def _one(self, some: Sequence[tuple[Rank, Track]], own: str) -> list[Track]:
        """Of several files of subtitles, or of chapters, of one video: the nearest, then in the language asked in."""
        ranked = sorted(((rank, track) for rank, track in some if track.own == own), key=_preferred)
        folders = {_folder(track) for rank, track in ranked if rank[0] == ranked[0][0][0]}
        chosen = ranked[0][1] if len(folders) == 1 else None
        for _, track in ranked:
            if chosen is None:
                self._lose(track, "of a video for which other folders hold some as well: put the right ones beside it")
            elif track is not chosen:
                why = f"{chosen.place} is read for this video"
                self.lost.append(Aside("shots", "duplicate", track.place, why, about=chosen.place))
        return [chosen] if chosen else []

    def _lose(self, track: Track, why: str) -> None:
        if track.notes:
            self.lost.append(Aside("shots", "missing", track.name, f"{len(track.notes)} notes {why}", track.place))
        self.lost += [replace(one, kind="missing") for one in track.asides]


def _preferred(one: tuple[Rank, Track]) -> tuple[int, int, bool, str]:
    (shared, alike), track = one
    told = LANGUAGE.search(track.name)
    return -shared, -alike, not told or told.group(1).lower() not in ASKED_IN, track.place


def _called(track: Track) -> dict[str, bool]:
    """What the video of a track may be called, and whether that is its whole name."""
    name = PurePosixPath(track.name)
    stem = name.stem if name.suffix.lower() in SUFFIXES and not track.own else name.name
    called = {LANGUAGE.sub("", stem): False} if track.own else {}
    return {**called, stem: True}


def _folder(track: Track) -> tuple[str, ...]:
    """The folders that a track lies in, with those of its video's name."""
    place = track.place if is_url(track.place) else str(Path(track.place).absolute())
    return (PurePosixPath(place).parent / track.name).parent.parts
