"""Conversations that are drawn instead of read: the small world of ``synth`` as a source of a recipe.

Conversation i of a world follows from (seed, i) alone: any worker, any restart, the same pixels and words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..prompt import Turn
from ..synth import (
    CARD_KINDS,
    CHARACTERS,
    COLOURS,
    DIRECTIONS,
    HOPS,
    SHAPES,
    SPEEDS,
    Card,
    Event,
    Labels,
    Mover,
    Pointer,
    Question,
    Scene,
    ask,
    card_clip,
    card_frame,
    random_style,
)
from ..synth.world import Image8
from .teach import Taught, taught

Span = tuple[int, int]
HELD = 512  # pictures or clips that are looked at again before they are forgotten
LOOK = random_style(np.random.default_rng(0), Card("red", "star", "7"))  # of what is only talked about


@dataclass(frozen=True)
class World:
    """A ``[data.world]`` table: what is drawn, and how much of it makes an epoch."""

    kind: Literal["", "frames", "clips", "videos"] = ""  # single pictures, single clips, videos spliced from pieces
    count: int = 0  # conversations
    movers: float = 0.4  # share of clips with a moving shape
    pointers: float = 0.3  # share of cards that point to another
    talk: float = 1.0  # share of pictures and clips with a conversation; the others only teach the tower
    looks: int = 1  # at each picture or clip, soon behind each other: to draw one costs more than to look at it
    patches: int = 0  # that are looked at of one without, those that show something first; 0: all
    clips: Span = (3, 6)  # of a video: fewest and most
    skipped: Span = (0, 0)  # more of them that show nothing and are left out: their time passes, their places stay free
    cards: Span = (2, 4)
    moving: Span = (0, 1)  # moving shapes of a video
    hops: Span = (0, 0)  # indicator cards of each chain; 0 is no chain
    chains: int = 2  # of a video, as long as each other: one to follow, the others decoys
    characters: str = "".join(CHARACTERS)  # that a video's cards may show
    colours: tuple[str, ...] = COLOURS  # and of things, pointed at or shown
    shapes: tuple[str, ...] = SHAPES
    kinds: tuple[str, ...] = ()  # these alone, as many of each as there are cards and movers; (): the usual mix
    pieces: int = 20_000  # scenes that a video is spliced from, each seen once by the frozen tower
    seed: int = 1  # of the pieces
    tokens: int = 16  # that stay of a frame of a piece
    by: Literal["merge", "pool", "pick"] = "merge"  # similar ones merged, neighbours averaged, evenly spaced ones taken
    alone: bool = False  # each frame of a piece seen as a picture, instead of the clip

    @property
    def span(self) -> tuple[int, int]:
        """Clips of a conversation, of a video at most, and frames of each."""
        return {"frames": (1, 1), "clips": (1, 4)}.get(self.kind, (self.clips[1], 4))

    def length(self, rng: np.random.Generator) -> int:
        """Clips of a video, which its own chance says first."""
        return often_few(rng, *self.clips)

    @property
    def shown(self) -> tuple[object, ...]:
        """What chooses some of the pieces alone."""
        return self.characters, self.colours, self.shapes

    @property
    def bank(self) -> str:
        """What worlds must have in common to be spliced from the same pieces."""
        how = f"{self.by}-{self.tokens}" + "-alone" * self.alone
        return f"{self.pieces}-{self.seed}-{self.pointers:g}-{how}"


def often_few(rng: np.random.Generator, fewest: int, most: int) -> int:
    """A number from ``fewest``, above 0, to ``most``: as often 3 to 6 as 12 to 24, if both may be."""
    return min(most, int(fewest * ((most + 1) / fewest) ** rng.random()))


@dataclass(frozen=True, slots=True)
class Drawn:
    """One conversation to come; stands where a Record stands."""

    id: str
    source: str
    world: World
    seed: int
    index: int

    @property
    def chance(self) -> tuple[int, int, int]:
        """What its own chance begins with."""
        return self.seed, len(self.world.kind), self.index

    @property
    def rng(self) -> np.random.Generator:
        """Its own source of chance."""
        return np.random.default_rng(self.chance)


def draw_pixels(one: Drawn, size: int) -> tuple[UInt8[Tensor, "1 F h w 3"], tuple[Taught, ...], list[Question]]:
    """A picture or a clip, what its patches show, and questions about it, or none."""
    rng, world = one.rng, one.world
    draw = _draw if world.looks == 1 else _held
    pixels, labels, lesson = draw(replace(one, id="", index=drawing(one.index, world.looks)), size)
    talks = world.talk == 1 or rng.random() < world.talk
    asked = questions(rng, shown(labels), world.kinds) if talks else []
    if not talks and world.patches:
        lesson = lesson.some(rng, world.patches)
    return torch.from_numpy(pixels)[None], (lesson,), asked


def drawing(index: int, looks: int) -> int:
    """Which drawing conversation ``index`` looks at: HELD of them are gone through ``looks`` times, then the next."""
    part, place = divmod(index, HELD * looks)
    return part * HELD + place % HELD


def _draw(one: Drawn, size: int) -> tuple[Image8, Labels, Taught]:
    rng, world = np.random.default_rng((*one.chance, 1)), one.world
    if world.kind == "frames":
        image, labels = card_frame(rng, size, pointers=world.pointers)
        return np.array(image)[None], labels, taught(labels)
    pixels, labels = card_clip(rng, size, movers=world.movers, pointers=world.pointers)
    return np.array(pixels), labels, taught(labels)


_held = lru_cache(maxsize=HELD)(_draw)  # only a memo, of 300 MB at 224 pixels


def shown(labels: Labels) -> Scene:
    """What a picture or clip shows and when, read from its labels: a frame is a second."""
    grids = [np.asarray(getattr(labels, one.name)) for one in fields(labels)]
    codes = np.stack([grid if grid.ndim == 3 else grid[None] for grid in grids], -1).astype(int)
    events: list[Event] = []
    before: list[int] = []
    for second, frame in enumerate(codes):
        patches = frame[frame[..., 1] > 0]
        now = patches.max(axis=0).tolist() if len(patches) else []
        if now and now == before:
            last = events[-1]
            events[-1] = Event(last.start, last.length + 1, last.what, last.style)
        elif now:
            what = _what(now)
            events.append(Event(float(second), 1.0, what, LOOK))
        before = now
    return Scene(float(len(codes)), 1.0, tuple(events))


def _what(codes: Sequence[int]) -> Card | Mover:
    """Of the labels of its patches; a mover whose way cannot be told goes nowhere."""
    colour, shape, character, direction, speed, ahead_colour, ahead_shape = codes
    name = COLOURS[colour - 1], SHAPES[shape - 1]
    if not character:
        return Mover(*name, DIRECTIONS[direction - 1] if direction else "", SPEEDS[speed - 1] if speed else "")
    ahead = Pointer(COLOURS[ahead_colour - 1], SHAPES[ahead_shape - 1]) if ahead_colour and ahead_shape else None
    return Card(*name, CHARACTERS[character - 1], ahead)


def questions(rng: np.random.Generator, scene: Scene, kinds: Sequence[str] = ()) -> list[Question]:
    """Of the kinds named, about as many of each as there are events; where none is named, the usual mix. One question
    about every second chain, and what every second card points at: what they end at tells where the last ones do. Some
    question in any case."""
    asked = ask(rng, scene, kinds, len(kinds) * len(scene.events)) if kinds else _mixed(rng, scene)
    pointers = [one for one in asked if one.kind == "pointer"]
    asked = [one for one in asked if one not in pointers[: len(pointers) // 2]]
    chains = list(dict.fromkeys(one.chain for one in asked if one.chain))
    followed = [chains[i] for i in rng.permutation(len(chains))[: (len(chains) + 1) // 2].tolist()]
    for chain in followed:
        about = [one for one in asked if one.chain == chain]
        kept = about[int(rng.integers(len(about)))]
        asked = [one for one in asked if one.chain != chain or one is kept]
    asked = [one for one in asked if not one.chain or one.chain in followed]
    if not asked:
        return ask(rng, scene, ["presence"], 1) or [nothing(rng)]
    return [asked[i] for i in rng.permutation(len(asked)).tolist()]


def _mixed(rng: np.random.Generator, scene: Scene) -> list[Question]:
    """One of each thing, some about when, what is there and what came first, and chains to the end.

    Things are asked about one by one, so that none of these questions gives another's answer away; that something is
    there, other questions may tell.
    """
    asked: list[Question] = []
    for event in scene.events:
        alone = Scene(scene.duration, scene.fps, (event,))
        if isinstance(event.what, Card):
            asked += ask(rng, alone, CARD_KINDS, 1)
        elif event.what.direction:
            asked += ask(rng, alone, ["motion", "speed"], 1)
    asked += ask(rng, scene, ["presence", "order"], 2)
    if scene.duration > 1:
        asked += ask(rng, scene, ["grounding"], 2)
    return asked + ask(rng, scene, HOPS, 2)


def nothing(rng: np.random.Generator) -> Question:
    """A question about an empty scene."""
    colour, shape = COLOURS[int(rng.integers(len(COLOURS)))], SHAPES[int(rng.integers(len(SHAPES)))]
    article = "an" if colour[0] == "o" else "a"
    return Question(f"Is there {article} {colour} {shape}?", "no", "presence", (0.0, 0.0))


def turns_of(asked: Sequence[Question]) -> tuple[Turn, ...]:
    """Questions and answers as one conversation about one video; answers about chains say the way first."""
    turns: list[Turn] = []
    for one in asked:
        turns += [Turn("user", one.question), Turn("assistant", one.thought)]
    return tuple(turns)
