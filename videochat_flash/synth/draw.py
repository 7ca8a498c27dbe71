"""Draws cards and movers into frames: stencils on a crop, pasted in C, so that a drawing costs about a millisecond."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from videochat_flash.synth.glyphs import MARGIN, stencil
from videochat_flash.synth.world import (
    STEPS,
    Card,
    Image8,
    Mask,
    Mover,
    Plate,
    PointerStyle,
    Rgb,
    Style,
    distance,
    luminance,
)

Points = NDArray[np.float64]
SAMPLES = 2  # supersampling of a shape's edge
REACH = 0.61  # diameters from the centre to the furthest point of a turned and outlined triangle
DARK, LIGHT = (12, 12, 12), (245, 245, 245)
TRIANGLE_FOOT = 0.36  # where a triangle's character stands, in diameters below the centre


@dataclass(frozen=True)
class _Place:
    """Where a shape lies in a frame of pixels: its centre, and its diameter along x and along y."""

    x: float
    y: float
    across: float
    down: float


def draw_card(frame: Image8, card: Card, style: Style, aspect: float | None = None) -> tuple[Image8, Mask]:
    """Draws a card.

    ``frame`` is uint8 ``h w 3``; ``aspect`` is the width over height that it has before squashing (None: its own).
    Returns the image, uint8 ``h w 3``, and how far the shape covers each pixel, float32 ``h w``; a pointer is not part
    of it.
    """
    if card.points is not None:
        return _draw(frame, card, style, *_places(frame, card, style, aspect))
    across, down = _diameters(frame, style, aspect)
    height, width = frame.shape[:2]
    x, y = _between(style.x, across / width), _between(style.y, down / height)
    place = _Place(x * width, y * height, across, down)
    return _draw(frame, card, style, place)


def pointer_mask(frame: Image8, card: Card, style: Style, aspect: float | None = None) -> Mask:
    """How far an indicator's pointer, without the arrow, covers each pixel, float32 ``h w``; a plain card has none."""
    height, width = frame.shape[:2]
    if card.points is None:
        return np.zeros((height, width), dtype=np.float32)
    _, place = _places(frame, card, style, aspect)
    return _coverage(_paint(Image.new("RGB", (width, height)), card.points.shape, _pointed(style), place, None))


def draw_mover(
    frame: Image8, mover: Mover, style: Style, progress: float, aspect: float | None = None
) -> tuple[Image8, Mask]:
    """Draws a mover ``progress`` seconds after it started. Arguments and results as in ``draw_card``."""
    across, down = _diameters(frame, style, aspect)
    height, width = frame.shape[:2]
    x, y, _ = mover_at(mover, style, progress, across / width, down / height)
    return _draw(frame, mover, style, _Place(x * width, y * height, across, down))


def mover_at(mover: Mover, style: Style, progress: float, across: float, down: float) -> tuple[float, float, int]:
    """Where a mover's centre is, in fractions of the frame, and how often it has left and entered again.

    ``across`` and ``down`` are its diameter in fractions of the frame's width and height.
    """
    step_x, step_y = STEPS[mover.direction]
    size = across if step_x else down
    low, high = 0.36 * size, 1 - 0.36 * size  # mostly inside
    # Start where the whole path fits; a fast one that cannot starts at its edge and comes in again.
    room = max(0.0, high - low - style.pace * style.seconds)
    along = (style.x if step_x else style.y) * room + style.pace * progress
    laps = math.floor(along / (high - low))
    along -= laps * (high - low)
    along = low + along if step_x + step_y > 0 else high - along
    if step_x:
        return along, _between(style.y, down), laps
    return _between(style.x, across), along, laps


def _between(part: float, size: float) -> float:
    """A centre, in fractions of a frame's side, ``part`` of the way over the room in which the shape stays inside."""
    return REACH * size + part * (1 - 2 * REACH * size)


def diameters(height: int, width: int, scale: float, aspect: float | None) -> tuple[float, float]:
    """A shape's diameter along x and y, in pixels of a frame that had ``aspect`` before it was squashed."""
    aspect = width / height if aspect is None else aspect
    return (scale * width / aspect, scale * height) if aspect >= 1 else (scale * width, scale * height * aspect)


def jpeg(image: Image8, quality: int) -> Image8:
    """The image as a JPEG of this quality would show it; uint8 ``h w 3`` to the same."""
    store = io.BytesIO()
    Image.fromarray(image).save(store, "JPEG", quality=quality)
    return np.asarray(Image.open(store))


def _diameters(frame: Image8, style: Style, aspect: float | None) -> tuple[float, float]:
    return diameters(frame.shape[0], frame.shape[1], style.scale, aspect)


def _places(frame: Image8, card: Card, style: Style, aspect: float | None) -> tuple[_Place, _Place]:
    """Where an indicator and its pointer lie. They are laid out in short sides of the frame before squashing."""
    height, width = frame.shape[:2]
    unit_x, unit_y = diameters(height, width, 1.0, aspect)
    pointer = _look(style)
    near, beyond = _edges(card, style)
    far = max(near, style.scale / 2) + pointer.gap + max(beyond, pointer.scale / 2)
    turn = math.radians(pointer.angle)
    step_x, step_y = far * math.cos(turn), far * math.sin(turn)
    x = _beside(style.x, width / unit_x, style.scale, step_x, pointer.scale)
    y = _beside(style.y, height / unit_y, style.scale, step_y, pointer.scale)
    large = style.scale * unit_x, style.scale * unit_y
    small = pointer.scale * unit_x, pointer.scale * unit_y
    return _Place(x * unit_x, y * unit_y, *large), _Place((x + step_x) * unit_x, (y + step_y) * unit_y, *small)


def _beside(part: float, room: float, size: float, step: float, small: float) -> float:
    """A card's centre, ``part`` of the way over the room in which it and a small shape a ``step`` off stay inside."""
    low = REACH * max(size, small - step / REACH)
    high = room - REACH * max(size, small + step / REACH)
    return low + part * (high - low)


def _edges(card: Card, style: Style) -> tuple[float, float]:
    """How far an indicator's edge and its pointer's edge are from their centres where they face one another."""
    assert card.points is not None
    angle = _look(style).angle
    pointed = _pointed(style)
    return _edge(card.shape, style, angle), _edge(card.points.shape, pointed, angle + 180)


def _edge(shape: str, style: Style, angle: float) -> float:
    """The way from a shape's centre to its edge at an angle, over the frame's short side."""
    points = turned(shape, style)
    turn = math.radians(angle)
    along = points @ (math.cos(turn), math.sin(turn))
    aside = points @ (-math.sin(turn), math.cos(turn))
    after_along, after_aside = np.roll(along, -1), np.roll(aside, -1)
    crossed = (aside >= 0) != (after_aside >= 0)
    step = aside[crossed] / (aside - after_aside)[crossed]
    return style.scale * float((along[crossed] + step * (after_along - along)[crossed]).max())


def _look(style: Style) -> PointerStyle:
    if style.pointer is None:
        raise ValueError("an indicator card needs a style with a pointer: take random_style of the card itself")
    return style.pointer


def _pointed(style: Style) -> Style:
    """The card's style as it is for its pointer."""
    own = {name: getattr(_look(style), name) for name in ("scale", "rotation", "body", "fatness", "rim")}
    return replace(style, **own)


def _draw(
    frame: Image8, what: Card | Mover, style: Style, place: _Place, ahead: _Place | None = None
) -> tuple[Image8, Mask]:
    """Draws one thing, and first what lies under it: the plate, and ``ahead`` of an indicator its pointer."""
    height, width = frame.shape[:2]
    image = Image.fromarray(frame) if style.plate is None else _plate(style.plate, height, width)
    card = what if isinstance(what, Card) else None
    if card is not None and card.points is not None and ahead is not None:
        _arrow(image, card, style, place, ahead)
        _paint(image, card.points.shape, _pointed(style), ahead, None)
    covered = _paint(image, what.shape, style, place, card)
    image = image.point(_tones(style.brightness, style.contrast) * 3)
    return np.asarray(image), _coverage(covered)


def _coverage(covered: Image.Image) -> Mask:
    return np.asarray(covered, dtype=np.float32) / np.float32(255)


def _arrow(image: Image.Image, card: Card, style: Style, place: _Place, ahead: _Place) -> None:
    """Pastes an arrow from the card's middle, which hides its tail, to just before its pointer."""
    unit_x, unit_y = place.across / style.scale, place.down / style.scale
    step = np.array([(ahead.x - place.x) / unit_x, (ahead.y - place.y) / unit_y])
    far = float(np.hypot(*step))
    along, aside = step / far, np.array([-step[1], step[0]]) / far
    tip = far - _edges(card, style)[1] - 0.01
    for wide, rgb in ((0.016, LIGHT), (0.0, DARK)):  # a rim, and on it the arrow
        half, wing, neck = 0.016 + wide, 0.05 + 1.6 * wide, tip - 0.075 - wide
        outline = [
            (0.0, half),
            (neck, half),
            (neck, wing),
            (tip + wide, 0.0),
            (neck, -wing),
            (neck, -half),
            (0.0, -half),
        ]
        points = np.array([a * along + b * aside for a, b in outline]) * (unit_x, unit_y) + (place.x, place.y)
        cut = Image.new("L", (image.width * SAMPLES, image.height * SAMPLES))
        ImageDraw.Draw(cut).polygon([(x, y) for x, y in (points * SAMPLES).tolist()], fill=255)
        blur = style.blur * min(image.size) / 224
        soft = cut.reduce(SAMPLES)
        image.paste(rgb, (0, 0), soft.filter(ImageFilter.GaussianBlur(blur)) if blur > 0.15 else soft)


def _paint(image: Image.Image, shape: str, style: Style, place: _Place, card: Card | None) -> Image.Image:
    """Pastes a shape, and the card's character if there is one; returns how far the shape covers each pixel."""
    width, height = image.size
    blur = style.blur * min(height, width) / 224
    pad = 2 + math.ceil(3 * blur)
    left, top = math.floor(place.x - REACH * place.across) - pad, math.floor(place.y - REACH * place.down) - pad
    size = math.ceil(2 * REACH * place.across) + 2 * pad, math.ceil(2 * REACH * place.down) + 2 * pad
    local = _Place(place.x - left, place.y - top, place.across, place.down)

    under = image.crop((max(left, 0), max(top, 0), min(left + size[0], width), min(top + size[1], height)))
    outline, rim = _rim(style, under)
    body = _shape(shape, style, local, size, 0.0)
    outer = _shape(shape, style, local, size, outline) if outline else body
    layers = [(rim, outer)] if outline else []
    layers.append((style.body, body))
    if card is not None:
        layers.append((style.ink, _character(card, style, local, size)))
    covered = Image.new("L", (width, height))
    covered.paste(255, (left, top, left + size[0], top + size[1]), outer)
    for rgb, cut in layers:
        soft = cut.filter(ImageFilter.GaussianBlur(blur)) if blur > 0.15 else cut
        image.paste(rgb, (left, top, left + size[0], top + size[1]), soft)
    return covered


def _tones(brightness: float, contrast: float) -> list[int]:
    """The value that each of the 256 becomes."""
    values = ((np.arange(256) - 128) * contrast + 128) * brightness
    tones: list[int] = np.clip(values.round(), 0, 255).astype(int).tolist()
    return tones


def _rim(style: Style, under: Image.Image) -> tuple[float, Rgb]:
    """Width and colour of the outline; one is added where the body would melt into what is under it."""
    if style.outline:
        return style.outline, style.rim
    red, green, blue = np.asarray(under.resize((1, 1), Image.Resampling.BOX))[0, 0].tolist()
    if distance((red, green, blue), style.body) > 110:
        return 0.0, style.rim
    return 0.03, DARK if luminance(style.body) > 110 else LIGHT


def _plate(plate: Plate, height: int, width: int) -> Image.Image:
    """The plate as an image: its corner colours spread out, soft noise, and grain."""
    rng = np.random.default_rng(plate.seed)
    if not (plate.blotch or plate.grain) and len(set(plate.corners)) == 1:
        return Image.new("RGB", (width, height), plate.corners[0])
    corners = np.array(plate.corners, dtype=np.float64).reshape(2, 2, 1, 3)
    ramp = np.linspace(1, 0, 12)
    down, across = ramp[:, None, None], ramp[None, :, None]
    top = corners[0, 0] * across + corners[0, 1] * (1 - across)
    bottom = corners[1, 0] * across + corners[1, 1] * (1 - across)
    small = top * down + bottom * (1 - down)
    small = small + rng.uniform(-plate.blotch, plate.blotch + 1e-9, small.shape)
    image = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    if not plate.grain:
        return image
    grain = rng.integers(0, 2 * plate.grain + 1, (height, width, 1), dtype=np.uint8)
    noisy = np.asarray(image).astype(np.int16) + grain - plate.grain
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _shape(shape: str, style: Style, place: _Place, size: tuple[int, int], outline: float) -> Image.Image:
    """How far the shape covers each pixel of a crop, ``outline`` diameters wider on each side."""
    pixels = (turned(shape, style) * (place.across, place.down) + (place.x, place.y)) * SAMPLES
    points = [(x, y) for x, y in pixels.tolist()]
    image = Image.new("L", (size[0] * SAMPLES, size[1] * SAMPLES))
    draw = ImageDraw.Draw(image)
    draw.polygon(points, fill=255)
    if outline:
        wide = max(2, round(2 * outline * SAMPLES * (place.across * place.down) ** 0.5))
        draw.line([*points, points[0], points[1]], fill=255, width=wide, joint="curve")
    return image.reduce(SAMPLES)


def turned(shape: str, style: Style) -> Points:
    """A shape's corners as ``corners`` gives them, turned as the style wants it."""
    turn = math.radians(style.rotation)
    return corners(shape, style.fatness) @ np.array(
        [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    )


def corners(shape: str, fatness: float) -> Points:
    """A shape's corners, ``n 2`` (x, y), in diameters around its centre, y downwards."""
    if shape == "circle":
        turns = np.linspace(0, 2 * math.pi, 72, endpoint=False)
        return 0.5 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    if shape == "square":
        return np.array([(-0.43, -0.43), (0.43, -0.43), (0.43, 0.43), (-0.43, 0.43)])
    if shape == "triangle":
        return np.array([(0.0, -0.5), (0.5, 0.42), (-0.5, 0.42)])
    if shape == "star":
        turns = np.arange(10) * math.pi / 5
        radii = np.where(np.arange(10) % 2, _star_inner(fatness), 0.52)
        return np.stack([np.sin(turns) * radii, -np.cos(turns) * radii], axis=1)
    if shape == "diamond":
        side = _diamond_half(fatness)
        return np.array([(0.0, -0.52), (side, 0.0), (0.0, 0.52), (-side, 0.0)])
    if shape == "cross":
        arm, far = _cross_arm(fatness), 0.47
        quarter = [(arm, -far), (arm, -arm), (far, -arm), (far, arm), (arm, arm), (arm, far)]
        return np.array(quarter + [(-x, -y) for x, y in quarter])
    raise ValueError(f"shape {shape!r} is not known")


def _star_inner(fatness: float) -> float:
    return 0.25 + 0.04 * fatness


def _cross_arm(fatness: float) -> float:
    return 0.19 + 0.04 * fatness


def _diamond_half(fatness: float) -> float:
    return 0.34 + 0.08 * fatness  # never as wide as high: turned, it would be a square


def tallest(shape: str, fatness: float, ratio: float) -> float:
    """The tallest character, ``ratio`` times as wide as high, that a shape's body holds; in diameters."""
    if shape == "circle":
        return 0.92 / math.hypot(1, ratio)
    if shape == "square":
        return 0.76 / max(1, ratio)
    if shape == "triangle":
        # It stands on a line near the foot; its head touches the sides, which are (y + 0.5) / 1.84 from the middle.
        return min(0.46, 0.94 * (TRIANGLE_FOOT + 0.5) / (1 + 0.92 * ratio))
    if shape == "star":
        return 1.9 * _star_inner(fatness) / math.hypot(1, ratio)
    if shape == "diamond":
        return 1.86 / (1 / 0.52 + ratio / _diamond_half(fatness))
    return min(0.6, 1.6 * _cross_arm(fatness) / ratio)


def _character(card: Card, style: Style, place: _Place, size: tuple[int, int]) -> Image.Image:
    """How far the card's character covers each pixel of a crop."""
    rough = stencil(card.character, style.font, style.height * max(place.across, place.down))
    wide, high = rough.width - 2 * MARGIN, rough.height - 2 * MARGIN
    tall = min(style.height, tallest(card.shape, style.fatness, wide / high))
    middle = TRIANGLE_FOOT - tall / 2 if card.shape == "triangle" else 0.0
    # From a pixel of the crop back to one of the stencil: undo the squash, the turn, and the character's own size.
    grow, turn = high / tall, math.radians(style.rotation)
    cos, sin = math.cos(turn) * grow, math.sin(turn) * grow
    a, b = cos / place.across, sin / place.down
    d, e = -sin / place.across, cos / place.down
    c = rough.width / 2 - a * place.x - b * place.y
    f = rough.height / 2 - middle * grow - d * place.x - e * place.y
    return rough.transform(size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
