"""Annotation files -> records: what is said, about which media. Opens no media.

Records are read as the reference and as ms-swift and LLaMA-Factory have them. They never change: an epoch reads the
same record as the one before.
"""

from __future__ import annotations

import difflib
import json
import math
import os.path
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import yaml  # type: ignore[import-untyped, unused-ignore]
from jaxtyping import Int64

from ..bucket import fetched, is_url
from ..prompt import SYSTEM, Turn
from .recipe import STRATEGY, Source

PLACE = "<image>"  # where a video or an image stands in a text
VIDEO_PLACE = "<video>"  # the same, as ms-swift and LLaMA-Factory write it for videos
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
READERS = ("av", "decord", "frame", "gif", "img")  # known and not needed: what a path holds tells how to read it
PART = {"first": 0, "first2": 1, "first3": 2, "first4": 3}
ENTRY = (
    *("json_path", "data_root", "sampling_strategy", "video_read_type", "media_type"),  # the reference's keys
    *("weight", "frame_fps", "name"),  # ours
)
MEDIA_TYPES = ("image", "video", "text", "mix")
Kind = Literal["video", "image", "text"]


@dataclass(frozen=True, slots=True)
class Record:
    """One conversation.

    Attributes:
        turns: user, assistant, user, ..., assistant; PLACE still stands for each medium.
        media: local paths or URLs, in the order of their places.
        start, end: seconds of the video that is spoken of; both or neither.
        duration: seconds of the whole video, where the record says so; only an estimate.
        frame_fps: of a folder of frames.
        system: what the model is told first.
        flaw: why this is no record at all, with its place in the file; else empty.
    """

    id: str
    source: str
    turns: tuple[Turn, ...]
    media: tuple[str, ...]
    kind: Kind
    start: float | None = None
    end: float | None = None
    duration: float | None = None
    frame_fps: float = 1.0
    system: str = SYSTEM
    flaw: str = ""


def name_of(source: Source) -> str:
    """What reports call a source."""
    return source.name or Path(source.annotation).stem


# -- annotation files --------------------------------------------------------------------------------------------------


def read_source(source: Source, seed: int = 0) -> tuple[Record, ...]:
    """The records of a source that its strategy takes, in the order of the file.

    A JSON array or one object a line, told by the first character. A record that is malformed is there with its flaw,
    which says where it stands.

    Args:
        seed: of the strategy ``random``.

    Raises:
        FileNotFoundError: no annotation there.
        ValueError: a file that is no JSON, none of whose records can be read, or a strategy that takes none.
    """
    where, values, lines = _entries(source.annotation)
    taken = choose(source.strategy, len(values), seed)
    if not taken:
        raise ValueError(f"strategy {source.strategy!r} takes none of the {len(values)} records of {source.annotation}")
    records = tuple(_record(source, i, f"{source.annotation} {where[i]}", values[i], lines) for i in taken)
    if all(one.flaw for one in records):
        more = f" (nor any other of {len(records)} records)" if len(records) > 1 else ""
        raise ValueError(f"{records[0].flaw}{more}")
    return records


def choose(strategy: str, count: int, seed: int = 0) -> Sequence[int]:
    """Which of ``count`` records a strategy takes, ascending.

    ``all``; or a number of records or percents, rounded up, as ``first:25%``, ``first2:25%`` (those behind them, up to
    ``first4``), ``end:10%``, or ``random:1000`` (which ones depends on ``seed`` alone).

    Raises:
        ValueError: any other strategy.
    """
    if not STRATEGY.fullmatch(strategy):
        known = "all, first:25%, first2:25%, end:10% or random:1000"
        raise ValueError(f"strategy {strategy!r} is not known: use one as {known}")
    if strategy == "all":
        return range(count)
    kind, size = strategy.split(":")
    share = Fraction(size[:-1]) if size.endswith("%") else None
    if share is not None and share > 100:
        raise ValueError(f"strategy {strategy!r} asks for more than there is: 100% is the most")
    number = int(size) if share is None else math.ceil(share * count / 100)
    if kind == "random":
        return sorted(np.random.default_rng(seed).permutation(count)[:number].tolist())
    begin = max(0, count - number) if kind == "end" else PART[kind] * number
    return range(min(begin, count), min(begin + number, count))


def _text(path: str) -> str:
    """The text of a local file or a URL."""
    try:
        with fetched(path if is_url(path) else str(Path(path).expanduser())) as local:
            data = local.read_bytes()
        return data.decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        text = f"no annotation at {path}: give a .json or .jsonl file, or drop this source"
        raise FileNotFoundError(text) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from None


def _entries(path: str) -> tuple[Sequence[str], list[Any], bool]:
    """Where each record stands, the record as parsed or as a line, and whether it is a line."""
    text = _text(path)
    if text.lstrip()[:1] == "[":
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {error.lineno}: this is no JSON ({error.msg})") from None
        found, lines = [(f"record {i}", value) for i, value in enumerate(values)], False
    else:
        split = enumerate(text.split("\n"), 1)
        found, lines = [(f"line {number}", line) for number, line in split if line.strip()], True
    if not found:
        raise ValueError(f"{path} holds no record")
    return [place for place, _ in found], [value for _, value in found], lines


def _record(source: Source, number: int, where: str, value: Any, line: bool) -> Record:
    name, given = name_of(source), str(number)
    try:
        entry = json.loads(value) if line else value
        if not isinstance(entry, dict):
            raise ValueError(f"a record is a JSON object, not {type(entry).__name__}")
        given = str(number if entry.get("id") is None else entry["id"])
        system, turns = _said(entry)
        kind, media = _media(entry, source.media)
        start, end = _window(entry) if kind == "video" else (None, None)
        if entry.get("video_read_type", "decord") not in READERS:
            raise ValueError(f"video_read_type {entry['video_read_type']!r} is not one of {', '.join(READERS)}")
    except ValueError as error:
        flaw = f"{where}: {'this is no JSON: ' if isinstance(error, json.JSONDecodeError) else ''}{error}"
        return Record(given, name, (), (), "text", flaw=flaw)
    if kind == "video" and not any(PLACE in turn.text for turn in turns):
        turns = tuple(Turn(turn.role, turn.text.replace(VIDEO_PLACE, PLACE)) for turn in turns)
    stated = entry.get("duration")
    duration = float(stated) if _is_number(stated) and stated > 0 else None
    return Record(given, name, turns, media, kind, start, end, duration, source.frame_fps, system)


def _said(entry: Mapping[str, Any]) -> tuple[str, tuple[Turn, ...]]:
    """The system text and the turns; an answer before the first question is dropped, as the reference does."""
    given = entry.get("conversations", entry.get("messages"))
    if not isinstance(given, list) or not given:
        raise ValueError("it has no list of turns in 'conversations' or 'messages'")
    said = [_turn(number, turn) for number, turn in enumerate(given, 1)]
    system = entry.get("system") or SYSTEM
    if not isinstance(system, str):
        raise ValueError("its 'system' is no text")
    if said[0][0] == "system":
        system = said.pop(0)[1]
    if said and said[0][0] == "assistant":
        said.pop(0)
    turns = []
    for i, (role, text) in enumerate(said):
        if role != ("user", "assistant")[i % 2]:
            raise ValueError(f"turn {i + 1} is of the {role}: user and assistant must take turns, the user first")
        turns.append(Turn("assistant" if i % 2 else "user", text))
    if len(turns) % 2 or not turns:
        raise ValueError("it ends without an answer: there is nothing to learn")
    return system, tuple(turns)


def _turn(number: int, turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise ValueError(f"turn {number} is no object with from and value, or role and content")
    role, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"turn {number} is from {role!r}: use one of {', '.join(ROLES)}")
    if not isinstance(text, str):
        raise ValueError(f"turn {number} says {type(text).__name__} instead of a text")
    text.encode()  # raises ValueError for half a character, which no tokenizer takes
    return ROLES[role], text


def _media(entry: Mapping[str, Any], root: str) -> tuple[Kind, tuple[str, ...]]:
    """What kind of media it has, and where; both from its keys alone."""
    keys = [key for key in ("image", "images", "video", "videos") if entry.get(key) not in (None, "", [])]
    if not keys:
        return "text", ()
    if len(keys) > 1:
        raise ValueError(f"it has {' and '.join(keys)}: one record has one kind of media, under one key")
    value = entry[keys[0]]
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise ValueError(f"its {keys[0]!r} is no path and no list of paths")
    return "image" if keys[0].startswith("image") else "video", tuple(_join(root, path) for path in paths)


def _join(root: str, path: str) -> str:
    if is_url(path) or not root:
        return path
    if is_url(root):
        return f"{root.rstrip('/')}/{path.lstrip('/')}"
    return os.path.join(os.path.expanduser(root), path)


def _window(entry: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Both ends or neither, seconds."""
    start, end = entry.get("start"), entry.get("end")
    if start is None and end is None:
        return None, None
    if not _is_number(start) or not _is_number(end):
        raise ValueError(f"start {start!r} and end {end!r} must both be numbers of seconds, or both be left out")
    return float(start), float(end)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# -- mixtures ----------------------------------------------------------------------------------------------------------


def read_mixture(path: Path) -> tuple[Source, ...]:
    """The sources of a mixture file as the reference has them; ``weight``, ``frame_fps`` and ``name`` are ours.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no YAML; a key that is there twice or not known; a ``data_root`` that is a web page.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no mixture at {path}: give a .yaml with a list 'datasets'")
    try:
        text = path.read_text(encoding="utf-8")
        _check_once(path, yaml.compose(text, Loader=yaml.SafeLoader))
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if isinstance(values, dict) and set(values) == {"datasets"}:
        values = values["datasets"]
    if not isinstance(values, list) or not values:
        raise ValueError(f"{path} must hold one list under the key 'datasets', and nothing else")
    sources, faults = [], []
    for number, entry in enumerate(values, 1):
        try:
            sources.append(_source(entry))
        except ValueError as error:
            faults.append(f"{path} entry {number}: {error}")
    if faults:
        more = f" ({len(faults) - 1} more entries have faults)" if len(faults) > 1 else ""
        raise ValueError(faults[0] + more)
    return tuple(sources)


def _check_once(path: Path, node: Any) -> None:
    """Raises ValueError for a key that stands twice in one table: YAML would keep the last without a word."""
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _check_once(path, part)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                raise ValueError(f"{path} line {key.start_mark.line + 1}: {key.value!r} is there twice: keep one")
            seen.add(str(key.value))
            _check_once(path, value)


def _source(entry: Any) -> Source:
    if not isinstance(entry, dict):
        raise ValueError(f"a source is a table of keys such as json_path, not {entry!r}")
    for key in entry:
        if key not in ENTRY:
            near = difflib.get_close_matches(str(key), ENTRY, 1, 0.0)[0]
            raise ValueError(f"key {key!r} is not known: did you mean {near!r}?")
    texts = {key: entry.get(key) or "" for key in ENTRY if key not in ("weight", "frame_fps")}
    numbers = {key: entry.get(key, 1.0) for key in ("weight", "frame_fps")}
    root, kind, strategy = texts["data_root"], texts["media_type"] or "video", texts["sampling_strategy"] or "all"
    reader = texts["video_read_type"] or "decord"
    wrong = [key for key, value in texts.items() if not isinstance(value, str)]
    wrong += [key for key, value in numbers.items() if not (_is_number(value) and value > 0)]
    for fault, words in (
        (wrong, f"{', '.join(wrong)}: paths, names and strategies are texts, weight and frame_fps numbers above 0"),
        (not texts["json_path"], "json_path is missing: name the annotation file"),
        (
            str(root).startswith(("http://", "https://")),
            f"data_root {root} is a web page: download the media, and write the folder where they lie",
        ),
        (reader not in READERS, f"video_read_type {reader!r} is not one of {', '.join(READERS)}"),
        (kind not in MEDIA_TYPES, f"media_type {kind!r} is not one of {', '.join(MEDIA_TYPES)}"),
    ):
        if fault:
            raise ValueError(words)
    choose(strategy, 1)
    own = kind in ("mix", "text")  # the paths in such a file are whole ones
    return Source(texts["json_path"], "" if own else root, strategy, **numbers, name=texts["name"])


# -- order -------------------------------------------------------------------------------------------------------------


def epoch_order(sources: Sequence[Source], sizes: Sequence[int], seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """Indices into the records of all sources, one source behind the other: those of an epoch, in their order.

    Depends on the arguments alone. A record comes as often as the weight of its source is whole; the fraction is a
    share of the records, another one in the next epoch, so that after enough epochs all came equally often. Records
    that are read come in random order, those that are drawn in their own: they are chance already.
    """
    rng = np.random.default_rng((seed, len(sizes), epoch))
    taken, begin = [np.empty(0, np.int64)], 0
    for place, (source, size) in enumerate(zip(sources, sizes, strict=True)):
        whole = math.floor(source.weight)
        some = round((source.weight - whole) * size)
        turn = np.random.default_rng((seed, place)).permutation(size)  # the same in every epoch
        part = turn[(epoch * some + np.arange(some)) % size] if some else turn[:0]
        own = begin + np.concatenate([np.tile(np.arange(size), whole), part])
        taken.append(own if source.world.kind else rng.permutation(own))
        begin += size
    turns = rng.permutation(np.repeat(np.arange(len(taken)), [len(own) for own in taken]))
    order = np.empty(len(turns), np.int64)
    for place, own in enumerate(taken):
        order[turns == place] = own
    return order
