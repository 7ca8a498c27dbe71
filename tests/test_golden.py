"""Outputs of the reference implementation. No size stands here: every one comes from the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from golden import Golden, distance, of_kind, read
from tiny import caches
from torch import Tensor, nn

from videochat_flash.config import PIXEL_MEAN, PIXEL_STD, Config, LLMConfig, Plan, VisionConfig, drop_plan
from videochat_flash.connector import Connector
from videochat_flash.dropout import Segment
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.vision import make_tower

Net = TypeVar("Net", bound=nn.Module)
pytestmark = pytest.mark.golden
TOLERANCE = 1e-4
OURS = (  # released prefixes -> ours, the longest first
    ("model.vision_tower.vision_tower.encoder.", "vision."),
    ("model.vision_tower.vision_tower.", "vision."),
    ("model.mm_projector.", "connector."),
    ("model.frame_newline", "newline"),
    ("lm_head.", "head."),
    ("model.", "decoder."),
)


def renamed(key: str) -> str:
    theirs, ours = next((pair for pair in OURS if key.startswith(pair[0])), ("", ""))
    return ours + key.removeprefix(theirs)


def normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return (pixels / 255 - mean) / std


def vision_config(facts: dict[str, Any], frames: int, weights: dict[str, Tensor]) -> VisionConfig:
    """Sizes of a tower from the facts about it and, where these are silent, from its weights."""
    return VisionConfig(
        kind=facts["kind"],
        image_size=facts["image_size"],
        patch=ending(weights, "patch_embed.proj.weight").shape[-1],
        clip_frames=frames,
        width=facts["width"],
        depth=facts["depth"] + 1 + facts["select_layer"],
        heads=facts["heads"],
        mlp_width=ending(weights, "blocks.0.mlp.fc1.weight").shape[0],
    )


def ending(weights: dict[str, Tensor], end: str) -> Tensor:
    return next(weight for key, weight in weights.items() if key.endswith(end))


def filled(make: Callable[[], Net], weights: dict[str, Tensor]) -> Net:
    """A module that holds exactly these weights; none is drawn."""
    with torch.device("meta"):
        net = make()
    net.load_state_dict(weights, assign=True)
    return net


@torch.no_grad()
@pytest.mark.parametrize("path", of_kind("umt", "internvideo2"))
def test_towers(path: Path) -> None:
    golden = read(path)
    weights = {key.removeprefix("encoder."): weight for key, weight in golden.weights.items()}
    config = vision_config(golden.facts, golden.facts["frames"], weights)
    net = filled(lambda: make_tower(config), weights)
    for name in ("video", "image"):
        theirs = golden.tensors[f"{name}_out"]
        ours = net(normalised(golden.tensors[f"{name}_u8"])[None])
        assert ours.numel() == theirs.numel()
        assert distance(ours.view(theirs.shape), theirs) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("path", of_kind("tome16_mlp_hd64"))
def test_connectors(path: Path) -> None:
    golden = read(path)
    facts, tensors = golden.facts, golden.tensors
    vision = VisionConfig(width=facts["width"], heads=facts["heads"])
    config = Config(vision=vision, llm=LLMConfig(width=facts["llm_width"], heads=1, kv_heads=1))
    net = filled(lambda: Connector(config), golden.weights)
    frames = facts["frames_per_clip"]
    assert distance(net.merge(tensors["video_in"], frames), tensors["video_merged"]) < TOLERANCE
    assert distance(net(tensors["video_in"], frames), tensors["video_out"]) < TOLERANCE
    assert distance(net(tensors["image_in"], 1), tensors["image_out"]) < TOLERANCE


def whole_model(golden: Golden) -> VideoChatFlashModel:
    facts = golden.facts
    llm = {key: value for key, value in facts["llm"].items() if key != "tie"}
    weights = {renamed(key): weight for key, weight in golden.weights.items()}
    config = Config(
        vision=vision_config(facts["tower"], facts["frames_per_clip"], weights),
        llm=LLMConfig(tied=facts["llm"]["tie"], **llm),
        newline=facts["newline"],
    )
    if config.llm.tied:
        weights.pop("head.weight", None)
    return filled(lambda: VideoChatFlashModel(config), weights)


def plan_of(facts: dict[str, Any]) -> Plan:
    return drop_plan(facts["type"], tuple(facts["layers"]), tuple(facts["ratios"][1:])) if facts["on"] else ()


@torch.no_grad()
@pytest.mark.parametrize("path", of_kind("videochat_flash"))
def test_models(path: Path) -> None:
    golden = read(path)
    facts, tensors = golden.facts, golden.tensors
    net = whole_model(golden)
    video = tensors["video_u8"]
    clips = normalised(video).view(-1, facts["frames_per_clip"], *video.shape[1:])
    before, after = facts["prompt_before"], facts["prompt_after"]
    prompt = Prompt((*before, *after), (IGNORE,) * len(before + after), (len(before),))
    rows, segments = net.embed([prompt], [[net.see(clips)]])
    assert distance(rows[len(before) : -len(after)], tensors["visual_tokens"]) < TOLERANCE
    assert distance(rows, tensors["inputs_embeds"][0]) < TOLERANCE
    for i, plan in enumerate(facts["plans"]):
        held = caches(net.config.llm.layers, room=16)
        hidden = net.decoder(rows, segments, plan_of(plan), held)
        logits = net.logits(hidden.rows[-len(after) :])
        assert hidden.rows.shape[0] == tensors[f"plan{i}.num_tokens_out"].item(), plan
        assert [len(layer[0]) for layer in held] == tensors[f"plan{i}.kv_lengths"].tolist(), plan
        assert distance(logits, tensors[f"plan{i}.last_logits"]) < TOLERANCE, plan
        greedy = tensors[f"plan{i}.greedy_tokens"].tolist()
        assert continued(net, logits[-1], held, len(greedy)) == greedy, plan


def continued(net: VideoChatFlashModel, logits: Tensor, held: Any, steps: int) -> list[int]:
    """The likeliest tokens, each fed back."""
    tokens = []
    for _ in range(steps):
        tokens.append(int(logits.argmax()))
        rows = net.decoder.embed_tokens(torch.tensor(tokens[-1:]))
        logits = net.logits(net.decoder(rows, [Segment(1)], (), held).rows)[-1]
    return tokens
