"""Answers of a batch are those of asking one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import videos

from videochat_flash import VideoChatFlash
from videochat_flash.eval.together import begin, finish, seen
from videochat_flash.generate import Decoding
from videochat_flash.prompt import Turn

pytestmark = pytest.mark.usefixtures("unchecked")
QUESTIONS = ("What?", "Which one of these is it, and why?", "Is there a red star?", "What comes last?")


@pytest.mark.parametrize("keep", [None, ()])
@pytest.mark.parametrize("warm", [0.0, 1.0])
def test_a_batch_of_several_videos_and_of_none(vc: VideoChatFlash, keep: Any, warm: float, tmp_path: Path) -> None:
    sights = [vc.see(videos.make(tmp_path / f"{i}.mp4", 16, 2)) for i in range(2)]
    how = Decoding(max_new_tokens=9, temperature=warm, seed=5, eos=vc.decoding.eos)
    plan = vc.model.config.keep if keep is None else keep
    shown = [(), (sights[0],), (sights[1],), tuple(sights)]
    begun, plain = [], []
    for what in shown:
        prepared = seen(vc, what, plan)
        for question in QUESTIONS:
            begun.append(begin(vc, prepared, [Turn("user", question)], plan, how))
            plain.append(vc.answer(list(what), question, keep=keep, decoding=how))
    answers = finish(vc, begun, how)
    assert [one.text for one in answers] == plain and len(set(plain)) > 4
    assert all(0 < one.tokens <= 9 for one in answers) and answers[0].rows < answers[4].rows < answers[12].rows
