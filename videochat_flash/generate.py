"""Prefill once, then a token at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .config import Plan
from .dropout import Segment
from .llm import Caches
from .model import VideoChatFlashModel
from .prompt import Prompt

LONGEST = 4096  # tokens of an answer that room is kept for


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
            "seed must be a number of 64 bits": -(1 << 63) <= self.seed < 1 << 64,
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise ValueError("; ".join(broken))


@dataclass(frozen=True)
class Prefilled:
    """A prompt that has passed the decoder, ready for the next token. Decoding extends the caches: use it once."""

    logits: Float[Tensor, "n V"]
    caches: Caches
    visual: tuple[int, ...]  # visual rows that entered each layer


@runtime_checkable  # for the shape checks of the tests
class Begun(Protocol):
    """The beginning of a prompt that has passed the decoder before (``prefix.py``)."""

    @property
    def plan(self) -> Plan:
        """The dropout that holds."""

    def check(self, prompt: Prompt, videos: Sequence[Float[Tensor, "_ _ E"]]) -> None:
        """Raises ValueError for a prompt or videos that do not begin so."""

    def go_on(self, model: VideoChatFlashModel, prompt: Prompt, room: int) -> Prefilled:
        """``prefill`` of such a prompt: the same, sooner."""
        ...


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
    caches = [[model.decoder.cache(room) for _ in segments] for _ in model.decoder.layers]
    hidden = model.decoder(rows, segments, plan, caches, on_layer=on_layer)
    last = torch.tensor([s.length for s in hidden.segments], device=rows.device).cumsum(0) - 1
    return Prefilled(model.logits(hidden.rows[last]), caches, hidden.visual)


Step = Callable[[int], Float[Tensor, "1 V"]]  # feeds a token to the only conversation: scores of the next one
Steps = Callable[[VideoChatFlashModel, Prefilled, int], Step | None]  # for so many tokens; None: feed them plainly


def decode(
    model: VideoChatFlashModel, begun: Prefilled, how: Decoding, steps: Steps | None = None
) -> Iterator[list[int | None]]:
    """Yield the next token of every conversation, None for those that have ended, until all have.

    The token that ends a conversation is not yielded. ``steps``: a quicker way to feed tokens (``steady.steps``).
    """
    draws = [torch.Generator().manual_seed(how.seed) for _ in begun.logits]
    made: list[list[int]] = [[] for _ in draws]
    alive = list(range(len(draws)))
    step = None if steps is None else steps(model, begun, how.max_new_tokens)
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
        logits = next_logits(model, [picked[i] for i in alive], caches) if step is None else step(picked[0])


@torch.inference_mode()
def next_logits(model: VideoChatFlashModel, tokens: Sequence[int], caches: Caches) -> Float[Tensor, "n V"]:
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
