"""What needs no video: draws, places, the reference's rules, statistics."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from command import ROOT
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash.niah import compat, draws, place, stats
from videochat_flash.niah.place import Part
from videochat_flash.niah.stats import Outcome

# Draws.


def test_draws_depend_on_names_alone() -> None:
    first = draws.rng_of(1, "item", 3).random(4).tolist()
    assert first == draws.rng_of(1, "item", 3).random(4).tolist()
    others = [draws.rng_of(*names).random() for names in ((2, "item", 3), (1, "item", 4), (1, "item", "3"), (1, 3))]
    assert len({first[0], *others}) == 5


def test_draws_are_the_same_in_another_process() -> None:
    asked = "from videochat_flash.niah.draws import *; print(rng_of(7, 'x').random())"
    told = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert told.stdout.split() == [str(draws.rng_of(7, "x").random())]


# Places.


@pytest.mark.parametrize(
    ("length", "depth", "step", "cut"),
    [(60, 0, 4, 0), (60, 1, 4, 60), (60, 0.5, 4, 28), (60, 0.5, 1, 30), (250, 1, 4, 248), (1000, 0.2, 4, 200)],
)
def test_depths(length: int, depth: float, step: int, cut: int) -> None:
    assert place.depth_at(length, depth, step) == cut


def test_a_needle_at_the_ends_and_within() -> None:
    needle = Part("n", 0, 4)
    assert place.with_needles(8, [0], ["n"], 4) == (needle, Part("", 0, 8))
    assert place.with_needles(8, [8], ["n"], 4) == (Part("", 0, 8), Part("n", 7, 4))
    film = place.with_needles(8, [4, 4], ["n", "m"], 1)
    assert film == (Part("", 0, 4), Part("n", 3, 1), Part("m", 3, 1), Part("", 4, 4))
    assert list(place.refs(film))[3:7] == [("", 3, 0), ("n", 0, 3), ("m", 0, 3), ("", 4, 0)]
    assert place.length_of(film) == 10 and place.length_of(place.whole_clips(film)) == 8
    assert place.whole_clips((Part("", 0, 3),)) == ()


@given(st.integers(40, 3000), st.integers(1, 10), st.sampled_from([1, 4]), st.integers(0, 5))
def test_cards_keep_off_the_ends_and_each_other(length: int, count: int, step: int, seed: int) -> None:
    try:
        cuts = place.spread_over(length, count, step, np.random.default_rng(seed))
    except ValueError as error:
        assert "no room" in str(error) and length < 4 * count + 20
        return
    edge = max(place.GAP, int(place.MARGIN * length))
    assert len(cuts) == count and cuts[0] >= edge and cuts[-1] <= length - edge
    assert all(b - a >= place.GAP for a, b in zip(cuts, cuts[1:], strict=False))
    assert all(cut % step == 0 for cut in cuts)


def test_cards_come_to_lie_anywhere() -> None:
    first = [place.spread_over(1000, 4, 4, np.random.default_rng(seed))[0] for seed in range(200)]
    assert min(first) < 40 and 200 < max(first) < 300


# The reference's rules.


def test_rows_of_the_reference_haystack() -> None:
    assert (compat.encoded(10_000), compat.encoded(3_000)) == (5_016, 3_016)
    rows = compat.haystack_rows(10_000)
    assert rows == [*range(5_016), *range(4_984)] and rows[-1] == 4_983
    assert compat.haystack_rows(3_000) == [*range(3_000)]
    assert compat.haystack_rows(10_000, duplicate=False) == [*range(10_000)]


def test_cuts_of_the_reference() -> None:
    assert compat.multi_cuts(1000, 7) == [0, 166, 333, 500, 666, 833, 1000]
    assert [compat.single_cut(500, d) for d in (0, 0.2, 0.4, 0.6, 0.8, 1)] == [0, 100, 200, 300, 400, 500]
    assert compat.single_cut(1000, 0.29) == 290 and compat.single_cut(5, 0.5) == 2
    with pytest.raises(ValueError, match="2 images"):
        compat.multi_cuts(1000, 1)


def test_films_of_the_reference() -> None:
    film = compat.film([166], [*range(1000)], ["a"])
    assert film == (Part("", 0, 166), Part("a", 0, 4), Part("", 166, 834))
    rows = compat.haystack_rows(10_000)
    many = compat.film(compat.multi_cuts(10_000, 5), rows, ["a", "b", "c", "d", "e"])
    assert place.length_of(many) == 10_020
    assert many[:2] == (Part("a", 0, 4), Part("", 0, 2500)) and many[-1] == Part("e", 0, 4)
    assert Part("", 5000, 16) in many and Part("", 0, 2484) in many  # where the second half begins anew


def test_padding_of_the_reference() -> None:
    assert [compat.padding(rows, 8) for rows in (160, 161, 175, 176)] == [16, 15, 1, 16]


@pytest.mark.parametrize(
    ("said", "right"), [("A", True), ("(A", True), ("a", True), (" A", False), ("(", False), ("B", False), ("", False)]
)
def test_scorer_of_the_reference(said: str, right: bool) -> None:
    assert compat.right(said, "A") is right


def test_depth_labels_are_not_merged() -> None:
    depths = [i * 0.05 for i in range(21)]
    assert len({compat.depth_label(round(d, 6)) for d in depths}) == 21


# Statistics.


def test_the_longest_reliable_length() -> None:
    def cells(*right: int) -> list[Outcome]:
        return [Outcome((i, 0.5), str(n), 0, float(n < good)) for i, good in enumerate(right) for n in range(40)]

    assert stats.least_items() == 35
    grid = [(float(i), 0.5) for i in range(4)]
    assert stats.reliable_length(cells(40, 40, 20, 40), grid) == 1
    assert stats.reliable_length(cells(20, 40), grid[:2]) is None
    assert stats.reliable_length(cells(40, 40), grid[:2]) == stats.reliable_length(cells(40, 40), grid) == 1
    assert stats.reliable_length([], []) is None
    assert stats.reliable_length(cells(40, 40), [*grid[:2], (1.0, 1.0)]) == 0  # a cell that nothing is known of


def test_how_many_items_it_takes() -> None:
    assert stats.power_table()[0] == (0.25, 0.33, 504)
