"""Frames -> an H.264 mp4."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .files import beside
from .video import VideoError

SAME_BYTES = {"x264-params": "mbtree=0"}  # with it on, one write in seven came out a little different


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any]]:
    """The library, and a file that is written with it."""
    import av

    options = {"movflags": "faststart", "fflags": "+bitexact"}
    try:  # "file:" lest a name such as "concat:a" be taken for a protocol
        with av.open(f"file:{path.resolve()}", "w", "mp4", None, options) as container:
            yield av, container
    except av.FFmpegError as error:
        raise VideoError(f"{path} cannot be written ({error.strerror})") from error


def write(
    path: str | Path,
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    fps: float,
    *,
    crf: int = 18,
    keys: Container[int] = (),
) -> int:
    """Writes an H.264 mp4, whole or not at all, the same bytes for the same frames. Odd sides grow by 1. Returns n.

    A ``crf`` of 0 loses nothing but colour's finer half; ``keys`` are numbers of frames that are to be key frames.
    """
    path, count, shape = Path(path), 0, (0, 0, 3)
    if not 1e-5 <= fps < math.inf:
        raise ValueError(f"fps must be a number from 0.00001 on, not {fps}")
    rate = Fraction(fps).limit_denominator(100_000)
    with beside(path) as part, _open(part) as (av, out):
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "forced-idr": "1", **SAME_BYTES}
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, rate.numerator)
        for count, frame in enumerate(frames, 1):
            if count == 1:
                shape = (*frame.shape[:2], 3)
                stream.height, stream.width = (side + side % 2 for side in shape[:2])
            if frame.shape != shape or frame.dtype != np.uint8:
                raise ValueError(f"frame {count} is {frame.dtype}{frame.shape}: all must be uint8 (h, w, 3) alike")
            even = np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), "edge")
            picture = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = (count - 1) * rate.denominator, Fraction(1, rate.numerator)
            if count - 1 in keys:
                picture.pict_type = av.video.frame.PictureType.I
            out.mux(stream.encode(picture))
        if not count:
            raise ValueError(f"{path} needs at least one frame")
        out.mux(stream.encode(None))
    return count
