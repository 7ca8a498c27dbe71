"""A record's video or images -> pixels for the tower. Knows files and times, not conversations."""

from __future__ import annotations

import errno
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from ..bucket import fetched, is_url
from ..config import PIXEL_MEAN
from ..video import (
    CLIP,
    SamplePlan,
    Sampling,
    VideoError,
    VideoInfo,
    VideoWarning,
    decode,
    even,
    plan,
    probe,
    sample_indices,
)
from .recipe import Video

CUT = 0.1  # seconds before the end of a video at which a window ends at the latest
PADDING = (int(PIXEL_MEAN[0] * 255), int(PIXEL_MEAN[1] * 255), int(PIXEL_MEAN[2] * 255))


class Unusable(ValueError):
    """A record that cannot be learned from: ``reason`` is a short category, ``detail`` says what and where."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, eq=False)
class Pixels:
    """What the tower is shown of one video or image.

    Attributes:
        clips: RGB levels; F = 1 for an image, whose first tile shows all of it where it is cut into tiles.
        grid: rows and columns of an image's tiles behind the first; None where it is not cut.
        duration: seconds of the video or of the window; 0 for an image.
    """

    clips: UInt8[Tensor, "C F h w 3"]
    grid: tuple[int, int] | None
    duration: float


def read_video(path: str, video: Video, size: int, start: float | None, end: float | None, frame_fps: float) -> Pixels:
    """The frames of a video, of a folder of frames or of a GIF; of a window of it where start and end are given.

    Raises:
        Unusable: missing, damaged even in part, no video, or nothing in the window.
    """
    with _blamed(path), _fetched(path) as local, warnings.catch_warnings():
        warnings.simplefilter("error", VideoWarning)  # what was cut off or stands in for another frame teaches wrongly
        info = probe(local)
        if info.kind == "image":
            raise Unusable("no video", f"{path} is a picture: name it under 'image'")
        if info.kind == "folder":
            seconds = info.seconds / frame_fps
            info = replace(info, seconds=seconds, duration=info.frames / frame_fps, fps=frame_fps)
        chosen, at = plan_video(info, video, start, end), 0
        pixels = np.empty((len(chosen.frames), size, size, 3), np.uint8)
        for part in decode(info, chosen, size):
            pixels[at : at + len(part.pixels)] = part.pixels
            at += len(part.pixels)
    return Pixels(torch.from_numpy(pixels).unflatten(0, (-1, CLIP)), None, chosen.duration)


def sampling_of(video: Video) -> Sampling:
    """The recipe's rule in the terms of ``video.sample_indices``."""
    if video.sampling == "middle":
        return Sampling("count", max_frames=video.max_frames, num_frames=video.max_frames)
    return Sampling("reference", max_frames=video.max_frames, min_frames=video.min_frames)


def plan_video(info: VideoInfo, video: Video, start: float | None, end: float | None) -> SamplePlan:
    """The frames to read: the counting rule over the whole video, or over the frames from start to end.

    Windows are cut as the reference does it, to the number of frames; where frames do not follow each other evenly, as
    ``video.plan`` does, by their times.

    Raises:
        Unusable: nothing in the window.
    """
    sampling = sampling_of(video)
    if start is None or end is None:
        return plan(info, sampling, group=CLIP)
    begin, stop = max(0.0, start), min(info.duration - CUT, end)
    count = int((stop - begin) * info.fps)
    if count < 1:
        text = f"{start:g} s to {end:g} s holds no frame of {info.source}, which lasts {info.duration:.2f} s"
        raise Unusable("empty window", text)
    if not even(info.seconds, info.fps):
        return plan(info, replace(sampling, start=begin, end=stop), group=CLIP)
    offsets = sample_indices(count, count / info.fps, sampling, group=CLIP)
    frames = np.minimum(int(begin * info.fps) + np.array(offsets, np.int64), info.frames - 1)
    return SamplePlan(frames, info.seconds[frames], (begin, stop), stop - begin)


# -- images ------------------------------------------------------------------------------------------------------------


def read_images(paths: Sequence[str], size: int, tiles: int) -> list[Pixels]:
    """Images as squares of ``size`` pixels.

    A single one is stretched to one square, and where ``tiles`` is above 1 also cut into at most that many along a
    side; several are padded to a square each.

    Raises:
        Unusable: missing or damaged.
    """
    if len(paths) > 1:
        return [_still(_padded(open_image(path)), size) for path in paths]
    return [_tiled(open_image(path), size, tiles) if tiles > 1 else _still(open_image(path), size) for path in paths]


def open_image(path: str) -> Image.Image:
    """A picture, upright and RGB."""
    with _blamed(path), _fetched(path) as local, Image.open(local) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def best_tiles(width: int, height: int, size: int, most: int) -> tuple[int, int]:
    """Rows and columns of tiles that keep most pixels of an image, then waste fewest; the first of equals, in the
    reference's order."""
    best, chosen = (-1, 0), (1, 1)
    for columns in range(1, most + 1):
        for rows in range(1, most + 1):
            wide, high = columns * size, rows * size
            scale = min(wide / width, high / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            if (kept, kept - wide * high) > best:
                best, chosen = (kept, kept - wide * high), (rows, columns)
    return chosen


def raster(tokens: Float[Tensor, "n M E"], rows: int, columns: int) -> Float[Tensor, "n M E"]:
    """Tokens of a tiled image in the order that the language model reads them: those of the first tile, which shows
    the whole image, then row by row over all the others, each taken for a square of tokens.

    Raises:
        ValueError: another number of tiles, or of tokens that are no square.
    """
    tiles, count, width = tokens.shape
    side = math.isqrt(count)
    if side**2 != count or tiles != 1 + rows * columns:
        raise ValueError(
            f"{rows}x{columns} tiles and the whole image need {1 + rows * columns} squares of tokens, "
            f"not {tiles} times {count} tokens"
        )
    parts = tokens[1:].reshape(rows, columns, side, side, width).transpose(1, 2)
    return torch.cat([tokens[:1], parts.reshape(rows * columns, count, width)])


def _still(image: Image.Image, size: int) -> Pixels:
    return Pixels(_squares(image, size, 1, 1), None, 0.0)


def _tiled(image: Image.Image, size: int, most: int) -> Pixels:
    rows, columns = best_tiles(*image.size, size, most)
    return Pixels(torch.cat([_squares(image, size, 1, 1), _squares(image, size, rows, columns)]), (rows, columns), 0.0)


def _squares(image: Image.Image, size: int, rows: int, columns: int) -> UInt8[Tensor, "C 1 h w 3"]:
    """An image stretched over rows and columns of squares, row by row."""
    wide = np.asarray(image.resize((columns * size, rows * size), Image.Resampling.BICUBIC))
    tiles = wide.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, 1, size, size, 3)
    return torch.from_numpy(tiles.copy())


def _padded(image: Image.Image) -> Image.Image:
    """In the middle of a square of the mean colour."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), PADDING)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


# -- files -------------------------------------------------------------------------------------------------------------


@contextmanager
def _fetched(path: str) -> Iterator[Path]:
    """The local file or folder, or a copy of a URL's for as long as it is read."""
    local = path if is_url(path) else str(Path(path).expanduser())
    if not is_url(path) and not Path(local).exists():
        raise FileNotFoundError(errno.ENOENT, "there is no such file or folder", path)
    if not is_url(path) and not os.access(local, os.R_OK):
        raise PermissionError(errno.EACCES, "it may not be read", path)
    with fetched(local) as place:
        yield place


@contextmanager
def _blamed(path: str) -> Iterator[None]:
    """Errors of reading ``path`` by category."""
    try:
        yield
    except Unusable:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unusable("missing file", f"{path}: {error.strerror or error}") from error
    except (VideoError, VideoWarning, SyntaxError, Image.DecompressionBombError) as error:
        raise Unusable("damaged", str(error)) from error
    except OSError as error:  # Pillow says with a bare one that a picture is damaged, the system adds a number
        raise Unusable("unreadable file" if error.errno else "damaged", f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise Unusable("damaged", f"{path}: {error}") from error
