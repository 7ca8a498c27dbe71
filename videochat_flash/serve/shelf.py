"""A folder of files that together stay below a number of bytes: the least recently used go first.

All that is known of them stands in the folder, when a file was used in its modification time: a restart forgets
nothing, and any number of processes may use one folder.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..files import beside

NAME = re.compile(r"[\w-]+", re.ASCII)
MOST = 10_000  # files, however small
DAY = 86_400 * 10**9  # nanoseconds: who still writes to a file that old was killed


class Shelf:
    """Files by name.

    Args:
        folder: made if it is not there; nothing else may be in it.
        limit: bytes of all files.
        suffix: of every file.
    """

    def __init__(self, folder: Path, limit: int, suffix: str = "") -> None:
        self.folder, self.limit, self.suffix = folder, limit, suffix
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room()

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for _, size, _ in self._files())

    def __len__(self) -> int:
        return len(self._files())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(NAME.fullmatch(name)) and self.path(name).is_file()

    def __iter__(self) -> Iterator[str]:
        """Names, the least recently used first."""
        return (name for _, _, name in self._files())

    def path(self, name: str) -> Path:
        """Where a file is or would be."""
        return self.folder / f"{name}{self.suffix}"

    def use(self, name: str) -> Path | None:
        """A file, which is now the most recently used; None if it is not there."""
        if name not in self:
            return None
        try:
            _touch(self.path(name))
        except FileNotFoundError:  # another process made room
            return None
        return self.path(name)

    @contextmanager
    def put(self, name: str) -> Iterator[Path]:
        """A path to write to, whose file is on the shelf afterwards, or is not if that fails.

        A file larger than the whole shelf is not kept.
        """
        with beside(self.path(name)) as part:
            part.touch(mode=0o600)
            yield part
            size = part.stat().st_size
            _touch(part)
        if size > self.limit:
            self.drop(name)
        self._make_room()

    def drop(self, name: str) -> bool:
        """Remove a file; whether it was there."""
        try:
            self.path(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def _files(self) -> list[tuple[int, int, str]]:
        """When each was used, its bytes, its name; the least recently used first."""
        found: list[tuple[int, int, str]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process removed it just now
                    told = entry.stat()
                    if not entry.name.startswith("."):
                        found.append((told.st_mtime_ns, told.st_size, entry.name.removesuffix(self.suffix)))
                    elif told.st_mtime_ns < time.time_ns() - DAY:
                        os.unlink(entry.path)
        return sorted(found)

    def _make_room(self) -> None:
        files = self._files()
        held, count = sum(size for _, size, _ in files), len(files)
        for done, (_, size, name) in enumerate(files):
            if held <= self.limit and count - done <= MOST:
                return
            self.drop(name)
            held -= size


def sweep(store: Path, folders: Sequence[str]) -> None:
    """Remove what killed processes had half written in a store that nobody uses; and what requests had there."""
    shutil.rmtree(store / "scratch", ignore_errors=True)
    for left in (left for folder in folders for left in (store / folder).glob(".*")):
        left.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    """To the nanosecond: by itself the system's clock moves in steps of milliseconds."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))
