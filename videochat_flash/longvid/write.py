"""write: the set in the layouts that trainers read, split by video."""

from __future__ import annotations

import io
import json
import math
import shutil
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ..files import beside
from ..journal import canonical, digest
from .records import Film, Question, read_films, read_videos
from .settings import Setting

FOLDER = "dataset"
SPLITS = ("train", "validation")
PLACE = "<image>\n"  # where the video stands, as the reference writes it
OURS = "<video>"  # the same as ms-swift and LLaMA-Factory write it


@dataclass
class Written:
    """What was written."""

    files: list[Path] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    videos: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))


def write(setting: Setting, sieved: Path) -> Written:
    """Write what the sieve left; whole or not at all.

    Args:
        setting: which layouts, and how large the validation part is.
        sieved: films with their questions.

    Raises:
        FileNotFoundError: nothing was sieved.
        ValueError: no question is left.
        OSError: it cannot be written.
    """
    held_out = validation(setting.write.validation, sieved)
    folder = Path(setting.out) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    told = Written()
    with ExitStack() as stack:
        outs = {split: _outs(setting, folder, split, stack, told) for split in SPLITS}
        for film in read_films(sieved):
            split = "validation" if film.video.group in held_out else "train"
            told.videos[split] += 1
            told.records[split] += len(film.questions)
            for out in outs[split]:
                out.film(film)
        if not any(told.records.values()):
            raise ValueError("no question is left: see sieve.aside.jsonl for the reasons")
    return told


def validation(share: float, sieved: Path) -> set[str]:
    """The groups of videos that are held out: those whose names' digests are the smallest. At least one is, and one is
    not, if there are two and the share is above 0."""
    groups = sorted({video.group for video in read_videos(sieved)}, key=lambda group: digest(["split", group]))
    count = min(len(groups) - 1, max(1, round(share * len(groups)))) if share else 0
    return set(groups[: max(0, count)])


# -- records -----------------------------------------------------------------------------------------------------------


def reference(film: Film, question: Question, place: str) -> dict[str, Any]:
    """A record as the reference has it (spec training 4.2); readers pass over the keys that they do not know.

    Args:
        film: whose question it is.
        question: of the record.
        place: of the video, as the record says it.
    """
    return {
        "id": question.id,
        "video": place,
        "duration": film.video.duration,
        "conversations": [
            {"from": "human", "value": PLACE + question.prompt},
            {"from": "gpt", "value": question.reply},
        ],
        **meta(film, question),
    }


def messages(film: Film, question: Question, place: str) -> dict[str, Any]:
    """A record as ms-swift and LLaMA-Factory have it."""
    return {
        "id": question.id,
        "messages": [
            {"role": "user", "content": OURS + question.prompt},
            {"role": "assistant", "content": question.reply},
        ],
        "videos": [place],
        **meta(film, question),
    }


def place_of(film: Film) -> str:
    """Where a film lies, for whoever reads the set elsewhere on this machine."""
    return str(Path(film.video.path).resolve())


def meta(film: Film, question: Question) -> dict[str, Any]:
    """What is asked, from when to when it is seen, and where every sentence of the answer comes from."""
    notes = {place for event in question.events for place in film.events[event].notes}
    if not question.events:
        notes = {place for place, note in enumerate(film.notes) if note.kind in ("summary", "chapter")}
    return {
        "family": question.family,
        "kind": question.kind,
        "evidence": [question.start, question.end],
        "maker": question.maker,
        "origins": sorted({film.notes[place].origin for place in notes}),
        "source": film.video.source,
        "license": film.video.license,
        "video_key": film.video.key,
        **({"options": list(question.options), "right": question.answer} if question.options else {}),
        **({"blind": question.blind, "guessed": question.guessed} if question.blind else {}),
    }


# -- layouts -----------------------------------------------------------------------------------------------------------


class Lines(AbstractContextManager["Lines"]):
    """One record a line."""

    def __init__(self, file: TextIO, record: Callable[[Film, Question, str], dict[str, Any]]) -> None:
        self.file, self.record = file, record

    def film(self, film: Film) -> None:
        """Write a film's records."""
        place = place_of(film)
        for question in film.questions:
            self.file.write(json.dumps(self.record(film, question, place), ensure_ascii=False) + "\n")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Lines need no end."""


class Array(AbstractContextManager["Array"]):
    """One JSON array."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.before = file, "[\n"

    def film(self, film: Film) -> None:
        """Write a film's records."""
        place = place_of(film)
        for question in film.questions:
            self.file.write(self.before + json.dumps(reference(film, question, place), ensure_ascii=False))
            self.before = ",\n"

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the array."""
        self.file.write("\n]\n" if self.before != "[\n" else "[]\n")


class Shards(AbstractContextManager["Shards"]):
    """WebDataset: tar files of KEY.json with a film's records and KEY.mp4 with its bytes (or KEY.000000.jpg, ...)."""

    def __init__(self, folder: Path, split: str, megabytes: int, told: Written) -> None:
        self.folder, self.split, self.most, self.told = folder, split, megabytes * 1_000_000, told
        self.stack, self.size, self.number = ExitStack(), math.inf, 0
        self.tar: tarfile.TarFile | None = None

    def film(self, film: Film) -> None:
        """Add a film; a shard that is full is ended first."""
        path = Path(film.video.path)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        size = sum(one.stat().st_size for one in files)
        if self.size + size > self.most:
            self._next()
        assert self.tar is not None
        key = film.video.key
        records = [reference(film, question, f"{key}{path.suffix}") for question in film.questions]
        text = (canonical(records) + "\n").encode()
        self.tar.addfile(_entry(f"{key}.json", len(text)), io.BytesIO(text))
        for number, one in enumerate(files):
            name = f"{key}.{number:06d}{one.suffix}" if path.is_dir() else f"{key}{one.suffix}"
            with one.open("rb") as data:
                self.tar.addfile(_entry(name, one.stat().st_size), data)
        self.size += size + len(text)

    def _next(self) -> None:
        self.stack.close()
        path = self.folder / f"{self.split}-{self.number:06d}.tar"
        part = self.stack.enter_context(beside(path))
        self.tar = self.stack.enter_context(tarfile.open(part, "w"))  # noqa: SIM115  the stack closes it
        self.told.files.append(path)
        self.size, self.number = 0, self.number + 1

    def __exit__(self, *error: Any) -> None:
        """End the last shard; after an error it is not kept."""
        self.stack.__exit__(*error)


Out = Lines | Array | Shards


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """A member without an owner or a time: the same set gives the same bytes."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry


def _outs(setting: Setting, folder: Path, split: str, stack: ExitStack, told: Written) -> list[Out]:
    """A writer for each layout."""
    outs: list[Out] = []
    for form in setting.write.formats:
        if form == "webdataset":
            shards = folder / form
            if split == SPLITS[0]:
                shutil.rmtree(shards, ignore_errors=True)  # of an earlier run, maybe with more shards
            shards.mkdir(exist_ok=True)
            outs.append(Shards(shards, split, setting.write.shard, told))
            stack.enter_context(outs[-1])
            continue
        suffix = {"reference": ".jsonl", "reference-json": ".json", "messages": ".messages.jsonl"}[form]
        path = folder / f"{split}{suffix}"
        part = stack.enter_context(beside(path))
        file = stack.enter_context(part.open("w", encoding="utf-8"))
        told.files.append(path)
        record = messages if form == "messages" else reference
        outs.append(Array(file) if form == "reference-json" else Lines(file, record))
        stack.enter_context(outs[-1])
    return outs
