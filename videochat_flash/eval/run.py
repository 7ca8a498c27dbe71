"""Asks every question that has no answer yet; each answer is on disk before the next question is asked."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from ..journal import appending, begin_run, damaged, read_lines
from ..show import Told
from .ask import Asker, Unanswered
from .items import Item

RESULTS = "results.jsonl"
IN_A_ROW = 10  # videos of which every question failed; then something is wrong with more than a video
OTHERWISE = "choose another --out"


@dataclass(frozen=True)
class Record:
    """What came of a question.

    Attributes:
        id: of the row.
        mark: of all in the row that an answer depends on.
        run: digest of what answered, and how it was asked.
        blind: whether it was asked without the video.
        status: ``ok`` if there was an answer, even an empty one; ``error`` if there was none.
        text: the answer as it came.
        error: what went wrong.
        rows: of the prompt.
        seconds: that it took, seeing the video included.
    """

    id: str
    mark: str
    run: str
    blind: bool
    status: Literal["ok", "error"]
    text: str = ""
    error: str = ""
    rows: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str, bool]:
        """Which question it is of, and how it was asked."""
        return self.id, self.mark, self.blind


Records = dict[tuple[str, str, bool], Record]


@dataclass(frozen=True)
class Ran:
    """What a run did, blind questions counted by themselves.

    Attributes:
        questions: asked for.
        before: that had an answer already.
        answered: now.
        failed: without an answer; the same command tries them again.
    """

    questions: int
    before: int
    answered: int
    failed: int


def run(items: Sequence[Item], folder: Path, asker: Asker, blind: bool, told: Told) -> Ran:
    """Ask what is left.

    Args:
        items: the questions.
        folder: of the run.
        asker: who answers.
        blind: ask each of them without its video as well.
        told: questions done, of how many, and how it goes.

    Raises:
        ValueError: the folder holds another run, another process writes there, or many videos in a row failed.
        OSError: results cannot be written.
    """
    facts = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **asker.facts,
    }
    mark = begin_run(folder, asker.settings, facts, OTHERWISE)
    with appending(folder / RESULTS) as log:
        there = read_results(folder, mark)
        every = list(in_order(items, blind))
        left = [one for one in every if not _answered(there, *one)]
        failed, failing = 0, set[Path]()
        for number, (item, without) in enumerate(left, 1):
            record = _asked(asker, item, without, mark)
            log.add(asdict(record))
            if record.status == "error":
                failed += 1
                if (item.id, item.mark, without) not in there:  # what failed before says nothing new
                    failing.add(item.video)
            elif not without:  # from the text alone there is an answer, whatever is wrong with videos
                failing.clear()
            told(len(every) - len(left) + number, len(every), f"{failed} failed" if failed else "")
            if len(failing) == IN_A_ROW:
                raise ValueError(
                    f"questions about {IN_A_ROW} videos in a row failed, the last one: {record.error}; "
                    f"{number - failed} answers were recorded, and the same command goes on from there"
                )
    return Ran(len(every), len(every) - len(left), len(left) - failed, failed)


def in_order(items: Sequence[Item], blind: bool) -> Iterator[tuple[Item, bool]]:
    """Every question, with ``blind`` once more as such; those about one video follow each other."""
    groups: dict[object, list[Item]] = {}
    for item in items:
        groups.setdefault(item.look, []).append(item)
    for group in groups.values():
        yield from ((item, False) for item in group)
        if blind:
            yield from ((item, True) for item in group)


def read_results(folder: Path, mark: str | None = None) -> Records:
    """Every record of a run: of each question its answer if there is one, else its last error.

    Args:
        folder: of the run.
        mark: of the run that run.json tells of; None where nobody asks.

    Raises:
        ValueError: a damaged line, or results of several runs, or of another one.
    """
    found: Records = {}
    path, runs = folder / RESULTS, set[str]()
    for number, values in read_lines(path) if path.is_file() else ():
        try:
            record = Record(**values)
        except TypeError:
            raise damaged(path, number) from None
        runs.add(record.run)
        if record.key not in found or found[record.key].status == "error":
            found[record.key] = record
    if mark is not None and runs - {mark}:
        raise ValueError(
            f"{path} holds answers of another run than run.json tells of: name another folder, or remove it"
        )
    if len(runs) > 1:
        raise ValueError(f"{path} mixes results of {len(runs)} runs (other models or settings): keep them apart")
    return found


def _answered(there: Records, item: Item, blind: bool) -> bool:
    record = there.get((item.id, item.mark, blind))
    return record is not None and record.status == "ok"


def _asked(asker: Asker, item: Item, blind: bool, mark: str) -> Record:
    began = time.perf_counter()
    try:
        said = asker(item, blind)
    except Unanswered as error:
        seconds = round(time.perf_counter() - began, 3)
        return Record(item.id, item.mark, mark, blind, "error", error=str(error), seconds=seconds)
    seconds = round(time.perf_counter() - began, 3)
    return Record(item.id, item.mark, mark, blind, "ok", said.text, rows=said.rows, seconds=seconds)
