"""When in a video a model looked: the attention of a prompt's last row to each clip, and what dropout keeps of them.

It is the ranking by which dropout chooses (paper section 3.2), at the layer where it first does so; without such a
drop, in the middle of the decoder. Attention is where a model looked, not a proof of why it answered so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .chat import VideoChatFlash, check_question
from .config import Plan, check_plan
from .dropout import Segment, choose
from .llm import Block, rotary_tables
from .prompt import Turn, render
from .sight import Sight


@dataclass(frozen=True)
class Stage:
    """A drop: rows of each clip that enter this layer, for each video."""

    layer: int
    kept: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Evidence:
    """Where a question made the model look.

    Attributes:
        seconds: for each video, when each clip begins and ends.
        layer: whose attention it is.
        attention: for each video, the share of each clip in what all clips get; together 1.
        stages: the drops, in order.
    """

    seconds: tuple[tuple[tuple[float, float], ...], ...]
    layer: int
    attention: tuple[tuple[float, ...], ...]
    stages: tuple[Stage, ...]

    def told(self) -> dict[str, object]:
        """For machines."""
        stages = [{"layer": stage.layer, "kept": [list(clips) for clips in stage.kept]} for stage in self.stages]
        shares = [[round(share, 6) for share in clips] for clips in self.attention]
        seconds = [[[round(second, 3) for second in clip] for clip in clips] for clips in self.seconds]
        return {"seconds": seconds, "layer": self.layer, "attention": shares, "stages": stages}


@torch.inference_mode()
def look(
    vc: VideoChatFlash,
    sight: Sight | Sequence[Sight],
    question: str,
    *,
    history: Sequence[Turn] = (),
    keep: Plan | None = None,
    on_layer: Callable[[int], None] | None = None,
) -> Evidence:
    """Run a question as far as rows are ranked or dropped, and tell which clips that concerned.

    Args:
        on_layer: told the number of layers done, after each.

    Raises:
        ValueError: nothing was seen, a sight of another model, an empty question, a plan beyond the decoder.
    """
    sights = [sight] if isinstance(sight, Sight) else list(sight)
    if not sights:
        raise ValueError("there is no evidence without a video")
    check_question(question)
    plan = vc.model.config.keep if keep is None else keep
    check_plan(plan, vc.model.config.llm)
    prompt = render(vc.tokenizer, [*history, Turn("user", question)], sights)
    rows, (segment,) = vc.model.embed([prompt], [vc.tokens_of(sights)])
    owners = _owners(segment, sights).to(rows.device)
    drops = {drop.layer: drop for drop in plan}
    decoder, done = vc.model.decoder, 0
    ranked = min((drop.layer for drop in plan if drop.by == "attention"), default=len(decoder.layers) // 2)
    shares, stages = torch.zeros(0), []
    for layer in sorted({ranked, *drops}):
        if layer > done:
            rows = decoder(rows, [segment], layers=range(done, layer), on_layer=on_layer).rows
            done = layer
        by_attention = layer in drops and drops[layer].by == "attention"
        scores: list[Tensor | None] = [None]
        if by_attention or layer == ranked:
            tables = rotary_tables(decoder.config, torch.arange(segment.length, device=rows.device))
            scores = cast("Block", decoder.layers[layer]).rank(rows, [segment], tables)
        if layer == ranked and scores[0] is not None:
            shares = _sums(owners, scores[0], sights)
            shares = shares / shares.sum()
        if layer in drops:
            places, (segment,) = choose([segment], drops[layer], scores if by_attention else [None])
            places = places.to(rows.device)
            rows, owners = rows[places], owners[places]
            counts = _sums(owners, torch.ones(len(owners), device=rows.device), sights).int()
            stages.append(Stage(layer, tuple(tuple(part.tolist()) for part in _by_video(counts, sights))))
    seconds = tuple(tuple((float(first), float(last)) for first, last in sight.seconds) for sight in sights)
    attention = tuple(tuple(part.tolist()) for part in _by_video(shares, sights))
    return Evidence(seconds, ranked, attention, tuple(stages))


def _owners(segment: Segment, sights: Sequence[Sight]) -> Int[Tensor, " n"]:
    """Of each row the clip that it belongs to, counted over all videos; -1 for text and what stands behind a video."""
    owners = torch.full((segment.length,), -1)
    before = 0
    for run, sight in zip(segment.runs, sights, strict=True):
        clips, rows = sight.tokens.shape[:2]
        owners[run.start : run.start + clips * rows] = torch.arange(before, before + clips).repeat_interleave(rows)
        before += clips
    return owners


def _sums(owners: Int[Tensor, " n"], values: Float[Tensor, " n"], sights: Sequence[Sight]) -> Float[Tensor, " C"]:
    """Of each clip, what its rows have together."""
    owners, values = owners.cpu(), values.cpu()  # where there is float64
    own = owners >= 0
    sums = torch.zeros(sum(len(sight) for sight in sights), dtype=torch.float64)
    return sums.index_add(0, owners[own], values[own].double())


def _by_video(values: Tensor, sights: Sequence[Sight]) -> tuple[Tensor, ...]:
    return values.split([len(sight) for sight in sights])
