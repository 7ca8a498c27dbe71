"""Source -> info -> plan -> frames. Knows time, not models: seconds are presentation times, the first frame at 0.

``probe`` reads when every frame appears without decoding it, ``plan`` chooses frames (pure), ``decode`` yields chunks
of them. Frames are numbered in the order shown. Only ``_open`` knows the library, and loads it when it opens a file.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import uuid
import warnings
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .config import PIXEL_MEAN, PIXEL_STD, VisionConfig

CLIP = VisionConfig.clip_frames  # plans are whole clips of this many frames
GROUP = 8  # one frame a second is counted in groups of this many (4 in training)
MOST_FRAMES = 50_000
STILLS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,gif,flv,asf,ogg"  # no playlists: they open other files and addresses
TICK = 1e-3  # seconds; containers that count in milliseconds round by up to this
REORDER = 16  # no codec holds back more frames than this
UNKNOWN = -(2**63)  # stands for a stamp that a packet lacks
THREADED = 1920 * 1088  # pixels; threads that each decode a frame also each hold one: only up to this size


class VideoError(ValueError):
    """A source that cannot be read."""


class VideoWarning(UserWarning):
    """A source that was read, but not all of it; or a number that was rounded."""


@dataclass(frozen=True, eq=False)
class _Index:
    """Where in the file the frames are. Packets are numbered in the order stored; stamps are times in its own ticks."""

    stamps: Int64[np.ndarray, " n"]  # of every frame
    packets: Int64[np.ndarray, " n"]  # of every frame
    keys: Int64[np.ndarray, "2 k"]  # packets that decoding can start at, and their stamps
    counted: bool  # as in AVI: decoded frames carry no true stamps, only their order


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
    fingerprint: str  # sha256 of size and both ends of the file, or of names and sizes in the folder
    files: tuple[str, ...] = field(default=(), repr=False)  # the pictures, in order
    index: _Index | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Sampling:
    """Which frames to take from the window between ``start`` and ``end`` (seconds).

    ``paper``: about 1 a second between the bounds; the maximum wins over the minimum, and frames repeat only to fill a
    clip. ``reference``: as the authors' code; the minimum wins. ``fps``: a fixed rate. ``count``: a fixed number.
    """

    policy: Literal["paper", "reference", "fps", "count"] = "paper"
    max_frames: int = 512
    min_frames: int = 64
    fps: float | None = None
    num_frames: int | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        fps, count, begin = self.fps, self.num_frames, self.start or 0.0
        for wrong, text in (
            (self.policy not in ("paper", "reference", "fps", "count"), f"policy {self.policy!r} is not known"),
            (self.max_frames < CLIP, f"max_frames must be at least {CLIP} (one clip), not {self.max_frames}"),
            (self.max_frames > MOST_FRAMES, f"max_frames must be at most {MOST_FRAMES}, not {self.max_frames}"),
            (self.min_frames < 0, f"min_frames must be at least 0, not {self.min_frames}"),
            ((fps is None) == (self.policy == "fps"), f"fps {fps} with policy {self.policy!r}: use both or neither"),
            ((count is None) == (self.policy == "count"), f"num_frames {count} goes with policy 'count' and none else"),
            (fps is not None and not fps > 0, f"fps must be above 0, not {fps}"),
            (count is not None and count < 1, f"num_frames must be at least 1, not {count}"),
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
        pixels, seconds = self.pixels, self.seconds
        return f"Frames(pixels={pixels.dtype}{pixels.shape}, seconds={seconds.shape}, duration={self.duration:g})"


def spread(frames: int, count: int) -> list[int]:
    """The middles of ``count`` equal parts of ``frames`` frames; the last one repeated where there are fewer frames."""
    edges = np.linspace(0, frames, min(count, frames) + 1).astype(int)
    middles: list[int] = ((edges[:-1] + edges[1:] - 1) // 2).tolist()
    return middles + middles[-1:] * (count - len(middles))


def at_rate(frames: int, duration: float, fps: float) -> list[int]:
    """A frame every ``1 / fps`` seconds from half a step on; none if the video is shorter than that."""
    times = np.arange(0.5 / fps, duration + 0.5 / fps, 1 / fps)
    # Half frames round to even, and the quotient alone is not exact enough to say which are halves.
    indices = np.around(times * round(frames / duration, 9)).astype(int)
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
            return [indices[i] for i in spread(len(indices), most)]
        return (indices + indices[-1:] * CLIP)[: max(CLIP, len(indices) // CLIP * CLIP)]
    least = math.ceil(sampling.min_frames / CLIP) * CLIP
    if least > frames:
        least = frames // group * group
    count = max(least, min(most, group * max(1, int(duration // group))))
    if sampling.policy == "paper":
        count = min(count, most, math.ceil(frames / CLIP) * CLIP)
    return spread(frames, count)


def _window(info: VideoInfo, sampling: Sampling) -> tuple[int, int, tuple[float, float]]:
    """The first frame of the window, the first one after it, and the window in seconds."""
    if sampling.start is None and sampling.end is None:
        return 0, info.frames, (0.0, info.duration)
    start, end = sampling.start or 0.0, math.inf if sampling.end is None else sampling.end
    if start > 0 and start >= info.duration:
        raise ValueError(f"start {start:g} s is beyond the end of {info.source}, {info.duration:g} s: start earlier")
    end = min(end, info.duration - 0.1 * (sampling.policy == "reference"))
    first = int(np.searchsorted(info.seconds, start + TICK, "right")) - 1
    if np.all(np.abs(info.seconds * info.fps - np.arange(info.frames)) < 0.25):  # a constant rate: whole frames
        last = first + int((end - start + TICK) * info.fps)
    else:
        last = int(np.searchsorted(info.seconds, end - TICK))
    return first, min(max(last, first + 1), info.frames), (start, max(start, end))


def plan(info: VideoInfo, sampling: Sampling, *, group: int = GROUP) -> SamplePlan:
    """Chooses frames by time: those shown in the middle of even shares of the window.

    An end beyond the video is cut; a start beyond it raises ValueError.
    """
    for name, number in (("max_frames", sampling.max_frames), ("num_frames", sampling.num_frames or CLIP)):
        if number % CLIP:
            text = f"{name} {number} is not whole clips of {CLIP} frames: {max(CLIP, number // CLIP * CLIP)} are used"
            warnings.warn(text, VideoWarning, stacklevel=2)
    first, last, window = _window(info, sampling)
    count = last - first
    span = float((info.seconds[last] if last < info.frames else info.duration) - info.seconds[first])
    rounded = span + TICK * (count < info.frames)  # part of a video ends on a rounded time
    chosen = np.array([0] if info.kind == "image" else sample_indices(count, rounded, sampling, group=group))
    times = info.seconds[first] + (chosen + 0.5) / count * span
    numbers = np.clip(np.searchsorted(info.seconds, times, "right") - 1, first, last - 1).astype(np.int64)
    return SamplePlan(numbers, info.seconds[numbers], window, window[1] - window[0])


@contextmanager
def _open(path: Path, mode: Literal["r", "w"] = "r") -> Iterator[tuple[Any, Any, Any]]:
    """The library, a file opened with it, and (to read) the first stream in it of moving pictures."""
    import av

    stream, kind = None, None if mode == "r" else "mp4"
    options = {"format_whitelist": FORMATS} if mode == "r" else {"movflags": "faststart", "fflags": "+bitexact"}
    try:  # "file:" lest a name such as "concat:a" be taken for a protocol
        container = av.open(f"file:{path.resolve()}", mode, kind, container_options=options)
    except av.FFmpegError as error:
        text = "whole files of mp4, mov, mkv, webm, avi, ts and gif can"
        raise VideoError(f"{path} cannot be opened as a video ({error.strerror}): {text}") from error
    with container:
        if mode == "r":
            cover = av.stream.Disposition.attached_pic  # of a song
            stream = next((one for one in container.streams.video if not one.disposition & cover), None)
            if stream is None:
                raise VideoError(
                    f"{path} holds no video, only {', '.join(s.type for s in container.streams) or 'nothing'}"
                )
        yield av, container, stream


def _demux(av: Any, container: Any, *streams: Any) -> Iterator[Any]:
    """Packets to the end of the file, or to where it breaks off."""
    with suppress(av.FFmpegError):
        yield from (packet for packet in container.demux(*streams) if packet.size)


def _decoded(av: Any, stream: Any, packet: Any) -> list[Any]:
    """What comes out of the decoder for a packet, or for None all it holds back; nothing for a damaged packet."""
    with suppress(av.FFmpegError):
        return list(stream.codec_context.decode(packet))
    return []


def probe(source: str | Path) -> VideoInfo:
    """What a source holds: a video, a picture, or a folder of pictures (one a second, by the numbers that end names).

    Raises VideoError for a source that is not there or cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        return _probe_stills(path, "folder", [file for file in path.iterdir() if file.suffix.lower() in STILLS])
    if not path.is_file():
        raise VideoError(f"{path} does not exist: give a video, a picture or a folder of pictures")
    if not path.stat().st_size:
        raise VideoError(f"{path} is empty (0 bytes)")
    return _probe_stills(path, "image", [path]) if path.suffix.lower() in STILLS else _probe_video(path)


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(b"%d\n" % size + file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()


def _natural(path: Path) -> tuple[int, list[str | int]]:
    """Orders names by the number at their end, then as text with numbers in it."""
    number = re.search(r"\d+$", path.stem)
    return int(number[0]) if number else -1, [int(w) if w.isdecimal() else w for w in re.split(r"(\d+)", path.name)]


def _still(path: str) -> Image.Image | None:
    """A picture, upright and RGB; None where it is damaged."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _probe_stills(path: Path, kind: Literal["image", "folder"], found: list[Path]) -> VideoInfo:
    files = sorted(found, key=_natural)
    first = next((image for image in map(_still, map(str, files)) if image), None)
    if first is None:
        raise VideoError(f"{path} holds no picture that can be read ({', '.join(STILLS)})")
    names = "".join(f"{file.name} {file.stat().st_size}\n" for file in files)
    digest = hashlib.sha256(names.encode()).hexdigest() if kind == "folder" else _fingerprint(path)
    seconds, size = np.arange(len(files), dtype=np.float64), (len(files), first.height, first.width)
    duration = float(len(files)) if kind == "folder" else 0.0
    return VideoInfo(str(path), kind, seconds, duration, 1.0, *size, 0, digest, tuple(map(str, files)))


def _index(packets: Int64[np.ndarray, "packets 5"], avi: bool) -> _Index:
    """Sorts packets (pts, dts, duration, whether an edit hides it, whether a key frame) into the order shown."""
    pts, dts, _, hidden, key = packets.T
    counted = avi or bool(np.any(pts == UNKNOWN))
    stamps = dts if counted else pts
    shown = np.flatnonzero((hidden == 0) & (stamps != UNKNOWN))
    sorted_stamps, order = np.unique(stamps[shown], return_index=True)
    keys = np.flatnonzero(np.where(np.arange(len(key)), key, 1))  # the first one for want of any
    return _Index(sorted_stamps, shown[order], np.stack([keys, stamps[keys]]), counted)


def _pace(seconds: Float64[np.ndarray, " n"], end: float, rates: Iterable[Fraction | None]) -> tuple[float, float]:
    """Duration and rate: exactly as stated where the frames bear out a stated rate, or else as measured."""
    for rate in filter(None, rates):
        if abs(end * rate - len(seconds)) < 0.5 and len(seconds) / rate > seconds[-1]:
            return float(len(seconds) / rate), float(rate)
    return end, len(seconds) / end


def _probe_video(path: Path) -> VideoInfo:
    table, first, read, torn = array("q"), None, 0.0, False
    with _open(path) as (av, container, stream):
        for packet in _demux(av, container):
            stamps = [UNKNOWN if stamp is None else stamp for stamp in (packet.pts, packet.dts)]
            if max(stamps) > UNKNOWN:
                read = max(read, float((max(stamps) + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index == stream.index:
                table.extend((*stamps, packet.duration or 0, packet.is_discard, packet.is_keyframe))
                torn = packet.is_corrupt
                first = first or next(iter(_decoded(av, stream, packet)), None)
        first = first or next(iter(_decoded(av, stream, None)), None)
        avi, rates, tick = container.format.name == "avi", (stream.average_rate, stream.guessed_rate), stream.time_base
        stated = (container.duration or 0) / 1e6
        if avi and rates[0]:  # cut off, it has lost its index, and with it the duration
            stated = max(stated, float(stream.frames / rates[0]))
        read -= 0.0 if "matroska" in container.format.name else (container.start_time or 0) / 1e6
    packets = np.frombuffer(table, np.int64).reshape(-1, 5)
    index = _index(packets[: -1 if torn and len(packets) > 1 else None], avi)
    if first is None or not len(index.stamps):
        raise VideoError(f"{path} holds no frame that can be decoded")
    seconds = (index.stamps - index.stamps[0]) * float(tick)
    gap = np.diff(seconds).max(initial=0.0)
    if stated - read > 0.3 + gap:
        warnings.warn(f"only {read:.1f} of {stated:.1f} s of {path} could be read", VideoWarning, stacklevel=3)
    last = float(packets[index.packets[-1], 2] * tick) or gap or float(1 / (rates[0] or 1))
    turn = round(first.rotation / 90) * 90 % 360
    size = (first.width, first.height) if turn % 180 else (first.height, first.width)
    pace = _pace(seconds, float(seconds[-1]) + last, rates)
    return VideoInfo(str(path), "video", seconds, *pace, len(seconds), *size, turn, _fingerprint(path), (), index)


def _needed(index: _Index, wanted: list[int]) -> Bool[np.ndarray, " packets"]:
    """Which packets to decode: for every wanted frame those from the key frame before it to its own. Ends with a no."""
    stamps, last = index.stamps[wanted], index.packets[wanted] + REORDER * index.counted
    keys = np.searchsorted(index.keys[1], stamps, "right") - 1
    steps = np.zeros(int(index.packets.max()) + 2, np.int64)
    np.add.at(steps, index.keys[0][np.maximum(keys, 0)], 1)
    np.add.at(steps, np.minimum(last + 1, len(steps) - 1), -1)
    return np.cumsum(steps) > 0


def _moving(info: VideoInfo, index: _Index, wanted: list[int]) -> Iterator[tuple[int, Any]]:
    """Number and frame of whatever is decoded on the way to the wanted ones, in the order shown.

    Other packets are read over: at 2 us each that costs less than the index of a file can be trusted for seeking.
    """
    needed, start, count = _needed(index, wanted), 0, itertools.count()
    with _open(Path(info.source)) as (av, container, stream):
        stream.thread_type = "AUTO" if info.height * info.width <= THREADED else "SLICE"
        for place, packet in enumerate(itertools.islice(_demux(av, container, stream), len(needed) - 1)):
            if needed[place] and not needed[place - 1]:
                stream.codec_context.flush_buffers()
                start, count = packet.pts, itertools.count(int(np.searchsorted(index.packets, place)))
            for fed in (packet, None)[not needed[place] : 2 - needed[place + 1]]:  # None: what is held back
                for frame in _decoded(av, stream, fed):
                    number = next(count) if index.counted else int(np.searchsorted(index.stamps, frame.pts or 0))
                    # What is shown before the key frame that it follows in the file lacks its other half.
                    if index.counted or (frame.pts in index.stamps[number : number + 1] and frame.pts >= start):
                        yield number, frame


def _nearest(wanted: list[int], found: Iterator[tuple[int, Any]], source: str) -> Iterator[tuple[int, Any]]:
    """For every wanted frame the found one that is nearest to it, which is itself unless the source is damaged."""
    before: tuple[int, Any] | None = None
    after = next(found, None)
    for number in wanted:
        while after and after[0] < number:
            before, after = after, next(found, None)
        if before and not (after and after[0] - number <= number - before[0]):
            yield before
        elif after:
            yield after
        else:
            raise VideoError(f"{source} holds no frame that can be decoded")


def _rgb(picture: Any, rotation: int, shape: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    image: Image.Image = picture if isinstance(picture, Image.Image) else picture.to_image()
    if rotation:
        image = image.transpose(Image.Transpose[f"ROTATE_{rotation}"])
    return np.asarray(image if image.size == shape else image.resize(shape, Image.Resampling.BICUBIC))


def decode(info: VideoInfo, plan: SamplePlan, size: int | None, chunk: int = 64) -> Iterator[Frames]:
    """Reads the planned frames, ``chunk`` at a time: RGB, upright, resized to a square of ``size`` pixels (bicubic, the
    aspect ratio is not kept), or for None as large as the first one.

    In place of a damaged frame stands the nearest sound one, with its own time; a warning at the end says how many.

    Raises VideoError where nothing could be decoded.
    """
    wanted, files = plan.frames.tolist(), info.files
    stills = ((i, image) for i in dict.fromkeys(wanted) if (image := _still(files[i])) is not None)
    nearest = _nearest(wanted, _moving(info, info.index, wanted) if info.index else stills, info.source)
    shape, damaged = (size, size) if size else (info.width, info.height), 0
    for at in range(0, len(wanted), chunk):
        part = wanted[at : at + chunk]
        pixels, numbers = np.empty((len(part), *shape[::-1], 3), np.uint8), np.empty(len(part), np.int64)
        for i, (number, picture) in enumerate(itertools.islice(nearest, len(part))):
            numbers[i] = number
            pixels[i] = pixels[i - 1] if i and number == numbers[i - 1] else _rgb(picture, info.rotation, shape)
            damaged += number != part[i] or (info.kind == "video" and picture.is_corrupt)
        yield Frames(pixels, info.seconds[numbers], plan.duration)
    if damaged:
        text = f"{damaged} of {len(wanted)} frames of {info.source} are damaged: the nearest sound ones stand in"
        warnings.warn(text, VideoWarning, stacklevel=2)


def normalise(pixels: UInt8[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n 3 h w"]:
    """What the towers see: x / 255, less the mean, over the standard deviation."""
    levels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    table = (levels - np.array(PIXEL_MEAN, np.float32)) / np.array(PIXEL_STD, np.float32)
    return np.stack([table[pixels[..., channel], channel] for channel in range(3)], axis=1)


def write(path: str | Path, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float, *, crf: int = 18) -> int:
    """Writes an H.264 mp4, whole or not at all, and returns the number of frames. Odd sides grow by one pixel.

    Raises ValueError for no frames, frames of several shapes, or a rate that is not a positive number.
    """
    path, frames = Path(path), iter(frames)
    first = next(frames, None)
    if first is None or not 0 < fps < math.inf:
        raise ValueError(f"{path} needs at least one frame and a positive fps, not {fps}")
    rate, count = Fraction(fps).limit_denominator(100_000), 0
    pad = [(0, first.shape[0] % 2), (0, first.shape[1] % 2), (0, 0)]
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with _open(partial, "w") as (av, container, _):
            options = {"crf": str(crf), "preset": "veryfast", "threads": "2"}  # the bytes depend on the threads
            stream = container.add_stream("libx264", rate=rate, options=options)
            stream.height, stream.width = (first.shape[i] + pad[i][1] for i in (0, 1))
            stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, rate.numerator)
            for count, frame in enumerate(itertools.chain([first], frames), 1):
                if frame.shape != first.shape or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
                    raise ValueError(f"frame {count} is {frame.dtype}{frame.shape}: all must be uint8 (h, w, 3) alike")
                picture = av.VideoFrame.from_ndarray(np.pad(frame, pad, "edge"), format="rgb24")
                picture.pts, picture.time_base = (count - 1) * rate.denominator, Fraction(1, rate.numerator)
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def contact_sheet(frames: Frames, columns: int = 8, width: int = 160, aspect: float = 16 / 9) -> Image.Image:
    """All frames as thumbnails ``width`` pixels wide, each over its time (minutes:seconds)."""
    height, gap, text = round(width / aspect), max(4, width // 20), max(10, width // 11)
    columns, line, font = max(1, min(columns, len(frames.pixels))), round(text * 1.5), ImageFont.load_default(text)
    rows = math.ceil(len(frames.pixels) / columns)
    sheet = Image.new("RGB", (gap + columns * (width + gap), gap + rows * (height + line + gap)), (24, 26, 30))
    draw = ImageDraw.Draw(sheet)
    for i, (pixels, second) in enumerate(zip(frames.pixels, frames.seconds, strict=True)):
        left, top = gap + i % columns * (width + gap), gap + i // columns * (height + line + gap)
        sheet.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS), (left, top))
        minutes, tenths = divmod(round(second * 10), 600)
        where = (left + width / 2, top + height + line / 2)
        draw.text(where, f"{minutes}:{tenths / 10:04.1f}", (214, 218, 224), font, anchor="mm")
    return sheet
