"""One process or many: started plainly, by torchrun or by slurm; sharding and recomputation, applied from outside."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from .learner import Learner
from .recipe import Recipe

PATIENCE = timedelta(hours=6)  # with which processes wait for the first, which fills the pieces of drawn videos


@dataclass(frozen=True)
class Place:
    """This process among all: its rank, how many there are, and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same on each."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def total_gradient(self, parameter: nn.Parameter) -> Tensor:
        """Its gradient summed over all processes, in place; zeros where nothing reached it, as sharding has it."""
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if isinstance(parameter, DTensor):
            return parameter.grad.mul_(self.world)  # sharding averages over processes
        if self.world > 1:
            dist.all_reduce(parameter.grad)
        return parameter.grad

    def most(self, value: int) -> int:
        """The largest of all processes' values."""
        if self.world == 1:
            return value
        held = torch.tensor(value, device=self.device)
        dist.all_reduce(held, op=dist.ReduceOp.MAX)
        return int(held)

    def all(self, words: dict[str, int]) -> Counter[str]:
        """What all processes counted, together."""
        counted: list[dict[str, int]] = [words]
        if self.world > 1:
            counted = [{}] * self.world
            dist.all_gather_object(counted, words)
        return sum((Counter(one) for one in counted), Counter())

    @property
    def exact(self) -> torch.dtype:
        """The most exact numbers that the device adds."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


def rank() -> int:
    """This process among all, counted from 0."""
    return _told("RANK", "SLURM_PROCID", 0)


def _told(torchrun: str, slurm: str, alone: int) -> int:
    """What torchrun says, or srun; a shell inside of a slurm job is no process of a step."""
    ours = os.environ.get(slurm, alone) if "SLURM_STEP_NUM_TASKS" in os.environ else alone
    return int(os.environ.get(torchrun, ours))


def _meet() -> None:
    """Where the processes meet, which srun does not say: at the first node of the step, on a port of the job's own."""
    if "SLURM_STEP_NODELIST" in os.environ:
        nodes = os.environ["SLURM_STEP_NODELIST"]
        first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])  # node[01-04,7],x -> node01
        os.environ.setdefault("MASTER_ADDR", first)
        os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 20000))


def join(device: str) -> Place:
    """Join the processes that the environment tells of (torchrun's or slurm's variables), or be the only one.

    Raises:
        ValueError: a device that is not there.
    """
    world, local = (_told("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", 1), _told("LOCAL_RANK", "SLURM_LOCALID", 0))
    kind = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device} is not there: this machine has no GPU that PyTorch knows")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps is not there: this is no Mac with a GPU that PyTorch knows")
    if world > 1 and ":" in kind:
        raise ValueError(
            f"device {device} is one GPU, and there are {world} processes: say cuda, and each takes its own"
        )
    if kind == "cuda":
        seen = torch.cuda.device_count()
        number = local if seen > 1 else 0  # slurm may show each process its own GPU alone
        if number >= seen:
            raise ValueError(f"process {local} of this machine has no GPU: it has {seen}, start as many")
        torch.cuda.set_device(number)
        kind = f"cuda:{number}"
    if world > 1 and not dist.is_initialized():
        _meet()
        backend = "nccl" if kind.startswith("cuda") else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE, rank=rank(), world_size=world)
    return Place(rank(), world, torch.device(kind))


def leave(place: Place) -> None:
    """Leave the group of processes, behind the last of them. Whoever fails does not wait: others may never come."""
    if place.world > 1:
        dist.barrier()
        dist.destroy_process_group()


def blocks(learner: Learner) -> list[tuple[nn.ModuleList, int]]:
    """Where the blocks of the tower and the layers of the decoder are held."""
    lists = (learner.model.vision.blocks, learner.model.decoder.layers)
    return [(held, i) for held in lists if isinstance(held, nn.ModuleList) for i in range(len(held))]


def prepare(learner: Learner, place: Place, recipe: Recipe) -> Learner:
    """Move to the device; recompute blocks in the backward pass; shard over all processes (FSDP2).

    Weights stay float32; with ``bfloat16`` they are gathered as such, while gradients are summed in float32. Muon needs
    whole matrices: with it every process has all weights, those of the first. Sharding moves one block after the other,
    so that no device ever holds more than one of them whole.
    """
    if recipe.recompute:
        for held, i in blocks(learner):
            held[i] = checkpoint_wrapper(held[i], CheckpointImpl.NO_REENTRANT)
    if place.world == 1:
        return learner.to(place.device)
    if recipe.optimizer.kind == "muon":
        learner = learner.to(place.device)
        for held in learner.state_dict().values():
            dist.broadcast(held, 0)
        return learner
    mesh = init_device_mesh(place.device.type, (place.world,))
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if recipe.precision == "bfloat16" else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for held, i in blocks(learner):
        fully_shard(held[i], mesh=mesh, mp_policy=policy)
    for layer in learner.model.decoder.layers:
        register_fsdp_forward_method(layer, "rank")  # dropout asks a layer before it runs
    fully_shard(learner, mesh=mesh, mp_policy=policy)
    return learner


def gathered(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, put together (a collective call where it is)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
