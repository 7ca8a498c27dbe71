"""Prefill once, then a token at a time; and beside it the naive way, which recomputes everything, as its oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .config import Plan
from .dropout import Segment
from .llm import Caches, LayerCache
from .model import VideoChatFlashModel
from .prompt import IGNORE, Prompt


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen. The defaults are greedy.

    Attributes:
        max_new_tokens: when to stop at the latest.
        temperature: 0 takes the likeliest token; above it, tokens are drawn.
        top_p: draw from the likeliest tokens that hold this share of probability.
        top_k: draw from this many likeliest tokens; 0 is all.
        repetition_penalty: above 1, tokens already generated become less likely (the prompt does not count).
        seed: of the draw; one seed gives one answer, alone or in a batch.
        eos: tokens that end an answer.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    eos: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        rules = {
            "max_new_tokens must be at least 1": self.max_new_tokens >= 1,
            "temperature cannot be negative": self.temperature >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "top_k cannot be negative": self.top_k >= 0,
            "repetition_penalty must be positive": self.repetition_penalty > 0,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ValueError("; ".join(broken))


@dataclass(frozen=True)
class Prefilled:
    """A prompt that has passed the decoder, ready for the next token. Decoding extends the caches: use it once."""

    logits: Float[Tensor, "n V"]
    caches: Caches
    visual: tuple[int, ...]  # visual rows that entered each layer


@dataclass(frozen=True)
class Prefix:
    """A prompt up to its last video, as far through the decoder as no question changes it: it serves any question.

    Attributes:
        ids: text tokens before the last video's end.
        videos: of each, how many rows it has and what its numbers add up to: by that it is known.
        layer: the first layer that is still to come: where attention first ranks visual rows, or behind the last one.
        rows: of all that stands before the question, as they enter that layer; none where none is to come.
        segment: where the videos lie in them.
        caches: of the layers before.
        visual: visual rows that entered each of these layers.
        plan: the dropout that holds.
    """

    ids: tuple[int, ...]
    videos: tuple[tuple[int, float], ...]
    layer: int
    rows: Float[Tensor, "n E"]
    segment: Segment
    caches: tuple[LayerCache, ...]
    visual: tuple[int, ...]
    plan: Plan

    @property
    def bytes(self) -> int:
        """What keeping it takes."""
        return self.rows.nbytes + sum(cache.bytes for cache in self.caches)


@torch.inference_mode()
def make_prefix(
    model: VideoChatFlashModel,
    prompt: Prompt,
    videos: Sequence[Float[Tensor, "_ _ E"]],
    plan: Plan = (),
    on_layer: Callable[[int], None] | None = None,
) -> Prefix:
    """Run what stands before the question, once for all questions.

    Raises:
        ValueError: a prompt without a video, which has nothing worth keeping.
    """
    if not prompt.slots:
        raise ValueError("a prompt without a video has no beginning that is worth keeping")
    ids = prompt.ids[: prompt.slots[-1]]
    rows, (segment,) = model.embed([Prompt(ids, (IGNORE,) * len(ids), prompt.slots)], [videos])
    depth = len(model.decoder.layers)
    layer = min((drop.layer for drop in plan if drop.by == "attention"), default=depth)
    caches = tuple(LayerCache() for _ in range(layer))
    hidden = model.decoder(rows, [segment], plan, [[c] for c in caches], on_layer=on_layer, layers=range(layer))
    left = hidden.rows if layer < depth else hidden.rows[:0]
    return Prefix(ids, _known_by(videos), layer, left, hidden.segments[0], caches, hidden.visual, plan)


def _known_by(videos: Sequence[Float[Tensor, "_ _ E"]]) -> tuple[tuple[int, float], ...]:
    return tuple((video.shape[0] * video.shape[1], float(video.float().sum())) for video in videos)


def check_prefix(begun: Prefix, prompt: Prompt, videos: Sequence[Float[Tensor, "_ _ E"]]) -> None:
    """Raises ValueError where a prompt or its videos are others than the prefix was made of."""
    at = len(begun.ids)
    if prompt.ids[:at] != begun.ids or prompt.slots[-1:] != (at,) or _known_by(videos) != begun.videos:
        raise ValueError("the prompt does not begin as the prefix that is given for it: make one for its videos")


@torch.inference_mode()
def go_on(model: VideoChatFlashModel, begun: Prefix, prompt: Prompt, room: int = 0) -> Prefilled:
    """``prefill`` of one prompt that begins with a prefix (``check_prefix``): the same, without what that has done."""
    at = len(begun.ids)
    tail = model.decoder.embed_tokens(torch.tensor(prompt.ids[at:], device=model.device))
    caches = [[cache.fork(room + len(tail))] for cache in begun.caches]
    below = model.decoder(tail, [Segment(len(tail))], (), caches, layers=range(begun.layer))
    depth = len(model.decoder.layers)
    if begun.layer == depth:
        return Prefilled(model.logits(below.rows[-1:]), caches, begun.visual)
    length = len(begun.rows) + len(tail)
    segment = replace(begun.segment, length=length, queries=(length - 1,))
    above = [[LayerCache(room)] for _ in range(depth)]
    rows = torch.cat([begun.rows, below.rows])
    hidden = model.decoder(rows, [segment], begun.plan, above, layers=range(begun.layer, depth))
    caches += above[begun.layer :]
    return Prefilled(model.logits(hidden.rows[-1:]), caches, begun.visual + hidden.visual)


@torch.inference_mode()
def prefill(
    model: VideoChatFlashModel,
    prompts: Sequence[Prompt],
    videos: Sequence[Sequence[Float[Tensor, "_ _ E"]]],
    plan: Plan = (),
    room: int = 0,
    on_layer: Callable[[int], None] | None = None,
) -> Prefilled:
    """Run packed conversations through the decoder; only each one's last row meets the head.

    Args:
        model: the model.
        prompts: the conversations.
        videos: for each conversation, the tokens of its videos in order.
        plan: which visual rows are dropped on the way.
        room: tokens to reserve in the caches.
        on_layer: told after each layer, for a progress bar.
    """
    rows, segments = model.embed(prompts, videos)
    caches = [[LayerCache(room) for _ in segments] for _ in model.decoder.layers]
    hidden = model.decoder(rows, segments, plan, caches, on_layer=on_layer)
    last = torch.tensor([s.length for s in hidden.segments], device=rows.device).cumsum(0) - 1
    return Prefilled(model.logits(hidden.rows[last]), caches, hidden.visual)


def decode(model: VideoChatFlashModel, begun: Prefilled, how: Decoding) -> Iterator[list[int | None]]:
    """Yield the next token of every conversation, None for those that have ended, until all have.

    The token that ends a conversation is not yielded.
    """
    draws = [torch.Generator().manual_seed(how.seed) for _ in begun.logits]
    made: list[list[int]] = [[] for _ in draws]
    alive = list(range(len(draws)))
    logits = begun.logits
    for _ in range(how.max_new_tokens):
        picked = {i: pick(row.cpu(), made[i], how, draws[i]) for i, row in zip(alive, logits, strict=True)}
        alive = [i for i in alive if picked[i] not in how.eos]
        if not alive:
            return
        for i in alive:
            made[i].append(picked[i])
        yield [picked[i] if i in alive else None for i in range(len(draws))]
        if all(len(tokens) >= how.max_new_tokens for tokens in made):
            return
        caches = [[layer[i] for i in alive] for layer in begun.caches]
        logits = _next_logits(model, [picked[i] for i in alive], caches)


@torch.inference_mode()
def _next_logits(model: VideoChatFlashModel, tokens: Sequence[int], caches: Caches) -> Float[Tensor, "n V"]:
    """Feed one token to each conversation. No part of ``decode``: a generator that is wrapped leaves inference mode."""
    rows = model.decoder.embed_tokens(torch.tensor(tokens, device=model.device))
    return model.logits(model.decoder(rows, [Segment(1)] * len(tokens), (), caches).rows)


def pick(logits: Float[Tensor, " V"], made: Sequence[int], how: Decoding, draw: torch.Generator) -> int:
    """One token: penalise repeats, then take the best, or draw after temperature, top_k and top_p in that order."""
    logits = logits.clone()
    if made and how.repetition_penalty != 1.0:
        repeated = torch.tensor(sorted(set(made)))
        scores = logits[repeated]
        logits[repeated] = torch.where(scores > 0, scores / how.repetition_penalty, scores * how.repetition_penalty)
    if how.temperature == 0:
        return int(logits.argmax())
    logits = logits / how.temperature
    if 0 < how.top_k < len(logits):
        logits[logits < logits.topk(how.top_k).values[-1]] = -torch.inf
    ordered, places = logits.sort(descending=True, stable=True)
    share = ordered.softmax(dim=-1)
    share[(share.cumsum(dim=-1) - share) >= how.top_p] = 0  # the token that passes top_p still counts
    return int(places[torch.multinomial(share, 1, generator=draw)])


@torch.inference_mode()
def naive(
    model: VideoChatFlashModel,
    prompt: Prompt,
    videos: Sequence[Float[Tensor, "_ _ E"]],
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
