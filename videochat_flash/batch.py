"""Many questions about many videos: a line of JSON for each, answered in one run or in several.

Rows about one stretch of one video follow each other, so that it is seen once. Every answer is written as soon as it is
there; a run that is stopped goes on with the rows that have none.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import torch

from .chat import Stopwatch, VideoChatFlash, check_question
from .prefix import Prefix, prepare
from .session import Manner, answer_report, say
from .sight import Sight
from .video import Sampling, probe

Told = Callable[[int, int], object]


@dataclass(frozen=True)
class Row:
    """A question about a video, or about a stretch of it (seconds)."""

    id: str | int
    video: str
    question: str
    start: float | None = None
    end: float | None = None

    @property
    def shown(self) -> tuple[str, float | None, float | None]:
        """What rows have in common that are about the same frames."""
        return self.video, self.start, self.end


def read_rows(path: Path) -> list[Row]:
    """All rows of a file; keys that are none of Row's are left alone.

    Raises:
        OSError: no such file.
        ValueError: a line that is no row, or an id that comes twice.
    """
    rows: dict[str | int, Row] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _row(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else error
                raise ValueError(f"{path}, line {number} is no row: {reason}") from None
            if row.id in rows:
                raise ValueError(f"{path}, line {number}: id {row.id!r} stands there before")
            rows[row.id] = row
    return list(rows.values())


def _row(told: Mapping[str, Any]) -> Row:
    row = Row(told["id"], told["video"], told["question"], told.get("start"), told.get("end"))
    for name, kinds in (("id", str | int), ("video", str), ("question", str)):
        if not isinstance(getattr(row, name), kinds) or isinstance(getattr(row, name), bool):
            raise ValueError(f"{name} must not be {getattr(row, name)!r}")
    for name in ("start", "end"):
        if not isinstance(getattr(row, name), int | float | None):
            raise ValueError(f"{name} must be seconds, not {getattr(row, name)!r}")
    return row


@contextmanager
def results(path: Path, retry: bool) -> Iterator[tuple[TextIO, set[str | int]]]:
    """A file to append to, and the ids that have an answer there. A line that was cut off is gone.

    Args:
        retry: whether failures are no answers.

    Raises:
        OSError: it cannot be written.
        ValueError: another run writes there, or it holds something else.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run writes to {path}") from None
        file.seek(0)
        *whole, torn = file.read().split("\n")
        try:
            told = [json.loads(line) for line in whole]
            failed = {one["id"] for one in told if "error" in one}
            done = {one["id"] for one in told} - (failed if retry else set())
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path} holds something else than results: choose another file") from None
        if torn or (retry and failed):
            kept = [line for line, one in zip(whole, told, strict=True) if one["id"] in done]
            file.truncate(0)
            file.writelines(f"{line}\n" for line in kept)
            file.flush()
        yield file, done


def answer_all(
    vc: VideoChatFlash, rows: Sequence[Row], out: TextIO, root: Path, sampling: Sampling, manner: Manner, told: Told
) -> int:
    """Answer rows, each with a line of its own; returns how many failed."""
    groups: dict[tuple[str, float | None, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.shown, []).append(row)
    failed = done = 0
    for group in groups.values():
        seen = _seen(vc, group, root, sampling, manner)
        for row in group:
            line = _answered(vc, row, seen, manner) if not isinstance(seen, str) else {"id": row.id, "error": seen}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()
            failed, done = failed + ("error" in line), done + 1
            told(done, len(rows))
    return failed


@dataclass(frozen=True)
class Seen:
    """A video, and what questions about it share."""

    sight: Sight
    prefix: Prefix | None
    watch: Stopwatch


def _seen(vc: VideoChatFlash, group: Sequence[Row], root: Path, sampling: Sampling, manner: Manner) -> Seen | str:
    """Or why it could not be seen."""
    watch, row = Stopwatch(), group[0]
    try:
        sampling = replace(sampling, start=_first(row.start, sampling.start), end=_first(row.end, sampling.end))
        sight = vc.see(probe(root / row.video), sampling, watch=watch)
        prefix = prepare(vc, sight, keep=manner.keep) if len(group) > 1 else None
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        return str(error)
    return Seen(sight, prefix, watch)


def _first(own: float | None, common: float | None) -> float | None:
    return common if own is None else own


def _answered(vc: VideoChatFlash, row: Row, seen: Seen, manner: Manner) -> dict[str, object]:
    watch = Stopwatch()
    try:
        check_question(row.question)
        reply = say(vc, seen.sight, row.question, manner, prefix=seen.prefix, watch=watch, bars=False)
    except (ValueError, torch.OutOfMemoryError) as error:
        return {"id": row.id, "error": str(error)}
    seconds = {name.replace(" ", "_"): round(spent, 4) for name, spent in watch.seconds.items()}
    return {
        "id": row.id,
        "answer": reply.text,
        "frames": seen.sight.frames,
        **answer_report(vc, reply, manner),
        "seconds": seconds,
    }
