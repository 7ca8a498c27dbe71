"""What learns at which rate: groups of parameters, their optimizers, and the schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from .begin import part_of
from .recipe import Recipe


def groups(net: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters with the rate of their part; norms and biases never decay."""
    found: dict[tuple[str, bool, bool], list[Tensor]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            plain = name.replace("_checkpoint_wrapped_module.", "").removeprefix("model.")
            part = "tower" if plain.startswith("teacher.") else part_of(plain)
            inside = parameter.ndim == 2 and (".blocks." in plain or ".layers." in plain)
            found.setdefault((part, parameter.ndim > 1, inside), []).append(parameter)
    rates = vars(recipe.rates)
    return [
        {
            "params": parameters,
            "name": part,
            "peak": rates[part],
            "lr": rates[part],
            "weight_decay": recipe.optimizer.weight_decay if decays else 0.0,
            "inside": inside,
        }
        for (part, decays, inside), parameters in found.items()
    ]


def make_optimizers(net: nn.Module, recipe: Recipe) -> list[Optimizer]:
    """AdamW over real groups: every part has its own rate; and Muon for the matrices inside blocks, if it is wanted.

    Muon's steps are brought to the size of AdamW's, so that one rate serves both.
    """
    own, found = recipe.optimizer, groups(net, recipe)
    inside = [group for group in found if group.pop("inside") and own.kind == "muon"]
    rest = [group for group in found if not any(group is one for one in inside)]
    made: list[Optimizer] = []
    if rest:
        made.append(AdamW(rest, betas=(own.beta1, own.beta2), eps=own.eps))
    if inside:
        made.append(Muon(inside, adjust_lr_fn="match_rms_adamw"))
    return made


def factor(step: int, steps: int, warmup: float, fall: float) -> float:
    """Share of the peak rate in step ``step`` (from 0): a linear rise, all of it for a while, and a cosine to 0 in the
    last share ``fall`` of the steps, 1 being all behind the rise."""
    rise = math.ceil(warmup * steps)
    if step < rise:
        return (step + 1) / rise
    top = max(rise, steps - math.ceil(fall * steps))
    return 0.5 * (1 + math.cos(math.pi * max(0, step - top) / max(1, steps - top)))


@dataclass(frozen=True)
class Group:
    """Parameters that learn alike, in numbers."""

    part: str
    parameters: int
    rate: float
    decay: float
    optimizer: str


def listed(optimizers: Sequence[Optimizer]) -> list[Group]:
    """What the optimizers hold, as they hold it; groups that learn alike as one."""
    found: dict[tuple[str, float, float, str], int] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            key = group["name"], group["peak"], group["weight_decay"], type(optimizer).__name__
            found[key] = found.get(key, 0) + sum(parameter.numel() for parameter in group["params"])
    return [Group(part, count, rate, decay, kind) for (part, rate, decay, kind), count in found.items()]
