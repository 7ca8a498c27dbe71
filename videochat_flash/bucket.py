"""Paths that may be URLs of buckets, read and written by fsspec: ``s3://films/a.mp4`` as well as ``films/a.mp4``."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from .files import beside

MISSING = "fsspec is not installed: pip install fsspec, and the driver of the bucket (s3fs, gcsfs)"
# Where drivers, and what they are built on, have their errors that are no OSError: no credentials, no connection.
FOREIGN = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "google.auth.exceptions": ("GoogleAuthError",),
    "gcsfs.retry": ("HttpError",),
    "azure.core.exceptions": ("AzureError",),
    "aiohttp.client_exceptions": ("ClientError",),
}
LOCAL = ("file:", "local:")  # of URLs that name a local file


@dataclass(frozen=True)
class Stored:
    """A file. ``mark`` is a number that changes with what the bucket tells of it, as its time and its tag."""

    url: str
    size: int
    mark: int


def is_url(path: str) -> bool:
    """Whether a path is one of a bucket."""
    return "://" in path


def _foreign() -> tuple[type[Exception], ...]:
    """Those of FOREIGN that could have been raised: their modules were imported."""
    there = ((sys.modules.get(module), name) for module, names in FOREIGN.items() for name in names)
    return tuple(getattr(module, name) for module, name in there if hasattr(module, name))


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever a driver raises in here for want of access or of a connection is an OSError that names the URL."""
    try:
        yield
    except _foreign() as error:
        raise OSError(f"{url} cannot be reached: {str(error) or type(error).__name__}") from None


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
    with _told(url):
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
    with TemporaryDirectory() as folder:
        with _told(path):
            system, there = _system(path)
            local = Path(folder) / (PurePosixPath(there).name or "media")
            if system.isdir(there):
                system.get(there, str(local), recursive=True)
            else:
                with system.open(there, "rb") as remote, local.open("wb") as copy:
                    shutil.copyfileobj(remote, copy)
        yield local


def put(local: Path, url: str) -> None:
    """Copy a file into a bucket or a folder, over what is there; readers see the old one or the whole new one.

    Raises:
        ValueError: fsspec or a driver is not installed.
        OSError: the bucket does not take it.
    """
    with _told(url):
        system, path = _system(url)
        system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        if is_url(url) and not url.startswith(LOCAL):
            system.put_file(str(local), path)
            return
    with beside(Path(path)) as part:
        shutil.copyfile(local, part)


def remove(url: str) -> None:
    """Remove a file of a bucket.

    Raises:
        ValueError: fsspec or a driver is not installed.
        OSError: the bucket does not let go of it.
    """
    with _told(url):
        system, path = _system(url)
        system.rm_file(path)
