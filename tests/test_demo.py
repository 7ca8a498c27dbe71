"""vcflash demo: what it writes, what it tells, and that it is honest about wrong answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import videos
from command import SMALL, run
from PIL import Image

from videochat_flash import VideoChatFlash, demo
from videochat_flash.mp4 import write
from videochat_flash.video import probe

pytestmark = pytest.mark.usefixtures("unchecked")


def test_the_demo_writes_three_files_and_tells_all(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    done = run(capsys, "demo", "--model", model, "--out", out, "--seed", 4)
    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["contact-sheet.png", "needle.mp4", "truth.json"]
    assert probe(out / "needle.mp4").frames == 64
    truth = json.loads((out / "truth.json").read_text())
    assert sorted(one["kind"] for one in truth) == ["character", "colour", "motion"]
    for one in truth:
        assert f"Q  {one['question']}\n" in done.out and f"truth: {one['answer']} (shown from" in done.out
    assert done.out.count("wrong") == 3 and "0 of 3 right" in done.out  # the model knows nothing
    visual = 16 * SMALL.clip_tokens
    for number in (64, 64 * 81, visual, visual // 2, visual // 4):
        assert f" {number:,} " in done.out
    for words in ("layers 0 to 1", "layers 2 to 3", "1/20.25", "render", "encode", "prefill", "total"):
        assert words in done.out


def test_the_contact_sheet_shows_every_sampled_frame(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = tmp_path / "stack.mp4"
    write(stack, (np.full((72, 128, 3), (200, 40, 40), np.uint8) for _ in range(70)), 10)
    assert run(capsys, "demo", "--model", model, "--out", tmp_path / "out", "--video", stack).code == 0
    assert (probe(tmp_path / "out" / "needle.mp4").width, probe(tmp_path / "out" / "needle.mp4").height) == (128, 72)
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    reddish = (np.abs(pixels - (200, 40, 40)).sum(axis=2) < 60).mean()
    assert 0.2 < reddish < 0.9  # thumbnails of the haystack, gaps and captions, and some cards
    assert sheet.width > 8 * 160 and sheet.height > 8 * 90


def test_right_answers_are_called_right(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that has read the truth: the verdict follows the answer, not the model."""
    knows = {}
    made = demo.make_needle

    def spy(*arguments: object, **more: object) -> object:
        done = made(*arguments, **more)  # type: ignore[arg-type]
        knows.update({one.question: one.answer for one in done.questions[:2]})
        return done

    def told(self: VideoChatFlash, sight: object, question: str, **more: object) -> object:
        yield from knows.get(question, "no idea")
        return demo.Reply(knows.get(question, "no idea"), 1, 1, (4,))

    monkeypatch.setattr(demo, "make_needle", spy)
    monkeypatch.setattr(VideoChatFlash, "reply", told)
    done = run(capsys, "demo", "--model", model, "--out", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "2 of 3 right" in done.out and done.out.count("wrong") == 1


def test_numbers_in_a_video_are_no_needles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "tiny.mp4", [videos.numbered(1)] * 4, 1)
    done = run(capsys, "demo", "--out", tmp_path / "out", "--video", tmp_path / "tiny.mp4")
    assert done.code == 1 and "64x48 pixels are too few" in done.err.splitlines()[-1]
