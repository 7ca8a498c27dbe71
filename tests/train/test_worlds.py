"""Drawn conversations: what they say is what is shown, whoever draws them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import stage
import tiny
import torch
from safetensors.torch import load_file, save_file

from videochat_flash.config import PIXEL_MEAN, PIXEL_STD, Config, LLMConfig, VisionConfig
from videochat_flash.merge import merge_tokens
from videochat_flash.synth import COLOURS, SHAPES, Card, Mover, Scene, card_clip, scene_frames
from videochat_flash.synth.questions import ask, chains
from videochat_flash.train.learner import Learner
from videochat_flash.train.loop import METRICS
from videochat_flash.train.parallel import join
from videochat_flash.train.recipe import Recipe, Source, load_recipe
from videochat_flash.train.samples import Samples
from videochat_flash.train.splice import TRIES, Bank, compressed, fill, fits, random_cuts, small_scene, stretched
from videochat_flash.train.stage import fill_banks, losses, read_data, train
from videochat_flash.train.teach import SIZES, TERMS, Teacher, shares, sizes, taught
from videochat_flash.train.worlds import HELD, Drawn, World, draw_pixels, drawing, questions, shown
from videochat_flash.weights import find, read_tokenizer

CONFIG = Config(
    vision=VisionConfig(image_size=96, width=24, depth=3, heads=2, mlp_width=48),
    llm=LLMConfig(vocab=512, width=32, layers=3, heads=2, kv_heads=1, ffn=32, max_positions=4096, tied=True),
)
VIDEOS = World("videos", count=4, clips=(8, 8), cards=(1, 2), moving=(0, 1), hops=(1, 1), pieces=300, seed=7)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder = tmp_path_factory.mktemp("pieces")
    fill(folder, tiny.model(CONFIG), VIDEOS, 0)
    return Bank(folder, VIDEOS)


def video_of(bank: Bank, rng: np.random.Generator, world: World) -> tuple[torch.Tensor, Scene]:
    """Of as many clips as its chance says first."""
    return bank.video(rng, world, world.length(rng))


@pytest.mark.parametrize("kind", ["frames", "clips"])
def test_the_same_number_is_the_same_conversation(kind: str) -> None:
    one = Drawn("a", "b", World(kind, count=9), 3, 5)  # type: ignore[arg-type]
    first, second = draw_pixels(one, 96), draw_pixels(one, 96)
    assert torch.equal(first[0], second[0]) and first[2] == second[2]
    assert first[0].shape == (1, 1 if kind == "frames" else 4, 96, 96, 3) and first[0].dtype == torch.uint8


def test_a_share_of_what_is_drawn_is_only_looked_at() -> None:
    def drawn(talk: float, index: int) -> tuple[torch.Tensor, bool]:
        pixels, _, turns = draw_pixels(Drawn("", "", World("frames", talk=talk), 1, index), 96)
        return pixels, bool(turns)

    some = [drawn(0.5, i) for i in range(40)]
    assert 10 < sum(talks for _, talks in some) < 30
    assert all(torch.equal(pixels, drawn(1.0, i)[0]) and drawn(1.0, i)[1] for i, (pixels, _) in enumerate(some[:5]))


def test_what_is_only_looked_at_teaches_the_tower_and_leaves_the_conversations_alone() -> None:
    recipe = Recipe("out", model="flash-tiny", image_size=96)
    some = [Drawn("a", "b", World("clips", talk=talk), 1, i) for i, talk in ((0, 1.0), (1, 0.0), (2, 0.0))]
    samples = Samples(recipe, CONFIG, read_tokenizer(find("flash-tiny")), some)
    with tiny.seeded():
        net = Learner(tiny.model(CONFIG), teach=1.0)
    sums, counts, taught = net([samples[i] for i in range(3)])
    alone, own, _ = net([samples[0]])
    torch.testing.assert_close((sums, counts), (alone, own))
    silent, none, told = net([samples[1], samples[2]])
    assert len(silent) == len(none) == 0 and told > 0
    taught.backward()
    assert net.model.vision.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("seed", range(12))
def test_a_clip_is_told_as_its_patches_say(seed: int) -> None:
    _, labels = card_clip(np.random.default_rng(seed), movers=0.3, pointers=0.5)
    scene = shown(labels)
    for event in scene.events:
        for second in range(int(event.start), int(event.end)):
            assert (labels.shape[second] > 0).any()
        if isinstance(event.what, Card) and event.what.points is not None:
            assert (labels.pointer_shape[int(event.start)] > 0).any()
    assert sum(int(event.length) for event in scene.events) == sum((frame > 0).any() for frame in labels.shape)
    asked = questions(np.random.default_rng(1), scene)
    assert asked and len({one.question for one in asked}) == len(asked)


def test_lessons_say_when_a_thing_is_seen_and_where_it_goes() -> None:
    for seed in range(40):
        _, labels = card_clip(np.random.default_rng(seed), movers=1.0)
        lesson = taught(labels)
        if (labels.direction > 0).any():
            break
    there = (labels.shape > 0).any((1, 2))
    assert lesson.seen[lesson.values[:, 1] > 0].tolist() == [there.astype(int).tolist()] * (labels.shape > 0).sum()
    assert (lesson.seen[lesson.values[:, 1] == 0] == -1).all()
    assert np.isnan(lesson.track).reshape(4, 2).all(axis=1).tolist() == (~(labels.direction > 0).any((1, 2))).tolist()


def test_a_teacher_is_pleased_by_what_is_right() -> None:
    lessons = [draw_pixels(Drawn("", "", World("clips"), 1, i), 96)[1][0] for i in range(3)]
    values = torch.from_numpy(np.stack([one.values for one in lessons])).long()
    right = [torch.nn.functional.one_hot(part, n) * 20.0 for part, n in zip(values.unbind(-1), SIZES, strict=True)]
    knows = torch.cat([*right, torch.zeros(3, 4 * 36, 12)], -1)
    with tiny.seeded():
        teacher = Teacher(knows.shape[-1], 6)
        teacher.what = torch.nn.Identity()  # type: ignore[assignment]
        guesses = torch.randn(knows.shape)
        weights = torch.from_numpy(shares(sizes(lessons)[None])[0]).float()
        assert teacher(knows, guesses, lessons) @ weights < teacher(guesses, guesses, lessons) @ weights - 5


def test_a_lesson_weighs_the_same_whatever_it_is_told_with() -> None:
    kinds = ("frames", "clips", "clips", "clips")
    lessons = [draw_pixels(Drawn("", "", World(kind), 1, i), 96)[1][0] for i, kind in enumerate(kinds)]  # type: ignore[arg-type]
    pictures, clips = sizes(lessons[:1]), sizes(lessons[1:])
    assert np.array_equal(clips, sum(sizes([one]) for one in lessons[1:])) and clips[0] == 3
    weights = shares(np.stack([clips, pictures]))
    asked = dict(zip(TERMS, weights[0] * clips[1:], strict=True))
    assert asked["place"] == pytest.approx(0.75) and asked["no colour"] == pytest.approx(0.75 / 2)
    assert weights[1][[*TERMS].index("no direction")] == 0  # or pictures would teach that nothing moves
    assert not shares(np.zeros_like(np.stack([clips, pictures]))).any()


def test_pieces_are_made_once_and_anew_for_another_tower(tmp_path: Path) -> None:
    few = World("videos", pieces=12)
    fill(tmp_path, tiny.model(CONFIG), few, 0)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_ino  # writing beside and renaming makes another file
    fill(tmp_path, tiny.model(CONFIG), few, 0)
    assert path.stat().st_ino == before
    fill(tmp_path, tiny.model(CONFIG, seed=1), few, 0)
    assert path.stat().st_ino != before


def test_processes_make_pieces_together_and_they_are_those_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videochat_flash.train.splice.PART", 4)
    few, net = World("videos", pieces=10), tiny.model(CONFIG)
    fill(tmp_path / "one", net, few, 0)
    for rank in (1, 0):
        fill(tmp_path / "two", net, few, 0, rank, 2)
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert len(one) == 3 and [path.name for path in one] == [path.name for path in two]
    for mine, theirs in zip(one, two, strict=True):
        assert torch.equal(load_file(mine)["tokens"], load_file(theirs)["tokens"])


def test_lengths_of_videos_double_as_often_as_they_halve() -> None:
    world = replace(VIDEOS, clips=(1, 255))
    lengths = np.array([world.length(np.random.default_rng(seed)) for seed in range(4000)])
    octaves = np.bincount(np.log2(lengths).astype(int), minlength=8)
    assert (lengths.min(), lengths.max(), len(octaves)) == (1, 255, 8)
    assert 420 < octaves.min() <= octaves.max() < 580


def test_spliced_videos_hold_chains_and_nothing_twice(bank: Bank) -> None:
    assert len(bank.tokens) == sum(round(small_scene(7, i, VIDEOS.pointers).duration / 4) for i in range(300))
    pairs_of = Counter[int]()
    for seed in range(30):
        tokens, scene = video_of(bank, np.random.default_rng(seed), VIDEOS)
        assert len(tokens) == VIDEOS.length(np.random.default_rng(seed))
        assert tokens.shape == (8, 64, 24) and scene.duration == 32
        pairs = [(event.what.colour, event.what.shape) for event in scene.events]
        characters = [event.what.character for event in scene.cards if isinstance(event.what, Card)]
        assert len(set(pairs)) == len(pairs) and len(set(characters)) == len(characters)
        assert all(event.end <= 32 for event in scene.events)
        pairs_of[len(chains(scene))] += 1
    assert pairs_of[2] > 15 and pairs_of[2] + pairs_of[0] == 30, (pairs_of, TRIES)  # a chain alone is told unfollowed


def test_cards_of_a_chain_share_a_clip_with_others_too(bank: Bank) -> None:
    """As they do in rendered videos that are full."""
    alone = replace(VIDEOS, clips=(12, 12), cards=(0, 0), moving=(0, 0), hops=(1, 1))
    shared = 0
    for seed in range(20):
        scene = video_of(bank, np.random.default_rng(seed), alone)[1]
        clips = [{int(event.start // 4), int(event.end // 4)} for event in scene.events]
        linked = {i for chain in chains(scene) for i in chain}
        shared += sum(bool(clips[i] & clips[j]) for i in linked for j in range(len(clips)) if i != j)
    assert shared > 5, shared


def test_where_two_long_chains_find_no_room_two_shorter_ones_do(bank: Bank) -> None:
    long = replace(VIDEOS, clips=(5, 5), cards=(0, 0), moving=(0, 0), hops=(3, 3))
    found = [chains(video_of(bank, np.random.default_rng(seed), long)[1]) for seed in range(30)]
    assert {len(some) for some in found} <= {0, 2} and sum(len(some) == 2 for some in found) > 10
    assert {len(chain) - 1 for some in found for chain in some} == {1}  # eight cards of a clip or two need eight clips


def test_a_world_may_show_few_characters_and_ask_by_them_alone(bank: Bank, tmp_path: Path) -> None:
    few = replace(VIDEOS, characters="1379LP", cards=(3, 3), hops=(0, 0), kinds=("colour", "shape"))
    fill(tmp_path, tiny.model(CONFIG), few, 0)
    some = Bank(tmp_path, few)
    assert torch.equal(some.tokens, bank.tokens) and len(some.cards) < len(bank.cards)
    for index in range(12):
        one = Drawn("a", "b", few, 3, index)
        cards = [event.what for event in video_of(some, one.rng, few)[1].cards]
        shown_there = {card.character for card in cards if isinstance(card, Card)}
        assert shown_there <= set("1379LP")
        asked = some.draw(one)[1]
        assert sorted(question.kind for question in asked) == sorted(["colour", "shape"] * len(cards))


def test_a_world_may_show_few_colours_and_shapes(bank: Bank, tmp_path: Path) -> None:
    few = replace(VIDEOS, colours=COLOURS[:4], shapes=SHAPES[:3], cards=(3, 3), moving=(1, 1), hops=(0, 0))
    save_file({"tokens": bank.tokens}, tmp_path / "0000000.safetensors")
    some = Bank(tmp_path, few)
    events = [event for seed in range(12) for event in video_of(some, np.random.default_rng(seed), few)[1].events]
    things = {(event.what.colour, event.what.shape) for event in events}
    things |= {(one.colour, one.shape) for event in events if (one := getattr(event.what, "points", None))}
    assert len(things) > 6 and things <= {(colour, shape) for colour in COLOURS[:4] for shape in SHAPES[:3]}


def test_a_world_may_show_several_decoys_and_asks_of_every_second_chain(bank: Bank) -> None:
    many = replace(VIDEOS, clips=(12, 12), cards=(0, 0), moving=(0, 0), chains=4, kinds=("hop_character",))
    found = []
    for index in range(12):
        one = Drawn("a", "b", many, 3, index)
        asked = bank.draw(one)[1]
        shown_there = len(chains(video_of(bank, one.rng, many)[1]))
        assert len({question.chain for question in asked}) == len(asked) == (shown_there + 1) // 2
        found.append(shown_there)
    assert set(found) <= {2, 3, 4} and 4 in found


def test_a_video_is_drawn_until_there_is_something_to_ask(bank: Bank) -> None:
    few = replace(VIDEOS, clips=(4, 4), cards=(0, 0), moving=(0, 0), hops=(1, 1), kinds=("hop_colour",))
    kinds = Counter(bank.draw(Drawn("a", "b", few, 3, index))[1][0].kind for index in range(30))
    assert kinds["hop_colour"] == 30


def test_too_few_pieces_for_what_is_to_be_shown_are_told(bank: Bank, tmp_path: Path) -> None:
    few = replace(VIDEOS, pieces=1)
    save_file({"tokens": bank.tokens}, tmp_path / "0000000.safetensors")
    with pytest.raises(ValueError, match=r"1 pieces have not all that videos need: set data\.world\.pieces higher"):
        Bank(tmp_path, few)


def test_a_world_may_ask_of_chains_alone(bank: Bank) -> None:
    """One question of a video: the answer to one would tell which card the other chain ends at."""
    world = replace(VIDEOS, kinds=("hop_character", "hop_colour"))
    asked = [bank.draw(Drawn("a", "b", world, 3, index))[1] for index in range(24)]
    assert all(len(some) == 1 for some in asked)
    kinds = Counter(one.kind for some in asked for one in some)
    assert kinds["hop_character"] > 6 and kinds["hop_colour"] > 6


def test_half_of_the_pointers_are_asked_about(bank: Bank) -> None:
    """By what is asked about the others, who takes any that was not named yet is often right about the last."""
    world = replace(VIDEOS, clips=(10, 10), hops=(2, 2), kinds=("pointer",))
    for index in range(12):
        ((skipped, tokens),), asked = bank.draw(Drawn("a", "b", world, 3, index))
        _, scene = bank.video((one := Drawn("a", "b", world, 3, index).rng), world, world.length(one))
        assert len(tokens) == 10 and skipped == 0
        assert {one.kind for one in asked} == {"pointer"} and len(asked) == (len(scene.cards) + 1) // 2


def test_clips_may_be_left_out_where_nothing_is_shown_and_their_time_passes(bank: Bank) -> None:
    world = replace(VIDEOS, skipped=(5, 200), kinds=("grounding",))
    for index in range(20):
        one = Drawn("a", "b", world, 3, index)
        parts, asked = bank.draw(one)
        tokens, scene = bank.video((rng := one.rng), world, world.length(rng))
        long = stretched(scene, random_cuts(rng, world.skipped, scene))
        assert torch.equal(torch.cat([part for _, part in parts]), tokens)
        places: list[int] = []
        for skipped, part in parts:
            first = skipped + (places[-1] + 1 if places else 0)
            places += range(first, first + len(part))
        left_out = sum(skipped for skipped, _ in parts)
        assert 5 <= left_out <= 200 and long.duration == 4 * (8 + left_out)
        for event, moved in zip(scene.events, long.events, strict=True):
            first, last = int(event.start // 4), int((event.end - 1e-3) // 4)
            assert moved.start == pytest.approx(event.start + 4 * (places[first] - first))
            assert places[last] - places[first] == last - first and moved.length == event.length
        assert {question.answer for question in asked} <= {q.answer for q in ask(rng, long, ["grounding"], 99)}


def test_a_video_of_several_parts_is_one_video(bank: Bank) -> None:
    tokenizer, recipe = read_tokenizer(find("flash-tiny")), Recipe("run", model="flash-tiny")
    one = Drawn("a", "b", replace(VIDEOS, skipped=(7, 99)), 3, 1)
    sample = Samples(recipe, CONFIG, tokenizer, [one], {"b": bank})[0]
    count = 8 + sum(sample.skipped)
    assert f"{4 * count} frames" in tokenizer.decode(sample.prompt.ids) and len(sample.clips) > 1
    assert sample.rows == len(sample.prompt.ids) + 8 * 64
    together = replace(sample, prompt=replace(sample.prompt, slots=sample.prompt.slots[:1]), skipped=())
    together = replace(together, clips=(torch.cat(sample.clips),), grids=(None,))
    net = Learner(tiny.model(CONFIG))
    near, apart, whole = (
        net([some])[0] for some in (replace(sample, skipped=(0,) * len(sample.clips)), sample, together)
    )
    torch.testing.assert_close(near, whole)
    assert not torch.allclose(apart, whole)


def test_what_could_be_taken_for_another_does_not_fit(bank: Bank) -> None:
    piece = bank.cards[0]
    assert fits(piece, [], 9) and not fits(piece, [piece], 9) and not fits(piece, [], piece.clips - 1)


def test_a_mover_whose_way_is_unknown_is_not_asked_about() -> None:
    _, labels = card_clip(np.random.default_rng(0), movers=1.0)
    labels.direction[:] = 0
    labels.speed[:] = 0
    scene = shown(labels)
    assert all(isinstance(event.what, Mover) for event in scene.events)
    assert not {"motion", "speed"} & {one.kind for one in questions(np.random.default_rng(0), scene)}


@pytest.mark.slow
def test_every_kind_of_world_trains(tmp_path: Path) -> None:
    path = stage.make(tmp_path)
    worlds = {
        "frames": "count = 4",
        "clips": "count = 4",
        "videos": "count = 4, pieces = 200, clips = [6, 8], hops = [0, 1]",
    }
    text = path.read_text()
    for kind, more in worlds.items():
        (tmp_path / "drawn.toml").write_text(
            text[: text.index("[[data]]")] + f'[[data]]\nworld = {{ kind = "{kind}", {more} }}\n'
        )
        frozen = ["rates.tower=0", "teach=0.0"] if kind == "videos" else ["teach=1.0"]
        with tiny.seeded():
            recipe = load_recipe(tmp_path / "drawn.toml", [f"out={tmp_path / kind}", "steps=2", "batch=2", *frozen])
            train(recipe, lambda step, _: None, pytest.fail)
        assert len(losses(tmp_path / kind)) == 2
        told = [json.loads(line)["taught"] for line in (tmp_path / kind / METRICS).read_text().splitlines()]
        assert all((one > 0) == (kind != "videos") for one in told)


@pytest.mark.parametrize("frames", [1, 4])
def test_tokens_become_few_as_the_model_does_it_or_more_simply(frames: int) -> None:
    patches = tiny.draw(3, frames * 36, 24)
    merged = compressed(patches, frames, 16, "merge", 2)
    torch.testing.assert_close(merged, merge_tokens(patches, 16 * frames, 2))
    assert torch.equal(compressed(patches, frames, 36, "pool", 2), patches)
    picked = compressed(patches, frames, 16, "pick", 2)
    assert torch.equal(picked[:, [0, -1]], patches[:, [0, -1]]) and picked.shape == merged.shape
    pooled = compressed(patches, frames, 9, "pool", 2)  # a grid of 6 x 6 becomes 3 x 3, each the mean of four
    corner = patches[:, [0, 1, 6, 7]].mean(1)
    torch.testing.assert_close(pooled[:, 0], corner)
    assert pooled.shape == (3, 9 * frames, 24)
    for tokens, by, words in ((49, "pick", "more than the 36"), (8, "pool", "square number")):
        with pytest.raises(ValueError, match=words):
            compressed(patches, frames, tokens, by, 2)


def test_frames_seen_alone_are_seen_as_pictures(tmp_path: Path) -> None:
    net = tiny.model(CONFIG)
    world = replace(VIDEOS, pieces=12, pointers=0.0, cards=(0, 0), moving=(0, 0), hops=(0, 0), tokens=9, alone=True)
    fill(tmp_path, net, world, 0)
    bank = Bank(tmp_path, world)
    frames = scene_frames(np.random.default_rng((7, 0, 1)), small_scene(7, 0, 0.0), 96)
    first = torch.from_numpy(frames[:1]).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        patches = net.vision(((first - mean) / std)[None])
    torch.testing.assert_close(
        bank.tokens[0, :9], merge_tokens(patches.float(), 9, 2)[0].bfloat16(), rtol=0.1, atol=0.1
    )
    assert bank.tokens.shape[1:] == (36, 24)


def test_worlds_of_the_same_pieces_share_them(tmp_path: Path) -> None:
    recipe = Recipe(str(tmp_path / "run"), model="flash-tiny", pieces=str(tmp_path / "pieces"), workers=0)
    few = replace(VIDEOS, pieces=12, cards=(0, 0), moving=(0, 0), hops=(0, 0))
    worlds = (few, replace(few, clips=(2, 3), count=2), replace(few, tokens=4, count=1))
    data = read_data(replace(recipe, data=tuple(Source(name=str(i), world=one) for i, one in enumerate(worlds))))
    banks = fill_banks(recipe, data, tiny.model(CONFIG), join("cpu"))
    assert banks["0"] is banks["1"] and banks["0"] is not banks["2"]
    assert sorted(path.name for path in (tmp_path / "pieces").iterdir()) == ["12-7-0.3-merge-16", "12-7-0.3-merge-4"]


def test_some_patches_are_those_that_show_something_first() -> None:
    world = World("clips", movers=0, talk=0, pointers=1)
    whole = draw_pixels(Drawn("", "", world, 1, 5), 96)[1][0]
    shown = (whole.values > 0).any(1)
    pointers = (whole.values[:, 1] == 0) & shown
    assert 0 < pointers.sum() < shown.sum() < 60 < len(shown)
    some = whole.some(np.random.default_rng(0), 60)
    assert len(some.places) == 60 and (np.diff(some.places) > 0).all()
    assert (some.values > 0).any(1).sum() == shown.sum()
    for name in ("values", "middle", "seen"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[some.places])


def test_only_what_has_no_conversation_is_seen_in_part() -> None:
    world = World("clips", talk=0.5, patches=20)
    lessons = [(asked, own[0]) for _, own, asked in (draw_pixels(Drawn("", "", world, 1, i), 96) for i in range(12))]
    assert {(bool(asked), len(own.places)) for asked, own in lessons} == {(True, 144), (False, 20)}


def test_drawings_are_looked_at_in_rounds() -> None:
    looks = [drawing(i, 3) for i in range(6 * HELD)]
    assert looks == [*range(HELD)] * 3 + [*range(HELD, 2 * HELD)] * 3
    world = World("clips", talk=0, patches=20, looks=3)
    first, again, other = (draw_pixels(Drawn(str(i), "", world, 1, i), 96) for i in (7, 7 + HELD, 8))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert not np.array_equal(first[1][0].places, again[1][0].places)
