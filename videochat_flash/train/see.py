"""First lesson of flash-tiny: the tower learns to see, from labels on patches that the renderer knows.

From answers alone a small video transformer learns colours at once but shapes and characters hardly ever; told which
colour, shape and character lies under each patch it learns them in minutes. The head that tells is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..config import PIXEL_MEAN, PIXEL_STD, VisionConfig
from ..synth import CHARACTERS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, Labels, card_clip, card_frame
from ..vision import Umt, umt_positions
from .lessons import Progress, Run, State, optimiser, restore, save, set_rate, take_step
from .teach import middles

FIELDS = {"colour": COLOURS, "shape": SHAPES, "character": CHARACTERS, "direction": DIRECTIONS, "speed": SPEEDS}
PATCH = 16
POSITION_BLOCK = 1  # behind this block a patch has to know where it is
GRID = 14
SIZES = [len(values) + 1 for values in FIELDS.values()]  # value 0: nothing lies under this patch
OUTPUTS = sum(SIZES) + 8  # and where a moving shape is in each of four frames


@dataclass(frozen=True)
class Sightings:
    """One lesson in seeing: ``batch`` images or clips a step, ``patches`` patches of each."""

    name: str
    steps: int
    batch: int
    frames: int
    patches: int
    rate: float
    fall: float = 1 / 3  # share of the steps over which the rate sinks
    movers: float = 0.4  # share of clips with a moving shape
    views: int = 1  # how often each one is looked at: where drawing is slower than learning, more than once
    seed: int = 1


class Rendered(Dataset[tuple[np.ndarray, ...]]):
    """Item i is drawn from (seed, i) alone: any worker, any restart, the same pixels."""

    def __init__(self, lesson: Sightings) -> None:
        self.lesson = lesson

    def __len__(self) -> int:
        return self.lesson.steps * self.lesson.batch

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        """Pixels of some patches, uint8 "k 768"; where they lie, "k"; their labels, "k 5"; those in the middle, "k";
        where the moving shape that they show is in each frame, "k 8"."""
        frames = self.lesson.frames
        rng = np.random.default_rng((self.lesson.seed, frames, index))
        pixels, labels = card_frame(rng) if frames == 1 else card_clip(rng, frames=frames, movers=self.lesson.movers)
        values = stack_labels(labels, frames)
        shown = values[:, 1] > 0
        middle = middles(shown.reshape(frames, GRID, GRID)).reshape(-1)
        places = np.sort(np.argsort(-rng.random(len(shown)) - shown)[: self.lesson.patches])
        patches = (
            pixels.reshape(frames, GRID, PATCH, GRID, PATCH, 3).transpose(0, 1, 3, 5, 2, 4).reshape(len(shown), -1)
        )
        return patches[places], places, values[places], middle[places], tracks(values, frames)[places]


def stack_labels(labels: Labels, frames: int) -> np.ndarray:
    """Patch labels as one array, int64 "F*P 5", in the order of FIELDS."""
    return np.stack([getattr(labels, name).reshape(frames, -1) for name in FIELDS], -1).reshape(-1, 5).astype(np.int64)


def tracks(values: np.ndarray, frames: int) -> np.ndarray:
    """For patches of a moving shape its centre (row, column; -1 to 1) in four frames, float32 "F*P 8"; else NaN.

    Direction and speed are hard to learn from their names alone; where the shape was and will be leads there.
    """
    track = np.full((len(values), 8), np.nan, dtype=np.float32)
    moving = values[:, 3] > 0
    rows, columns = (np.arange(GRID**2) // GRID, np.arange(GRID**2) % GRID)
    for frame, shown in enumerate(moving.reshape(frames, -1)):
        if frame < 4 and shown.any():
            track[moving, 2 * frame : 2 * frame + 2] = rows[shown].mean() / 6.5 - 1, columns[shown].mean() / 6.5 - 1
    return track


def place_loss(logits: Float[Tensor, "C p n"], places: Int[Tensor, "C p"]) -> Tensor:
    """Cross-entropy of each patch's own row, column and frame: its position is one number, out of which a small tower
    does not find these by itself, and without them nothing moves left or up."""
    values = (places % GRID**2 // GRID, places % GRID, places // GRID**2)
    parts = logits.float().split([GRID, GRID, logits.shape[-1] - 2 * GRID], -1)
    losses = [F.cross_entropy(part.transpose(1, 2), value) for part, value in zip(parts, values, strict=True)]
    return torch.stack(losses).sum()


def patch_loss(
    logits: Float[Tensor, "C p n"],
    labels: Int[Tensor, "C p 5"],
    middle: Bool[Tensor, "C p"],
    track: Float[Tensor, "C p 8"],
) -> tuple[Tensor, list[float]]:
    """Cross-entropy of every field, patches with and without something in them weighing the same.

    Returns the loss and, for each field, the share of patches with something in them that are right.
    """
    *parts, place = logits.float().split([*SIZES, 8], -1)
    known = ~track.isnan()
    total = 4 * F.smooth_l1_loss(place[known], track[known], beta=0.1) if known.any() else torch.zeros(())
    right = []
    for name, part, target in zip(FIELDS, parts, labels.unbind(-1), strict=True):
        if name in ("direction", "speed") and not known.any():  # single frames must not teach that nothing moves
            right.append(float("nan"))
            continue
        losses = F.cross_entropy(part.transpose(1, 2), target, reduction="none")
        shown = target > 0
        total = total + losses[~shown].mean() * 0.5
        if shown.any():
            total = total + losses[shown].mean()
        if name == "character" and (middle & shown).any():  # where the strokes are, reading is learned first
            total = total + 2 * losses[middle & shown].mean()
        right.append((part.argmax(-1) == target)[shown].float().mean().item() if shown.any() else float("nan"))
    return total, right


class Memory:
    """Batches seen before, to be looked at again beside each new one: ``views`` batches in all.

    Starts empty, so the first batches are short, also after a stop.
    """

    def __init__(self, views: int, seed: int, room: int = 400) -> None:
        self.views, self.room = views, room
        self.rng = np.random.default_rng(seed)
        self.held: list[Sequence[Tensor]] = []

    def beside(self, fresh: Sequence[Tensor]) -> list[Tensor]:
        """The fresh batch, and behind it ``views - 1`` of those held."""
        if self.views == 1:
            return list(fresh)
        old = [self.held[i] for i in self.rng.permutation(len(self.held))[: self.views - 1].tolist()]
        if len(self.held) == self.room:
            self.held.pop(int(self.rng.integers(self.room)))
        self.held.append(fresh)
        return [torch.cat(parts) for parts in zip(fresh, *old, strict=True)]


class Pupil(nn.Module):
    """The tower, and the two heads that it learns with and that are thrown away."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.tower = Umt(config)
        self.what = nn.Linear(config.width, OUTPUTS)
        self.where = nn.Linear(config.width, 2 * GRID + 4)
        mean, std = (torch.tensor(values).repeat_interleave(PATCH**2) for values in (PIXEL_MEAN, PIXEL_STD))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(
        self, patches: UInt8[Tensor, "C p n"], places: Int[Tensor, "C p"], positions: Float[Tensor, "q D"]
    ) -> tuple[Float[Tensor, "C p m"], Tensor]:
        """What each of some patches shows, and the loss of not knowing where it lies."""
        conv = self.tower.patch_embed.proj
        x = F.linear((patches.float() / 255 - self.mean) / self.std, conv.weight.flatten(1), conv.bias)
        x = x + positions[places].to(x.dtype)
        lost = x.new_zeros(())
        for number, block in enumerate(self.tower.blocks):
            x = block(x)
            if number == POSITION_BLOCK:
                lost = place_loss(self.where(x), places)
        return self.what(self.tower.vision_layernorm(x)), lost


def train_tower(config: VisionConfig, run: Run, lesson: Sightings, before: State) -> State:
    """Train on single frames or clips, from the weights ``before`` or, if there is one, the lesson's checkpoint."""
    torch.manual_seed(lesson.seed)
    pupil = Pupil(config).to(run.device)
    pupil.load_state_dict(pupil.state_dict() | before)
    optimisers = optimiser(pupil, lesson.rate)
    first = restore(run.out / f"{lesson.name}.pt", pupil, optimisers)
    positions = umt_positions(lesson.frames, GRID, config.width, run.device)
    progress = Progress(run.out / f"{lesson.name}.jsonl", lesson.steps, first)
    memory = Memory(lesson.views, lesson.seed)
    for step, fresh in enumerate(run.batches(Rendered(lesson), lesson.batch, first), first):
        set_rate(optimisers, lesson.rate, step, lesson.steps, lesson.fall)
        patches, places, labels, middle, track = memory.beside([one.to(run.device) for one in fresh])
        with torch.autocast(run.device.type, torch.bfloat16):
            logits, lost = pupil(patches, places, positions)
        loss, right = patch_loss(logits, labels, middle, track)
        take_step(pupil, optimisers, loss + lost)
        progress.log(step, loss=loss.item(), place=lost.item(), **dict(zip(FIELDS, right, strict=True)))
        if (step + 1) % 100 == 0 or step + 1 == lesson.steps:
            save(run.out / f"{lesson.name}.pt", pupil, optimisers, step + 1)
    return pupil.state_dict()
