"""Many questions about one video, or about videos that begin alike: what they share passes the decoder once.

What stands before the question serves any question up to the first layer where attention ranks visual rows, since that
depends on the question; without such a drop, through all layers. What videos begin with serves them all up to the first
layer where any rows are dropped. Answers are those of the whole prompt, but for rounding: in half precision, scores
differ by as much as those of two kernels do.
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
        videos: of each, what the bits of every clip's numbers add up to: by that it is known.
        plan: the dropout that holds.
        layer: the first layer that is still to come.
        rows: as they enter that layer; none where none is to come.
        segment: where the videos lie in them.
        caches: of the layers before.
        visual: visual rows that entered each of these layers.
    """

    ids: tuple[int, ...]
    videos: tuple[tuple[int, ...], ...]
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
        caches += [[model.decoder.cache(room)] for _ in range(self.layer, depth)]
        hidden = model.decoder(rows, [segment], self.plan, caches, layers=range(self.layer, depth))
        return Prefilled(model.logits(hidden.rows[-1:]), caches, self.visual + hidden.visual)


@dataclass(frozen=True)
class Beginning:
    """What prompts may begin with, before any drop.

    Attributes:
        entered: its rows, as they enter the first layer: by them it is known how much a prompt shares.
        rows: the same, as they leave the last of the layers that are done.
        caches: of these layers.
    """

    entered: Float[Tensor, "n E"]
    rows: Float[Tensor, "n E"]
    caches: tuple[LayerCache, ...]

    def shared(self, rows: Float[Tensor, "m E"]) -> int:
        """How many of a prompt's rows are the first ones here; never its last one, which has to go on."""
        length = min(len(self.entered), len(rows) - 1)
        other = (self.entered[:length] != rows[:length]).any(dim=1)
        return int(other.int().argmax()) if other.any() else length


@torch.inference_mode()
def make_beginning(
    model: VideoChatFlashModel, prompt: Prompt, videos: Sequence[Float[Tensor, "_ _ E"]], plan: Plan = ()
) -> Beginning | None:
    """Run a prompt up to the end of its last video as far as nothing is dropped; None where that is no layer."""
    depth = _undropped(model, plan)
    if not depth:
        return None
    ids = prompt.ids[: prompt.slots[-1]]
    rows, (segment,) = model.embed([Prompt(ids, (IGNORE,) * len(ids), prompt.slots)], [videos])
    caches = tuple(model.decoder.cache() for _ in range(depth))
    hidden = model.decoder(rows, [segment], (), [[c] for c in caches], layers=range(depth))
    return Beginning(rows, hidden.rows, caches)


@torch.inference_mode()
def make_prefix(
    model: VideoChatFlashModel,
    prompt: Prompt,
    videos: Sequence[Float[Tensor, "_ _ E"]],
    plan: Plan = (),
    on_layer: Callable[[int], None] | None = None,
    beginning: Beginning | None = None,
) -> Prefix:
    """Run a prompt up to the end of its last video, as far as no question changes it.

    Args:
        model: the model.
        prompt: any question about the videos.
        videos: their tokens.
        plan: which visual rows are dropped on the way.
        on_layer: told the number of layers done, after each.
        beginning: ``make_beginning`` of the same plan; what the prompt shares with it is not done again.

    Raises:
        ValueError: a prompt without a video, which has nothing worth keeping, or a beginning of another plan.
    """
    if not prompt.slots:
        raise ValueError("a prompt without a video has no beginning that is worth keeping")
    if beginning is not None and len(beginning.caches) != _undropped(model, plan):
        raise ValueError("the beginning was made for another dropout: make its own")
    ids = prompt.ids[: prompt.slots[-1]]
    rows, (segment,) = model.embed([Prompt(ids, (IGNORE,) * len(ids), prompt.slots)], [videos])
    depth = len(model.decoder.layers)
    layer = min((drop.layer for drop in plan if drop.by == "attention"), default=depth)
    before: tuple[int, ...] = ()  # visual rows that entered the layers done
    known, done = _known_by(videos), 0
    caches = tuple(model.decoder.cache() for _ in range(layer))
    if beginning is not None and (same := beginning.shared(rows)):
        done = len(beginning.caches)
        caches = tuple(cache.fork(len(rows) - same, same) for cache in beginning.caches) + caches[done:]
        tail = Segment(len(rows) - same)
        below = model.decoder(rows[same:], [tail], (), [[c] for c in caches], on_layer=on_layer, layers=range(done))
        rows = torch.cat([beginning.rows[:same], below.rows])
        before = (sum(run.length for run in segment.runs),) * done
    hidden = model.decoder(rows, [segment], plan, [[c] for c in caches], on_layer=on_layer, layers=range(done, layer))
    left = hidden.rows if layer < depth else hidden.rows.new_empty(0, hidden.rows.shape[1])  # a view would hold all
    return Prefix(ids, known, plan, layer, left, hidden.segments[0], caches, before + hidden.visual)


def prepare(
    vc: VideoChatFlash,
    sight: Sight | Sequence[Sight],
    *,
    keep: Plan | None = None,
    on_layer: Callable[[int], None] | None = None,
    beginning: Beginning | None = None,
) -> Prefix:
    """A prefix for ``vc.answer(sight, question, prefix=...)``. It takes memory for as long as you hold it.

    Args:
        keep: dropout of visual tokens; None is the model's own, () drops nothing.
        on_layer: told the number of layers done, after each.
        beginning: of another video, with the same dropout; what this one shares with it is not done again.

    Raises:
        ValueError: no sight, a sight of another model, or a plan beyond the decoder.
    """
    prompt, videos, plan = _laid_out(vc, sight, keep)
    return make_prefix(vc.model, prompt, videos, plan, on_layer, beginning)


def begin(vc: VideoChatFlash, sight: Sight, *, keep: Plan | None = None) -> Beginning | None:
    """What videos that begin as this one can share, for ``prepare``; None where a drop in the first layer leaves
    nothing. It takes memory for as long as you hold it.

    Raises:
        ValueError: a sight of another model, or a plan beyond the decoder.
    """
    return make_beginning(vc.model, *_laid_out(vc, sight, keep))


def _laid_out(
    vc: VideoChatFlash, sight: Sight | Sequence[Sight], keep: Plan | None
) -> tuple[Prompt, list[Float[Tensor, "_ _ E"]], Plan]:
    plan = vc.model.config.keep if keep is None else keep
    check_plan(plan, vc.model.config.llm)
    sights = [sight] if isinstance(sight, Sight) else list(sight)
    return render(vc.tokenizer, [Turn("user", "")], sights), vc.tokens_of(sights), plan


def _undropped(model: VideoChatFlashModel, plan: Plan) -> int:
    """Layers before the first drop."""
    return min((drop.layer for drop in plan), default=len(model.decoder.layers))


def _known_by(videos: Sequence[Float[Tensor, "_ _ E"]]) -> tuple[tuple[int, ...], ...]:
    bits = {2: torch.int16, 4: torch.int32}
    return tuple(tuple(v.view(bits[v.element_size()]).sum((1, 2), dtype=torch.int64).tolist()) for v in videos)
