"""What guessing is worth: no option may be likelier than another, and who knows nothing must not seem to know."""

from __future__ import annotations

import random
from dataclasses import replace

from longvid_corpus import told, video

from videochat_flash.longvid import report, sieve
from videochat_flash.longvid.ask import by_templates
from videochat_flash.longvid.records import Film, Question
from videochat_flash.longvid.settings import Ask, Weave
from videochat_flash.longvid.weave import time_line

OBJECTS = ("door", "cup", "drum", "rope", "lamp", "kettle", "mirror", "basket")


def made_up(seed: int) -> Film:
    """A film in which things come and come back, the first ones together."""
    rng = random.Random(seed)
    some = rng.sample(OBJECTS, 6)
    acts = [f"A {some[0]} lies near a {some[1]}."]
    acts += [f"A {rng.choice(some)} falls on a {rng.choice(some)}." for _ in range(4)]
    acts += [rng.choice(acts) for _ in range(rng.randrange(4))] + [f"A {some[2]} breaks."]
    film = told(*((10.0 * i, 10.0 * i + 10, text) for i, text in enumerate(acts)), duration=120)
    return replace(film, video=video(120, key=f"{seed:032x}"), events=time_line(film.notes, Weave()))


def test_no_rank_of_an_option_is_right_more_often_than_another() -> None:
    """Who takes the smallest number, or the earliest or latest time, is right as often as who guesses."""
    questions = [one for seed in range(600) for one in by_templates(made_up(seed), Ask(choices=1.0))]
    for name in ("count.times", "change.appears", "change.last_seen", "change.scene", "grounding.span"):
        some = [one for one in questions if f"{one.family}.{one.kind}" == name and one.options]
        chance = sum(1 / len(one.options) for one in some)
        assert len(some) > 300, name
        for pick in (min, max):
            hits = sum(one.answer == pick(one.options, key=value_of) for one in some)
            assert abs(hits - chance) < 4 * (0.25 * len(some)) ** 0.5, (name, pick, hits, chance, len(some))


def value_of(option: str) -> float:
    return float(next(word for word in option.split() if word.replace(".", "").isdigit()))


def test_spans_that_overlap_are_no_options_of_each_other() -> None:
    film = told((0, 10, "A woman sings."), (1, 10.5, "The dog runs."), (20, 30, "A cup falls."), (40, 50, "Rain."))
    found = [one for one in by_templates(film, Ask(each=20, choices=1.0)) if one.kind == "span"]
    assert {one.question.split('"')[1]: len(one.options) for one in found} == {
        "A woman sings": 0, "The dog runs": 0, "A cup falls": 2, "Rain": 2,
    }  # fmt: skip


def test_who_always_takes_the_same_place_knows_nothing() -> None:
    choice = Question("0" * 16, "count", "times", "What?", "b", 0, 9, "made", ("a", "b", "c"))
    assert not sieve.guessed(Film(video()), choice, lambda *_: "(B)").guessed
    assert not sieve.guessed(Film(video()), choice, lambda *_: "(A)").guessed
    known = sieve.guessed(Film(video()), choice, lambda _, asked: asked.reply)
    assert known.guessed and known.blind == "(B) b" and known.options == choice.options
    assert sieve.guessed(Film(video()), replace(choice, options=()), lambda _, asked: asked.reply).guessed


def test_the_report_tells_of_the_best_rule_that_reads_options_alone() -> None:
    some = tuple(
        Question(f"{i:016x}", "count", "times", f"{i}?", "1", 0, 9, "made", options)
        for i, options in enumerate([("1", "2"), ("2", "1"), ("12", "3", "1", "4")])
    )
    facts = report.Facts()
    report.count(facts, Film(video(), questions=some))
    report.count(facts, Film(video(parent="a" * 32), questions=()))
    text = report.report(facts, {}, None)
    assert "3 questions have options: whoever guesses is right on 41.7 %; " in text
    assert "options (smallest number) on 100.0 %" in text
    assert "| count | times | 3 | 3 | 41.7 % | 100.0 % (smallest number) |" in text
    assert report.totals(facts)["hours"] == round(60 / 3600, 3)  # a copy shows nothing that its video does not
