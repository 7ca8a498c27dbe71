"""Endless procedural videos to hide cards in: scenes that pan, zoom and flicker slowly, with cuts between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from videochat_flash.synth.textures import SMALLEST, muted, texture
from videochat_flash.synth.world import Image8, Rgb, Rng, random_rgb

SHOTS = 64  # different shots; then their lengths repeat, with other pictures


@dataclass(frozen=True)
class Walker:
    """A small thing that crosses a shot: place, size and step per frame in fractions of the frame."""

    x: float
    y: float
    step_x: float
    step_y: float
    wide: float
    high: float
    rgb: Rgb
    round: bool


@dataclass(frozen=True)
class Shot:
    """One picture and how the camera moves over it."""

    picture: Image.Image
    grain: Image.Image | None
    window: float  # of the picture that is seen at first
    zoom: float  # growth of the window per frame
    start: tuple[float, float]
    pan: tuple[float, float]  # per frame, in what is left around the window
    flicker: float
    light: float
    walkers: tuple[Walker, ...]


@dataclass(frozen=True)
class Haystack:
    """A video without end: ``frame(i)`` depends on nothing but the fields and ``i``."""

    seed: int
    height: int
    width: int
    lengths: tuple[int, ...]  # of the shots, in frames

    def frame(self, index: int) -> Image8:
        """Frame ``index``, uint8 ``h w 3``."""
        ends = np.cumsum(self.lengths)
        lap, local = divmod(index, int(ends[-1]))
        number = int(np.searchsorted(ends, local, side="right"))
        local -= int(ends[number]) - self.lengths[number]
        number += lap * len(self.lengths)
        shot = _shot(self.seed, number, self.height, self.width)
        return _look(shot, local, index, self)


def procedural(rng: Rng, height: int, width: int) -> Haystack:
    """A random haystack of frames ``height width 3``; its mean shot length, 4 to 40 frames, is random as well."""
    mean = rng.uniform(4, 40)
    lengths = np.maximum(2, rng.exponential(mean, SHOTS).astype(int))
    return Haystack(int(rng.integers(2**31)), height, width, tuple(lengths.tolist()))


@lru_cache(maxsize=8)  # only a memo: videos are read in order, so each shot is made once
def _shot(seed: int, number: int, height: int, width: int) -> Shot:
    rng = np.random.default_rng((seed, number))
    detail = rng.uniform(0.75, 1.2)
    picture = texture(rng, max(16, round(height * detail)), max(16, round(width * detail)))
    grain = None
    if rng.random() < 0.5:
        spread = rng.uniform(2, 12)
        field = rng.integers(128 - int(spread), 129 + int(spread), (height + 16, width + 16), dtype=np.uint8)
        one = Image.fromarray(field)
        grain = Image.merge("RGB", (one, one, one))
    still = rng.random() < 0.3
    return Shot(
        picture=picture,
        grain=grain,
        window=float(rng.uniform(0.72, 0.95)),
        zoom=0.0 if still else float(rng.normal(0, 0.006)),
        start=(float(rng.random()), float(rng.random())),
        pan=(0.0, 0.0) if still else (float(rng.normal(0, 0.06)), float(rng.normal(0, 0.03))),
        flicker=float(rng.uniform(0, 0.05)),
        light=float(rng.uniform(0.7, 1.5)),
        walkers=tuple(_walker(rng) for _ in range(int(rng.integers(0, 5)))) if rng.random() < 0.5 else (),
    )


def _walker(rng: Rng) -> Walker:
    x, y, step_x, step_y = rng.uniform((0, 0.3, -0.1, -0.03), (1, 1, 0.1, 0.03)).tolist()
    wide, high = rng.uniform(0.02, 0.09, 2).tolist()
    rgb = random_rgb(rng) if rng.random() < 0.5 else muted(rng)
    return Walker(x, y, step_x, step_y, wide, high, rgb, bool(rng.random() < 0.5))


def _bounce(value: float) -> float:
    """Folds any number into 0 to 1, as a camera that turns back at the edge."""
    value %= 2
    return 2 - value if value > 1 else value


def _look(shot: Shot, local: int, index: int, stack: Haystack) -> Image8:
    """What the camera sees of a shot at its frame ``local``."""
    rng = np.random.default_rng((stack.seed, 1, index))
    window = min(1.0, max(0.6, shot.window * (1 + shot.zoom) ** local))
    wide, high = shot.picture.width * window, shot.picture.height * window
    left = _bounce(shot.start[0] + shot.pan[0] * local) * (shot.picture.width - wide)
    top = _bounce(shot.start[1] + shot.pan[1] * local) * (shot.picture.height - high)
    size = stack.width, stack.height
    seen = shot.picture.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + wide, top + high))
    draw = ImageDraw.Draw(seen)
    for one in shot.walkers:
        x, y = (one.x + one.step_x * local) % 1.2 - 0.1, (one.y + one.step_y * local) % 1.2 - 0.1
        box = (
            x * size[0],
            y * size[1],
            (x + one.wide) * size[0] + SMALLEST,
            (y + one.high) * size[1] + SMALLEST,
        )
        (draw.ellipse if one.round else draw.rectangle)(box, fill=one.rgb)
    light = shot.light * (1 + shot.flicker * rng.standard_normal())
    seen = seen.point(np.clip(np.arange(256) * light, 0, 255).astype(int).tolist() * 3)
    if shot.grain is not None:
        dx, dy = rng.integers(0, 17, 2).tolist()
        seen = ImageChops.add(seen, shot.grain.crop((dx, dy, dx + size[0], dy + size[1])), 1, -128)
    return np.asarray(seen)
