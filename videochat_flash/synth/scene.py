"""A needle video: which cards and movers are shown when, and the drawing of its frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from videochat_flash.synth.draw import draw_card, draw_mover, jpeg, pointer_mask
from videochat_flash.synth.world import (
    Card,
    Image8,
    Mask,
    Mover,
    Rng,
    Style,
    random_chain,
    random_style,
    random_what,
)

MILLI = 1000  # times are whole milliseconds, so that back-to-back events never overlap by a rounding


@dataclass(frozen=True)
class Event:
    """One card or mover on screen from ``start`` for ``length`` seconds."""

    start: float
    length: float
    what: Card | Mover
    style: Style

    @property
    def end(self) -> float:
        """When it is gone, in seconds."""
        return round(self.start + self.length, 3)


@dataclass(frozen=True)
class Scene:
    """A video of ``duration`` seconds with events that never overlap, in the order of time."""

    duration: float
    fps: float
    events: tuple[Event, ...]

    @property
    def cards(self) -> tuple[Event, ...]:
        """The events that show a card."""
        return tuple(event for event in self.events if isinstance(event.what, Card))

    @property
    def movers(self) -> tuple[Event, ...]:
        """The events that show a mover."""
        return tuple(event for event in self.events if isinstance(event.what, Mover))

    def event_at(self, second: float) -> int:
        """Index of the event on screen at a time, or -1."""
        return next((i for i, event in enumerate(self.events) if event.start <= second < event.end), -1)

    def frame(self, index: int, haystack: Image8, aspect: float | None = None) -> tuple[Image8, Mask, int]:
        """Frame ``index`` drawn over a haystack frame.

        ``haystack`` is uint8 ``h w 3``; ``aspect`` is its width over height before squashing (None: its own).
        Returns the image, uint8 ``h w 3``; the shape's coverage, float32 ``h w``; and the event's index, or -1.
        """
        second = index / self.fps
        number = self.event_at(second)
        if number < 0:
            return haystack, np.zeros(haystack.shape[:2], dtype=np.float32), -1
        event = self.events[number]
        if isinstance(event.what, Card):
            style = _jittered(event.style, index)
            image, mask = draw_card(haystack, event.what, style, aspect)
        else:
            image, mask = draw_mover(haystack, event.what, event.style, second - event.start, aspect)
        return jpeg(image, event.style.quality), mask, number

    def pointer(self, index: int, haystack: Image8, aspect: float | None = None) -> Mask:
        """What the pointer shown in frame ``index`` covers, float32 ``h w``; arguments as in ``frame``."""
        number = self.event_at(index / self.fps)
        what = self.events[number].what if number >= 0 else None
        if not isinstance(what, Card) or what.points is None:
            return np.zeros(haystack.shape[:2], dtype=np.float32)
        return pointer_mask(haystack, what, _jittered(self.events[number].style, index), aspect)

    def chain(self, start: int) -> tuple[int, ...]:
        """Indices of the events from ``start`` on as the pointers lead; empty where they lead nowhere or around."""
        seen = [start]
        while True:
            what = self.events[seen[-1]].what
            if not isinstance(what, Card) or what.points is None:
                return tuple(seen)
            goal = what.points
            ahead = [
                i
                for i, event in enumerate(self.events)
                if isinstance(event.what, Card) and (event.what.colour, event.what.shape) == (goal.colour, goal.shape)
            ]
            if len(ahead) != 1 or ahead[0] in seen:
                return ()
            seen.append(ahead[0])


def make_scene(rng: Rng, frames: int, fps: float = 1.0, cards: int = 1, movers: int = 0) -> Scene:
    """A random scene: cards of 1 to 4 s and movers of 6 to 8 s in random order, at random times.

    Every pair of colour and shape, and every character, occurs once. Each event is long enough to be in a frame.
    """
    order = rng.permutation(np.arange(cards + movers) >= cards).tolist()
    shown: list[Card | Mover] = []
    events: list[Event] = []
    for start, length, moving in zip(*_times(rng, frames, fps, order), order, strict=True):
        shown.append(random_what(rng, moving, shown))
        events.append(Event(start, length, shown[-1], random_style(rng, shown[-1], length)))
    return Scene(frames / fps, fps, tuple(events))


def make_chains(
    rng: Rng, frames: int, fps: float = 1.0, hops: int = 1, chains: int = 2, cards: int = 0, movers: int = 0
) -> Scene:
    """A random scene with ``chains`` chains of ``hops`` indicator cards and a last card: one to follow and decoys.

    All are drawn alike, and their cards, further ``cards`` without pointers and ``movers`` come in random order. Every
    pair of colour and shape, and every character, occurs once, on cards and movers; a pointer only repeats a pair.
    """
    shown: list[Card | Mover] = []
    for _ in range(chains):
        shown += random_chain(rng, hops, shown)
    for moving in [False] * cards + [True] * movers:
        shown.append(random_what(rng, moving, shown))
    shown = [shown[i] for i in rng.permutation(len(shown)).tolist()]
    starts, lengths = _times(rng, frames, fps, [isinstance(what, Mover) for what in shown])
    events = [
        Event(start, length, what, random_style(rng, what, length))
        for start, length, what in zip(starts, lengths, shown, strict=True)
    ]
    return Scene(frames / fps, fps, tuple(events))


def whole_seconds(scene: Scene) -> Scene:
    """The scene with every event from its first whole second on screen to its first one gone.

    At one frame a second the same frames show the same things, and they alone tell when.
    """
    events = []
    for event in scene.events:
        start = math.ceil(event.start)
        length = round(min(math.ceil(event.end), scene.duration) - start, 3)
        seconds = length if isinstance(event.what, Mover) else event.style.seconds
        events.append(replace(event, start=float(start), length=length, style=replace(event.style, seconds=seconds)))
    return replace(scene, events=tuple(events))


def _times(rng: Rng, frames: int, fps: float, order: Sequence[bool]) -> tuple[list[float], list[float]]:
    """Random starts and lengths, in seconds, of cards and (True) movers that come in this order and never overlap."""
    movers = sum(order)
    cards = len(order) - movers
    least = [6 * MILLI if moving else max(MILLI, math.ceil(MILLI / fps)) for moving in order]
    most = [8 * MILLI if moving else max(4 * MILLI, low) for moving, low in zip(order, least, strict=True)]
    total = math.floor(frames / fps * MILLI)
    if sum(least) > total:
        raise ValueError(
            f"{cards} cards and {movers} movers need {sum(least) / MILLI:g} s, "
            f"but {frames} frames at {fps:g} a second last {total / MILLI:g} s: ask for more frames"
        )
    lengths = [int(rng.integers(low, high + 1)) for low, high in zip(least, most, strict=True)]
    if sum(lengths) > total:
        lengths = least
    gaps = np.sort(rng.integers(0, total - sum(lengths) + 1, len(order))).tolist()
    passed = np.cumsum([0, *lengths])[:-1].tolist()
    starts = [(gap + before) / MILLI for gap, before in zip(gaps, passed, strict=True)]
    return starts, [length / MILLI for length in lengths]


def _jittered(style: Style, index: int) -> Style:
    """The style as it is in one frame: almost still, as a card in a real video."""
    rng = np.random.default_rng((style.seed, index))
    x, y, turn, grow = rng.uniform(-1, 1, 4).tolist()
    return replace(
        style,
        x=min(1.0, max(0.0, style.x + 0.004 * x)),
        y=min(1.0, max(0.0, style.y + 0.004 * y)),
        rotation=style.rotation + 0.25 * turn,
        scale=style.scale * (1 + 0.004 * grow),
    )
