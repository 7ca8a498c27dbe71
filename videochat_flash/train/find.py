"""Second lesson of flash-tiny: the decoder learns to find, read out and answer, on videos put together from the bank.

One question a video teaches finding hardly at all; many questions behind one video, each about another card, teach it
in minutes: visual rows are paid once and every answer is supervised. They are simply the turns of one conversation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..config import Plan
from ..model import VideoChatFlashModel
from ..prompt import Prompt, Turn, render
from ..sight import Sight
from ..synth import CARD_KINDS, Question, Scene, ask
from .bank import Bank
from .lessons import Progress, Run, optimiser, restore, save, set_rate, take_step
from .losses import loss


@dataclass(frozen=True)
class Lesson:
    """Videos of ``clips`` clips with so many cards and movers, for so many steps."""

    name: str
    steps: int
    videos: int  # in a step
    clips: tuple[int, int]
    cards: tuple[int, int]
    movers: tuple[int, int]
    tokens: int  # of each clip
    rate: float
    fall: float = 1 / 3
    plan: Plan = ()  # every second step drops visual tokens by it


def questions(rng: np.random.Generator, scene: Scene) -> list[Question]:
    """One question about each card and each mover, and a few about presence and order; none gives another away."""
    asked: list[Question] = []
    for event in scene.cards:
        alone = Scene(scene.duration, scene.fps, (event,))
        asked += ask(rng, alone, CARD_KINDS, 1)
    for event in scene.movers:
        asked += ask(rng, Scene(scene.duration, scene.fps, (event,)), ["motion", "speed"], 1)
    asked += ask(rng, scene, ["presence", "order"], 3)
    return [asked[i] for i in rng.permutation(len(asked)).tolist()]


class Conversations(Dataset[tuple[Tensor, Prompt]]):
    """Item i, drawn from (seed, i) alone: tower tokens of a video, and a conversation about it."""

    def __init__(self, bank: Bank, tokenizer: Tokenizer, lesson: Lesson, seed: int) -> None:
        self.bank, self.tokenizer, self.lesson, self.seed = bank, tokenizer, lesson, seed

    def __len__(self) -> int:
        return self.lesson.steps * self.lesson.videos

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "C M D"], Prompt]:
        lesson = self.lesson
        step_rng = np.random.default_rng((self.seed, index // lesson.videos, 7))
        clips = int(step_rng.integers(lesson.clips[0], lesson.clips[1] + 1))  # one length per step packs evenly
        rng = np.random.default_rng((self.seed, index))
        cards = int(rng.integers(lesson.cards[0], lesson.cards[1] + 1))
        movers = int(rng.integers(lesson.movers[0], lesson.movers[1] + 1))
        tokens, scene = self.bank.video(rng, clips, cards, movers, lesson.tokens)
        sight = Sight(tokens, torch.zeros(len(tokens), 2), scene.duration, 4, "", "")
        turns = []
        for one in questions(rng, scene):
            turns += [Turn("user", one.question), Turn("assistant", one.answer)]
        return tokens, render(self.tokenizer, turns, [sight])


def together(batch: list[tuple[Tensor, Prompt]]) -> tuple[Float[Tensor, "n k D"], list[int], list[Prompt]]:
    """The tokens of all videos, how many clips each has, and the conversations."""
    tokens, prompts = zip(*batch, strict=True)
    return torch.cat(tokens), [len(one) for one in tokens], list(prompts)


def train_decoder(
    model: VideoChatFlashModel,
    tokenizer: Tokenizer,
    bank: Bank,
    lesson: Lesson,
    run: Run,
    seed: int,
) -> None:
    """Train the model's connector and decoder on the bank's videos, from the lesson's checkpoint if there is one."""
    torch.manual_seed(seed)
    model.to(run.device)
    net = nn.ModuleDict({"connector": model.connector, "decoder": model.decoder})
    optimisers = optimiser(net, lesson.rate)
    path = run.out / f"{lesson.name}.pt"
    first = restore(path, net, optimisers)
    data = Conversations(bank, tokenizer, lesson, seed)
    progress = Progress(run.out / f"{lesson.name}.jsonl", lesson.steps, first)
    for step, (tokens, clips, prompts) in enumerate(run.batches(data, lesson.videos, first, together), first):
        set_rate(optimisers, lesson.rate, step, lesson.steps, lesson.fall)
        with torch.autocast(run.device.type, torch.bfloat16):
            rows = model.connector.mlp(tokens.to(run.device).float())
            losses = loss(model, prompts, [[video] for video in rows.split(clips)], lesson.plan if step % 2 else ())
        take_step(net, optimisers, losses.mean())
        progress.log(step, loss=losses.mean().item(), certain=(losses < 0.1).float().mean().item())
        if (step + 1) % 50 == 0 or step + 1 == lesson.steps:
            save(path, net, optimisers, step + 1)
