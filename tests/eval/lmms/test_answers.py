"""What is kept of answers, and by what it is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import videos

from videochat_flash.config import Drop
from videochat_flash.eval.lmms.answers import keeping, key_of
from videochat_flash.eval.lmms.messages import Medium, Wanted
from videochat_flash.eval.together import Answer
from videochat_flash.generate import Decoding
from videochat_flash.prompt import Turn
from videochat_flash.video import Sampling, VideoError

ONE = Answer("so", 7, 2)


def test_a_key_is_of_all_that_an_answer_depends_on(tmp_path: Path) -> None:
    first, second = (videos.make(tmp_path / f"{i}.mp4", 8 + i, 2) for i in range(2))
    asked = Wanted((Medium(first, Sampling()),), (Turn("user", "What?"),), None, Decoding())
    same = replace(asked, media=(Medium(Path(str(tmp_path / "x" / ".." / "0.mp4")), Sampling()),))
    (tmp_path / "x").mkdir()
    others = [
        replace(asked, media=(Medium(second, Sampling()),)),
        replace(asked, media=(Medium(first, Sampling(max_frames=8)),)),
        replace(asked, media=(Medium(first, Sampling(end=1.0)),)),
        replace(asked, media=()),
        replace(asked, turns=(Turn("user", "Why?"),)),
        replace(asked, decoding=Decoding(max_new_tokens=3)),
    ]
    keys = {key_of(one, (), {}) for one in (asked, *others)} | {key_of(asked, (Drop(2, 0.5),), {})}
    assert len(keys) == 8 and key_of(same, (), {}) == key_of(asked, (), {})
    with pytest.raises(VideoError):
        key_of(replace(asked, media=(Medium(tmp_path / "none.mp4", Sampling()),)), (), {})


def test_answers_of_the_same_settings_are_found_again(tmp_path: Path) -> None:
    with keeping(tmp_path, {"model": "a"}, 0) as (there, add):
        assert there == {}
        add("k", ONE)
    with keeping(tmp_path, {"model": "a"}, 1) as (there, add):  # of another process
        assert there == {"k": ONE}
        add("l", ONE)
    with keeping(tmp_path, {"model": "a"}, 0) as (there, _):
        assert set(there) == {"k", "l"}
    with keeping(tmp_path, {"model": "b"}, 0) as (there, _):
        assert there == {}
    with keeping(None, {"model": "a"}, 0) as (there, add):
        add("k", ONE)
        assert there == {}


def test_a_line_that_was_cut_off_is_none_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    with keeping(tmp_path, {}, 0) as (_, add):
        add("k", ONE)
    (path,) = tmp_path.glob("*/answers-0.jsonl")
    whole = path.read_text()
    path.write_text(whole + whole[:9])
    with keeping(tmp_path, {}, 0) as (there, _):
        assert there == {"k": ONE}
    path.write_text('{"text":"x"}\n' + whole)
    with pytest.raises(ValueError, match="line 1 is damaged"), keeping(tmp_path, {}, 0):
        pass


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    with keeping(tmp_path, {}, 0), pytest.raises(ValueError, match="another run"), keeping(tmp_path, {}, 0):
        pass
