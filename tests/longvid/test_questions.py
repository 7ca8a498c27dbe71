"""Templates, sieve and the proof's checks: what follows from a time line is asked, and what is wrong does not pass."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import run
from hypothesis import given
from hypothesis import strategies as st
from longvid_corpus import ACTS, told, video

from videochat_flash.config import FLASH_TINY
from videochat_flash.grade import LETTERS
from videochat_flash.longvid import proof, rendered, report, sieve
from videochat_flash.longvid.ask import by_templates, parse_list
from videochat_flash.longvid.records import (
    FAMILIES,
    FILM,
    Aside,
    Event,
    Film,
    Note,
    Question,
    line_of,
    parse,
    read_films,
)
from videochat_flash.longvid.rendered import Shown
from videochat_flash.longvid.rows import meta
from videochat_flash.longvid.settings import Ask, Sieve, Weave
from videochat_flash.longvid.templates import drafts
from videochat_flash.longvid.truth import CHECKS, right
from videochat_flash.longvid.weave import alike, entities, like, normal, time_line
from videochat_flash.times import interval
from videochat_flash.train.recipe import load_recipe
from videochat_flash.video import Sampling, sample_indices

SIX = tuple((10.0 * i, 10.0 * i + 10, text) for i, text in enumerate(ACTS))


def asked(film: Film, **more: object) -> dict[str, list[Question]]:
    """Questions by family and kind."""
    found: dict[str, list[Question]] = {}
    for one in by_templates(film, Ask(**more)):  # type: ignore[arg-type]
        found.setdefault(f"{one.family}.{one.kind}", []).append(one)
    return found


# The time line.


def test_what_meets_and_says_the_same_is_one_event() -> None:
    notes = (
        Note(0, 5, "caption", "A man cuts the onion on a board.", "a: 1"),
        Note(4, 9, "narration", "A man cuts the red onion on a board.", "b: 1"),
        Note(20, 25, "caption", "A man cuts the onion on a board.", "a: 2"),
        Note(0, 30, "chapter", "Cooking", "c: 1"),
    )
    events = time_line(notes, Weave())
    assert [(one.start, one.end, one.text, one.notes) for one in events] == [
        (0, 9, "A man cuts the red onion on a board.", (0, 1)),
        (20, 25, "A man cuts the onion on a board.", (2,)),
    ]


def test_what_is_told_twice_in_a_row_without_ends_happens_twice() -> None:
    """A narration lasts until the next one, and so meets it, by a guess alone."""
    told_of = ((10.0, 14.0), (14.0, 24.0), (14.0, 14.5))
    notes = tuple(
        Note(*one, "narration", "The camera wearer picks a brick", f"e: {i}", open=True)
        for i, one in enumerate(told_of)
    )
    events = time_line(notes, Weave())
    assert [(one.start, one.end, one.notes) for one in events] == [(10, 14, (0,)), (14, 24, (1, 2))]
    found = asked(Film(video(), notes, events), each=20)
    assert "count.times" in found and {one.answer for one in found["count.times"]} == {"2"}


def test_speech_is_joined_to_sentences() -> None:
    words = ("so first", "we cut it.", "Then we", "wait")
    notes = tuple(Note(2.0 * i, 2.0 * i + 2, "speech", text, f"s: {i}") for i, text in enumerate(words))
    assert [one.text for one in time_line(notes, Weave())] == ["so first we cut it.", "Then we wait"]
    assert [one.text for one in time_line(notes, Weave(longest=3))] == list(words)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A man cuts the red onion on a board.", ("man", "red onion", "board")),
        ("The dog runs across the grass", ("grass",)),
        ("A woman opens the door, then the door closes.", ("woman", "door")),
        ("An orange star with the letter K is shown.", ("orange star", "letter k")),
        ("Nothing.", ()),
    ],
)
def test_things_that_a_text_names(text: str, names: tuple[str, ...]) -> None:
    assert entities(text) == names


@pytest.mark.parametrize(
    ("one", "other", "taken"),
    [
        ("A man cuts the onion.", "A man cuts the onion on a wooden board in the kitchen.", True),
        ("A dog", "A dog runs across the grass", True),
        ("The camera wearer picks a brick", "The camera wearer drops a brick", False),
        ("A dog runs.", "A child throws the ball.", False),
    ],
)
def test_a_text_that_another_tells_as_well_could_be_taken_for_it(one: str, other: str, taken: bool) -> None:
    first, second = Counter(normal(one)), Counter(normal(other))
    assert like(first, second) is like(second, first) is taken
    film = told((0, 10, one), (20, 30, other), (40, 50, "Rain falls."))
    named = {one.question.split('"')[1] for one in asked(film, each=20)["grounding.span"]}
    assert named == {"Rain falls"} | (set() if taken else {one.rstrip("."), other.rstrip(".")})


@given(st.text(max_size=60), st.text(max_size=60))
def test_likeness_is_a_share_and_goes_both_ways(one: str, other: str) -> None:
    assert 0 <= alike(one, other) == alike(other, one) <= 1 == alike(one, one)


# What is asked of it.


def test_answers_are_what_the_time_line_says() -> None:
    found = asked(told(*SIX), each=20)
    after = {one.question: one.answer for one in found["relationship.after"]}
    assert after['What happens right after this: "A dog runs across the grass"?'] == "A child throws the blue ball"
    assert not any("A man cuts" in question for question in after)  # it happens twice: after which one?
    assert {one.answer for one in found["count.times"]} == {"1", "2"}
    assert {interval(one.answer) for one in found["grounding.span"]} == {(0, 10), (20, 30), (30, 40), (50, 60)}
    assert [one.answer for one in found["relationship.first"]] == ["A woman opens the red door"]


def test_options_are_of_the_same_video_and_look_alike() -> None:
    texts = {text.rstrip(".") for text in ACTS}
    film = replace(told(*SIX), events=time_line(told(*SIX).notes, Weave()))
    chosen = [one for some in asked(film, each=20, choices=1.0).values() for one in some if one.options]
    assert len({one.family for one in chosen}) >= 5
    places = [one.options.index(one.answer) for one in chosen]
    assert {0, 1, 2, 3} == set(places)
    for one in chosen:
        assert one.options.count(one.answer) == 1 and len(set(one.options)) == len(one.options) >= 2
        assert one.reply == f"({LETTERS[one.options.index(one.answer)]}) {one.answer}" and one.reply in one.prompt
        if one.family in ("relationship", "understanding"):
            assert set(one.options) <= texts
            quoted = set() if one.kind == "order" else {text for text in texts if f'"{text}"' in one.question}
            assert not quoted & set(one.options)


def test_nothing_is_asked_that_has_two_answers() -> None:
    """Overlapping events have no order, and texts that are alike name no event."""
    twins = told((0, 10, "A man cuts the onion."), (5, 15, "A dog runs."), (20, 30, "A man cuts the red onion."))
    found = asked(twins, each=20)
    assert not {name for name in found if name.startswith(("relationship", "change.scene"))}
    assert all("onion" not in one.question for one in found["grounding.span"])
    assert "understanding.at" not in found


def test_what_begins_together_is_not_asked_for_its_order_nor_alone() -> None:
    """Narrations at one second: the first lasts for half a second, by the start of the second."""
    film = told((5.0, 5.5, ACTS[0]), (5.0, 15.0, ACTS[1]), (20.0, 25.0, ACTS[2]), (30.0, 35.0, ACTS[3]))
    found = asked(film, each=20)
    assert not {name for name in found if name.startswith("relationship")}
    assert {one.answer.rstrip(".") for one in found["understanding.at"]} <= {text.rstrip(".") for text in ACTS[2:4]}
    apart = asked(told((5.0, 7.0, ACTS[0]), (8.0, 15.0, ACTS[1]), (20.0, 25.0, ACTS[2])), each=20)
    assert {name for name in apart if name.startswith("relationship")} and len(apart["understanding.at"]) == 3


def test_a_guessed_end_is_never_told() -> None:
    film = told(*SIX)
    film = replace(film, events=tuple(replace(event, open=True) for event in film.events))
    found = asked(film, each=20)
    assert "grounding.span" not in found and "change.scene" not in found
    assert all(one.answer.startswith("At ") and "begin" in one.question for one in found["grounding.begins"])


def test_which_of_these_is_not_asked_without_any_others() -> None:
    found = asked(told(SIX[0]), each=20)
    assert "understanding.at" not in found and "caption.whole" in found


def test_wrong_options_of_a_time_could_be_right_of_another() -> None:
    """What comes twice, or for a moment, is never right there, and who knows that would know it wrong."""
    acts = [*SIX, (60.0, 60.5, "A bird sits on the roof."), (62.0, 70.0, " ".join(["Very"] * 50) + " long rain.")]
    found = asked(told(*acts, duration=90.0), each=20)["understanding.at"]
    fit = {ACTS[i].rstrip(".") for i in (0, 2, 3, 5)}
    assert {one.answer for one in found} == fit and all(set(one.options) == fit for one in found)


def test_no_pair_is_asked_for_its_order_twice() -> None:
    film = told(*((10.0 * i, 10.0 * i + 10, ACTS[place]) for i, place in enumerate((0, 2, 3))))
    found = asked(film, each=20)["relationship.order"]
    assert len({frozenset(one.events) for one in found}) == len(found) == 3


def test_a_summary_without_an_end_is_not_asked_for() -> None:
    """How long it holds is a guess: ten seconds, as of a narration."""
    film = Film(video(), (Note(0, 10, "summary", "The man cooks.", "a: 1", open=True),))
    assert asked(film) == {}


def named(*acts: tuple[float, float, str]) -> Film:
    """A film with a time line of these events, with what their texts name."""
    film = told(*acts)
    return replace(film, events=tuple(replace(one, entities=entities(one.text)) for one in film.events))


COMES = ("A dog runs.", "A man near a lamp sings.", "A cup falls.", "Rain.", "A lamp breaks near a cup.")


def test_a_thing_comes_when_it_is_told_of_first_or_briefly() -> None:
    for seconds, names in ((10.0, {"dog", "man", "cup"}), (3.0, {"dog", "man", "cup", "lamp"})):
        some = [(10.0 * i, 10.0 * i + seconds, text) for i, text in enumerate(COMES)]
        found = {one.question.split()[5]: one.answer for one in asked(named(*some), each=20)["change.appears"]}
        assert set(found) == names and found["cup"] == "At 20 seconds."


def test_a_thing_comes_for_the_last_time_when_it_was_gone() -> None:
    acts = (
        *((0, 10, "A dog runs."), (10, 20, "A dog sits.")),
        *((20, 30, "A cup falls."), (35, 45, "A cup breaks."), (50, 60, "A dog near a cup sleeps.")),
    )
    film = named(*acts)
    [last] = asked(film, each=20)["change.last_seen"]
    assert (last.question.split()[5], last.answer) == ("dog", "At 50 seconds.")
    truth = [Shown(event.start, event.end, event.text) for event in film.events]
    assert right(film, last, truth)
    assert not right(film, replace(last, answer="At 10 seconds."), truth[:2])  # there it stayed
    [other] = asked(replace(film, events=film.events[:4]), each=20)["change.last_seen"]
    assert (other.question.split()[5], other.answer) == ("cup", "At 35 seconds.")


def test_without_events_nothing_is_asked_but_of_chapters() -> None:
    assert asked(Film(video())) == {}
    marks = (Note(0, 30, "chapter", "Intro", "c: 1"), Note(30, 60, "chapter", "The bridge", "c: 2"))
    assert set(asked(Film(video(), marks))) == {"summary.chapters"}


def test_a_summary_names_its_own_note_and_no_other() -> None:
    notes = (
        Note(0, 30, "summary", "The man cooks.", "a: 1"),
        Note(30, 60, "summary", "The dog eats it.", "a: 2"),
        Note(0, 60, "chapter", "Supper", "c: 1"),
    )
    film = Film(video(), notes)
    first, second = asked(film)["summary.part"]
    assert [meta(film, (one,))["origins"] for one in (first, second)] == [["a: 1"], ["a: 2"]]
    assert sieve.fault(film, first, Sieve()) == ""
    assert sieve.fault(film, replace(first, answer=second.answer), Sieve()) == "its answer is not in its source"
    assert sieve.fault(film, replace(first, notes=(3,)), Sieve()) == "its answer is not in its source"


def test_the_same_seed_asks_the_same_and_families_can_be_left_out() -> None:
    assert asked(told(*SIX)) == asked(told(*SIX)) != asked(told(*SIX), seed=1)
    assert {name.split(".")[0] for name in asked(told(*SIX), families=("count",))} == {"count"}


TEXTS = st.lists(st.sampled_from([*ACTS, "A man cuts the onion.", "A dog", "x"]), min_size=1, max_size=12)


@given(TEXTS, st.integers(0, 5), st.integers(0, 99))
def test_every_answer_passes_the_sieve_and_the_renderers_truth(texts: list[str], gap: int, seed: int) -> None:
    """For any time line of events that follow each other, templates ask nothing that is not so."""
    step = 4 + gap
    film = told(*((float(step * i), step * i + 4.0, text) for i, text in enumerate(texts)), duration=400)
    film = replace(film, events=time_line(film.notes, Weave()))
    truth = [Shown(event.start, event.end, event.text) for event in film.events]
    for one in by_templates(film, Ask(seed=seed)):
        assert sieve.fault(film, one, Sieve()) == ""
        if not (one.family == "caption" and one.kind == "segment"):  # its texts need not end as sentences do
            assert all(text.endswith(".") for text in texts) is False or right(film, one, truth), one


# The proof's own checks can fail.


def test_a_wrong_answer_is_seen_by_the_check_of_every_kind() -> None:
    acts = (*SIX, (60.0, 70.0, "A bird sits on the roof."), (75.0, 80.0, "A man cuts the onion on a board."))
    film = told(*acts, duration=90)
    film = replace(film, events=time_line(film.notes, Weave()))
    truth = [Shown(*one) for one in acts]
    seen = set()
    for name, some in asked(film, each=9, choices=0.0).items():
        for one in some:
            assert right(film, one, truth), one
            for other in some:
                if other.answer != one.answer:
                    assert not right(film, replace(one, answer=other.answer, options=()), truth), (one, other)
                    seen.add(name)
    needed = {"caption.segment", "grounding.span", "relationship.after", "relationship.order", "count.times"}
    assert needed <= seen and seen <= set(CHECKS)
    whole = next(iter(asked(film)["caption.whole"]))
    assert not right(film, replace(whole, answer=whole.answer[:-2]), truth)
    with pytest.raises(ValueError, match="no check for questions of count.other"):
        right(film, replace(whole, family="count", kind="other"), truth)


@pytest.mark.slow
def test_the_proof_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(
        capsys,
        "longvid",
        "proof",
        "--out",
        tmp_path,
        "--videos",
        5,
        "--minutes",
        1,
        "--fps",
        0,
        "--needles",
        2,
        "--json",
    )
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["share"] >= 0.995 and facts["asked"] >= 150 and 100 <= facts["in_the_set"] <= facts["asked"]
    assert facts["of_cards"][1] > 20 and facts["of_cards"][1] + facts["of_annotations"][1] == facts["asked"]
    assert {name.split(".")[0] for name in facts["kinds"]} == set(FAMILIES)
    recipe = load_recipe(Path(facts["recipe"]))
    assert (recipe.start, recipe.plan) == ("flash-tiny", FLASH_TINY.keep)
    assert len({film.video.duration for film in read_films(tmp_path / "built" / "scan.jsonl")}) == 5


@pytest.mark.parametrize("minutes", [0.5, 2, 2.6, 6, 15])
def test_whatever_the_proof_shows_is_in_a_frame_that_is_taught_and_asked(minutes: float, tmp_path: Path) -> None:
    """Of all videos by default every frame is; of longer ones so many that nothing rendered falls between two."""
    average = round(60 * minutes)
    taught = load_recipe(proof.recipe(proof.setting_of(tmp_path, 0, 0), tmp_path, average))
    video = taught.video
    learning = Sampling("reference", max_frames=video.max_frames, min_frames=video.min_frames)
    assert 16 * video.max_frames < taught.max_rows == taught.pack
    for length in (average * part // 6 for part in proof.LENGTHS):
        for sampling in (learning, Sampling()):
            seen = {-1, *sample_indices(length, length, sampling), length}
            missed = max(after - before - 1 for before, after in pairwise(sorted(seen)))
            assert missed < rendered.CARD_SECONDS[0] and (missed == 0 or minutes != 2), (length, sampling)


def test_a_folder_holds_one_proof_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what: dict[str, Any] = {"videos": 5, "plain": 1, "seconds": 60, "seed": 0, "haystacks": ["some.mp4"]}
    proof.begin(tmp_path / "out", **what)
    proof.begin(tmp_path / "out", **what)
    for change in ({"videos": 6}, {"plain": 2}, {"seconds": 61}, {"seed": 1}, {"haystacks": []}):
        with pytest.raises(ValueError, match=f"another run .{next(iter(change))} .*: choose another folder"):
            proof.begin(tmp_path / "out", **{**what, **change})
    done = run(capsys, "longvid", "proof", "--out", tmp_path / "out", "--videos", 4)
    assert done.code == 1 and "choose another folder" in done.err
    (tmp_path / "out" / "films").mkdir()
    (tmp_path / "out" / "run.json").unlink()  # as of versions that wrote none
    with pytest.raises(ValueError, match=r"holds videos, but no run\.json that tells which: choose another folder"):
        proof.begin(tmp_path / "out", **what)


# What may pass.


def question(**more: object) -> Question:
    values: dict[str, object] = {"id": "0" * 16, "family": "grounding", "kind": "span", "question": "When?"}
    values |= {"answer": "From 10 to 20 seconds.", "start": 10.0, "end": 20.0, "maker": "template 1", "events": (1,)}
    return Question(**(values | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"question": " "}, "no question or no answer"),
        ({"question": "<image> when?"}, "a placeholder in its text"),
        ({"options": ("a", "b")}, "its answer is none of its options"),
        ({"options": ("From 10 to 20 seconds.", "A b.", "a B")}, "two options are the same"),
        ({"options": ("From 10 to 20 seconds.",)}, "only one option"),
        ({"end": 99.0}, "times outside of the video"),
        ({"start": 20.0, "end": 10.0}, "times outside of the video"),
        ({"answer": "From 10 to 90 seconds."}, "an answer outside of the video"),
        ({"answer": "From 20 to 10 seconds."}, "an interval that ends before it begins"),
        ({"answer": "word " * 500}, "too long an answer"),
        ({"answer": "From 11 to 20 seconds."}, "its answer is not in its source"),
        ({"answer": "A zebra eats the pudding."}, "its answer is not in its source"),
        ({"answer": "A man cuts the onion.", "events": ()}, "its answer is not in its source"),
        ({"answer": "A man cuts the onion."}, ""),
        ({"family": "count", "answer": "2"}, "its answer is not in its source"),
        ({"family": "count", "answer": "1"}, ""),
        ({"events": (77,)}, "its answer is not in its source"),
    ],
)
def test_faults(changes: dict[str, object], reason: str) -> None:
    assert sieve.fault(told(*SIX), question(**changes), Sieve()) == reason


@pytest.mark.parametrize(
    ("truth", "said", "good"),
    [
        ("From 10 to 20 seconds.", "from 11 to 20 seconds", True),
        ("From 10 to 20 seconds.", "From 30 to 40 seconds.", False),
        ("From 10 to 20 seconds.", "ten", False),
        ("At 10 seconds.", "At 10.5 seconds.", True),
        ("At 10 seconds.", "At 13 seconds.", False),
        ("At 0 seconds.", "0 seconds", True),
        ("At 10 seconds.", "10 s", True),
        ("At 10 seconds.", "It is at 10 secs.", True),
        ("At 10 seconds.", "0:10", True),
        ("At 70 seconds.", "1:10", True),
        ("At 10 seconds.", "10", True),
        ("At 2 seconds.", "2 minutes", False),
        ("At 10 seconds.", "10 or 20 seconds", False),
        ("At 10 seconds.", "nobody knows", False),
        ("A dog runs", "The dog runs.", True),
        ("A dog runs", "A dog", False),
        ("A", "a", True),
        ("A", "", False),
        ("A", "the", False),
    ],
)
def test_a_blind_answer_is_graded(truth: str, said: str, good: bool) -> None:
    assert sieve.right(said, question(answer=truth)) is good


@pytest.mark.parametrize(
    ("said", "good"),
    [
        *((one, True) for one in ("2", "Two.", "2 times", "It happens two times.", "twice")),
        *((one, False) for one in ("3", "20 times", "2 men", "No one knows.", "two times, or 3 times")),
    ],
)
def test_a_blind_count_is_graded(said: str, good: bool) -> None:
    assert sieve.right(said, question(family="count", kind="times", answer="2")) is good


def test_a_blind_choice_is_graded_by_its_letter() -> None:
    one = question(answer="b", options=("a", "b"))
    assert sieve.right("(B) b", one) and sieve.right("B", one) and not sieve.right("A", one)


def settled(films: list[Film], **rules: object) -> tuple[list[Film], list[Aside]]:
    made = list(sieve.settle(Sieve(**rules), lambda: iter(films)))  # type: ignore[arg-type]
    return [one for one in made if isinstance(one, Film)], [one for one in made if isinstance(one, Aside)]


def many(family: str, count: int, source: str = "films", key: str = "a") -> Film:
    some = tuple(
        question(
            id=f"{random.Random(f'{family}{key}{i}').getrandbits(64):016x}", family=family, question=f"{family} {i}?"
        )
        for i in range(count)
    )
    return Film(video(source=source, key=key * 32), questions=some)


def test_no_family_is_more_than_its_share() -> None:
    films = [many("count", 90), many("grounding", 10, key="b"), many("caption", 10, key="c")]
    rules = {"family_share": 0.5, "length_share": 1.0, "balance_leaves": 0.0}
    kept, asides = settled(films, **rules)
    sizes = {film.questions[0].family: len(film.questions) for film in kept}
    assert sizes == {"count": 20, "grounding": 10, "caption": 10}
    assert {one.reason for one in asides} == {"more than sieve.family_share"} and len(asides) == 70
    assert settled(films, **rules)[0] == kept  # the same set leaves the same one


def test_a_large_family_is_not_given_up_for_a_tiny_one() -> None:
    """Of 1000 and 10 no more than 20 would be left if none were to be more than half."""
    films = [many("count", 1000), many("grounding", 10, key="b")]
    kept, _ = settled(films, length_share=1.0, per_video=1000)
    assert [len(film.questions) for film in kept] == [495, 10]
    facts = report.Facts()
    for film in kept:
        report.count(facts, film)
    text = report.report(facts, {}, None, Sieve(length_share=1.0))
    assert "- 98 % of the questions are of count, more than sieve.family_share 0.5: the rest" in text
    assert "grounding, more than" not in text and "- answers of up to 5 words: 505\n" in text
    kept, _ = settled(films, length_share=1.0, balance_leaves=0.0)
    assert [len(film.questions) for film in kept] == [10, 10]


def test_no_length_of_answers_is_more_than_its_share() -> None:
    film = many("count", 60)
    answers = ["Two."] * 40 + ["At 10 seconds."] * 15 + ["The dog runs across the wide green grass."] * 5
    asked = [replace(one, answer=text) for one, text in zip(film.questions, answers, strict=True)]
    kept, asides = settled([replace(film, questions=tuple(asked))], length_share=0.5)
    sizes = Counter(len(one.answer.split()) for one in kept[0].questions)
    assert sizes == {1: 20, 3: 15, 8: 5} and {one.reason for one in asides} == {"more than sieve.length_share"}
    assert len(asides) == 20


def test_lengths_are_balanced_among_what_families_leave() -> None:
    """Answers that go with their family are not counted twice."""
    words = Film(video(), questions=tuple(replace(one, answer="Two.") for one in many("count", 80).questions))
    seconds = many("grounding", 40, key="b")
    seconds = replace(seconds, questions=tuple(replace(one, answer="At 10 seconds.") for one in seconds.questions))
    kept, asides = settled([words, seconds], family_share=0.5, length_share=0.5)
    assert [len(film.questions) for film in kept] == [40, 40]
    assert {one.reason for one in asides} == {"more than sieve.family_share"}


@given(st.lists(st.integers(1, 200), min_size=1, max_size=8), st.floats(0.05, 1), st.floats(0, 1))
def test_balance_leaves_what_it_is_to_leave(counts: list[int], share: float, leaves: float) -> None:
    sizes = {str(i): count for i, count in enumerate(counts)}
    least = round(leaves * sum(counts))
    plain, allowed = sieve.balanced(sizes, share), sieve.balanced(sizes, share, least)
    assert sum(allowed.values()) >= least
    if sum(plain.values()) >= least:
        assert allowed == plain
    else:
        cap = max(allowed.values())
        assert sum(min(size, cap - 1) for size in counts) < least  # and no more than that


@given(st.lists(st.integers(1, 200), min_size=1, max_size=8), st.floats(0.05, 1))
def test_balance_takes_as_little_as_it_can(counts: list[int], share: float) -> None:
    sizes = {str(i): count for i, count in enumerate(counts)}
    allowed = sieve.balanced(sizes, share)
    cap = max(allowed.values())
    assert all(allowed[name] == min(size, cap) for name, size in sizes.items())
    if allowed != sizes:
        assert cap <= share * sum(allowed.values())
        more = {name: min(size, cap + 1) for name, size in sizes.items()}
        assert cap + 1 > share * sum(more.values())


def test_caps_of_sources_videos_and_doubles() -> None:
    films = [many("count", 8, "one"), many("caption", 8, "two", "b")]
    kept, asides = settled(films, per_source=5, per_video=3)
    assert [len(film.questions) for film in kept] == [3, 3]
    assert {one.reason for one in asides} == {"more than sieve.per_source", "more than sieve.per_video"}
    same = [Film(video(key=key * 32), questions=(question(question="Again?"),)) for key in "abc"]
    kept, asides = settled(same, most_alike=2)
    assert len(kept) == 2 and asides[0].reason == "the same question and answer, too often"


# Records and replies.


def test_a_record_is_read_as_it_was_written_and_nothing_else_is() -> None:
    film = replace(told(*SIX), questions=tuple(by_templates(told(*SIX), Ask())))
    assert parse(FILM, line_of(film), "here") == film
    for line, words in (
        ("{", "here: this is no JSON"),
        ("[]", "a record is a JSON object, not list"),
        ('{"vidio": {}}', "here: unknown key 'vidio'"),
        ('{"video": {"key": 3}}', "video.key must be text, not 3"),
        ("{}", "video is missing"),
    ):
        with pytest.raises(ValueError, match=words):
            parse(FILM, line, "here")


def test_a_reply_is_a_json_list_or_prose() -> None:
    assert parse_list('```json\n[{"a": 1}]\n```') == parse_list(' [{"a": 1}] ') == [{"a": 1}]
    for text, words in (("Here are some questions:", "prose"), ('{"a": 1}', "no list")):
        with pytest.raises(ValueError, match=words):
            parse_list(text)


def test_events_of_one_film_are_drawn_without_a_bias_of_place() -> None:
    film = Film(
        video(600), (), tuple(Event(i * 10.0, i * 10.0 + 9, f"Thing{i} of kind{i}.", "seen", ()) for i in range(60))
    )
    places = [one.events[0] for one in drafts(film, ("grounding",), 60, random.Random(0))]
    assert len(set(places)) == 60
