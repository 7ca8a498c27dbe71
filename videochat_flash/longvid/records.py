"""What flows from step to step: one film with what is known of it, as a line of JSON that is read strictly.

Provenance is in the record itself: a question names the events that its answer was taken from, an event the notes that
it was woven from, and a note where it came from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from ..files import beside
from ..grade import LETTERS
from ..journal import canonical, digest
from ..strict import Schema
from . import columns

NoteKind = Literal["narration", "speech", "step", "caption", "chapter", "summary", "shot", "card"]
AsideKind = Literal["failed", "entry", "mended", "missing", "duplicate", "benchmark", "rejected"]
FAMILIES = (
    *("caption", "summary", "understanding", "grounding", "relationship", "count", "change"),
    *("needle", "hops"),  # through hidden cards
)


@dataclass(frozen=True)
class Found:
    """A video that lies in a source, not yet opened. Times and sizes are the file system's, or the bucket's."""

    path: str
    source: str
    license: str
    size: int
    modified: int  # ns; of what lies in a bucket, a number that changes when it does
    benchmark: bool = False  # of a test set: nothing that looks like it may be trained on
    frame_fps: float = 1.0  # of a folder of frames


@dataclass(frozen=True)
class Video:
    """What is known of the media.

    Attributes:
        key: fingerprint of the content.
        path: where it lies.
        source: name of the source that it came from.
        license: of the source, carried along.
        looks: hexadecimal perceptual hashes of frames spread evenly over it.
        parent: key of the video that this one was made from.
    """

    key: str
    path: str
    source: str
    license: str
    kind: Literal["video", "folder"]
    duration: float  # seconds
    fps: float
    frames: int
    height: int
    width: int
    looks: tuple[str, ...] = ()
    parent: str = ""
    benchmark: bool = False

    @property
    def stem(self) -> str:
        """What annotations call it."""
        return Path(self.path).name if self.kind == "folder" else Path(self.path).stem

    @property
    def rate(self) -> float:
        """Frames a second, not rounded."""
        return self.frames / self.duration

    @property
    def group(self) -> str:
        """Videos of one group are never in training and in validation."""
        return self.parent or self.key


@dataclass(frozen=True)
class Note:
    """What an annotation, the shot detector, an endpoint or the renderer says of a stretch of time, in seconds."""

    start: float
    end: float
    kind: NoteKind
    text: str
    origin: str  # file and entry, or what made it
    open: bool = False  # nobody said when it ends: ``end`` is a guess


@dataclass(frozen=True)
class Event:
    """A stretch of the time line; ``notes`` are the places in the film's notes that it was woven from."""

    start: float
    end: float
    text: str
    sort: Literal["seen", "said"]
    notes: tuple[int, ...]
    entities: tuple[str, ...] = ()
    open: bool = False  # its end is a guess


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Attributes:
        id: digest of video, question and answer.
        kind: within the family, as ``after``.
        options: texts of a multiple choice; ``answer`` is then one of them.
        start, end: seconds that have to be seen.
        events: places in the film's events that the answer was taken from.
        notes: places in its notes, where the answer was taken from them and from no events: summaries, chapters.
        maker: template and version, or endpoint, model and prompt, or the renderer.
        blind: what was answered without the video; empty if it was not asked.
        guessed: whether that was right.
    """

    id: str
    family: str
    kind: str
    question: str
    answer: str
    start: float
    end: float
    maker: str
    options: tuple[str, ...] = ()
    events: tuple[int, ...] = ()
    notes: tuple[int, ...] = ()
    blind: str = ""
    guessed: bool = False

    @property
    def prompt(self) -> str:
        """As it is asked: with its options, lettered."""
        lines = [f"({letter}) {one}" for letter, one in zip(LETTERS, self.options, strict=False)]
        return "\n".join([self.question, *lines])

    @property
    def reply(self) -> str:
        """As it is answered: an option with its letter."""
        return f"({LETTERS[self.options.index(self.answer)]}) {self.answer}" if self.options else self.answer


@dataclass(frozen=True)
class Film:
    """A video with everything that the steps so far found out."""

    video: Video
    notes: tuple[Note, ...] = ()
    events: tuple[Event, ...] = ()
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True)
class Aside:
    """What was kept out, and why.

    Attributes:
        step: that kept it out.
        kind: ``failed`` is a whole video, ``entry`` a part of one; these two count towards the limit. ``mended`` was
            changed and used, ``missing`` has no video, the others were sorted out on purpose.
        what: path of the video, or place of the entry.
        raw: the thing itself, as JSON or as it came.
        about: the path that the reason names, where it is another one than ``what``.
    """

    step: str
    kind: AsideKind
    what: str
    reason: str
    raw: str = ""
    about: str = ""


FILM = Schema(Film)
FOUND = Schema(Found)
VIDEO = Schema(Video)
ASIDE = Schema(Aside)
PARQUET = ".parquet"
PLAIN = (str, float, int, bool)  # what JSON holds as it is
Row = TypeVar("Row")


@cache
def _defaults(kind: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((one.name, one.default) for one in fields(kind))


def plain(value: Any) -> Any:
    """A dataclass as JSON holds it; fields that have their default are left out."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    held, kind = {}, cast(Any, type(value))
    for name, default in _defaults(kind):
        one = getattr(value, name)
        if one != default:
            held[name] = plain(one)
    return held


def line_of(value: Any) -> str:
    """A record as one line."""
    return canonical(plain(value))


def parse(schema: Schema[Row], line: str, where: str) -> Row:
    """A record of a line.

    Raises:
        ValueError: no JSON, or not a record of this kind.
    """
    return schema.read(_values(line, where), where)


def _values(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: this is no JSON ({error.msg})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{where}: a record is a JSON object, not {type(values).__name__}")
    return values


def stored(folder: Path, name: str) -> Path:
    """A step's file, in the form that it was last written in; as JSONL if it is not there."""
    parquet = folder / f"{name}.parquet"
    return parquet if parquet.is_file() else folder / f"{name}.jsonl"


@contextmanager
def writing(path: Path) -> Iterator[Callable[[str], object]]:
    """Takes the lines of a step's file, which is there whole or not at all.

    Raises:
        ValueError: it is to be Parquet, and pyarrow is not installed.
        OSError: it cannot be written.
    """
    with beside(path) as part:
        if path.suffix == PARQUET:
            with closing(columns.Columns(part, Film)) as table:
                yield table.line
        else:
            with part.open("w", encoding="utf-8") as file:
                yield lambda line: file.write(line + "\n")


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a step's file, one at a time, whichever form it has.

    Raises:
        FileNotFoundError: the step has not run.
        ValueError: damaged Parquet, or pyarrow is not installed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the steps before, or all with 'vcflash longvid build'")
    if path.suffix == PARQUET:
        yield from columns.lines(path)
        return
    with path.open(encoding="utf-8") as file:
        yield from (line.rstrip("\n") for line in file)


def read_films(path: Path) -> Iterator[Film]:
    """The films of a step's file.

    Raises:
        FileNotFoundError: the step has not run.
        ValueError: a damaged line.
    """
    for number, line in enumerate(read_lines(path), 1):
        yield parse(FILM, line, f"{path} line {number}")


def read_videos(path: Path) -> Iterator[Video]:
    """The videos of a step's file alone: of millions of films, the rest takes ten times as long to read.

    Raises:
        FileNotFoundError: the step has not run.
        ValueError: a damaged line.
    """
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path} line {number}"
        video = _values(line, where).get("video")
        if not isinstance(video, dict):
            raise ValueError(f"{where}: video is missing")
        yield VIDEO.read(video, where)


def read_asides(path: Path) -> Iterator[Aside]:
    """What a step kept out."""
    for number, line in enumerate(read_lines(path), 1):
        yield parse(ASIDE, line, f"{path} line {number}")


def is_text(text: str) -> bool:
    """Whether a text can be written down: JSON and names of files may hold halves of characters."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def written(text: str) -> str:
    """A text as it can be written down: of halves of characters their codes."""
    return text.encode(errors="backslashreplace").decode()


def question_id(video: Video, question: str, answer: str) -> str:
    """Names a question for good."""
    return digest([video.key, question, answer])[:16]
