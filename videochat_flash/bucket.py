"""Paths that may be URLs of buckets, read and written by fsspec: ``s3://films/a.mp4`` as well as ``films/a.mp4``."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

MISSING = "fsspec is not installed: pip install fsspec, and the driver of the bucket (s3fs, gcsfs)"


@dataclass(frozen=True)
class Stored:
    """A file. ``mark`` is a number that changes with what the bucket tells of it, as its time and its tag."""

    url: str
    size: int
    mark: int


def is_url(path: str) -> bool:
    """Whether a path is one of a bucket."""
    return "://" in path


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path within it.

    Raises:
        ValueError: fsspec or the bucket's driver is not installed, or nothing knows such URLs.
    """
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError:
        raise ValueError(f"{url}: {MISSING}") from None
    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{url}: {error}") from None
    return system, str(path)


def below(url: str) -> list[Stored]:
    """The files below a URL, or the one that it is, in the order of their names.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: fsspec or a driver is not installed.
        OSError: the bucket does not answer.
    """
    system, path = _system(url)
    found = system.find(path, detail=True)
    if not found:
        raise FileNotFoundError(f"there is nothing at {url}")
    return [
        Stored(system.unstrip_protocol(name), int(told.get("size") or 0), _mark(told))
        for name, told in sorted(found.items())
    ]


def _mark(told: dict[str, Any]) -> int:
    text = "\n".join(f"{name} {told[name]}" for name in sorted(told))
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


@contextmanager
def fetched(path: str) -> Iterator[Path]:
    """A local file or folder itself, or a copy of a bucket's for as long as it is read.

    Raises:
        FileNotFoundError: there is none in the bucket.
        ValueError: fsspec or a driver is not installed.
        OSError: the bucket does not answer.
    """
    if not is_url(path):
        yield Path(path)
        return
    system, there = _system(path)
    with TemporaryDirectory() as folder:
        local = Path(folder) / (PurePosixPath(there).name or "media")
        if system.isdir(there):
            system.get(there, str(local), recursive=True)
        else:
            with system.open(there, "rb") as remote, local.open("wb") as copy:
                shutil.copyfileobj(remote, copy)
        yield local


def put(local: Path, url: str) -> None:
    """Copy a file into a bucket, over what is there.

    Raises:
        ValueError: fsspec or a driver is not installed.
        OSError: the bucket does not take it.
    """
    system, path = _system(url)
    system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
    system.put_file(str(local), path)


def remove(url: str) -> None:
    """Remove a file of a bucket.

    Raises:
        ValueError: fsspec or a driver is not installed.
        OSError: the bucket does not let go of it.
    """
    system, path = _system(url)
    system.rm_file(path)
