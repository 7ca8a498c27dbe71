"""Statistics of trials that are not independent: the same needle is asked many times (specification, 3.10)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..grade import wilson
from .draws import rng_of

RESAMPLES = 10_000
AT_ONCE = 500  # resamples in memory
RELIABLE = 0.90  # the lower bound that every cell must reach
POWER_PAIRS = ((0.25, 0.33), (0.25, 0.30), (0.50, 0.60), (0.80, 0.90), (0.90, 0.95), (0.95, 0.99))


@dataclass(frozen=True)
class Outcome:
    """One scored trial.

    Attributes:
        cell: what it is averaged in first, such as (length, depth).
        needle: its cluster; the same needle is asked in many cells.
        haystack: its other cluster.
        score: 0 or 1.
    """

    cell: tuple[float, ...]
    needle: str
    haystack: int
    score: float


@dataclass(frozen=True)
class Mean:
    """A mean of cell means with its uncertainty.

    Attributes:
        mean: unweighted over cells.
        low: 2.5 % of resamples are below.
        high: 2.5 % are above.
        design: how many times the variance is that of independent trials.
        effective: independent trials that would tell as much.
    """

    mean: float
    low: float
    high: float
    design: float
    effective: float


def cell_means(outcomes: Sequence[Outcome]) -> dict[tuple[float, ...], float]:
    """The mean of each cell, in order."""
    cells: dict[tuple[float, ...], list[float]] = {}
    for one in outcomes:
        cells.setdefault(one.cell, []).append(one.score)
    return {cell: sum(scores) / len(scores) for cell, scores in sorted(cells.items())}


def bootstrap(outcomes: Sequence[Outcome], seed: int = 0, resamples: int = RESAMPLES) -> Mean:
    """The mean of cell means, by resampling needles and, where there are several, haystacks as well.

    Both are drawn anew with replacement, and a trial counts as often as its needle times its haystack was drawn.
    With one needle nothing is known about others: then the interval is 0 to 1. Where all needles are alike, it is
    Wilson's with a trial for each needle: resampling alone would claim certainty.

    Raises:
        ValueError: nothing to average.
    """
    if not outcomes:
        raise ValueError("there is nothing to average: no trial was scored")
    cells = {name: i for i, name in enumerate(sorted({one.cell for one in outcomes}))}
    needles = {name: i for i, name in enumerate(sorted({one.needle for one in outcomes}))}
    stacks = {name: i for i, name in enumerate(sorted({one.haystack for one in outcomes}))}
    sums, counts = (np.zeros((len(stacks), len(needles), len(cells))) for _ in range(2))
    for one in outcomes:
        place = stacks[one.haystack], needles[one.needle], cells[one.cell]
        sums[place] += one.score
        counts[place] += 1
    mean = float((sums.sum((0, 1)) / counts.sum((0, 1))).mean())
    if len(needles) == 1:
        return Mean(mean, 0.0, 1.0, float(len(outcomes)), 1.0)
    drawn = _resampled(sums, counts, seed, resamples)
    single = mean * (1 - mean) / len(outcomes)
    if not single or not drawn.var():  # all alike: resampling cannot tell, so each needle counts as one trial
        return Mean(mean, *wilson(mean * len(needles), len(needles)), len(outcomes) / len(needles), float(len(needles)))
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    design = float(drawn.var() / single)
    return Mean(mean, low, high, design, len(outcomes) / design)


def _resampled(
    sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int, resamples: int
) -> NDArray[np.float64]:
    """Grid means of resamples; a cell of which nothing was drawn is left out of its mean."""
    rng = rng_of(seed, "bootstrap", resamples)
    means = []
    for at in range(0, resamples, AT_ONCE):
        count = min(AT_ONCE, resamples - at)
        many = [rng.multinomial(n, np.full(n, 1 / n), size=count) for n in sums.shape[:2]]
        weights = many[0][:, :, None] * many[1][:, None, :] if sums.shape[0] > 1 else many[1][:, None, :]
        top, bottom = (np.tensordot(weights, table, 2) for table in (sums, counts))
        share = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
        means.append(np.nanmean(share[~np.isnan(share).all(1)], axis=1))
    return np.concatenate(means)


@dataclass(frozen=True)
class Difference:
    """Two runs on the same trials.

    Attributes:
        difference: mean score of the first less that of the second.
        p: of a difference as large if runs could be swapped needle by needle; two-sided.
        trials: that both have answered.
        needles: clusters.
    """

    difference: float
    p: float
    trials: int
    needles: int


def paired(
    first: Sequence[float], second: Sequence[float], needles: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """A permutation test that swaps the two runs for whole needles; exact where there are few of them.

    Raises:
        ValueError: no common trial.
    """
    if not needles:
        raise ValueError("the two runs share no scored trial: they cannot be compared")
    places = {name: i for i, name in enumerate(sorted(set(needles)))}
    gains = np.zeros(len(places))
    for one, other, name in zip(first, second, needles, strict=True):
        gains[places[name]] += one - other
    seen = abs(gains.sum())
    if 2 ** len(gains) <= resamples:
        signs = np.array(list(itertools.product((-1, 1), repeat=len(gains))))
        p = float((np.abs(signs @ gains) >= seen - 1e-9).mean())
    else:
        rng = rng_of(seed, "permutation", resamples)
        totals = np.abs((rng.integers(0, 2, (resamples, len(gains))) * 2 - 1) @ gains)
        p = float((1 + (totals >= seen - 1e-9).sum()) / (1 + resamples))
    return Difference(float(gains.sum() / len(needles)), p, len(needles), len(places))


def reliable_length(outcomes: Sequence[Outcome], least: float = RELIABLE) -> float | None:
    """The longest length at which, as at all shorter ones, every cell's lower Wilson bound is at least ``least``.

    The first number of a cell is its length. None where even the shortest one fails.
    """
    cells: dict[tuple[float, ...], list[float]] = {}
    for one in outcomes:
        cells.setdefault(one.cell, []).append(one.score)
    reached = None
    for length in sorted({cell[0] for cell in cells}):
        bounds = [wilson(sum(v), len(v))[0] for cell, v in cells.items() if cell[0] == length]
        if min(bounds) < least:
            return reached
        reached = length
    return reached


def least_items(least: float = RELIABLE) -> int:
    """Items without a mistake that a cell needs for its lower bound to reach ``least``."""
    return next(n for n in itertools.count(1) if wilson(n, n)[0] >= least)


def sample_size(one: float, other: float, power: float = 0.8, level: float = 0.05) -> int:
    """Independent items for each of two runs, to tell two shares apart (two-sided test, normal approximation)."""
    z_level, z_power = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    middle = (one + other) / 2
    spread = z_level * math.sqrt(2 * middle * (1 - middle))
    spread += z_power * math.sqrt(one * (1 - one) + other * (1 - other))
    return math.ceil((spread / (one - other)) ** 2)


def power_table() -> list[tuple[float, float, int]]:
    """Pairs of shares with the items that it takes to tell them apart."""
    return [(one, other, sample_size(one, other)) for one, other in POWER_PAIRS]
