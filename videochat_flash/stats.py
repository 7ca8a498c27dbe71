"""Statistics of scores that are not independent: many questions are about one video, or about one thing in many."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
AT_ONCE = 500  # resamples in memory
NOISE = 1e-20  # variance that is rounding


def wilson(right: float, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Where a share truly lies, with 95 % confidence, when ``right`` of ``asked`` were seen."""
    if not asked:
        return 0.0, 1.0
    share, spread = right / asked, z * z / asked
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / asked + spread / (4 * asked))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Outcome:
    """One scored question.

    Attributes:
        cell: what it is averaged in first, such as (length, depth).
        cluster: what it shares with others, such as its video: questions of a cluster are drawn together.
        block: a second cluster, which crosses the first one.
        score: 0 to 1.
    """

    cell: tuple[float, ...]
    cluster: str
    block: int
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


def bootstrap(outcomes: Sequence[Outcome], rng: np.random.Generator, resamples: int = RESAMPLES) -> Mean:
    """The mean of cell means, by resampling clusters and, where there are several, blocks as well.

    Both are drawn anew with replacement, and a score counts as often as its cluster times its block was drawn.
    With one cluster nothing is known about others: then the interval is 0 to 1. Where all clusters are alike, it is
    Wilson's with a trial for each cluster: resampling alone would claim certainty.

    Raises:
        ValueError: nothing to average.
    """
    if not outcomes:
        raise ValueError("there is nothing to average: nothing was scored")
    cells = {name: i for i, name in enumerate(sorted({one.cell for one in outcomes}))}
    clusters = {name: i for i, name in enumerate(sorted({one.cluster for one in outcomes}))}
    blocks = {name: i for i, name in enumerate(sorted({one.block for one in outcomes}))}
    sums, counts = (np.zeros((len(blocks), len(clusters), len(cells))) for _ in range(2))
    for one in outcomes:
        place = blocks[one.block], clusters[one.cluster], cells[one.cell]
        sums[place] += one.score
        counts[place] += 1
    mean = float((sums.sum((0, 1)) / counts.sum((0, 1))).mean())
    if len(clusters) == 1:
        return Mean(mean, 0.0, 1.0, float(len(outcomes)), 1.0)
    drawn = _resampled(sums, counts, rng, resamples)
    single = float(np.var([one.score for one in outcomes])) / len(outcomes)
    if not single or drawn.var() < NOISE:  # all alike: resampling cannot tell, so each cluster counts as one trial
        count = len(clusters)
        return Mean(mean, *wilson(mean * count, count), len(outcomes) / count, float(count))
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    design = float(drawn.var() / single)
    return Mean(mean, low, high, design, len(outcomes) / design)


def _resampled(
    sums: NDArray[np.float64], counts: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Means of cell means of resamples; a cell of which nothing was drawn is left out of its mean."""
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
    """Two runs on the same questions.

    Attributes:
        difference: mean score of the first less that of the second.
        p: of a difference as large if runs could be swapped cluster by cluster; two-sided.
        trials: questions that both have answered.
        clusters: of them.
    """

    difference: float
    p: float
    trials: int
    clusters: int


def paired(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[str],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Difference:
    """A permutation test that swaps the two runs for whole clusters; exact where there are few of them.

    Raises:
        ValueError: no common question.
    """
    if not clusters:
        raise ValueError("the two runs share nothing that was scored: they cannot be compared")
    places = {name: i for i, name in enumerate(sorted(set(clusters)))}
    gains = np.zeros(len(places))
    for one, other, name in zip(first, second, clusters, strict=True):
        gains[places[name]] += one - other
    seen = abs(gains.sum())
    if 2 ** len(gains) <= resamples:
        signs = np.array(list(itertools.product((-1, 1), repeat=len(gains))))
        p = float((np.abs(signs @ gains) >= seen - 1e-9).mean())
    else:
        reached = 0
        for at in range(0, resamples, AT_ONCE):
            signs = rng.integers(0, 2, (min(AT_ONCE, resamples - at), len(gains))) * 2 - 1
            reached += int((np.abs(signs @ gains) >= seen - 1e-9).sum())
        p = (1 + reached) / (1 + resamples)
    return Difference(float(gains.sum() / len(clusters)), p, len(clusters), len(places))


def sample_size(one: float, other: float, power: float = 0.8, level: float = 0.05) -> int:
    """Independent items for each of two runs, to tell two shares apart (two-sided test, normal approximation)."""
    z_level, z_power = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    middle = (one + other) / 2
    spread = z_level * math.sqrt(2 * middle * (1 - middle))
    spread += z_power * math.sqrt(one * (1 - one) + other * (1 - other))
    return math.ceil((spread / (one - other)) ** 2)
