"""What is built out of what: one strict TOML file, or defaults that need no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..bucket import is_url
from ..strict import Rule, Schema, read_toml
from .records import FAMILIES

Format = Literal[
    "auto", "narrations", "speech", "steps", "captions", "subtitles", "chapters", "notes"
]  # layouts of annotations
OutFormat = ("reference", "reference-json", "messages", "webdataset", "parquet")


@dataclass(frozen=True)
class Source:
    """Videos of one origin and what was said of them: a ``[[source]]`` table."""

    videos: str  # a folder, or one file; local, or a bucket's URL
    name: str = ""  # for reports and provenance; else the folder's
    license: str = "unknown"  # carried into every record
    annotations: tuple[str, ...] = ()  # files, or folders of them
    format: Format = "auto"
    frame_fps: float = 1.0  # frames a second of folders of frames
    needles: bool = True  # cards may be hidden in copies of its videos; not where they show such cards themselves

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.name or Path(self.videos).resolve().name


@dataclass(frozen=True)
class Scan:
    """Which videos are taken."""

    looks: int = 8  # frames of each that are compared with those of others
    alike: float = 0.5  # share of them that makes two videos the same
    shortest: float = 8.0  # seconds
    benchmarks: tuple[str, ...] = ()  # videos of test sets, or folders of them: nothing like them may pass


@dataclass(frozen=True)
class Shots:
    """How a video is cut into shots."""

    fps: float = 4.0  # frames a second that are compared; 0 finds no shots
    detector: Literal["adaptive", "content"] = "adaptive"
    threshold: float = 0.0  # of the detector; 0 is its own default
    shortest: float = 2.0  # seconds; a shorter shot joins its neighbour
    longest: float = 60.0  # a longer one is cut evenly


@dataclass(frozen=True)
class Describe:
    """Where captions come from."""

    how: Literal["text", "endpoint", "both"] = "text"  # annotations; every shot; shots that they leave out
    send: Literal["frames", "video"] = "frames"
    frames: int = 8  # of a stretch
    side: int = 448  # pixels of the longer side
    tokens: int = 128  # of a caption at most


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint. Its key is read from OPENAI_API_KEY."""

    url: str = ""  # up to and with /v1
    model: str = ""
    parallel: int = 4  # requests at a time
    per_minute: int = 0  # requests at most; 0 is no limit
    timeout: float = 120.0
    retries: int = 3


@dataclass(frozen=True)
class Weave:
    """How notes become a time line."""

    same: float = 0.8  # share of words in common that makes two notes that meet one event
    gap: float = 1.5  # seconds; speech with less between is one event
    longest: float = 60.0  # of an event of joined speech


@dataclass(frozen=True)
class Ask:
    """What is asked."""

    families: tuple[str, ...] = FAMILIES
    each: int = 4  # questions of a kind about one video, at most
    choices: float = 0.5  # share of questions asked with options
    options: int = 4
    needles: int = 0  # of every so many videos, one gets cards hidden in a copy; 0 is none
    endpoint: int = 0  # questions about one video that an endpoint writes
    seed: int = 0


@dataclass(frozen=True)
class Sieve:
    """What may pass."""

    blind: Literal["none", "endpoint", "flash-tiny"] = "none"  # asked without the video
    drop_guessed: bool = True  # what was answered blind is kept aside, or only marked
    least_words: int = 1  # of an answer
    most_words: int = 400
    grounded: float = 0.8  # share of an answer's words that its source must hold
    most_alike: int = 50  # the same question with the same answer, in the whole set
    per_video: int = 100
    per_source: int = 0  # questions; 0 is no limit
    family_share: float = 0.5  # of the set, at most
    length_share: float = 0.6  # the same of answers of up to 2, 5, 10, 40 and of more words
    balance_leaves: float = 0.5  # share of the questions that these two leave in any case


@dataclass(frozen=True)
class Write:
    """How the set is written."""

    formats: tuple[str, ...] = ("reference", "messages")
    validation: float = 0.05  # share of the videos
    to: str = ""  # a bucket's URL, or a folder, that the set is copied to
    turns: int = 1  # questions of one conversation of the training part, at most
    shard: int = 1000  # megabytes of a shard: of a WebDataset's files, of a Parquet's text


@dataclass(frozen=True)
class Setting:
    """A whole build."""

    out: str
    source: tuple[Source, ...] = field(default=())
    between: Literal["jsonl", "parquet"] = "jsonl"  # what steps leave for each other
    max_failed: float = 0.1  # share of videos, and of entries of annotations, that may fail in a step
    workers: int = 1  # processes
    scan: Scan = Scan()
    shots: Shots = Shots()
    describe: Describe = Describe()
    endpoint: Endpoint = Endpoint()
    weave: Weave = Weave()
    ask: Ask = Ask()
    sieve: Sieve = Sieve()
    write: Write = Write()


_SOME: Rule = (lambda n: n >= 1, "at least 1")
_NONE: Rule = (lambda n: n >= 0, "0 or more")
_MORE: Rule = (lambda n: n > 0, "above 0")
_SHARE: Rule = (lambda n: 0 <= n <= 1, "a share from 0 to 1")
_GIVEN: Rule = (lambda text: bool(text.strip()), "a path")
RULES: dict[str, Rule] = {
    **dict.fromkeys(("out", "source.videos"), _GIVEN),
    **dict.fromkeys(("scan.looks", "describe.frames", "describe.tokens", "ask.each", "workers", "write.shard"), _SOME),
    **dict.fromkeys(("endpoint.parallel", "sieve.per_video", "sieve.most_alike", "sieve.least_words"), _SOME),
    **dict.fromkeys(("sieve.most_words", "write.turns"), _SOME),
    **dict.fromkeys(("scan.shortest", "shots.fps", "shots.threshold", "shots.shortest", "weave.gap"), _NONE),
    **dict.fromkeys(("endpoint.per_minute", "endpoint.retries", "ask.needles", "ask.endpoint", "ask.seed"), _NONE),
    **dict.fromkeys(("sieve.per_source",), _NONE),
    **dict.fromkeys(("source.frame_fps", "shots.longest", "weave.longest", "endpoint.timeout"), _MORE),
    **dict.fromkeys(("scan.alike", "weave.same", "ask.choices", "sieve.grounded"), _SHARE),
    **dict.fromkeys(("write.validation", "max_failed", "sieve.family_share"), _SHARE),
    **dict.fromkeys(("sieve.length_share", "sieve.balance_leaves"), _SHARE),
    "describe.side": (lambda n: n >= 64, "at least 64 pixels"),
    "ask.options": (lambda n: 2 <= n <= 8, "2 to 8"),
    "ask.families": (lambda names: set(names) <= set(FAMILIES), f"some of {', '.join(FAMILIES)}"),
    "write.formats": (lambda names: bool(names) and set(names) <= set(OutFormat), f"some of {', '.join(OutFormat)}"),
}
SCHEMA = Schema(Setting, RULES)


def load(path: Path) -> Setting:
    """Read a build's file. Paths in it are relative to the working directory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: anything in it that cannot be followed; the message names file and key.
    """
    setting = SCHEMA.read(read_toml(path), str(path))
    check(setting, str(path))
    return setting


def default(videos: str, out: str, license: str = "unknown") -> Setting:
    """A build that needs no file and no model: annotations are what lies beside the videos.

    Raises:
        ValueError: an empty path.
    """
    source = {"videos": videos, "annotations": [videos], "license": license}
    setting = SCHEMA.read({"out": out, "source": [source]}, "longvid")
    check(setting, "longvid")
    return setting


def _within(inner: str, outer: str) -> bool:
    return not is_url(outer) and Path(inner).resolve().is_relative_to(Path(outer).resolve())


def check(setting: Setting, where: str) -> None:
    """Raises ValueError where several keys do not agree."""
    labels = [source.label for source in setting.source]
    asks = setting.describe.how != "text" or setting.sieve.blind == "endpoint" or setting.ask.endpoint
    for wrong, words in (
        (not setting.source, "no videos: add a [[source]] table"),
        (len(set(labels)) < len(labels), "two sources have one name: give each its own"),
        (asks and not setting.endpoint.url, "describe, ask or sieve want an endpoint: set endpoint.url"),
        (asks and not setting.endpoint.model, "describe, ask or sieve want an endpoint: set endpoint.model"),
        (is_url(setting.out), "out must be a local folder, since what is finished is appended: see write.to"),
        (any(_within(setting.out, source.videos) for source in setting.source), "out lies within the videos: move it"),
        (setting.shots.shortest > setting.shots.longest, "shots.shortest is more than shots.longest"),
        (setting.sieve.least_words > setting.sieve.most_words, "sieve.least_words is more than sieve.most_words"),
    ):
        if wrong:
            raise ValueError(f"{where}: {words}")
