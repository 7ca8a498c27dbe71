"""Many questions about one video: what stands before the question passes the decoder once.

It serves any question up to the first layer where attention ranks visual rows, since that depends on the question;
without such a drop, through all layers. Answers are those of the whole prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .chat import VideoChatFlash
from .config import Plan, check_plan
from .dropout import Segment
from .generate import Prefilled
from .llm import LayerCache
from .model import VideoChatFlashModel
from .prompt import IGNORE, Prompt, Turn, render
from .sight import Sight


@dataclass(frozen=True)
class Prefix:
    """A prompt up to the end of its last video.

    Attributes:
        ids: its text tokens.
        videos: of each, how many rows it has and what its numbers add up to: by that it is known.
        plan: the dropout that holds.
        layer: the first layer that is still to come.
        rows: as they enter that layer; none where none is to come.
        segment: where the videos lie in them.
        caches: of the layers before.
        visual: visual rows that entered each of these layers.
    """

    ids: tuple[int, ...]
    videos: tuple[tuple[int, float], ...]
    plan: Plan
    layer: int
    rows: Float[Tensor, "n E"]
    segment: Segment
    caches: tuple[LayerCache, ...]
    visual: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """What keeping it takes."""
        return self.rows.nbytes + sum(cache.bytes for cache in self.caches)

    def check(self, prompt: Prompt, videos: Sequence[Float[Tensor, "_ _ E"]]) -> None:
        """Raises ValueError for a prompt or videos other than those that it was made of."""
        at = len(self.ids)
        if prompt.ids[:at] != self.ids or prompt.slots[-1:] != (at,) or _known_by(videos) != self.videos:
            raise ValueError("the prompt does not begin as the prefix that is given for it: prepare its own")

    @torch.inference_mode()
    def go_on(self, model: VideoChatFlashModel, prompt: Prompt, room: int = 0) -> Prefilled:
        """``prefill`` of a prompt that begins so (``check``): the same, without what is done already."""
        tail = model.decoder.embed_tokens(torch.tensor(prompt.ids[len(self.ids) :], device=model.device))
        caches = [[cache.fork(room + len(tail))] for cache in self.caches]
        below = model.decoder(tail, [Segment(len(tail))], (), caches, layers=range(self.layer))
        depth = len(model.decoder.layers)
        if self.layer == depth:
            return Prefilled(model.logits(below.rows[-1:]), caches, self.visual)
        rows = torch.cat([self.rows, below.rows])
        segment = replace(self.segment, length=len(rows), queries=(len(rows) - 1,))
        caches += [[LayerCache(room)] for _ in range(self.layer, depth)]
        hidden = model.decoder(rows, [segment], self.plan, caches, layers=range(self.layer, depth))
        return Prefilled(model.logits(hidden.rows[-1:]), caches, self.visual + hidden.visual)


@torch.inference_mode()
def make_prefix(
    model: VideoChatFlashModel,
    prompt: Prompt,
    videos: Sequence[Float[Tensor, "_ _ E"]],
    plan: Plan = (),
    on_layer: Callable[[int], None] | None = None,
) -> Prefix:
    """Run a prompt up to the end of its last video, as far as no question changes it.

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
    return Prefix(ids, _known_by(videos), plan, layer, left, hidden.segments[0], caches, hidden.visual)


def prepare(
    vc: VideoChatFlash,
    sight: Sight | Sequence[Sight],
    *,
    keep: Plan | None = None,
    on_layer: Callable[[int], None] | None = None,
) -> Prefix:
    """A prefix for ``vc.answer(sight, question, prefix=...)``. It takes memory for as long as you hold it.

    Args:
        keep: dropout of visual tokens; None is the model's own, () drops nothing.
        on_layer: told the number of layers done, after each.

    Raises:
        ValueError: no sight, a sight of another model, or a plan beyond the decoder.
    """
    plan = vc.model.config.keep if keep is None else keep
    check_plan(plan, vc.model.config.llm)
    sights = [sight] if isinstance(sight, Sight) else list(sight)
    videos = vc.tokens_of(sights)
    return make_prefix(vc.model, render(vc.tokenizer, [Turn("user", "")], sights), videos, plan, on_layer)


def _known_by(videos: Sequence[Float[Tensor, "_ _ E"]]) -> tuple[tuple[int, float], ...]:
    return tuple((video.shape[0] * video.shape[1], float(video.float().sum())) for video in videos)
