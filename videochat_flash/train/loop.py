"""One stage of training: steps over packed conversations, with checkpoints that lose nothing.

A step's conversations follow from the recipe, the data and the step's number alone; so does everything else on a CPU.
"""

from __future__ import annotations

import json
import math
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import Config, Plan
from ..cost import GPUS
from ..cost import Sample as Size
from ..files import beside
from .checkpoint import Keeper
from .estimate import training_flops
from .learner import Learner, objective, pack, weight
from .memory import FEWER, enough_memory
from .optimize import factor
from .parallel import Place, gathered
from .recipe import Recipe, steps_of
from .samples import Bad, Sample
from .teach import shares

METRICS = "metrics.jsonl"
STOPS = (signal.SIGINT, signal.SIGTERM)
READ = "read"  # among counts of reasons
JUDGED = 1000  # ours: the share of bad records is one of so many at least, or of all of a shorter run


@dataclass(frozen=True)
class Step:
    """What is told of a step, in ``metrics.jsonl`` and to whoever watches.

    Attributes:
        step: counted from 1.
        loss: mean of the conversations' or tokens' losses; None where there was none.
        taught: mean of what a tower was told beside them; 0 where it was told nothing.
        norm: of all gradients together, before clipping.
        rates: of each part.
        rows: text and visual rows that passed the decoder.
        bad: conversations left out so far, of all that were read.
        seconds: of this step.
        memory: bytes on the device at most so far; 0 on a CPU.
        tflops: operations that the step needs, in 1e12 a second over all processes; recomputation does not count.
        mfu: their share of what the devices could do at most; None where that is not known.
        reasons: why conversations were left out so far, and how many.
    """

    step: int
    loss: float | None
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
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass
class Tally:
    """Conversations read, and those left out by reason."""

    read: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    told: set[tuple[str, str]] = field(default_factory=set)

    @staticmethod
    def of(counts: Mapping[str, int]) -> Tally:
        """One that goes on from ``counts``."""
        return Tally(counts.get(READ, 0), Counter({reason: n for reason, n in counts.items() if reason != READ}))

    @property
    def counts(self) -> dict[str, int]:
        """As a checkpoint keeps them."""
        return {READ: self.read, **self.bad}

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
        return steps_of(recipe, self.length)

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
    words = re.split("[ -]", torch.cuda.get_device_name(device) if device.type == "cuda" else "")
    known = next((gpu for key, gpu in GPUS.items() if key.removeprefix("RTX ").split("-")[0] in words), None)
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
    reasons: Counter[str] = field(default_factory=Counter)  # of what all processes left out

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def run(self, data: Dataset[Sample | Bad]) -> int:
        """Train from the newest checkpoint, or from the beginning, to the end; the number of steps.

        Raises:
            KeyboardInterrupt: a process was told to stop; everything up to the step that was under way is kept.
            ValueError: a loss that is no number, too many bad records, or too little memory.
            OSError: a checkpoint that cannot be written.
        """
        recipe, own = self.recipe, self.recipe.optimizer
        steps = self.schedule.steps(recipe)
        first = self.keeper.restore(self.net, self.optimizers, self.place)
        if self.place.first:
            self.tally = Tally.of(self.keeper.records(first))
            forget(self.keeper.folder.parent / METRICS, first)
        order = Order(self.schedule, self.place, range(first, steps))
        stream = _loader(data, order, recipe.workers)
        with _stoppable() as asked:
            for number in range(first, steps):
                began = time.monotonic()
                samples = self._good([next(stream) for _ in self.schedule.share(number, self.place)])
                for group in self.groups:
                    group["lr"] = group["peak"] * factor(number, steps, own.warmup, own.fall)
                step = self._step(number, samples, began)
                if self.place.first:
                    _append(self.keeper.folder.parent / METRICS, step)
                    self.told(step)
                stop = bool(self.place.most(int(asked())))
                if stop or (number + 1) % recipe.save_every == 0 or number + 1 == steps:
                    records = self.place.all(self.tally.counts)
                    self.keeper.save(self.net, self.optimizers, number + 1, self.place, records)
                if stop and number + 1 < steps:
                    raise KeyboardInterrupt
        return steps

    def _good(self, read: Sequence[Sample | Bad]) -> list[Sample]:
        """What can be learned from; the rest is counted, and told of once."""
        good = [one for one in read if isinstance(one, Sample)]
        self.tally.read += len(read)
        for one in read:
            if isinstance(one, Bad) and self.tally.add(one):
                self.warn(f"{one.source} {one.id} is left out, {one.reason}: {one.detail}")
        return good

    def _step(self, number: int, samples: list[Sample], began: float) -> Step:
        """Learn from all processes' samples of a step; nothing moves where there are none."""
        recipe, device = self.recipe.at(number), self.place.device
        counted = (self.tally.read, sum(self.tally.bad.values()), len(samples), sum(one.rows for one in samples))
        needed, weighs = (
            operations(recipe, self.net.model.config, samples) / 1e12,
            weight(samples, recipe.loss),
        )
        lessons = self.net.sizes(samples)
        told = torch.tensor([*counted, needed, weighs, *lessons.flat], dtype=self.place.exact, device=device)
        read, bad, learned, rows, needed, whole, *sizes = self.place.total(told).tolist()
        if bad != sum(self.reasons.values()):
            self.reasons = self.place.all(self.tally.bad)
        self._check(bad / self._judged(read))
        loss = taught = norm = 0.0
        if learned:
            loss, taught, norm = self._learn(number, samples, whole, shares(np.reshape(sizes, lessons.shape)))
        seconds = max(time.monotonic() - began, 1e-3)
        peak = peak_of(device, recipe.precision)
        return Step(
            step=number + 1,
            loss=loss if whole else None,
            taught=taught,
            norm=norm,
            rates={group["name"]: group["lr"] for group in self.groups},
            rows=int(rows),
            samples=int(learned),
            bad=int(bad),
            seconds=round(seconds, 3),
            memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
            tflops=needed / seconds,
            mfu=needed / seconds / (peak * self.place.world) if peak else None,
            reasons=dict(self.reasons.most_common()),
        )

    def _learn(
        self, number: int, samples: list[Sample], whole: float, shared: Float64[np.ndarray, "2 18"]
    ) -> tuple[float, float, float]:
        """Move the weights; the mean loss, that of what was taught, and the gradient's norm, over all processes.

        Args:
            whole: the weight of all conversations of the step, and shared what one loss of its lessons weighs.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        plan = self.recipe.at(number).plan
        packs = pack(samples, self.recipe.pack)
        sums = torch.zeros(2, dtype=self.place.exact, device=self.place.device)
        for part in packs + [[]] * (self.place.most(len(packs)) - len(packs)):
            sums += self._add_gradients(part, plan, whole, shared)
        loss, taught = self.place.total(sums).tolist()
        self._finite(number, "loss", loss + taught, samples)
        for parameter in self.net.parameters():
            if parameter.requires_grad:
                self.place.total_gradient(parameter)
        norm = float(gathered(nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.optimizer.clip)))
        self._finite(number, "gradient", norm, samples)  # or no weight would be a number from here on
        for optimizer in self.optimizers:
            optimizer.step()
        return loss, taught, norm

    def _add_gradients(
        self, samples: list[Sample], plan: Plan, whole: float, shared: Float64[np.ndarray, "2 18"]
    ) -> Tensor:
        """Of one pack; its part of the mean loss and of what was taught come back."""
        bf16 = self.recipe.precision == "bfloat16"
        where = f"with {sum(one.rows for one in samples)} rows in one forward"
        with enough_memory(where, f"lower pack or video.max_frames, set recompute, {FEWER}"):
            with torch.autocast(self.place.device.type, torch.bfloat16, enabled=bf16):
                sums, counts, taught = self.net(samples, plan, shared)
            value = objective(sums, counts, self.recipe.loss) / max(whole, 1)
            if (value + taught).requires_grad:  # no text reaches what learns where the decoder is frozen
                (value + taught).backward()
        return torch.stack([value.detach(), taught.detach()]).to(self.place.exact)

    def _judged(self, read: float) -> float:
        """Records that a share is of: those read, but not so few that a single bad one would be many of them."""
        whole = min(self.schedule.length, self.schedule.steps(self.recipe) * self.recipe.batch)
        return max(read, min(JUDGED, whole))

    def _check(self, share: float) -> None:
        if share > self.recipe.max_bad_share:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
            raise ValueError(
                f"{share:.1%} of the records are bad ({reasons}), more than max_bad_share "
                f"{self.recipe.max_bad_share:.1%}: see them with --check-data"
            )

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
        worker_init_fn=_read_on,
    )
    return iter(loader)


def _read_on(_: int) -> None:
    """What stops a run comes to all of its processes, and is the learner's to heed: a reader that died of it would be
    an error there."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came: heeded behind the step that is under way; a second Ctrl-C ends it at once."""
    came = False

    def heed(number: int, _: object) -> None:
        nonlocal came
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came = True

    ours = threading.current_thread() is threading.main_thread()  # no other may
    before = {number: signal.signal(number, heed) for number in STOPS} if ours else {}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
