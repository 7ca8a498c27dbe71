"""Files of lines that grow while a long job runs: one writer, nothing rewritten, and no line lost when it is killed."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def canonical(value: object) -> str:
    """JSON in one form: keys in order, no spaces. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@contextmanager
def appending(path: Path, advice: str) -> Iterator[TextIO]:
    """A file for one process alone, open to be added to; the lock goes with the process, however it ends.

    Args:
        path: of the file; its folder is made.
        advice: what to do where another process has it.

    Raises:
        ValueError: another process has it.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path} is being written by another run: {advice}") from None
        _mend(path)
        with path.open("a", encoding="utf-8") as file:
            yield file


def add(file: TextIO, line: str) -> None:
    """Append a line; it is there once this returns."""
    file.write(line + "\n")
    file.flush()


def _mend(path: Path) -> None:
    """Cut off the half line that a killed run may have left; what was not finished is done again."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        size = whole = file.seek(0, 2)
        while whole:
            begin = max(0, whole - (1 << 16))
            file.seek(begin)
            found = file.read(whole - begin).rfind(b"\n")
            whole = begin + found + 1 if found >= 0 else begin
            if found >= 0:
                break
        if whole < size:
            file.truncate(whole)
