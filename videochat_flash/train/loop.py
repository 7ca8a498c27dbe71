"""One stage of training: steps over packed conversations, with checkpoints that lose nothing (spec training 7 to 9).

A step's conversations follow from the recipe, the data and the step's number alone; so does everything else on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import Config, Plan
from ..cost import GPUS
from ..cost import Sample as Size
from ..files import beside
from .begin import part_of
from .checkpoint import Keeper
from .estimate import training_flops
from .learner import Learner, objective, pack
from .parallel import Place, whole
from .recipe import Recipe
from .samples import Bad, Sample

METRICS = "metrics.jsonl"
JUDGED = 1000  # ours: the share of bad records is one of so many at least, or of all of a shorter run


@dataclass(frozen=True)
class Step:
    """What is told of a step, in ``metrics.jsonl`` and to whoever watches.

    Attributes:
        step: counted from 1.
        loss: mean of the conversations' or tokens' losses.
        taught: mean of what a tower was told beside them; 0 where it was told nothing.
        norm: of all gradients together, before clipping.
        rates: of each part.
        rows: text and visual rows that passed the decoder.
        bad: conversations left out so far, of all that were read.
        seconds: of this step.
        memory: bytes on the device at most so far; 0 on a CPU.
        tflops: operations that the step needs, in 1e12 a second over all processes; recomputation does not count.
        mfu: their share of what the devices could do at most; None where that is not known.
    """

    step: int
    loss: float
    taught: float
    norm: float
    rates: dict[str, float]
    rows: int
    samples: int
    bad: int
    seconds: float
    memory: int
    tflops: float = 0.0
    mfu: float | None = None


@dataclass
class Tally:
    """Conversations read, and those left out by reason."""

    read: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    told: set[tuple[str, str]] = field(default_factory=set)

    def add(self, one: Bad) -> bool:
        """Count a bad one; whether it was not heard of before."""
        self.bad[one.reason] += 1
        new = (one.source, one.id) not in self.told
        self.told.add((one.source, one.id))
        return new


@dataclass(frozen=True)
class Schedule:
    """Which conversations belong to which step: epochs one behind the other, cut into steps, shared out by length.

    Attributes:
        epochs: the order of each epoch, by its number.
        length: conversations of an epoch.
        rows: estimated rows of every record.
    """

    epochs: Callable[[int], np.ndarray]
    length: int
    rows: np.ndarray
    batch: int

    def steps(self, recipe: Recipe) -> int:
        """Steps of the whole run."""
        return recipe.steps or max(1, recipe.epochs * self.length // self.batch)

    def step(self, number: int) -> list[int]:
        """Records of step ``number`` (from 0)."""
        wanted: list[int] = []
        at = number * self.batch
        while len(wanted) < self.batch:
            epoch, place = divmod(at + len(wanted), self.length)
            order = self.epochs(epoch)
            wanted += order[place : place + self.batch - len(wanted)].tolist()
        return wanted

    def share(self, number: int, place: Place) -> list[int]:
        """This process's records of a step: the longest first, each to whoever has the fewest rows so far."""
        loads = [0] * place.world
        shares: list[list[int]] = [[] for _ in loads]
        for record in sorted(self.step(number), key=lambda i: (-self.rows[i], i)):
            least = min(range(place.world), key=lambda rank: (loads[rank], rank))
            loads[least] += int(self.rows[record])
            shares[least].append(record)
        return shares[place.rank]


class Order(Sampler[int]):
    """One process's records of some steps, worked out as they are read."""

    def __init__(self, schedule: Schedule, place: Place, steps: range) -> None:
        self.schedule, self.place, self.steps = schedule, place, steps

    def __iter__(self) -> Iterator[int]:
        for number in self.steps:
            yield from self.schedule.share(number, self.place)


def groups(net: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters with the rate of their part; norms and biases never decay (spec 8.1)."""
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
    last share ``fall`` of the steps, 1 being all behind the rise (spec 2.4, 8.2)."""
    rise = math.ceil(warmup * steps)
    if step < rise:
        return (step + 1) / rise
    top = max(rise, steps - math.ceil(fall * steps))
    return 0.5 * (1 + math.cos(math.pi * max(0, step - top) / max(1, steps - top)))


def operations(recipe: Recipe, config: Config, samples: Sequence[Sample]) -> float:
    """What learning from some conversations takes at least, in floating-point operations."""
    plain = replace(recipe, recompute=False)
    total = 0.0
    for one in samples:
        shapes = [tuple(clips.shape[:2]) for clips in one.clips if clips.ndim == 5]
        frames = shapes[0][1] if shapes else config.vision.clip_frames
        size = Size(sum(count for count, _ in shapes), frames, one.rows - len(one.prompt.ids), len(one.prompt.ids))
        total += sum(training_flops(plain, config, size).values())
    return total


def peak_of(device: torch.device, precision: str) -> float | None:
    """TFLOP/s that a device's data sheet promises; None for one that is not in ``cost.GPUS``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    known = next((gpu for key, gpu in GPUS.items() if key.removeprefix("RTX ").split("-")[0] in name.split()), None)
    return None if known is None else known.bfloat16 if precision == "bfloat16" else known.float32


@dataclass
class Trainer:
    """Everything that a run of one recipe holds together."""

    recipe: Recipe
    place: Place
    net: Learner
    optimizers: list[Optimizer]
    keeper: Keeper
    schedule: Schedule
    told: Callable[[Step], None]
    warn: Callable[[str], None]
    tally: Tally = field(default_factory=Tally)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def run(self, data: Dataset[Sample | Bad]) -> int:
        """Train from the newest checkpoint, or from the beginning, to the end; the number of steps.

        Raises:
            ValueError: a loss that is no number, too many bad records, or too little memory.
            OSError: a checkpoint that cannot be written.
        """
        recipe, own = self.recipe, self.recipe.optimizer
        steps = self.schedule.steps(recipe)
        first = self.keeper.restore(self.net, self.optimizers, self.place)
        if self.place.first:
            forget(self.keeper.folder.parent / METRICS, first)
        order = Order(self.schedule, self.place, range(first, steps))
        stream = iter(_loader(data, order, recipe.workers))
        for number in range(first, steps):
            began = time.monotonic()
            samples = self._good([next(stream) for _ in self.schedule.share(number, self.place)])
            for group in self.groups:
                group["lr"] = group["peak"] * factor(number, steps, own.warmup, own.fall)
            step = self._step(number, samples, recipe.plan, began)
            if self.place.first:
                _append(self.keeper.folder.parent / METRICS, step)
                self.told(step)
            if (number + 1) % recipe.save_every == 0 or number + 1 == steps:
                self.keeper.save(self.net, self.optimizers, number + 1, self.place)
        return steps

    def _good(self, read: Sequence[Sample | Bad]) -> list[Sample]:
        """What can be learned from; the rest is counted, and told of once."""
        good = [one for one in read if isinstance(one, Sample)]
        self.tally.read += len(read)
        for one in read:
            if isinstance(one, Bad) and self.tally.add(one):
                self.warn(f"{one.source} {one.id} is left out, {one.reason}: {one.detail}")
        return good

    def _step(self, number: int, samples: list[Sample], plan: Plan, began: float) -> Step:
        packs = pack(samples, self.recipe.pack)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(3, dtype=self.place.exact, device=self.place.device)
        most = self.place.most(len(packs))
        for part in packs + [[]] * (most - len(packs)):
            sums += self._learn(part, plan)
        bad, read = sum(self.tally.bad.values()), self.tally.read
        needed = operations(self.recipe, self.net.model.config, samples) / 1e12
        told = torch.tensor([bad, read, len(samples), sum(one.rows for one in samples), needed], dtype=sums.dtype)
        summed, weight, lesson, bad, read, learned, rows, needed = self.place.total(
            torch.cat([sums, told.to(sums.device)])
        ).tolist()
        self._check(number, weight, bad / self._judged(read))
        self._finite(number, "loss", summed + lesson, samples)
        for parameter in self.net.parameters():
            if parameter.requires_grad:
                self.place.total_gradient(parameter).mul_(1 / weight)
        norm = whole(nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.optimizer.clip))
        self._finite(number, "gradient", float(norm), samples)  # or no weight would be a number from here on
        for optimizer in self.optimizers:
            optimizer.step()
        cuda = self.place.device.type == "cuda"
        seconds = max(time.monotonic() - began, 1e-3)
        peak = peak_of(self.place.device, self.recipe.precision)
        return Step(
            step=number + 1,
            loss=summed / weight,
            taught=lesson / weight,
            norm=float(norm),
            rates={group["name"]: group["lr"] for group in self.groups},
            rows=int(rows),
            samples=int(learned),
            bad=int(bad),
            seconds=round(seconds, 3),
            memory=torch.cuda.max_memory_allocated(self.place.device) if cuda else 0,
            tflops=needed / seconds,
            mfu=needed / seconds / (peak * self.place.world) if peak else None,
        )

    def _learn(self, samples: list[Sample], plan: Plan) -> Tensor:
        """Gradients of one pack are added; the sum of its losses, its weight and what was taught come back."""
        bf16 = self.recipe.precision == "bfloat16"
        try:
            with torch.autocast(self.place.device.type, torch.bfloat16, enabled=bf16):
                sums, counts, zero = self.net(samples, plan)
            value, weight = objective(sums, counts, self.recipe.loss)
            if (value + zero).requires_grad:  # no text reaches what learns where the decoder is frozen
                (value + zero).backward()
        except torch.OutOfMemoryError as error:
            rows = sum(one.rows for one in samples)
            raise ValueError(
                f"out of memory with {rows} rows in one forward: lower pack or video.max_frames, set recompute, "
                f"train fewer parts or adapters ([lora]), or use more processes ({str(error).splitlines()[0]})"
            ) from None
        return torch.stack([value.detach(), weight, zero.detach()]).to(self.place.exact)

    def _judged(self, read: float) -> float:
        """Records that a share is of: those read, but not so few that a single bad one would be many of them."""
        whole = min(self.schedule.length, self.schedule.steps(self.recipe) * self.recipe.batch)
        return max(read, min(JUDGED, whole))

    def _check(self, number: int, weight: float, share: float) -> None:
        if share > self.recipe.max_bad_share:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.place.all(self.tally.bad).most_common())
            raise ValueError(
                f"{share:.1%} of the records are bad ({reasons}), more than max_bad_share "
                f"{self.recipe.max_bad_share:.1%}: see them with --check-data"
            )
        if not weight:
            raise ValueError(f"step {number + 1} has no good record to learn from: see why with --check-data")

    def _finite(self, number: int, what: str, value: float, samples: Sequence[Sample]) -> None:
        if not math.isfinite(value):
            names = ", ".join(self.place.all(Counter(one.id for one in samples)))
            raise ValueError(f"the {what} of step {number + 1} is {value}: its records were {names}")


def _loader(data: Dataset[Sample | Bad], order: Sampler[int], workers: int) -> Iterator[Sample | Bad]:
    """Records in order, read ahead by so many processes: any number of them gives the same."""
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # or it would draw from the random state that a checkpoint restored
    )
    return iter(loader)


def _append(path: Path, step: Step) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(step)) + "\n")


def forget(path: Path, step: int) -> None:
    """Cut what metrics tell of steps behind ``step``: they will be done again."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        with beside(path) as part:
            part.write_text("".join(kept), encoding="utf-8")
