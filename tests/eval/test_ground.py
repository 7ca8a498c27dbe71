"""vcflash ground: what is asked, how the answer is read, and the strip of what is shown then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import videos
from command import run
from PIL import Image

from videochat_flash import session
from videochat_flash.chat import Reply
from videochat_flash.eval.ground import Found, locate, question_of, strip
from videochat_flash.synth.questions import GROUNDING_TEMPLATES
from videochat_flash.video import probe

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Twenty seconds, two frames in each, which show their numbers."""
    return videos.make(tmp_path / "film.mp4", (videos.numbered(i, scale=4) for i in range(40)), 2)


def says(monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    """From now on every model answers so; what it is asked is in the list."""
    asked: list[str] = []

    def say(vc: object, sight: object, question: str, *_: object, **__: object) -> Reply:
        asked.append(question)
        return Reply(text, 9, 100, (80, 80, 40, 40))

    monkeypatch.setattr(session, "say", say)
    return asked


def test_what_is_asked() -> None:
    assert question_of("the red star", "question") == "When is the red star shown?"
    assert question_of("the red star", "question") in {one.format(thing="red star") for one in GROUNDING_TEMPLATES}
    assert question_of(" When does it rain? ", "question") == "When does it rain?"
    assert question_of("it rains", "full").startswith("When does this happen in the video: it rains?\nAnswer with its ")
    assert "textual sentence: it rains. Please" in question_of("it rains.", "paper")


def test_answers_become_seconds_of_the_video() -> None:
    assert locate("From 2 to 5 seconds.", (0, 20)) == (2, 5)
    assert locate("0:02 - 0:05", (10, 20)) == (12, 15)
    with pytest.warns(UserWarning, match="goes beyond the end, 20 s, and is cut to it"):
        assert locate("15 - 99", (0, 20)) == (15, 20)
    for text, words in (("I see none.", "states no interval, or more than one: 'I see none.'"),
                        ("2 - 3 s, 5 - 6 s", "more than one"), ("20 - 25", "lies behind the end")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            locate(text, (0, 20))


def test_a_strip_shows_the_frames_of_the_interval(film: Path, tmp_path: Path) -> None:
    found = Found(5.0, 9.0, probe(film), None, "", None)  # type: ignore[arg-type]
    strip(found, tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    gap, wide, high = 16, 320, 240
    line = sheet.shape[0] // 2 - high - gap - gap // 2
    thumbs = [
        sheet[gap + row * (high + line + gap) :, gap + column * (wide + gap) :][:high, :wide]
        for row in range(2)
        for column in range(4)
    ]
    seen = [videos.read_numbers(np.asarray(Image.fromarray(one).resize((256, 192)))[None])[0] for one in thumbs]
    assert seen == list(range(10, 18))
    strip(replace(found, end=6.5), tmp_path / "short.png")  # three frames: each once
    with Image.open(tmp_path / "short.png") as image:
        assert image.width == 3 * (wide + gap) + gap


def test_the_command(
    film: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = says(monkeypatch, "From 5 to 9.5 seconds.")
    done = run(capsys, "ground", film, "the red star", "--model", model)
    assert (done.code, done.out, done.err) == (0, "5 to 9.5 s; film-5-9.5.png shows it\n", "")
    with Image.open(tmp_path / "film-5-9.5.png") as image:
        assert image.width > 1000
    told = json.loads(run(capsys, "ground", film, "the red star", "--model", model, "--out", "s.png", "--json").out)
    assert told["interval"] == [5, 9.5] and told["strip"] == "s.png" and told["answer"] == "From 5 to 9.5 seconds."
    assert told["question"] == "When is the red star shown?" and told["frames"] == 40 and told["duration"] == 20
    part = run(capsys, "ground", film, "the red star", "--model", model, "--start", 4, "--prompt", "paper")
    assert part.out.startswith("9 to 13.5 s; film-9-13.5.png") and "24.3" in asked[-1]


def test_what_cannot_be(
    film: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save(tmp_path / "card.png")
    before = sorted(path.name for path in tmp_path.iterdir())
    for arguments, code, words in (
        ([film, " "], 1, "the question is empty"),
        ([tmp_path / "none.mp4", "x"], 1, "none.mp4"),
        ([tmp_path / "card.png", "x"], 1, "is not a video"),
        ([film, "x", "--out", tmp_path / "no" / "s.png"], 1, "is not a folder"),
        ([film, "x", "--keep", "99:0.5"], 2, "99"),
        ([film, "x"], 1, "the answer states no interval"),  # a random model's nonsense
    ):
        done = run(capsys, "ground", *arguments, "--model", model)
        assert (done.code, done.out, len(done.lines)) == (code, "", 1) and words in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
