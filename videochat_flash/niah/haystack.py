"""Haystacks: any videos, or a made one, as numbered frames one second apart; nothing is repeated unless allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..journal import digest
from ..looks import hash_of
from ..needle import PROCEDURAL, SIZE
from ..synth import Haystack as Endless
from ..synth import procedural
from ..synth.world import Image8
from ..video import TICK, SamplePlan, VideoInfo, decode, probe
from .draws import VERSION, rng_of


@dataclass(frozen=True)
class Haystack:
    """Frames to hide things in.

    Attributes:
        name: what the user called it.
        digest: of what its frames depend on; the place of a file is no part of it.
        size: width and height.
        numbers: for each file, its frames that are taken.
        infos: the files.
        endless: a made haystack instead of files.
        repeat: whether it begins anew behind its end.
    """

    name: str
    digest: str
    size: tuple[int, int]
    numbers: tuple[NDArray[np.int64], ...] = ()
    infos: tuple[VideoInfo, ...] = ()
    endless: Endless | None = None
    repeat: bool = False

    @property
    def frames(self) -> int | None:
        """Different frames that there are; None without end."""
        return None if self.endless else sum(map(len, self.numbers))

    def need(self, count: int) -> None:
        """Raises ValueError where there are fewer frames and repeating them is not allowed."""
        if self.frames is not None and self.frames < count and not self.repeat:
            raise ValueError(
                f"haystack {self.name} has {self.frames} frames, {count} are needed: give longer videos, shorter "
                "--lengths, more frames a second with --fps, --join, or --allow-repeat"
            )

    def read(self, first: int, count: int) -> Iterator[Image8]:
        """Frames from ``first`` on, uint8 ``h w 3``, a few in memory at a time.

        Raises:
            ValueError: beyond its end.
            VideoError: a file that cannot be read any more.
        """
        self.need(first + count)
        if self.endless is not None:
            yield from (self.endless.frame(i) for i in range(first, first + count))
            return
        frames = self.frames or 1
        while count:
            at = first % frames
            part = min(count, frames - at)
            yield from self._stored(at, part)
            first, count = first + part, count - part

    def _stored(self, first: int, count: int) -> Iterator[Image8]:
        """Frames of files, without any beginning anew."""
        for info, numbers in zip(self.infos, self.numbers, strict=True):
            part = numbers[max(0, first) : max(0, first + count)]
            first -= len(numbers)
            if len(part):
                plan = SamplePlan(part, info.seconds[part], (0.0, info.duration), info.duration)
                for pixels in chain.from_iterable(chunk.pixels for chunk in decode(info, plan, None, chunk=8)):
                    yield self._fitted(pixels)

    def _fitted(self, pixels: Image8) -> Image8:
        if (pixels.shape[1], pixels.shape[0]) == self.size:
            return pixels
        return np.asarray(Image.fromarray(pixels).resize(self.size, Image.Resampling.BICUBIC))


def open_haystack(
    names: Sequence[str],
    seed: int,
    number: int,
    *,
    fps: float = 1.0,
    size: tuple[int, int] | None = None,
    repeat: bool = False,
    every: bool = False,
) -> Haystack:
    """One haystack out of files that follow each other, or a made one.

    Args:
        names: files, or ``procedural`` alone.
        seed: of a made one.
        number: which one it is; made ones differ by it.
        fps: frames a second that are taken of files.
        size: width and height; None is the first file's.
        repeat: whether it may begin anew behind its end.
        every: take every ``round(rate)``-th frame as the reference does, whatever ``fps`` says.

    Raises:
        VideoError: a file that cannot be read.
        ValueError: more frames a second than a file has, or a file twice that is not to be repeated.
    """
    if PROCEDURAL in names:
        if len(names) > 1:
            raise ValueError(f"{PROCEDURAL} cannot be joined with files: give it as a haystack of its own")
        wide, high = size or SIZE
        made = procedural(rng_of(seed, "haystack", number), high, wide)
        what = [VERSION, PROCEDURAL, seed, number, wide, high]
        return Haystack(PROCEDURAL, digest(what), (wide, high), endless=made)
    infos = _once([probe(name) for name in names], repeat)
    taken = tuple(_every(info) if every else _at(info, fps) for info in infos)
    size = size or (infos[0].width, infos[0].height)
    what = [VERSION, [info.fingerprint for info in infos], [digest(one.tolist()) for one in taken], *size]
    return Haystack(" + ".join(names), digest(what), size, taken, infos, repeat=repeat)


def _once(infos: Sequence[VideoInfo], repeat: bool) -> tuple[VideoInfo, ...]:
    """Files without those that are there before; what may be repeated begins anew behind the last one anyway."""
    found: dict[str, VideoInfo] = {}
    for info in infos:
        if info.fingerprint in found and not repeat:
            raise ValueError(
                f"{info.source} is there twice: its frames would be shown twice; leave one out, or --allow-repeat"
            )
        found.setdefault(info.fingerprint, info)
    return tuple(found.values())


def _at(info: VideoInfo, fps: float) -> NDArray[np.int64]:
    """The frames that are shown every ``1 / fps`` seconds, from the first on."""
    if not fps > 0:
        raise ValueError(f"--fps must be above 0, not {fps:g}")
    times = np.arange(0, info.duration - TICK, 1 / fps)
    numbers: NDArray[np.int64] = np.searchsorted(info.seconds, times + TICK, "right").astype(np.int64) - 1
    if len(np.unique(numbers)) < len(numbers):
        few = f"{info.fps:g} frames a second, fewer than --fps {fps:g}"
        why = few if info.fps < fps else f"frames that are more than {1 / fps:g} s apart"
        raise ValueError(f"{info.source} has {why}: frames would repeat")
    return numbers


def _every(info: VideoInfo) -> NDArray[np.int64]:
    return np.arange(0, info.frames, max(1, round(info.fps)), dtype=np.int64)


def hashes(stack: Haystack, count: int, told: Callable[[int], None]) -> NDArray[np.uint64]:
    """Of the first ``count`` frames, or of all that there are if these are fewer."""
    count = min(count, stack.frames or count)
    found: NDArray[np.uint64] = np.empty(count, np.uint64)
    for i, image in enumerate(stack.read(0, count)):
        found[i] = hash_of(image)
        told(i + 1)
    return found
