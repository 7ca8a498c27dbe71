"""A folder of files that together stay below a number of bytes: the least recently used go first.

When a file was used stands in its modification time, so that a restart forgets nothing; what a killed server left half
written is swept away when a shelf is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..files import beside


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
        for left in folder.glob(".*"):
            left.unlink()
        self._held: dict[str, int] = {}
        files = [(file.stat(), file) for file in folder.iterdir() if file.is_file()]
        for found, file in sorted(files, key=lambda one: one[0].st_mtime_ns):
            self._held[file.name.removesuffix(suffix)] = found.st_size
        self._make_room(0)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[str]:
        """Names, the least recently used first."""
        return iter(tuple(self._held))

    def path(self, name: str) -> Path:
        """Where a file is or would be."""
        return self.folder / f"{name}{self.suffix}"

    def use(self, name: str) -> Path | None:
        """A file, which is now the most recently used; None if it is not there."""
        if name not in self._held:
            return None
        try:
            os.utime(self.path(name))
        except FileNotFoundError:
            self._held.pop(name)
            return None
        self._held[name] = self._held.pop(name)
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
        self._held.pop(name, None)
        self._make_room(size)
        if size > self.limit:
            self.path(name).unlink()
        else:
            self._held[name] = size

    def drop(self, name: str) -> bool:
        """Remove a file; whether it was there."""
        if self._held.pop(name, None) is None:
            return False
        with suppress(FileNotFoundError):
            self.path(name).unlink()
        return True

    def _make_room(self, size: int) -> None:
        while self._held and self.bytes + size > self.limit:
            self.drop(next(iter(self._held)))
