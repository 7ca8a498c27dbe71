"""A model of ours: what is shared between questions changes no answer, and one that fails is no answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from questionnaires import rows, write

from videochat_flash import VideoChatFlash, chat
from videochat_flash.eval import ask
from videochat_flash.eval.ask import NEW_TOKENS, How, Ours, Unanswered
from videochat_flash.eval.items import Item, read_items
from videochat_flash.eval.prompts import prompt
from videochat_flash.sight import Sight
from videochat_flash.video import Sampling

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    found, flaws = read_items(write(tmp_path_factory.mktemp("data")))
    assert flaws == []
    return found


def counting(vc: VideoChatFlash, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each video is seen from now on."""
    seen: Counter[str] = Counter()
    plain = vc.see

    def see(video: Path, *how: Any, **more: Any) -> Sight:
        seen[Path(video).name] += 1
        return plain(video, *how, **more)

    monkeypatch.setattr(vc, "see", see)
    return seen


def test_words_have_room_for_the_way_to_them(vc: VideoChatFlash) -> None:
    """Without letters a choice is answered in words, as "the red star at 41, the blue star at 58: the red star"."""
    room = {wording: Ours(vc, "small", How(wording=wording), {}).limits for wording in ("full", "question")}
    assert room["question"] == {**NEW_TOKENS, "choice": NEW_TOKENS["reference"]} and room["full"] == NEW_TOKENS
    assert set(Ours(vc, "small", How(wording="question", new_tokens=3), {}).limits.values()) == {3}


@pytest.mark.parametrize("keep", [None, ()])
def test_answers_are_those_of_asking_one_by_one(
    vc: VideoChatFlash, items: list[Item], keep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [*items[:8], replace(items[7], id="window", start=1.0, end=3.0)]
    plain = []
    for item in items:
        how = replace(vc.decoding, max_new_tokens=NEW_TOKENS[item.kind], temperature=0.0)
        sight = vc.see(item.video, Sampling(start=item.start, end=item.end))
        text = prompt(item, "full")
        plain.append([vc.answer(one, text, keep=keep, decoding=how) for one in (sight, None)])
    seen = counting(vc, monkeypatch)
    asker = Ours(vc, "small", How(keep=keep), {})
    assert [[asker(item, blind).text for blind in (False, True)] for item in items] == plain
    assert seen == {"0.mp4": 1, "1.mp4": 2}  # the window is another look
    assert len({text for pair in plain for text in pair}) > 4


def test_settings_are_all_that_answers_depend_on(vc: VideoChatFlash) -> None:
    told = Ours(vc, "small", How(), {}).settings
    assert told["prompt"] == "full" and told["keep"].startswith("2:0.5 by attention")  # type: ignore[attr-defined]
    for how in (
        How(keep=()),
        How(wording="question"),
        How(wording="paper"),
        How(wording="paper", benchmark="mlvu"),
        How(sampling=Sampling("count", num_frames=8)),
        How(sampling=Sampling(max_frames=64)),
        How(new_tokens=3),
    ):
        assert Ours(vc, "small", how, {}).settings != told


def test_a_video_that_cannot_be_seen_is_tried_once(
    vc: VideoChatFlash, items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    bad = [replace(one, video=tmp_path / "bad.mp4") for one in items[:3]]
    seen = counting(vc, monkeypatch)
    asker = Ours(vc, "small", How(), {})
    for item in bad:
        with pytest.raises(Unanswered, match=r"bad.mp4"):
            asker(item, False)
        assert asker(item, True).text
    assert seen == {"bad.mp4": 1} and asker(items[0], False).text


def test_memory_that_does_not_suffice_is_a_failure_of_one_question(
    vc: VideoChatFlash, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(ask, "finish", finish)
    with pytest.raises(Unanswered, match="out of memory"):
        Ours(vc, "small", How(), {})(items[0], False)


def test_subtitles_may_be_longer_than_what_people_type(
    vc: VideoChatFlash, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "MAX_QUESTION", 100)
    long = replace(items[0], subtitles="And on. " * 900)
    with pytest.warns(UserWarning, match="rows are beyond the 4096 positions"):
        assert Ours(vc, "small", How(), {})(long, True).rows > 4096


def test_rows_are_those_of_the_prompt(vc: VideoChatFlash, items: list[Item]) -> None:
    asker = Ours(vc, "small", How(), {})
    sight = vc.see(items[0].video)
    assert asker(items[0], False).rows > asker(items[0], True).rows + sight.tokens.shape[0] * sight.tokens.shape[1] - 1
    assert len(rows()) == len(items)
