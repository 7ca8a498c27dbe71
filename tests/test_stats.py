"""Statistics: intervals of shares and of scores that belong together, comparisons of two runs."""

from __future__ import annotations

import numpy as np
import pytest

from videochat_flash import stats
from videochat_flash.stats import Outcome


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (485, 500, 0.9512, 0.9817),
        (0, 0, 0, 1),
        (2379, 2400, 0.987, 0.994),
        (20, 20, 0.839, 1.0),
        *((20, 100, 0.133, 0.289), (25, 100, 0.175, 0.343), (33, 100, 0.246, 0.427), (35, 100, 0.264, 0.447)),
        *((60, 100, 0.502, 0.691), (7, 100, 0.034, 0.137), (18, 100, 0.117, 0.267), (27, 100, 0.193, 0.364)),
        *((31, 100, 0.228, 0.406), (54, 100, 0.443, 0.634)),
    ],
)
def test_wilson(right: int, asked: int, low: float, high: float) -> None:
    """Against published values of the interval."""
    assert stats.wilson(right, asked) == pytest.approx((low, high), abs=1e-3)


def grid(right: int, clusters: int, cells: int) -> list[Outcome]:
    """The first ``right`` clusters are always right, the others never."""
    return [Outcome((c,), str(n), 0, float(n < right)) for n in range(clusters) for c in range(cells)]


def test_the_same_cluster_again_tells_nothing_new() -> None:
    once, often = (stats.bootstrap(grid(15, 20, cells), rng(1), 4000) for cells in (1, 50))
    assert once.mean == often.mean == 0.75
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.03)
    assert once.design == pytest.approx(1, abs=0.1) and often.design == pytest.approx(50, rel=0.1)
    assert often.effective == pytest.approx(20, rel=0.1)
    assert (once.low, once.high) == pytest.approx((0.55, 0.95), abs=0.06)


def test_independent_trials_have_the_binomial_interval() -> None:
    draws = rng().random(400) < 0.33
    some = [Outcome((0,), str(n), 0, float(one)) for n, one in enumerate(draws)]
    mean = stats.bootstrap(some, rng())
    half = 1.96 * (mean.mean * (1 - mean.mean) / 400) ** 0.5
    assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=0.1)
    assert mean == stats.bootstrap(list(reversed(some)), rng()) != stats.bootstrap(some, rng(1))


def test_blocks_are_drawn_as_well() -> None:
    one = [Outcome((0,), str(n), 0, float(n % 2)) for n in range(40)]
    both = [Outcome((0,), str(n), n % 2, float(n % 2)) for n in range(40)]
    narrow, wide = stats.bootstrap(one, rng(), 2000), stats.bootstrap(both, rng(), 2000)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_cells_weigh_alike_and_nothing_is_an_error() -> None:
    some = [Outcome((0,), "a", 0, 1.0)] * 9 + [Outcome((1,), "b", 0, 0.0)]
    assert stats.bootstrap(some, rng()).mean == 0.5
    lonely = stats.bootstrap(some[:1], rng())
    assert (lonely.low, lonely.high, lonely.effective) == (0.0, 1.0, 1.0)
    sure = stats.bootstrap(grid(20, 20, 5), rng())
    assert (sure.mean, sure.design, sure.effective) == (1.0, 5.0, 20.0)
    assert (sure.low, sure.high) == pytest.approx((0.839, 1.0), abs=1e-3)
    thirds = [Outcome((), str(n), 0, float(i == 0)) for n in range(2) for i in range(6)]  # alike but for rounding
    assert stats.bootstrap(thirds, rng()).high == stats.wilson(2 / 6, 2)[1] > 0.6
    with pytest.raises(ValueError, match="nothing to average"):
        stats.bootstrap([], rng())


def test_two_runs_are_compared_cluster_by_cluster() -> None:
    names = [str(i) for i in range(8) for _ in range(3)]
    told = stats.paired([1.0] * 24, [0.0] * 24, names, rng())
    assert (told.difference, told.trials, told.clusters) == (1.0, 24, 8) and told.p == pytest.approx(2 / 2**8)
    assert stats.paired([1.0] * 24, [1.0] * 24, names, rng()).p == 1.0
    many, draws = [str(i) for i in range(100)], rng(1)
    noise = [
        stats.paired(*(draws.integers(0, 2, 100).astype(float).tolist() for _ in range(2)), many, rng()).p
        for _ in range(20)
    ]
    assert 0.3 < float(np.mean(noise)) < 0.7
    with pytest.raises(ValueError, match="share nothing that was scored"):
        stats.paired([], [], [], rng())


def test_how_many_it_takes() -> None:
    assert stats.sample_size(0.25, 0.33) == 504
    assert stats.sample_size(0.80, 0.90) < stats.sample_size(0.80, 0.85)


def test_scores_between_right_and_wrong_have_their_own_spread() -> None:
    """Overlaps near a half are far surer than as many rights and wrongs."""
    overlaps = [Outcome((), str(n), 0, 0.4 + 0.2 * (n % 2)) for n in range(100)]
    flips = [Outcome((), str(n), 0, float(n % 2)) for n in range(100)]
    narrow, wide = stats.bootstrap(overlaps, rng(), 2000), stats.bootstrap(flips, rng(), 2000)
    assert narrow.mean == pytest.approx(0.5) and wide.mean == 0.5
    assert narrow.high - narrow.low == pytest.approx((wide.high - wide.low) / 5, rel=0.1)
    assert narrow.design == pytest.approx(1, abs=0.15)
