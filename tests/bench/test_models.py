"""What is measured: any size without a download, its weights drawn where they stay."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tiny
import torch
from command import SMALL, small_model

from videochat_flash import quantise, weights
from videochat_flash.bench import models
from videochat_flash.bench.models import EIGHTH, NOISE, PRESETS, STAND_IN, config_of, load, random_model
from videochat_flash.config import FLASH_TINY, RELEASES, Config
from videochat_flash.generate import prefill
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.quantise import Packing
from videochat_flash.weights import skeleton

BIG = RELEASES["VideoChat-Flash-Qwen2-7B_res224"]


@pytest.mark.parametrize("config", [tiny.CONFIG, tiny.INTERNVIDEO2, SMALL, replace(SMALL, newline="one_token")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drawn_weights_are_all_there_and_give_even_numbers(config: Config, dtype: torch.dtype) -> None:
    model = random_model(config, dtype, "cpu")
    shapes = {name: tuple(weight.shape) for name, weight in skeleton(config).named_parameters()}
    assert {name: tuple(weight.shape) for name, weight in model.named_parameters()} == shapes
    assert all(weight.dtype == dtype and not weight.requires_grad for weight in model.parameters())
    with torch.no_grad():
        tokens = model.see(tiny.clips(config, 2, 4).to(dtype))
    prompt = Prompt(tuple(range(9)), (IGNORE,) * 9, (3,))
    logits = prefill(model, [prompt], [[tokens]], config.keep).logits
    assert bool(torch.isfinite(logits).all()) and 0.01 < float(logits.std()) < 100


def test_no_two_rows_of_a_large_matrix_are_alike() -> None:
    llm = replace(tiny.LLM, vocab=NOISE // 512 * 2, width=516)
    table = random_model(replace(tiny.CONFIG, llm=llm), torch.float32, "cpu").decoder.embed_tokens.weight
    assert table.numel() > NOISE
    assert len(torch.unique(table[:, :4], dim=0)) == len(table)


def test_drawn_weights_touch_no_global_state() -> None:
    before = torch.get_rng_state()
    first = random_model(tiny.CONFIG, torch.float32, "cpu").state_dict()
    assert torch.equal(before, torch.get_rng_state())
    again = random_model(tiny.CONFIG, torch.float32, "cpu").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_presets_are_the_releases_the_embedded_one_and_a_stand_in() -> None:
    assert config_of("flash-tiny") == FLASH_TINY and config_of(STAND_IN) == EIGHTH
    for name, config in RELEASES.items():
        assert config_of(name) == config_of(f"OpenGVLab/{name}") == config == PRESETS[name]
    assert config_of(STAND_IN, 448).vision.image_size == 448
    with pytest.raises(FileNotFoundError, match="did you mean VideoChat-Flash-Qwen2-7B_res224"):
        config_of("VideoChat-Flash-Qwen2-7B_res22")
    with pytest.raises(ValueError, match="image_size 100 must be a multiple"):
        config_of("flash-tiny", 100)


def test_the_stand_in_is_an_eighth_as_wide_as_the_7b_and_as_deep() -> None:
    for part in ("vision", "llm"):
        big, small = asdict(getattr(BIG, part)), asdict(getattr(EIGHTH, part))
        for name in ("width", "ffn", "mlp_width", "vocab"):
            assert small.get(name, 0) * 8 == big.get(name, 0)
        for name in ("depth", "layers", "patch", "image_size", "rope_theta", "tied", "clip_frames"):
            assert small.get(name) == big.get(name)
    assert EIGHTH.llm.heads // EIGHTH.llm.kv_heads == BIG.llm.heads // BIG.llm.kv_heads


def test_a_checkpoint_is_loaded_with_its_own_weights_or_drawn_ones(tmp_path: Path) -> None:
    folder = small_model(tmp_path)
    own, drawn = load(str(folder), False, None, "cpu"), load(str(folder), True, torch.bfloat16, "cpu")
    assert own.model.config == drawn.model.config == SMALL
    assert (own.model.dtype, drawn.model.dtype) == (torch.float32, torch.bfloat16)
    assert own.made_by != drawn.made_by
    larger = load(str(folder), False, None, "cpu", 160)
    assert larger.model.config.vision.image_size == 160
    with pytest.raises(ValueError, match="no trained weights: add --random-weights"):
        load(STAND_IN, False, None, "cpu")


@pytest.mark.parametrize("random", [False, True])
def test_weights_become_int8_before_they_are_on_the_device(
    random: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, device = small_model(tmp_path), "cpu:0"  # by another name a device that is not the host
    places = list[object]()
    for module, name in ((weights, "load_model"), (models, "random_model")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, real=real: places.append(given[-1]) or real(*given))
    for packing in (Packing(), Packing(None, "fp8"), Packing("int8"), Packing("int8", "fp8")):
        load(str(folder), random, None, device, packing=packing)
    assert places == [device, device, "cpu", "cpu"]


def test_a_model_is_held_smaller_as_a_user_loads_it(tmp_path: Path) -> None:
    folder, packing = small_model(tmp_path), Packing("int8", "fp8")
    ours, theirs = load(str(folder), False, None, "cpu", packing=packing), quantise.load(folder, packing)
    assert ours.model.decoder.cache is theirs.model.decoder.cache
    held, other = ours.model.state_dict(), theirs.model.state_dict()
    assert held.keys() == other.keys() and all(torch.equal(held[name], other[name]) for name in held)
