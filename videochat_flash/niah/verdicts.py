"""What an answer was worth, and chains of answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..grade import EMPTY, LETTERS, RIGHT, UNPARSED, WRONG, option
from . import compat
from .results import Record
from .suite import Suite, Trial


@dataclass(frozen=True)
class Scored:
    """A trial with what its answer was worth."""

    trial: Trial
    verdict: str

    @property
    def right(self) -> bool:
        """Whether it is the right answer."""
        return self.verdict == RIGHT


@dataclass(frozen=True)
class Chain:
    """All that was asked about one chain in one film.

    Attributes:
        trial: any of its trials.
        cap: whether what the last frame shows was told right; None where it is not asked.
        qa: whether the detail was.
    """

    trial: Trial
    cap: bool | None
    qa: bool

    @property
    def joint(self) -> bool:
        """Whether all of it is right: the paper's QA."""
        return self.cap is not False and self.qa


def verdict(trial: Trial, text: str) -> str:
    """``right``, ``wrong``, ``unparsed`` or ``empty``; all but the first count as not right."""
    if trial.mode == "compat":
        return RIGHT if compat.right(text, LETTERS[trial.answer]) else WRONG
    if not text.strip():
        return EMPTY
    found = option(text, trial.options, trial.lettered)
    return UNPARSED if found is None else RIGHT if found == trial.answer else WRONG


def scored(suite: Suite, records: Mapping[str, Record]) -> list[Scored]:
    """Every trial that was answered; errors are none."""
    done = ((one, records[one.id]) for one in suite.trials if one.id in records)
    return [Scored(trial, verdict(trial, record.text)) for trial, record in done if record.status == "ok"]


def chains_of(some: Iterable[Scored]) -> list[Chain]:
    """Chains of which every question was answered."""
    groups: dict[tuple[object, ...], list[Scored]] = {}
    for one in some:
        trial = one.trial
        groups.setdefault((trial.item, trial.length, trial.rotation, trial.control), []).append(one)
    whole = []
    for group in groups.values():
        kinds = {one.trial.kind: one for one in group}
        caps = [one.right for one in kinds.values() if one.trial.role == "cap"]
        qas = [one.right for one in kinds.values() if one.trial.role == "qa"]
        if len(kinds) == group[0].trial.asked and qas:
            whole.append(Chain(group[0].trial, all(caps) if caps else None, all(qas)))
    return whole
