"""The model as training sees it: pixels and conversations in, one loss for each conversation out, in one forward.

One forward, because sharding gathers a module's weights when its forward begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..config import Plan
from ..model import VideoChatFlashModel
from ..prompt import IGNORE, Prompt
from ..vision import Umt, normalise
from .losses import loss
from .samples import Sample, raster
from .teach import EARLY, Taught, Teacher

BLANK = Prompt((0, 0), (IGNORE, 0), (0,))  # something is seen, then a token is learned


class Learner(nn.Module):
    """Tower, connector and decoder with a loss for each conversation.

    Args:
        model: what learns.
        idle: run every part in each forward, even where a pack has nothing for it: sharded processes must gather the
            same weights at the same time.
    """

    def __init__(self, model: VideoChatFlashModel, idle: bool = False, teach: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.idle = idle
        self.teach = teach
        vision = model.config.vision
        self.teacher = Teacher(vision.width, vision.image_size // vision.patch) if teach else None

    def forward(
        self, samples: Sequence[Sample], plan: Plan = ()
    ) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, ""]]:
        """Summed cross-entropy of each conversation's learned tokens, how many these are, and what is to be added.

        That is a zero which depends on parts that had nothing to do, or the loss of what a tower is taught.
        """
        videos, zero, blanks = self.see(samples)
        spoken = [(one.prompt, seen) for one, seen in zip(samples, videos, strict=True) if one.prompt.ids]
        zero = zero * (len(spoken) / max(1, len(samples)))  # lessons weigh as much as the conversations of their pack
        blank = self.idle and not any(seen for _, seen in spoken)
        if blank:  # or no layer would rank rows, and a frozen one pass no gradient on
            spoken.append((BLANK, blanks[:1]))
        counts = [sum(label != IGNORE for label in prompt.labels) for prompt, _ in spoken]
        sums = []
        if spoken:
            losses = loss(self.model, [prompt for prompt, _ in spoken], [seen for _, seen in spoken], plan)
            sums = [part.sum() for part in losses.split(counts)]
        if blank:
            zero = zero + sums.pop() * 0
            counts.pop()
        return (
            torch.stack(sums) if sums else zero.new_zeros(0),
            torch.tensor(counts, dtype=torch.long, device=zero.device),
            zero,
        )

    def see(self, samples: Sequence[Sample]) -> tuple[list[list[Tensor]], Tensor, list[Tensor]]:
        """Visual tokens of each conversation's videos and images, what is to be added, and tokens of blank clips.

        Clips of all samples pass the tower together, images likewise: attention never leaves a clip. Of what is only
        looked at there are no tokens.
        """
        frames = self.model.config.vision.clip_frames
        asked = [one for one in samples if one.prompt.ids and one.clips and one.clips[0].ndim == 5]
        seen: dict[int, list[Tensor]] = {}
        zero = self._taught([one for one in samples if not one.prompt.ids])
        blanks: list[Tensor] = []
        for length in (frames, 1):
            group = [clips for one in asked for clips in one.clips if clips.shape[1] == length]
            if group:
                lessons = [lesson for one in asked for lesson in one.lessons if one.clips[0].shape[1] == length]
                tokens, loss = self._look(torch.cat(group), lessons)
                zero = zero + loss
                seen[length] = list(tokens.split([len(clips) for clips in group]))
            elif self.idle:
                size = self.model.config.vision.image_size
                blank = torch.zeros(1, length, size, size, 3, dtype=torch.uint8, device=self.model.device)
                blanks.append(self.model.see(normalise(blank)))
                zero = zero + blanks[-1].sum() * 0
        kept = iter(self._connected([clips for one in samples for clips in one.clips if clips.ndim == 3]))
        videos = []
        for one in samples:
            if not one.prompt.ids:
                videos.append([])
                continue
            parts = [seen[clips.shape[1]].pop(0) if clips.ndim == 5 else next(kept) for clips in one.clips]
            videos.append(
                [part if grid is None else raster(part, *grid) for part, grid in zip(parts, one.grids, strict=True)]
            )
        return videos, zero, blanks

    def _connected(self, kept: Sequence[Float[Tensor, "_ M D"]]) -> list[Float[Tensor, "_ M E"]]:
        """Merged tokens that were kept, as the decoder takes them; all at once, or a GPU waits for launches."""
        if not kept:
            return []
        rows = torch.cat([clips.flatten(0, 1) for clips in kept]).to(self.model.device)
        parts = self.model.connector.mlp(rows.float()).split([clips[..., 0].numel() for clips in kept])
        return [part.unflatten(0, clips.shape[:2]) for part, clips in zip(parts, kept, strict=True)]

    def _look(self, clips: Tensor, lessons: Sequence[Taught]) -> tuple[Float[Tensor, "C M E"], Tensor | float]:
        """Tokens of clips or images, and the loss of what the tower should know of their patches."""
        pixels = normalise(clips.to(self.model.device))
        if self.teacher is None or not lessons:
            return self.model.see(pixels), 0.0
        patches, loss = self._teach(pixels, lessons)
        return self.model.connector(patches, clips.shape[1]), loss

    def _taught(self, samples: Sequence[Sample]) -> Float[Tensor, ""]:
        """The loss of what is only looked at, as many patches of each as its lesson has."""
        total = torch.zeros((), device=self.model.device)
        if self.teacher is None:
            return total
        groups: dict[tuple[int, int], list[Sample]] = {}
        for one in samples:
            groups.setdefault((one.clips[0].shape[1], len(one.lessons[0].places)), []).append(one)
        for group in groups.values():
            pixels = normalise(torch.cat([one.clips[0] for one in group]).to(self.model.device))
            total = total + self._teach(pixels, [one.lessons[0] for one in group])[1]
        return total

    def _teach(
        self, pixels: Float[Tensor, "C F 3 h w"], lessons: Sequence[Taught]
    ) -> tuple[Float[Tensor, "C p D"], Float[Tensor, ""]]:
        """The patches that the lessons are about, and the loss of what the tower should know of them."""
        tower, teacher = self.model.vision, self.teacher
        assert isinstance(tower, Umt) and teacher is not None, "recipes teach towers of this kind alone"
        x = tower.embed(pixels)
        places = torch.from_numpy(np.stack([one.places for one in lessons])).to(x.device).long()
        if places.shape[1] < x.shape[1]:  # each patch carries its position
            x = x.take_along_dim(places[..., None], 1)
        early = x
        for number, block in enumerate(tower.blocks):
            x = block(x)
            early = x if number == EARLY else early
        patches = tower.vision_layernorm(x)
        return patches, teacher(patches, early, lessons) * self.teach * len(lessons)


def objective(
    sums: Float[Tensor, " n"], counts: Int[Tensor, " n"], by: str
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What is added up over a step, and the weight that the sum is divided by in the end (spec 6.5).

    By ``sample`` every conversation weighs the same whatever its length, by ``token`` every learned token.
    """
    if by == "token":
        return sums.sum(), counts.sum().float()
    return (sums / counts).sum(), torch.tensor(float(len(counts)), device=counts.device)


def pack(samples: Sequence[Sample], budget: int) -> list[list[Sample]]:
    """Conversations that pass the model together: at most ``budget`` rows, or a single longer one.

    The longest come first, so that what does not fit in memory is known in the first step.
    """
    packs: list[list[Sample]] = []
    room: list[int] = []
    for one in sorted(samples, key=lambda sample: -sample.rows):
        place = next((i for i, left in enumerate(room) if one.rows <= left), None)
        if place is None:
            packs.append([])
            room.append(budget)
            place = len(packs) - 1
        packs[place].append(one)
        room[place] -= one.rows
    return packs
