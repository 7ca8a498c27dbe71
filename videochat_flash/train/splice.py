"""Long videos for little: short scenes that the frozen tower saw once, put together in ever new ways.

The tower never looks across clips, so a video spliced from pieces is exactly what it would have seen of the whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..files import beside
from ..merge import merge_tokens
from ..model import VideoChatFlashModel
from ..synth import Card, Event, Mover, Question, Scene, random_pointer, random_style, random_what, scene_frames
from ..video import CLIP
from ..vision import normalise
from .worlds import Drawn, World, often_few, questions

CLIP_SECONDS = 4.0  # at one frame a second
SHARE = {"empty": 0.15, "card": 0.45, "pair": 0.2, "mover": 0.2}  # of the pieces
CUTS = 4  # places at most, at which clips are left out
Part = tuple[int, Float[Tensor, "C M D"]]  # clips that are left out in front, and those that follow
TRIES = 20  # for one more thing that nothing shown already can be taken for
PART = 1000  # pieces that are written together: as many are lost at most when a run is stopped


@dataclass(frozen=True)
class Piece:
    """A few clips in a row: which rows of the bank they are, and what they show from when to when."""

    first: int
    clips: int
    events: tuple[Event, ...]

    @property
    def whats(self) -> list[Card | Mover]:
        return [event.what for event in self.events]


def small_scene(seed: int, index: int, pointers: float, share: Mapping[str, float] = SHARE) -> Scene:
    """Piece ``index``: nothing, a card, two cards in a row, or a mover, cut to whole clips."""
    rng = np.random.default_rng((seed, index))
    kind = str(rng.choice(list(share), p=list(share.values())))
    spans: list[float] = {
        "empty": [],
        "card": [rng.uniform(1, 4)],
        "pair": [rng.uniform(1, 4), rng.uniform(1, 4)],
        "mover": [rng.uniform(6, 8)],
    }[kind]
    at = float(rng.uniform(0, CLIP_SECONDS))
    taken: list[Card | Mover] = []
    events: list[Event] = []
    for length in spans:
        what = random_what(rng, kind == "mover", taken)
        if isinstance(what, Card) and pointers and rng.random() < pointers:
            what = random_pointer(rng, what)
        taken.append(what)
        events.append(Event(round(at, 3), round(length, 3), what, random_style(rng, what, length)))
        at += length + float(rng.uniform(0, 1.5)) + 0.002
    clips = max(1, int(np.ceil((events[-1].end if events else 0) / CLIP_SECONDS)))
    return Scene(clips * CLIP_SECONDS, 1.0, tuple(events))


class _Pieces(Dataset[np.ndarray]):
    """Frames of some pieces."""

    def __init__(self, world: World, size: int, numbers: range) -> None:
        self.world, self.size, self.numbers = world, size, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> np.ndarray:
        number = self.numbers[index]
        scene = small_scene(self.world.seed, number, self.world.pointers)
        return scene_frames(np.random.default_rng((self.world.seed, number, 1)), scene, self.size)


@torch.inference_mode()
def fill(folder: Path, model: VideoChatFlashModel, world: World, workers: int, rank: int = 0, of: int = 1) -> None:
    """Draw the pieces and keep their clips' compressed tokens, bfloat16 "clips M D", in files of PART pieces.

    Files that the same tower made of the same pieces stay; others are made anew.

    Args:
        workers: processes that draw.
        rank: which of the processes that make the files, each its share, this is.
        of: how many there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_by = {"tower": _fingerprint(model), "world": world.bank}
    for first in range(rank * PART, world.pieces, of * PART):
        numbers = range(first, min(first + PART, world.pieces))
        path = folder / f"{first:07d}.safetensors"
        if path.is_file():
            with safe_open(path, "pt") as file:
                if file.metadata() == made_by:
                    continue
        pieces = _Pieces(world, model.config.vision.image_size, numbers)
        chance = torch.Generator()  # or loading would draw from the run's own
        frames = DataLoader(pieces, 32, num_workers=workers, collate_fn=np.concatenate, generator=chance)
        with beside(path) as part:
            save_file({"tokens": torch.cat([_seen(model, world, some) for some in frames])}, part, metadata=made_by)


def _seen(model: VideoChatFlashModel, world: World, frames: np.ndarray) -> Float[Tensor, "C M D"]:
    """What the tower sees of whole clips, uint8 "4C h w 3", compressed as the world wants it."""
    length = 1 if world.alone else CLIP
    clips = torch.from_numpy(frames).to(model.device).unflatten(0, (-1, length))
    with torch.autocast(model.device.type, torch.bfloat16):
        patches = model.vision(normalise(clips))
    tokens = compressed(patches.float(), length, world.tokens, world.by, model.config.vision.heads)
    return tokens.reshape(-1, CLIP * world.tokens, tokens.shape[-1]).bfloat16().cpu()


def compressed(
    patches: Float[Tensor, "C p D"], frames: int, tokens: int, by: str, heads: int
) -> Float[Tensor, "C M D"]:
    """``tokens`` for each of ``frames`` frames: ``merge`` as the model does it, or a simpler way to compare it with.

    Raises:
        ValueError: more tokens than there are, or for ``pool`` a number that is no square.
    """
    keep, there = tokens * frames, patches.shape[1]
    if keep == there:
        return patches
    if by == "merge":
        return merge_tokens(patches, keep, heads)
    if keep > there:
        raise ValueError(f"{tokens} tokens a frame are more than the {there // frames} there are")
    if by == "pick":
        return patches[:, torch.linspace(0, there - 1, keep).round().long()]
    old, new = math.isqrt(there // frames), math.isqrt(tokens)
    if new * new != tokens:
        raise ValueError(f"pooling needs a square number of tokens a frame, not {tokens}")
    grid = patches.unflatten(1, (frames, old, old)).flatten(0, 1).permute(0, 3, 1, 2)
    pooled = F.adaptive_avg_pool2d(grid, new).permute(0, 2, 3, 1)
    return pooled.reshape(len(patches), keep, -1)


def _fingerprint(model: VideoChatFlashModel) -> str:
    digest = hashlib.sha256(str(model.config.vision).encode())
    for name, tensor in model.vision.state_dict().items():
        digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()


class Bank:
    """Pieces by what they show, and whole videos made of them.

    Raises:
        ValueError: too few pieces, so that none shows something that is needed.
    """

    def __init__(self, folder: Path, world: World) -> None:
        files = [folder / f"{first:07d}.safetensors" for first in range(0, world.pieces, PART)]
        self.tokens = torch.cat([load_file(path)["tokens"] for path in files])
        self.empty: list[Piece] = []
        self.cards: list[Piece] = []
        self.movers: list[Piece] = []
        self.by_name: dict[tuple[str, str, bool], list[tuple[Piece, Card]]] = {}  # colour, shape, whether it points
        first = 0
        for index in range(world.pieces):
            scene = small_scene(world.seed, index, world.pointers)
            piece = Piece(first, round(scene.duration / CLIP_SECONDS), scene.events)
            first += piece.clips
            if not all(_wanted(one, world) for one in piece.whats):
                continue
            shelf = self.movers if scene.movers else self.cards if scene.cards else self.empty
            shelf.append(piece)
            for card in piece.whats:
                if isinstance(card, Card):
                    name = card.colour, card.shape, card.points is not None
                    self.by_name.setdefault(name, []).append((piece, card))
        wanted = (
            (self.empty, True), (self.cards, world.cards[1]), (self.movers, world.moving[1]),
            ([name for name in self.by_name if name[2]], world.hops[1]),
        )  # fmt: skip
        if any(number and not shelf for shelf, number in wanted):
            raise ValueError(f"{world.pieces} pieces have not all that videos need: set data.world.pieces higher")

    def video(self, rng: np.random.Generator, world: World, clips: int) -> tuple[Float[Tensor, "C M D"], Scene]:
        """A video of so many clips as the world wants it: chains first, then movers and cards, and nothing in the
        rest."""
        cards, moving, hops = (
            int(rng.integers(low, high + 1)) for low, high in (world.cards, world.moving, world.hops)
        )
        chosen = self._chains(rng, hops, world.chains, clips) if hops else []
        for shelf, wanted in ((self.movers, moving), (self.cards, cards)):
            have = 0
            for _ in range(TRIES * wanted):
                piece = shelf[int(rng.integers(len(shelf)))]
                room = clips - sum(one.clips for one in chosen)
                if have + len(piece.events) <= wanted and fits(piece, chosen, room):
                    chosen.append(piece)
                    have += len(piece.events)
        while (room := clips - sum(one.clips for one in chosen)) > 0:
            chosen.append(self.empty[int(rng.integers(len(self.empty)))])
        assert room == 0, "empty pieces are one clip long"
        return self._joined([chosen[i] for i in rng.permutation(len(chosen)).tolist()])

    def _chains(self, rng: np.random.Generator, hops: int, count: int, clips: int) -> list[Piece]:
        """Chains of as many hops: fewer than wanted where there is no room, fewer chains where there is none for them
        either, and two or none, since a chain alone can be told without following it."""
        for length in range(hops, 0, -1):
            for wanted in range(count, 1, -1) if length == 1 else (count,):
                chosen: list[Piece] = []
                for others in reversed(range(wanted)):  # each leaves room for those behind it
                    room = clips - sum(piece.clips for piece in chosen) - others * (length + 1)
                    chain = self._chain(rng, length, chosen, room)
                    if not chain:
                        break
                    chosen += chain
                else:
                    return chosen
        return []

    def _chain(self, rng: np.random.Generator, hops: int, chosen: Sequence[Piece], room: int) -> list[Piece]:
        """Pieces of indicator cards that lead to one without a pointer; none where luck does not have it."""
        names = [name for name in self.by_name if name[2]]
        for _ in range(TRIES):
            chain: list[Piece] = []
            colour, shape, _ = names[int(rng.integers(len(names)))]
            for step in range(hops + 1):
                there, left = [*chosen, *chain], room - sum(one.clips for one in chain)
                shelf = self.by_name.get((colour, shape, step < hops), [])
                fitting = [one for one in shelf if fits(one[0], there, left)]
                if not fitting:
                    break
                piece, card = fitting[int(rng.integers(len(fitting)))]
                chain.append(piece)
                if card.points is not None:
                    colour, shape = card.points.colour, card.points.shape
            if len(chain) == hops + 1:
                return chain
        return []

    def _joined(self, pieces: Sequence[Piece]) -> tuple[Float[Tensor, "C M D"], Scene]:
        rows: list[int] = []
        events: list[Event] = []
        for piece in pieces:
            at = len(rows) * CLIP_SECONDS
            rows += range(piece.first, piece.first + piece.clips)
            events += [replace(event, start=round(event.start + at, 3)) for event in piece.events]
        return self.tokens[rows], Scene(len(rows) * CLIP_SECONDS, 1.0, tuple(events))

    def draw(self, one: Drawn) -> tuple[list[Part], list[Question]]:
        """The merged tokens of a video, in one part unless clips are left out, and questions about it."""
        rng, world = one.rng, one.world
        clips = world.length(rng)
        for _ in range(TRIES):  # until there is something of what is to be asked
            tokens, scene = self.video(rng, world, clips)
            cuts = random_cuts(rng, world.skipped, scene) if world.skipped[1] else {}
            asked = questions(rng, stretched(scene, cuts), world.kinds)
            if not world.kinds or any(question.kind in world.kinds for question in asked):
                break
        places = [0, *sorted(cuts.keys() - {0})]
        parts = tokens.tensor_split(places[1:])
        return [(cuts.get(at, 0), part) for at, part in zip(places, parts, strict=True)], asked


def random_cuts(rng: np.random.Generator, skipped: tuple[int, int], scene: Scene) -> dict[int, int]:
    """Before which clips how many more are left out: often few, now and then many, and never within what is shown."""
    count = often_few(rng, max(1, skipped[0]), skipped[1])
    clips = range(round(scene.duration / CLIP_SECONDS))
    free = [at for at in clips if not any(one.start < at * CLIP_SECONDS < one.end for one in scene.events)]
    places = rng.choice(free, min(len(free), int(rng.integers(1, CUTS + 1))), replace=False)
    shares = rng.multinomial(count, rng.dirichlet(np.ones(len(places))))
    return dict(zip(places.tolist(), shares.tolist(), strict=True))


def stretched(scene: Scene, cuts: Mapping[int, int]) -> Scene:
    """The scene as it would be with the clips that are left out."""

    def moved(event: Event) -> Event:
        before = sum(count for at, count in cuts.items() if at * CLIP_SECONDS <= event.start)
        return replace(event, start=round(event.start + before * CLIP_SECONDS, 3))

    duration = scene.duration + sum(cuts.values()) * CLIP_SECONDS
    return replace(scene, duration=duration, events=tuple(moved(event) for event in scene.events))


def _wanted(what: Card | Mover, world: World) -> bool:
    """Whether a world shows it, and what it points at."""
    named = what.points if isinstance(what, Card) else None
    things = [(one.colour, one.shape) for one in (what, named) if one is not None]
    known = all(colour in world.colours and shape in world.shapes for colour, shape in things)
    return known and (not isinstance(what, Card) or what.character in world.characters)


def fits(piece: Piece, chosen: Sequence[Piece], room: int) -> bool:
    """Whether there is room, and nothing of the piece could be taken for something shown."""
    return piece.clips <= room and not clashes(piece.whats, [what for other in chosen for what in other.whats])


def clashes(new: Sequence[Card | Mover], shown: Sequence[Card | Mover]) -> bool:
    """Whether a question could no longer tell a new thing from one that is shown already."""
    pairs = {(one.colour, one.shape) for one in shown}
    characters = {one.character for one in shown if isinstance(one, Card)}
    return any(
        (one.colour, one.shape) in pairs or (isinstance(one, Card) and one.character in characters) for one in new
    )
