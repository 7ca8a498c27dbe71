"""The decoder once more, the plain way: float64, one conversation, whole attention squares with a mask, complex rotary.

It follows the paper and shares no code with the package; what takes memory or time does not matter here. And generation
without caches, which recomputes everything for each token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from videochat_flash.config import LLMConfig, Plan
from videochat_flash.dropout import Segment
from videochat_flash.generate import Decoding, pick
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import Prompt


@dataclass
class Outcome:
    """What came out, which rows it comes from, and how many rows each layer saw."""

    rows: Tensor
    kept: list[int]
    lengths: list[int]


def run(
    weights: dict[str, Tensor], config: LLMConfig, rows: Tensor, segment: Segment, plan: Plan = (), prefix: str = ""
) -> Outcome:
    """One conversation through all layers; the final norm included."""
    w = {key.removeprefix(prefix): t.detach().double() for key, t in weights.items() if key.startswith(prefix)}
    x = rows.detach().double()
    kept, lengths = list(range(segment.length)), []
    for layer in range(config.layers):
        for drop in plan:
            if drop.layer == layer and segment.runs:
                attention = _attention(_part(w, layer), config, x)[0]
                stay = _stay(kept, segment, drop.ratio, drop.by, attention)
                x, kept = x[stay], [kept[i] for i in stay]
        lengths.append(len(kept))
        x = _block(_part(w, layer), config, x)
    return Outcome(_rms(x, w["norm.weight"], config.rms_eps), kept, lengths)


def _stay(kept: list[int], segment: Segment, ratio: float, by: str, attention: Tensor) -> list[int]:
    """Places in the present sequence that stay; ``kept`` holds the original row of each place."""
    gone = set()
    for run in segment.runs:
        places = [p for p, row in enumerate(kept) if run.start <= row < run.start + run.length]
        keep = int(run.seen * ratio)
        if by == "uniform":
            chosen = {places[i] for i in torch.linspace(0, len(places) - 1, keep, dtype=torch.long).tolist()}
        else:
            asking = [kept.index(row) for row in segment.queries]
            score = attention[:, asking].mean(dim=(0, 1))
            chosen = set(sorted(places, key=lambda p: -float(score[p]))[:keep])
        gone |= set(places) - chosen
    return [p for p in range(len(kept)) if p not in gone]


def _attention(w: dict[str, Tensor], config: LLMConfig, x: Tensor) -> tuple[Tensor, Tensor]:
    """The whole attention "heads T T" of a layer, and its values "heads T H"."""
    normed = _rms(x, w["input_layernorm.weight"], config.rms_eps)
    q, k, v = (
        (normed @ w[f"self_attn.{n}_proj.weight"].T + w[f"self_attn.{n}_proj.bias"])
        .view(len(x), -1, config.head_width)
        .transpose(0, 1)
        for n in "qkv"
    )
    group = config.heads // config.kv_heads
    if config.log_scaled_from:
        grown = [max(1.0, math.log(p + 1) / math.log(config.log_scaled_from)) for p in range(len(x))]
        q = q * torch.tensor(grown, dtype=torch.float64)[:, None]
    q, k = _turn(q, config), _turn(k, config).repeat_interleave(group, dim=0)
    logits = q @ k.transpose(1, 2) / math.sqrt(config.head_width)
    logits = logits + torch.full((len(x), len(x)), -math.inf, dtype=torch.float64).triu(1)
    return logits.softmax(dim=-1), v.repeat_interleave(group, dim=0)


def _block(w: dict[str, Tensor], config: LLMConfig, x: Tensor) -> Tensor:
    attention, values = _attention(w, config, x)
    x = x + (attention @ values).transpose(0, 1).reshape(len(x), -1) @ w["self_attn.o_proj.weight"].T
    y = _rms(x, w["post_attention_layernorm.weight"], config.rms_eps)
    gate, up = y @ w["mlp.gate_proj.weight"].T, y @ w["mlp.up_proj.weight"].T
    return x + (gate / (1 + torch.exp(-gate)) * up) @ w["mlp.down_proj.weight"].T


def _turn(x: Tensor, config: LLMConfig) -> Tensor:
    """Channel i and channel i + half are one complex number; at position p it turns by p * theta^(-2i/H)."""
    half = config.head_width // 2
    angles = torch.tensor(
        [[p * config.rope_theta ** (-2 * i / config.head_width) for i in range(half)] for p in range(x.shape[1])],
        dtype=torch.float64,
    )
    z = torch.complex(x[..., :half].contiguous(), x[..., half:].contiguous()) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.cat([z.real, z.imag], dim=-1)


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * weight


def _part(w: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
    prefix = f"layers.{layer}."
    return {key.removeprefix(prefix): t for key, t in w.items() if key.startswith(prefix)}


def whole_attention(weights: dict[str, Tensor], config: LLMConfig, layer: int, rows: Tensor) -> Tensor:
    """What every row of one conversation pays to every other in one layer: "heads T T"."""
    return _attention({key: t.double() for key, t in _part(weights, layer).items()}, config, rows.double())[0]


def rows_of(segments: Sequence[Segment]) -> list[slice]:
    """Where each conversation lies on the packed axis."""
    ends = torch.tensor([0, *(s.length for s in segments)]).cumsum(0).tolist()
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]


@torch.inference_mode()
def naive(
    model: VideoChatFlashModel,
    prompt: Prompt,
    videos: Sequence[Tensor],
    plan: Plan,
    how: Decoding,
) -> list[int]:
    """The answer to one prompt without any cache: everything again for each token. Slow; what ``decode`` must equal."""
    rows, (segment,) = model.embed([prompt], [videos])
    draw = torch.Generator().manual_seed(how.seed)
    made: list[int] = []
    while len(made) < how.max_new_tokens:
        longer = replace(segment, length=segment.length + len(made))
        tail = model.decoder.embed_tokens(torch.tensor(made, dtype=torch.long, device=rows.device))
        hidden = model.decoder(torch.cat([rows, tail]), [longer], plan)
        token = pick(model.logits(hidden.rows[-1:])[0].cpu(), made, how, draw)
        if token in how.eos:
            break
        made.append(token)
    return made
