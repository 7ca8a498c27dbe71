"""The same quantities without running: what a device would need at the least, and whether it fits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from ..chat import CLIP_BATCH
from ..config import Config, Plan
from ..quantise import AS_LOADED, Packing
from ..video import MOST_FRAMES
from .gauge import Machine
from .work import FIRST, NORMALISE, STAGES, TOKEN, Work, memory, sample_of, works

RESERVED = 1e9  # bytes: the driver's context, workspaces of kernels, what the allocator cannot use
ON_DEVICE = tuple(name for name in STAGES[STAGES.index(NORMALISE) :] if name != FIRST)


@dataclass(frozen=True)
class Planned:
    """A stage: its work, the seconds below which no code can go, those at the assumed share, and bytes held."""

    work: Work
    floor: float
    seconds: float
    memory: float | None


@dataclass(frozen=True)
class Forecast:
    """One number of frames on one device.

    Attributes:
        share: of the device's peaks that is assumed.
        stages: those that the device runs; reading a video is the host's work and depends on the file.
        needed: bytes, at the stage that needs most.
        most: frames that fit, up to MOST_FRAMES; None where the memory of the device is unknown.
        packing: how the decoder is held.
    """

    frames: int
    rows: int
    machine: Machine
    share: float
    stages: Mapping[str, Planned]
    needed: float
    most: int | None
    packing: Packing = AS_LOADED

    @property
    def floor(self) -> float:
        """Seconds to the first token, at the least."""
        return sum(self.stages[name].floor for name in self.stages if name != TOKEN)

    @property
    def seconds(self) -> float:
        """At the assumed share."""
        return self.floor / self.share

    @property
    def fits(self) -> bool | None:
        """None where the memory of the device is unknown."""
        return None if self.machine.memory is None else self.needed + RESERVED <= self.machine.memory


def forecast(
    config: Config,
    frames: int,
    keep: Plan,
    width: int,
    machine: Machine,
    share: float,
    batch: int = CLIP_BATCH["cuda"],
    packing: Packing = AS_LOADED,
    repeated: bool = False,
) -> Forecast:
    """Work over speed: operations over the matrix product's peak, or bytes over the memory's, whichever takes longer.

    Args:
        width: bytes of a number.
        share: of the peaks that is reached, above 0 and at most 1.
        batch: clips that pass the tower at once.
        packing: how the decoder is held.
        repeated: whether attention writes keys and values out for every query head.

    Raises:
        ValueError: frames that are not whole clips, or a share that nothing reaches.
    """
    if not 0 < share <= 1:
        raise ValueError(f"--share must be above 0 and at most 1, not {share:g}")
    sample = sample_of(config, frames)
    done = works(config, sample, keep, width, batch=batch, packing=packing)
    held = memory(config, sample, keep, width, batch, packing, repeated)
    stages = {}
    for name in ON_DEVICE:
        work = done[name]
        floor = max((work.flops or 0) / machine.flops, (work.bytes or 0) / machine.bandwidth)
        stages[name] = Planned(work, floor, floor / share, held.get(name))
    room = None if machine.memory is None else machine.memory - RESERVED
    most = None if room is None else most_frames(config, keep, width, room, batch, packing, repeated)
    return Forecast(frames, sample.rows, machine, share, stages, max(held.values()), most, packing)


def most_frames(
    config: Config,
    keep: Plan,
    width: int,
    room: float,
    batch: int = CLIP_BATCH["cuda"],
    packing: Packing = AS_LOADED,
    repeated: bool = False,
) -> int:
    """Frames, in whole clips, with which no stage holds more bytes than ``room``."""
    clip = config.vision.clip_frames
    clips = range(1, MOST_FRAMES // clip + 1)

    def needed(count: int) -> float:
        return max(memory(config, sample_of(config, count * clip), keep, width, batch, packing, repeated).values())

    return bisect_right(clips, room, key=needed) * clip
