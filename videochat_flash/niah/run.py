"""Runs a suite: every trial that has no answer yet, and each answer is on disk before the next one is asked."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..journal import RUN, appending, begin_run, read_run, write_run
from ..remote import Refused, Unanswered
from .ask import Asker
from .results import Record, Shard, read_results
from .suite import Suite, Trial

IN_A_ROW = 10  # failures; then something is wrong with more than a trial
WHOLE = ("", "stop")  # why answers end that are all that was to be said
CUT = {"length": " (give it more with --max-new-tokens)"}  # what to do about others
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Ran:
    """What a run did.

    Attributes:
        trials: of the shard.
        before: that had an answer already.
        answered: now.
        failed: without an answer; the same command tries them again.
    """

    trials: int
    before: int
    answered: int
    failed: int


def run(suite: Suite, folder: Path, asker: Asker, shard: Shard, told: Progress) -> Ran:
    """Ask what is left of a shard, what failed before at last: it may fail again, and is to keep nothing else waiting.

    Many failures in a row end the run, but refusals (a film that is too long) only where nothing was answered so far.

    Args:
        suite: whose trials are run.
        folder: of the run; results of other shards may be in it.
        asker: who answers.
        shard: which trials.
        told: trials done, of how many, and how it goes.

    Raises:
        ValueError: the folder holds another run, another process writes this shard, or many trials in a row failed.
        OSError: results cannot be written.
    """
    mark, facts = _begun(suite, folder, asker)
    mine = [trial for trial in suite.trials if shard.holds(trial.id)]
    _renew(folder, facts)
    with appending(folder / shard.file, "wait for it, or take another --shard") as log:
        there = read_results(suite, folder, mark)
        again = [one for one in mine if one.id in there and there[one.id].status == "error"]
        left = [*in_order([one for one in mine if one.id not in there]), *in_order(again)]
        before, failed, in_a_row = len(mine) - len(left), 0, 0
        for number, trial in enumerate(left, 1):
            record, refused = _asked(asker, trial, suite.manifest, mark)
            log.add(asdict(record))
            failed += record.status == "error"
            if record.status == "ok":
                in_a_row = 0
            elif not refused or before + number == failed:
                in_a_row += 1
            told(before + number, len(mine), f"{failed} failed" if failed else "")
            if in_a_row == IN_A_ROW:
                raise ValueError(
                    f"{IN_A_ROW} trials in a row failed, the last one: {record.error}; "
                    f"{number - failed} answers were recorded, and the same command goes on from there"
                )
    return Ran(len(mine), before, len(left) - failed, failed)


def claim(suite: Suite, folder: Path, asker: Asker, shard: Shard) -> int:
    """How many trials of a shard are to be asked: known before haystacks are seen, or an endpoint is tried.

    Raises:
        ValueError: the folder holds another run.
    """
    mine = [trial.id for trial in suite.trials if shard.holds(trial.id)]
    if not (folder / RUN).is_file():
        return len(mine)
    there = read_results(suite, folder, _begun(suite, folder, asker)[0])
    return sum(one not in there or there[one].status == "error" for one in mine)


def _begun(suite: Suite, folder: Path, asker: Asker) -> tuple[str, dict[str, object]]:
    facts = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **{name: value for name, value in asker.facts.items() if value is not None},
    }
    return begin_run(folder, asker.settings, facts, "name this one with --name", manifest=suite.manifest), facts


def _renew(folder: Path, facts: Mapping[str, object]) -> None:
    """What is worth knowing, as of the last start; but an endpoint that was once not checked stays so."""
    there = read_run(folder)
    known = {**there["facts"], **{name: value for name, value in facts.items() if value is not None}}
    if there["facts"].get("delivery", known.get("delivery")) != known.get("delivery"):
        known["delivery"] = "not checked"
    if known != there["facts"]:
        write_run(folder, {**there, "facts": known})


def in_order(trials: list[Trial]) -> list[Trial]:
    """By haystack, length and film, so that what was seen is used as long as it is at hand."""
    return sorted(
        trials, key=lambda one: (one.haystack, one.length, one.item, one.depth or 0.0, repr(one.film), one.control)
    )


def _asked(asker: Asker, trial: Trial, manifest: str, mark: str) -> tuple[Record, bool]:
    """What came of it, and whether the asker will never answer it. A text that was cut off, or kept back, before its
    first word is no answer."""
    began = time.perf_counter()
    try:
        said = asker(trial)
        if not said.text.strip() and said.finish not in WHOLE:
            raise Unanswered(f"the answer ended before its first word: {said.finish}{CUT.get(said.finish, '')}")
    except Unanswered as error:
        seconds = round(time.perf_counter() - began, 3)
        record = Record(trial.id, manifest, mark, "error", error=_storable(str(error)), seconds=seconds)
        return record, isinstance(error, Refused)
    seconds = round(time.perf_counter() - began, 3)
    text = _storable(said.text)
    return Record(trial.id, manifest, mark, "ok", text, finish=said.finish, rows=said.rows, seconds=seconds), False


def _storable(text: str) -> str:
    """A text as UTF-8 can hold it: an endpoint may send half a character."""
    return text.encode("utf-8", "replace").decode()
