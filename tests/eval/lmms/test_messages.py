"""What lmms-eval sends, as the model takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videochat_flash.config import Drop
from videochat_flash.eval.lmms.messages import read_request
from videochat_flash.generate import Decoding
from videochat_flash.prompt import Turn
from videochat_flash.video import Sampling

OWN = Decoding(max_new_tokens=7, eos=(3,))
VIDEO = {"type": "video", "url": "film.mp4"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def read(folder: Path, *messages: Any, task: dict[str, Any] | None = None, given: dict[str, Any] | None = None) -> Any:
    return read_request(messages, task or {}, given or {}, OWN, folder)


def test_a_video_and_a_question(tmp_path: Path) -> None:
    found = read(tmp_path, user(VIDEO, text("What?")))
    assert [one.path for one in found.media] == [Path("film.mp4")] and found.media[0].sampling == Sampling()
    assert found.turns == (Turn("user", "What?"),) and found.keep is None
    assert found.decoding == Decoding(max_new_tokens=1024, eos=(3,))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video", "url": "film.mp4", "start_time": 1.0, "end_time": 2.5},
        {"type": "video", "url": {"type": "video", "path": "film.mp4", "video_start": 1.0, "video_end": 2.5}},
        {"type": "video", "url": {"url": "file://film.mp4", "video_start": 1.0, "video_end": 2.5}},
    ],
)
def test_a_stretch_of_a_video_however_it_is_said(part: dict[str, Any], tmp_path: Path) -> None:
    (one,) = read(tmp_path, user(part, text("What?"))).media
    assert (one.path, one.sampling.start, one.sampling.end) == (Path("film.mp4"), 1.0, 2.5)


def test_pictures_in_memory_become_files_without_loss(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    same = {"type": "image", "url": Image.fromarray(pixels)}
    first, second = read(tmp_path, user(same, text("a"), same, text("b"))).media
    assert first == second and np.array_equal(np.asarray(Image.open(first.path)), pixels)


def test_turns_alternate_and_texts_of_one_side_are_one(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    said = {"role": "assistant", "content": [text("Yes.")]}
    found = read(tmp_path, system, user(VIDEO, text("Is it?")), said, user(text("Why?"), text("Say.")))
    assert found.turns == (Turn("user", "Be brief.\nIs it?"), Turn("assistant", "Yes."), Turn("user", "Why?\nSay."))


def test_what_the_model_was_started_with_goes_before_what_a_task_says(tmp_path: Path) -> None:
    task = {"policy": "reference", "max_frames": 640, "keep": "off", "max_new_tokens": 16, "until": ["\n\n"]}
    found = read(tmp_path, user(VIDEO, text("What?")), task=task)
    assert found.media[0].sampling == Sampling("reference", 640) and found.keep == ()
    assert found.decoding.max_new_tokens == 16
    found = read(tmp_path, user(VIDEO, text("What?")), task=task, given={"max_frames": 64, "keep": "'4:0.5,8:0.25'"})
    assert found.media[0].sampling == Sampling("reference", 64) and found.keep == (Drop(4, 0.5), Drop(8, 0.25))
    found = read(tmp_path, user(VIDEO, text("What?")), task=task, given={"num_frames": 8})
    assert found.media[0].sampling == Sampling("count", 640, num_frames=8) and found.keep == ()


@pytest.mark.parametrize(
    ("task", "warm", "most"),
    [
        ({"temperature": 0, "top_p": None, "num_beams": 1}, 0.0, 1.0),
        ({"temperature": 0.7, "do_sample": False}, 0.0, 1.0),
        ({"temperature": 0.7, "do_sample": True, "top_p": 0.9}, 0.7, 0.9),
        ({"do_sample": True}, 1.0, 1.0),
        ({"image_aspect_ratio": "original"}, 0.0, 1.0),  # of other models
    ],
)
def test_how_tokens_are_chosen(task: dict[str, Any], warm: float, most: float, tmp_path: Path) -> None:
    found = read(tmp_path, user(text("What?")), task=task).decoding
    assert (found.temperature, found.top_p) == (warm, most)


@pytest.mark.parametrize(
    ("messages", "task", "words"),
    [
        ([user({"type": "audio", "url": "a.wav"}, text("What?"))], {}, "no audio"),
        ([user({"type": "video", "url": "https://x.org/a.mp4"}, text("What?"))], {}, "must be a file"),
        ([user({"type": "video", "url": [1, 2]}, text("What?"))], {}, "must be a file"),
        ([user(VIDEO, text(" "))], {}, "question is empty"),
        ([], {}, "begins and ends with a question"),
        ([user(text("Why?")), {"role": "assistant", "content": "So."}], {}, "begins and ends with a question"),
        ([{"role": "user", "content": 3}], {}, "text or a list"),
        ([user(text("What?"))], {"num_beams": 4}, "num_beams 4"),
        ([user(text("What?"))], {"keep": "much"}, "much"),
        ([user(text("What?"))], {"fps": 1.0, "num_frames": 8}, "exclude each other"),
    ],
)
def test_what_cannot_be_is_told(messages: list[Any], task: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        read(tmp_path, *messages, task=task)
