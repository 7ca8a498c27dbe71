"""Folders that are there whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path


def take_place(part: Path, folder: Path) -> None:
    """Let a folder that was made beside another take its place, with all that was in that.

    A run that is killed meanwhile leaves the old one, the new one or neither, but never half of one; what it had put
    out of the way has a name that begins with a dot and ends with ``.part``.

    Raises:
        OSError: it cannot.
    """
    old = part.with_name(f".{folder.name}.old.part")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
