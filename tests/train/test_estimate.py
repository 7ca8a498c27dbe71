"""Estimates against real modules: parameters, operations counted by torch, saved activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videochat_flash import attention
from videochat_flash.config import RELEASES
from videochat_flash.cost import GPUS, Sample
from videochat_flash.llm import Block, rotary_tables
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.train.adapters import add_adapters
from videochat_flash.train.estimate import (
    activation_bytes,
    estimate,
    facts,
    forward_flops,
    largest_sample,
    memory_bytes,
    parameters,
    training_flops,
)
from videochat_flash.train.losses import loss
from videochat_flash.train.recipe import Lora, Rates, Recipe, Source, Video, architecture, load_recipe
from videochat_flash.train.worlds import World
from videochat_flash.vision import make_tower

STAGES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*-*/stage*.toml"))
CONFIGS = {
    "umt": tiny.CONFIG,
    "internvideo2": tiny.INTERNVIDEO2,
    "untied": replace(tiny.CONFIG, llm=replace(tiny.LLM, tied=False), newline="one_token"),
    "tied": replace(tiny.CONFIG, llm=replace(tiny.LLM, tied=True)),
}
ALL = Rates(1e-6, 1e-5, 1e-5)
RECIPE = Recipe("run", rates=ALL, video=Video("dynamic", 4, 24), batch=8, pack=256, recompute=False)
BIG = RELEASES["VideoChat-Flash-Qwen2-7B_res224"]


def conversation(sample: Sample) -> Prompt:
    """All of its text is learned but the first, before which its video stands."""
    ids = tuple(range(sample.text))
    return Prompt(ids, (IGNORE, *ids[1:]), (1,))


# Parameters.


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rates", [ALL, Rates(connector=1e-3), Rates(2e-6, 1e-5, 0.0)])
def test_parameters_are_those_of_the_real_model(name: str, rates: Rates) -> None:
    trained, frozen = parameters(replace(RECIPE, rates=rates), CONFIGS[name])
    model = tiny.model(CONFIGS[name])
    sizes = {
        "tower": sum(p.numel() for p in model.vision.parameters()),
        "connector": sum(p.numel() for p in model.connector.parameters()),
    }
    if model.newline is not None:
        sizes["connector"] += model.newline.numel()
    sizes["decoder"] = sum(p.numel() for p in model.parameters()) - sum(sizes.values())
    learns = vars(rates)
    assert trained == {part: size if learns[part] else 0 for part, size in sizes.items()}
    assert frozen == {part: 0 if learns[part] else size for part, size in sizes.items()}


@pytest.mark.parametrize("parts", [("decoder",), ("tower",), ("decoder", "tower")])
def test_adapters_are_counted_as_they_are_made(parts: tuple[str, ...]) -> None:
    config = CONFIGS["tied"]
    trained, frozen = parameters(replace(RECIPE, lora=Lora(parts, rank=4)), config)
    with tiny.seeded():
        model = add_adapters(tiny.model(config), parts, 4, 8, 0.0)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(trained.values()) == learned
    assert sum(trained.values()) + sum(frozen.values()) == sum(p.numel() for p in model.parameters())


def test_the_released_model_has_the_published_size() -> None:
    trained, _ = parameters(replace(RECIPE, rates=ALL), BIG)
    assert trained["tower"] == pytest.approx(0.29e9, rel=0.01)
    assert trained["decoder"] == pytest.approx(7.6e9, rel=0.01)


# Operations.


@pytest.mark.parametrize(
    "rates", [ALL, Rates(connector=1e-3), Rates(2e-6, 1e-5, 0.0), Rates(decoder=1e-5), Rates(tower=1e-6)]
)
@pytest.mark.parametrize("recompute", [False, True])
def test_training_costs_what_torch_counts(rates: Rates, recompute: bool) -> None:
    """Forward, backward and recomputation, whatever learns."""
    config = tiny.CONFIG
    recipe = replace(RECIPE, rates=rates, recompute=recompute)
    sample = Sample(6, 4, 48, 20)
    real = tiny.counted(lambda: learn(tiny.model(config), rates, sample, recompute))
    assert sum(training_flops(recipe, config, sample).values()) == pytest.approx(real, rel=0.02)


def learn(model: VideoChatFlashModel, rates: Rates, sample: Sample, recompute: bool) -> None:
    for part, learns in (
        (model.vision, rates.tower),
        (model.connector, rates.connector),
        (model.decoder, rates.decoder),
        (model.head, rates.decoder),
    ):
        if part is not None:
            part.requires_grad_(learns > 0)
    if recompute:
        for block in [*model.vision.blocks, *model.decoder.layers]:
            assert isinstance(block, nn.Module)
            inner = block.forward
            block.forward = lambda *given, inner=inner: checkpoint(inner, *given, use_reentrant=False, early_stop=False)
    tokens = model.see(tiny.clips(model.config, sample.clips, sample.frames))
    loss(model, [conversation(sample)], [[tokens]]).sum().backward()


def test_dropout_makes_training_cheaper() -> None:
    sample = largest_sample(RECIPE, BIG)
    whole = training_flops(RECIPE, BIG, sample)
    less = training_flops(replace(RECIPE, train_with_dropout="8:0.5"), BIG, sample)
    assert whole["tower"] == less["tower"]
    assert less["decoder"] < whole["decoder"]


def test_a_forward_of_the_released_model_is_two_operations_a_weight_and_row() -> None:
    sample = Sample(1, 4, 64, 64)
    linear = forward_flops(BIG, sample)["decoder"].weights
    assert linear == pytest.approx(2 * 6.53e9 * 128 + 2 * 152064 * 3584 * 64, rel=0.01)


# Samples, memory, time.


def test_the_largest_sample_is_a_video_or_an_image_in_tiles() -> None:
    video = replace(RECIPE, video=Video("dynamic", 64, 512))
    assert largest_sample(video, BIG).visual == 8192
    tiles = replace(RECIPE, video=Video("dynamic", 4, 8), tiles=6)
    assert largest_sample(tiles, BIG) == Sample(37, 1, 64 * 37, 256)
    few = Source(world=World("videos", 1, clips=(3, 20), tokens=4))
    many = Source(world=World("videos", 1, clips=(2, 6), tokens=49))
    assert largest_sample(replace(RECIPE, data=(few, many)), BIG) == Sample(6, 4, 6 * 4 * 49, 256), "the most rows"


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention as on the GPUs that the estimate is for."""
    monkeypatch.setattr(attention, "SHORT", 0)
    monkeypatch.setattr(attention, "BLOCK", 2**30)


@pytest.mark.usefixtures("fused")
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_a_layer_holds_what_autograd_saves() -> None:
    config = replace(tiny.CONFIG, llm=replace(tiny.LLM, width=192, heads=4, kv_heads=2, ffn=512, layers=1, vocab=8))
    rows = 256
    with tiny.seeded():
        block = Block(config.llm)
        x = torch.randn(rows, 192, requires_grad=True)
    tables = rotary_tables(config.llm, torch.arange(rows))
    weights = {tuple(p.shape) for p in block.parameters()} | {tuple(p.shape[::-1]) for p in block.parameters()}
    held = saved(lambda: block(x, [rows], tables, None), weights)
    sample = Sample(0, 4, rows, 0)
    assert activation_bytes(RECIPE, config, sample, 2, recompute=False) == pytest.approx(held, rel=0.05)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("name", ["umt", "internvideo2"])
def test_a_tower_holds_what_autograd_saves(name: str) -> None:
    config = CONFIGS[name]
    vision = replace(config.vision, image_size=128, width=96, mlp_width=256)
    config = replace(config, vision=vision)
    with tiny.seeded():
        blocks = make_tower(vision).blocks
        x = torch.randn(2, 4 * vision.patches, 96, dtype=torch.bfloat16, requires_grad=True)
    weights = {tuple(p.shape) for p in blocks.parameters()} | {tuple(p.shape[::-1]) for p in blocks.parameters()}
    held = saved(lambda: nn.Sequential(*blocks)(x), weights)
    ours = activation_bytes(RECIPE, config, Sample(2, 4, 0, 0), 2, recompute=False)
    merging = 16 * vision.width * 2 * 4 * vision.patches
    assert ours - merging == pytest.approx(held, rel=0.05)


def saved(call: Callable[[], object], weights: set[tuple[int, ...]]) -> int:
    """Bytes that autograd keeps under autocast, weights and their copies aside."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        call()
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept if tuple(t.shape) not in weights}
    return sum(held.values())


def test_memory_follows_its_formula() -> None:
    sample = largest_sample(RECIPE, BIG)
    one = memory_bytes(RECIPE, BIG, sample, 1, recompute=True)
    many = memory_bytes(RECIPE, BIG, sample, 8, recompute=True)
    count = sum(parameters(RECIPE, BIG)[0].values())
    assert one["weights"] + one["gradients"] + one["moments"] == 16 * count
    assert one["working_copies"] == 2 * count
    assert many["moments"] == count
    assert many["working_copies"] < one["working_copies"]
    frozen = memory_bytes(replace(RECIPE, rates=Rates(connector=1e-3)), BIG, sample, 1, recompute=True)
    assert frozen["weights"] == one["weights"]
    assert frozen["moments"] < one["moments"] / 100


def test_recomputation_trades_memory_for_time() -> None:
    kept = estimate(RECIPE, BIG)
    again = estimate(replace(RECIPE, recompute=True), BIG)
    assert again.memory["activations"] < kept.memory["activations"]
    assert again.step_seconds > kept.step_seconds
    assert kept.memory_kept == sum(again.memory.values())
    assert "memory_with_recompute" in facts(kept)


def test_time_is_operations_over_speed() -> None:
    made = estimate(RECIPE, BIG, records=8000, gpu="a100-80", gpus=4, mfu=0.5)
    assert made.steps == 1000
    assert made.gpu == "A100-80"
    assert made.seconds == pytest.approx(1000 * sum(made.flops.values()) / (4 * 312e12 * 0.5))
    slow = estimate(replace(RECIPE, precision="float32"), BIG, gpu="A100-80")
    fast = estimate(RECIPE, BIG, gpu="A100-80")
    assert slow.step_seconds / fast.step_seconds == pytest.approx(312 / 19.5)
    assert slow.memory["working_copies"] == 0


@pytest.mark.parametrize("path", STAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_stage_of_the_paper_fits_where_the_authors_ran_it(path: Path) -> None:
    """On 8 or 32 A100."""
    recipe = load_recipe(path)
    made = estimate(recipe, architecture(recipe), gpu="A100-80", gpus=8 if path.stem == "stage1" else 32)
    assert made.fits, facts(made)


def test_facts_say_what_was_assumed() -> None:
    told = facts(estimate(RECIPE, BIG))
    assert "unknown" in str(told["steps"])
    assert "1 x H100 at 35% of the peak" in str(told["assumed"])
    assert "too much: lower pack" in str(told["memory_per_gpu"])
    assert "in all" not in str(told["time"])
    assert "in all" in str(facts(estimate(RECIPE, BIG, records=100, gpu="H200"))["time"])


@pytest.mark.parametrize("gpu", GPUS)
def test_every_gpu_gives_a_time(gpu: str) -> None:
    assert estimate(RECIPE, tiny.CONFIG, gpu=gpu).step_seconds > 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gpu": "H10"}, "GPU 'H10' is not known: did you mean H100"),
        ({"mfu": 0.0}, "0 < mfu <= 1"),
        ({"mfu": 1.5}, "0 < mfu <= 1"),
        ({"gpus": 0}, "1 GPU or more"),
    ],
)
def test_what_no_machine_has_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        estimate(RECIPE, tiny.CONFIG, **changed)  # type: ignore[arg-type]
