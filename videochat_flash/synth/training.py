"""The fast path: single frames and clips as the tower sees them, squashed to a square, with a label for every patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videochat_flash.synth.draw import diameters, draw_card, draw_mover, jpeg, mover_at, pointer_mask
from videochat_flash.synth.haystack import procedural
from videochat_flash.synth.scene import Event, Scene
from videochat_flash.synth.world import (
    CHARACTERS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SPEEDS,
    Card,
    Image8,
    Mask,
    Mover,
    Rng,
    pick,
    random_pointer,
    random_style,
    random_what,
)

PATCH = 16  # pixels
COVERED = 0.25  # of a patch's area, from which on it shows the shape
Grid = NDArray[np.int8]


@dataclass(frozen=True)
class Labels:
    """What each patch shows: int8 ``g g`` for a frame, ``f g g`` for a clip; 0 is nothing, else 1 + the index.

    Where a card points lies on the patches of the card, as its other traits do, and on those of the pointer itself,
    which have nothing else: so a pointer is never taken for a card, and a card alone tells where to go on.
    """

    colour: Grid
    shape: Grid
    character: Grid
    direction: Grid
    speed: Grid
    pointer_colour: Grid
    pointer_shape: Grid


@dataclass(frozen=True)
class _Canvas:
    """What is drawn on before the last resize: its size, and the aspect it would have unsquashed."""

    height: int
    width: int
    aspect: float


def card_frame(
    rng: Rng, size: int = 224, haystack: Image8 | None = None, pointers: float = 0.0
) -> tuple[Image8, Labels]:
    """One random frame: 20 % show nothing, 10 % a mover (too short to tell its direction), the rest a card.

    ``haystack`` is a real frame to hide it in, uint8 ``h w 3`` (None: a procedural one). A share of ``pointers`` of the
    cards points somewhere.
    Returns the image, uint8 ``size size 3``, and labels ``g g`` with ``g = size // 16``.
    """
    canvas = _canvas(rng, size, haystack)
    image = _fitted(haystack, canvas) if haystack is not None else _procedural(rng, canvas, 1)[0]
    mask: Mask = np.zeros(image.shape[:2], dtype=np.float32)
    ahead = mask
    draw, what = rng.random(), None
    if draw > 0.2:
        what = _pointing(rng, random_what(rng, draw > 0.9), pointers)
        style = random_style(rng, what, 7.0)
        if isinstance(what, Card):
            ahead = pointer_mask(image, what, style, canvas.aspect)
            image, mask = draw_card(image, what, style, canvas.aspect)
        else:
            image, mask = draw_mover(image, what, style, float(rng.uniform(0, 7)), canvas.aspect)
    image = jpeg(image, int(rng.integers(35, 96)))
    grids = [(covered(mask, size // PATCH), covered(ahead, size // PATCH))]
    return _resized(image, size), _labels([what], grids, seen=False, clip=False)


def card_clip(
    rng: Rng,
    size: int = 224,
    frames: int = 4,
    haystack: Sequence[Image8] | None = None,
    movers: float = 0.4,
    pointers: float = 0.0,
) -> tuple[Image8, Labels]:
    """A clip at one frame a second, as it would lie in a needle video.

    A share of ``movers`` shows a mover; of the others half show one card that starts or ends within the clip or fills
    it, a third two cards in succession, the rest nothing. ``haystack`` holds real frames, uint8 ``h w 3``, one for
    each of the clip's. A share of ``pointers`` of the cards points somewhere.
    Returns the images, uint8 ``frames size size 3``, and labels ``frames g g``.
    """
    canvas = _canvas(rng, size, haystack[0] if haystack is not None else None)
    stack = _procedural(rng, canvas, frames) if haystack is None else [_fitted(one, canvas) for one in haystack]
    scene = Scene(float(frames), 1.0, _clip_events(rng, frames, movers, pointers))
    drawn = [scene.frame(i, one, canvas.aspect) for i, one in enumerate(stack)]
    plain = int(rng.integers(35, 96))
    images = [_resized(image if number >= 0 else jpeg(image, plain), size) for image, _, number in drawn]
    whats = [scene.events[number].what if number >= 0 else None for _, _, number in drawn]
    ahead = [scene.pointer(i, one, canvas.aspect) for i, one in enumerate(stack)]
    grids = [
        (covered(mask, size // PATCH), covered(small, size // PATCH))
        for (_, mask, _), small in zip(drawn, ahead, strict=True)
    ]
    return np.stack(images), _labels(whats, grids, seen=_motion_seen(scene, frames, canvas), clip=True)


def scene_frames(rng: Rng, scene: Scene, size: int = 224) -> Image8:
    """Every frame of a scene over a procedural haystack, squashed: uint8 ``f size size 3``."""
    canvas = _canvas(rng, size, None)
    plain = int(rng.integers(35, 96))
    images = []
    for i, one in enumerate(_procedural(rng, canvas, round(scene.duration * scene.fps))):
        image, _, number = scene.frame(i, one, canvas.aspect)
        images.append(_resized(image if number >= 0 else jpeg(image, plain), size))
    return np.stack(images)


def covered(mask: Mask, grid: int) -> NDArray[np.bool_]:
    """Which patches, ``grid grid``, a coverage mask ``h w`` fills by a quarter or more."""
    bytes_ = Image.fromarray((mask * 255).astype(np.uint8))
    small = np.asarray(bytes_.resize((grid, grid), Image.Resampling.BOX))
    return small >= COVERED * 255


def _canvas(rng: Rng, size: int, haystack: Image8 | None) -> _Canvas:
    """A random aspect and resolution; no side is drawn larger than the squash can show, which keeps it fast."""
    short = rng.uniform(200, 700)
    aspect = float(np.exp(rng.uniform(np.log(0.56), np.log(1.9))))
    if haystack is not None:
        aspect = haystack.shape[1] / haystack.shape[0]
    most = size * rng.uniform(1.0, 1.3)
    height = short if aspect >= 1 else short / aspect
    scale = size / 224
    return _Canvas(round(min(height * scale, most)), round(min(height * aspect * scale, most)), aspect)


def _procedural(rng: Rng, canvas: _Canvas, frames: int) -> list[Image8]:
    stack = procedural(rng, canvas.height, canvas.width)
    first = int(rng.integers(0, 30))
    return [stack.frame(first + i) for i in range(frames)]


def _fitted(frame: Image8, canvas: _Canvas) -> Image8:
    """A real frame on the canvas: all of it, squashed."""
    return np.asarray(Image.fromarray(frame).resize((canvas.width, canvas.height), Image.Resampling.BILINEAR))


def _resized(image: Image8, size: int) -> Image8:
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def _pointing(rng: Rng, what: Card | Mover, pointers: float) -> Card | Mover:
    """A card, by a chance of ``pointers``, as an indicator; at 0 nothing is drawn."""
    if isinstance(what, Card) and pointers and rng.random() < pointers:
        return random_pointer(rng, what)
    return what


def _clip_events(rng: Rng, frames: int, movers: float, pointers: float) -> tuple[Event, ...]:
    """Random events around a clip that starts at 0 s; they may begin before it and end after it."""
    moving = rng.random() < movers
    kind = rng.random()
    taken: list[Card | Mover] = []
    events: list[Event] = []
    if moving:
        length = float(rng.uniform(6, 8))
        spans = [(float(rng.uniform(2 - length, frames - 2)), length)]
    elif kind < 0.12:
        length = float(rng.uniform(3.1, 4)) * frames / 4
        spans = [(float(rng.uniform(frames - 1 - length + 0.01, 0)), length)]
    elif kind < 0.5:
        length = float(rng.uniform(1, 4))
        spans = [(float(rng.uniform(0.5 - length, frames - 0.5)), length)]
    elif kind < 0.85:
        first, second = rng.uniform(1, 4, 2).tolist()
        turn = float(rng.uniform(0.5, frames - 1))  # the first goes
        spans = [(turn - first, first), (turn + float(pick(rng, (0.0, 0.0, rng.uniform(0, 1)))), second)]
    else:
        spans = []
    for start, length in spans:
        what = _pointing(rng, random_what(rng, moving, taken), pointers)
        taken.append(what)
        events.append(Event(round(start, 3), round(length, 3), what, random_style(rng, what, length)))
    return tuple(events)


def _motion_seen(scene: Scene, frames: int, canvas: _Canvas) -> bool:
    """Whether two frames in a row show a mover on one crossing: from fewer no one can tell where it goes."""
    for event in scene.movers:
        if not isinstance(event.what, Mover):
            continue
        across, down = diameters(canvas.height, canvas.width, event.style.scale, canvas.aspect)
        sizes = across / canvas.width, down / canvas.height
        on = [i for i in range(frames) if event.start <= i < event.end]
        laps = [mover_at(event.what, event.style, i - event.start, *sizes)[2] for i in on]
        if any(math.isclose(a, b) for a, b in zip(laps, laps[1:], strict=False)):
            return True
    return False


def _labels(
    whats: Sequence[Card | Mover | None],
    grids: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    *,
    seen: bool,
    clip: bool,
) -> Labels:
    """Labels of frames that each show at most one thing, on the patches that it and its pointer cover."""
    codes = np.zeros((7, len(whats), 1, 1), dtype=np.int8)
    for i, what in enumerate(whats):
        if what is None:
            continue
        codes[0, i], codes[1, i] = 1 + COLOURS.index(what.colour), 1 + SHAPES.index(what.shape)
        if isinstance(what, Card):
            codes[2, i] = 1 + CHARACTERS.index(what.character)
            if what.points is not None:
                codes[5, i], codes[6, i] = 1 + COLOURS.index(what.points.colour), 1 + SHAPES.index(what.points.shape)
        elif seen:
            codes[3, i], codes[4, i] = 1 + DIRECTIONS.index(what.direction), 1 + SPEEDS.index(what.speed)
    own, ahead = (np.stack(some).astype(np.int8) for some in zip(*grids, strict=True))
    full = np.concatenate([codes[:5] * own, codes[5:] * (own | ahead)])
    return Labels(*(full if clip else full[:, 0]))
