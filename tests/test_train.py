"""The lessons of flash-tiny, in small: seeded, resumable, and what they promise about labels and questions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from videochat_flash.config import Config, LLMConfig, VisionConfig, parse_plan
from videochat_flash.prompt import IGNORE
from videochat_flash.synth import Card, Mover
from videochat_flash.train.bank import Bank, fill_bank, small_scene
from videochat_flash.train.find import Conversations, Lesson, train_decoder
from videochat_flash.train.lessons import Run
from videochat_flash.train.see import GRID, PATCH, Memory, Pupil, Rendered, Sightings, tracks, train_tower
from videochat_flash.train.splice import clashes
from videochat_flash.train.teach import middles
from videochat_flash.train.tiny import FIND, SEE, initialise, train_tokenizer

CONFIG = Config(
    vision=VisionConfig(width=24, depth=2, heads=2, mlp_width=48),
    llm=LLMConfig(vocab=512, width=32, layers=2, heads=2, kv_heads=1, ffn=32, max_positions=4096, tied=True),
)
IMAGES = Sightings("images", steps=4, batch=2, frames=1, patches=30, rate=1e-3)
CLIPS = Sightings("clips", steps=2, batch=2, frames=4, patches=60, rate=1e-3, movers=1.0)
LESSON = Lesson(
    "short",
    steps=3,
    videos=2,
    clips=(3, 5),
    cards=(2, 3),
    movers=(0, 1),
    tokens=16,
    rate=1e-3,
    plan=parse_plan("1:0.5"),
)
SCENES = 24


def losses(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def test_patches_and_labels_belong_together() -> None:
    patches, places, labels, middle, track = Rendered(replace(CLIPS, patches=4 * GRID**2))[1]
    assert patches.shape == (4 * GRID**2, 3 * PATCH**2) and places.tolist() == list(range(4 * GRID**2))
    shown = labels[:, 1] > 0
    assert shown.any() and (labels[~shown] == 0).all() and not middle[~shown].any()
    assert (np.isnan(track).all(axis=1) == (labels[:, 3] == 0)).all()


def test_few_patches_are_those_that_show_something() -> None:
    every = Rendered(replace(IMAGES, patches=GRID**2))
    few = Rendered(IMAGES)
    for i in range(6):
        shown = (every[i][2][:, 1] > 0).sum()
        assert (few[i][2][:, 1] > 0).sum() == min(30, shown)


def test_the_middle_of_a_shape_is_inside_it() -> None:
    shown = np.zeros((1, GRID, GRID), dtype=bool)
    shown[0, 3:8, 5:10] = True
    near = middles(shown)
    assert near[0, 5, 7] and not near[0, 3, 5] and not (near & ~shown).any()
    assert not middles(np.zeros((2, GRID, GRID), dtype=bool)).any()


def test_tracks_follow_what_moves() -> None:
    labels = np.zeros((4 * GRID**2, 5), dtype=np.int64)
    for frame in range(4):
        labels[frame * GRID**2 + 7 * GRID + 3 * frame, 3] = 2
    track = tracks(labels, 4)
    known = track[labels[:, 3] > 0]
    assert known.shape == (4, 8) and (np.diff(known[0, 1::2]) > 0).all() and np.ptp(known[0, ::2]) == 0


@pytest.mark.parametrize("lesson", [IMAGES, CLIPS])
def test_a_stopped_lesson_goes_on_where_it_was(tmp_path: Path, lesson: Sightings) -> None:
    with tiny.seeded():
        whole = train_tower(CONFIG.vision, Run(tmp_path / "a"), lesson, {})
        stopped = train_tower(CONFIG.vision, Run(tmp_path / "a"), lesson, {})
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert len(losses(tmp_path / "a" / f"{lesson.name}.jsonl")) == 1


def test_the_bank_is_filled_once_and_makes_videos_without_doubles(tmp_path: Path) -> None:
    with tiny.seeded():
        pupil = Pupil(CONFIG.vision)
        path = fill_bank(CONFIG, pupil, Run(tmp_path), 5, SCENES)
    before = path.stat()
    fill_bank(CONFIG, pupil, Run(tmp_path), 5, SCENES)
    assert path.stat() == before
    bank = Bank(path, 5, SCENES)
    assert len(bank.tokens) == sum(round(small_scene(5, i).duration / 4) for i in range(SCENES))
    for seed in range(5):
        tokens, scene = bank.video(np.random.default_rng(seed), 8, 3, 1, 16)
        assert tokens.shape == (8, 16, CONFIG.vision.width) and scene.duration == 32
        whats = [event.what for event in scene.events]
        assert not any(clashes([what], whats[:i]) for i, what in enumerate(whats))
        assert len(scene.cards) <= 3 and len(scene.movers) <= 1
        assert all(event.end <= 32 for event in scene.events)


def test_the_decoder_learns_from_the_bank(tmp_path: Path) -> None:
    with tiny.seeded():
        pupil, model = Pupil(CONFIG.vision), tiny.model(CONFIG)
        initialise(model, 1)
        fill_bank(CONFIG, pupil, Run(tmp_path), 5, SCENES)
    bank, tokenizer = Bank(tmp_path / "bank.safetensors", 5, SCENES), train_tokenizer(512, 1)
    data = Conversations(bank, tokenizer, LESSON, 1)
    _, prompt = data[0]
    learned = [label for label in prompt.labels if label != IGNORE]
    assert learned and learned[-1] == tokenizer.token_to_id("<|im_end|>")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with tiny.seeded():
        train_decoder(model, tokenizer, bank, LESSON, Run(tmp_path), 1)
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"connector", "decoder"} and (tmp_path / "short.pt").is_file()


def test_a_bank_of_another_tower_is_made_anew(tmp_path: Path) -> None:
    with tiny.seeded():
        first, second = Pupil(CONFIG.vision), Pupil(CONFIG.vision)
        filled = [
            load_file(fill_bank(CONFIG, pupil, Run(tmp_path), 5, 2))["tokens"] for pupil in (first, second, first)
        ]
    assert torch.equal(filled[0], filled[2]) and not torch.equal(filled[0], filled[1])


def test_what_was_seen_before_is_looked_at_again_beside_what_is_new() -> None:
    memory = Memory(views=3, seed=1, room=2)
    sizes = [memory.beside([torch.full((2,), i)])[0].tolist() for i in range(5)]
    assert [len(one) for one in sizes] == [2, 4, 6, 6, 6]
    assert all(one[:2] == [i, i] and set(one[2:]) <= set(range(i)) for i, one in enumerate(sizes))
    assert Memory(views=1, seed=1).beside([torch.ones(2)])[0].tolist() == [1, 1]


def test_things_clash_by_pair_or_by_character() -> None:
    red = Card("red", "star", "7")
    assert clashes([Card("blue", "star", "7")], [red]) and clashes([Mover("red", "star", "left", "fast")], [red])
    assert not clashes([Card("blue", "star", "8")], [red])


def test_lessons_have_names_of_their_own() -> None:
    names = [lesson.name for lesson in (*SEE, *FIND)]
    assert len(set(names)) == len(names)
