"""Source -> info -> plan -> frames. Knows time, not models: seconds are presentation times, the first frame at 0.

Frames are numbered in the order shown. The library that reads files is loaded when one is opened.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from array import array
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image, ImageOps

from .config import VisionConfig
from .reader import VideoError as VideoError
from .reader import decoded, fetch, in_turn, opened

CLIP = VisionConfig.clip_frames  # plans are whole clips of this many frames
GROUP = 8  # one frame a second is counted in groups of this many (4 in training)
MOST_FRAMES = 50_000  # that can be sampled
STILLS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
TICK = 1e-3  # seconds; containers that count in milliseconds round by up to this


class VideoWarning(UserWarning):
    """A source that was read, but not all of it; or a number that was rounded."""


@dataclass(frozen=True)
class VideoInfo:
    """What ``probe`` learned of a source."""

    source: str
    kind: Literal["video", "image", "folder"]
    seconds: Float64[np.ndarray, " n"] = field(repr=False, compare=False)  # when every frame appears, ascending from 0
    duration: float  # seconds, the last frame's own included; 0 for an image
    fps: float  # on average; 1 for pictures
    frames: int
    height: int  # after rotation
    width: int
    rotation: int  # degrees counter-clockwise by which stored frames are turned: 0, 90, 180 or 270
    fingerprint: str  # sha256 of size and both ends of the file; of names, sizes and some files of a folder
    files: tuple[str, ...] = field(default=(), repr=False)  # the pictures, in order
    index: Int64[np.ndarray, "n 5"] | None = field(default=None, repr=False, compare=False)  # where they are stored


@dataclass(frozen=True)
class Sampling:
    """Which frames to take between ``start`` and ``end`` (seconds).

    About 1 a second, in bounds: ``paper`` has the maximum win over the minimum, and repeats frames only to fill a clip;
    ``reference`` has the minimum win, as the authors' code. Or at a fixed rate, ``fps``; or a fixed number, ``count``.
    """

    policy: Literal["paper", "reference", "fps", "count"] = "paper"
    max_frames: int = 512
    min_frames: int = 64
    fps: float | None = None
    num_frames: int | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        fps, count, begin, most = self.fps, self.num_frames, self.start or 0.0, MOST_FRAMES
        for wrong, text in (
            (self.policy not in ("paper", "reference", "fps", "count"), f"policy {self.policy!r} is not known"),
            (self.max_frames < CLIP, f"max_frames must be at least {CLIP} (one clip), not {self.max_frames}"),
            (self.max_frames > most, f"max_frames must be at most {most}, not {self.max_frames}"),
            (self.min_frames < 0, f"min_frames must be at least 0, not {self.min_frames}"),
            ((fps is None) == (self.policy == "fps"), "fps and policy 'fps' need each other"),
            ((count is None) == (self.policy == "count"), "num_frames and policy 'count' need each other"),
            (fps is not None and not fps > 0, f"fps must be above 0, not {fps}"),
            (count is not None and count < 1, f"num_frames must be at least 1, not {count}"),
            ((count or 0) > self.max_frames, f"num_frames {count} is above max_frames {self.max_frames}: raise both"),
            (not begin >= 0, f"start must be 0 s or later, not {begin:g} s"),
            (self.end is not None and not self.end > begin, f"end {self.end} s must come after start {begin:g} s"),
        ):
            if wrong:
                raise ValueError(text)


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """The frames to read: in order, in whole clips (an image is one frame), some more than once if need be."""

    frames: Int64[np.ndarray, " n"]
    seconds: Float64[np.ndarray, " n"]
    window: tuple[float, float]  # seconds
    duration: float  # of the window


@dataclass(frozen=True, eq=False, repr=False)
class Frames:
    """RGB pixels and the times they come from."""

    pixels: UInt8[np.ndarray, "n h w 3"]
    seconds: Float64[np.ndarray, " n"]
    duration: float  # seconds of the window that they were chosen from

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or self.seconds.shape != shape[:1]:
            raise ValueError(f"pixels must be uint8 (n, h, w, 3) with n seconds, not {self!r}")
        if np.any(np.diff(self.seconds) < 0):
            raise ValueError(f"seconds of frames must not descend: {self.seconds.tolist()}")

    def __repr__(self) -> str:
        return f"Frames({self.pixels.dtype}{self.pixels.shape}, seconds{self.seconds.shape}, {self.duration:g} s)"


def spread(frames: int, count: int) -> list[int]:
    """The middles of ``count`` equal parts of ``frames`` frames; the last one repeated where there are fewer frames."""
    edges = np.linspace(0, frames, min(count, frames) + 1).astype(int)
    middles: list[int] = ((edges[:-1] + edges[1:] - 1) // 2).tolist()
    return middles + middles[-1:] * (count - len(middles))


def at_rate(frames: int, duration: float, fps: float) -> list[int]:
    """A frame every ``1 / fps`` seconds from half a step on; none if the video is shorter than that."""
    times = np.arange(0.5 / fps, duration + 0.5 / fps, 1 / fps)
    indices = np.around(times * round(frames / duration, 9)).astype(int)  # the bare quotient is off, and misses halves
    return [int(i) for i in indices if i < frames]


def sample_indices(frames: int, duration: float, sampling: Sampling, *, group: int = GROUP) -> list[int]:
    """The counting rules: whole clips of ``frames`` frames that follow each other evenly for ``duration`` seconds."""
    most = sampling.max_frames // CLIP * CLIP
    if sampling.num_frames is not None:
        return spread(frames, min(most, max(CLIP, sampling.num_frames // CLIP * CLIP)))
    if sampling.fps is not None:
        every = sampling.fps * duration >= frames  # a rate above the video's own takes each frame once
        indices = list(range(frames)) if every else at_rate(frames, duration, sampling.fps) or spread(frames, 1)
        if len(indices) > most:
            text = f"fps {sampling.fps:g} takes more frames than max_frames: {most} spread evenly are used"
            warnings.warn(text, VideoWarning, stacklevel=3)
            return [indices[i] for i in spread(len(indices), most)]
        return (indices + indices[-1:] * CLIP)[: max(CLIP, len(indices) // CLIP * CLIP)]
    least = math.ceil(sampling.min_frames / CLIP) * CLIP
    least = least if least <= frames else frames // group * group
    count = max(least, min(most, group * max(1, int(duration // group))))
    if sampling.policy == "paper":
        count = min(count, most, math.ceil(frames / CLIP) * CLIP)
    return spread(frames, count)


def plan(info: VideoInfo, sampling: Sampling, *, group: int = GROUP) -> SamplePlan:
    """Chooses what is shown in the middle of even shares of the window. An end beyond the video is cut to it."""
    for name, number in (("max_frames", sampling.max_frames), ("num_frames", sampling.num_frames or CLIP)):
        if number % CLIP:
            text = f"{name} {number} is not whole clips of {CLIP} frames: {max(CLIP, number // CLIP * CLIP)} are used"
            warnings.warn(text, VideoWarning, stacklevel=2)
    times, first, last, start, end = info.seconds, 0, info.frames, sampling.start or 0.0, info.duration
    if start > 0 and start >= end:
        raise ValueError(f"start {start:g} s is beyond the end of {info.source}, {end:g} s: start earlier")
    part = sampling.start is not None or sampling.end is not None
    if part:
        end = min(math.inf if sampling.end is None else sampling.end, end - 0.1 * (sampling.policy == "reference"))
        first = max(0, int(np.searchsorted(times, start + TICK, "right")) - 1)
        steady = even(times, info.fps)  # whole frames
        last = first + int((end - start + TICK) * info.fps) if steady else int(np.searchsorted(times, end - TICK))
        last, end = min(max(last, first + 1), info.frames), max(start, end)
    span = float((times[last] if last < info.frames else info.duration) - times[first])
    chosen = [0] if info.kind == "image" else sample_indices(last - first, span + TICK * part, sampling, group=group)
    middles = times[first] + (np.array(chosen) + 0.5) / (last - first) * span
    frames = np.clip(np.searchsorted(times, middles, "right") - 1, first, last - 1).astype(np.int64)
    return SamplePlan(frames, times[frames], (start, end), end - start)


def probe(source: str | Path) -> VideoInfo:
    """What a video, a picture, or a folder of pictures holds (one a second, by the numbers that end their names)."""
    path = Path(source)
    if path.is_dir():
        return _probe_stills(path, "folder", [file for file in path.iterdir() if file.suffix.lower() in STILLS])
    if not path.is_file() or not path.stat().st_size:
        raise VideoError(f"{path} {'is empty' if path.exists() else 'is missing'}: give a video, a picture or a folder")
    return _probe_stills(path, "image", [path]) if path.suffix.lower() in STILLS else _probe_video(path)


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        head, _ = file.read(1 << 20), file.seek(max(0, size - (1 << 20)))
        return hashlib.sha256(b"%d\n" % size + head + file.read()).hexdigest()


def _still(path: str) -> Image.Image | None:
    """A picture, upright and RGB; None where it is damaged."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _probe_stills(path: Path, kind: Literal["image", "folder"], found: list[Path]) -> VideoInfo:
    files = sorted(found, key=lambda file: ([int(n) for n in re.findall(r"\d+$", file.stem)], file.name))
    first = next((image for image in map(_still, map(str, files)) if image), None)
    if first is None:
        raise VideoError(f"{path} holds no picture that can be read ({', '.join(STILLS)})")
    told = [f"{one.name} {one.stat().st_size}" for one in files] + [*map(_fingerprint, files[:: len(files) // 8 or 1])]
    digest = hashlib.sha256("\n".join(told).encode()).hexdigest() if kind == "folder" else _fingerprint(path)
    seconds, shape = np.arange(len(files), dtype=np.float64), (len(files), first.height, first.width)
    duration = float(len(files) * (kind == "folder"))
    return VideoInfo(str(path), kind, seconds, duration, 1.0, *shape, 0, digest, tuple(map(str, files)))


def even(seconds: Float64[np.ndarray, " n"], fps: float) -> bool:
    """Whether frames follow each other at a rate, each within a quarter of a frame."""
    return bool(np.all(np.abs(seconds * fps - np.arange(len(seconds))) < 0.25))


def _probe_video(path: Path) -> VideoInfo:
    table, first, read, torn = array("q"), None, 0.0, False
    with opened(path) as (av, container, stream):
        with suppress(av.FFmpegError):  # where the file breaks off
            for packet in container.demux():
                stamp, length = packet.dts if packet.pts is None else packet.pts, packet.duration or 0
                if stamp is not None:
                    read = max(read, float((stamp + length) * packet.time_base))
                if packet.size and packet.stream_index == stream.index:
                    unseen, key, torn = packet.is_discard or stamp is None, packet.is_keyframe, packet.is_corrupt
                    early = stamp if packet.dts is None else packet.dts
                    table.extend((stamp or 0, length, unseen, key or not table, early or 0))
                    first = first or next(iter(decoded(av, stream, packet)), None)
        first = first or next(iter(decoded(av, stream, None)), None)
        form, rates, tick = container.format.name, (stream.average_rate, stream.guessed_rate), stream.time_base
        counted = stream.frames / rates[0] if form == "avi" and rates[0] else 0  # cut off, it has lost its duration
        stated = max((container.duration or 0) / 1e6, float(counted))
        read -= 0.0 if form.startswith("matroska") else (container.start_time or 0) / 1e6
    packets = np.frombuffer(table, np.int64).reshape(-1, 5)[: -1 if torn and len(table) > 5 else None]
    shown, keys = np.flatnonzero(packets[:, 2] == 0), np.flatnonzero(packets[:, 3])
    stamps, order = np.unique(packets[shown, 0], return_index=True)
    if first is None or not stamps.size:
        raise VideoError(f"{path} holds no frame that can be decoded")
    seconds = (stamps - stamps[0]) * float(tick)
    gaps = np.diff(seconds)
    if stated - read > 0.3 + gaps.max(initial=0.0):
        warnings.warn(f"only {read:.1f} of {stated:.1f} s of {path} could be read", VideoWarning, stacklevel=3)
    last = float(packets[shown[order[-1]], 1] * tick) or float(np.median(gaps) if gaps.size else 1 / (rates[0] or 1))
    end, count = float(seconds[-1]) + last, len(seconds)
    # The rate as stated, if that is borne out; that of a GIF with uneven frames is off by up to half of one.
    fps = next((r for r in rates if r and abs(end * r - count) < 0.5 and even(seconds, float(r))), count / end)
    turn, pace = round(first.rotation / 90) * 90 % 360, (float(count / fps), float(fps), count)
    size = (first.width, first.height) if turn % 180 else (first.height, first.width)
    places = shown[order]  # decoding starts with the last key frame that is neither shown nor stored after a frame
    before = np.minimum(np.searchsorted(packets[keys, 0], stamps, "right"), np.searchsorted(keys, places, "right"))
    starts = keys[np.maximum(before - 1, 0)]
    index = np.stack([stamps, places, starts, *packets[starts][:, [0, 4]].T], 1)
    return VideoInfo(str(path), "video", seconds, *pace, *size, turn, _fingerprint(path), (), index)


def decode(info: VideoInfo, plan: SamplePlan, size: int | None, chunk: int = 64) -> Generator[Frames, None, None]:
    """Reads the planned frames, ``chunk`` at a time: RGB, upright, resized to a square of ``size`` pixels, not keeping
    the aspect ratio (None: as large as the first one). Threads make the next ones ready while these are used.

    In place of a damaged frame stands the nearest sound one, with its own time; a warning at the end says how many.
    """
    wanted, shape = plan.frames.tolist(), (size, size) if size else (info.width, info.height)
    once, room = list(dict.fromkeys(wanted)), 3 * shape[0] * shape[1]

    def ready(picture: Any) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
        still = isinstance(picture, Image.Image)
        image = picture if still else Image.fromarray(picture.to_ndarray(format="rgb24"))
        image = image.transpose(Image.Transpose[f"ROTATE_{info.rotation}"]) if info.rotation else image
        image = image if image.size == shape else image.resize(shape, Image.Resampling.BICUBIC)
        return np.asarray(image), not still and picture.is_corrupt

    if info.index is not None:
        found = fetch(Path(info.source), info.index, once, ready, room, info.height * info.width)
    else:
        stills = ((i, image) for i in once if (image := _still(info.files[i])))
        found = in_turn(once, stills, ready, room, info.source, Event())
    with closing(found):
        asked, damaged = -1, 0
        for at in range(0, len(wanted), chunk):
            part = wanted[at : at + chunk]
            pixels, numbers = np.empty((len(part), *shape[::-1], 3), np.uint8), np.empty(len(part), np.int64)
            for i, one in enumerate(part):
                if one != asked:
                    asked, (number, small, corrupt) = one, next(found)
                numbers[i], pixels[i] = number, small
                damaged += number != one or corrupt
            yield Frames(pixels, info.seconds[numbers], plan.duration)
    if damaged:
        text = f"{damaged} of {len(wanted)} frames of {info.source} are damaged: the nearest sound ones stand in"
        warnings.warn(text, VideoWarning, stacklevel=2)
