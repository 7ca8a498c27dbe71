"""What a small tower is told beside the answers: what each patch shows and where it lies. Its heads are no part of a
model; a run leaves them beside it, for another one that teaches to go on with.

From answers alone a small video transformer learns colours at once but shapes and characters hardly ever, and without
knowing where a patch lies it never sees that something moves (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64, Int, Int8, Int16
from torch import Tensor, nn

from ..synth import CHARACTERS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, Labels
from ..weights import stream_tensors

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
FRAMES = 4  # of a clip
EARLY = 1  # behind this block a patch has to know where it is
TERMS = {  # of the loss, and what each weighs; patches without a value and with it are two, however few one of them has
    "place": 1.0,
    "track": 4.0,
    "seen": 1.0,
    **{f"no {name}": 0.5 for name in VALUES},
    **dict.fromkeys(VALUES, 1.0),
    "strokes": 2.0,  # of characters, once more
}
MOTION = [i for i, term in enumerate(TERMS) if term.split()[-1] in ("direction", "speed")]


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
        order = np.argsort(-(rng.random(len(self.places)) + (self.values > 0).any(1)))  # a pointer has its own fields
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


def sizes(lessons: Sequence[Taught]) -> Float64[np.ndarray, " 19"]:
    """How many lessons these are, and how many losses each term is a mean over."""
    total = np.zeros(1 + len(TERMS))
    for one in lessons:
        shown = one.values > 0
        track = shown[:, 3].sum() * (~np.isnan(one.track)).sum()
        strokes = (shown[:, 2] & one.middle).sum()
        total += [1, len(shown), track, (one.seen >= 0).sum(), *(~shown).sum(0), *shown.sum(0), strokes]
    return total


def shares(of: Float64[np.ndarray, "g 19"]) -> Float64[np.ndarray, "g 18"]:
    """What one loss of each term weighs in the mean over all lessons, clips and pictures apart, from their ``sizes``.

    These are of a whole step: or it would matter how its lessons were packed and shared out.
    """
    lessons, terms = of[:, :1], of[:, 1:]
    weights = np.array([*TERMS.values()]) * lessons / np.maximum(lessons.sum(), 1) / np.maximum(terms, 1)
    weights[:, MOTION] *= terms[:, [1]] > 0  # pictures must not teach that nothing moves
    return weights


class Teacher(nn.Module):
    """The heads: one asks the tower's output what is there, the other an early block where a patch lies."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.what = nn.Linear(width, sum(SIZES) + 3 * FRAMES)
        self.where = nn.Linear(width, 2 * side + FRAMES)

    def forward(
        self, features: Float[Tensor, "C p D"], early: Float[Tensor, "C p D"], lessons: Sequence[Taught]
    ) -> Float[Tensor, " 18"]:
        """What the tower should know of C clips or images, p patches of each: the summed losses of each term."""
        values, middle, track, seen, places = (
            torch.from_numpy(np.stack([getattr(one, name) for one in lessons])).to(features.device)
            for name in ("values", "middle", "track", "seen", "places")
        )
        shown = values > 0
        *parts, place, on = self.what(features).float().split([*SIZES, 2 * FRAMES, FRAMES], -1)
        moves = shown[..., 3, None] & ~track.isnan()[:, None]
        goal = track[:, None].expand_as(place)[moves]
        things = seen >= 0
        losses = torch.stack(
            [
                F.cross_entropy(part.transpose(1, 2), values[..., i].long(), reduction="none")
                for i, part in enumerate(parts)
            ],
            -1,
        )
        return torch.stack(
            [
                self._place_loss(self.where(early).float(), places.long()),
                F.smooth_l1_loss(place[moves], goal, beta=0.1, reduction="sum"),
                F.binary_cross_entropy_with_logits(on[things], seen[things].float(), reduction="sum"),
                *(losses * ~shown).sum((0, 1)),
                *(losses * shown).sum((0, 1)),
                losses[..., 2][middle & shown[..., 2]].sum(),
            ]
        )

    def _place_loss(self, logits: Float[Tensor, "C p n"], place: Int[Tensor, "C p"]) -> Float[Tensor, ""]:
        """Each patch's own row, column and frame: its position is one number, out of which a small tower does not find
        these by itself."""
        targets = (place % self.side**2 // self.side, place % self.side, place // self.side**2)
        parts = logits.split([self.side, self.side, FRAMES], -1)
        pairs = zip(parts, targets, strict=True)
        return torch.stack(
            [F.cross_entropy(part.transpose(1, 2), target, reduction="sum") for part, target in pairs]
        ).sum()


def load_heads(teacher: Teacher, file: Path) -> None:
    """Go on with the heads of an earlier stage: new ones would first pull the tower about.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or heads of a tower of another width or image size.
    """
    there, own = dict(stream_tensors([file])), teacher.state_dict()
    if {key: tensor.shape for key, tensor in there.items()} != {key: tensor.shape for key, tensor in own.items()}:
        raise ValueError(f"heads: {file} has read another tower or images of another size: drop the key to begin anew")
    teacher.load_state_dict(there)
