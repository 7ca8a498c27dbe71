"""Many questions about many videos: a line of JSON for each, answered in one run or in several.

Rows about one stretch of one video follow each other, so that it is seen once. Every answer is written as soon as it is
there; a run that is stopped goes on with the rows that have none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .chat import Stopwatch, VideoChatFlash, check_question
from .failures import FAILURES, out_of_memory, reason
from .journal import Log, appending, digest, read_lines
from .prefix import Prefix, prepare
from .session import Manner, answer_report, say
from .sight import Sight
from .video import Sampling, probe

Told = Callable[[int, int], object]
Line = Mapping[str, object]
BEGIN = b'{"id": '  # of every line


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


@dataclass(frozen=True)
class How:
    """What all rows have in common.

    Attributes:
        root: folder that videos are named from.
        sampling: which frames, where a row does not say.
        manner: how to answer.
    """

    root: Path
    sampling: Sampling
    manner: Manner


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
                why = f"{error} is missing" if isinstance(error, KeyError) else error
                raise ValueError(f"{path}, line {number} is no row: {why}") from None
            if row.id in rows:
                raise ValueError(f"{path}, line {number}: id {row.id!r} stands there before")
            rows[row.id] = row
    return list(rows.values())


def _row(told: Mapping[str, Any]) -> Row:
    row = Row(told["id"], told["video"], told["question"], told.get("start"), told.get("end"))
    for name, kinds in (("id", str | int), ("video", str), ("question", str)):
        if not isinstance(getattr(row, name), kinds) or isinstance(getattr(row, name), bool):
            raise ValueError(f"{name} must not be {getattr(row, name)!r}")
    f"{row.id}{row.video}{row.question}".encode()  # half a character, as JSON can have, could not be written back
    for name in ("start", "end"):
        if not isinstance(getattr(row, name), int | float | None):
            raise ValueError(f"{name} must be seconds, not {getattr(row, name)!r}")
    return row


def marks_of(rows: Iterable[Row], how: How) -> dict[str | int, str]:
    """What was asked by each id, and how: an answer to something else is none to it."""
    common = [repr(how.sampling), repr(how.manner)]
    return {row.id: digest([asdict(row), *common])[:12] for row in rows}


@contextmanager
def results(
    path: Path, retry: bool, model: str, marks: Mapping[str | int, str]
) -> Iterator[tuple[Log, set[str | int], set[str | int]]]:
    """A file to append to, and the ids that have an answer there, or failed. A line that was cut off is gone.

    Args:
        path: of the file.
        retry: whether failures are to be gone, too.
        model: by name, that answers.
        marks: of what is asked (``marks_of``).

    Raises:
        OSError: it cannot be written.
        ValueError: another run writes there, or it holds something else, or answers of another model, to another
            question or with other options.
    """
    if path.exists():
        _ids(path, model, marks)  # before anything is done to what may be no results
    with appending(path) as log:
        done, failed = _ids(path, model, marks)
        if retry and failed:
            log.keep(lambda line: bool(line.strip()) and "error" not in json.loads(line))
            failed = set()
        yield log, done, failed


def _ids(path: Path, model: str, marks: Mapping[str | int, str]) -> tuple[set[str | int], set[str | int]]:
    """Of answers, and of failures; a last line that was cut off is neither."""
    done: set[str | int] = set()
    failed: set[str | int] = set()
    others: list[str] = []
    try:
        for number, line in read_lines(path):
            row = line["id"]
            (failed if "error" in line else done).add(row)
            if "error" not in line and "answer" not in line:
                raise ValueError("a line without an answer")
            if line.get("model", model) != model:
                others.append(f"line {number} was answered by {line['model']}, not by {model}")
            elif row in marks and line.get("asked", marks[row]) != marks[row]:
                others.append(f"id {row!r} was asked something else, or with other options")
        cut = path.read_bytes().rpartition(b"\n")[2]
        if cut[: len(BEGIN)] != BEGIN[: len(cut)]:
            raise ValueError("the last line was none of a row")
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path} holds something else than results: choose another file") from None
    if others:
        raise ValueError(f"{path} holds other results ({others[0]}): choose another file")
    return done, failed


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that are about the same frames, in the order of the first of each."""
    groups: dict[tuple[str, float | None, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.shown, []).append(row)
    return list(groups.values())


def write_all(lines: Iterable[Line], log: Log, count: int, told: Told, model: str, marks: Mapping[Any, str]) -> int:
    """Write lines as they come, ``count`` in all, and whose they are; returns how many are failures."""
    failed = 0
    for done, line in enumerate(lines, 1):
        log.line(json.dumps({**line, "model": model, "asked": marks[line["id"]]}, ensure_ascii=False))
        failed += "error" in line
        told(done, count)
    return failed


def answers(vc: VideoChatFlash, group: Sequence[Row], how: How) -> Iterator[Line]:
    """A line for each row of a group: its answer, or why there is none."""
    seen = _seen(vc, group, how)
    for row in group:
        if not isinstance(seen, Seen):
            yield {"id": row.id, "error": seen}
            continue
        line = _answered(vc, row, seen, how.manner)
        if line is None:
            seen = Seen(seen.sight, None)
            line = _answered(vc, row, seen, how.manner)
        assert line is not None, "there is no prefix to do without"
        yield line


@dataclass(frozen=True)
class Seen:
    """A video, and what questions about it share."""

    sight: Sight
    prefix: Prefix | None


def _seen(vc: VideoChatFlash, group: Sequence[Row], how: How) -> Seen | str:
    """Or why it could not be seen."""
    row, common = group[0], how.sampling
    try:
        sampling = replace(common, start=_first(row.start, common.start), end=_first(row.end, common.end))
        sight = vc.see(probe(how.root / row.video), sampling)
        return Seen(sight, _prefix(vc, sight, how) if len(group) > 1 else None)
    except FAILURES as error:
        return reason(error)


def _prefix(vc: VideoChatFlash, sight: Sight, how: How) -> Prefix | None:
    """Unless there is no room for it: each question then reads the video anew."""
    try:
        return prepare(vc, sight, keep=how.manner.keep)
    except FAILURES as error:
        if not out_of_memory(error):
            raise
        return None


def _first(own: float | None, common: float | None) -> float | None:
    return common if own is None else own


def _answered(vc: VideoChatFlash, row: Row, seen: Seen, manner: Manner) -> Line | None:
    """None where the prefix and its copy leave no room for an answer."""
    watch = Stopwatch()
    try:
        check_question(row.question)
        reply = say(vc, seen.sight, row.question, manner, prefix=seen.prefix, watch=watch, bars=False)
    except FAILURES as error:
        if seen.prefix is not None and out_of_memory(error):
            return None
        return {"id": row.id, "error": reason(error)}
    seconds = {name.replace(" ", "_"): round(spent, 4) for name, spent in watch.seconds.items()}
    return {
        "id": row.id,
        "answer": reply.text,
        "frames": seen.sight.frames,
        **answer_report(vc, reply, manner),
        "seconds": seconds,
    }
