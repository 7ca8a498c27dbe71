"""LoRA (arXiv 2106.09685) on the decoder, the tower or both, by peft; merged away again for a plain checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from ..model import VideoChatFlashModel

# The linear layers that adapters stand beside. Both kinds of tower use these names.
PARTS = {
    "decoder": r"decoder\.layers\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    "tower": r"vision\.blocks\..*\.(qkv|proj|fc1|fc2)",
}
HELD = {"decoder": ("decoder.", "head."), "tower": ("vision.",)}


def add_adapters(
    model: VideoChatFlashModel, parts: Sequence[str], rank: int, alpha: float, dropout: float, seed: int = 0
) -> VideoChatFlashModel:
    """Put low-rank adapters beside the linear layers of ``parts``; they alone learn in those parts.

    At first they change nothing: their second matrix is zero. The first is drawn from ``seed``, in every process alike.

    Raises:
        ValueError: a part that takes no adapters.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ValueError(f"lora.parts {unknown} are not known: use some of {', '.join(PARTS)}")
    pattern = "|".join(f"({PARTS[part]})" for part in parts)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float does as well
        lora_dropout=dropout,
        target_modules=pattern,
        bias="none",
    )
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        adapter = ".lora_" in name
        beside = any(name.startswith(HELD[part]) for part in parts)
        parameter.requires_grad_(adapter or (not beside and name in learns))
    return model


def merge_adapters(model: VideoChatFlashModel) -> VideoChatFlashModel:
    """Add the adapters into the layers that they stand beside; the model is a plain one again."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            base = layer.get_base_layer()
            assert isinstance(base, nn.Module)
            setattr(model.get_submodule(parent), child, base)
    return model
