"""Annotations that exist already, one adapter for each layout -> tracks of notes (docs/longvid.md shows the layouts).

Entries that cannot be read are kept aside; which videos there are, and whether times lie within them, is seen later.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Literal, get_args

from ..bucket import below, fetched, is_url
from .records import Aside, AsideKind, Note, NoteKind, is_text, written
from .settings import Format
from .subtitles import chapters, cues

TEXTS = {".srt": "subtitles", ".vtt": "subtitles", ".txt": "chapters", ".json": "", ".jsonl": "notes"}
RAW = 300  # characters of a bad entry that are kept
FOREIGN = 0.4  # share of a text's letters beyond A to Z, above which it was written in another alphabet
# Signs within a word, as Polish has them when it is read as Windows' Latin: było, by³o.
AMISS = re.compile(r"[a-z][\xa1-\xa9\xac\xae-\xb3\xb6\xb8\xb9\xbc-\xbf\xd7\xf7][a-z]", re.IGNORECASE)


@dataclass(frozen=True)
class Raw:
    """An entry as it stands in a file, unchecked. No ``end`` means: until the next one; ``why`` that it is left out."""

    video: Any
    place: str
    kind: NoteKind
    start: Any
    end: Any
    text: Any
    why: str = ""
    own: bool = False  # the file is about this video alone


@dataclass
class Track:
    """What one file says of one video.

    Attributes:
        place: of the file.
        name: what the file calls the video; of a file that is about one video alone, the file's own name.
        own: what notes such a file has; empty for one that names its videos.
        notes: as they could be read.
        asides: what could not, or was left out.
    """

    place: str
    name: str
    own: Literal["", "speech", "chapter"] = ""
    notes: list[Note] = field(default_factory=list)
    asides: list[Aside] = field(default_factory=list)


@dataclass
class Annotations:
    """The tracks by place and name, and what belongs to none."""

    tracks: dict[tuple[str, str], Track] = field(default_factory=dict)
    asides: list[Aside] = field(default_factory=list)


def read(paths: Iterable[str], layout: Format, videos: Callable[[PurePath], bool] = lambda _: False) -> Annotations:
    """All annotations of a source.

    Args:
        paths: files, or folders of them, or a bucket's.
        layout: of the files; ``auto`` looks at each.
        videos: whether a path is a video, which folders may hold as well.

    Raises:
        FileNotFoundError: a path that is not there.
    """
    found = Annotations()
    for path in paths:
        root = f"{path if is_url(path) else Path(path)}".rstrip("/") + "/"
        for place, alone in _files(path, videos):
            if not is_text(place):
                found.asides.append(Aside("shots", "missing", written(place), "its name is no UTF-8: rename it"))
                continue
            name = PurePosixPath(place).name if alone else place.removeprefix(root)
            try:
                with fetched(place) as local:
                    data = local.read_bytes()
            except PermissionError as error:
                if alone:
                    raise
                found.asides.append(
                    Aside("shots", "missing", place, f"it cannot be read: {error.strerror or error}", "")
                )
                continue
            _read_file(place, name, data, layout, found, alone)
    return found


def _files(path: str, videos: Callable[[PurePath], bool]) -> Iterator[tuple[str, bool]]:
    """Place of each file that may hold annotations, and whether it was named itself."""
    places = [one.url for one in below(path)] if is_url(path) else _local(Path(path))
    for place in places:
        alone = len(places) == 1 and PurePosixPath(place).name == PurePosixPath(path).name
        name = PurePosixPath(place)
        if alone or (name.suffix.lower() in TEXTS and not videos(name)):
            yield place, alone


def _local(path: Path) -> list[str]:
    if not path.exists():
        raise FileNotFoundError(f"no annotations at {path}: name a file or a folder")
    return [str(one) for one in sorted(path.rglob("*")) if one.is_file()] if path.is_dir() else [str(path)]


def _read_file(place: str, origin: str, data: bytes, layout: Format, found: Annotations, alone: bool) -> None:
    file = PurePosixPath(place)
    try:
        text = _decoded(place, data, found)
        entries = list(_entries(file, text, layout))
    except ValueError as error:
        # Nobody said that every file of a folder is an annotation; of one that was named it was said.
        found.asides.append(Aside("shots", "entry" if alone else "missing", place, str(error), ""))
        return
    for raw in entries:
        if not isinstance(raw.video, str) or not raw.video:
            found.asides.append(_aside(place, raw, "missing", "it names no video"))
            continue
        if not is_text(raw.video):
            found.asides.append(_aside(place, raw, "missing", "the name of its video holds half a character"))
            continue
        track = found.tracks.setdefault((place, raw.video), Track(place, raw.video))
        if raw.own:
            track.own = "speech" if raw.kind == "speech" else "chapter"
        try:
            track.notes.append(_note(origin, raw))
        except ValueError as error:
            track.asides.append(_aside(place, raw, "duplicate" if raw.why else "entry", str(error)))


def _aside(place: str, raw: Raw, kind: AsideKind, why: str) -> Aside:
    kept = json.dumps([raw.video, raw.start, raw.end, raw.text], default=str)[:RAW]
    return Aside("shots", kind, written(f"{place} {raw.place}"), written(why), kept)


def _decoded(place: str, data: bytes, found: Annotations) -> str:
    """The text of a file in UTF-8 (some of it may be damaged) or UTF-16, else in Windows' Latin, which is then told of.

    Raises:
        ValueError: it is in none of them, as far as one can see.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", errors="replace")
    lost = text.count("\ufffd")
    if sum(not one.isascii() for one in text) > 10 * lost:  # in another encoding most would be lost
        found.asides.append(Aside("shots", "mended", place, f"{lost} letters of it are damaged: no UTF-8"))
        return text
    text = data.decode("cp1252", errors="replace")
    letters = [one for one in text if one.isalpha()]
    foreign = sum(not one.isascii() for one in letters)
    if "\ufffd" in text or AMISS.search(text) or foreign > FOREIGN * len(letters):
        raise ValueError("it is neither UTF-8 nor Windows' Latin: save it as UTF-8")
    found.asides.append(Aside("shots", "mended", place, "it is no UTF-8: read as cp1252"))
    return text


def _entries(file: PurePath, text: str, layout: Format) -> Iterator[Raw]:
    named = TEXTS.get(file.suffix.lower(), "") if layout == "auto" else layout
    if named == "subtitles":
        some = ((cue, "speech") for cue in cues(text))
    elif named == "chapters" and file.suffix.lower() != ".json":
        some = ((cue, "chapter") for cue in chapters(text))
    elif named == "notes":
        yield from _lines(text)
        return
    else:
        yield from _json(text, named)
        return
    count = 0
    for cue, said in some:
        count += 1
        kind: NoteKind = "speech" if said == "speech" else "chapter"
        yield Raw(file.stem, f"line {cue.line}", kind, cue.start, cue.end, cue.text, own=True)
    if not count:
        raise ValueError(f"it holds no {named}")


def _lines(text: str) -> Iterator[Raw]:
    """Our own layout: one JSON object a line with video, start, end, kind and text."""
    values = [(number, _parsed(line)) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if all(_get(value, "video") is None for _, value in values):
        raise ValueError("no line of it names a video")
    for number, value in values:
        given = _get(value, "kind")
        kind: NoteKind = given if given in get_args(NoteKind) and given != "shot" else "caption"
        text = _get(value, "text") if isinstance(value, dict) else value
        yield Raw(_get(value, "video"), f"line {number}", kind, _get(value, "start"), _get(value, "end"), text)


def _parsed(line: str) -> Any:
    """A line's JSON, or the line where it is none."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return line


def _json(text: str, layout: str) -> Iterator[Raw]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: this is no JSON ({error.msg})") from None
    if isinstance(value, dict) and isinstance(value.get("videos"), dict):
        value = value["videos"]
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object with the names of videos")
    reader = ADAPTERS.get(layout) or next((ADAPTERS[name] for name in ADAPTERS if _looks_like(value, name)), None)
    if reader is None:
        raise ValueError(f"its layout is none of {', '.join(ADAPTERS)}")
    for video, entry in value.items():
        if isinstance(entry, dict | list):
            yield from reader(video, entry)
        else:
            yield Raw(video, str(video), "caption", None, None, None)


def _looks_like(value: Mapping[str, Any], layout: str) -> bool:
    """Whether the first video's entry is laid out so."""
    entry = next(iter(value.values()), None)
    keys = set(entry) if isinstance(entry, dict) else set()
    if isinstance(entry, list):
        first = entry[0] if entry and isinstance(entry[0], dict) else {}
        return layout == ("chapters" if "title" in first else "steps") and bool(first)
    wanted = {
        "narrations": any(key.startswith("narration_pass") for key in keys) or "narrations" in keys,
        "speech": {"start", "end", "text"} <= keys,
        "captions": {"timestamps", "sentences"} <= keys,
        "chapters": "chapters" in keys,
        "steps": "steps" in keys,
    }
    return wanted[layout]


# -- adapters: a video's entry in a layout -> its notes ----------------------------------------------------------------


def _narrations(video: str, entry: Any) -> Iterator[Raw]:
    """Ego4D: passes of sentences, each at one time, and summaries of stretches. Passes tell the same in other words, so
    that one of them is read: the one with the most to tell."""
    passes = {"": entry}
    if isinstance(entry, dict) and "narrations" not in entry:
        passes = {name: one for name, one in entry.items() if name.startswith("narration_pass")}
    best = max(passes, key=lambda name: len(_list(passes[name], "narrations")), default="")
    for name, one in passes.items():
        place, told = f"{video} {name}".strip(), _list(one, "narrations")
        if name != best:
            yield Raw(video, place, "narration", None, None, None, f"{best} is read: it tells the same in other words")
            continue
        for number, one_told in enumerate(told):
            start, said = _get(one_told, "timestamp_sec", "start"), _get(one_told, "narration_text", "text")
            if not _unsure(said):
                yield Raw(video, f"{place} narration {number}", "narration", start, None, _spoken(said))
        for number, one_told in enumerate(_list(one, "summaries")):
            start, end = _get(one_told, "start_sec", "start"), _get(one_told, "end_sec", "end")
            said = _get(one_told, "summary_text", "text")
            if not _unsure(said):
                yield Raw(video, f"{place} summary {number}", "summary", start, end, _spoken(said))


def _speech(video: str, entry: Any) -> Iterator[Raw]:
    """HowTo100M: three lists of one length."""
    yield from _columns(video, "speech", _list(entry, "start"), _list(entry, "end"), _list(entry, "text"))


def _captions(video: str, entry: Any) -> Iterator[Raw]:
    """ActivityNet Captions: pairs of times beside sentences."""
    times = [one if isinstance(one, list) and len(one) == 2 else [None, None] for one in _list(entry, "timestamps")]
    yield from _columns(
        video, "caption", [one[0] for one in times], [one[1] for one in times], _list(entry, "sentences")
    )


def _columns(video: str, kind: NoteKind, *columns: list[Any]) -> Iterator[Raw]:
    for number in range(max(map(len, columns))):
        start, end, text = (column[number] if number < len(column) else None for column in columns)
        yield Raw(video, f"{video} entry {number}", kind, start, math.nan if end is None else end, text)


def _steps(video: str, entry: Any) -> Iterator[Raw]:
    """HT-Step: steps with their segments."""
    for number, told in enumerate(entry if isinstance(entry, list) else _list(entry, "steps")):
        segment = _get(told, "segment", "seg")
        start, end = segment if isinstance(segment, list) and len(segment) == 2 else (None, None)
        start, end = _get(told, "start") if start is None else start, _get(told, "end") if end is None else end
        text = _get(told, "step", "headline", "text")
        yield Raw(video, f"{video} step {number}", "step", start, math.nan if end is None else end, text)


def _chapters(video: str, entry: Any) -> Iterator[Raw]:
    """Chapter marks as yt-dlp writes them."""
    for number, told in enumerate(entry if isinstance(entry, list) else _list(entry, "chapters")):
        start, end = _get(told, "start_time", "start"), _get(told, "end_time", "end")
        yield Raw(video, f"{video} chapter {number}", "chapter", start, end, _get(told, "title", "text"))


ADAPTERS: dict[str, Callable[[str, Any], Iterator[Raw]]] = {
    "narrations": _narrations,
    "speech": _speech,
    "captions": _captions,
    "steps": _steps,
    "chapters": _chapters,
}


def _get(value: Any, *names: str) -> Any:
    """The first of these keys that there is; None where there is none, or no object."""
    return next((value[name] for name in names if name in value), None) if isinstance(value, dict) else None


def _list(value: Any, name: str) -> list[Any]:
    found = _get(value, name)
    return found if isinstance(found, list) else []


def _unsure(text: Any) -> bool:
    """Whether Ego4D's narrator was not sure of it."""
    return isinstance(text, str) and bool(re.search(r"#unsure\b", text, re.IGNORECASE))


def _spoken(text: Any) -> Any:
    """Ego4D's marks as words: #C is who wears the camera, #O somebody else."""
    if not isinstance(text, str):
        return text
    text = re.sub(r"#\w+\s+C\b", "the camera wearer", text)
    text = re.sub(r"#O\s+(?:(?:a|the)\s+)?(man|woman|person|boy|girl|lady)\s+[A-Z]\b", r"a \1", text)
    text = re.sub(r"#\w+\s*", "", text).strip()
    return text[:1].upper() + text[1:]


def _note(origin: str, raw: Raw) -> Note:
    """Raises ValueError where an entry is none, or is left out."""
    if raw.why:
        raise ValueError(raw.why)
    if not isinstance(raw.text, str) or not raw.text.strip():
        raise ValueError("it has no text")
    end = raw.start if raw.end is None else raw.end
    for one in (raw.start, end):
        if isinstance(one, bool) or not isinstance(one, int | float) or not abs(one) < 1e9:
            raise ValueError("its times are no numbers of seconds")
    text = " ".join(raw.text.split())
    if not is_text(text):
        raise ValueError("its text holds half a character")
    start, end = round(float(raw.start), 3), round(float(end), 3)
    return Note(start, end, raw.kind, text, written(f"{origin}: {raw.place}"), open=raw.end is None)
