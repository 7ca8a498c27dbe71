"""One stage from its recipe to a model in the released layout: what ``vcflash train`` runs."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from ..files import beside
from ..model import VideoChatFlashModel
from ..weights import save_model
from .adapters import merge_adapters
from .begin import begin, choose_parts, decoding_of
from .checkpoint import Keeper
from .learner import Learner
from .loop import METRICS, Schedule, Step, Trainer
from .memory import FEWER, enough_memory
from .optimize import Group, listed, make_optimizers
from .parallel import Place, join, leave, prepare
from .recipe import Lora, Recipe, Source, load_recipe
from .records import Record, epoch_order, read_mixture, read_source
from .samples import Samples, estimated_rows
from .splice import Bank, fill
from .teach import load_heads
from .worlds import Drawn
from .written import resolved

MODEL = "model"  # the folder of the trained model, in a run's own
HEADS = "heads.safetensors"  # beside it: what taught its tower
# What may change between two starts: none of it changes what is learned.
FREE = ("save_every", "keep", "workers", "device", "pack", "recompute", "pieces", "max_bad_share")


@dataclass(frozen=True)
class Data:
    """All records of a recipe, source behind source."""

    sources: tuple[Source, ...]
    records: tuple[Record | Drawn, ...]
    sizes: tuple[int, ...]


def sources_of(recipe: Recipe) -> tuple[Source, ...]:
    """Of its mixture and of its own; no annotation is opened."""
    return (*(read_mixture(Path(recipe.mixture)) if recipe.mixture else ()), *recipe.data)


def read_data(recipe: Recipe) -> Data:
    """Read every annotation file of a recipe; no media are opened.

    Raises:
        FileNotFoundError: an annotation file or mixture that is not there.
        ValueError: a file that holds no records.
    """
    sources = sources_of(recipe)
    read = [
        drawn(source, number, recipe.seed) if source.world.kind else read_source(source, recipe.seed)
        for number, source in enumerate(sources)
    ]
    records = tuple(record for part in read for record in part)
    return Data(sources, records, tuple(len(part) for part in read))


def train(
    recipe: Recipe,
    told: Callable[[Step, int], None],
    warn: Callable[[str], None],
    begun: Callable[[list[Group]], None] = lambda groups: None,
) -> Path:
    """Run a stage, or go on with it where it stopped; the folder of the model that came out.

    Args:
        recipe: what to do.
        told: called behind each step with the number of steps in all, in the first process.
        warn: told of records that are left out.
        begun: told of what learns at which rate before the first step, in the first process.

    Raises:
        FileNotFoundError, ValueError, OSError: one line that says what is wrong.
    """
    place = join(recipe.device)
    where = "outside of the forward, where weights, gradients and moments are kept"
    with enough_memory(where, f"{FEWER}; --dry-run tells what they take"):
        folder = _train(recipe, place, told, warn, begun)
    leave(place)
    return folder


def _train(
    recipe: Recipe,
    place: Place,
    told: Callable[[Step, int], None],
    warn: Callable[[str], None],
    begun: Callable[[list[Group]], None],
) -> Path:
    out = Path(recipe.out)
    if place.first:
        claim(out, recipe)
    place.wait()
    torch.manual_seed(recipe.seed)  # what is new begins alike in all processes
    data = read_data(recipe)
    model, tokenizer = begin(recipe)
    banks = fill_banks(recipe, data, model, place)
    sharded = place.world > 1 and recipe.optimizer.kind != "muon"
    learner = Learner(model, sharded, recipe.teach)
    if recipe.heads and learner.teacher is not None:
        load_heads(learner.teacher, Path(recipe.heads))
    net = prepare(learner, place, recipe)
    torch.manual_seed(recipe.seed + place.rank)  # from here on each has its own chance
    schedule = schedule_of(recipe, data, model)
    steps = schedule.steps(recipe)
    optimizers = make_optimizers(net, recipe)
    if place.first:
        begun(listed(optimizers))
    trainer = Trainer(
        recipe=recipe,
        place=place,
        net=net,
        optimizers=optimizers,
        keeper=Keeper(out / "checkpoints", recipe.keep, resolved(recipe), versions()),
        schedule=schedule,
        told=lambda step: told(step, steps),
        warn=warn,
    )
    trainer.run(Samples(recipe, model.config, tokenizer, data.records, banks))
    return finish(net, recipe, place, tokenizer, out / MODEL)


def drawn(source: Source, number: int, seed: int) -> tuple[Drawn, ...]:
    """An epoch of a world."""
    name = source.name or f"{source.world.kind} {number}"
    return tuple(Drawn(f"{name} {i}", name, source.world, seed + number, i) for i in range(source.world.count))


def fill_banks(recipe: Recipe, data: Data, model: VideoChatFlashModel, place: Place) -> dict[str, Bank]:
    """For each world of videos, the pieces it is spliced from, as the frozen tower sees them.

    Worlds that want the same pieces share them; the processes make them together, once.
    """
    banks: dict[str, Bank] = {}
    shared: dict[tuple[object, ...], Bank] = {}
    pieces = Path(recipe.pieces) if recipe.pieces else Path(recipe.out) / "pieces"
    for one in {record.source: record for record in data.records if isinstance(record, Drawn)}.values():
        if one.world.kind != "videos":
            continue
        folder = pieces / one.world.bank
        wanted = one.world.bank, *one.world.shown
        if wanted not in shared:
            fill(folder, model.to(place.device), one.world, recipe.workers, place.rank, place.world)
            place.wait()
            shared[wanted] = Bank(folder, one.world)
        banks[one.source] = shared[wanted]
    return banks


def schedule_of(recipe: Recipe, data: Data, model: VideoChatFlashModel) -> Schedule:
    """The order of all steps, from the recipe's seed."""

    @lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return epoch_order(data.sources, data.sizes, recipe.seed, epoch)

    rows = np.array([estimated_rows(record, recipe, model.config) for record in data.records])
    if not len(order(0)):
        raise ValueError(f"an epoch of {len(data.records)} records holds none: their weights in [[data]] are too small")
    return Schedule(order, len(order(0)), rows, recipe.batch)


def claim(out: Path, recipe: Recipe) -> None:
    """Take an output folder for a recipe, or go on in it with the same one; it holds the recipe as it runs.

    Raises:
        ValueError: the folder holds the run of another recipe.
    """
    path = out / "recipe.toml"
    if path.is_file():
        mine, theirs = (resolved(_bound(one)) for one in (recipe, load_recipe(path)))
        if theirs != mine:
            changed = sorted(set(mine.splitlines()) ^ set(theirs.splitlines()))
            keys = dict.fromkeys(line.split(" =")[0] for line in changed if " = " in line)
            what = ", ".join(keys) or "order of [[data]]"
            raise ValueError(
                f"{out} holds a run of another recipe (different: {what}): choose another out, or remove it"
            )
    else:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise ValueError(f"{out} is not empty and holds no run: choose another out")
    with beside(path) as part:
        part.write_text(resolved(recipe), encoding="utf-8")


def finish(net: Learner, recipe: Recipe, place: Place, tokenizer: Tokenizer, folder: Path) -> Path:
    """Put the trained model together, adapters merged, and write it in the released layout; beside it what taught.

    A plan of dropout that it learned with becomes its own: by another one it may answer far worse. With ``blend``
    below 1 every weight lies that far on the way from what was begun with (WiSE-FT, arXiv 2109.01903).
    """
    state = get_model_state_dict(
        net, options=StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=False)
    )
    if place.first and not folder.exists():
        if net.teacher is not None:
            with beside(folder.with_name(HEADS)) as part:
                save_file({name: cast("Tensor", state[f"teacher.{name}"]) for name in net.teacher.state_dict()}, part)
        config = net.model.config
        with torch.device("meta"):
            model = choose_parts(VideoChatFlashModel(replace(config, keep=recipe.plan or config.keep)), recipe)
        own = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
        model.load_state_dict(own, assign=True)
        merged = merge_adapters(model) if recipe.lora.parts else model
        if recipe.blend < 1:
            before = dict(begin(replace(recipe, lora=Lora()))[0].named_parameters())
            for name, weight in merged.named_parameters():
                weight.data = before[name].data.lerp(weight.data, recipe.blend)
        save_model(folder, merged.bfloat16(), tokenizer, decoding_of(tokenizer))
    place.wait()
    return folder


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    names = ("videochat-flash", "torch", "numpy", "pillow", "av", "tokenizers", "safetensors", "peft")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def history(out: Path) -> list[dict[str, Any]]:
    """The steps that a run's metrics tell of, as ``Step`` has them."""
    return [json.loads(line) for line in (out / METRICS).read_text(encoding="utf-8").splitlines()]


def losses(out: Path) -> list[tuple[int, float]]:
    """Step and loss of those that had one."""
    return [(row["step"], row["loss"]) for row in history(out) if row["loss"] is not None]


def _bound(recipe: Recipe) -> Recipe:
    """The recipe without what does not change the result."""
    plain = Recipe(out="run")
    return replace(recipe, out=plain.out, **{key: getattr(plain, key) for key in FREE})
