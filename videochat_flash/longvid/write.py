"""write: the set in the layouts that trainers read, split by video."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..bucket import below, is_url, put, remove
from ..files import beside
from ..folders import take_place
from ..journal import digest
from .hide import COPIES
from .records import read_films, read_videos
from .rows import messages, reference, talks
from .settings import OutFormat, Setting
from .shards import Array, Lines, Out, Shards, Tables

FOLDER = "dataset"
SPLITS = ("train", "validation")
SHARDS = ("webdataset", "parquet")  # layouts of many files
SUFFIXES = {"reference": ".jsonl", "reference-json": ".json", "messages": ".messages.jsonl"}
PART = re.compile(r"\..+\.(?:[0-9a-f]{8}|old\.part)")  # what is not whole yet, and what makes room for it
SHARD = re.compile(rf"(?:{'|'.join(SHARDS)})/(?:{'|'.join(SPLITS)})-\d{{6}}\.(?:tar|parquet)")


@dataclass
class Written:
    """What was written."""

    files: list[Path] = field(default_factory=list)
    copies: list[Path] = field(default_factory=list)  # films in which cards are hidden
    records: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    videos: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    copied: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))  # of those films, how many copies


def write(setting: Setting, sieved: Path) -> Written:
    """Write what the sieve left, whole or not at all; what an earlier run wrote goes when all is there.

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
    _sweep(folder)
    told = Written()
    with ExitStack() as whole, ExitStack() as stack:
        shards = {
            form: whole.enter_context(_replacing(folder / form)) for form in SHARDS if form in setting.write.formats
        }
        outs = {split: _outs(setting, folder, shards, split, stack, told.files) for split in SPLITS}
        for film in read_films(sieved):
            split = "validation" if film.video.group in held_out else "train"
            some = talks(film.questions, setting.write.turns if split == "train" else 1)
            (told.copied if film.video.parent else told.videos)[split] += 1
            told.copies += [Path(film.video.path)] if film.video.parent else []
            told.records[split] += len(some)
            for out in outs[split]:
                out.film(film, some)
        if not any(told.records.values()):
            raise ValueError("no question is left: see sieve.aside.jsonl for the reasons")
    parts = {part: folder / form for form, part in shards.items()}
    told.files = [parts[path.parent] / path.name if path.parent in parts else path for path in told.files]
    _forget(folder, setting.write.formats)
    return told


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed had begun to write."""
    for path in folder.iterdir():
        if PART.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of ``folder``, with all that was in it, when all went well."""
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    part.mkdir()
    try:
        yield part
        take_place(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _forget(folder: Path, formats: Sequence[str]) -> None:
    """Remove what an earlier run wrote in layouts that are not asked for any more."""
    for form in OutFormat:
        if form not in formats and form in SHARDS:
            shutil.rmtree(folder / form, ignore_errors=True)
        elif form not in formats:
            for split in SPLITS:
                (folder / f"{split}{SUFFIXES[form]}").unlink(missing_ok=True)


def deliver(setting: Setting, written: Written, told: Callable[[int, int], None]) -> None:
    """Copy what was written into the bucket or folder that the setting names, and the films in which cards are hidden.

    What an earlier delivery left there of the set goes when all is there: a shard of it may hold for training what is
    held out now.

    Args:
        setting: says where to.
        written: files of the set.
        told: files that are there, of how many.

    Raises:
        ValueError: a driver is not installed.
        OSError: the bucket does not take them, or does not let go of older ones.
    """
    to, folder = goal(setting), Path(setting.out) / FOLDER
    names = {path: path.relative_to(folder).as_posix() for path in written.files}
    names |= {path: f"{COPIES}/{path.name}" for path in written.copies}
    for number, (path, name) in enumerate(names.items() if to else (), 1):
        put(path, f"{to}/{name}")
        told(number, len(names))
    for url in list(_stale(to, set(names.values()))) if to else ():
        remove(url)


def _stale(to: str, names: set[str]) -> Iterator[str]:
    """What lies where the set goes, is called as files of a set are, and is none of these."""
    for form in SHARDS:
        with suppress(FileNotFoundError):
            found = ((one.url, f"{form}/{one.url.rpartition(f'/{form}/')[2]}") for one in below(f"{to}/{form}"))
            yield from (url for url, name in found if SHARD.fullmatch(name) and name not in names)
    for name in {f"{split}{suffix}" for split in SPLITS for suffix in SUFFIXES.values()} - names:
        with suppress(FileNotFoundError):
            yield from (one.url for one in below(f"{to}/{name}"))


def goal(setting: Setting) -> str:
    """Where the set goes: a URL, a folder with its whole path, or nowhere."""
    to = setting.write.to.rstrip("/")
    return to if is_url(to) or not to else str(Path(to).absolute())


def validation(share: float, sieved: Path) -> set[str]:
    """The groups of videos that are held out: those whose names' digests are the smallest. At least one is, and one is
    not, if there are two and the share is above 0."""
    groups = sorted({video.group for video in read_videos(sieved)}, key=lambda group: digest(["split", group]))
    count = min(len(groups) - 1, max(1, round(share * len(groups)))) if share else 0
    return set(groups[: max(0, count)])


def _outs(
    setting: Setting, folder: Path, shards: Mapping[str, Path], split: str, stack: ExitStack, files: list[Path]
) -> list[Out]:
    """A writer for each layout."""
    outs: list[Out] = []
    to = goal(setting)
    for form in setting.write.formats:
        if form in SHARDS:
            part, size = shards[form], setting.write.shard
            outs.append(
                Shards(part, split, size, files) if form == "webdataset" else Tables(part, split, size, files, to)
            )
        else:
            path = folder / f"{split}{SUFFIXES[form]}"
            part = stack.enter_context(beside(path))
            file = stack.enter_context(part.open("w", encoding="utf-8"))
            files.append(path)
            record = messages if form == "messages" else reference
            outs.append(Array(file, to) if form == "reference-json" else Lines(file, record, to))
        stack.enter_context(outs[-1])
    return outs
