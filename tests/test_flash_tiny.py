"""The embedded model really answers, from a file, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import finished, start

from videochat_flash import VideoChatFlash
from videochat_flash.needle import PROCEDURAL, Made, make_needle
from videochat_flash.synth import ATTRIBUTES, COLOURS
from videochat_flash.weights import ASSETS, EMBEDDED

pytestmark = [
    pytest.mark.skipif(not (ASSETS / EMBEDDED).is_dir(), reason="flash-tiny was not trained yet"),
    pytest.mark.slow,
]
VIDEOS = 2  # with 15 questions each


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """Videos of seeds that were never trained on."""
    folder = tmp_path_factory.mktemp("needles")
    return [
        make_needle(PROCEDURAL, 64, 15, 900 + i, folder / f"{i}.mp4", folder / f"{i}.json", kinds=ATTRIBUTES, cards=5)
        for i in range(VIDEOS)
    ]


def test_it_sees_what_is_there(made: list[Made]) -> None:
    """The shipped weights read what a video shows, but mostly name it of the wrong card: see docs/flash-tiny.md."""
    vc = VideoChatFlash.from_pretrained()
    shown, right, asked = 0, 0, 0
    for one in made:
        sight = vc.see(one.video)
        assert sight.frames == 64
        there = {value for event in one.scene.events for value in vars(event.what).values()}
        for question in one.questions:
            answer = vc.answer(sight, question.question).strip()
            asked += 1
            shown += answer in there
            right += answer == question.answer
    assert asked == 30 and shown >= 24 and right >= 6


def test_vcflash_ask_from_end_to_end(made: list[Made]) -> None:
    question = next(one for one in made[0].questions if one.kind == "colour")
    done = finished(start("ask", made[0].video, question.question, "--json"))
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert told["answer"].strip() in COLOURS
    assert (told["frames"], told["visual_tokens"]) == (64, 1024)
    assert told["seconds_sampled"] == [float(i) for i in range(64)] and told["peak_memory_mb"] < 1000


def test_it_is_small(tmp_path: Path) -> None:
    vc = VideoChatFlash.from_pretrained()
    assert sum(p.numel() for p in vc.model.parameters()) <= 10_000_000
    assert sum(path.stat().st_size for path in (ASSETS / EMBEDDED).rglob("*") if path.is_file()) <= 20_000_000
