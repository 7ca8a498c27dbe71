"""Configurations: what is refused, the published kinds of dropout, and the releases."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import CONFIG, LLM, VISION

from videochat_flash.config import (
    FLASH_TINY,
    RELEASES,
    Config,
    Drop,
    LLMConfig,
    Plan,
    VisionConfig,
    Yarn,
    check_plan,
    drop_plan,
    parse_plan,
)


@pytest.mark.parametrize("told", [32_768, 131_072])  # Qwen's configs tell what was before, others what is now
def test_yarn_stretches_the_limit_of_rows(told: int) -> None:
    llm = LLMConfig(max_positions=told)
    assert llm.limit == told and replace(llm, yarn=Yarn(4.0, 32_768)).limit == 131_072


@pytest.mark.parametrize(
    ("size", "patch", "patches", "clip"), [(224, 16, 196, 784), (448, 16, 784, 3136), (224, 14, 256, 1024)]
)
def test_patches_and_tokens_of_the_released_sizes(size: int, patch: int, patches: int, clip: int) -> None:
    vision = VisionConfig(image_size=size, patch=patch)
    config = Config(vision=vision)
    assert (vision.patches, vision.patches * vision.clip_frames) == (patches, clip)
    assert config.clip_tokens == config.image_tokens == 64


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        CONFIG.tokens_per_frame = 3  # type: ignore[misc]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "clip"}, "'clip' is not known"),
        ({"image_size": 225}, "225 must be a multiple of patch 16"),
        ({"heads": 5}, "width 48 of heads 5"),
    ],
)
def test_an_impossible_tower_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(VISION, **wrong)


@pytest.mark.parametrize("wrong", [{"heads": 5}, {"kv_heads": 4}])
def test_an_impossible_decoder_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be a multiple of heads"):
        replace(LLM, **wrong)


@pytest.mark.parametrize(("layer", "ratio"), [(-1, 0.5), (2, 1.5), (2, -0.1), (2, float("nan"))])
def test_an_impossible_drop_is_refused(layer: int, ratio: float) -> None:
    with pytest.raises(ValueError, match="a drop needs"):
        Drop(layer, ratio)


@pytest.mark.parametrize(
    ("kind", "by"),
    [
        ("uniform", ["uniform", "uniform", "uniform"]),
        ("attention", ["attention", "attention", "attention"]),
        ("uniform0_attention", ["uniform", "attention", "attention"]),
        ("uniform1_attention", ["uniform", "uniform", "attention"]),
    ],
)
def test_the_published_kinds_of_dropout(kind: str, by: list[str]) -> None:
    plan = drop_plan(kind, (8, 16, 24), (0.5, 0.25, 0.125))
    assert [drop.by for drop in plan] == by
    assert [(drop.layer, drop.ratio) for drop in plan] == [(8, 0.5), (16, 0.25), (24, 0.125)]


@pytest.mark.parametrize(
    ("kind", "layers", "ratios", "words"),
    [
        ("random", (4,), (0.5,), "'random' is not known"),
        ("uniform", (4, 18), (0.5,), "2 layers need as many ratios, not 1"),
        ("uniform", (18, 4), (0.5, 0.2), "must ascend"),
        ("uniform", (4, 4), (0.5, 0.2), "must ascend"),
        ("uniform", (4, 18), (0.2, 0.5), "cannot grow"),
    ],
)
def test_an_impossible_plan_is_refused(
    kind: str, layers: tuple[int, ...], ratios: tuple[float, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        drop_plan(kind, layers, ratios)


@pytest.mark.parametrize("text", ["", "off", " off "])
def test_no_plan_drops_nothing(text: str) -> None:
    assert parse_plan(text) == ()


@given(st.dictionaries(st.integers(0, 27), st.floats(0, 1), min_size=1, max_size=4))
def test_a_plan_is_read_back_from_its_text(drops: dict[int, float]) -> None:
    ratios = sorted(drops.values(), reverse=True)
    plan = drop_plan("uniform0_attention", tuple(sorted(drops)), tuple(ratios))
    assert parse_plan(",".join(f"{d.layer}:{d.ratio!r}" for d in plan), "uniform0_attention") == plan


@pytest.mark.parametrize("text", ["4", "4:", "4:0.5:1", "a:0.5", "4:0.5,", "4;0.5"])
def test_a_plan_that_cannot_be_read_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="4:0.75,18:0.25"):
        parse_plan(text)


def test_a_drop_in_a_layer_that_does_not_exist_is_refused() -> None:
    beyond: Plan = (Drop(LLM.layers, 0.5),)
    with pytest.raises(ValueError, match="layers are 0 to 5"):
        check_plan(beyond, LLM)
    with pytest.raises(ValueError, match="before layer 6"):
        replace(CONFIG, keep=beyond)
    check_plan((Drop(LLM.layers - 1, 0.5),), LLM)


# name: image size, patch, tower width, blocks | LLM width, heads, kv, ffn, vocabulary, theta, eps, positions, tied
TABLE = {
    "VideoChat-Flash-Qwen2_5-2B_res448": (448, 16, 1024, 23, 1536, 12, 2, 8960, 151936, 1e6, 1e-6, 32768, True),
    "VideoChat-Flash-Qwen2-7B_res224": (224, 16, 1024, 23, 3584, 28, 4, 18944, 152064, 1e6, 1e-6, 32768, False),
    "VideoChat-Flash-Qwen2-7B_res448": (448, 16, 1024, 23, 3584, 28, 4, 18944, 152064, 1e6, 1e-6, 32768, False),
    "VideoChat-Flash-Qwen2_5-7B-1M_res224": (
        *(224, 16, 1024, 23, 3584, 28, 4, 18944, 152064, 1e7, 1e-5, 1010000, False),
    ),
    "VideoChat-Flash-Qwen2_5-7B_InternVideo2-1B": (
        *(224, 14, 1408, 39, 3584, 28, 4, 18944, 152064, 1e6, 1e-6, 32768, False),
    ),
}


def test_the_releases_are_those_of_the_table() -> None:
    assert {name: _row(config) for name, config in RELEASES.items()} == TABLE
    for config in RELEASES.values():
        assert (config.llm.layers, config.llm.head_width, config.newline, config.keep) == (28, 128, "nothing", ())
        assert (config.vision.clip_frames, config.vision.heads, config.clip_tokens) == (4, 16, 64)


def test_the_embedded_model_is_the_same_in_small() -> None:
    assert FLASH_TINY.vision.patches == 196 and FLASH_TINY.clip_tokens == 64
    assert FLASH_TINY.llm.kv_heads < FLASH_TINY.llm.heads
    assert FLASH_TINY.vision.kind == "umt"


def _row(config: Config) -> tuple[object, ...]:
    v, m = config.vision, config.llm
    tower = (v.image_size, v.patch, v.width, v.depth)
    return (
        *tower,
        *(m.width, m.heads, m.kv_heads, m.ffn, m.vocab, m.rope_theta, m.rms_eps, m.max_positions, m.tied),
    )


def test_the_head_width_divides_the_width() -> None:
    assert LLMConfig(width=96, heads=6, kv_heads=2).head_width == 16
