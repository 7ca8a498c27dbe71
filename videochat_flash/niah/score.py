"""Scores: grid and chains with their uncertainty, controls, and what could not be scored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..grade import EMPTY, RIGHT, UNPARSED, WRONG
from ..stats import Outcome, wilson
from . import stats
from .results import Record, flags_of
from .suite import Suite, Trial, deviations
from .verdicts import Chain, Scored, chains_of, scored

Facts = dict[str, Any]
KINDS = ("single", "multi")
CONTROLS = {
    "C0": "blind: the text alone",
    "C1": "haystack without needle",
    "C2": "needle alone",
    "C3": "another item's needle",
    "C5": "chains broken: an indicator of each removed",
    "C6": "last card only",
    "C7": "asked from a decoy's start; right is the decoy's end",
}


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
    grids = {name: [one for one in suite.trials if one.suite == name and not one.control] for name in KINDS}
    chains = chains_of(one for one in main if one.trial.suite == "multi")
    seed = suite.setting.seed
    facts: Facts = {
        "accuracy": None,
        "incomplete": 0,
        "mode": suite.setting.mode,
        "flags": [*suite.setting.flags, *flags_of(run)],
        "deviations": list(deviations(suite.setting)),
        "counts": _counts(suite, records, every),
        "single": _single(grids["single"], single, seed) if grids["single"] else None,
        "multi": _multi(grids["multi"], chains, seed, bool(suite.setting.needles)) if grids["multi"] else None,
        "by_haystack": _by_haystack(suite, grids, single, chains),
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
    headline = facts["single"]["mean"] if facts["single"] else facts["multi"]["joint"]
    facts["accuracy"], facts["incomplete"] = headline["mean"], headline["incomplete"]
    return facts


def _by_haystack(
    suite: Suite, grids: Mapping[str, Sequence[Trial]], single: Sequence[Scored], chains: Sequence[Chain]
) -> list[Facts]:
    """The means over what was asked in each of several haystacks."""
    seed, listed, told = suite.setting.seed, bool(suite.setting.needles), []
    for number in range(len(suite.stacks) if len(suite.stacks) > 1 else 0):
        own = {name: [one for one in grid if one.haystack == number] for name, grid in grids.items()}
        found = [one for one in single if one.trial.haystack == number]
        followed = [one for one in chains if one.trial.haystack == number]
        told.append(
            {
                "single": _single(own["single"], found, seed)["mean"] if own["single"] else None,
                "multi": _multi(own["multi"], followed, seed, listed)["joint"] if own["multi"] else None,
            }
        )
    return told


def _counts(suite: Suite, records: Mapping[str, Record], every: Sequence[Scored]) -> Facts:
    """What came of all trials, and of those of the grid and of controls, where wrong answers are to be expected."""
    errors = Counter(one.error for one in records.values() if one.status == "error")
    return {
        **_tally(suite.trials, records, every),
        "grid": _tally([one for one in suite.trials if not one.control], records, every),
        "controls": _tally([one for one in suite.trials if one.control], records, every),
        "error_kinds": dict(errors.most_common(5)),
        "seconds": round(sum(one.seconds for one in records.values()), 1),
    }


def _tally(trials: Sequence[Trial], records: Mapping[str, Record], every: Sequence[Scored]) -> Facts:
    names = {one.id for one in trials}
    own = [record for record in records.values() if record.id in names]
    verdicts = Counter(one.verdict for one in every if one.trial.id in names)
    return {
        "trials": len(trials),
        "answered": verdicts.total(),
        "errors": sum(one.status == "error" for one in own),
        "missing": len(trials) - len(own),
        "cut": sum(one.status == "ok" and one.finish == "length" for one in own),
        **{name: verdicts[name] for name in (RIGHT, WRONG, UNPARSED, EMPTY)},
    }


def _units(scores: Iterable[tuple[Trial, float]]) -> list[tuple[Trial, float]]:
    """A score for each item in each film: the mean over the orders of its letters, which tell of one thing."""
    groups: dict[tuple[object, ...], list[tuple[Trial, float]]] = {}
    for trial, score in scores:
        groups.setdefault((trial.item, trial.length, trial.depth), []).append((trial, score))
    return [(some[0][0], sum(score for _, score in some) / len(some)) for some in groups.values()]


def _outcomes(scores: Iterable[tuple[Trial, float]], *axes: str) -> list[Outcome]:
    return [Outcome(_cell_of(trial, axes), trial.item, trial.haystack, score) for trial, score in _units(scores)]


def _cell_of(trial: Trial, axes: Sequence[str]) -> tuple[float, ...]:
    values = {"length": trial.length, "depth": trial.depth or 0.0, "hops": trial.hops}
    return tuple(values[axis] for axis in axes)


def _single(grid: Sequence[Trial], some: Sequence[Scored], seed: int) -> Facts:
    outcomes = _outcomes(((one.trial, float(one.right)) for one in some), "length", "depth")
    expected = sorted({_cell_of(trial, ("length", "depth")) for trial in grid})
    orders = Counter[tuple[object, ...]]((trial.item, trial.length, trial.depth) for trial in grid)
    turned: dict[tuple[object, ...], list[bool]] = {}
    for one in some:
        turned.setdefault((one.trial.item, one.trial.length, one.trial.depth), []).append(one.right)
    full = [all(right) for place, right in turned.items() if len(right) == orders[place]]
    return {
        "mean": _mean(outcomes, expected, seed),
        "chance": sum(trial.guess for trial in grid) / len(grid),
        "cells": _cells(outcomes, expected, ("length", "depth")),
        "by_length": _margins(outcomes, expected, 0, seed),
        "by_depth": _margins(outcomes, expected, 1, seed),
        "reliable_length": stats.reliable_length(outcomes, expected),
        "reliable_needs": stats.least_items(),
        "all_rotations": sum(full) / len(full) if max(orders.values()) > 1 and full else None,
    }


def _mean(outcomes: Sequence[Outcome], expected: Sequence[tuple[float, ...]], seed: int) -> Facts:
    """The mean of cell means with its uncertainty, and how many cells of the grid it leaves out for want of answers."""
    missing = len(set(expected) - {one.cell for one in outcomes})
    unknown = {"mean": None, "low": 0.0, "high": 1.0, "design": None, "effective": 0.0}
    known = asdict(stats.mean_of(outcomes, seed)) if outcomes else unknown
    return {**known, "incomplete": missing}


def _cells(outcomes: Sequence[Outcome], expected: Sequence[tuple[float, ...]], names: Sequence[str]) -> list[Facts]:
    groups: dict[tuple[float, ...], list[float]] = {cell: [] for cell in expected}
    for one in outcomes:
        groups[one.cell].append(one.score)
    return [{**dict(zip(names, cell, strict=True)), **_share(scores)} for cell, scores in groups.items()]


def _share(scores: Sequence[float]) -> Facts:
    """A share with its Wilson interval, of scores that are independent: one for each item."""
    right = sum(scores)
    low, high = wilson(right, len(scores))
    share = right / len(scores) if scores else None
    return {"right": right, "asked": len(scores), "accuracy": share, "low": low, "high": high}


def _margins(outcomes: Sequence[Outcome], expected: Sequence[tuple[float, ...]], axis: int, seed: int) -> list[Facts]:
    """The means over the rows or the columns of the grid."""
    told = []
    for at in sorted({cell[axis] for cell in expected}):
        some = [one for one in outcomes if one.cell[axis] == at]
        mean = _mean(some, [cell for cell in expected if cell[axis] == at], seed)
        told.append({("length", "depth")[axis]: at, "trials": len(some), **mean})
    return told


def _multi(grid: Sequence[Trial], chains: Sequence[Chain], seed: int, listed: bool) -> Facts:
    pointed = [] if listed else [one for one in grid if one.hops]  # needles without a pointer are there to compare with
    joint = [(one.trial, float(one.joint)) for one in chains]
    followed = [(trial, score) for trial, score in joint if trial.hops or not pointed]
    cells, lengths = (sorted({_cell_of(trial, axes) for trial in grid}) for axes in (("length", "hops"), ("length",)))
    captioned = [one for one in chains if one.cap is not None]
    by_length = [[one for one in captioned if one.trial.length == length] for (length,) in lengths]
    return {
        "joint": _mean(_outcomes(followed, "length"), lengths, seed),
        "pointers": any(one.hops for one in grid),
        "chance": _guessed(pointed or grid, listed),
        **{name: _pooled(scores, seed) for name, scores in _asked(captioned).items()},
        **_together(captioned),
        "by_length": [
            {
                "length": length,
                **{name: _share([s for _, s in _units(scores)]) for name, scores in _asked(some).items()},
                **_together(some),
            }
            for (length,), some in zip(lengths, by_length, strict=True)
        ],
        "cells": _cells(_outcomes(joint, "length", "hops"), cells, ("length", "hops")),
    }


def _guessed(grid: Sequence[Trial], listed: bool) -> float:
    """How often one is right in all that is asked of a chain who takes any chain's end for the true one; of official
    lists, whose questions are about no chain but the true one, who guesses each answer by itself."""
    groups: dict[tuple[object, ...], list[float]] = {}
    for trial in grid:
        groups.setdefault((trial.item, trial.length, trial.rotation), []).append(trial.guess)
    return sum(math.prod(some) if listed else min(some) for some in groups.values()) / len(groups)


def _asked(captioned: Sequence[Chain]) -> dict[str, list[tuple[Trial, float]]]:
    """What the paper and the reference tell of chains: scores by their names."""
    return {
        "cap": [(one.trial, float(one.cap is True)) for one in captioned],
        "qa": [(one.trial, float(one.qa)) for one in captioned],
        "qa_joint": [(one.trial, float(one.joint)) for one in captioned],
        "qa_given_cap": [(one.trial, float(one.qa)) for one in captioned if one.cap],
    }


def _pooled(scores: Sequence[tuple[Trial, float]], seed: int) -> Facts:
    """A share over all lengths, as uncertain as its chains are few; ``asked`` counts these."""
    outcomes = _outcomes(scores)
    mean = _mean(outcomes, [()], seed)
    asked = len({one.cluster for one in outcomes})
    return {"asked": asked, "accuracy": mean["mean"], "low": mean["low"], "high": mean["high"]}


def _together(captioned: Sequence[Chain]) -> Facts:
    """The reference's Score, the mean of CAP and QA each for itself, and its counts."""
    right = sum((one.cap is True) + one.qa for one in captioned)
    return {
        "mean_of_cap_and_qa": right / (2 * len(captioned)) if captioned else None,
        "counts": {
            "both right": sum(one.joint for one in captioned),
            "only cap right": sum(one.cap is True and not one.qa for one in captioned),
            "only qa right": sum(one.cap is False and one.qa for one in captioned),
            "both wrong": sum(one.cap is False and not one.qa for one in captioned),
        },
    }


def _controls(every: Sequence[Scored]) -> Facts:
    """For each suite: every control's share, what the whole film gives for the same items, and what follows."""
    told: Facts = {}
    for suite in KINDS:
        own = [one for one in every if one.trial.suite == suite]
        values = {name: _placed(own, name) for name in CONTROLS}
        values = {name: scores for name, scores in values.items() if scores}
        if not values:
            continue
        whole = _placed(own, "")
        shares = {
            name: {
                **_share(list(scores.values())),
                "whole": _share([whole[place] for place in scores if place in whole]),
            }
            for name, scores in values.items()
        }
        places = dict.fromkeys(place for scores in values.values() for place in scores)
        full = _share([whole[place] for place in places if place in whole])
        told[suite] = {"shares": shares, "full": full, **_follows(values, whole)}
    return told


Placed = dict[tuple[object, ...], float]  # scores by what is asked about, and where


def _placed(some: Sequence[Scored], control: str) -> Placed:
    """Scores of one control, or of none: of chains as a whole, of single needles one by one."""
    own = [one for one in some if one.trial.control == control]
    if own and own[0].trial.suite == "multi":
        scores = [(one.trial, float(one.joint)) for one in chains_of(own)]
    else:
        scores = [(one.trial, float(one.right)) for one in own]
    return {(trial.item, trial.length, trial.depth): score for trial, score in _units(scores)}


def _follows(values: Mapping[str, Placed], whole: Placed) -> Facts:
    """Chain necessity, and the score between blind and ceiling; each on the items that have all that it needs."""
    necessity = between = None
    if (means := _means(whole, values.get("C5", {}))) is not None:
        necessity = means[0] - means[1]
    if (means := _means(whole, values.get("C0", {}), values.get("C2", {}))) is not None:
        reached, blind, ceiling = means
        between = (reached - blind) / (ceiling - blind) if ceiling > blind else None
    return {"chain_necessity": necessity, "blind_adjusted": between}


def _means(*some: Placed) -> list[float] | None:
    """Means over what all of them have."""
    common = set(some[0]).intersection(*some[1:])
    return [sum(one[place] for place in common) / len(common) for one in some] if common else None


def compared(first: Sequence[Scored], second: Sequence[Scored], seed: int) -> list[Facts]:
    """Two runs of one suite on what both have answered: single needles, chains of each number of hops, and all of it.

    What is compared is an item in a film, over all orders of its letters: of a single needle whether it was told, of a
    chain whether everything was. Items are what the permutation test swaps, since they alone are independent.

    Raises:
        ValueError: there is nothing that both have answered.
    """
    common = {one.trial.id for one in first} & {one.trial.id for one in second}
    one, other = (_by_part([told for told in run if told.trial.id in common]) for run in (first, second))
    parts = {name: list(scores) for name, scores in one.items()}
    told = [{"part": name, **_difference(one[name], other[name], parts[name], seed)} for name in parts]
    if len(parts) > 1:
        every = [place for places in parts.values() for place in places]
        both = [{place: score for some in run.values() for place, score in some.items()} for run in (one, other)]
        told.append({"part": "all", **_difference(both[0], both[1], every, seed)})
    if not told:
        raise ValueError("the two runs share nothing that was scored: they cannot be compared")
    return told


def _by_part(some: Sequence[Scored]) -> dict[str, Placed]:
    """Scores of the grid, apart where they mean different things."""
    grid = [one for one in some if not one.trial.control]
    hops = sorted({one.trial.hops for one in grid if one.trial.suite == "multi"})
    parts = {"single-hop": _placed([one for one in grid if one.trial.suite == "single"], "")}
    for count in hops:
        own = [one for one in grid if one.trial.suite == "multi" and one.trial.hops == count]
        parts[f"chains, {count} {'hop' if count == 1 else 'hops'}"] = _placed(own, "")
    return {name: scores for name, scores in parts.items() if scores}


def _difference(one: Placed, other: Placed, places: Sequence[tuple[object, ...]], seed: int) -> Facts:
    """The first run's scores less the second's, item by item."""
    items = [str(item) for item, *_ in places]
    return asdict(stats.difference([one[at] for at in places], [other[at] for at in places], items, seed))
