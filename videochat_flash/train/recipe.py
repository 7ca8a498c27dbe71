"""A training as one file: what is trained, from what, on what. TOML, read strictly and written back.

A recipe may name a ``base``: the file to take every key from that it does not say itself. Nothing here opens weights
or data.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..config import FLASH_TINY, RELEASES, Config, Plan, check_plan, parse_plan
from ..strict import Rule, Schema, read_toml
from ..synth import ALL_KINDS, CHARACTERS, COLOURS, HOPS, SHAPES
from ..video import CLIP
from .worlds import World

MODELS: dict[str, Config] = {"flash-tiny": FLASH_TINY, **RELEASES}
PARTS = ("tower", "connector", "decoder")
ADAPTED = ("decoder", "tower")  # parts that can have LoRA adapters
STRATEGY = re.compile(r"all|(first[234]?|end|random):\d+(\.\d+%|%)?")  # decimal shares are ours
WEIGHTLESS = ("image_size", "max_positions", "log_scaled_from")  # what a model may be given anew
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True)
class Source:
    """Records of one annotation file, or conversations that are drawn: a ``[[data]]`` table."""

    annotation: str = ""  # .json or .jsonl, a local path or an fsspec URL
    media: str = ""  # folder or URL that media paths are relative to
    strategy: str = "all"  # which of its records, as first:25%
    weight: float = 1.0  # how often its records come in an epoch: 2.5 is twice, and half of them a third time
    frame_fps: float = 1.0  # of frame folders
    name: str = ""  # for reports; else the annotation's stem
    world: World = World()  # what is drawn where there is no annotation


@dataclass(frozen=True)
class Rates:
    """Learning rate of each part at its peak; 0 freezes it. A part with adapters: the rate of its adapters."""

    tower: float = 0.0
    connector: float = 0.0
    decoder: float = 0.0


@dataclass(frozen=True)
class Optimizer:
    """AdamW and its schedule: linear warm-up, full rate for a while or not at all, then a cosine to 0."""

    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0  # norm of all gradients together, at most
    warmup: float = 0.03  # share of the steps
    fall: float = 1.0  # share of the steps in which the rate sinks; 1: right behind the warm-up, as in the paper
    kind: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices inside blocks, AdamW for the rest


@dataclass(frozen=True)
class Video:
    """How many frames of a video are seen, in whole clips of 4."""

    sampling: Literal["dynamic", "middle"] = "dynamic"  # one frame a second within the bounds, or always max_frames
    min_frames: int = 64
    max_frames: int = 512


@dataclass(frozen=True)
class Lora:
    """Adapters of low rank (arXiv 2106.09685) instead of the weights themselves."""

    parts: tuple[str, ...] = ()  # of "decoder", "tower"
    rank: int = 64
    alpha: float = 16.0
    dropout: float = 0.05


@dataclass(frozen=True)
class Recipe:
    """One stage of training."""

    out: str  # folder of checkpoints and metrics
    model: str = ""  # architecture: "flash-tiny" or a released name; else that of ``start``
    start: str = ""  # a whole model to start from: folder or released name
    tower: str = ""  # parts to start from where there is no whole model; a part without one starts fresh
    connector: str = ""
    decoder: str = ""
    image_size: int = 0  # pixels of a side; 0: as the model has it
    log_scaled_from: int = 0  # rows beyond which queries grow with the logarithm of their position; 0: the model's
    seed: int = 42
    steps: int = 0  # 0: as many as ``epochs`` take
    epochs: int = 1
    batch: int = 256  # conversations a step, over all processes
    pack: int = 32768  # rows of one forward, at most
    max_rows: int = 32768  # a longer conversation is left out and counted
    save_every: int = 1000  # steps
    keep: int = 2  # newest checkpoints
    workers: int = 2  # processes that read data, for each process that trains
    device: str = "auto"
    precision: Literal["bfloat16", "float32"] = "bfloat16"  # of arithmetic; master weights are float32
    recompute: bool = True  # activations in the backward pass instead of keeping them
    loss: Literal["sample", "token"] = "sample"  # what counts the same: every conversation, or every learned token
    template: Literal["chat", "plain"] = "chat"  # plain: picture, then caption
    tiles: int = 1  # along a side of an image, at most; 1: one square
    train_with_dropout: str = ""  # a plan as 4:0.75,18:0.25
    dropout_every: int = 1  # step: 2 drops in every second one, so that both ways are learned
    dropout_by: Literal["attention", "uniform", "uniform0_attention", "uniform1_attention"] = "attention"
    blend: float = 1.0  # how far what comes out lies from what was begun with: 1 is as trained, 0.5 halfway
    teach: float = 0.0  # weight of telling a tower what each patch of a drawn picture shows
    heads: str = ""  # of an earlier stage that taught, to go on with; "": new ones
    max_bad_share: float = 0.01  # of the records; beyond it the run stops
    pieces: str = ""  # folder of what videos are spliced from, which runs may share; "": in ``out``
    mixture: str = ""  # a .yaml of the reference, read unchanged, beside or instead of ``data``
    rates: Rates = Rates()
    optimizer: Optimizer = Optimizer()
    video: Video = Video()
    lora: Lora = Lora()
    data: tuple[Source, ...] = field(default=())

    @property
    def plan(self) -> Plan:
        """The dropout that holds while training."""
        return parse_plan(self.train_with_dropout, self.dropout_by)

    def at(self, step: int) -> Recipe:
        """The recipe as it holds in one step, from 0: with its dropout or without."""
        return self if step % self.dropout_every == 0 else replace(self, train_with_dropout="")


# What a value must be beyond its type: key -> (test, words).
_SOME: Rule = (lambda n: n >= 1, "at least 1")
_NONE: Rule = (lambda n: n >= 0, "0 or more")
_MORE: Rule = (lambda n: n > 0, "above 0")
_SHARE: Rule = (lambda n: 0 <= n <= 1, "a share from 0 to 1")
_BELOW: Rule = (lambda n: 0 <= n < 1, "from 0 to below 1")
_CLIPS: Rule = (lambda n: n > 0 and n % CLIP == 0, f"a multiple of {CLIP}: videos are read in clips of {CLIP} frames")
_SPAN: Rule = (lambda span: len(span) == 2 and 0 <= span[0] <= span[1], "fewest and most, as [2, 4]")
_GIVEN: Rule = (lambda text: bool(text.strip()), "a path")
RULES: dict[str, Rule] = {
    "out": _GIVEN,
    "model": (lambda name: name in ("", *MODELS), f"one of {', '.join(MODELS)}"),
    **dict.fromkeys(("epochs", "batch", "pack", "max_rows", "save_every", "keep", "tiles", "lora.rank"), _SOME),
    **dict.fromkeys(("dropout_every", "data.world.tokens", "data.world.pieces", "data.world.looks"), _SOME),
    **dict.fromkeys(("image_size", "seed", "steps", "workers", "optimizer.weight_decay"), _NONE),
    **{f"rates.{part}": _NONE for part in PARTS},
    **dict.fromkeys(("optimizer.eps", "optimizer.clip", "lora.alpha", "data.weight", "data.frame_fps"), _MORE),
    "log_scaled_from": (lambda n: n == 0 or n > 1, "0 or at least 2"),
    **dict.fromkeys(("max_bad_share", "optimizer.warmup", "optimizer.fall"), _SHARE),
    "blend": (lambda n: 0 < n <= 1, "a share above 0, up to 1"),
    **dict.fromkeys(("optimizer.beta1", "optimizer.beta2", "lora.dropout"), _BELOW),
    **dict.fromkeys(("video.min_frames", "video.max_frames"), _CLIPS),
    "device": (lambda text: bool(DEVICE.fullmatch(text)), "auto, cpu, mps, cuda or cuda:1"),
    "lora.parts": (
        lambda parts: set(parts) <= set(ADAPTED) and len(set(parts)) == len(parts),
        f"a list of {' and '.join(ADAPTED)}, each at most once",
    ),
    "teach": _NONE,
    **dict.fromkeys(("data.world.count", "data.world.seed", "data.world.patches"), _NONE),
    **dict.fromkeys(("data.world.movers", "data.world.pointers", "data.world.talk"), _SHARE),
    "data.world.clips": (lambda span: _SPAN[0](span) and span[0] > 0, "fewest and most, at least 1, as [3, 6]"),
    **dict.fromkeys(("data.world.cards", "data.world.moving", "data.world.hops", "data.world.skipped"), _SPAN),
    "data.world.characters": (
        lambda text: bool(text) and set(text) <= set(CHARACTERS),
        f"some of {''.join(CHARACTERS)}",
    ),
    "data.world.colours": (lambda some: bool(some) and set(some) <= set(COLOURS), f"some of {', '.join(COLOURS)}"),
    "data.world.shapes": (lambda some: bool(some) and set(some) <= set(SHAPES), f"some of {', '.join(SHAPES)}"),
    "data.world.chains": (lambda n: n >= 2, "at least 2: one to follow, and decoys"),
    "data.world.kinds": (
        lambda kinds: set(kinds) <= set(ALL_KINDS),
        f"a list of {', '.join(ALL_KINDS)}",
    ),
    "data.strategy": (lambda text: bool(STRATEGY.fullmatch(text)), "all, or as first:25%, random:1000, end:10%"),
}
SCHEMA = Schema(Recipe, RULES)


# -- reading -----------------------------------------------------------------------------------------------------------


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a TOML file. Its ``base`` is relative to it; every other path in it to the working directory.
        changes: ``key=value`` or ``table.key=value``, the value as TOML; a bare word is a text.

    Raises:
        FileNotFoundError: no such file, or no such base.
        ValueError: anything in it that cannot be followed; the message names file and key.
    """
    values = _read(Path(path), ())
    for change in changes:
        values = _merged(values, _change(change))
    recipe = SCHEMA.build(values, str(path))
    _check_together(recipe, str(path))
    return recipe


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file's values over those of its base; every file is checked for itself, so that errors name the right one."""
    real = path.resolve()
    if real in above:
        raise ValueError(f"{above[-1]}: base leads in a circle, back to {path}")
    if not path.is_file():
        named = f", the base of {above[-1]}" if above else ""
        raise FileNotFoundError(f"no recipe {path}{named}: name a .toml file")
    values = read_toml(path)
    base = values.pop("base", None)
    if not isinstance(base, str | None):
        raise ValueError(f"{path}: base must be text, the file to derive from, not {base!r}")
    values = SCHEMA.checked(values, str(path))
    return values if base is None else _merged(_read(path.parent / base, (*above, real)), values)


def _change(text: str) -> dict[str, Any]:
    """One ``table.key=value`` as the values of a file."""
    where = f"--set {text}"
    key, equals, word = text.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last or len(tables) > 1:
        raise ValueError(f"{where}: write key=value or table.key=value")
    try:
        parsed = tomllib.loads(f"value = {word}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    value = parsed["value"] if parsed.keys() == {"value"} else word
    if not isinstance(value, str) and SCHEMA.hint(key.strip()) is str:
        value = word  # a folder may be named 2024
    return SCHEMA.checked({tables[0]: {last: value}} if tables else {last: value}, where)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, everything else is replaced, lists as a whole."""
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        merged[key] = _merged(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return merged


# -- checking ----------------------------------------------------------------------------------------------------------


def _check_together(recipe: Recipe, where: str) -> None:
    """Raises ValueError where several keys do not agree."""
    rates, video = vars(recipe.rates), recipe.video
    parts = [part for part in PARTS if vars(recipe)[part]]
    still = [part for part in recipe.lora.parts if not rates[part]]
    drawn = [source.world for source in recipe.data if source.world.kind]
    spliced = any(world.kind == "videos" for world in drawn)
    faults = {
        "each [[data]] table needs an annotation or a world, one of the two": any(
            bool(source.annotation) == bool(source.world.kind) for source in recipe.data
        ),
        "two [[data]] tables have one name: what is drawn would come from the pieces of one of them": (
            len(names := [source.name for source in recipe.data if source.name]) > len(set(names))
        ),
        "a world needs a count of conversations": not all(world.count for world in drawn),
        "a world of videos is spliced from what a frozen tower saw: set rates.tower to 0": spliced and rates["tower"],
        f"{' and '.join(HOPS)} are asked about chains: set data.world.hops, as [1, 3]": any(
            set(world.kinds) & set(HOPS) and not world.hops[1] for world in drawn
        ),
        "chains are cards that point at others: set data.world.pointers above 0": any(
            world.kind == "videos" and world.hops[1] and not world.pointers for world in drawn
        ),
        "data.world.characters, colours and shapes choose pieces of videos; frames and clips show all": any(
            world.kind != "videos" and world.shown != World().shown for world in drawn
        ),
        "data.world.patches: frames, and clips, that are only looked at need the same number everywhere": any(
            len({world.patches for world in drawn if world.kind == kind and world.talk < 1}) > 1
            for kind in ("frames", "clips")
        ),
        "teach is for worlds of frames and clips and a tower that learns, with loss sample": bool(recipe.teach)
        and (
            spliced or len(drawn) < len(recipe.data) or recipe.mixture or not rates["tower"] or recipe.loss != "sample"
        ),
        "heads are what teach reads the tower by: set teach above 0": recipe.heads and not recipe.teach,
        "what has no conversation teaches nothing without teach: set data.world.talk to 1": (
            not recipe.teach and any(world.talk < 1 for world in drawn)
        ),
        "train_with_dropout ranks by the last row of a question, and template plain has none": (
            recipe.template == "plain" and recipe.train_with_dropout.strip() not in ("", "off")
        ),
        "blend mixes with a model that was begun with: name it as start": recipe.blend < 1 and not recipe.start,
        "nothing would train: set a rate in [rates] above 0": not (any(rates.values()) or still),
        f"lora.parts names {' and '.join(still)}: adapters learn at their part's rate in [rates], which is 0": still,
        "no data: add a [[data]] table or name a mixture": not (recipe.data or recipe.mixture),
        "no model: name model, start or both": not (recipe.model or recipe.start),
        f"start is a whole model already: drop {' and '.join(parts)}, or start": recipe.start and parts,
        f"video.min_frames {video.min_frames} is more than video.max_frames {video.max_frames}": (
            video.min_frames > video.max_frames
        ),
    }
    try:
        fault = next((words for words, found in faults.items() if found), "")
        if fault:
            raise ValueError(fault)
        if recipe.model:
            architecture(recipe)
        else:
            parse_plan(recipe.train_with_dropout, recipe.dropout_by)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


# -- what follows from it ----------------------------------------------------------------------------------------------


def architecture(recipe: Recipe, begun: Config | None = None) -> Config:
    """The model that the recipe trains, ``image_size`` and ``log_scaled_from`` applied.

    Args:
        begun: the Config of the model in ``start``; needed where the recipe names no ``model``.

    Raises:
        ValueError: ``start`` holds another model than ``model`` names, or one of another image size where none is said,
            the tower has no such image size, or the decoder no layer at which rows should be dropped.
    """
    named = MODELS[recipe.model] if recipe.model else begun
    if named is None:
        raise ValueError("no model: name model, or a start that can be read")
    size = recipe.image_size or named.vision.image_size
    for config in (named, begun or named):
        if config.vision.kind != "umt" and config.vision.image_size != size:
            raise ValueError(
                f"image_size {size}: the position table of {config.vision.kind} is learned "
                f"for {config.vision.image_size} and cannot be resized"
            )
    try:
        sized = replace(named, vision=replace(named.vision, image_size=size))
        scaled = recipe.log_scaled_from or (begun or named).llm.log_scaled_from
        sized = replace(sized, llm=replace(sized.llm, log_scaled_from=scaled))
    except ValueError as error:
        raise ValueError(f"image_size: {error}") from None
    if begun is not None:
        _check_same(begun, sized, recipe.start)
        if not recipe.image_size and begun.vision.image_size != size:
            told = f"{begun.vision.image_size} pixels, {recipe.model} {size}"
            raise ValueError(f"start {recipe.start} sees {told}: say which with image_size")
    check_plan(recipe.plan, sized.llm)
    return sized


def _check_same(begun: Config, wanted: Config, start: str) -> None:
    """Raises ValueError where weights of ``begun`` do not fit ``wanted``."""
    for part, held, asked in (
        ("tower", vars(begun.vision), vars(wanted.vision)),
        ("decoder", vars(begun.llm), vars(wanted.llm)),
    ):
        for key, value in asked.items():
            if key not in WEIGHTLESS and held[key] != value:
                raise ValueError(f"start {start} holds another model: its {part} has {key} {held[key]}, not {value}")


def steps_of(recipe: Recipe, records: int) -> int:
    """Steps of a training on so many records an epoch; the last batch of all is left out if it is not full."""
    return recipe.steps or max(1, records * recipe.epochs // recipe.batch)
