"""What the trials of a suite tell as a whole: how long is reliable, how many items it takes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..stats import RESAMPLES, Difference, Mean, Outcome, bootstrap, paired, sample_size, wilson
from .draws import rng_of

RELIABLE = 0.90  # the lower bound that every cell must reach
POWER_PAIRS = ((0.25, 0.33), (0.25, 0.30), (0.50, 0.60), (0.80, 0.90), (0.90, 0.95), (0.95, 0.99))


def mean_of(outcomes: Sequence[Outcome], seed: int) -> Mean:
    """The grid's mean, by resampling needles (clusters) and haystacks (blocks)."""
    return bootstrap(outcomes, rng_of(seed, "bootstrap", RESAMPLES))


def difference(first: Sequence[float], second: Sequence[float], items: Sequence[str], seed: int) -> Difference:
    """Two runs on the same films, compared item by item."""
    return paired(first, second, items, rng_of(seed, "permutation", RESAMPLES))


def reliable_length(
    outcomes: Sequence[Outcome], grid: Sequence[tuple[float, ...]], least: float = RELIABLE
) -> float | None:
    """The longest length at which, as at all shorter ones, every cell's lower Wilson bound is at least ``least``.

    The first number of a cell is its length. Nothing is known of a cell of the grid without an outcome: its bound is 0.
    None where even the shortest length fails.
    """
    cells: dict[tuple[float, ...], list[float]] = {cell: [] for cell in grid}
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


def power_table() -> list[tuple[float, float, int]]:
    """Pairs of shares with the items that it takes to tell them apart."""
    return [(one, other, sample_size(one, other)) for one, other in POWER_PAIRS]
