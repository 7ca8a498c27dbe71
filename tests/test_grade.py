"""Scores: what an answer says of time and of a card is read strictly; chains are right as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash import grade
from videochat_flash.synth import ask, make_scene


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ((0, 4), (0, 4), 1.0),
        ((0, 4), (2, 6), 2 / 6),
        ((0, 4), (1, 2), 1 / 4),
        ((0, 4), (4, 8), 0.0),
        ((0, 1), (7, 9), 0.0),
        ((2, 2), (2, 2), 0.0),
    ],
)
def test_overlap(one: tuple[float, float], other: tuple[float, float], share: float) -> None:
    assert grade.iou(one, other) == grade.iou(other, one) == pytest.approx(share)


@given(*[st.tuples(st.integers(0, 50), st.integers(1, 50)) for _ in range(2)])
def test_overlap_is_that_of_whole_seconds_counted(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = (set(range(start, start + length)) for start, length in (one, other))
    counted = len(first & second) / len(first | second)
    assert grade.iou((one[0], sum(one)), (other[0], sum(other))) == pytest.approx(counted)


def test_an_answer_without_an_interval_overlaps_nothing() -> None:
    assert grade.grounding("From 12 to 15 seconds.", (12, 15)) == 1
    assert grade.grounding("From 12 to 15 seconds.", (14, 16)) == pytest.approx(1 / 4)
    assert grade.grounding("12", (12, 15)) == grade.grounding("From 15 to 12 seconds.", (12, 15)) == 0


@pytest.mark.parametrize(
    ("answer", "colour", "shape", "character"),
    [
        ("A red star with the digit 7.", True, True, True),
        ("a Red STAR, and on it the digit 7", True, True, True),
        ("A blue star with the digit 7.", False, True, True),
        ("A red or blue star with the digit 7.", False, True, True),
        ("A red shape.", True, False, False),
        ("A red star with a 7.", True, True, False),
        ("A red star with the letter A.", True, True, False),
        ("A red star with the digit 77.", True, True, False),
        ("", False, False, False),
    ],
)
def test_what_a_description_names(answer: str, colour: bool, shape: bool, character: bool) -> None:
    found = grade.named(answer, "A red star with the digit 7.")
    assert found == {"colour": colour, "shape": shape, "character": character}


def test_true_descriptions_name_everything_and_only_one_thing() -> None:
    for seed in range(30):
        scene = make_scene(np.random.default_rng(seed), 60, 1.0, 5, 0)
        truths = [one.answer for one in ask(np.random.default_rng(seed), scene, ["description"], 99)]
        for truth in truths:
            assert list(grade.attributes(truth)) == ["colour", "shape", "character"]
            assert [other for other in truths if all(grade.named(other, truth).values())] == [truth]


def test_a_chain_is_right_when_all_of_it_is() -> None:
    answers = [("a", True), ("b", True), ("a", False), ("b", True), ("c", False), ("a", True)]
    assert grade.jointly(answers) == {"a": False, "b": True, "c": False}
    assert grade.jointly([]) == {}


OPTIONS = ("red", "a blue kite", "Gray", "two")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *((text, 1) for text in ("B", "b", " B ", "(B)", "**B**", "B.", "\uff22", "[B]", '"B"', "`B`")),
        *(
            (text, 1)
            for text in ("(B", "B) a blue kite", "(B) a blue kite", "B. It flies.", "B: because", "**B)** yes")
        ),
        *((text, 1) for text in ("The answer is B", "answer: (B)", "Option B", "The best option is **B**.")),
        ("At first the answer is A. But no: the answer is B", 1),
        *((text, 1) for text in ("a blue kite", "A blue kite.", "'a blue kite'", "A BLUE KITE")),
        *(
            (text, None)
            for text in ("", " ", "(", "E", "kite", "A blue kite flies", "A man", "AB", "I think it is red")
        ),
        *(
            (text, None)
            for text in ("A) or B)", "A or B", "It could be B", "B flat", "answers vary", "the answer is E")
        ),
        ("gray", 2),
        ("2", None),
        ("B) A blue kite.", 1),
        ("The answer is A because it is red", 0),
        ("The answer is A based on the video", 0),
        ("Option A is correct.", 0),
        ("Option A fits best.", 0),
        *(
            (text, None)
            for text in (
                "Answer: A man opens the door.",
                "The answer is A red star.",
                "Option A is wrong",
                "Option B is wrong",
            )
        ),
        *((text, None) for text in ("The answer is A or B", "The answer is (A) or (B)", "Option B and C")),
        ("The answer is B, not option C.", 1),
    ],
)
def test_an_option_is_read_strictly(text: str, found: int | None) -> None:
    assert grade.option(text, OPTIONS) == found


def test_what_is_thought_before_a_colon_leads_to_an_answer() -> None:
    assert grade.option("the green star, the blue square: red", OPTIONS, lettered=False) == 0
    assert grade.option("Answer: a blue kite.", OPTIONS) == 1
    assert grade.option("red: the green star", OPTIONS) is None
    assert grade.option("at 1:20", ("20", "1:20")) is None  # a time
    assert grade.right("the star: the square: 7", "7") and not grade.right("the star: 7", "the star")
    assert not grade.right("the star:", "7") and not grade.right("", "7") and not grade.right("Red", "red")


def test_letters_in_an_options_own_words_are_no_second_answer() -> None:
    assert grade.option("(B) Vitamin C.", ("Vitamin A.", "Vitamin C.", "none")) == 1
    assert grade.option("B. Washington D.C.", ("Paris", "Washington D.C.", "Rome", "Oslo")) == 1
    assert grade.option("A) Vitamin C.", ("Vitamin A.", "Vitamin C.", "none")) is None


def test_without_letters_only_the_words_count() -> None:
    assert grade.option("A", OPTIONS, lettered=False) is None
    assert grade.option("A", ("7", "A"), lettered=False) == 1
    assert grade.option("the answer is B", OPTIONS, lettered=False) is None
    assert grade.option("red", ("red", "Red"), lettered=False) is None
