"""The model as training sees it: pixels and conversations in, one loss for each conversation out, in one forward.

One forward, because sharding gathers a module's weights when its forward begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor, nn

from ..config import Plan
from ..model import VideoChatFlashModel
from ..prompt import IGNORE, Prompt
from ..vision import Umt, normalise
from .losses import loss
from .media import raster
from .samples import Sample
from .teach import EARLY, TERMS, Taught, Teacher, shares, sizes

BLANK = Prompt((0, 0), (IGNORE, 0), (0,))  # something is seen, then a token is learned


class Learner(nn.Module):
    """Tower, connector and decoder with a loss for each conversation.

    Args:
        model: what learns.
        idle: run every part in each forward, even where a pack has nothing for it: sharded processes must gather the
            same weights at the same time.
        teach: weight of what the tower is told beside the answers; 0 is nothing.
    """

    def __init__(self, model: VideoChatFlashModel, idle: bool = False, teach: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.idle = idle
        self.teach = teach
        vision = model.config.vision
        self.teacher = Teacher(vision.width, vision.image_size // vision.patch) if teach else None

    def forward(
        self, samples: Sequence[Sample], plan: Plan = (), shared: Float64[np.ndarray, "2 18"] | None = None
    ) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, ""]]:
        """Summed cross-entropy of each conversation's learned tokens, how many these are, and what is to be added.

        That is a zero which depends on parts that had nothing to do, or the loss of what a tower is taught.

        Args:
            shared: ``teach.shares`` of the lessons that these samples are among; None: of these alone.
        """
        videos, zero, blanks = self.see(samples, shared)
        spoken = [(one.prompt, seen, one.skipped) for one, seen in zip(samples, videos, strict=True) if one.prompt.ids]
        blank = self.idle and not any(seen for _, seen, _ in spoken)
        if blank:  # or no layer would rank rows, and a frozen one pass no gradient on
            spoken.append((BLANK, blanks[:1], ()))
        counts = [sum(label != IGNORE for label in prompt.labels) for prompt, *_ in spoken]
        sums = []
        if spoken:
            prompts, shown, skipped = zip(*spoken, strict=True)
            losses = loss(self.model, prompts, shown, plan, skipped)
            sums = [part.sum() for part in losses.split(counts)]
        if blank:
            zero = zero + sums.pop() * 0
            counts.pop()
        return (
            torch.stack(sums) if sums else zero.new_zeros(0),
            torch.tensor(counts, dtype=torch.long, device=zero.device),
            zero,
        )

    def see(
        self, samples: Sequence[Sample], shared: Float64[np.ndarray, "2 18"] | None = None
    ) -> tuple[list[list[Tensor]], Tensor, list[Tensor]]:
        """Visual tokens of each conversation's videos and images, what is to be added, and tokens of blank clips.

        Clips of all samples pass the tower together, images likewise: attention never leaves a clip. Of what is only
        looked at there are no tokens.
        """
        asked = [one for one in samples if one.prompt.ids]
        seen: dict[int, list[Tensor]] = {}
        zero = torch.zeros((), device=self.model.device)
        blanks: list[Tensor] = []
        if self.teacher is not None and shared is None:
            shared = shares(self.sizes(samples))
        elif self.teacher is None:
            shared = None
        for number, (length, lessons) in enumerate(self.lessons(asked).items()):
            weights = None if shared is None else torch.from_numpy(shared[number]).to(zero) * self.teach
            group = [clips for one in asked for clips in one.clips if clips.ndim == 5 and clips.shape[1] == length]
            if group:
                tokens, terms = self._look(torch.cat(group), lessons)
                zero = zero if weights is None else zero + terms @ weights
                seen[length] = list(tokens.split([len(clips) for clips in group]))
            elif self.idle:
                blanks.append(self.model.see(normalise(self._blank(length))))
                zero = zero + blanks[-1].sum() * 0
            if weights is not None:
                zero = zero + self._silent(samples, length) @ weights
        if self.idle and self.teacher is not None:  # whose heads are sharded as well
            zero = zero + sum(parameter.sum() * 0 for parameter in self.teacher.parameters())
        kept = iter(self._connected([clips for one in samples for clips in one.clips if clips.ndim == 3]))
        videos: list[list[Tensor]] = []
        for one in samples:
            if not one.prompt.ids:
                videos.append([])
                continue
            parts = [seen[clips.shape[1]].pop(0) if clips.ndim == 5 else next(kept) for clips in one.clips]
            videos.append(
                [part if grid is None else raster(part, *grid) for part, grid in zip(parts, one.grids, strict=True)]
            )
        return videos, zero, blanks

    def lessons(self, samples: Sequence[Sample]) -> dict[int, list[Taught]]:
        """Of clips and of pictures, by their frames."""
        found: dict[int, list[Taught]] = {self.model.config.vision.clip_frames: [], 1: []}
        for one in samples:
            if one.lessons:
                found[one.clips[0].shape[1]] += one.lessons
        return found

    def sizes(self, samples: Sequence[Sample]) -> Float64[np.ndarray, "2 19"]:
        """``teach.sizes`` of the lessons of clips, and of those of pictures."""
        return np.stack([sizes(lessons) for lessons in self.lessons(samples).values()])

    def _connected(self, kept: Sequence[Float[Tensor, "_ M D"]]) -> list[Float[Tensor, "_ M E"]]:
        """Merged tokens that were kept, as the decoder takes them; all at once, or a GPU waits for launches."""
        if not kept:
            return []
        rows = torch.cat([clips.flatten(0, 1) for clips in kept]).to(self.model.device)
        parts = self.model.connector.mlp(rows.float()).split([clips[..., 0].numel() for clips in kept])
        return [part.unflatten(0, clips.shape[:2]) for part, clips in zip(parts, kept, strict=True)]

    def _look(self, clips: Tensor, lessons: Sequence[Taught]) -> tuple[Float[Tensor, "C M E"], Float[Tensor, " 18"]]:
        """Tokens of clips or images, and the summed losses of what the tower should know of their patches."""
        pixels = normalise(clips.to(self.model.device))
        if self.teacher is None or not lessons:
            return self.model.see(pixels), torch.zeros(len(TERMS), device=pixels.device)
        patches, terms = self._taught(pixels, lessons)
        return self.model.connector(patches, clips.shape[1]), terms

    def _silent(self, samples: Sequence[Sample], length: int) -> Float[Tensor, " 18"]:
        """The same of clips or pictures that are only looked at, of which not all patches need to be."""
        some = [one for one in samples if not one.prompt.ids and one.clips[0].shape[1] == length]
        if some:
            pixels = torch.cat([one.clips[0] for one in some]).to(self.model.device)
            return self._taught(normalise(pixels), [one.lessons[0] for one in some])[1]
        nothing = torch.zeros(len(TERMS), device=self.model.device)
        return nothing + self.model.vision(normalise(self._blank(length))).sum() * 0 if self.idle else nothing

    def _taught(
        self, pixels: Float[Tensor, "C F 3 h w"], lessons: Sequence[Taught]
    ) -> tuple[Float[Tensor, "C p D"], Float[Tensor, " 18"]]:
        """The patches that lessons are about, and the summed losses of what the tower should know of them."""
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
        return patches, teacher(patches, early, lessons)

    def _blank(self, length: int) -> UInt8[Tensor, "1 F h w 3"]:
        """What stands for a clip or picture where there is none."""
        size = self.model.config.vision.image_size
        return torch.zeros(1, length, size, size, 3, dtype=torch.uint8, device=self.model.device)


def objective(sums: Float[Tensor, " n"], counts: Int[Tensor, " n"], by: str) -> Float[Tensor, ""]:
    """What is added up over a step, and divided by the ``weight`` of all its conversations.

    By ``sample`` every conversation weighs the same whatever its length, by ``token`` every learned token.
    """
    return (sums if by == "token" else sums / counts).sum()


def weight(samples: Sequence[Sample], by: str) -> int:
    """Conversations or tokens that are learned from."""
    counts = [sum(label != IGNORE for label in one.prompt.labels) for one in samples]
    return sum(counts) if by == "token" else sum(map(bool, counts))


def pack(samples: Sequence[Sample], budget: int) -> list[list[Sample]]:
    """Conversations that pass the model together: at most ``budget`` rows, or a single longer one.

    What is only looked at counts by its patches.

    The longest come first, so that what does not fit in memory is known in the first step.
    """
    packs: list[list[Sample]] = []
    room: list[int] = []
    sizes = [one.rows or sum(len(lesson.places) for lesson in one.lessons) for one in samples]
    for size, one in sorted(zip(sizes, samples, strict=True), key=lambda sized: -sized[0]):
        place = next((i for i, left in enumerate(room) if size <= left), None)
        if place is None:
            packs.append([])
            room.append(budget)
            place = len(packs) - 1
        packs[place].append(one)
        room[place] -= size
    return packs
