"""Makes videos whose frames carry their own number, and the odd ones that people have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS, SIDE = (3, 4), 16  # a frame's number as 12 squares, black or white
HEIGHT, WIDTH = BITS[0] * SIDE, BITS[1] * SIDE


def numbered(number: int, scale: int = 1) -> np.ndarray:
    """A frame that shows ``number`` (below 4096) in squares that survive any codec."""
    bits = [number >> bit & 1 for bit in range(BITS[0] * BITS[1])]
    squares = np.kron(np.reshape(bits, BITS), np.ones((SIDE * scale, SIDE * scale)))
    return np.repeat((30 + squares * 190).astype(np.uint8)[..., None], 3, axis=2)


def read_numbers(pixels: np.ndarray) -> list[int]:
    """The numbers that frames (n h w 3) show."""
    n, h, w = pixels.shape[:3]
    squares = pixels.reshape(n, BITS[0], h // BITS[0], BITS[1], w // BITS[1], 3).mean(axis=(2, 4, 5))
    return [int(sum(1 << i for i, on in enumerate(frame.ravel() > 125) if on)) for frame in squares]


def make(
    path: Path,
    frames: int | Iterable[np.ndarray] = 50,
    fps: float = 25,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 10,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    times: Sequence[float] | None = None,
    shift: float = 0,
    rotation: int = 0,
    sound: bool = False,
) -> Path:
    """Writes a video. ``times``: seconds of every frame, ``shift``: seconds to add to what the muxer is given."""
    pictures = (numbered(i) for i in range(frames)) if isinstance(frames, int) else iter(frames)
    rate = Fraction(fps).limit_denominator(1001)
    tick = Fraction(1, 90000) if times else 1 / rate
    with av.open(str(path), "w", options=container or {}) as out:
        stream = None
        for i, picture in enumerate(pictures):
            if stream is None:
                stream = out.add_stream(codec, rate=rate, options=options or {})
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], pix_fmt
                stream.codec_context.time_base, stream.codec_context.gop_size = tick, gop
                if rotation:
                    stream.set_display_rotation(rotation)
                tone = out.add_stream("aac", rate=8000) if sound else None
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(times[i] / tick) if times else i, tick
            for packet in stream.encode(frame):
                _mux(out, packet, shift)
        for packet in stream.encode(None):
            _mux(out, packet, shift)
        if tone:
            beep = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 2), np.float32), "fltp", "mono")
            beep.sample_rate = 8000
            out.mux([*tone.encode(beep), *tone.encode(None)])
    return path


def _mux(out: av.container.OutputContainer, packet: av.Packet, shift: float) -> None:
    if shift:
        ticks = round(Fraction(shift) / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
    out.mux(packet)


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        beep = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        beep.sample_rate = 8000
        out.mux([*stream.encode(beep), *stream.encode(None)])
    return path


def cut(path: Path, share: float) -> Path:
    """The first ``share`` of a file beside it."""
    data = path.read_bytes()
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


def damage(path: Path, first: float, last: float, seed: int = 0) -> Path:
    """Noise from the share ``first`` to the share ``last`` of a file."""
    data = bytearray(path.read_bytes())
    place = slice(int(len(data) * first), int(len(data) * last))
    data[place] = np.random.default_rng(seed).bytes(place.stop - place.start)
    path.write_bytes(data)
    return path


def spoil(path: Path, numbers: Sequence[int]) -> None:
    """Noise in place of what is stored for these frames (in the order stored)."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        first, size = packets[number]
        data[first : first + size] = np.random.default_rng(number).bytes(size)
    path.write_bytes(data)
