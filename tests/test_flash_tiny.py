"""The embedded model really answers, from a file, through the command line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from command import finished, start

from videochat_flash import VideoChatFlash, grade
from videochat_flash.config import FLASH_TINY
from videochat_flash.needle import PROCEDURAL, Made, make_needle
from videochat_flash.prompt import Turn
from videochat_flash.synth import ATTRIBUTES, HOPS, KINDS
from videochat_flash.weights import ASSETS, EMBEDDED, read_config

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


@pytest.fixture(scope="module")
def vc() -> VideoChatFlash:
    return VideoChatFlash.from_pretrained()


def test_it_answers(vc: VideoChatFlash, made: list[Made]) -> None:
    """With its own dropout and without; 500 questions of each kind stand in docs/flash-tiny.md."""
    right: Counter[str] = Counter()
    for one in made:
        sight = vc.see(one.video)
        assert sight.frames == 64
        for question in one.questions:
            for name, keep in (("own", None), ("off", ())):
                right[name] += vc.answer(sight, question.question, keep=keep).strip() == question.answer
    assert min(right["own"], right["off"]) >= 28, right


def test_it_answers_a_question_that_follows(vc: VideoChatFlash, made: list[Made]) -> None:
    sight = vc.see(made[0].video)
    history: list[Turn] = []
    for one in made[0].questions[:6]:
        answer = vc.answer(sight, one.question, history=history)
        assert answer == one.answer
        history += [Turn("user", one.question), Turn("assistant", answer)]


@pytest.mark.parametrize(("kinds", "enough"), [(KINDS, 13), (HOPS, 5), (("pointer",), 5), (("grounding",), 5)])
def test_it_answers_all_else_that_it_was_taught(
    vc: VideoChatFlash, tmp_path: Path, kinds: tuple[str, ...], enough: int
) -> None:
    """One video of each, on which it does well; how often it does stands in docs/flash-tiny.md."""
    made = make_needle(
        PROCEDURAL, 64, None, 911, tmp_path / "a.mp4", tmp_path / "a.json", kinds=kinds, movers=2, hops=2
    )
    sight = vc.see(made.video)
    answers = [(vc.answer(sight, one.question).strip(), one.answer) for one in made.questions[: enough + 2]]
    assert sum(grade.right(*pair) for pair in answers) >= enough, answers


def test_vcflash_ask_from_end_to_end(made: list[Made]) -> None:
    question = next(one for one in made[0].questions if one.kind == "colour")
    done = finished(start("ask", made[0].video, question.question, "--json"))
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert told["answer"] == question.answer
    assert (told["frames"], told["visual_tokens"]) == (64, 1024)
    assert told["seconds_sampled"] == [float(i) for i in range(64)] and told["peak_memory_mb"] < 1000


def test_its_sizes_are_those_that_are_trained() -> None:
    assert read_config(ASSETS / EMBEDDED) == FLASH_TINY


def test_it_is_small(vc: VideoChatFlash) -> None:
    assert sum(p.numel() for p in vc.model.parameters()) <= 10_000_000
    assert sum(path.stat().st_size for path in (ASSETS / EMBEDDED).rglob("*") if path.is_file()) <= 20_000_000
