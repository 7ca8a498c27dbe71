"""First lesson of flash-tiny: the tower learns to see, from labels on patches that the renderer knows.

From answers alone a small video transformer learns colours at once but shapes and characters hardly ever; told which
colour, shape and character lies under each patch it learns them in minutes. The head that tells is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ..config import PIXEL_MEAN, PIXEL_STD, VisionConfig
from ..synth import CHARACTERS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, Labels, card_clip, card_frame
from ..vision import make_tower
from .loop import Progress, optimiser, restore, save, set_rate

FIELDS = {"colour": COLOURS, "shape": SHAPES, "character": CHARACTERS, "direction": DIRECTIONS, "speed": SPEEDS}
SIZES = [len(values) + 1 for values in FIELDS.values()]  # value 0: nothing lies under this patch


class Rendered(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Item i is drawn from (seed, i) alone: any worker, any restart, the same pixels."""

    def __init__(self, seed: int, frames: int, count: int) -> None:
        self.seed, self.frames, self.count = seed, frames, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, self.frames, index))
        pixels, labels = card_frame(rng) if self.frames == 1 else card_clip(rng, frames=self.frames)
        return np.array(pixels).reshape(self.frames, *pixels.shape[-3:]), stack_labels(labels, self.frames)


def stack_labels(labels: Labels, frames: int) -> np.ndarray:
    """Patch labels as one array, int64 "F*P 5", in the order of FIELDS."""
    return np.stack([getattr(labels, name).reshape(frames, -1) for name in FIELDS], -1).reshape(-1, 5).astype(np.int64)


def to_clips(pixels: Tensor) -> Float[Tensor, "C F 3 h w"]:
    """uint8 "C F h w 3" -> normalised."""
    mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
    return ((pixels.float() / 255 - mean) / std).permute(0, 1, 4, 2, 3)


def middles(shapes: Int[Tensor, "C p"], frames: int) -> Bool[Tensor, "C p"]:
    """The patches around the middle of what each frame shows, where a card has its character."""
    grid = int((shapes.shape[1] / frames) ** 0.5)
    shown = (shapes > 0).view(-1, grid, grid)
    near = torch.ones_like(shown)
    for axis in (1, 2):
        other = shown.sum(3 - axis).float()  # weight of each row or column
        place = torch.arange(grid).float()
        mass = other.sum(1, keepdim=True).clamp(min=1)
        centre = (other * place).sum(1, keepdim=True) / mass
        spread = ((other * (place - centre) ** 2).sum(1, keepdim=True) / mass).sqrt()
        inside = (place - centre).abs() <= spread.clamp(min=0.75)
        near = near & (inside[:, :, None] if axis == 1 else inside[:, None, :])
    return near.view(shapes.shape)


def some_patches(shapes: Int[Tensor, "C p"], count: int, draw: torch.Generator) -> Int[Tensor, "C k"]:
    """``count`` random patches of each clip, those that show something first: the rest teaches little and costs most."""
    order = torch.rand(shapes.shape, generator=draw) + (shapes > 0)
    return order.argsort(dim=1, descending=True)[:, :count].sort(dim=1).values


def patch_loss(
    logits: Float[Tensor, "C p n"], labels: Int[Tensor, "C p 5"], middle: Bool[Tensor, "C p"]
) -> tuple[Tensor, list[float]]:
    """Cross-entropy of every field, patches with and without something in them weighing the same.

    Returns the loss and, for each field, the share of patches with something in them that are right.
    """
    total, right = torch.zeros(()), []
    for name, part, target in zip(FIELDS, logits.float().split(SIZES, -1), labels.unbind(-1), strict=True):
        losses = F.cross_entropy(part.transpose(1, 2), target, reduction="none")
        shown = target > 0
        total = total + losses[~shown].mean() * 0.5
        if shown.any():
            total = total + losses[shown].mean()
        if name == "character" and (middle & shown).any():  # where the strokes are, reading is learned first
            total = total + 2 * losses[middle & shown].mean()
        right.append((part.argmax(-1) == target)[shown].float().mean().item() if shown.any() else float("nan"))
    return total, right


@dataclass(frozen=True)
class Sightings:
    """One lesson in seeing: ``batch`` images or clips a step, ``patches`` of each, random ones beside those that matter."""

    name: str
    steps: int
    batch: int
    frames: int
    patches: int
    rate: float
    fall: float = 1 / 3


def train_tower(config: VisionConfig, out: Path, lesson: Sightings, *, seed: int, start_from: Path | None = None) -> None:
    """Train tower and head on single frames or clips, going on from ``out`` where a run stopped."""
    torch.manual_seed(seed)
    tower = make_tower(config)
    head = nn.Linear(config.width, sum(SIZES))
    net = nn.ModuleDict({"tower": tower, "head": head})
    if start_from is not None:
        net.load_state_dict(torch.load(start_from, weights_only=True)["model"])
    optimisers = optimiser(net, lesson.rate)
    first = restore(out / f"{lesson.name}.pt", net, optimisers)
    data = Rendered(seed, lesson.frames, lesson.steps * lesson.batch)
    loader = DataLoader(
        Subset(data, range(first * lesson.batch, len(data))), lesson.batch, num_workers=1, prefetch_factor=4
    )
    progress = Progress(out / f"{lesson.name}.jsonl", lesson.steps, first)
    for step, (pixels, labels) in enumerate(loader, first):
        set_rate(optimisers, lesson.rate, step, lesson.steps, lesson.fall)
        places = some_patches(labels[..., 1], lesson.patches, torch.Generator().manual_seed(step))
        middle = middles(labels[..., 1], lesson.frames).gather(1, places)
        labels = labels.gather(1, places[..., None].expand(-1, -1, 5))
        with torch.autocast("cpu", torch.bfloat16):
            x = tower.embed(to_clips(pixels))
            logits = head(tower.encode(x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))))
        loss, right = patch_loss(logits, labels, middle)
        for one in optimisers:
            one.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for one in optimisers:
            one.step()
        progress.log(step, loss=loss.item(), **dict(zip(FIELDS, right, strict=True)))
        if (step + 1) % 100 == 0 or step + 1 == lesson.steps:
            save(out / f"{lesson.name}.pt", net, optimisers, step + 1)
