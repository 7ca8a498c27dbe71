"""Scores: grid and chains with their uncertainty, controls, and what could not be scored (specification, 3.9, 3.10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..grade import LETTERS, option
from ..stats import Outcome, wilson
from . import compat, stats
from .results import Record
from .suite import Suite, Trial, deviations

Facts = dict[str, Any]
RIGHT, WRONG, UNPARSED, EMPTY = "right", "wrong", "unparsed", "empty"
CONTROLS = {
    "C0": "blind: the text alone",
    "C1": "haystack without needle",
    "C2": "needle alone",
    "C3": "another item's needle",
    "C5": "chain broken: one indicator removed",
    "C6": "last card only",
    "C7": "asked from a decoy's start; right is the decoy's end",
}


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


def summary(suite: Suite, records: Mapping[str, Record], run: Mapping[str, Any]) -> Facts:
    """Everything that can be said of a run, as JSON holds it.

    Raises:
        ValueError: no trial was answered.
    """
    every = scored(suite, records)
    if not every:
        failed = [one.error for one in records.values() if one.status == "error"]
        last = f"; the last error: {failed[-1]}" if failed else ""
        raise ValueError(f"no trial of {suite.folder} was answered: there is nothing to score{last}")
    main = [one for one in every if not one.trial.control]
    single = [one for one in main if one.trial.suite == "single"]
    chains = chains_of(one for one in main if one.trial.suite == "multi")
    seed = suite.setting.seed
    facts: Facts = {
        "accuracy": None,
        "mode": suite.setting.mode,
        "flags": [*suite.setting.flags, *_flags(run)],
        "deviations": list(deviations(suite.setting)),
        "counts": _counts(suite, records, every),
        "single": _single(single, seed) if single else None,
        "multi": _multi(chains, seed) if chains else None,
        "controls": _controls(every),
        "run": dict(run),
        "suite": {"manifest": suite.manifest, "setting": asdict(suite.setting), "haystacks": list(suite.stacks)},
        "lines": {
            "trained": run["facts"].get("trained"),
            "window": run["facts"].get("window"),
            "unique": suite.unique,
        },
        "power": stats.power_table(),
    }
    facts["accuracy"] = (
        facts["single"]["mean"]["mean"] if single else facts["multi"]["joint"]["mean"] if chains else None
    )
    return facts


def _flags(run: Mapping[str, Any]) -> list[str]:
    """Choices of a run that make its figures incomparable with others."""
    settings = run["settings"]
    told = [f"transport={settings['transport']}"] if settings["transport"] != "splice" else []
    told += [f"yarn={settings['yarn']}"] if settings.get("yarn", 1.0) != 1.0 else []
    if "keep" in settings:
        drops = ",".join(f"{layer}:{ratio:g} by {by}" for layer, ratio, by in settings["keep"])
        told.append(f"keep={drops or 'off'}")
    delivery = run["facts"].get("delivery")
    return [*told, f"delivery={delivery}"] if delivery and delivery != "passed" else told


def _counts(suite: Suite, records: Mapping[str, Record], every: Sequence[Scored]) -> Facts:
    verdicts = Counter(one.verdict for one in every)
    errors = [one for one in records.values() if one.status == "error"]
    return {
        "trials": len(suite.trials),
        "answered": len(every),
        "errors": len(errors),
        "missing": len(suite.trials) - len(records),
        "cut": sum(one.status == "ok" and one.finish == "length" for one in records.values()),
        **{name: verdicts[name] for name in (RIGHT, WRONG, UNPARSED, EMPTY)},
        "error_kinds": dict(Counter(one.error for one in errors).most_common(5)),
        "seconds": round(sum(one.seconds for one in records.values()), 1),
    }


def _single(some: Sequence[Scored], seed: int) -> Facts:
    outcomes = [
        Outcome((one.trial.length, one.trial.depth or 0.0), one.trial.item, one.trial.haystack, float(one.right))
        for one in some
    ]
    rotations = max(one.trial.rotation for one in some) + 1
    turned: dict[tuple[object, ...], list[bool]] = {}
    for one in some:
        turned.setdefault((one.trial.item, one.trial.length, one.trial.depth), []).append(one.right)
    full = [all(right) for right in turned.values() if len(right) == rotations]
    return {
        "mean": asdict(stats.mean_of(outcomes, seed)),
        "chance": sum(one.trial.guess for one in some) / len(some),
        "cells": [_cell(cell, part, ("length", "depth")) for cell, part in _grouped(outcomes).items()],
        "by_length": [_margin(outcomes, 0, at, seed) for at in sorted({one.cell[0] for one in outcomes})],
        "by_depth": [_margin(outcomes, 1, at, seed) for at in sorted({one.cell[1] for one in outcomes})],
        "reliable_length": stats.reliable_length(outcomes),
        "reliable_needs": stats.least_items(),
        "all_rotations": sum(full) / len(full) if rotations > 1 and full else None,
    }


def _grouped(outcomes: Sequence[Outcome]) -> dict[tuple[float, ...], list[Outcome]]:
    groups: dict[tuple[float, ...], list[Outcome]] = {}
    for one in sorted(outcomes, key=lambda one: one.cell):
        groups.setdefault(one.cell, []).append(one)
    return groups


def _cell(cell: tuple[float, ...], some: Sequence[Outcome], names: Sequence[str]) -> Facts:
    return {**dict(zip(names, cell, strict=True)), **_share([one.score for one in some])}


def _share(scores: Sequence[float]) -> Facts:
    """A share with its Wilson interval."""
    right = sum(scores)
    low, high = wilson(right, len(scores))
    share = right / len(scores) if scores else None
    return {"right": int(right), "asked": len(scores), "accuracy": share, "low": low, "high": high}


def _margin(outcomes: Sequence[Outcome], axis: int, at: float, seed: int) -> Facts:
    """The mean over one row or column of the grid."""
    some = [one for one in outcomes if one.cell[axis] == at]
    return {("length", "depth")[axis]: at, "trials": len(some), **asdict(stats.mean_of(some, seed))}


def _multi(chains: Sequence[Chain], seed: int) -> Facts:
    def outcomes(scores: Sequence[tuple[Chain, bool]]) -> list[Outcome]:
        return [Outcome((c.trial.length, c.trial.hops), c.trial.item, c.trial.haystack, float(s)) for c, s in scores]

    joint = outcomes([(one, one.joint) for one in chains])
    captioned = [one for one in chains if one.cap is not None]
    both = {
        "both right": sum(one.joint for one in captioned),
        "only cap right": sum(one.cap is True and not one.qa for one in captioned),
        "only qa right": sum(one.cap is False and one.qa for one in captioned),
        "both wrong": sum(one.cap is False and not one.qa for one in captioned),
    }
    located = [one for one in captioned if one.cap]
    return {
        "joint": asdict(stats.mean_of(joint, seed)),
        "chance": sum(one.trial.guess for one in chains) / len(chains),
        "cap": _share([float(bool(one.cap)) for one in captioned]),
        "qa": _share([float(one.qa) for one in captioned]),
        "qa_joint": _share([float(one.joint) for one in captioned]),
        "qa_given_cap": _share([float(one.qa) for one in located]),
        "mean_of_cap_and_qa": _half(captioned),
        "counts": both,
        "cells": [_cell(cell, part, ("length", "hops")) for cell, part in _grouped(joint).items()],
    }


def _half(chains: Sequence[Chain]) -> float | None:
    """The reference's Score: the mean of CAP and QA, each for itself."""
    return sum((one.cap is True) + one.qa for one in chains) / (2 * len(chains)) if chains else None


def _controls(every: Sequence[Scored]) -> Facts:
    """For each suite: every control's share, what the whole film gives for the same items, and what follows."""
    told: Facts = {}
    for suite in ("single", "multi"):
        own = [one for one in every if one.trial.suite == suite]
        named = [one for one in own if one.trial.control]
        if not named:
            continue
        shares = {
            name: _share(_units(own, name)) for name in CONTROLS if any(one.trial.control == name for one in named)
        }
        places = {(one.trial.item, one.trial.length) for one in named}
        full = _share(_units([one for one in own if (one.trial.item, one.trial.length) in places], ""))
        told[suite] = {"shares": shares, "full": full, **_follows(shares, full)}
    return told


def _units(some: Sequence[Scored], control: str) -> list[float]:
    """Scores of one control: of chains as a whole, of single needles one by one."""
    own = [one for one in some if one.trial.control == control]
    if own and own[0].trial.suite == "multi":
        return [float(one.joint) for one in chains_of(own)]
    return [float(one.right) for one in own]


def _follows(shares: Mapping[str, Facts], full: Facts) -> Facts:
    """Chain necessity, and the score between blind and ceiling."""
    reached = full["accuracy"]
    values = {name: shares[name]["accuracy"] if name in shares else None for name in ("C0", "C2", "C5")}
    blind, ceiling, broken = values["C0"], values["C2"], values["C5"]
    necessity = None if reached is None or broken is None else reached - broken
    between = None
    if reached is not None and blind is not None and ceiling is not None and ceiling > blind:
        between = (reached - blind) / (ceiling - blind)
    return {"chain_necessity": necessity, "blind_adjusted": between}


def compared(first: Sequence[Scored], second: Sequence[Scored], seed: int) -> Facts:
    """Two runs of one suite on the trials that both have answered.

    Raises:
        ValueError: there is none.
    """
    other = {one.trial.id: one for one in second if not one.trial.control}
    both = [(one, other[one.trial.id]) for one in first if one.trial.id in other]
    scores = [(float(one.right), float(two.right)) for one, two in both]
    names = [one.trial.item for one, _ in both]
    told = stats.difference([a for a, _ in scores], [b for _, b in scores], names, seed)
    return asdict(told)
