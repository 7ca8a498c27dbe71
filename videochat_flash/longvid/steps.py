"""A step: records -> records, each finished one on disk before the next, none done twice, failures kept aside.

Beside a step's file ``NAME.jsonl`` (or ``.parquet``) stand ``NAME.aside.jsonl``, what was kept out and why, and
``journal/NAME.jsonl``, what came of each record as it was finished. A record's key there is a digest of the record
itself and of everything that the step does with it: a record that has changed, or a step with other settings, is done
anew, and nothing else is.
Both files are written from the journal in the order of the input, so that they are the same bytes however often a run
was stopped and wherever it ran.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..files import beside
from ..journal import Log, appending, canonical
from ..remote import Unanswered
from ..strict import Schema
from .records import ASIDE, FILM, Aside, Film, line_of, parse, plain, read_lines, writing

JOURNAL = "journal"
KEY = 32  # hexadecimal digits
HEAD = '{"key":"'
FAILED = '","failed":'
LINE = re.compile(rb'\{"key":"(?P<key>[0-9a-f]{%d})","failed":(?P<failed>true|false),.*\n' % KEY)
FEWEST = 20  # records before a step is ended early: of a small set all is told
CHANGED = "it was changed, or came, while the step was working: the same command works on it"
ADVICE = "wait for it, or build in another folder"


@dataclass(frozen=True)
class Made:
    """What comes of one record: films (mostly one), what was kept out of it, and how many entries it had in all."""

    films: tuple[Film, ...]
    asides: tuple[Aside, ...] = ()
    entries: int = 0


Work = Callable[[Any], Made]
Told = Callable[[int, int], None]
Form = Literal["jsonl", "parquet"]  # of a step's file


@runtime_checkable
class Where(Protocol):
    """Runs workers over lines, in this process or elsewhere; results may come in any order."""

    def __call__(self, step: Step, lines: Iterator[tuple[str, str]]) -> Iterator[str]: ...


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: of its files.
        mark: all that its results depend on beside the record; JSON.
        worker: makes the function that does one record; called once in each process that works.
        reads: what it is given.
        settle: looks at all films together, where that is needed; streams.
        more: what else is kept aside, known only when all records were seen.
        lost: whether something that a finished record left outside of the journal, told by its line there, is gone.
    """

    name: str
    mark: Mapping[str, Any]
    worker: Callable[[], Work]
    reads: Schema[Any] = FILM
    settle: Callable[[Callable[[], Iterator[Film]]], Iterator[Film | Aside]] | None = None
    more: Callable[[], Iterable[Aside]] = tuple
    lost: Callable[[bytes], bool] | None = None

    def __call__(self, records: Iterable[Any]) -> Iterator[Film]:
        """The step as a plain function of iterators, without files: failures are left out."""
        work = self.worker()
        films = (film for record in records for film in done(self, work, record).films)
        if self.settle is None:
            yield from films
        else:
            held = list(films)
            yield from (one for one in self.settle(lambda: iter(held)) if isinstance(one, Film))


@dataclass
class Ran:
    """How a step went."""

    step: str
    records: int = 0
    before: int = 0  # finished by an earlier run
    failed: int = 0
    entries: int = 0
    bad_entries: int = 0
    films: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # of what was kept aside
    seconds: float = 0.0  # of this run
    cpu: float = 0.0  # of cores, in this run; 0 where nobody counted: on a cluster
    workers: int = 1


def done(step: Step, work: Work, record: Any) -> Made:
    """A record's result; one that cannot be worked on is an aside of kind ``failed``."""
    try:
        return work(record)
    except (ValueError, OSError, Unanswered, MemoryError) as error:
        why = str(error) or type(error).__name__
        return Made((), (Aside(step.name, "failed", _named(record), why, line_of(record)),))


def _named(record: Any) -> str:
    return record.video.path if isinstance(record, Film) else str(getattr(record, "path", record))


def journal_line(key: str, made: Made) -> str:
    """What the journal holds of a record: its key first, and whether it failed, so that both are found at once."""
    failed = any(one.kind == "failed" for one in made.asides)
    values = {"films": [plain(one) for one in made.films], "asides": [plain(one) for one in made.asides]}
    return f"{HEAD}{key}{FAILED}{str(failed).lower()},{canonical({**values, 'entries': made.entries})[1:]}"


def finished(step: Step, work: Work, key: str, line: str) -> str:
    """The journal line of a record."""
    try:
        record = parse(step.reads, line, step.name)
    except ValueError as error:
        return journal_line(key, Made((), (Aside(step.name, "failed", line[:80], str(error), line),)))
    return journal_line(key, done(step, work, record))


def worked(step: Step, lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Journal lines of (key, line) pairs, in this process, one after the other."""
    work = step.worker()
    for key, line in lines:
        yield finished(step, work, key, line)


class Index:
    """Where each finished record stands in a journal: 24 bytes for each, whatever they are.

    A line that is none of a record's is passed over: its record is done anew.

    Args:
        path: of the journal.
        lost: whether what a line tells of is gone, so that its record is not finished.
    """

    def __init__(self, path: Path, lost: Callable[[bytes], bool] | None = None) -> None:
        high, low, places, at = array("Q"), array("Q"), array("q"), 0
        if path.is_file():
            with path.open("rb") as file:
                for line in file:
                    if told := LINE.match(line):
                        key = int(told["key"], 16)
                        high.append(key >> 64)
                        low.append(key & (1 << 64) - 1)
                        # A failed record is found, to be told of, but not finished: the next run tries it again.
                        bad = told["failed"] == b"true" or (lost is not None and lost(line))
                        places.append(-at - 1 if bad else at)
                    at += len(line)
        order = np.lexsort((np.arange(len(places)), np.array(high, np.uint64)))  # of one key, the last line counts
        self.high: NDArray[np.uint64] = np.array(high, np.uint64)[order]
        self.low: NDArray[np.uint64] = np.array(low, np.uint64)[order]
        self.places: NDArray[np.int64] = np.array(places, np.int64)[order]

    def __len__(self) -> int:
        return len(self.places)

    def find(self, key: str) -> int | None:
        """The place of a record's last line, below 0 if it failed: there it is ``-place - 1``; None if it has none."""
        if not len(self):
            return None
        high, low = np.uint64(int(key[:16], 16)), np.uint64(int(key[16:], 16))
        first, last = (int(np.searchsorted(self.high, high, side)) for side in ("left", "right"))
        same = np.flatnonzero(self.low[first:last] == low)
        return int(self.places[first + same[-1]]) if len(same) else None


def key_of(mark: str, line: str) -> str:
    """A record's key in a step's journal."""
    return hashlib.sha256(f"{mark}\n{line}".encode()).hexdigest()[:KEY]


def run(
    step: Step,
    lines: Callable[[], Iterator[str]],
    folder: Path,
    limit: float,
    told: Told = lambda *_: None,
    where: Where = worked,
    form: Form = "jsonl",
) -> Ran:
    """Do what is left of a step, and write its files; it stops early where more fails than the limit allows.

    Args:
        step: what is done.
        lines: the records, from the beginning each time it is called.
        folder: of all steps.
        limit: share of records, and of their entries, that may fail; a single one always may.
        told: records that are done, of how many.
        where: in this process, or on Ray.
        form: of the step's file.

    Raises:
        ValueError: another process runs this step.
        OSError: the folder cannot be written to.
    """
    mark, ran, began = canonical(step.mark), Ran(step.name), time.perf_counter()
    path = folder / JOURNAL / f"{step.name}.jsonl"
    with ExitStack() as stack:
        journal = stack.enter_context(appending(path, ADVICE))
        index = Index(path, step.lost)
        for line in lines():
            ran.records += 1
            place = index.find(key_of(mark, line)) if len(index) else None
            ran.before += place is not None and place >= 0
        whole = _work(step, ((key_of(mark, line), line) for line in lines()), index, journal, ran, limit, told, where)
        target = folder / f"{step.name}.{form}"
        _write(step, ((key_of(mark, line), line) for line in lines()), path, target, ran, whole)
        for other in {*get_args(Form)} - {form}:
            (folder / f"{step.name}.{other}").unlink(missing_ok=True)
    ran.seconds = round(time.perf_counter() - began, 3)
    return ran


def _work(
    step: Step,
    records: Iterator[tuple[str, str]],
    index: Index,
    journal: Log,
    ran: Ran,
    limit: float,
    told: Told,
    where: Where,
) -> bool:
    """Everything that the index has not as finished, into the journal; whether that was all of it."""

    def left() -> Iterator[tuple[str, str]]:
        for key, line in records:
            place = index.find(key)
            if place is None or place < 0:
                yield key, line

    count, failed = ran.before, 0
    told(count, ran.records)
    for line in where(step, left()):
        journal.line(line)
        count += 1
        failed += line[len(HEAD) + KEY + len(FAILED) :].startswith("true")
        told(count, ran.records)
        if count >= FEWEST and too_many(failed, ran.records, limit):
            return False  # ``check`` fails whatever the rest comes to; what is written now tells which
    return True


def _write(step: Step, records: Iterator[tuple[str, str]], path: Path, target: Path, ran: Ran, whole: bool) -> None:
    """The step's two files, from the journal. Records are listed anew for it: what has changed since the step worked on
    them, and what is gone, has failed, unless the step was stopped before all of them."""
    index, there = Index(path), 0
    raw = path.with_suffix(".films.jsonl")
    with ExitStack() as stack:
        aside = stack.enter_context(
            stack.enter_context(beside(target.with_suffix(".aside.jsonl"))).open("w", encoding="utf-8")
        )
        with writing(raw if step.settle else target) as out, path.open("rb") as journal:
            ran.failed = 0
            for key, line in records:
                there += 1
                place = index.find(key)
                if place is None:
                    if whole:
                        what = _named(parse(step.reads, line, step.name))
                        _put(aside, Aside(step.name, "failed", what, CHANGED, line), ran)
                        ran.failed += 1
                    continue
                journal.seek(place if place >= 0 else -place - 1)
                values = json.loads(journal.readline())
                ran.failed += bool(values["failed"])
                ran.entries += values["entries"]
                for film in values["films"]:
                    out(canonical(film))
                    ran.films += not step.settle
                for one in values["asides"]:
                    _put(aside, ASIDE.read(one, str(path)), ran)
        if there < ran.records:
            gone = f"{ran.records - there} of {ran.records} records were gone when the step had worked on them"
            _put(aside, Aside(step.name, "failed", target.name, gone), ran)
            ran.failed += ran.records - there
        if step.settle:
            _settle(step, raw, target, aside, ran)
        for one in step.more():
            _put(aside, one, ran)
            ran.entries += one.kind == "entry"


def _settle(step: Step, raw: Path, target: Path, aside: TextIO, ran: Ran) -> None:
    assert step.settle is not None

    def films() -> Iterator[Film]:
        return (parse(FILM, line, str(raw)) for line in read_lines(raw))

    with writing(target) as out:
        for one in step.settle(films):
            if isinstance(one, Film):
                out(line_of(one))
                ran.films += 1
            else:
                _put(aside, one, ran)


def _put(file: TextIO, one: Aside, ran: Ran) -> None:
    file.write(line_of(one) + "\n")
    ran.kinds[one.kind] = ran.kinds.get(one.kind, 0) + 1
    ran.bad_entries += one.kind == "entry"


def too_many(bad: int, of: int, limit: float) -> bool:
    """Whether more has failed than the limit allows, which always allows a single one."""
    return bad > 1 and bad > limit * of


def check(ran: Ran, limit: float, folder: Path) -> None:
    """Raises ValueError where more has failed than the limit allows."""
    for what, bad, of in (("videos", ran.failed, ran.records), ("entries", ran.bad_entries, ran.entries)):
        if too_many(bad, of, limit):
            raise ValueError(
                f"{ran.step}: {bad} of {of} {what} failed, more than the limit of {limit:g}: see "
                f"{folder / f'{ran.step}.aside.jsonl'}; the same command tries failed videos again, max_failed raises "
                "the limit"
            )


def counts(rans: Sequence[Ran]) -> dict[str, dict[str, Any]]:
    """How all steps went, as JSON."""
    return {one.step: {name: value for name, value in vars(one).items() if name != "step"} for one in rans}
