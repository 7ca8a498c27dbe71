"""How much a model answers right of what it never saw: ``vcflash train RECIPE --exam 100``.

Asked are new conversations of the worlds that a recipe draws, as it is trained: many at once, each answer behind the
true ones before it. That takes a minute where ``report``, which asks as a user does, takes an hour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.table import Table
from tokenizers import Tokenizer
from torch import Tensor

from ..config import Plan
from ..model import VideoChatFlashModel
from ..prompt import IGNORE, Prompt
from ..weights import load_model, read_config, read_tokenizer
from .learner import Learner, pack
from .losses import learned
from .parallel import Place, join
from .recipe import Recipe
from .samples import Sample, Samples
from .stage import fill_banks, read_data
from .worlds import World

UNSEEN = 1_000_000  # beyond the seeds of any training
PIECES = 2_000  # that new videos are spliced from
BUDGET = 32_768  # rows that are asked about together


@dataclass(frozen=True)
class Mark:
    """One question: where it comes from, what it is about, whether every token of its answer was right."""

    source: str
    kind: str
    right: bool
    blind: bool  # whether it was right without the video


def unseen(recipe: Recipe, count: int, out: Path) -> Recipe:
    """The same worlds with other things in them, ``count`` conversations of each."""
    sources = [replace(one, world=_other(one.world, count)) for one in recipe.data if one.world.kind]
    if not sources:
        raise ValueError("an exam needs a recipe that draws: no [[data]] of this one has a world")
    data = tuple(sources)
    return replace(recipe, seed=recipe.seed + UNSEEN, data=data, mixture="", teach=0.0, heads="", out=str(out))


def _other(world: World, count: int) -> World:
    pieces = min(world.pieces, PIECES)
    return replace(world, count=count, talk=1.0, pieces=pieces, seed=world.seed + UNSEEN)


@torch.inference_mode()
def examine(
    model: VideoChatFlashModel, tokenizer: Tokenizer, recipe: Recipe, plan: Plan, place: Place
) -> Iterator[tuple[int, list[Mark]]]:
    """Ask everything that an ``unseen`` recipe draws: how many conversations are done, and marks of the last of them.

    Args:
        plan: the dropout that holds while answering.
    """
    data = read_data(recipe)
    banks = fill_banks(recipe, data, model, place)
    samples = Samples(recipe, model.config, tokenizer, data.records, banks)
    net = Learner(model).to(place.device)
    part: list[Sample] = []
    for number in range(len(samples)):
        one = samples[number]
        assert isinstance(one, Sample), "what is drawn is never bad"
        part.append(one)
        if sum(sample.rows for sample in part) > BUDGET or number + 1 == len(samples):
            marks = {one: own for some in pack(part, BUDGET) for one, own in _marks(net, some, plan)}
            yield number + 1, [mark for sample in part for mark in marks[sample]]  # in the order of asking
            part = []


def examine_folder(folder: Path, recipe: Recipe, plan: Plan) -> Iterator[tuple[int, list[Mark]]]:
    """``examine`` a trained model on the recipe's device."""
    place = join(recipe.device)
    model = load_model(folder, read_config(folder), torch.float32).to(place.device).eval()
    return examine(model, read_tokenizer(folder), recipe, plan, place)


def _marks(net: Learner, samples: Sequence[Sample], plan: Plan) -> Iterator[tuple[Sample, list[Mark]]]:
    videos, *_ = net.see(samples)
    prompts = [one.prompt for one in samples]
    spans = [span for prompt in prompts for span in answers(prompt)]
    right = learned(net.model, prompts, videos, plan, [one.skipped for one in samples])
    blind = learned(net.model, [Prompt(one.ids, one.labels, ()) for one in prompts], [[] for _ in prompts])
    results = iter(zip(_right(right, spans), _right(blind, spans), strict=True))
    for one in samples:
        yield one, [Mark(one.source, kind, *next(results)) for kind in one.kinds]


def _right(found: tuple[Tensor, Tensor], spans: Sequence[int]) -> list[bool]:
    scores, labels = found
    return [bool(part.all()) for part in (scores.argmax(-1) == labels).split(list(spans))]


def answers(prompt: Prompt) -> list[int]:
    """How many tokens each answer of a conversation has, its closing one included."""
    lengths: list[int] = []
    before = False
    for label in prompt.labels:
        learned = label != IGNORE
        if learned and not before:
            lengths.append(0)
        if learned:
            lengths[-1] += 1
        before = learned
    return lengths


@dataclass(frozen=True)
class Row:
    """Shares of right answers to one kind of question of one source."""

    source: str
    kind: str
    asked: int
    right: float
    blind: float


def rows_of(marks: Sequence[Mark]) -> list[Row]:
    """Right and blind answers by source and kind."""
    rows = []
    for source, kind in dict.fromkeys((one.source, one.kind) for one in marks):
        some = [one for one in marks if (one.source, one.kind) == (source, kind)]
        right, blind = (sum(getattr(one, name) for one in some) / len(some) for name in ("right", "blind"))
        rows.append(Row(source, kind, len(some), right, blind))
    return rows


def table_of(rows: Sequence[Row]) -> Table:
    """The rows for people to read."""
    table = Table("source", "question", "asked", "right", "blind")
    for row in rows:
        table.add_row(row.source, row.kind, str(row.asked), f"{100 * row.right:.1f} %", f"{100 * row.blind:.1f} %")
    return table
