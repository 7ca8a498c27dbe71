"""Items: what is asked is answered by what is shown, options are in the video, lists are read strictly."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from videochat_flash import grade
from videochat_flash.niah import items, lists
from videochat_flash.niah.items import Item, Question
from videochat_flash.synth import ATTRIBUTES
from videochat_flash.synth.questions import sort_of

pytestmark = pytest.mark.usefixtures("unchecked")


def answer(question: Question) -> str:
    return question.options[question.answer]


@pytest.mark.parametrize("number", range(6))
def test_a_single_card_is_asked_for_what_the_question_does_not_name(number: int) -> None:
    item = items.single(1, number, "words")
    [needle], [question] = item.needles, item.questions
    colour, shape, character = needle.card
    assert answer(question) == {"colour": colour, "shape": shape, "character": character}[question.kind]
    assert re.search(rf"\b{answer(question)}\b", question.text) is None
    assert question.guess == 1 / len(question.options) and len(question.options) in (6, 8, 10)
    assert item == items.single(1, number, "words") != items.single(2, number, "words")
    lettered = items.single(1, number, "letters").questions[0]
    assert len(lettered.options) == 4 and answer(lettered).endswith(answer(question))
    assert lettered.text == question.text and not any(len(one) == 1 for one in lettered.options)


@settings(max_examples=40)
@given(seed=st.integers(0, 99), stacks=st.integers(1, 7), blocks=st.integers(1, 3))
def test_every_haystack_is_asked_for_every_kind_as_often(seed: int, stacks: int, blocks: int) -> None:
    """Items are dealt out in turn: a kind in turn as well would be one haystack's own, where there are three."""
    kinds = [items.kind_of(seed, number, stacks) for number in range(3 * stacks * blocks)]
    for stack in range(stacks):
        assert Counter(kinds[stack::stacks]) == dict.fromkeys(ATTRIBUTES, blocks)
    for count in range(len(kinds)):  # of the first few, too
        some = Counter(kinds[:count])
        assert max(some[kind] for kind in ATTRIBUTES) - min(some[kind] for kind in ATTRIBUTES) <= 2
    assert kinds[:stacks] == [items.kind_of(seed, number, stacks) for number in range(stacks)]


def test_kinds_do_not_come_in_turn() -> None:
    drawn = {tuple(items.kind_of(seed, n, 1) for n in range(6)) for seed in range(60)}
    assert len(drawn) > 20  # of the 36 that two blocks can be


def followed(item: Item, start: int) -> tuple[str, ...]:
    """The card at the end of the pointers."""
    cards = [needle.card for needle in item.needles]
    at = cards[start]
    while len(at) == 5:
        [at] = [one for one in cards if one[:2] == at[3:]]
    return at


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
@pytest.mark.parametrize("decoys", [0, 1, 2])
@pytest.mark.parametrize("way", ["words", "letters"])
def test_only_who_follows_the_chain_knows(hops: int, decoys: int, way: items.Way) -> None:
    item = items.multi(3, 5, hops, decoys, way)
    cards = [needle.card for needle in item.needles]
    assert len(cards) == (hops + 1) * (decoys + 1) and len(item.chain) == hops + 1
    assert sum(len(card) == 3 for card in cards) == decoys + 1
    end = followed(item, item.chain[0])
    assert end == cards[item.chain[-1]] and len(end) == 3
    shown = {word for card in cards for word in card[:3]}
    for question in item.questions:
        start = cards[item.chain[0]]
        assert f"{start[0]} {start[1]}" in question.text and f"{end[0]} {end[1]}" not in question.text
        value = answer(question)
        assert all(word in end for word in value.split() if word not in ("the", "a", "an", "digit", "letter"))
        if way == "letters":
            assert 2 <= len(question.options) <= 4
            assert all(set(one.split()) - {"the", "a", "an", "digit", "letter"} <= shown for one in question.options)
    roles = [question.role for question in item.questions]
    assert roles.count("qa") == 1 and roles.count("cap") == (2 if way == "words" else 1)
    if decoys:
        for true, flipped in zip(item.questions, item.flipped, strict=True):
            kind = {"colour": 0, "shape": 1, "character": 2}.get(true.kind)
            assert (true.role, true.kind) == (flipped.role, flipped.kind)
            starts = [i for i, card in enumerate(cards) if f"{card[0]} {card[1]}" in flipped.text]
            assert len(starts) == 1 and starts[0] not in item.chain
            end = followed(item, starts[0])
            value = answer(flipped).split()[-1]
            assert true.guess <= 1 / (decoys + 1) and end != cards[item.chain[-1]]
            assert value == end[kind] if kind is not None else f"{end[0]} {end[1]}" in answer(flipped)
    else:
        assert item.flipped == ()


def test_no_hops_ask_of_the_card_that_is_named() -> None:
    for number in range(8):
        item = items.multi(0, number, 0, 2, "words")
        [question] = item.questions
        assert question.role == "qa" and answer(question) == item.needles[item.chain[0]].card[2]
        [flipped] = item.flipped
        assert flipped.text != question.text and answer(flipped) != answer(question)
        sorts = {sort_of(str(needle.card[2])) for needle in item.needles}
        assert len(sorts) == 1 and sorts.pop() in question.text  # or the words would tell one from the other


def test_letters_are_drawn_and_turned() -> None:
    question = items.single(0, 0, "letters").questions[0]
    turned = [items.ordered(question, 0, "x", rotation, "letters") for rotation in range(4)]
    assert {one.answer for one in turned} == {0, 1, 2, 3}
    assert {answer(one) for one in turned} == {answer(question)}
    assert turned[1].options == (*turned[0].options[1:], turned[0].options[0])
    text = items.wording(turned[0], "letters")
    assert f"({grade.LETTERS[turned[0].answer]}) {answer(question)}\n" in text
    assert items.wording(question, "words") == question.text
    first = [
        items.ordered(items.single(0, n, "letters").questions[0], 0, str(n), 0, "letters").answer for n in range(60)
    ]
    assert all(first.count(letter) > 5 for letter in range(4))


# Lists.

TRAILER = "\nOptions: (A) blue\n(B) brown\n(C) pink\n(D) gray\nOnly give the best option. Best option: ("
SINGLE = {
    "question": f"Find the frame of a parrot on a wooden chair. what is the color of the chair{TRAILER}",
    "answer": "B",
    "image": "single/COCO_val2014_000000000042.jpg",
    "id": 0,
}


def pictures(root: Path, *names: str) -> None:
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((12, 16, 3), 20 * i, np.uint8)).save(path)


def chained(ranks: list[int]) -> dict[str, object]:
    """A made-up multi-hop entry; rank 0 is the image without a number."""
    names = [f"multi/niah_900_{k}_COCO_val2014_{k:012d}.jpg" if k else "multi/COCO_val2014_99.jpg" for k in ranks]
    clue = "Find the frame of a cat in a sink. Locate the final frame based on the instructions in the image, and "
    return {
        "images": names,
        "question1": f"{clue}choose the captions that best describe the frame: {TRAILER}",
        "answer1": "C",
        "question2": f"{clue}answer the following question based on the final frame: what is it{TRAILER}",
        "answer2": "A",
    }


def saved(folder: Path, entries: object) -> Path:
    path = folder / "list.json"
    path.write_text(json.dumps(entries))
    return path


def test_the_official_single_list(tmp_path: Path) -> None:
    pictures(tmp_path, SINGLE["image"])
    [item] = lists.read_list(saved(tmp_path, [SINGLE]), None)
    [question] = item.questions
    assert question.exact == SINGLE["question"] and question.options == ("blue", "brown", "pink", "gray")
    assert question.text == "Find the frame of a parrot on a wooden chair. what is the color of the chair"
    assert (answer(question), item.suite, question.guess) == ("brown", "single", 0.25)


@pytest.mark.parametrize(
    ("ranks", "chain"),
    [
        ([3, 0, 1, 5, 4], (2, 1)),
        ([2, 6, 1, 0, 4, 5], (2, 0, 3)),
        ([0, 7, 3, 5, 1, 2, 6], (4, 5, 2, 0)),
    ],
)
def test_the_official_multi_list(ranks: list[int], chain: tuple[int, ...], tmp_path: Path) -> None:
    entry = chained(ranks)
    pictures(tmp_path / "images", *[])
    (tmp_path / "images").mkdir()
    pictures(tmp_path / "images", *entry["images"])  # type: ignore[misc]
    [item] = lists.read_list(saved(tmp_path, [entry]), tmp_path / "images")
    assert item.chain == chain and item.hops == len(chain) - 1 and len(item.needles) == len(ranks)
    assert [(one.role, answer(one)) for one in item.questions] == [("cap", "pink"), ("qa", "blue")]


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    pictures(tmp_path, "kite.png")
    entry = {"image": "kite.png", "question": "Which kite?", "options": ["red", "blue"], "answer": "blue"}
    [item] = lists.read_list(saved(tmp_path, [entry]), None)
    assert answer(item.questions[0]) == "blue" and len(item.needles[0].sha256) == 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "single/none.jpg"}, "none.jpg is missing"),
        ({"answer": "E"}, "'E' is not one of A, B, C, D"),
        ({"answer": ""}, "'' is not one of A, B, C, D"),
        ({"answer": "CD"}, "'CD' is not one of A, B, C, D"),
        ({"answer": None}, "None is not one of A, B, C, D"),
        ({"question": 5}, "expected string"),
        ({"question": "what?"}, "does not end with options"),
        ({"question": f"what?{TRAILER.replace('(C)', '(D)')}"}, "lettered A, B, D, D"),
        ({"more": 1}, "has keys"),
    ],
)
def test_lists_that_do_not_fit(change: dict[str, object], words: str, tmp_path: Path) -> None:
    pictures(tmp_path, SINGLE["image"])
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)) as error:
        lists.read_list(saved(tmp_path, [SINGLE, {**SINGLE, **change}]), None)
    assert "entry 1" in str(error.value)


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is missing"):
        lists.read_list(tmp_path / "none.json", None)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        lists.read_list(tmp_path / "bad.json", None)
    for entries in ({}, []):
        with pytest.raises(ValueError, match="not a JSON list"):
            lists.read_list(saved(tmp_path, entries), None)
    pictures(tmp_path, SINGLE["image"])
    entry = chained([3, 0, 1, 5, 4])
    pictures(tmp_path, *entry["images"])  # type: ignore[misc]
    with pytest.raises(ValueError, match="mixes"):
        lists.read_list(saved(tmp_path, [SINGLE, entry]), None)


@pytest.mark.parametrize("ranks", [[1, 2, 3], [0, 0, 1], [1, 1, 0], [0, 5, 6]])
def test_names_that_break_the_hop_rank_rule(ranks: list[int]) -> None:
    names = [f"niah_1_{k}_x.jpg" if k else f"{i}.jpg" for i, k in enumerate(ranks)]
    with pytest.raises(ValueError, match="hop-rank rule"):
        lists.true_chain(names)
