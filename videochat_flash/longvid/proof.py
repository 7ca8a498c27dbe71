"""The proof of the pipeline: a rendered corpus goes through all of it, and every answer is held against the truth."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..config import FLASH_TINY
from ..files import beside
from ..journal import RUN, begin_run
from .pipeline import STEPS, do
from .records import Film, Question, read_films
from .rendered import VERSION, Shown, read_truth, render, render_plain, truth_of
from .settings import SCHEMA, Setting, check
from .truth import right
from .write import FOLDER, write

LEAST = 0.995  # share of template answers that must be right
FILMS, PLAIN = "films", "plain"  # folders: of rendered videos, and of those that show nothing
LENGTHS = (2, 4, 6, 8, 10)  # of videos, in sixths of the average: short ones are told of whole, long ones are long
CARDS = ("needle", "hops")  # families of hidden cards
FRAMES = 256, 512  # of a video that are seen in the fine-tuning: one a second of any that lasts no longer than that
ROWS = 32  # of the decoder for each of them, half of which is room for what is asked
TURNS = 8  # questions of a conversation: a video is seen once for all of them
RECIPE = "finetune.toml"
OTHERWISE = "choose another folder"


@dataclass
class Proof:
    """How many answers of each family and kind were asked and right, those that were not, and how many the set has."""

    asked: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, Question]] = field(default_factory=list)  # video, question
    seconds: float = 0.0  # of all videos
    kept: int = 0  # questions that the sieve left

    @property
    def share(self) -> float:
        """Share of all answers that are right."""
        return self.right.total() / max(1, self.asked.total())

    def of(self, families: Collection[str]) -> list[int]:
        """Right answers of these families, and all."""
        return [
            sum(number for name, number in counted.items() if name.split(".")[0] in families)
            for counted in (self.right, self.asked)
        ]


def plain_ones(videos: int, needles: int) -> int:
    """How many videos show nothing, so that cards can be hidden in their copies: where some are shown already, a
    question about one that is hidden may have two answers."""
    return -(-videos // needles) if needles else 0


def begin(out: Path, videos: int, plain: int, seconds: int, seed: int, haystacks: Sequence[str]) -> None:
    """Write down what is rendered, or check that the folder holds the same; arguments as of ``corpus``.

    Raises:
        ValueError: it holds something else.
    """
    if (out / FILMS).is_dir() and not (out / RUN).is_file():
        raise ValueError(f"{out} holds videos, but no {RUN} that tells which: {OTHERWISE}")
    settings = {"videos": videos, "plain": plain, "seconds": seconds, "seed": seed, "version": VERSION}
    begin_run(out, {**settings, "haystacks": [str(Path(one).resolve()) for one in haystacks]}, {}, OTHERWISE)


def corpus(out: Path, videos: int, plain: int, seconds: int, seed: int, haystacks: Sequence[str], told: Any) -> None:
    """Render what is not there yet; haystacks are dealt out to every second video in turn, the rest are made.

    Args:
        out: folder of all.
        videos: how many show something.
        plain: how many show nothing.
        seconds: that they last, on average.
        seed: of all.
        haystacks: real videos to draw over.
        told: frames that are written of a video, of how many, and which video it is.

    Raises:
        VideoError: a haystack that cannot be read.
    """
    for place in range(videos + plain):
        number, bare = (place, False) if place < videos else (place - videos, True)
        video = out / PLAIN / f"plain{number:03d}" if bare else out / FILMS / f"video{number:03d}"
        if truth_of(video).is_file():
            continue
        length = seconds * LENGTHS[(number + number // len(LENGTHS)) % len(LENGTHS)] // 6
        bar = partial(_told, told, f"{place + 1} of {videos + plain}")
        if bare:
            render_plain(video.parent, number, length, seed, bar)
        else:
            stack = haystacks[number // 2 % len(haystacks)] if haystacks and number % 2 == 0 else ""
            render(video.parent, number, length, seed, stack, bar)


def _told(told: Any, words: str, done: int, of: int) -> None:
    told(done, of, words)


def setting_of(out: Path, fps: float, plain: int) -> Setting:
    """How the corpus is built; ``plain`` is how many of its videos show nothing."""
    films, bare = str(out / FILMS), str(out / PLAIN)
    told = {"videos": films, "name": "rendered", "license": "CC0-1.0", "annotations": [films], "needles": False}
    values: dict[str, Any] = {
        "out": str(out / "built"),
        "source": [told, *([{"videos": bare, "name": "plain", "license": "CC0-1.0"}] if plain else [])],
        "shots": {"fps": fps},
        "scan": {"alike": 1.0},  # made haystacks may look alike, and their videos are not the same for that
        "ask": {"needles": min(plain, 1)},
        "write": {"validation": 0.2, "formats": ["reference", "messages"], "turns": TURNS},
    }
    setting = SCHEMA.read(values, "longvid proof")
    check(setting, "longvid proof")
    return setting


def prove(setting: Setting, told: Callable[[str], Any]) -> Proof:
    """Build the set, and check every question that was asked, whether or not the sieve left it.

    Args:
        setting: of the build.
        told: a bar for each step, as a context that gives who is told.

    Raises:
        ValueError: a step that fails, or a question that nothing can check.
    """
    for name in STEPS[:-1]:
        with told(name) as bar:
            do(name, setting, bar)
    write(setting, Path(setting.out) / "sieve.jsonl")
    proof = Proof(kept=sum(len(film.questions) for film in read_films(Path(setting.out) / "sieve.jsonl")))
    places: dict[str, Path] = {}
    for film in read_films(Path(setting.out) / "ask.jsonl"):  # a copy comes behind its video
        if not film.video.parent:
            places[film.video.key] = Path(film.video.path)
        _check(proof, film, read_truth(places[film.video.group]))
    return proof


def _check(proof: Proof, film: Film, truth: Sequence[Shown]) -> None:
    proof.seconds += 0.0 if film.video.parent else film.video.duration
    for question in film.questions:
        name = f"{question.family}.{question.kind}"
        proof.asked[name] += 1
        if right(film, question, truth):
            proof.right[name] += 1
        else:
            proof.wrong.append((film.video.path, question))


def longest(seconds: int) -> int:
    """Seconds of the longest video, where they last so many on average."""
    return seconds * max(LENGTHS) // 6


def recipe(setting: Setting, out: Path, seconds: int) -> Path:
    """A short fine-tuning of flash-tiny on the set, as a recipe of ``vcflash train``; returns the file.

    Args:
        setting: of the build.
        out: where the recipe goes, and what is trained.
        seconds: that videos last, on average.
    """
    frames = FRAMES[longest(seconds) > FRAMES[0]]
    data = (Path(setting.out) / FOLDER / "train.jsonl").resolve()
    plan = ",".join(f"{drop.layer}:{drop.ratio:g}" for drop in FLASH_TINY.keep)
    uniform = sum(drop.by == "uniform" for drop in FLASH_TINY.keep)
    by = ("attention", "uniform0_attention", "uniform1_attention")[uniform]
    text = f"""# A short fine-tuning of flash-tiny on the questions of this folder; its tower stays as it is.
out = {json.dumps(str((out / "run").resolve()))}
start = "flash-tiny"
steps = 300
batch = 4
pack = {ROWS * frames}
max_rows = {ROWS * frames}
save_every = 50
keep = 1
workers = 1
recompute = false
train_with_dropout = "{plan}"
dropout_by = "{by}"

[rates]
connector = 1e-4
decoder = 6e-4

[video]
max_frames = {frames}

[[data]]
annotation = {json.dumps(str(data))}
"""
    path = out / RECIPE
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
