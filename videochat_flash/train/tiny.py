"""Trains flash-tiny from nothing: python -m videochat_flash.train.tiny --out runs/tiny

Lessons in order: see single cards, see clips, fill the bank, find in short, longer and long videos; then the model
is packed. Every lesson is seeded, writes a checkpoint as it goes, and goes on from there when it is started again.
"""

from __future__ import annotations

import os
import sys
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from .. import errors
from ..config import FLASH_TINY
from ..generate import Decoding
from ..model import VideoChatFlashModel
from ..prompt import END_OF_TEXT, IM_END, IM_START, SYSTEM, control, plain_text
from ..synth import CHARACTERS, COLOURS, KINDS, SHAPES, ask, make_scene
from ..weights import byte_level, load_model, save_model
from .bank import Bank, fill_bank
from .find import Lesson, train_decoder
from .lessons import Run
from .see import Pupil, Sightings, train_tower

SEED = 1
BANK_SCENES = 20_000
SEE = (
    Sightings("images", steps=2000, batch=128, frames=1, patches=196, rate=2e-3, fall=0, views=2),
    Sightings("clips", steps=2200, batch=64, frames=4, patches=784, rate=1.5e-3, fall=0.5, movers=0.5, views=3, seed=2),
)
FIND = (
    Lesson("short", 1600, 128, clips=(3, 6), cards=(2, 4), movers=(0, 1), tokens=20, rate=6e-4, fall=0),
    Lesson("longer", 600, 64, (6, 20), (3, 6), (0, 1), tokens=64, rate=6e-4, fall=0, plan=FLASH_TINY.keep),
    Lesson("long", 1200, 16, (16, 68), (4, 8), (1, 2), tokens=64, rate=6e-4, fall=0.6, plan=FLASH_TINY.keep),
)


def train_tokenizer(size: int, seed: int) -> Tokenizer:
    """A byte-level BPE tokenizer with Qwen's control tokens, trained on questions and answers of the small world."""
    rng = np.random.default_rng(seed)
    texts = [
        f"system\n{SYSTEM}",
        "user\n",
        "assistant\n",
        *(f"{c} {s}" for c, s in product(COLOURS, SHAPES)),
        *CHARACTERS,
    ]
    for _ in range(300):
        scene = make_scene(rng, 64, cards=4, movers=2)
        texts += [words for one in ask(rng, scene, KINDS, 24) for words in (one.question, one.answer)]
    texts += [
        f"\nThe video lasts for {n:.2f} seconds, and {n} frames are uniformly sampled from it. "
        for n in range(4, 512, 4)
    ]
    tokenizer = byte_level(Tokenizer(models.BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=size - 3, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END_OF_TEXT, IM_START, IM_END])
    return plain_text(tokenizer)


def initialise(model: VideoChatFlashModel, seed: int) -> None:
    """Small random weights for the decoder: tied embeddings of unit size would drown its first logits."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.decoder.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.02, generator=draw)


def main(
    out: Annotated[Path, typer.Option(help="Checkpoints, logs and the packed model.")] = Path("runs/tiny"),
    start: Annotated[Path | None, typer.Option(help="Go on from this packed model instead of from nothing.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda.")] = "cuda" if torch.cuda.is_available() else "cpu",
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = max(1, (os.cpu_count() or 2) - 1),
) -> None:
    """Train flash-tiny, going on where an earlier run in the same folder stopped."""
    if (out / "flash-tiny").exists():
        raise FileExistsError(f"{out / 'flash-tiny'} is trained already: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    run = Run(out, torch.device(device), workers)
    torch.manual_seed(SEED)
    model = VideoChatFlashModel(FLASH_TINY)
    initialise(model, SEED)
    if start is not None:
        model.load_state_dict(load_model(start, FLASH_TINY, torch.float32).state_dict())
    seen = {f"tower.{name}": value for name, value in model.vision.state_dict().items()}
    for sightings in SEE:
        seen = train_tower(FLASH_TINY.vision, run, sightings, seen)
    pupil = Pupil(FLASH_TINY.vision)
    pupil.load_state_dict(seen)
    model.vision.load_state_dict(pupil.tower.state_dict())
    bank = Bank(fill_bank(FLASH_TINY, pupil, run, SEED, BANK_SCENES), SEED, BANK_SCENES)
    tokenizer = train_tokenizer(FLASH_TINY.llm.vocab, SEED)
    for lesson in FIND:
        train_decoder(model, tokenizer, bank, lesson, run, SEED)
    pack(model.cpu(), tokenizer, out / "flash-tiny")


def pack(model: VideoChatFlashModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model as it ships, in bfloat16."""
    end = tuple(control(tokenizer, name) for name in (IM_END, END_OF_TEXT))
    save_model(folder, model.bfloat16(), tokenizer, Decoding(max_new_tokens=64, eos=end))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    sys.exit(errors.ended("train", lambda _: app(standalone_mode=False, prog_name="train")))
