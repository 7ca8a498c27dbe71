"""A bank of short scenes as the trained tower sees them, so that finding can be learned without drawing or seeing.

The tower never looks across clips, so whole videos are put together from pieces of the bank, as Sights are spliced.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from ..config import Config
from ..connector import Connector
from ..files import beside
from ..synth import Card, Event, Mover, Scene, scene_frames
from ..vision import normalise
from . import splice
from .lessons import Run
from .see import SIZES, Pupil
from .splice import CLIP_SECONDS, Piece, clashes

SHARE = {"empty": 0.2, "card": 0.4, "pair": 0.2, "mover": 0.2}  # of the bank's scenes


def small_scene(seed: int, index: int) -> Scene:
    """Scene ``index`` of a bank."""
    return splice.small_scene(seed, index, 0.0, SHARE)


class Scenes(Dataset[np.ndarray]):
    """Frames of the bank's scenes, each drawn from (seed, index) alone."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.count = seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        return scene_frames(np.random.default_rng((self.seed, index, 1)), small_scene(self.seed, index))


@torch.inference_mode()
def fill_bank(config: Config, pupil: Pupil, run: Run, seed: int, count: int) -> Path:
    """Render ``count`` scenes and keep the merged tokens of their clips, bfloat16 "clips M D".

    Beside them stands which tokens show something, as the head that the tower learned with tells. A bank that the
    same tower made of the same scenes is kept; any other is made anew.
    """
    path = run.out / "bank.safetensors"
    made_by = {"seed": str(seed), "scenes": str(count), "tower": fingerprint(pupil)}
    if path.exists():
        with safe_open(path, "pt") as file:
            if file.metadata() == made_by:
                return path
    merge = Connector(config).merge
    pupil = pupil.to(run.device)
    kept, shows = [], []
    for frames in run.batches(Scenes(seed, count), 32, collate=join):
        clips = normalise(frames.to(run.device).unflatten(0, (-1, 4)))
        with torch.autocast(run.device.type, torch.bfloat16):
            tokens = merge(pupil.tower(clips).float(), 4).bfloat16()
            colour = pupil.what(tokens)[..., : SIZES[0]]
        kept.append(tokens.cpu())
        shows.append((colour.argmax(dim=-1) > 0).cpu())
    with beside(path) as part:
        save_file({"tokens": torch.cat(kept), "shows": torch.cat(shows)}, part, metadata=made_by)
    return path


def join(scenes: list[np.ndarray]) -> UInt8[Tensor, "f h w 3"]:
    """The frames of several scenes, one behind the other."""
    return torch.from_numpy(np.concatenate(scenes))


def fingerprint(pupil: Pupil) -> str:
    """Of every weight that a bank depends on."""
    digest = hashlib.sha256()
    for name, tensor in pupil.state_dict().items():
        digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()


class Bank:
    """Pieces by what they show, and whole videos made of them."""

    def __init__(self, path: Path, seed: int, count: int) -> None:
        stored = load_file(path)
        self.tokens, self.shows = stored["tokens"], stored["shows"]
        self.empty: list[Piece] = []
        self.cards: list[Piece] = []
        self.movers: list[Piece] = []
        first = 0
        for index in range(count):
            scene = small_scene(seed, index)
            piece = Piece(first, round(scene.duration / CLIP_SECONDS), scene.events)
            first += piece.clips
            shelf = self.movers if scene.movers else self.cards if scene.cards else self.empty
            shelf.append(piece)

    def video(
        self, rng: np.random.Generator, clips: int, cards: int, movers: int, tokens: int
    ) -> tuple[Float[Tensor, "C k D"], Scene]:
        """A video of ``clips`` clips with pieces that show up to ``cards`` cards and ``movers`` movers, all different.

        Only ``tokens`` tokens of each clip are there: those that show something and random others.
        """
        chosen: list[Piece] = []
        shown: list[Card | Mover] = []
        room = clips
        for shelf, wanted in ((self.movers, movers), (self.cards, cards)):
            have = 0
            for _ in range(20 * wanted):
                piece = shelf[int(rng.integers(len(shelf)))]
                whats = [event.what for event in piece.events]
                if have + len(whats) > wanted or piece.clips > room or clashes(whats, shown):
                    continue
                chosen.append(piece)
                shown += whats
                have += len(whats)
                room -= piece.clips
                if have == wanted:
                    break
        for _ in range(room):
            chosen.append(self.empty[int(rng.integers(len(self.empty)))])
        rows: list[int] = []
        events: list[Event] = []
        at = 0
        for index in rng.permutation(len(chosen)).tolist():
            piece = chosen[index]
            rows += range(piece.first, piece.first + piece.clips)
            events += [replace(event, start=round(event.start + at * CLIP_SECONDS, 3)) for event in piece.events]
            at += piece.clips
        order = torch.from_numpy(rng.random((len(rows), self.tokens.shape[1]))) + self.shows[rows]
        some = order.argsort(dim=1, descending=True)[:, :tokens].sort(dim=1).values
        picked = self.tokens[rows].gather(1, some[..., None].expand(-1, -1, self.tokens.shape[2]))
        return picked, Scene(at * CLIP_SECONDS, 1.0, tuple(events))
