"""Needle videos: what the truth says is what the file shows; the same seed gives the same bytes; all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import videos
from command import run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from videochat_flash import needle
from videochat_flash.mp4 import write
from videochat_flash.needle import KINDS, PROCEDURAL, Made, make_card, make_needle
from videochat_flash.synth import EXTRA_KINDS, HOPS, Card, Event, Mover
from videochat_flash.synth import KINDS as ALL_KINDS
from videochat_flash.video import SamplePlan, Sampling, decode, plan, probe


@pytest.fixture(scope="session")
def haystack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames that carry their number."""
    path = tmp_path_factory.mktemp("stack") / "stack.mp4"
    write(path, (videos.numbered(i, scale=2) for i in range(20)), 5)
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    return make_needle(PROCEDURAL, 64, 12, 7, folder / "a.mp4", folder / "a.json", size=(224, 128))


def frames_of(path: Path, seconds: list[int]) -> np.ndarray:
    info = probe(path)
    numbers = np.array(seconds)
    chosen = SamplePlan(numbers, info.seconds[numbers], (0, info.duration), info.duration)
    return np.concatenate([chunk.pixels for chunk in decode(info, chosen, None)])


def test_the_truth_is_a_list_of_questions(made: Made) -> None:
    truth = json.loads(made.truth.read_text())
    assert len(truth) == 12 and {tuple(one) for one in truth} == {("question", "answer", "kind", "seconds")}
    assert Counter(one["kind"] for one in truth).keys() == set(KINDS)
    for one in truth:
        first, last = one["seconds"]
        assert 0 <= first < last <= 64 and one["question"] and one["answer"]


def test_every_frame_is_sampled_from_a_video_of_a_minute(made: Made) -> None:
    info = probe(made.video)
    assert (info.frames, info.duration, info.fps, info.width, info.height) == (64, 64.0, 1.0, 224, 128)
    assert plan(info, Sampling()).frames.tolist() == list(range(64))


def test_distractors_are_always_there(made: Made) -> None:
    assert 4 <= len(made.scene.cards) <= 8 and 1 <= len(made.scene.movers) <= 2


def test_the_file_shows_what_the_scene_says(made: Made) -> None:
    """While a thing is on screen, its colour is there; before and after, the haystack is undisturbed."""
    for event in made.scene.events:
        middle = int(event.start + event.length / 2)
        shown = frames_of(made.video, [middle])[0].astype(int)
        near = np.abs(shown - np.array(_seen(event))).sum(axis=2) < 90
        assert near.mean() > (0.01 if isinstance(event.what, Mover) else 0.05), event.what


def _seen(event: Event) -> list[float]:
    """The body's colour after brightness and contrast."""
    style = event.style
    return [min(255.0, max(0.0, ((c - 128) * style.contrast + 128) * style.brightness)) for c in style.body]


def test_the_same_seed_gives_the_same_bytes(haystack: Path, tmp_path: Path) -> None:
    for stack in (PROCEDURAL, haystack):
        files = []
        for name, seed in (("a", 5), ("b", 5), ("c", 6)):
            paths = tmp_path / f"{name}.mp4", tmp_path / f"{name}.json"
            make_needle(stack, 16, 4, seed, *paths, size=(96, 64))
            files.append([path.read_bytes() for path in paths])
        assert files[0] == files[1]
        assert files[0][0] != files[2][0] and files[0][1] != files[2][1]


def test_a_real_haystack_is_spread_evenly(haystack: Path, tmp_path: Path) -> None:
    made = make_needle(haystack, 10, 1, 1, tmp_path / "a.mp4", tmp_path / "a.json", kinds=["colour"], cards=2, movers=0)
    assert (made.size, made.repeated) == ((128, 96), 0)
    bare = [i for i in range(10) if made.scene.event_at(i) < 0]
    assert videos.read_numbers(frames_of(made.video, bare)) == [2 * i + 1 for i in bare]


def test_a_short_haystack_is_shown_again_and_that_is_said(haystack: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="20 frames, 20 are shown again"):
        made = make_needle(haystack, 40, 4, 1, tmp_path / "a.mp4", tmp_path / "a.json")
    assert made.repeated == 20
    bare = [i for i in range(40) if made.scene.event_at(i) < 0]
    assert videos.read_numbers(frames_of(made.video, bare)) == [i // 2 for i in bare]


def test_a_picture_is_a_haystack_too(tmp_path: Path) -> None:
    Image.new("RGB", (80, 64), (10, 200, 10)).save(tmp_path / "green.png")
    with pytest.warns(UserWarning, match="shown again"):
        made = make_needle(tmp_path / "green.png", 8, 2, 1, tmp_path / "a.mp4", tmp_path / "a.json")
    assert made.size == (80, 64)


@pytest.mark.parametrize(("frames", "fps"), [(2, 1), (3, 1), (8, 1), (12, 1), (20, 1), (31, 1), (64, 8), (30, 0.5)])
def test_in_a_short_video_is_what_fits(frames: int, fps: float, tmp_path: Path) -> None:
    made = make_needle(PROCEDURAL, frames, None, 1, tmp_path / "a.mp4", tmp_path / "a.json", fps=fps, size=(64, 64))
    assert len(made.scene.cards) >= 2
    assert probe(made.video).frames == frames
    assert all(event.end <= frames / fps for event in made.scene.events)
    kinds = {one.kind for one in made.questions}
    assert kinds == set(KINDS) - (set() if made.scene.movers else {"motion"})


@given(st.integers(8, 2000), st.integers(0, 99))
def test_more_is_hidden_in_a_longer_video(frames: int, seed: int) -> None:
    scene = needle._scene(np.random.default_rng(seed), frames, 1.0, KINDS, None, None)
    assert 2 <= len(scene.cards) <= 8 and len(scene.movers) in ({1} if frames < 48 else {1, 2})
    assert len(scene.cards) >= 4 or frames < 15


def test_all_kinds_can_be_asked_for(tmp_path: Path) -> None:
    paths = tmp_path / "a.mp4", tmp_path / "a.json"
    made = make_needle(PROCEDURAL, 64, None, 1, *paths, kinds=ALL_KINDS, size=(64, 64))
    assert {one.kind for one in made.questions} == set(ALL_KINDS)


@pytest.mark.parametrize(
    ("frames", "kinds", "digest"),
    [(64, KINDS, "9f98f925f334199e"), (16, ALL_KINDS, "12b939ec939102d4"), (40, ALL_KINDS, "788dd3521c96018d")],
)
def test_the_truth_is_that_of_before_pointers(frames: int, kinds: tuple[str, ...], digest: str, tmp_path: Path) -> None:
    """The first number was taken before there were any, the others when presence got harder noes."""
    made = make_needle(
        PROCEDURAL, frames, None, frames, tmp_path / "a.mp4", tmp_path / "a.json", kinds=kinds, size=(96, 64)
    )
    assert hashlib.sha256(made.truth.read_bytes()).hexdigest()[:16] == digest
    assert not any(isinstance(event.what, Card) and event.what.points for event in made.scene.events)


@pytest.mark.parametrize("hops", [1, 2, 3, None])
def test_chains_and_times_can_be_asked_for(hops: int | None, tmp_path: Path) -> None:
    paths = tmp_path / "a.mp4", tmp_path / "a.json"
    made = make_needle(PROCEDURAL, 32, None, 4, *paths, kinds=EXTRA_KINDS, size=(96, 64), hops=hops)
    truth = json.loads(made.truth.read_text())
    assert Counter(one["kind"] for one in truth if "chain" in one) == dict.fromkeys(HOPS, 2)
    chained = [one for one in truth if "chain" in one]
    assert {one["hops"] for one in chained} <= ({hops} if hops else {1, 2, 3}) and len(chained) == 6
    assert len({one["chain"] for one in chained}) == 2 and all(one["chain"] in one["question"] for one in chained)
    for one in truth:
        if one["kind"] == "grounding":
            assert one["answer"] == "From {:.0f} to {:.0f} seconds.".format(*one["seconds"])
            assert all(second == int(second) for second in one["seconds"]) and "chain" not in one


@given(st.integers(4, 600), st.integers(0, 99))
def test_as_many_hops_as_fit(frames: int, seed: int) -> None:
    scene = needle._scene(np.random.default_rng(seed), frames, 1.0, HOPS, None, None)
    indicators = [event for event in scene.cards if isinstance(event.what, Card) and event.what.points]
    assert len(indicators) in (2, 4, 6) and scene.events[-1].end <= frames
    assert len(scene.cards) - len(indicators) in (2, 3, 4)


def test_chains_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    paths = tmp_path / "a.mp4", tmp_path / "a.json"
    with pytest.raises(ValueError, match="ask for more frames"):
        make_needle(PROCEDURAL, 6, None, 1, *paths, kinds=HOPS, size=(96, 64), hops=3)
    assert not any(tmp_path.iterdir())


def test_grounding_asks_for_whole_seconds(tmp_path: Path) -> None:
    paths = tmp_path / "a.mp4", tmp_path / "a.json"
    for frames, fps in ((20, 0.7), (21, 2.0)):
        with pytest.raises(ValueError, match="whole seconds"):
            make_needle(PROCEDURAL, frames, None, 1, *paths, kinds=("grounding",), fps=fps, size=(96, 64))
    made = make_needle(PROCEDURAL, 40, None, 1, *paths, kinds=("grounding",), fps=2.0, size=(97, 64))
    assert made.questions and made.size == (98, 64)


def test_fewer_questions_than_asked_for_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="only 6 of 50 questions"):
        make_needle(PROCEDURAL, 8, 50, 1, tmp_path / "a.mp4", tmp_path / "a.json", cards=2, movers=0, size=(64, 64))


def test_one_card_alone_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no other one"):
        make_needle(PROCEDURAL, 8, 1, 1, tmp_path / "a.mp4", tmp_path / "a.json", cards=1, movers=0, size=(64, 64))


def test_both_files_are_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_text("old")

    def broken(*_: object) -> str:
        raise OSError("no space")

    monkeypatch.setattr(needle, "truth_json", broken)
    with pytest.raises(OSError, match="no space"):
        make_needle(PROCEDURAL, 8, 1, 1, tmp_path / "a.mp4", tmp_path / "a.json", size=(64, 64))
    assert os.listdir(tmp_path) == ["a.mp4"] and (tmp_path / "a.mp4").read_text() == "old"


def test_a_card_is_what_was_asked_for() -> None:
    card, image = make_card("red", "star", "7", 0, 224)
    assert card == Card("red", "star", "7") and image.shape == (224, 224, 3)
    reddish = (image[..., 0].astype(int) > 150) & (image[..., 1:].max(axis=2) < 90)
    assert reddish.mean() > 0.04
    assert np.array_equal(image, make_card("red", "star", "7", 0, 224)[1])
    random = [make_card(None, None, None, seed, 64)[0] for seed in range(20)]
    assert len({one.colour for one in random}) > 3 and len({one.character for one in random}) > 5


@pytest.mark.usefixtures("unchecked")
def test_the_commands(tmp_path: Path, haystack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film, truth = tmp_path / "film.mp4", tmp_path / "truth.json"
    line = ["--haystack", haystack, "--frames", 16, "--questions", 5, "--seed", 3, "--kinds", "presence,order"]
    done = run(capsys, "synth", "needle", *line, "--out", film, "--truth", truth)
    assert done.code == 0 and done.err == "" and str(film) in done.out
    assert {one["kind"] for one in json.loads(truth.read_text())} == {"presence", "order"}
    assert run(capsys, "synth", "needle", "--frames", 8, "--size", "64x64", "--out", tmp_path / "b.mp4").code == 0
    assert (tmp_path / "b.json").exists()
    card = run(
        capsys, "synth", "card", "--colour", "blue", "--character", "K", "--size", 96, "--out", tmp_path / "c.png"
    )
    assert card.code == 0 and "blue" in card.out and "K" in card.out
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == (96, 96)
    assert {path.name for path in tmp_path.iterdir()} == {"film.mp4", "truth.json", "b.mp4", "b.json", "c.png"}
    os.mkfifo(tmp_path / "pipe")  # as /dev/null: no file may take its place
    done = run(capsys, "synth", "card", "--out", tmp_path / "pipe")
    assert done.code == 1 and "is no file" in done.err and (tmp_path / "pipe").is_fifo()
