"""Needle videos: the same seed gives the same bytes, labels lie where the shapes are, and questions have one answer."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from videochat_flash.synth import (
    CHARACTERS,
    COLOURS,
    DIRECTIONS,
    KINDS,
    SHAPES,
    SPEEDS,
    Card,
    Mover,
    Scene,
    ask,
    card_clip,
    card_frame,
    draw_card,
    draw_mover,
    make_scene,
    procedural,
    random_style,
)
from videochat_flash.synth.draw import diameters, mover_at
from videochat_flash.synth.glyphs import BITMAPS
from videochat_flash.synth.textures import texture
from videochat_flash.synth.training import covered
from videochat_flash.synth.world import DIMMEST, FONTS, RANGES, STEPS, distance, named_rgb

GREY = np.full((120, 160, 3), 128, dtype=np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene_of(seed: int, cards: int = 4, movers: int = 2) -> Scene:
    return make_scene(rng(seed), 60, 1.0, cards, movers)


# The world.


def test_the_bitmap_table_holds_the_twenty_characters_and_no_two_are_alike() -> None:
    assert set(BITMAPS) == set(CHARACTERS) and len(set(BITMAPS.values())) == 20
    assert all([len(row) for row in rows.split("/")] == [5] * 7 for rows in BITMAPS.values())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_colour_stays_nearer_to_its_own_range_than_to_any_other(colour: str) -> None:
    for seed in range(30):
        rgb = named_rgb(rng(seed), colour)
        mine = min(distance(rgb, end) for end in RANGES[colour])
        assert all(min(distance(rgb, end) for end in ends) > mine for name, ends in RANGES.items() if name != colour)


def test_dim_colours_that_would_turn_into_others_are_not_dimmed_far() -> None:
    for colour, dimmest in DIMMEST.items():
        styles = [random_style(rng(seed), Card(colour, "circle", "7")) for seed in range(60)]
        assert min(style.brightness for style in styles) >= dimmest


def test_an_unknown_font_is_refused() -> None:
    style = random_style(rng(), Card("red", "star", "7"))
    with pytest.raises(ValueError, match="font 'gothic' is not known"):
        type(style)(**{**style.__dict__, "font": "gothic"})


# Drawing.


def test_a_card_lies_wholly_inside_frames_of_any_aspect() -> None:
    for seed in range(60):
        height, width = rng(seed).integers(60, 200, 2).tolist()
        card = Card(COLOURS[seed % 8], SHAPES[seed % 6], CHARACTERS[seed % 20])
        image, mask = draw_card(np.zeros((height, width, 3), np.uint8), card, random_style(rng(seed), card))
        assert image.shape == (height, width, 3) and image.dtype == np.uint8
        assert mask.shape == (height, width) and mask.dtype == np.float32 and mask.max() == 1 and mask.min() == 0
        assert not mask[0].any() and not mask[-1].any() and not mask[:, 0].any() and not mask[:, -1].any()


def test_the_mask_is_where_the_image_changed_and_nowhere_else() -> None:
    for seed in range(20):
        card = Card("red", SHAPES[seed % 6], "7")
        style = random_style(rng(seed), card)
        plain = type(style)(**{**style.__dict__, "plate": None, "brightness": 1.0, "contrast": 1.0, "blur": 0.0})
        image, mask = draw_card(GREY, card, plain)
        changed = np.abs(image.astype(int) - GREY).max(-1) > 0
        assert changed[mask == 1].mean() > 0.98 and not changed[mask == 0].any()


@pytest.mark.parametrize("font", FONTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_character_stays_on_the_body_of_its_shape(shape: str, font: str) -> None:
    for character in CHARACTERS:
        card = Card("white", shape, character)
        style = random_style(rng(3), card)
        looks = {"body": (255, 255, 255), "ink": (255, 0, 0), "font": font, "height": 0.55, "blur": 0.0}
        looks |= {"plate": None, "brightness": 1.0, "contrast": 1.0, "outline": 0.0, "scale": 0.7}
        image, mask = draw_card(np.zeros((160, 160, 3), np.uint8), card, type(style)(**{**style.__dict__, **looks}))
        ink = (image[..., 0] > 200) & (image[..., 1] < 60)
        assert ink.sum() > 0.03 * mask.sum() and (mask[ink] > 0.6).mean() > 0.97


def test_a_drawing_leaves_the_frame_it_was_given_alone() -> None:
    frame, card = GREY.copy(), Card("red", "star", "7")
    draw_card(frame, card, random_style(rng(1), card))
    assert np.array_equal(frame, GREY)


def test_a_squashed_frame_squashes_the_shape() -> None:
    card = Card("red", "circle", "7")
    style = random_style(rng(4), card)
    for aspect in (0.56, 1.0, 1.9):
        _, mask = draw_card(np.zeros((200, 200, 3), np.uint8), card, style, aspect)
        high, wide = mask.any(1).sum(), mask.any(0).sum()
        assert high / wide == pytest.approx(aspect, rel=0.08)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("speed", SPEEDS)
def test_movers_go_their_way_at_their_pace(direction: str, speed: str) -> None:
    low, high = {"slowly": (0.06, 0.09), "fast": (0.16, 0.22)}[speed]
    for seed in range(8):
        mover = Mover("blue", SHAPES[seed % 6], direction, speed)
        style = random_style(rng(seed), mover, 7.0)
        sizes = [one / side for one, side in zip(diameters(120, 160, style.scale, None), (160, 120), strict=True)]
        path = [mover_at(mover, style, t, *sizes) for t in range(7)]
        assert all(0 < x < 1 and 0 < y < 1 for x, y, _ in path)
        for (x0, y0, lap0), (x1, y1, lap1) in pairwise(path):
            step_x, step_y = STEPS[direction]
            along, aside = (x1 - x0, y1 - y0) if step_x else (y1 - y0, x1 - x0)
            assert aside == 0
            if lap0 == lap1:
                assert low <= along * (step_x + step_y) <= high + 1e-9
            else:
                assert speed == "fast" and along * (step_x + step_y) < 0
        assert draw_mover(GREY, mover, style, 3.0)[1].max() == 1


# Haystacks.


def test_a_haystack_gives_the_same_frames_in_any_order_and_changes_slowly_with_cuts() -> None:
    stack = procedural(rng(2), 90, 120)
    frames = [stack.frame(i) for i in range(80)]
    assert all(frame.shape == (90, 120, 3) and frame.dtype == np.uint8 for frame in frames)
    again = procedural(rng(2), 90, 120)
    assert all(np.array_equal(frames[i], again.frame(i)) for i in (70, 3, 41, 0))
    steps = [np.abs(a.astype(float) - b).mean() for a, b in pairwise(frames)]
    assert max(steps) > 3 * np.median(steps)
    assert stack.frame(10**6).shape == (90, 120, 3)


def test_haystacks_are_varied() -> None:
    means = np.array([procedural(rng(seed), 64, 64).frame(0).mean((0, 1)) for seed in range(40)])
    assert means.std(0).min() > 25


def test_tiny_haystacks_can_be_drawn_too() -> None:
    for seed in range(400):
        assert texture(rng(seed), 48, 48).size == (48, 48)


# Scenes.


@pytest.mark.parametrize("seed", range(25))
def test_events_never_overlap_and_everything_is_unique(seed: int) -> None:
    scene = scene_of(seed, cards=seed % 7, movers=seed % 4)
    assert (len(scene.cards), len(scene.movers)) == (seed % 7, seed % 4)
    whats = [event.what for event in scene.events]
    assert len({(what.colour, what.shape) for what in whats}) == len(whats)
    signs = [what.character for what in whats if isinstance(what, Card)]
    assert len(set(signs)) == len(signs)
    for early, late in pairwise(scene.events):
        assert early.end <= late.start
    for i, event in enumerate(scene.events):
        low, high = (1, 4) if isinstance(event.what, Card) else (6, 8)
        assert low <= event.length <= high and event.start >= 0 and event.end <= scene.duration
        assert any(scene.event_at(t) == i for t in range(60))


@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0, 3.3])
def test_every_event_is_in_a_frame_at_any_rate_even_in_a_full_video(fps: float) -> None:
    for seed in range(20):
        scene = make_scene(rng(seed), round(21 * fps) + 1, fps, cards=4, movers=1)
        assert {scene.event_at(i / fps) for i in range(round(21 * fps) + 1)} >= set(range(5))


def test_a_scene_that_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match="2 cards and 1 movers need 8 s, but 7 frames at 1 a second last 7 s"):
        make_scene(rng(), 7, 1.0, 2, 1)
    with pytest.raises(ValueError, match="all 20 characters are taken"):
        make_scene(rng(), 100, 1.0, 21, 0)


def test_frames_show_the_event_of_their_time_and_leave_the_others_alone() -> None:
    scene = scene_of(5)
    for i in range(60):
        image, mask, number = scene.frame(i, GREY)
        assert number == scene.event_at(i)
        assert mask.any() == (number >= 0)
        assert (number >= 0) or np.array_equal(image, GREY)
        again, _, _ = scene.frame(i, GREY)
        assert np.array_equal(image, again)


def test_a_card_is_almost_still_while_it_is_shown() -> None:
    for seed in range(10):
        scene = scene_of(seed)
        for number, event in enumerate(scene.events):
            masks = [scene.frame(i, GREY)[1] for i in range(60) if scene.event_at(i) == number]
            for a, b in pairwise(masks):
                moved = np.abs(a - b).sum() / a.sum()
                assert moved < 0.1 if isinstance(event.what, Card) else moved > 0.15


# Questions.


@pytest.mark.parametrize("seed", range(20))
def test_answers_follow_from_the_scene(seed: int) -> None:
    scene = scene_of(seed)
    by_name = {f"{event.what.colour} {event.what.shape}": event for event in scene.events}
    by_sign = {event.what.character: event for event in scene.events if isinstance(event.what, Card)}
    for one in ask(rng(seed), scene, KINDS, 1000):
        words = one.question.replace("?", " ").replace(".", " ").replace(",", " ").replace(":", " ").split()
        pairs = [f"{a} {b}" for a, b in pairwise(words) if a in COLOURS and b in SHAPES]
        signs = [word for word in words if word in by_sign]
        if one.kind in ("colour", "shape", "description"):
            [sign] = signs
            event = by_sign[sign]
            what = event.what
            assert one.answer in (what.colour, what.shape) or {what.colour, what.shape, f"{sign}."} <= set(
                one.answer.split()
            )
        elif one.kind == "presence":
            [pair] = pairs
            assert one.answer == ("yes" if pair in by_name else "no")
            colour, shape = pair.split()
            assert any(colour == event.what.colour or shape == event.what.shape for event in scene.events)
            [said] = one.way  # what is most like it; and by this alone the answer is known
            like = said.removeprefix("the ")
            assert (
                like in by_name
                and (like == pair) == (one.answer == "yes")
                and one.thought == f"the {like}: {one.answer}"
            )
            assert like.split()[0] == colour or all(colour != event.what.colour for event in scene.events)
            assert colour in like or shape in like
            if pair not in by_name:
                assert one.seconds == (0.0, scene.duration)
                continue
            event = by_name[pair]
        elif one.kind == "order":
            first, second = sorted((by_name[pair] for pair in pairs), key=lambda event: event.start)
            assert one.answer == f"the {first.what.colour} {first.what.shape}"
            assert one.seconds == (first.start, second.end)
            assert one.way == tuple(
                f"the {pair} at {math.ceil(by_name[pair].start)}" for pair in pairs
            )  # as they are named
            continue
        else:
            event = by_name[pairs[0]]
            expected = {"character": "character", "motion": "direction", "speed": "speed"}[one.kind]
            assert one.answer == getattr(event.what, expected)
            if one.kind == "character":
                assert ("digit" in words) == one.answer.isdigit() != ("letter" in words)
        assert one.seconds == (event.start, event.end)


def test_no_question_is_asked_twice_with_another_answer() -> None:
    for seed in range(20):
        questions = ask(rng(seed), scene_of(seed), KINDS, 1000)
        texts = [one.question for one in questions]
        assert len(set(texts)) == len(texts)


def test_presence_is_balanced_and_every_template_is_used() -> None:
    questions = [one for seed in range(60) for one in ask(rng(seed), scene_of(seed), ("presence",), 1)]
    yes = sum(one.answer == "yes" for one in questions)
    assert 18 <= yes <= 42
    openings = Counter(one.question.split()[0] for one in questions)
    assert set(openings) == {"Is", "Does", "Can"}


def test_articles_are_as_spoken() -> None:
    said = " ".join(
        one.question + " " + one.answer for seed in range(80) for one in ask(rng(seed), scene_of(seed), KINDS, 99)
    )
    for wrong in ("a orange", "an red", "a 8", "an 7", "a F", "an K", "a A", "an T", "A orange"):
        assert f" {wrong}" not in said
    for right in (" an 8", " a 7", " an F", " a K", " an orange"):
        assert right in said


def test_ask_keeps_to_the_count_and_refuses_kinds_it_does_not_know() -> None:
    scene = scene_of(9)
    assert len(ask(rng(), scene, KINDS, 5)) == 5
    assert {one.kind for one in ask(rng(), scene, KINDS, 8)} == set(KINDS)
    assert ask(rng(), make_scene(rng(), 10, 1.0, 1, 0), ("motion",), 3) == []
    with pytest.raises(ValueError, match="'colr'"):
        ask(rng(), scene, ("colr",), 1)


def test_the_same_seed_asks_the_same() -> None:
    assert ask(rng(3), scene_of(3), KINDS, 20) == ask(rng(3), scene_of(3), KINDS, 20)
    assert scene_of(3) == scene_of(3) != scene_of(4)


# Frames and clips for training.


@pytest.mark.parametrize("make", [card_frame, card_clip])
def test_the_same_seed_gives_the_same_bytes(make: type) -> None:
    for seed in range(5):
        (first, labels), (second, again) = make(rng(seed)), make(rng(seed))
        assert first.tobytes() == second.tobytes()
        assert all(np.array_equal(a, b) for a, b in zip(labels.__dict__.values(), again.__dict__.values(), strict=True))
    assert make(rng(1))[0].tobytes() != make(rng(2))[0].tobytes()


def test_frame_labels_agree_with_one_another() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(150):
        image, labels = card_frame(rng(seed))
        assert image.shape == (224, 224, 3) and image.dtype == np.uint8
        assert all(grid.shape == (14, 14) and grid.dtype == np.int8 for grid in labels.__dict__.values())
        on = labels.colour > 0
        assert np.array_equal(on, labels.shape > 0)
        assert all(len(np.unique(grid[on])) <= 1 and not grid[~on].any() for grid in labels.__dict__.values())
        assert not labels.direction.any() and not labels.speed.any()
        kinds["card" if labels.character.any() else "mover" if on.any() else "nothing"] += 1
    assert kinds["card"] > 80 and 15 < kinds["nothing"] < 50 and 3 < kinds["mover"] < 35


def test_a_patch_is_labelled_from_a_quarter_of_its_area_on() -> None:
    mask = np.zeros((32, 32), dtype=np.float32)
    mask[:8, :8], mask[16:, 16:24], mask[:7, 16:24] = 1, 1, 1
    assert covered(mask, 2).tolist() == [[True, False], [False, True]]


def test_labelled_patches_have_the_colour_that_they_say() -> None:
    right = total = 0
    for seed in range(120):
        image, labels = card_frame(rng(seed))
        ys, xs = np.nonzero(labels.colour)
        if len(ys) < 4:
            continue
        # The body is the commonest colour on the labelled patches, but for what lies around a thin shape.
        pixels = np.concatenate(
            [image[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].reshape(-1, 3) for y, x in zip(ys, xs, strict=True)]
        )
        middles = {name: np.mean(ends, axis=0) for name, ends in RANGES.items()}
        votes = Counter(
            min(middles, key=lambda name: float(np.linalg.norm(middles[name] - pixel))) for pixel in pixels[::37]
        )
        total += 1
        right += COLOURS[int(labels.colour.max()) - 1] in [name for name, _ in votes.most_common(2)]
    assert total > 60 and right > 0.9 * total


def test_clips_hold_all_that_they_should() -> None:
    seen: Counter[str] = Counter()
    for seed in range(120):
        images, labels = card_clip(rng(seed))
        assert images.shape == (4, 224, 224, 3) and labels.colour.shape == (4, 14, 14)
        cards = [int(grid.max()) for grid in labels.character]
        shown = [int(grid.max()) for grid in labels.colour]
        ways = {int(value) for value in np.unique(labels.direction)} - {0}
        assert len(ways) <= 1 and bool(ways) == bool(labels.speed.any())
        seen["mover"] += bool(ways)
        seen["nothing"] += not any(shown)
        seen["starts or ends"] += any(cards) and 0 in cards
        seen["two"] += len(set(cards) - {0}) == 2
        seen["still"] += len(set(cards)) == 1 and cards[0] > 0
    assert all(seen[kind] >= 5 for kind in ("mover", "nothing", "starts or ends", "two", "still")), seen


def test_real_frames_can_be_the_haystack_and_other_sizes_the_target() -> None:
    image, labels = card_frame(rng(1), 112, GREY)
    assert image.shape == (112, 112, 3) and labels.colour.shape == (7, 7)
    images, _ = card_clip(rng(1), 112, 3, [GREY] * 3)
    assert images.shape == (3, 112, 112, 3)
