"""What a forward costs, from shapes alone: operations of tower, connector and decoder, rows that a plan leaves, bytes
of the caches; and what a device can do, by its data sheet. No weights, no data.

Operations are those of matrix products, two for each multiply-add, as ``torch.utils.flop_counter`` counts them:
attention as a full square. A causal kernel skips half of that square: ``Flops.skipped``.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from .config import Config, LLMConfig, Plan, VisionConfig
from .merge import merge_schedule


@dataclass(frozen=True)
class Gpu:
    """A device by its data sheet: dense peaks in TFLOP/s, memory in GB (1e9 bytes) and its speed in GB/s."""

    bfloat16: float
    float32: float
    gigabytes: float
    bandwidth: float


GPUS = {
    "H200": Gpu(989, 67, 141, 4800),
    "H100": Gpu(989, 67, 80, 3350),
    "A100-80": Gpu(312, 19.5, 80, 2039),
    "L4": Gpu(121, 30.3, 24, 300),
    "RTX 4090": Gpu(165, 82.6, 24, 1008),
}


def gpu_named(name: str) -> str:
    """A name of GPUS, whatever its case, and with or without "RTX".

    Raises:
        ValueError: an unknown one.
    """
    names = {word.lower(): known for known in GPUS for word in (known, known.removeprefix("RTX "))}
    if name.lower() not in names:
        near = get_close_matches(name.lower(), names, n=1, cutoff=0.4)
        hint = f"did you mean {names[near[0]]}?" if near else f"use one of {', '.join(GPUS)}"
        raise ValueError(f"GPU {name!r} is not known: {hint}")
    return names[name.lower()]


@dataclass(frozen=True)
class Flops:
    """Operations of one forward: products with weights, and products of activations (attention, merging).

    ``skipped``: those of ``activations`` that a causal kernel need not do.
    """

    weights: float
    activations: float = 0.0
    skipped: float = 0.0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.weights + other.weights, self.activations + other.activations, self.skipped + other.skipped)

    def __mul__(self, times: float) -> Flops:
        return Flops(self.weights * times, self.activations * times, self.skipped * times)

    @property
    def total(self) -> float:
        """As torch counts them."""
        return self.weights + self.activations

    @property
    def needed(self) -> float:
        """Without what lies above the diagonal of causal attention."""
        return self.total - self.skipped


@dataclass(frozen=True)
class Sample:
    """A conversation by its sizes: one video, or one image in all its tiles, and text."""

    clips: int  # of clip_frames frames, or tiles
    frames: int  # in one of them
    visual: int  # rows in the decoder
    text: int

    @property
    def rows(self) -> int:
        return self.visual + self.text


def tower_flops(config: VisionConfig, frames: int) -> Flops:
    """One clip through the tower."""
    patches, width = frames * config.patches, config.width
    tokens = patches + (config.kind == "internvideo2")  # its class token
    linear = 4 * width * width + 2 * width * config.mlp_width
    embed = Flops(2 * patches * 3 * config.patch**2 * width)
    return embed + Flops(2 * tokens * linear, 4 * tokens**2 * width) * config.depth


def connector_flops(config: Config, frames: int) -> Flops:
    """One clip merged and carried over to the decoder's width."""
    tokens = frames * config.vision.patches
    keep = config.image_tokens if frames == 1 else config.tokens_per_frame * frames
    compared = 0.0
    for remove in merge_schedule(tokens, keep):
        compared += 2 * ((tokens + 1) // 2) * (tokens // 2) * (config.vision.width // config.vision.heads)
        tokens -= remove
    out = config.llm.width
    return Flops(2 * keep * (config.vision.width * out + out * out), compared)


def rows_left(config: LLMConfig, visual: int, plan: Plan) -> tuple[int, ...]:
    """Visual rows that enter each layer, of one video."""
    drops, left, rows = {drop.layer: drop for drop in plan}, visual, []
    for layer in range(config.layers):
        if layer in drops:
            left = min(left, int(visual * drops[layer].ratio))
        rows.append(left)
    return tuple(rows)


def _linear(config: LLMConfig) -> int:
    """Weights of the products of one layer."""
    inner, kv = config.heads * config.head_width, config.kv_heads * config.head_width
    return 2 * config.width * (inner + kv) + 3 * config.width * config.ffn


def decoder_flops(config: LLMConfig, sample: Sample, plan: Plan = (), scored: int | None = None) -> Flops:
    """One conversation through the decoder; dropped rows leave on the way.

    Args:
        scored: rows that meet the head; None is all of the text, as in training.
    """
    inner, kv = config.heads * config.head_width, config.kv_heads * config.head_width
    drops = {drop.layer: drop for drop in plan}
    total = Flops(2 * (sample.text if scored is None else scored) * config.width * config.vocab)
    before = sample.rows
    for layer, visual in enumerate(rows_left(config, sample.visual, plan)):
        if layer in drops and drops[layer].by == "attention":  # keys of all rows, asked by one query
            total += Flops(2 * config.width * (before * kv + inner), 2 * before * inner)
        rows = before = visual + sample.text
        total += Flops(2 * rows * _linear(config), 4 * rows**2 * inner, 2 * rows * (rows - 1) * inner)
    return total


def token_flops(config: LLMConfig, sample: Sample, plan: Plan = ()) -> Flops:
    """The first generated token through decoder and head; each later one attends to one row more."""
    inner = config.heads * config.head_width
    held = sum(visual + sample.text + 1 for visual in rows_left(config, sample.visual, plan))
    return Flops(2 * (config.layers * _linear(config) + config.width * config.vocab), 4 * held * inner)


def cache_bytes(config: LLMConfig, sample: Sample, plan: Plan = (), width: int = 2) -> int:
    """Keys and values of a conversation in all layers, in numbers of ``width`` bytes."""
    held = sum(visual + sample.text for visual in rows_left(config, sample.visual, plan))
    return 2 * held * config.kv_heads * config.head_width * width
