"""Requests answered together: each prompt passes the decoder alone, then tokens come for all of them at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..chat import VideoChatFlash
from ..config import Plan
from ..generate import Decoding, Prefilled, decode, prefill
from ..prefix import Prefix, prepare
from ..prompt import Turn, render
from ..sight import Sight

ROOM = 256  # tokens that a cache has room for from the start, at most


@dataclass(frozen=True)
class Answer:
    """What was answered, the rows of the prompt, and the tokens of the answer."""

    text: str
    rows: int
    tokens: int


@dataclass(frozen=True)
class Seen:
    """What was seen, and the prompt up to the end of it; nothing where a question has no media."""

    sights: tuple[Sight, ...]
    prefix: Prefix | None


@dataclass(frozen=True)
class Begun:
    """A prompt that has passed the decoder, ready for its first token, and how many rows it had."""

    prefilled: Prefilled
    rows: int


def seen(vc: VideoChatFlash, sights: Sequence[Sight], keep: Plan) -> Seen:
    """What questions about the same media share, done once."""
    return Seen(tuple(sights), prepare(vc, sights, keep=keep) if sights else None)


def begin(vc: VideoChatFlash, what: Seen, turns: Sequence[Turn], keep: Plan, decoding: Decoding) -> Begun:
    """Prefill a conversation about what was seen, however long: benchmarks ask with the subtitles of an hour.

    Raises:
        ValueError: turns that do not alternate.
    """
    prompt, videos = render(vc.tokenizer, turns, what.sights), vc.tokens_of(what.sights)
    rows = len(prompt.ids) + sum(one.shape[0] * one.shape[1] for one in videos)
    room, limit = min(decoding.max_new_tokens, ROOM), vc.model.config.llm.limit
    if rows > limit:
        warnings.warn(f"{rows} rows are beyond the {limit} positions that the model was made for", stacklevel=2)
    if what.prefix is None:
        return Begun(prefill(vc.model, [prompt], [videos], keep, room), rows)
    what.prefix.check(prompt, videos)
    return Begun(what.prefix.go_on(vc.model, prompt, room), rows)


def finish(vc: VideoChatFlash, begun: Sequence[Begun], decoding: Decoding) -> list[Answer]:
    """Every answer, as each would be alone but for the rounding of sums. What was begun is used up by it."""
    logits = torch.cat([one.prefilled.logits for one in begun])
    layers = zip(*(one.prefilled.caches for one in begun), strict=True)
    caches = [[cache for layer in same for cache in layer] for same in layers]
    made: list[list[int]] = [[] for _ in begun]
    for step in decode(vc.model, Prefilled(logits, caches, ()), decoding):
        for tokens, token in zip(made, step, strict=True):
            if token is not None:
                tokens.append(token)
    return [
        Answer(vc.tokenizer.decode(tokens, skip_special_tokens=True), one.rows, len(tokens))
        for tokens, one in zip(made, begun, strict=True)
    ]
