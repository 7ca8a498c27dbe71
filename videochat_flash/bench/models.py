"""What is measured: a checkpoint, or any size with weights drawn in a moment, for which nothing is downloaded."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .. import steady, weights
from ..chat import VideoChatFlash
from ..config import FLASH_TINY, RELEASE_OWNER, RELEASES, Config, LLMConfig, VisionConfig, parse_plan
from ..generate import Decoding
from ..model import VideoChatFlashModel, sampled
from ..quantise import AS_LOADED, Packing

CARD_PLAN = parse_plan("4:0.75,18:0.25")  # the dropout that the released models' card shows
# The released 7B at 224 pixels with every width divided by 8, as deep as it is, for ratios on a CPU. Query heads are
# half as wide as there, since 28 / 8 is no number of heads.
EIGHTH = Config(
    vision=VisionConfig(width=128, heads=2, mlp_width=512),
    llm=LLMConfig(vocab=19008, width=448, heads=7, kv_heads=1, ffn=2368, max_positions=1_010_000),
    keep=CARD_PLAN,
)
STAND_IN = "umt-qwen-eighth"
PRESETS = {weights.EMBEDDED: FLASH_TINY, **RELEASES, STAND_IN: EIGHTH}
NOISE = 1_000_003  # numbers drawn once and laid out again and again; a prime, so that no two rows of a matrix are alike


def config_of(name: str, image_size: int | None = None) -> Config:
    """The sizes of a preset, or of a folder with a config.json; no weights are needed.

    Raises:
        FileNotFoundError: neither.
        ValueError: an image size that is no multiple of the patch.
    """
    short = name.removeprefix(f"{RELEASE_OWNER}/")
    if short in PRESETS and not Path(name).is_dir():
        config = PRESETS[short]
    else:
        config = weights.read_config(weights.find(name, wanted=("config.json",)))
    return config if image_size is None else replace(config, vision=replace(config.vision, image_size=image_size))


def load(
    name: str,
    random: bool,
    dtype: torch.dtype | None,
    device: str,
    image_size: int | None = None,
    packing: Packing = AS_LOADED,
) -> VideoChatFlash:
    """A model to measure.

    Args:
        name: a preset or a folder; of checkpoints also whatever ``from_pretrained`` takes.
        random: draw the weights. The tokenizer is then the folder's own or, of a preset, the embedded model's.
        dtype: of the weights; None is the stored one, bfloat16 where they are drawn, or on a CPU what suits it.
        device: where.
        image_size: pixels of a side; None is the model's own.
        packing: how the decoder is held. Weights become int8 on the host: a device never has to hold them as they were.

    Raises:
        FileNotFoundError: no such model.
        ValueError: weights that do not fit, or the stand-in without ``random``: it has none.
    """
    place = "cpu" if packing.weights else device
    if not random:
        if name == STAND_IN:
            raise ValueError(f"{STAND_IN} has no trained weights: add --random-weights")
        folder = weights.find(name)
        config = config_of(str(folder), image_size)
        model, decoding = weights.load_model(folder, config, dtype, place), weights.read_decoding(folder)
    else:
        model, decoding = random_model(config_of(name, image_size), dtype or torch.bfloat16, place), Decoding()
        folder = weights.find(name if Path(name).is_dir() else weights.EMBEDDED)
    packing.apply(model)
    if dtype is None and device == "cpu":
        model.suit_cpu()
    return VideoChatFlash(model.to(device), weights.read_tokenizer(folder), decoding, steady.steps)


def mark_of(config: Config, model: VideoChatFlashModel | None = None) -> str:
    """By which a model is told from others of its name: its sizes and, where it was loaded, a sample of its weights."""
    known = b"" if model is None else sampled(model)
    return hashlib.sha256(repr(config).encode() + known).hexdigest()[:8]


def random_model(config: Config, dtype: torch.dtype, device: str) -> VideoChatFlashModel:
    """Full-size weights, made where they stay: the same noise in every matrix, scaled so that activations stay even.

    Norms are 1 and biases 0. The numbers say nothing; time and memory are those of any weights.
    """
    model = weights.skeleton(config).to(dtype).to_empty(device=device)
    noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    for name, weight in model.named_parameters():
        weight.requires_grad_(False)
        if weight.ndim < 2:
            weight.fill_(float("norm" in name or ".ls" in name))
        else:
            _lay_out(weight.data, noise * weight[0].numel() ** -0.5)
    return model.eval()


def _lay_out(weight: Tensor, noise: Tensor) -> None:
    flat = weight.view(-1)
    whole = len(flat) // len(noise)
    flat[: whole * len(noise)].view(whole, len(noise)).copy_(noise.expand(whole, -1))
    flat[whole * len(noise) :].copy_(noise[: len(flat) - whole * len(noise)])
