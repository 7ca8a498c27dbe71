"""What can be shown: colours, shapes, characters, directions, speeds, and the random look of one drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Rgb = tuple[int, int, int]
Image8 = NDArray[np.uint8]  # h w 3
Mask = NDArray[np.float32]  # h w, 0 to 1
Rng = np.random.Generator

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
DIGITS = "0123456789"
LETTERS = "ACEFHKLMPT"  # none looks like a digit or like another one
CHARACTERS = tuple(DIGITS + LETTERS)
DIRECTIONS = ("left", "right", "up", "down")
SPEEDS = ("slowly", "fast")
FONTS = ("pixel", "round", "thin", "regular", "bold", "slanted")

STEPS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
PACES: dict[str, tuple[float, float]] = {"slowly": (0.06, 0.09), "fast": (0.16, 0.22)}  # frame sides a second

DIMMEST = {"white": 0.88, "orange": 0.92, "yellow": 0.85}  # darker, they would be a grey, a brown and an olive

# Lowest and highest red, green and blue of each colour: far enough apart that dimming never turns one into another.
RANGES: dict[str, tuple[Rgb, Rgb]] = {
    "red": ((200, 10, 10), (240, 42, 42)),
    "orange": ((242, 118, 0), (255, 145, 22)),
    "yellow": ((238, 218, 0), (255, 242, 60)),
    "green": ((10, 135, 25), (60, 180, 75)),
    "blue": ((10, 55, 200), (45, 105, 245)),
    "purple": ((115, 25, 145), (150, 62, 190)),
    "white": ((240, 240, 240), (255, 255, 255)),
    "black": ((4, 4, 4), (26, 26, 26)),
}


@dataclass(frozen=True)
class Pointer:
    """Colour and shape of the card at which to go on."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Card:
    """A large shape with a character on it, standing still; with a pointer it is an indicator card."""

    colour: str
    shape: str
    character: str
    points: Pointer | None = None


@dataclass(frozen=True)
class Mover:
    """A smaller shape without a character that travels across the frame."""

    colour: str
    shape: str
    direction: str
    speed: str


@dataclass(frozen=True)
class Plate:
    """A background that replaces the whole frame. ``corners`` are the colours at its four corners."""

    corners: tuple[Rgb, Rgb, Rgb, Rgb]
    grain: int  # amplitude of the pixel noise
    blotch: int  # amplitude of the soft noise
    seed: int


@dataclass(frozen=True)
class PointerStyle:
    """How an indicator's pointer looks: a small plain shape at the end of an arrow."""

    angle: float  # degrees from the card's centre, clockwise from the right, before squashing
    gap: float  # between card and pointer, over the frame's short side: the arrow's room
    scale: float  # diameter over the frame's short side
    rotation: float
    body: Rgb
    fatness: float
    rim: Rgb


@dataclass(frozen=True)
class Style:
    """How one card or mover looks. Lengths are in shape diameters unless said otherwise."""

    x: float  # where in the room that is left in the frame, 0 to 1
    y: float
    scale: float  # diameter over the frame's short side
    rotation: float  # degrees
    body: Rgb
    ink: Rgb
    font: str
    height: float  # of the character; drawn smaller where the body of the shape is smaller
    fatness: float  # 0 to 1: inner radius of stars, arms of crosses, width of diamonds
    outline: float  # width, 0 for none
    rim: Rgb  # colour of the outline
    blur: float  # pixels at 224
    brightness: float
    contrast: float
    quality: int  # of the JPEG
    plate: Plate | None
    seed: int  # of the jitter from frame to frame
    pace: float = 0.0  # of a mover, frame sides a second
    seconds: float = 0.0  # a mover's time on screen
    pointer: PointerStyle | None = None  # an indicator's

    def __post_init__(self) -> None:
        if self.font not in FONTS:
            raise ValueError(f"font {self.font!r} is not known: use one of {', '.join(FONTS)}")


Item = TypeVar("Item")


def pick(rng: Rng, items: Sequence[Item]) -> Item:
    """One of the items (``rng.choice`` would turn them into arrays, and is slow)."""
    return items[int(rng.integers(len(items)))]


def luminance(rgb: Rgb) -> float:
    """Brightness as the eye weighs it, 0 to 255."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def distance(first: Rgb, second: Rgb) -> float:
    """Euclidean distance of two colours."""
    return float(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5)


def random_rgb(rng: Rng, low: int = 0, high: int = 255) -> Rgb:
    """A colour with each channel between low and high."""
    red, green, blue = rng.integers(low, high + 1, 3).tolist()
    return red, green, blue


def named_rgb(rng: Rng, colour: str) -> Rgb:
    """A red, green and blue that everyone would call ``colour``."""
    low, high = RANGES[colour]
    red, green, blue = (int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def contrasting(rng: Rng, body: Rgb) -> Rgb:
    """A colour for a character on ``body``: mostly white or near-black, sometimes another strong contrast."""
    dark, light = random_rgb(rng, 0, 30), random_rgb(rng, 235, 255)
    best = max((dark, light), key=lambda rgb: abs(luminance(rgb) - luminance(body)))
    if rng.random() < 0.2:
        other = named_rgb(rng, pick(rng, COLOURS))
        if abs(luminance(other) - luminance(body)) > 130:
            return other
    plain = [rgb for rgb in (dark, light) if abs(luminance(rgb) - luminance(body)) > 110]
    return pick(rng, plain) if plain else best


def random_plate(rng: Rng, body: Rgb) -> Plate:
    """A plain, gradient or noisy plate on which ``body`` stands out."""
    kind: Literal["plain", "gradient", "noisy"] = pick(rng, ("plain", "gradient", "noisy"))
    first = _plate_rgb(rng, body)
    corners = (first, first, first, first)
    if kind == "gradient" or rng.random() < 0.3:
        other = _plate_rgb(rng, body)
        corners = pick(rng, [(first, first, other, other), (first, other, first, other), (first, other, other, first)])
    grain, blotch = (int(rng.integers(4, 28)), int(rng.integers(0, 40))) if kind == "noisy" else (0, 0)
    return Plate(corners, grain, blotch, int(rng.integers(2**31)))


def _plate_rgb(rng: Rng, body: Rgb) -> Rgb:
    """A colour far from ``body``: half the time a grey or pastel, as real walls and slides are."""
    rgb = (128, 128, 128)
    for _ in range(40):
        if rng.random() < 0.5:
            grey = int(rng.integers(0, 256))
            red, green, blue = np.clip(grey + rng.integers(-18, 19, 3), 0, 255).tolist()
            rgb = (red, green, blue)
        else:
            rgb = random_rgb(rng)
        if distance(rgb, body) > 130:
            return rgb
    return rgb


def random_what(rng: Rng, moving: bool, taken: Sequence[Card | Mover] = ()) -> Card | Mover:
    """A card or mover whose colour-and-shape pair and whose character nothing in ``taken`` has."""
    used = {(one.colour, one.shape) for one in taken}
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES if (colour, shape) not in used]
    if not pairs:
        raise ValueError(f"all {len(COLOURS) * len(SHAPES)} pairs of colour and shape are taken: show fewer things")
    colour, shape = pick(rng, pairs)
    if moving:
        return Mover(colour, shape, pick(rng, DIRECTIONS), pick(rng, SPEEDS))
    seen = {one.character for one in taken if isinstance(one, Card)}
    free = [character for character in CHARACTERS if character not in seen]
    if not free:
        raise ValueError(f"all {len(CHARACTERS)} characters are taken: show fewer cards")
    return Card(colour, shape, pick(rng, free))


def random_pointer(rng: Rng, card: Card) -> Card:
    """The card as an indicator that points at any other pair of colour and shape."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES if (colour, shape) != (card.colour, card.shape)]
    return replace(card, points=Pointer(*pick(rng, pairs)))


def random_chain(rng: Rng, hops: int, taken: Sequence[Card | Mover] = ()) -> list[Card]:
    """``hops`` indicator cards, each pointing at the next, and a last card without a pointer; all unlike ``taken``."""
    cards: list[Card] = []
    for _ in range(hops + 1):
        card = random_what(rng, False, [*taken, *cards])
        assert isinstance(card, Card)
        cards.append(card)
    ahead = [Pointer(card.colour, card.shape) for card in cards[1:]]
    return [replace(card, points=pointer) for card, pointer in zip(cards, [*ahead, None], strict=True)]


def random_style(rng: Rng, what: Card | Mover, seconds: float = 0.0) -> Style:
    """A random look for ``what``; ``seconds`` is how long a mover travels."""
    body = named_rgb(rng, what.colour)
    movement: dict[str, Any] = {}
    low, high = 0.50, 0.85
    if isinstance(what, Mover):
        movement = {"pace": float(rng.uniform(*PACES[what.speed])), "seconds": seconds}
        low, high = 0.22, 0.35
    elif what.shape in ("triangle", "star", "diamond", "cross"):
        low = 0.58  # their bodies are smaller, and the character must stay readable
    style = Style(
        x=float(rng.random()),
        y=float(rng.random()),
        scale=float(rng.uniform(low, high)),
        rotation=float(rng.uniform(-12, 12)),
        body=body,
        ink=contrasting(rng, body),
        font=pick(rng, FONTS),
        height=float(rng.uniform(0.42, 0.58)),
        fatness=float(rng.random()),
        outline=float(rng.uniform(0.012, 0.035)) if rng.random() < 0.3 else 0.0,
        rim=contrasting(rng, body),
        blur=float(rng.uniform(0, 1.2)),
        brightness=float(rng.uniform(DIMMEST.get(what.colour, 0.75), 1.2)),
        contrast=float(rng.uniform(0.85, 1.15)),
        quality=int(rng.integers(35, 96)),
        plate=random_plate(rng, body) if rng.random() < 0.5 else None,
        seed=int(rng.integers(2**31)),
        **movement,
    )
    if not isinstance(what, Card) or what.points is None:
        return style
    return replace(
        style,
        scale=float(rng.uniform(0.46 if low == 0.50 else 0.52, 0.54)),  # so that both fit into frames of any aspect
        brightness=max(style.brightness, DIMMEST.get(what.points.colour, 0.0)),
        pointer=_pointer_style(rng, what.points),
    )


def _pointer_style(rng: Rng, pointer: Pointer) -> PointerStyle:
    """A random look for a pointer, off one of the card's corners, where there is room in frames of any aspect."""
    body = named_rgb(rng, pointer.colour)
    return PointerStyle(
        angle=45 + 90 * int(rng.integers(4)) + float(rng.uniform(-11, 11)),
        gap=float(rng.uniform(0.08, 0.10)),
        scale=float(rng.uniform(0.25, 0.28)),
        rotation=float(rng.uniform(-12, 12)),
        body=body,
        fatness=float(rng.random()),
        rim=contrasting(rng, body),
    )
