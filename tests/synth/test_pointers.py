"""Indicator cards, chains, and when things are shown; and that nothing else has changed by them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from videochat_flash.grade import right
from videochat_flash.synth import (
    ALL_KINDS,
    CHARACTERS,
    COLOURS,
    EXTRA_KINDS,
    HOPS,
    KINDS,
    SHAPES,
    Card,
    Event,
    Labels,
    Mover,
    Pointer,
    Scene,
    ask,
    card_clip,
    card_frame,
    draw_card,
    make_chains,
    make_scene,
    random_chain,
    random_pointer,
    random_style,
    whole_seconds,
)
from videochat_flash.synth.draw import pointer_mask
from videochat_flash.synth.world import DIMMEST, Image8

GREY = np.full((120, 160, 3), 128, dtype=np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def digest(*parts: object) -> str:
    return hashlib.sha256("".join(map(str, parts)).encode()).hexdigest()[:16]


def indicator(seed: int) -> Card:
    card = Card(COLOURS[seed % 8], SHAPES[seed % 6], CHARACTERS[seed % 20])
    return random_pointer(rng(seed), card)


# What was there before is as it was: these numbers were taken before there were pointers.


def test_scenes_and_questions_are_those_of_before_pointers() -> None:
    def told(scene: Scene) -> list[tuple[object, ...]]:
        return [
            (event.start, event.length, type(event.what).__name__, event.what.colour, event.what.shape)
            + (event.what.character if isinstance(event.what, Card) else "",)
            + (event.style.x, event.style.scale, event.style.body, event.style.seed, event.style.pace)
            for event in scene.events
        ]

    assert digest([told(make_scene(rng(i), 60, 1.0, i % 6, i % 3)) for i in range(40)]) == "03cfeb38edbda4c1"
    asked = [one for i in range(20) for one in ask(rng(i), make_scene(rng(i), 60, 1.0, 4, 2), KINDS, 999)]
    assert digest([(one.question, one.answer, one.kind, one.seconds) for one in asked]) == "bf4fa7876608f8ca"
    assert all((one.chain, one.hops) == ("", 0) for one in asked)


@pytest.mark.parametrize(
    ("make", "labels", "pixels"),
    [
        (card_frame, "94a5b3b0786d7469", [133.2, 49.1, 74.3, 136.9, 117.5, 113.4, 119.2, 200.8, 134.1, 151.4, 82.9]),
        (card_clip, "41cffe05bcd94d58", [138.0, 54.9, 129.0, 129.7, 123.9, 146.2, 163.2, 125.9, 141.9, 129.2, 182.4]),
    ],
)
def test_frames_and_clips_are_those_of_before_pointers(
    make: Callable[[np.random.Generator], tuple[Image8, Labels]], labels: str, pixels: list[float]
) -> None:
    seen = hashlib.sha256()
    means = []
    for seed in range(12):
        image, grids = make(rng(seed))
        means.append(float(image.mean()))
        for name in ("colour", "shape", "character", "direction", "speed"):
            seen.update(getattr(grids, name).tobytes())
        assert not grids.pointer_colour.any() and not grids.pointer_shape.any()
    assert seen.hexdigest()[:16] == labels
    assert means[:11] == pytest.approx(pixels, abs=0.2)  # JPEG libraries differ by a little


def test_no_extra_kind_is_asked_unless_it_is_named() -> None:
    assert not set(KINDS) & set(EXTRA_KINDS) and set(ALL_KINDS) == {*KINDS, *HOPS, "grounding", "pointer"}
    scene = make_chains(rng(1), 60, hops=2, movers=1)
    assert not {one.kind for one in ask(rng(), scene, KINDS, 999)} & set(EXTRA_KINDS)
    assert {one.kind for one in ask(rng(), scene, EXTRA_KINDS, 999)} == set(EXTRA_KINDS)


# Drawing.


def test_card_and_pointer_lie_wholly_inside_frames_of_any_aspect_and_never_touch() -> None:
    for seed in range(150):
        height, width = rng(seed).integers(80, 240, 2).tolist()
        frame, card = np.zeros((height, width, 3), np.uint8), indicator(seed)
        style = random_style(rng(seed), card)
        aspect = None if seed % 2 else float(rng(seed).uniform(0.56, 1.9))
        _, mask = draw_card(frame, card, style, aspect)
        small = pointer_mask(frame, card, style, aspect)
        for one in (mask, small):
            assert one.shape == (height, width) and one.dtype == np.float32 and one.max() == 1
            assert not one[0].any() and not one[-1].any() and not one[:, 0].any() and not one[:, -1].any()
        assert not ((mask > 0) & (small > 0)).any()
        assert 0.05 < small.sum() / mask.sum() < 0.9


def test_a_pointer_has_its_colour_and_an_arrow_leads_to_it() -> None:
    for seed in range(40):
        card = Card("blue", SHAPES[seed % 6], "7", Pointer("red", SHAPES[seed % 5]))
        style = replace(random_style(rng(seed), card), plate=None, brightness=1.0, contrast=1.0, blur=0.0, outline=0.0)
        image, mask = draw_card(GREY, card, style)
        small = pointer_mask(GREY, card, style)
        assert style.pointer is not None
        body = np.abs(image.astype(int) - np.array(style.pointer.body)).max(-1) < 25
        assert body[small == 1].mean() > 0.85 and not body[(small == 0) & (mask == 0)].any()
        arrow = (np.abs(image.astype(int) - GREY).max(-1) > 60) & (small == 0) & (mask == 0)
        assert arrow.sum() > 20


def test_a_pointer_that_would_turn_brown_is_not_dimmed_far() -> None:
    cards = [Card("blue", "star", "7", Pointer(colour, "circle")) for colour in DIMMEST]
    for card in cards:
        assert card.points is not None
        styles = [random_style(rng(seed), card) for seed in range(60)]
        assert min(style.brightness for style in styles) >= DIMMEST[card.points.colour]


def test_an_indicator_needs_the_style_of_an_indicator() -> None:
    plain = Card("red", "star", "7")
    assert not pointer_mask(GREY, plain, random_style(rng(), plain)).any()
    with pytest.raises(ValueError, match="random_style of the card itself"):
        draw_card(GREY, indicator(1), random_style(rng(), plain))


# Labels.


@pytest.mark.parametrize("make", [card_frame, card_clip])
def test_a_pointer_is_labelled_on_its_card_and_on_itself(make: type) -> None:
    seen: Counter[str] = Counter()
    for seed in range(120):
        _, labels = make(rng(seed), pointers=0.6)
        _, again = make(rng(seed), pointers=0.6)
        assert all(np.array_equal(a, b) for a, b in zip(labels.__dict__.values(), again.__dict__.values(), strict=True))
        grids = [np.atleast_3d(grid) if grid.ndim == 2 else grid.transpose(1, 2, 0) for grid in vars(labels).values()]
        for frame in range(grids[0].shape[2]):
            colour, shape, character, direction, speed, ahead, form = (grid[..., frame] for grid in grids)
            assert np.array_equal(ahead > 0, form > 0) and len(np.unique(ahead[ahead > 0])) <= 1
            own = (ahead > 0) & (colour == 0)
            assert not shape[own].any() and not character[own].any()
            if not ahead.any():
                seen["none"] += 1
                continue
            seen["pointer"] += 1
            seen["itself"] += bool(own.any())
            assert (ahead[colour > 0] > 0).all() and character.any() and not direction.any() and not speed.any()
            assert (ahead.max(), form.max()) != (colour.max(), shape.max())
    assert seen["pointer"] > 30 and seen["none"] > 30 and seen["itself"] > 0.9 * seen["pointer"]


def test_a_share_of_the_cards_points() -> None:
    def shares(pointers: float) -> float:
        drawn = [card_frame(rng(seed), 112, pointers=pointers)[1] for seed in range(120)]
        cards = [labels for labels in drawn if labels.character.any()]
        return float(np.mean([labels.pointer_shape.any() for labels in cards]))

    assert shares(0.0) == 0 and 0.3 < shares(0.5) < 0.7 and shares(1.0) == 1


# Scenes.


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_chains_lead_to_their_ends_and_nothing_is_twice(hops: int, seed: int) -> None:
    scene = make_chains(rng(seed), 60, hops=hops, cards=seed % 3, movers=seed % 2)
    assert scene == make_chains(rng(seed), 60, hops=hops, cards=seed % 3, movers=seed % 2)
    whats = [event.what for event in scene.events]
    cards = [what for what in whats if isinstance(what, Card)]
    assert len(cards) == 2 * (hops + 1) + seed % 3 and len(whats) == len(cards) + seed % 2
    assert len({(what.colour, what.shape) for what in whats}) == len(whats)
    assert len({card.character for card in cards}) == len(cards)
    goals = [(card.points.colour, card.points.shape) for card in cards if card.points is not None]
    assert len(set(goals)) == len(goals) == 2 * hops
    pairs = {(what.colour, what.shape): i for i, what in enumerate(whats)}
    starts = [i for pair, i in pairs.items() if pair not in goals and getattr(whats[i], "points", None) is not None]
    assert sorted(len(scene.chain(i)) for i in starts) == [hops + 1] * 2
    assert all(early.end <= late.start for early, late in pairwise(scene.events))


def test_the_order_of_a_chain_in_time_is_random() -> None:
    forwards = 0
    for seed in range(60):
        scene = make_chains(rng(seed), 60, hops=1)
        [one, _] = [i for i, event in enumerate(scene.events) if getattr(event.what, "points", None) is not None]
        forwards += scene.chain(one)[1] > one
    assert 15 < forwards < 58


def test_pointers_that_lead_nowhere_or_around_are_no_chain() -> None:
    scene = make_chains(rng(2), 60, hops=2)
    start = next(i for i in range(len(scene.events)) if len(scene.chain(i)) == 3)
    last = scene.chain(start)[-1]
    cut = replace(scene, events=scene.events[:last] + scene.events[last + 1 :])
    assert len({one.chain for one in ask(rng(), cut, HOPS, 99)}) == 1
    first = scene.events[start].what
    around = replace(scene.events[last].what, points=Pointer(first.colour, first.shape))
    event = replace(scene.events[last], what=around)
    ring = replace(scene, events=(*scene.events[:last], event, *scene.events[last + 1 :]))
    assert ring.chain(start) == () and len({one.chain for one in ask(rng(), ring, HOPS, 99)}) == 1


def test_a_chain_is_unlike_what_is_taken() -> None:
    taken = random_chain(rng(1), 3)
    more = random_chain(rng(2), 3, taken)
    assert len({(card.colour, card.shape) for card in taken + more}) == 8
    assert [card.points is None for card in more] == [False] * 3 + [True]
    for card, ahead in pairwise(more):
        assert card.points == Pointer(ahead.colour, ahead.shape)


@pytest.mark.parametrize("seed", range(12))
def test_in_whole_seconds_the_same_frames_show_the_same(seed: int) -> None:
    scene = make_scene(rng(seed), 60, 1.0, 4, 2)
    whole = whole_seconds(scene)
    assert [scene.event_at(i) for i in range(60)] == [whole.event_at(i) for i in range(60)]
    for event, before in zip(whole.events, scene.events, strict=True):
        assert event.start == int(event.start) and event.end == int(event.end) and event.length >= 1
        assert event.what == before.what and event.style.seed == before.style.seed
        if isinstance(event.what, Mover):
            assert event.style.seconds == event.length


def test_frames_show_the_pointer_where_its_mask_is() -> None:
    scene = make_chains(rng(3), 30, hops=2, movers=1)
    for i in range(30):
        number = scene.event_at(i)
        points = number >= 0 and getattr(scene.events[number].what, "points", None) is not None
        assert scene.pointer(i, GREY).any() == points


# Questions.


@pytest.mark.parametrize("seed", range(20))
def test_answers_about_chains_follow_from_the_pointers(seed: int) -> None:
    hops = 1 + seed % 3
    scene = make_chains(rng(seed), 60, hops=hops, cards=2, movers=1)
    by_name = {f"{one.what.colour} {one.what.shape}": one for one in scene.events}
    asked = ask(rng(seed), scene, HOPS, 99)
    assert Counter(one.kind for one in asked) == dict.fromkeys(HOPS, 2)
    assert len({one.chain for one in asked}) == 2 and {one.hops for one in asked} == {hops}
    for one in asked:
        words = one.question.replace(".", " ").replace(":", " ").split()
        pairs = [f"{a} {b}" for a, b in pairwise(words) if a in COLOURS and b in SHAPES]
        assert pairs == [one.chain]
        events = [by_name[one.chain]]
        for _ in range(hops):
            what = events[-1].what
            assert isinstance(what, Card) and what.points is not None
            events.append(by_name[f"{what.points.colour} {what.points.shape}"])
        last = events[-1].what
        assert isinstance(last, Card) and last.points is None
        assert one.answer == getattr(last, one.kind.removeprefix("hop_"))
        ahead = [f"the {event.what.colour} {event.what.shape}" for event in events[1:]]
        assert one.way == (*ahead, "nothing") and one.thought == f"{', '.join(ahead)}, nothing: {one.answer}"
        assert right(one.thought, one.answer)
        assert one.seconds == (min(event.start for event in events), max(event.end for event in events))


def test_of_every_card_it_is_asked_what_it_points_at_by_whichever_name() -> None:
    ways = Counter[str]()
    for seed in range(20):
        scene = make_chains(rng(seed), 60, hops=2, cards=1)
        cards = [one.what for one in scene.cards if isinstance(one.what, Card)]
        asked = ask(rng(seed), scene, ["pointer"], 99)
        answers, questions = Counter[str](), Counter[str]()
        for card in cards:
            names = f" {card.colour} {card.shape} ", f" card with the {card.character} "
            [(one, name)] = [(one, name) for one in asked for name in names if name in one.question]
            ahead = card.points
            assert one.answer == (f"the {ahead.colour} {ahead.shape}" if ahead else "nothing")
            ways["sign" if "card with" in name else "thing"] += 1
            answers[one.answer] += 1
            questions[one.question] += 1
        assert len(asked) == len(cards) == len(questions) == 7
        assert len(answers) == 5 and answers["nothing"] == 3
    assert min(ways.values()) > 25


def test_a_chain_and_its_decoy_are_asked_for_in_the_same_words() -> None:
    wordings = set()
    for seed in range(60):
        asked = ask(rng(seed), make_chains(rng(seed), 60, hops=2), HOPS, 99)
        for kind in HOPS:
            [one] = {one.question.replace(one.chain, "thing") for one in asked if one.kind == kind}
            wordings.add((kind, one))
    assert len(wordings) == 18


@pytest.mark.parametrize("seed", range(15))
def test_when_something_is_shown_follows_from_the_frames(seed: int) -> None:
    scene = make_scene(rng(seed), 60, 1.0, 4, 2)
    asked = ask(rng(seed), scene, ("grounding",), 99)
    assert len(asked) == 6
    by_name = {f"{event.what.colour} {event.what.shape}": i for i, event in enumerate(scene.events)}
    for one in asked:
        [number] = [i for name, i in by_name.items() if name in one.question]
        shown = [i for i in range(60) if scene.event_at(i) == number]
        assert one.answer == f"From {shown[0]} to {shown[-1] + 1} seconds."
        assert one.seconds == (scene.events[number].start, scene.events[number].end)


def test_it_is_not_asked_when_something_is_shown_that_a_pointer_pictures() -> None:
    scene = make_chains(rng(4), 60, hops=2, cards=1, movers=1)
    asked = ask(rng(), scene, ("grounding",), 99)
    assert len(asked) == 2 + 1 + 1
    pictured = [event.what.points for event in scene.cards if isinstance(event.what, Card) and event.what.points]
    assert not any(f"{one.colour} {one.shape}" in question.question for one in pictured for question in asked)


def test_what_a_pointer_pictures_is_not_called_absent_and_not_asked_which_came_first() -> None:
    for seed in range(40):
        scene = make_chains(rng(seed), 60, hops=2, cards=2, movers=1)
        pictured = {(one.what.points.colour, one.what.points.shape) for one in scene.cards if one.what.points}
        asked = ask(rng(seed), scene, ("presence", "order"), 999)
        assert {one.kind for one in asked} == {"presence", "order"}
        for one in asked:
            if one.kind == "order" or one.answer == "no":
                assert not any(f"{colour} {shape}" in one.question for colour, shape in pictured)
    alone = Card("red", "star", "7", Pointer("blue", "circle"))
    scene = Scene(9, 1.0, (Event(1, 2, alone, random_style(rng(), alone)),))
    said = {one.question for seed in range(300) for one in ask(rng(seed), scene, ("presence",), 9)}
    assert len(said) > 20 and not any("blue circle" in one for one in said)
