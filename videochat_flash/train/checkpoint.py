"""Checkpoints of a run: weights, optimiser, position and random states, by torch.distributed.checkpoint (DCP).

Written into a folder beside and renamed, so that what has its name is whole; any number of processes reads what any
other number wrote.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from ..folders import take_place
from .parallel import Place

NAME = re.compile(r"step-(\d+)")
RECORDS = "records.json"
OPTIONS = StateDictOptions(strict=False, ignore_frozen_params=True)


@dataclass(frozen=True)
class Keeper:
    """Where a run's checkpoints lie and what stands beside each.

    Attributes:
        folder: holds ``step-00000100`` and so on.
        keep: how many of the newest stay.
        recipe: the resolved recipe, written beside every checkpoint.
        versions: of what ran it.
    """

    folder: Path
    keep: int
    recipe: str
    versions: dict[str, str]

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are whole, oldest first."""
        if not self.folder.is_dir():
            return []
        found = (NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def place(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(
        self, net: nn.Module, optimizers: list[Optimizer], step: int, place: Place, records: Mapping[str, int]
    ) -> None:
        """Write a checkpoint of what was learned by ``step``, and remove the oldest beyond ``keep``.

        Args:
            records: how many were read, and left out for which reason.

        Raises:
            OSError: it cannot be written, as on a full disk; earlier ones stay.
        """
        part = self.folder / f".step-{step:08d}.part"
        if place.first:
            for left in self.folder.glob(".step-*.part"):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            part.mkdir(parents=True)
        place.wait()
        weights, moments = get_state_dict(net, optimizers, options=OPTIONS)
        state = {"weights": weights, "optimizer": moments, **_random_states(place)}
        try:
            with _alone(place):
                save(state, checkpoint_id=part, no_dist=place.world == 1)
            if place.first:
                (part / "recipe.toml").write_text(self.recipe, encoding="utf-8")
                (part / "versions.json").write_text(json.dumps(self.versions, indent=1) + "\n", encoding="utf-8")
                (part / RECORDS).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        except (CheckpointException, OSError) as error:
            shutil.rmtree(part, ignore_errors=True)
            _raise_what_is_none_of_its(error)
            raise OSError(
                f"no checkpoint of step {step} in {self.folder}, earlier ones stay: {_cause(error)}"
            ) from None
        if place.first:
            take_place(part, self.place(step))
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self.place(old))
        place.wait()

    def records(self, step: int) -> dict[str, int]:
        """What the checkpoint of a step counted; nothing before the first, and in those of older versions."""
        path = self.place(step) / RECORDS
        counts: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return counts

    def restore(self, net: nn.Module, optimizers: list[Optimizer], place: Place) -> int:
        """Load the newest checkpoint, if there is one, and return its step.

        Raises:
            ValueError: a checkpoint that does not fit the model, a damaged one, or one that not all processes see.
        """
        newest = place.most(max(self.steps(), default=-1))
        if newest < 0:
            return 0
        path = self.place(newest)
        if not path.is_dir():
            raise ValueError(f"{path} is not there for every process: put out where all machines see it")
        weights, moments = get_state_dict(net, optimizers, options=OPTIONS)
        state: dict[str, Any] = {"weights": weights, "optimizer": moments}
        try:
            stored = FileSystemReader(path).read_metadata().state_dict_metadata
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged ({error}): remove it, and the one before is taken") from None
        drawn = {name: value for name, value in _random_states(place).items() if name in stored}
        try:
            with _alone(place):
                load(state | drawn, checkpoint_id=path, no_dist=place.world == 1)
        except CheckpointException as error:
            _raise_what_is_none_of_its(error)
            raise ValueError(
                f"{path} does not fit this run, or is damaged ({_cause(error)}): remove it, and the one before is taken"
            ) from None
        set_state_dict(
            net, optimizers, model_state_dict=state["weights"], optim_state_dict=state["optimizer"], options=OPTIONS
        )
        for name, state_of in drawn.items():  # a run may go on where there are more processes or other devices
            if name.startswith("random.cuda."):
                torch.cuda.set_rng_state(state_of, place.device)
            else:
                torch.set_rng_state(state_of)
        return newest


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """DCP warns a single process, though it is told that there is but one."""
    with warnings.catch_warnings():
        if place.world == 1:
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _random_states(place: Place) -> dict[str, torch.Tensor]:
    """Each process has its own; a process that had none before draws from the seed."""
    states = {f"random.{place.rank}": torch.get_rng_state()}
    if place.device.type == "cuda":
        states[f"random.cuda.{place.rank}"] = torch.cuda.get_rng_state(place.device)
    return states


def _raise_what_is_none_of_its(error: BaseException) -> None:
    """Ctrl-C or too little memory: PyTorch wraps them as if a checkpoint were at fault."""
    inner = _inner(error)
    if isinstance(inner, KeyboardInterrupt | MemoryError | torch.OutOfMemoryError):
        raise inner from None


def _cause(error: BaseException) -> str:
    """What one process said went wrong."""
    inner = _inner(error)
    return (str(inner).splitlines() or [type(inner).__name__])[0]


def _inner(error: BaseException) -> BaseException:
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
