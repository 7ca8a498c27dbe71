"""Results as they come: a line each, appended, never rewritten, not lost when a run is killed; run.json beside."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from .files import beside

RUN = "run.json"
MENDED = 1 << 16  # bytes that are looked at in one go
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: object) -> str:
    """JSON in one form: keys in order, no spaces. NaN is refused."""
    return _ENCODER.encode(value)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


class Log:
    """A results file that is open to be added to, and locked."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.file = path, file

    def add(self, record: Mapping[str, object]) -> None:
        """Append a record; it is there once this returns."""
        self.line(canonical(record))

    def line(self, text: str) -> None:
        """Append a line as it is."""
        self.file.write(text + "\n")
        self.file.flush()

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Leave only some of the lines: a file beside, locked before it takes the old one's place."""
        with beside(self.path) as part, ExitStack() as stack:
            file = stack.enter_context(part.open("a+", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX)
            self.file.seek(0)
            file.writelines(line for line in self.file if wanted(line))
            file.flush()
            stack.pop_all()
        self.file.close()
        self.file = file


@contextmanager
def appending(path: Path, otherwise: str = "wait for it") -> Iterator[Log]:
    """A results file for one process alone; the lock is on the file itself, and goes with the process, however it ends.

    Args:
        path: of the file.
        otherwise: what to do where another process has it.

    Raises:
        ValueError: another process has it.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    log = Log(path, path.open("a+", encoding="utf-8"))
    try:
        try:
            fcntl.flock(log.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path} is being written by another run: {otherwise}") from None
        if not path.exists() or not os.path.samestat(os.fstat(log.file.fileno()), path.stat()):
            raise ValueError(f"{path} was written by another run just now: start again")  # ``keep`` took its place
        _mend(log.file.buffer)
        yield log
    finally:
        log.file.close()


def _mend(file: BinaryIO) -> None:
    """Cut off the half line that a killed run may have left; what was not finished is run again."""
    size = whole = file.seek(0, 2)
    while whole:  # from the end on: a journal may be large
        begin = max(0, whole - MENDED)
        file.seek(begin)
        found = file.read(whole - begin).rfind(b"\n")
        whole = begin + found + 1
        if found >= 0:
            break
    if whole < size:
        file.truncate(whole)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a results file with the numbers of their lines; a last line that a killed run left is none.

    Raises:
        ValueError: a damaged line.
    """
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError:
            if number == len(lines):
                return
            raise damaged(path, number) from None
        if not isinstance(values, dict):
            raise damaged(path, number)
        yield number, values


def damaged(path: Path, number: int) -> ValueError:
    """What is to be said of a line that holds no record."""
    return ValueError(f"{path}, line {number} is damaged: remove that line, and what it was of is run again")


def begin_run(
    folder: Path, settings: Mapping[str, object], facts: Mapping[str, object], otherwise: str, **more: object
) -> str:
    """Write run.json, or check that what is there is the same run; returns its digest.

    Args:
        folder: of the run.
        settings: all that answers depend on.
        facts: what else is worth knowing; it may differ from one start to the next.
        otherwise: what to do where the folder holds another run.
        more: further entries of run.json.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    mark = digest(dict(settings))
    if (folder / RUN).is_file():
        there = read_run(folder)
        if there["run"] != mark:
            old = there["settings"]
            changed = sorted(
                name for name in {*old, *settings} if old.get(name) != json.loads(canonical(settings)).get(name)
            )
            told = "; ".join(f"{name} {old.get(name)!r} there, {settings.get(name)!r} now" for name in changed)
            raise ValueError(f"{folder} holds results of another run ({told}): {otherwise}")
        return mark
    folder.mkdir(parents=True, exist_ok=True)
    write_run(folder, {"run": mark, **more, "settings": dict(settings), "facts": dict(facts)})
    return mark


def write_run(folder: Path, values: Mapping[str, object]) -> None:
    """Write run.json, whole or not at all."""
    with beside(folder / RUN) as part:
        part.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_run(folder: Path, first: str = "nothing was run there") -> dict[str, Any]:
    """What ``begin_run`` wrote.

    Args:
        folder: of the run.
        first: what to say where there is nothing.

    Raises:
        FileNotFoundError: nothing was run there.
        ValueError: it is damaged.
    """
    path = folder / RUN
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {first}")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**values, **{name: values[name] for name in ("run", "settings", "facts")}}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}): remove it, and run again") from None
