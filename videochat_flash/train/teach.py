"""What a small tower is told beside the answers: what each patch shows and where it lies. Its heads are thrown away.

From answers alone a small video transformer learns colours at once but shapes and characters hardly ever, and without
knowing where a patch lies it never sees that something moves (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int, Int8, Int16
from torch import Tensor, nn

from ..synth import CHARACTERS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, Labels

VALUES: dict[str, Sequence[str]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "character": CHARACTERS,
    "direction": DIRECTIONS,
    "speed": SPEEDS,
    "pointer_colour": COLOURS,
    "pointer_shape": SHAPES,
}
SIZES = [len(values) + 1 for values in VALUES.values()]  # value 0: nothing of the kind lies under this patch
MOTION = ("direction", "speed")
FRAMES = 4  # of a clip
EARLY = 1  # behind this block a patch has to know where it is


@dataclass(frozen=True, eq=False)
class Taught:
    """What the patches of one image or clip show. Arrays, which travel between processes for less than tensors do.

    Attributes:
        values: of each patch, in the order of VALUES.
        middle: the patches around the middle of what they show, where a card has its character.
        track: where a moving shape is in each frame, row and column from -1 to 1; NaN where there is none.
        seen: in which frames of the clip the thing that a patch shows is seen; -1 where it shows nothing.
        places: where each patch lies, time-major; not all of them need to be looked at.
    """

    values: Int8[np.ndarray, "p 7"]
    middle: Bool[np.ndarray, " p"]
    track: Float32[np.ndarray, " 8"]
    seen: Int8[np.ndarray, "p 4"]
    places: Int16[np.ndarray, " p"]

    def some(self, rng: np.random.Generator, count: int) -> Taught:
        """``count`` of the patches at most, those that show something first."""
        order = np.argsort(-(rng.random(len(self.places)) + (self.values > 0).any(1)))  # a pointer has fields of its own
        kept = np.sort(order[:count])
        return replace(self, **{one: getattr(self, one)[kept] for one in ("values", "middle", "seen", "places")})


def taught(labels: Labels) -> Taught:
    """The renderer's labels of a frame or clip as lessons."""
    grids = [np.asarray(getattr(labels, one.name)) for one in fields(labels)]
    values = np.stack([grid if grid.ndim == 3 else grid[None] for grid in grids], -1)
    shown = values[..., 1] > 0
    places = np.arange(shown.size, dtype=np.int16)
    return Taught(values.reshape(-1, len(SIZES)), middles(shown).reshape(-1), _track(values), _seen(values), places)


def middles(shown: np.ndarray) -> np.ndarray:
    """The patches around the middle of what each frame shows, "F g g"."""
    place = np.arange(shown.shape[1], dtype=float)
    near = shown.copy()
    for frame in range(len(shown)):
        if not shown[frame].any():
            continue
        for axis in (0, 1):
            weight = shown[frame].sum(1 - axis) / shown[frame].sum()
            centre = (weight * place).sum()
            spread = max(0.75, float((weight * (place - centre) ** 2).sum()) ** 0.5)
            inside = np.abs(place - centre) <= spread
            near[frame] &= inside[:, None] if axis == 0 else inside[None, :]
    return near


def _track(values: np.ndarray) -> np.ndarray:
    frames, side = values.shape[:2]
    track = np.full(2 * FRAMES, np.nan, dtype=np.float32)
    moving = values[..., 3] > 0
    rows, columns = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    for frame in range(min(frames, FRAMES)):
        if moving[frame].any():
            track[2 * frame : 2 * frame + 2] = rows[moving[frame]].mean(), columns[moving[frame]].mean()
    return track


def _seen(values: np.ndarray) -> np.ndarray:
    frames = len(values)
    codes = values[..., :3].astype(np.int64) @ np.array([10_000, 100, 1])  # one number for each thing
    codes[values[..., 1] == 0] = 0
    there = np.full((codes.size, FRAMES), -1, dtype=np.int8)
    for code in np.unique(codes[codes > 0]):
        on = np.zeros(FRAMES, np.int8)
        on[:frames] = (codes == code).any((1, 2))[:FRAMES]
        there[codes.reshape(-1) == code] = on
    return there


class Teacher(nn.Module):
    """The heads: one asks the tower's output what is there, the other an early block where a patch lies."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.what = nn.Linear(width, sum(SIZES) + 3 * FRAMES)
        self.where = nn.Linear(width, 2 * side + FRAMES)

    def forward(
        self, features: Float[Tensor, "C p D"], early: Float[Tensor, "C p D"], lessons: Sequence[Taught]
    ) -> Float[Tensor, ""]:
        """The loss of what the tower should know of C clips or images, of each the same number of patches."""
        values, middle, track, seen, places = (
            torch.from_numpy(np.stack([getattr(one, name) for one in lessons])).to(features.device)
            for name in ("values", "middle", "track", "seen", "places")
        )
        values = values.long()
        *parts, place, on = self.what(features).float().split([*SIZES, 2 * FRAMES, FRAMES], -1)
        total = self._place_loss(self.where(early).float(), places.long())
        moves = (values[..., 3] > 0)[..., None] & ~track.isnan()[:, None]
        if moves.any():
            goal = track[:, None].expand_as(place)[moves]
            total = total + 4 * F.smooth_l1_loss(place[moves], goal, beta=0.1)
        things = seen >= 0
        if things.any():
            total = total + F.binary_cross_entropy_with_logits(on[things], seen[things].float())
        for name, part, target in zip(VALUES, parts, values.unbind(-1), strict=True):
            if name in MOTION and not moves.any():  # single frames must not teach that nothing moves
                continue
            total = total + _value_loss(part, target, middle if name == "character" else None)
        return total

    def _place_loss(self, logits: Float[Tensor, "C p n"], place: Int[Tensor, "C p"]) -> Float[Tensor, ""]:
        """Each patch's own row, column and frame: its position is one number, out of which a small tower does not find
        these by itself."""
        targets = (place % self.side**2 // self.side, place % self.side, place // self.side**2)
        parts = logits.split([self.side, self.side, FRAMES], -1)
        losses = [F.cross_entropy(part.transpose(1, 2), target) for part, target in zip(parts, targets, strict=True)]
        return torch.stack(losses).sum()


def _value_loss(
    logits: Float[Tensor, "C p n"], target: Int[Tensor, "C p"], middle: Bool[Tensor, "C p"] | None
) -> Float[Tensor, ""]:
    """Cross-entropy of one field: patches with something and without weigh the same, those with strokes three times."""
    losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    shown = target > 0
    total = losses[~shown].mean() * 0.5
    if shown.any():
        total = total + losses[shown].mean()
    if middle is not None and (middle & shown).any():
        total = total + 2 * losses[middle & shown].mean()
    return total
