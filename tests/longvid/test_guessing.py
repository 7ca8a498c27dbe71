"""What guessing is worth: no option may be likelier than another, and who knows nothing must not seem to know."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from longvid_corpus import told, video

from videochat_flash.longvid import report, sieve
from videochat_flash.longvid.ask import by_templates
from videochat_flash.longvid.records import Aside, Film, Question, line_of
from videochat_flash.longvid.settings import Ask, Weave
from videochat_flash.longvid.templates import ORDER
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
    questions = [one for seed in range(1500) for one in by_templates(made_up(seed), Ask(choices=1.0))]
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


@pytest.mark.parametrize("options", [(), ("A dog runs", "A cup falls")])
def test_who_always_takes_what_is_named_first_knows_no_order(options: tuple[str, ...]) -> None:
    ask = ORDER.format("A dog runs", "A cup falls")
    one = Question("0" * 16, "relationship", "order", ask, "A dog runs", 0, 9, "made", options)
    for place in (1, 3):  # of the names, between quotes
        asked: list[str] = []

        def named(_: Film, question: Question, place: int = place, asked: list[str] = asked) -> str:
            asked.append(question.question)
            return question.question.split('"')[place]

        assert not sieve.guessed(Film(video()), one, named).guessed
        assert set(asked) <= {ask, ORDER.format("A cup falls", "A dog runs")}
    known = sieve.guessed(Film(video()), one, lambda *_: "A dog runs.")
    assert known.guessed and known.question == ask and known.options == options


@pytest.mark.parametrize(
    ("family", "kind", "answers"),
    [
        ("count", "times", ("1", "2", "1")),
        ("change", "scene", ("At 10 seconds.", "At 20 seconds.")),
        ("grounding", "span", ("From 10 to 20 seconds.", "From 40 to 50 seconds.")),
    ],
)
def test_who_always_gives_the_same_answer_knows_none_of_a_round(
    family: str, kind: str, answers: tuple[str, ...]
) -> None:
    some = [Question(f"{i:016x}", family, kind, f"{i}?", one, 0, 9, "made") for i, one in enumerate(answers)]
    other = Question("f" * 16, "relationship", "after", "What?", answers[0], 0, 9, "made")
    told = sieve.blindly(Film(video()), [*some, other], lambda *_: answers[0])
    assert [one.guessed for one in told] == [False] * len(some) + [True]
    assert all(one.blind == answers[0] for one in told)
    known = sieve.blindly(Film(video()), some, lambda _, asked: asked.answer)
    assert all(one.guessed for one in known)


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
    totals = report.totals(facts)
    assert totals["hours"] == round(60 / 3600, 3)  # a copy shows nothing that its video does not
    assert (totals["films"], totals["copies"], len(facts.durations)) == (1, 1, 1)
    assert "- 1 films, 1 copies of films with hidden cards, 0.02 hours" in text


def test_reasons_are_counted_without_the_paths_that_they_name(tmp_path: Path) -> None:
    asides = [
        *(Aside("scan", "duplicate", f"/my films/{i}.mp4", f"it looks like {one}", "", one)
          for i, one in enumerate(f"/my films/a {i}.mp4" for i in range(3))),
        *(Aside("scan", "failed", f"/my films/b {i}.mp4", f"/my films/b {i}.mp4 is empty: 7 bytes") for i in range(2)),
        Aside("scan", "failed", "s3://films/b 9.mp4", "/tmp/x1/b 9.mp4 is empty: 8 bytes"),
    ]  # fmt: skip
    (tmp_path / "scan.aside.jsonl").write_text("".join(f"{line_of(one)}\n" for one in asides))
    (tmp_path / "sieve.jsonl").write_text(f"{line_of(Film(video()))}\n")
    assert report.facts_of(tmp_path).reasons == {
        "scan: duplicate": {"it looks like FILE": 3},
        "scan: failed": {"FILE is empty: N bytes": 3},
    }
