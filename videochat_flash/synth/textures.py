"""Large still pictures for haystacks: noise, patterns, clutter, and rough streets, rooms and warehouses.

Each maker takes ``(rng, height, width)`` and returns an RGB image. Nothing in them looks like a card: small things are
under a fifth of the frame, large ones are soft, muted or long.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from videochat_flash.synth.world import Rgb, Rng, pick, random_rgb

SMALLEST = 2  # pixels


def fractal(rng: Rng, side: int, steepness: float) -> NDArray[np.float64]:
    """1/f noise, ``side side``, mean 0 and deviation 1; the steeper, the smoother."""
    along = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    frequency = np.hypot(*along)
    frequency[0, 0] = np.inf
    shape = frequency.shape
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * frequency**-steepness
    noise = np.fft.irfft2(spectrum, s=(side, side))
    return np.asarray(noise / (noise.std() + 1e-12))


def muted(rng: Rng, low: int = 30, high: int = 225, spread: int = 30) -> Rgb:
    """A greyish colour, as most surfaces have."""
    grey = int(rng.integers(low, high))
    red, green, blue = np.clip(grey + rng.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return red, green, blue


def enlarge(small: NDArray[np.float64], height: int, width: int) -> Image.Image:
    """A small picture, ``a b 3`` with values around 0 to 255, spread softly over a whole image."""
    pixels = np.clip(small, 0, 255).astype(np.uint8)
    smooth = Image.Resampling.BILINEAR if pixels.shape[0] > 32 else Image.Resampling.BICUBIC
    return Image.fromarray(pixels).resize((width, height), smooth)


def noise(rng: Rng, height: int, width: int) -> Image.Image:
    """Coloured 1/f noise."""
    side, steepness = 128, rng.uniform(0.7, 1.8)
    fields = np.stack([fractal(rng, side, steepness) for _ in range(3)], axis=-1)
    common = fields[..., :1] * rng.uniform(10, 50)
    return enlarge(rng.uniform(50, 200, 3) + common + fields * rng.uniform(2, 35), height, width)


def blobs(rng: Rng, height: int, width: int) -> Image.Image:
    """Soft coloured regions, like a photograph out of focus."""
    rows, columns = rng.integers(2, 10, 2).tolist()
    return enlarge(rng.uniform(0, 255, (rows, columns, 3)) * rng.uniform(0.6, 1), height, width)


def gradient(rng: Rng, height: int, width: int) -> Image.Image:
    """Two to four colours that run into one another."""
    return enlarge(rng.uniform(0, 255, pick(rng, [(2, 1, 3), (1, 2, 3), (2, 2, 3)])), height, width)


def pattern(rng: Rng, height: int, width: int) -> Image.Image:
    """Stripes or checks."""
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    turn, period = rng.uniform(0, np.pi), rng.uniform(0.03, 0.16) * min(height, width)
    cos, sin = float(np.cos(turn) / period), float(np.sin(turn) / period)
    index = np.floor(x * cos + y * sin).astype(np.int32)
    if rng.random() < 0.5:
        index += np.floor(y * cos - x * sin).astype(np.int32)
    index %= int(rng.integers(2, 4))
    maker = muted if rng.random() < 0.6 else random_rgb
    return Image.fromarray(np.array([maker(rng) for _ in range(3)], dtype=np.uint8)[index])


def crowd(rng: Rng, height: int, width: int) -> Image.Image:
    """Many small rectangles, ellipses and lines in any colours."""
    image = pick(rng, (gradient, blobs))(rng, height, width)
    draw, short = ImageDraw.Draw(image), min(height, width)
    count = int(rng.integers(20, 130))
    most = short * rng.uniform(0.05, 0.14)
    spots = rng.uniform(-0.05, 1.0, (count, 2)) * (width, height)
    sizes = rng.uniform(SMALLEST, most, (count, 2))
    kinds = rng.integers(0, 4, count)
    colours = rng.integers(0, 256, (count, 3))
    for (x, y), (wide, high), kind, colour in zip(
        spots.tolist(), sizes.tolist(), kinds.tolist(), colours.tolist(), strict=True
    ):
        box, rgb = (x, y, x + wide, y + high), tuple(colour)
        if kind == 0:
            draw.rectangle(box, fill=rgb)
        elif kind == 1:
            draw.ellipse(box, fill=rgb)
        elif kind == 2:
            draw.line(box, fill=rgb, width=1 + int(wide) % 4)
        else:
            draw.polygon([(x, y), (x + wide, y + high / 3), (x + wide / 2, y + high)], fill=rgb)
    return image


def writing(rng: Rng, height: int, width: int) -> Image.Image:
    """Lines of small text-like clutter, as on posters, screens and shelves."""
    image = pick(rng, (gradient, blobs, noise))(rng, height, width)
    draw, short = ImageDraw.Draw(image), min(height, width)
    for _ in range(int(rng.integers(3, 14))):
        font = ImageFont.load_default(int(rng.integers(7, max(9, short // 16))))
        words = "".join(chr(code) for code in rng.integers(48, 91, int(rng.integers(3, 16))))
        spot = (float(rng.uniform(-0.1, 0.8) * width), float(rng.uniform(0, 0.95) * height))
        draw.text(spot, words, fill=random_rgb(rng), font=font)
    return image


def street(rng: Rng, height: int, width: int) -> Image.Image:
    """Sky, buildings with windows, a road, trees, cars and people."""
    horizon = rng.uniform(0.3, 0.6) * height
    sky = np.array([random_rgb(rng, 90, 220), muted(rng, 150, 250)], dtype=np.float64)[:, None]
    image = enlarge(sky, height, width)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, horizon, width, height), fill=muted(rng, 50, 170))
    left = 0.0
    while left < width:
        wide = rng.uniform(0.08, 0.3) * width
        _building(rng, draw, (left, horizon * rng.uniform(0.0, 0.9), left + wide, horizon * 1.05))
        left += wide * rng.uniform(0.9, 1.3)
    if rng.random() < 0.7:
        middle = rng.uniform(0.2, 0.8) * width
        road = [(middle - 0.03 * width, horizon), (middle + 0.03 * width, horizon), (1.1 * width, height)]
        draw.polygon([*road, (-0.1 * width, height)], fill=muted(rng, 40, 110, 8))
        for part in (0.15, 0.35, 0.6, 0.9):
            y = horizon + part * (height - horizon)
            draw.line((middle, y, middle, y + part * 0.1 * height), fill=(220, 220, 200), width=1 + int(4 * part))
    for _ in range(int(rng.integers(2, 12))):
        pick(rng, (_person, _car, _tree))(rng, draw, horizon, height, width)
    return image


def _building(rng: Rng, draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    left, top, right, foot = box
    draw.rectangle(box, fill=muted(rng, 50, 210, 35))
    pane, step = muted(rng, 30, 230, 20), rng.uniform(6, 18)
    for y in np.arange(top + step / 2, foot - step, step).tolist():
        for x in np.arange(left + step / 2, right - step, step).tolist():
            draw.rectangle((x, y, x + step * 0.5, y + step * 0.55), fill=pane)


def _depth(rng: Rng, horizon: float, height: int) -> tuple[float, float]:
    """A spot on the ground (its y) and how large things are there, 0 to 1."""
    near = rng.uniform(0.1, 1.0)
    return horizon + near * (height - horizon) * 0.9, near


def _person(rng: Rng, draw: ImageDraw.ImageDraw, horizon: float, height: int, width: int) -> None:
    foot, near = _depth(rng, horizon, height)
    tall, x = (0.06 + 0.24 * near) * height, rng.uniform(0, 1) * width
    skin = pick(rng, ((224, 180, 150), (140, 95, 65), (90, 60, 45), (240, 205, 180)))
    draw.rectangle((x - tall * 0.1, foot - tall * 0.45, x + tall * 0.1, foot), fill=random_rgb(rng, 10, 120))
    draw.rectangle((x - tall * 0.14, foot - tall * 0.82, x + tall * 0.14, foot - tall * 0.42), fill=random_rgb(rng))
    draw.ellipse((x - tall * 0.08, foot - tall, x + tall * 0.08, foot - tall * 0.82), fill=skin)


def _car(rng: Rng, draw: ImageDraw.ImageDraw, horizon: float, height: int, width: int) -> None:
    foot, near = _depth(rng, horizon, height)
    long, x = (0.06 + 0.22 * near) * width, rng.uniform(-0.1, 1) * width
    high, rgb = long * 0.22, random_rgb(rng)
    draw.rectangle((x, foot - high, x + long, foot), fill=rgb)
    draw.polygon(
        [(x + long * 0.2, foot - high), (x + long * 0.3, foot - 1.8 * high), (x + long * 0.75, foot - 1.8 * high)]
        + [(x + long * 0.9, foot - high)],
        fill=muted(rng, 30, 120),
    )
    for part in (0.2, 0.8):
        cx, wheel = x + part * long, long * 0.09
        draw.ellipse((cx - wheel, foot - wheel, cx + wheel, foot + wheel), fill=(20, 20, 20))


def _tree(rng: Rng, draw: ImageDraw.ImageDraw, horizon: float, height: int, width: int) -> None:
    foot, near = _depth(rng, horizon, height)
    tall, x = (0.1 + 0.35 * near) * height, rng.uniform(0, 1) * width
    draw.rectangle((x - tall * 0.03, foot - tall, x + tall * 0.03, foot), fill=(80, 60, 40))
    for _ in range(9):
        dx, dy = rng.uniform(-0.16, 0.16) * tall, rng.uniform(-0.16, 0.16) * tall
        size, green = 0.11 * tall, (int(rng.integers(20, 90)), int(rng.integers(60, 130)), int(rng.integers(10, 60)))
        draw.ellipse((x + dx - size, foot - tall + dy - size, x + dx + size, foot - tall + dy + size), fill=green)


def room(rng: Rng, height: int, width: int) -> Image.Image:
    """A room in perspective with a long board, rows of desks or shelves, lamps and people."""
    image = Image.new("RGB", (width, height), muted(rng, 90, 230))
    draw = ImageDraw.Draw(image)
    x0, x1 = rng.uniform(0.1, 0.35) * width, rng.uniform(0.65, 0.9) * width
    y0, y1 = rng.uniform(0.1, 0.3) * height, rng.uniform(0.5, 0.7) * height
    draw.polygon([(0, 0), (width, 0), (x1, y0), (x0, y0)], fill=muted(rng, 120, 245, 12))
    draw.polygon([(0, height), (width, height), (x1, y1), (x0, y1)], fill=muted(rng, 50, 190))
    draw.polygon([(0, 0), (x0, y0), (x0, y1), (0, height)], fill=muted(rng, 80, 220))
    draw.polygon([(width, 0), (x1, y0), (x1, y1), (width, height)], fill=muted(rng, 80, 220))
    if rng.random() < 0.5:  # a board: long and low, so that it is no card
        paint, foot = muted(rng, 40, 200), y0 + (y1 - y0) * 0.45
        if x0 + 8 < x1 - 8 and y0 + 8 < foot:  # in a tiny room there is no space for one
            draw.rectangle((x0 + 8, y0 + 8, x1 - 8, foot), fill=paint)
    for part in (0.2, 0.5, 0.8):
        draw.line((part * width, 0, x0 + part * (x1 - x0), y0), fill=muted(rng, 180, 255, 8), width=2)
    if rng.random() < 0.5:
        _shelves(rng, draw, (0, 0, x0, height))
        _shelves(rng, draw, (x1, 0, float(width), height))
    for _ in range(int(rng.integers(4, 18))):
        foot, near = _depth(rng, y1, height)
        long, x = (0.05 + 0.16 * near) * width, rng.uniform(-0.1, 1) * width
        draw.rectangle((x, foot - long * 0.2, x + long, foot - long * 0.1), fill=muted(rng, 40, 200, 40))
        draw.line((x + 2, foot - long * 0.1, x + 2, foot + long * 0.3), fill=(50, 50, 50), width=2)
    for _ in range(int(rng.integers(0, 5))):
        _person(rng, draw, y1, height, width)
    return image


def _shelves(rng: Rng, draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    """Rows of small boxes, as in a warehouse."""
    left, top, right, foot = box
    step = (foot - top) / rng.uniform(5, 10)
    for y in np.arange(top, foot, step).tolist():
        x = left
        while x < right:
            wide = rng.uniform(0.25, 0.9) * step
            draw.rectangle((x, y + step * rng.uniform(0.2, 0.6), min(x + wide, right), y + step), fill=random_rgb(rng))
            x += wide * 1.15
        draw.line((left, y, right, y), fill=(60, 60, 70), width=2)


def warehouse(rng: Rng, height: int, width: int) -> Image.Image:
    """Shelves from side to side over a plain floor."""
    image = Image.new("RGB", (width, height), muted(rng, 50, 170))
    draw = ImageDraw.Draw(image)
    floor = rng.uniform(0.6, 1.0) * height
    _shelves(rng, draw, (0, 0, float(width), floor))
    for _ in range(int(rng.integers(0, 5))):
        pick(rng, (_person, _car))(rng, draw, floor * 0.9, height, width)
    return image


MAKERS = (noise, blobs, gradient, pattern, crowd, writing, street, street, room, room, warehouse, crowd)


def photograph(rng: Rng, image: Image.Image) -> Image.Image:
    """Makes a drawing look less drawn: uneven light, surface texture, and now and then a blur or little colour."""
    if rng.random() < 0.75:
        field = fractal(rng, 64, rng.uniform(0.5, 1.6)) * rng.uniform(4, 26) + rng.uniform(170, 240)
        light = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
        image = ImageChops.multiply(image, Image.merge("RGB", (light, light, light)))
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.4, 2.5))))
    if rng.random() < 0.15:
        image = Image.blend(image, image.convert("L").convert("RGB"), float(rng.uniform(0.4, 1.0)))
    return image


def texture(rng: Rng, height: int, width: int) -> Image.Image:
    """One random picture of any kind, or two kinds blended."""
    image = pick(rng, MAKERS)(rng, height, width)
    if rng.random() < 0.15:
        image = Image.blend(image, noise(rng, height, width), float(rng.uniform(0.2, 0.5)))
    return photograph(rng, image)
