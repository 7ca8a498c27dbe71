"""What a smaller decoder costs and saves: its scores against those that it had, on a question about the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from ..chat import Stopwatch, VideoChatFlash
from ..config import Plan
from ..generate import next_logits, prefill
from ..prompt import Prompt, Turn, render
from ..quantise import Packing
from ..sight import Sight
from ..video import VideoInfo
from .stages import QUESTION, Footage, Setting


@dataclass(frozen=True)
class Cost:
    """Of holding a decoder smaller.

    Attributes:
        packing: how.
        frames: that were asked about.
        rows: of the prompt.
        weights: bytes of all the model's weights, before and after.
        cache: bytes of the prompt's keys and values, before and after.
        worst: the largest difference of a score, in spreads (standard deviations of a row of scores).
        typical: root of the mean square of the differences, in spreads.
        spread: of scores, as they come.
        agreed: of ``tokens`` greedy ones, fed to both alike, those that are the likeliest for both.
        tokens: how many were looked at.
    """

    packing: Packing
    frames: int
    rows: int
    weights: tuple[int, int]
    cache: tuple[int, int]
    worst: float
    typical: float
    spread: float
    agreed: int
    tokens: int


def shrink(vc: VideoChatFlash, setting: Setting, info: VideoInfo | None = None) -> Cost:
    """Make a model smaller, in place, and hold it against what it was.

    Args:
        vc: a model that is held as it was loaded.
        setting: frames, how many tokens of the answer are looked at, and what the model becomes.
        info: what the file holds, if it was looked into already.
    """
    sight = Footage.open(setting, info=info).see(vc, Stopwatch())
    keep = vc.model.config.keep if setting.keep is None else setting.keep
    prompt = render(vc.tokenizer, [Turn("user", QUESTION)], [sight])
    weights = _weights(vc)
    exact, cache = scores(vc, prompt, sight, keep, setting.tokens)
    likeliest = exact.argmax(-1)
    setting.packing.apply(vc.model)
    ours, smaller = scores(vc, prompt, sight, keep, setting.tokens, likeliest.tolist())
    spread = float(exact.std(-1).mean())
    off = (ours - exact) / spread
    return Cost(
        packing=setting.packing,
        frames=sight.frames,
        rows=len(prompt.ids) + sight.tokens.shape[0] * sight.tokens.shape[1] + (vc.model.newline is not None),
        weights=(weights, _weights(vc)),
        cache=(cache, smaller),
        worst=float(off.abs().max()),
        typical=float(off.pow(2).mean().sqrt()),
        spread=spread,
        agreed=int((ours.argmax(-1) == likeliest).sum()),
        tokens=len(exact),
    )


@torch.inference_mode()
def scores(
    vc: VideoChatFlash, prompt: Prompt, sight: Sight, keep: Plan, count: int, path: Sequence[int] | None = None
) -> tuple[Float[Tensor, "n V"], int]:
    """Scores of ``count`` tokens of an answer, on the CPU, and the bytes of the prompt's keys and values.

    Args:
        path: the tokens that are fed, whatever is likeliest; None feeds the likeliest.
    """
    begun = prefill(vc.model, [prompt], [vc.tokens_of([sight])], keep)
    held = sum(cache.bytes for layer in begun.caches for cache in layer)
    made = [begun.logits]
    while len(made) < count:
        token = int(made[-1].argmax()) if path is None else path[len(made) - 1]
        made.append(next_logits(vc.model, [token], begun.caches))
    return torch.cat(made).cpu(), held


def _weights(vc: VideoChatFlash) -> int:
    return sum(tensor.nbytes for tensor in chain(vc.model.parameters(), vc.model.buffers()))
