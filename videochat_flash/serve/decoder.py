"""The process that reads one untrusted video: confined first, then probe, plan and decode, frames to standard output.

It is started for one file and ends with it. What it says is a length (4 bytes), so many bytes of JSON, and, where that
tells of frames, their seconds (float64) and pixels.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from ..video import Sampling, VideoError, VideoInfo, decode, plan, probe

BATCH = 16  # frames that are told at once: one clip batch
FILES = 64  # that may be open
CPUS = 4  # the decoder starts a thread for each that it may use, and each takes memory
NEW_USER, NEW_NET = 0x10000000, 0x40000000  # of unshare(2): namespaces of its own
PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8")  # how files begin that are pictures; and WebP


class Unfit(Exception):
    """A video that is not taken; its first argument is the code of the refusal."""


def main() -> None:
    """Read what to do from standard input, and do it."""
    ask = json.loads(sys.stdin.buffer.read())
    confine(ask["limits"])
    warnings.simplefilter("ignore")
    out = sys.stdout.buffer
    try:
        run(ask, out)
    except Unfit as error:
        tell(out, {"refused": str(error)})
    except VideoError as error:
        tell(out, {"refused": "undecodable", "detail": str(error)})


def confine(limits: dict[str, int]) -> None:
    """Never again more memory, time or files than these; no file is written, no core is left.

    Nor is there a network, where the system lets a process give it up; where not, nothing is said.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "unshare"):  # Linux, as are the cores below
        library.unshare(NEW_USER | NEW_NET)
    for what, most in (
        (resource.RLIMIT_AS, limits["decode_bytes"]),
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, random.SystemRandom().sample(cpus, min(CPUS, len(cpus))))


def run(ask: dict[str, Any], out: BinaryIO) -> None:
    """Tell what there is, then the frames.

    Raises:
        Unfit: a video beyond a limit, or that ends before it is to be looked at.
        VideoError: one that cannot be read.
    """
    limits, path = ask["limits"], Path(ask["path"])
    image = ask["kind"] == "image"
    if image:
        check_picture(path, limits)
    info = probe(path)
    if (info.kind == "image") != image:
        raise VideoError(f"{path} is no {ask['kind']}")
    sampling = Sampling(**ask["sampling"]) if ask["sampling"] else Sampling()
    check_video(info, limits)
    try:
        wanted = plan(info, sampling)
    except ValueError as error:
        raise Unfit("bad_window") from error
    if len(set(wanted.frames.tolist())) * info.height * info.width > limits["pixels"]:
        raise Unfit("video_too_large")
    tell(out, {"total": len(wanted.frames), "duration": wanted.duration, "source": info.fingerprint})
    for chunk in decode(info, wanted, ask["size"], BATCH):
        told = chunk.seconds.astype("<f8").tobytes() + chunk.pixels.tobytes()
        tell(out, {"frames": len(chunk.seconds)}, told)
    tell(out, {"end": True})


def check_picture(path: Path, limits: dict[str, int]) -> None:
    """By its header, before any pixel of it is decoded; raises VideoError or Unfit."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head.startswith(PICTURES) and not (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        raise VideoError(f"{path} is no picture")
    try:
        with Image.open(path) as image:
            if image.width * image.height > limits["frame_pixels"]:
                raise Unfit("video_too_large")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path} cannot be read: {error}") from None


def check_video(info: VideoInfo, limits: dict[str, int]) -> None:
    """Raises Unfit for a video beyond a limit."""
    if info.duration > limits["video_seconds"] or info.frames > limits["video_frames"]:
        raise Unfit("video_too_long")
    if info.height * info.width > limits["frame_pixels"]:
        raise Unfit("video_too_large")


def tell(out: BinaryIO, head: dict[str, object], told: bytes = b"") -> None:
    """One message."""
    line = json.dumps(head).encode()
    out.write(len(line).to_bytes(4, "big") + line + told)
    out.flush()
