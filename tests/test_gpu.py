"""What only a GPU runs, against the plain path: replayed steps, flash attention in parts, half precision, merging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from videochat_flash.attention import attend
from videochat_flash.config import Plan, parse_plan
from videochat_flash.generate import Decoding, Prefilled, decode, next_logits, prefill
from videochat_flash.merge import merge_tokens
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.quantise import Packing
from videochat_flash.steady import Steady, steps
from videochat_flash.vision import normalise

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TOKENS = [7, 3, 250, 9, 9, 31, 4, 100, 5, 77, 1]
PLANS = ["", "2:0.5,4:0.25"]
WIDER = replace(tiny.CONFIG, llm=replace(tiny.LLM, width=384, ffn=512))  # heads of 64, as kernels for GPUs like them


def begun(net: VideoChatFlashModel, plan: Plan = ()) -> Prefilled:
    """A prompt of 33 rows that has passed the decoder, with caches of its own."""
    seen = tiny.draw(3, 8, net.config.llm.width).to(net.device, net.dtype)
    return prefill(net, [Prompt(tuple(range(9)), (IGNORE,) * 9, (3,))], [[seen]], plan, 20)


def told(net: VideoChatFlashModel, plan: Plan, tokens: Sequence[int], steady: bool) -> Tensor:
    """Scores behind each of some tokens."""
    start = begun(net, plan)
    if not steady:
        return torch.cat([next_logits(net, [token], start.caches) for token in tokens]).cpu()
    step = Steady(net, start.caches, len(tokens))
    return torch.cat([step(token).clone() for token in tokens]).cpu()


@pytest.mark.parametrize("plan", PLANS)
def test_a_replayed_step_is_a_plain_one(plan: str) -> None:
    net = tiny.model(WIDER).to("cuda", torch.bfloat16)
    drops = parse_plan(plan, "uniform")  # ranking in bfloat16 may part the ways
    plain, ours = told(net, drops, TOKENS, steady=False), told(net, drops, TOKENS, steady=True)
    exact = told(net.float(), drops, TOKENS, steady=False)
    assert (ours - exact).abs().mean() < 1.5 * (plain - exact).abs().mean() + 1e-4
    assert (ours - plain).abs().max() < 0.2 * exact.std()


def test_answers_come_from_replayed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny.model(WIDER).to("cuda", torch.bfloat16)
    recorded: list[int] = []
    record = Steady._record
    monkeypatch.setattr(Steady, "_record", lambda self: recorded.append(1) or record(self))
    tokens = [step[0] for step in decode(net, begun(net), Decoding(max_new_tokens=20), steps)]
    assert recorded == [1] and len(tokens) == 20
    scores = told(net, (), [token for token in tokens if token is not None], steady=False)
    best = scores[:-1].max(dim=-1).values  # what was taken is the plain path's best, or as good within rounding
    taken = scores[torch.arange(19), torch.tensor(tokens[1:])]
    assert (best - taken).max() < 0.2 * scores.std()


@pytest.mark.parametrize("packing", [Packing("int8"), Packing(None, "fp8"), Packing("int8", "fp8")])
def test_a_smaller_decoder_scores_as_on_a_cpu(packing: Packing) -> None:
    """Near what it was; and recorded steps serve int8 weights, but not fp8 rows."""
    exact = told(tiny.model(WIDER), (), TOKENS, steady=False)
    net = packing.apply(tiny.model(WIDER).bfloat16()).to("cuda")
    ours = told(net, (), TOKENS, steady=False)
    assert (ours - exact).pow(2).mean().sqrt() < 0.3 * exact.std()
    assert (steps(net, begun(net), 20) is None) == bool(packing.cache)
    if not packing.cache:
        assert (told(net, (), TOKENS, steady=True) - ours).abs().max() < 0.2 * exact.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "held"), [(1, 700), (20, 700), (300, 700), (700, 700)])
def test_attention_is_attention(rows: int, held: int, dtype: torch.dtype) -> None:
    """One row, the last rows, and all of them, with query heads that share key heads."""
    q, k, v = (tiny.draw(1, n, m, 64, seed=n + m) for n, m in ((8, rows), (2, held), (2, held)))
    exact = attend(q, k, v, causal=True)
    ours = attend(*(t.to("cuda", dtype) for t in (q, k, v)), causal=True).float().cpu()
    assert (ours - exact).abs().max() < 0.03


def test_pixels_are_the_same_numbers_on_every_device() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    assert torch.equal(normalise(pixels.cuda()).cpu(), normalise(pixels))


def test_merging_is_the_same_on_every_device() -> None:
    x = tiny.draw(5, 196, 64)
    torch.testing.assert_close(merge_tokens(x.cuda(), 16, 4).cpu(), merge_tokens(x, 16, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [tiny.CONFIG, tiny.INTERNVIDEO2])
def test_a_tower_in_half_precision_is_near(config: tiny.Config) -> None:
    net, clips = tiny.model(config), tiny.clips(config, 5, 4)
    with torch.inference_mode():
        exact = net.vision(clips)
        ours = net.to("cuda", torch.bfloat16).vision(clips.cuda()).float().cpu()
    assert (ours - exact).std() < 0.05 * exact.std()
