"""Evidence is what dropout did: the same rows, the same ranking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from videos import make

from videochat_flash.chat import VideoChatFlash
from videochat_flash.config import Plan, parse_plan
from videochat_flash.evidence import look
from videochat_flash.generate import prefill
from videochat_flash.llm import rotary_tables
from videochat_flash.prompt import Turn, render
from videochat_flash.sight import Sight


@pytest.fixture(scope="module")
def sights(vc: VideoChatFlash, tmp_path_factory: pytest.TempPathFactory) -> list[Sight]:
    folder = tmp_path_factory.mktemp("films")
    return [vc.see(make(folder / "a.mp4", 24, 4)), vc.see(make(folder / "b.mp4", 12, 4))]


PLANS = ("off", "2:0.5", "2:0.5,4:0.25", "0:0.5", "5:0.1")


@pytest.mark.parametrize("keep", PLANS)
@pytest.mark.parametrize("by", ["attention", "uniform"])
def test_what_is_kept_is_what_the_decoder_keeps(vc: VideoChatFlash, sights: list[Sight], keep: str, by: str) -> None:
    plan = parse_plan(keep, by)
    told = look(vc, sights, "What is it?", keep=plan)
    prompt = render(vc.tokenizer, [Turn("user", "What is it?")], sights)
    with torch.inference_mode():
        begun = prefill(vc.model, [prompt], [vc.tokens_of(sights)], plan)
        rows, (segment,) = vc.model.embed([prompt], [vc.tokens_of(sights)])
        hidden = vc.model.decoder(rows, [segment], plan)
    assert [stage.layer for stage in told.stages] == [drop.layer for drop in plan]
    for stage in told.stages:
        assert [len(clips) for clips in stage.kept] == [len(sight) for sight in sights]
        assert sum(map(sum, stage.kept)) == begun.visual[stage.layer]
    if told.stages:  # the last drop, row by row
        kept = set(hidden.kept.tolist())
        for run, sight, clips in zip(segment.runs, sights, told.stages[-1].kept, strict=True):
            size = sight.tokens.shape[1]
            starts = range(run.start, run.start + run.length, size)
            assert [sum(row in kept for row in range(at, at + size)) for at in starts] == list(clips)


def test_attention_is_that_of_the_last_row(vc: VideoChatFlash, sights: list[Sight]) -> None:
    history = [Turn("user", "Before?"), Turn("assistant", "No.")]
    told = look(vc, sights[0], "What is it?", history=history, keep=parse_plan("3:0.5"))
    prompt = render(vc.tokenizer, [*history, Turn("user", "What is it?")], sights[:1])
    with torch.inference_mode():
        rows, (segment,) = vc.model.embed([prompt], [vc.tokens_of(sights[:1])])
        rows = vc.model.decoder(rows, [segment], layers=range(3)).rows
        tables = rotary_tables(vc.model.config.llm, torch.arange(len(rows)))
        (scores,) = vc.model.decoder.layers[3].rank(rows, [segment], tables)
    (run,) = segment.runs
    clips = scores[run.start : run.start + run.length].unflatten(0, (len(sights[0]), -1)).sum(1)
    assert segment.queries == (len(rows) - 1,) and told.layer == 3
    assert torch.allclose(
        torch.tensor(told.attention[0], dtype=torch.float64), (clips / clips.sum()).double(), atol=1e-5
    )


@pytest.mark.parametrize(("keep", "layer"), [("off", 3), ("2:0.5", 2)])
def test_shares_add_up_to_one_and_are_there_without_dropout(
    vc: VideoChatFlash, sights: list[Sight], keep: str, layer: int
) -> None:
    told = look(vc, sights, "What is it?", keep=parse_plan(keep))
    shares = [share for clips in told.attention for share in clips]
    assert told.layer == layer and abs(sum(shares) - 1) < 1e-6 and min(shares) >= 0
    uniform = look(vc, sights, "What is it?", keep=parse_plan("1:0.5", "uniform"))
    assert uniform.layer == 3 and uniform.stages[0].layer == 1


def test_only_the_question_of_now_matters(vc: VideoChatFlash, sights: list[Sight]) -> None:
    assert look(vc, sights, "What is it?") == look(vc, sights, "What is it?")
    assert look(vc, sights, "What is it?") != look(vc, sights, "And when?")
    assert look(vc, sights[0], "What is it?") == look(vc, sights[:1], "What is it?")


@pytest.mark.usefixtures("unchecked")
def test_without_a_video_there_is_none(vc: VideoChatFlash, sights: list[Sight], tmp_path: Path) -> None:
    for wrong in ([], [replace(sights[0], made_by="another")]):
        with pytest.raises(ValueError, match="video"):
            look(vc, wrong, "What is it?")
    too_deep: Plan = parse_plan("99:0.5")
    for question, plan in (("", None), ("What?", too_deep)):
        with pytest.raises(ValueError, match="question|layer"):
            look(vc, sights, question, keep=plan)
