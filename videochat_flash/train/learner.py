"""The model as training sees it: pixels and conversations in, one loss for each conversation out, in one forward.

One forward, because sharding gathers a module's weights when its forward begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..config import PIXEL_MEAN, PIXEL_STD, Plan
from ..model import VideoChatFlashModel
from ..prompt import IGNORE, Prompt
from .samples import Sample, raster


class Learner(nn.Module):
    """Tower, connector and decoder with a loss for each conversation.

    Args:
        model: what learns.
        idle: run every part in each forward, even where a pack has nothing for it: sharded processes must gather the
            same weights at the same time.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: VideoChatFlashModel, idle: bool = False) -> None:
        super().__init__()
        self.model = model
        self.idle = idle
        for name, values in (("mean", PIXEL_MEAN), ("std", PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(
        self, samples: Sequence[Sample], plan: Plan = ()
    ) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, ""]]:
        """Summed cross-entropy of each conversation's learned tokens, how many these are, and a zero.

        The zero depends on parts that had nothing to do; it has to be added to what is optimised.
        """
        videos, zero = self._see(samples)
        prompts = [one.prompt for one in samples]
        counts = [sum(label != IGNORE for label in prompt.labels) for prompt in prompts]
        if not prompts:
            nothing = self.model.loss([Prompt((0, 0), (IGNORE, 0), ())], [[]])
            return zero.new_zeros(0), torch.zeros(0, dtype=torch.long, device=zero.device), zero + nothing.sum() * 0
        losses = self.model.loss(prompts, videos, plan)
        sums = torch.stack([part.sum() for part in losses.split(counts)])
        return sums, torch.tensor(counts, device=sums.device), zero

    def _see(self, samples: Sequence[Sample]) -> tuple[list[list[Tensor]], Tensor]:
        """Visual tokens of each conversation's videos and images, and a zero that depends on the parts left idle.

        Clips of all samples pass the tower together, images likewise: attention never leaves a clip.
        """
        frames = self.model.config.vision.clip_frames
        flat = [clips for one in samples for clips in one.clips]
        seen: dict[int, list[Tensor]] = {}
        zero = torch.zeros((), device=self.mean.device)
        for length in (frames, 1):
            group = [clips for clips in flat if clips.shape[1] == length]
            if group:
                tokens = self.model.see(self._normalised(torch.cat(group)))
                seen[length] = list(tokens.split([len(clips) for clips in group]))
            elif self.idle:
                size = self.model.config.vision.image_size
                blank = torch.zeros(1, length, size, size, 3, dtype=torch.uint8)
                zero = zero + self.model.see(self._normalised(blank)).sum() * 0
        videos = []
        for one in samples:
            parts = [seen[clips.shape[1]].pop(0) for clips in one.clips]
            videos.append(
                [part if grid is None else raster(part, *grid) for part, grid in zip(parts, one.grids, strict=True)]
            )
        return videos, zero

    def _normalised(self, clips: Tensor) -> Float[Tensor, "C F 3 h w"]:
        """uint8 "C F h w 3", on the way to the device."""
        pixels = clips.to(self.mean.device).permute(0, 1, 4, 2, 3).float() / 255
        return (pixels - self.mean) / self.std


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
