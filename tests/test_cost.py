"""Costs from shapes against real modules: operations counted by torch, rows and caches as they are; and known sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from videochat_flash.config import RELEASES, UMT_448, Config, parse_plan
from videochat_flash.cost import (
    GPUS,
    Sample,
    cache_bytes,
    connector_flops,
    decoder_flops,
    gpu_named,
    rows_left,
    token_flops,
    tower_flops,
)
from videochat_flash.generate import Decoding, Prefilled, decode, prefill
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.train.losses import loss

CONFIGS = {
    "umt": tiny.CONFIG,
    "internvideo2": tiny.INTERNVIDEO2,
    "newline": replace(tiny.CONFIG, newline="one_token"),
    "tied": replace(tiny.CONFIG, llm=replace(tiny.LLM, tied=True)),
}
PLANS = ["", "2:0.5,4:0.25", "0:0.5"]
SAMPLE = Sample(6, 4, 48, 20)
BIG = RELEASES["VideoChat-Flash-Qwen2-7B_res224"]
SMALLER = RELEASES["VideoChat-Flash-Qwen2_5-2B_res448"]


def sample_of(config: Config) -> Sample:
    return replace(SAMPLE, visual=48 + (config.newline == "one_token"))


def begun(config: Config, plan: str, kind: str = "attention") -> Prefilled:
    model = tiny.model(config)
    prompt = Prompt(tuple(range(20)), (IGNORE,) * 20, (3,))
    return prefill(model, [prompt], [[tiny.draw(6, 8, config.llm.width)]], parse_plan(plan, kind))


@pytest.mark.parametrize("name", ["umt", "internvideo2"])
@pytest.mark.parametrize("frames", [4, 1])
def test_seeing_costs_what_torch_counts(name: str, frames: int) -> None:
    config = CONFIGS[name]
    model = tiny.model(config)
    ours = (tower_flops(config.vision, frames) + connector_flops(config, frames)) * 3
    assert ours.total == pytest.approx(tiny.counted(lambda: model.see(tiny.clips(config, 3, frames))), rel=0.02)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", ["umt", "tied"])
def test_learning_reads_what_torch_counts(name: str, plan: str) -> None:
    config = CONFIGS[name]
    model = tiny.model(config)
    with torch.no_grad():
        tokens = model.see(tiny.clips(config, 6, 4))
        learned = Prompt(tuple(range(20)), (IGNORE, *range(1, 20)), (1,))
        real = tiny.counted(lambda: loss(model, [learned], [[tokens]], parse_plan(plan)))
    assert decoder_flops(config.llm, SAMPLE, parse_plan(plan)).total == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("kind", ["attention", "uniform"])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", CONFIGS)
def test_prefill_and_a_token_cost_what_torch_counts(name: str, plan: str, kind: str) -> None:
    config = CONFIGS[name]
    drops, sample = parse_plan(plan, kind), sample_of(config)
    ours = decoder_flops(config.llm, sample, drops, scored=1)
    assert ours.total == pytest.approx(tiny.counted(lambda: begun(config, plan, kind)), rel=0.02)
    steps = decode(tiny.model(config), begun(config, plan, kind), Decoding(max_new_tokens=2))
    next(steps)
    real = tiny.counted(lambda: next(steps))
    assert token_flops(config.llm, sample, drops).total == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", CONFIGS)
def test_rows_and_caches_are_those_of_a_real_prefill(name: str, plan: str) -> None:
    config, real = CONFIGS[name], begun(CONFIGS[name], plan)
    sample = sample_of(config)
    assert rows_left(config.llm, sample.visual, parse_plan(plan)) == real.visual
    held = sum(cache.bytes for layer in real.caches for cache in layer)
    assert cache_bytes(config.llm, sample, parse_plan(plan), width=4) == held


def test_causal_attention_needs_the_diagonal_and_what_is_below_it() -> None:
    one = decoder_flops(BIG.llm, Sample(0, 4, 0, 1), scored=0)
    assert one.skipped == 0
    whole = decoder_flops(BIG.llm, SAMPLE, scored=1)
    pairs = 68 * 69 / 2
    assert whole.activations - whole.skipped == pytest.approx(4 * pairs * 3584 * 28)
    assert whole.needed == whole.total - whole.skipped


@pytest.mark.parametrize(
    ("config", "plan", "petaflops", "gigabytes"),
    [
        (BIG, "", 7.23, 9.18),
        (BIG, "4:0.75,18:0.25", 3.57, 5.57),
        (BIG, "24:0.5", 6.53, None),
        (BIG, "8:0.5,16:0.25,24:0.125", 3.02, None),
        (SMALLER, "", 2.62, 4.59),
        (SMALLER, "4:0.75,18:0.25", 1.24, 2.79),
    ],
)
def test_ten_thousand_frames_cost_what_was_worked_out_by_hand(
    config: Config, plan: str, petaflops: float, gigabytes: float | None
) -> None:
    """Sums done apart from this code: 16 tokens a frame, 60 of text, bfloat16."""
    sample = Sample(2500, 4, 160_000, 60)
    assert decoder_flops(config.llm, sample, parse_plan(plan), 1).needed / 1e15 == pytest.approx(petaflops, abs=0.006)
    if gigabytes is not None:
        assert cache_bytes(config.llm, sample, parse_plan(plan)) / 1e9 == pytest.approx(gigabytes, abs=0.006)


def test_towers_cost_what_was_worked_out_by_hand() -> None:
    """GFLOP of a clip."""
    internvideo2 = RELEASES["VideoChat-Flash-Qwen2_5-7B_InternVideo2-1B"].vision
    for vision, gigaflops in ((BIG.vision, 513), (UMT_448, 2747), (internvideo2, 2250)):
        assert tower_flops(vision, 4).total / 1e9 == pytest.approx(gigaflops, rel=0.002)


@pytest.mark.parametrize("name", GPUS)
def test_gpus_are_known_whatever_their_case(name: str) -> None:
    assert gpu_named(name.lower()) == name


@pytest.mark.parametrize(
    ("name", "said"), [("H10", "'H10' is not known: did you mean H100"), ("zzz", "use one of H200")]
)
def test_an_unknown_gpu_is_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gpu_named(name)
