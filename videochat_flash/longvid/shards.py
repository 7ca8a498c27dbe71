"""The files of a set: lines, one array, WebDataset, Parquet. Each takes a film with its conversations at a time."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..bucket import fetched
from ..files import beside
from ..journal import canonical
from ..video import probe
from .columns import Columns
from .records import Film
from .rows import Talk, messages, place_of, reference


class Lines(AbstractContextManager["Lines"]):
    """One record a line."""

    def __init__(self, file: TextIO, record: Callable[[Film, Talk, str], dict[str, Any]], to: str) -> None:
        self.file, self.record, self.to = file, record, to

    def film(self, film: Film, some: Sequence[Talk]) -> None:
        """Write a film's records."""
        place = place_of(film, self.to)
        for talk in some:
            self.file.write(json.dumps(self.record(film, talk, place), ensure_ascii=False) + "\n")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Lines need no end."""


class Array(AbstractContextManager["Array"]):
    """One JSON array."""

    def __init__(self, file: TextIO, to: str) -> None:
        self.file, self.to, self.before = file, to, "[\n"

    def film(self, film: Film, some: Sequence[Talk]) -> None:
        """Write a film's records."""
        place = place_of(film, self.to)
        for talk in some:
            self.file.write(self.before + json.dumps(reference(film, talk, place), ensure_ascii=False))
            self.before = ",\n"

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the array."""
        self.file.write("\n]\n" if self.before != "[\n" else "[]\n")


class Shards(AbstractContextManager["Shards"]):
    """WebDataset: tar files of KEY.json with a film's records and KEY.mp4 with its bytes (or KEY.000000.jpg, ...)."""

    def __init__(self, folder: Path, split: str, megabytes: int, files: list[Path]) -> None:
        self.folder, self.split, self.most, self.files = folder, split, megabytes * 1_000_000, files
        self.stack, self.size, self.number = ExitStack(), math.inf, 0
        self.tar: tarfile.TarFile | None = None

    def film(self, film: Film, some: Sequence[Talk]) -> None:
        """Add a film; a shard that is full is ended first."""
        with fetched(film.video.path) as path:
            self._add(film, some, path)

    def _add(self, film: Film, some: Sequence[Talk], path: Path) -> None:
        files = [Path(one) for one in probe(path).files] if path.is_dir() else [path]
        size = sum(one.stat().st_size for one in files)
        if self.size + size > self.most:
            self._next()
        assert self.tar is not None
        key = film.video.key
        records = [reference(film, talk, f"{key}{path.suffix}") for talk in some]
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
        self.files.append(path)
        self.size, self.number = 0, self.number + 1

    def __exit__(self, *error: Any) -> None:
        """End the last shard; after an error it is not kept."""
        self.stack.__exit__(*error)


@dataclass(frozen=True)
class Message:
    """A turn of a conversation, as Parquet has it."""

    role: str
    content: str


@dataclass(frozen=True)
class Asked:
    """What is told of a question."""

    id: str
    family: str
    kind: str
    evidence: tuple[float, ...]
    maker: str
    origins: tuple[str, ...]
    options: tuple[str, ...]
    right: str
    blind: str
    guessed: bool


@dataclass(frozen=True)
class Row(Asked):
    """The columns of Parquet; where a conversation has several questions, theirs are in ``questions``."""

    messages: tuple[Message, ...]
    videos: tuple[str, ...]
    questions: tuple[Asked, ...]
    source: str
    license: str
    video_key: str


class Tables(AbstractContextManager["Tables"]):
    """Parquet: a conversation a row, with ``messages`` and ``videos`` as ms-swift has them."""

    def __init__(self, folder: Path, split: str, megabytes: int, files: list[Path], to: str) -> None:
        self.folder, self.split, self.most, self.files, self.to = folder, split, megabytes * 1_000_000, files, to
        self.stack, self.size, self.number = ExitStack(), math.inf, 0
        self.columns: Columns | None = None

    def film(self, film: Film, some: Sequence[Talk]) -> None:
        """Write a film's records; a shard that is full is ended first."""
        place = place_of(film, self.to)
        for talk in some:
            row = messages(film, talk, place)
            if self.columns is None or self.size > self.most:
                self.columns = self._next()
            self.columns.add(row)
            self.size += len(canonical(row))

    def _next(self) -> Columns:
        self.stack.close()
        path = self.folder / f"{self.split}-{self.number:06d}.parquet"
        part = self.stack.enter_context(beside(path))
        self.files.append(path)
        self.size, self.number = 0, self.number + 1
        return self.stack.enter_context(closing(Columns(part, Row)))

    def __exit__(self, *error: Any) -> None:
        """End the last shard; after an error it is not kept."""
        self.stack.__exit__(*error)


Out = Lines | Array | Shards | Tables


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """A member without an owner or a time: the same set gives the same bytes."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry
