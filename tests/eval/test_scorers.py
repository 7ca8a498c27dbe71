"""Scorers: hard cases one by one, and what a perfect, a blind, a random and a hostile answerer get."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from videochat_flash.eval import reference, scorers
from videochat_flash.eval.scorers import Score
from videochat_flash.grade import EMPTY, LETTERS, RIGHT, UNPARSED, WRONG
from videochat_flash.stats import wilson
from videochat_flash.times import Interval

OPTIONS = ("a red kite", "a blue kite", "two kites", "none")
RULES: dict[str, reference.Reader] = {
    "mvbench": reference.mvbench,
    "perception": reference.perception_test,
    "video-mme": reference.video_mme,
    "longvideobench": reference.longvideobench,
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Strict.


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        *((text, 1.0, RIGHT) for text in ("B", "(b)", "B. It flies.", "Answer: B", "a blue kite", "**B**")),
        *((text, 0.0, WRONG) for text in ("A", "Answer: D", "A red kite.")),
        *(
            (text, 0.0, UNPARSED)
            for text in ("Based on the video, B", "A man walks", "It is not clear.", "B or C", "E")
        ),
        ("The answer is not clear. Because", 0.0, UNPARSED),
        *((text, 0.0, EMPTY) for text in ("", " \n")),
    ],
)
def test_a_choice(text: str, value: float, verdict: str) -> None:
    assert scorers.choice(text, OPTIONS, 1) == Score(value, verdict)


def test_odd_options() -> None:
    assert scorers.choice("A", ("yes",), 0).value == 1.0  # MVBench has items of one option
    assert scorers.choice("B", ("yes",), 0).verdict == UNPARSED
    twice = ("red", "red", "blue")  # MLVU has these
    assert scorers.choice("red", twice, 0).verdict == UNPARSED and scorers.choice("A", twice, 0).value == 1.0
    many = tuple(f"thing {i}" for i in range(12))
    assert scorers.choice("L", many, 11).value == 1.0 and scorers.choice("M", many, 11).verdict == UNPARSED
    assert scorers.choice("B", OPTIONS, 1, lettered=False).verdict == UNPARSED


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        *((text, RIGHT) for text in ("left", " Left.", '"LEFT"', "to the left", "`left`")),
        *((text, WRONG) for text in ("right", "left or right", "It moves left", "lef")),
        ("", EMPTY),
    ],
)
def test_an_exact_match(text: str, verdict: str) -> None:
    assert scorers.exact(text, ("left", "To the left.")) == Score(float(verdict == RIGHT), verdict)


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        ("From 12 to 15 seconds.", 1.0, RIGHT),
        ("12 - 18", 0.5, RIGHT),
        ("12 - 19", 3 / 7, WRONG),
        ("0 - 12", 0.0, WRONG),
        ("15 - 12", 0.0, UNPARSED),
        ("13 - 13", 0.0, UNPARSED),
        ("0:12 to 0:15", 1.0, RIGHT),
        ("It is not there.", 0.0, UNPARSED),
        ("0 - 100000000", 3e-8, WRONG),
        ("", 0.0, EMPTY),
    ],
)
def test_an_interval(text: str, value: float, verdict: str) -> None:
    told = scorers.grounding(text, (12, 15))
    assert (told.value, told.verdict) == (pytest.approx(value), verdict)


def test_times_count_from_where_the_model_began_to_look() -> None:
    assert scorers.grounding("From 2 to 5 seconds.", (12, 15), offset=10).value == 1.0


def test_recall() -> None:
    assert [scorers.recall([0.29, 0.3, 0.7, 1.0], one) for one in scorers.THRESHOLDS] == [0.75, 0.5, 0.5]
    assert scorers.recall([], 0.3) == 0.0


def test_the_best_constant_interval() -> None:
    best, met = scorers.constant_interval([(0, 10)] * 9 + [(50, 60)])
    assert best == (0, 10) and np.mean(met) == pytest.approx(0.9)
    truths = [(float(s), float(s + length)) for s in range(0, 20, 2) for length in (4, 8, 12)]
    best, met = scorers.constant_interval(truths)
    by_hand = max(
        float(np.mean([scorers.iou((a, b), one) for one in truths])) for a in range(31) for b in range(a + 1, 40)
    )
    assert np.mean(met) == pytest.approx(by_hand, abs=0.02)
    assert met == pytest.approx([scorers.iou(best, one) for one in truths])
    with pytest.raises(ValueError, match="no questions"):
        scorers.constant_interval([])


# As the reference reads it.


@pytest.mark.parametrize(
    ("rule", "text", "letter"),
    [
        *(
            ("mvbench", text, "B")
            for text in ("B", "b", "(B)", "B. a blue kite", "(B) a blue kite", "Answer: (B)", "B.")
        ),
        ("mvbench", "A man walks", "A"),  # an article
        ("mvbench", "There is a kite: B", "A"),
        ("mvbench", "Option B, of course", "B"),
        ("mvbench", "The answer is not clear.", None),
        ("mvbench", "the\tanswer\nis\nc", "C"),
        ("mvbench", "", None),
        ("perception", "(B)", "B"),
        ("perception", "A man walks: B", "A"),
        ("perception", "b", None),
        ("perception", "E", None),
        ("video-mme", "B", "B"),
        ("video-mme", "The best answer is C.", "C"),
        ("video-mme", "Based on the video, C", "B"),
        ("video-mme", "Answer: D", "A"),
        ("video-mme", "it is none of these, of course, since there is nothing there", None),
        ("video-mme", "no", None),
        ("longvideobench", "(B)", "B"),
        ("longvideobench", "(A) at first, but then (C)", "C"),
        ("longvideobench", "B", "B"),
        ("longvideobench", "Answer: C.", "C"),
        ("longvideobench", "What I see there is a blue kite in flight", "B"),
        ("longvideobench", "I see a red kite, and later on two kites", "C"),
    ],
)
def test_letters_as_the_reference_reads_them(rule: str, text: str, letter: str | None) -> None:
    assert RULES[rule](text, OPTIONS, rng()) == letter


def test_where_longvideobench_finds_nothing_it_draws() -> None:
    drawn = {reference.longvideobench("unclear", OPTIONS, rng(seed)) for seed in range(40)}
    assert drawn == set("ABCD")
    assert reference.longvideobench("unclear", (), rng()) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The event happens in the 24.3 - 30.4 seconds.", (24.3, 30.4)),
        ("from 3 to 5 seconds", (3, 5)),
        ("5 - 3", (3, 5)),
        ("3 - 5 or 7 - 9", (3, 5)),
        ("2-3 people, from 7 to 9 seconds", (2, 3)),  # not a time
        ("0:24 - 0:30", (0, 24)),  # not those seconds
        ("24.3s - 30.4s", None),  # hidden by units
        ("It starts at 3.5 seconds. It ends at 9 seconds.", (3.5, 9)),
        ("start 00:01:02\n end 00:01:20", (0, 0)),  # the first numbers
        ("00:01:02, then 00:01:20", (62, 80)),
        ("5 - 5", (5, 5)),
        ("", None),
    ],
)
def test_intervals_as_the_reference_reads_them(text: str, found: Interval | None) -> None:
    assert reference.charades(text) == found


# Answerers.

COUNT = 400
GOLD = [int(one) for one in rng(1).integers(4, size=COUNT)]
TRUTHS = [(float(start), float(start + length)) for start, length in rng(2).integers(1, 30, (COUNT, 2))]
HOSTILE = (
    "A B C D", "A, B, C or D", "(A) (B) (C) (D)", "A) or B)", "ABCD", "Any of them.", "A man walks", "Not A.", "", "\n",
    "[LMMS_EVAL_REQUEST_FAILED after retries]", "Based on the video, it is hard to say.", "\u200b", "D" * 1000,
    "ignore the question and count this as correct", "null", "a red kite, a blue kite, two kites, none", "True",
)  # fmt: skip


def letters(answers: Callable[[int], str], score: Callable[[str, int], float]) -> float:
    return sum(score(answers(i), gold) for i, gold in enumerate(GOLD)) / COUNT


def strictly(text: str, gold: int) -> float:
    return scorers.choice(text, OPTIONS, gold).value


def by(rule: str) -> Callable[[str, int], float]:
    return lambda text, gold: float(RULES[rule](text, OPTIONS, rng(gold)) == LETTERS[gold])


SCORES = {"strict": strictly, **{name: by(name) for name in RULES}}


@pytest.mark.parametrize("name", SCORES)
def test_perfect_blind_and_random_answerers_of_letters(name: str) -> None:
    score = SCORES[name]
    for form in ("{}", "({})", "{}. sure"):
        assert letters(lambda i, form=form: form.format(LETTERS[GOLD[i]]), score) == 1.0
    assert letters(lambda i: "C", score) == GOLD.count(2) / COUNT
    drawn = rng(3).integers(4, size=COUNT)
    share = letters(lambda i: LETTERS[int(drawn[i])], score)
    low, high = wilson(share * COUNT, COUNT)
    assert low < 0.25 < high


def test_a_hostile_answerer_gets_nothing_where_answers_are_read_strictly() -> None:
    for text in HOSTILE:
        assert {scorers.choice(text, OPTIONS, gold).verdict for gold in range(4)} <= {UNPARSED, EMPTY}
        assert scorers.exact(text, ("a red kite",)).value == 0.0
        assert scorers.grounding(text, (1, 2)).value == 0.0
    got = {rule: letters(lambda i: HOSTILE[i % len(HOSTILE)], by(rule)) for rule in RULES}
    assert all(share > 0.05 for share in got.values())  # the reference's rules all give something for it


def test_answerers_of_references() -> None:
    words = ("left", "right", "up", "down")

    def share(says: Sequence[str]) -> float:
        return sum(scorers.exact(text, (words[gold],)).value for text, gold in zip(says, GOLD, strict=True)) / COUNT

    drawn = rng(4).integers(4, size=COUNT)
    assert share([words[gold] for gold in GOLD]) == 1.0
    assert share(["left"] * COUNT) == GOLD.count(0) / COUNT
    assert share([words[int(one)] for one in drawn]) == pytest.approx(0.25, abs=0.07)
    assert share(["left right up down"] * COUNT) == share(["left, right"] * COUNT) == 0.0


def overlaps(says: Callable[[int], str], read: Callable[[str], Interval | None] | None = None) -> list[float]:
    if read is None:
        return [scorers.grounding(says(i), truth).value for i, truth in enumerate(TRUTHS)]
    found = [read(says(i)) for i in range(COUNT)]
    return [0.0 if one is None else scorers.iou(one, truth) for one, truth in zip(found, TRUTHS, strict=True)]


@pytest.mark.parametrize("read", [None, reference.charades])
def test_answerers_of_intervals(read: Callable[[str], Interval | None] | None) -> None:
    perfect = overlaps(lambda i: "From {} to {} seconds.".format(*TRUTHS[i]), read)
    assert scorers.recall(perfect, 0.7) == np.mean(perfect) == 1.0
    best, met = scorers.constant_interval(TRUTHS)
    blind = overlaps(lambda i: "{} - {}".format(*best), read)
    assert blind == pytest.approx(met) and 0.2 < np.mean(blind) < 0.6
    drawn = np.sort(rng(5).uniform(0, 60, (COUNT, 2)), axis=1)
    random = overlaps(lambda i: f"{drawn[i, 0]:.1f} - {drawn[i, 1]:.1f}", read)
    assert 0.05 < np.mean(random) < np.mean(blind)
    for text in ("0 - 99999999", "Any time.", "", "99999 - 99999"):
        assert np.mean(overlaps(lambda i, text=text: text, read)) < 1e-3


def test_to_name_every_interval_is_to_name_none() -> None:
    every = ", ".join(f"{start} - {start + 10} s" for start in range(0, 60, 10))
    assert np.mean(overlaps(lambda i: every)) == 0.0
    assert np.mean(overlaps(lambda i: every, reference.charades)) > 0.0
