"""What the lessons of flash-tiny share: optimiser, schedule, checkpoints, a log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.utils.data import DataLoader, Dataset, Subset

from ..files import beside

State = dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """Where a training runs: its folder, the device, and the processes that draw for it."""

    out: Path
    device: torch.device = torch.device("cpu")
    workers: int = 1

    def batches(
        self, data: Dataset[Any], size: int, first: int = 0, collate: Callable[[list[Any]], Any] | None = None
    ) -> DataLoader[Any]:
        """The data in order, from batch ``first`` on, drawn ahead by the workers."""
        rest = Subset(data, range(first * size, len(data)))  # type: ignore[arg-type]  # all of ours have a length
        return DataLoader(
            rest,
            size,
            collate_fn=collate,
            num_workers=self.workers,
            prefetch_factor=4,
            pin_memory=self.device.type == "cuda",
        )


def optimiser(net: nn.Module, rate: float) -> list[Optimizer]:
    """Muon for the matrices inside blocks, AdamW for everything else."""
    inner = [
        p for n, p in net.named_parameters() if p.requires_grad and p.ndim == 2 and (".blocks." in n or ".layers." in n)
    ]
    chosen = {id(p) for p in inner}
    rest = [p for p in net.parameters() if p.requires_grad and id(p) not in chosen]
    return [
        Muon(inner, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        AdamW(rest, lr=rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def set_rate(optimisers: list[Optimizer], rate: float, step: int, steps: int, fall: float = 1 / 3) -> None:
    """Warm up over 100 steps, hold, and over the last ``fall`` of the steps sink to a fiftieth."""
    warm = min(1.0, (step + 1) / 100)
    sunk = min(1.0, (steps - step) / (steps * fall)) if fall else 1.0
    for one in optimisers:
        for group in one.param_groups:
            group["lr"] = rate * warm * max(sunk, 0.02)


def take_step(net: nn.Module, optimisers: list[Optimizer], loss: Tensor) -> None:
    """Backward, clip, update."""
    for one in optimisers:
        one.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    for one in optimisers:
        one.step()


def save(path: Path, net: nn.Module, optimisers: list[Optimizer], step: int) -> None:
    """Write a checkpoint, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": net.state_dict(), "optimisers": [one.state_dict() for one in optimisers], "step": step}
    with beside(path) as part:
        torch.save(state, part)


def restore(path: Path, net: nn.Module, optimisers: list[Optimizer]) -> int:
    """Load a checkpoint if there is one; the number of steps it has done."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    net.load_state_dict(state["model"])
    for one, values in zip(optimisers, state["optimisers"], strict=True):
        one.load_state_dict(values)
    return int(state["step"])


class Progress:
    """Averages figures over 20 steps and appends them to a JSONL file."""

    def __init__(self, path: Path, steps: int, first: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.steps, self.first = path, steps, first
        self.began = time.monotonic()
        self.window: list[dict[str, float]] = []

    def log(self, step: int, **figures: float) -> None:
        self.window.append(figures)
        if (step + 1) % 20 and step + 1 != self.steps:
            return
        means = {}
        for key in figures:
            values = [w[key] for w in self.window if w[key] == w[key]]
            means[key] = round(sum(values) / len(values), 4) if values else None
        self.window.clear()
        row = {"step": step + 1, **means, "seconds": round(time.monotonic() - self.began, 1)}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
