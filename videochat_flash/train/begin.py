"""The model that a recipe starts from: a whole one, or parts of several, or nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer

from ..config import Config
from ..generate import Decoding
from ..model import VideoChatFlashModel
from ..prompt import END_OF_TEXT, IM_END, control
from ..weights import (
    find,
    load_model,
    read_config,
    read_tokenizer,
    released_name,
    stream_tensors,
    weight_files,
)
from .adapters import add_adapters
from .recipe import Recipe, architecture

PARTS = {"tower": ("vision.",), "connector": ("connector.", "newline"), "decoder": ("decoder.", "head.")}


def begin(recipe: Recipe) -> tuple[VideoChatFlashModel, Tokenizer]:
    """Build the model in float32 with what is to learn marked, and its tokenizer.

    Weights are drawn from the recipe's seed where none are named.

    Raises:
        FileNotFoundError: a model, a part or a tokenizer that is not there.
        ValueError: weights that do not fit.
    """
    if recipe.start:
        folder = find(recipe.start)
        begun = read_config(folder)
        config = architecture(recipe, begun)
        loaded = load_model(folder, begun, torch.float32)
        model = loaded if config == begun else _resized(loaded, config)
        tokenizer = read_tokenizer(folder)
    else:
        model = fresh(architecture(recipe), recipe.seed)
        for part, place in (("tower", recipe.tower), ("connector", recipe.connector), ("decoder", recipe.decoder)):
            if place:
                _load_part(model, part, Path(place).expanduser())
        tokenizer = read_tokenizer(find(recipe.decoder or recipe.model))
    return choose_parts(model, recipe), tokenizer


def fresh(config: Config, seed: int) -> VideoChatFlashModel:
    """A model of small random weights: embeddings of unit size, tied to the head, would drown its first logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VideoChatFlashModel(config)
        for parameter in model.decoder.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.02)
    return model


def choose_parts(model: VideoChatFlashModel, recipe: Recipe) -> VideoChatFlashModel:
    """Mark what learns: parts with a rate, or their adapters. A frozen tower answers as it would in use."""
    rates = vars(recipe.rates)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(rates[part_of(name)] > 0)
    model.train()
    if recipe.lora.parts:
        own = recipe.lora
        add_adapters(model, own.parts, own.rank, own.alpha, own.dropout, recipe.seed)
    for part, module in (("tower", model.vision), ("connector", model.connector), ("decoder", model.decoder)):
        module.train(rates[part] > 0)
    return model


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to."""
    return next(part for part, prefixes in PARTS.items() if name.startswith(prefixes))


def decoding_of(tokenizer: Tokenizer) -> Decoding:
    """Greedy, up to the tokens that end an answer."""
    return Decoding(eos=(control(tokenizer, IM_END), control(tokenizer, END_OF_TEXT)))


def _resized(model: VideoChatFlashModel, config: Config) -> VideoChatFlashModel:
    """The same weights for images of another size: UMT's position table is computed, none of its weights change."""
    with torch.device("meta"):
        sized = VideoChatFlashModel(config)
    sized.load_state_dict(model.state_dict(), assign=True)
    return sized


def _load_part(model: VideoChatFlashModel, part: str, place: Path) -> None:
    """Fill one part from a safetensors file, a folder of them, or a model by name.

    Raises:
        ValueError: keys that are missing or have another shape.
    """
    config, own = model.config, model.state_dict()
    wanted = {released_name(name, config): name for name in own if part_of(name) == part and name != "newline"}
    place = place if place.exists() else find(place)
    files = weight_files(place) if place.is_dir() else [place]
    found = {wanted[key]: tensor.float() for key, tensor in stream_tensors(files) if key in wanted}
    for key, name in wanted.items():
        shape, there = tuple(own[name].shape), tuple(found[name].shape) if name in found else "nothing"
        if there != shape:
            raise ValueError(f"{place} does not fit the model: {key} should be {shape}, and there is {there}")
    model.load_state_dict(found, strict=False)
