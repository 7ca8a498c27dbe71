"""Less memory for a small error: the decoder's weights as int8, its keys and values as float8.

Tower and connector stay as they are, so a Sight serves a model however it is held. So do embeddings and head, where an
error would meet the scores as it is. Handed in, as prefixes are: the core knows nothing of it but that a decoder says
what its caches are. ``vcflash bench`` tells what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from . import weights
from .chat import VideoChatFlash, check_device
from .generate import Steps
from .llm import LayerCache
from .model import VideoChatFlashModel

FEW, LANES = 8, 32  # rows up to which PyTorch's kernel for CPUs is used, and what their length must be a multiple of
FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max  # 448: what is larger would be cut off, so rows are scaled
SCALE = torch.bfloat16  # of a row of keys or values
LEAST = 2.0**-60  # a scale that is no zero, for rows of zeros


@dataclass(frozen=True)
class Packing:
    """How a decoder is held: as loaded, or smaller.

    Attributes:
        weights: "int8", or None.
        cache: "fp8", or None.
    """

    weights: str | None = None
    cache: str | None = None

    @staticmethod
    def of(quantization: str | None, kv_cache_dtype: str) -> Packing:
        """Of the command line's options."""
        return Packing(quantization, None if kv_cache_dtype == "auto" else kv_cache_dtype)

    def __bool__(self) -> bool:
        return self.weights is not None or self.cache is not None

    def __str__(self) -> str:
        told = [f"{self.weights} weights"] if self.weights else []
        return " and ".join([*told, f"{self.cache} keys and values"] if self.cache else told)

    def check(self, device: str) -> None:
        """Raises ValueError for a device that cannot hold it."""
        check_device(device)
        if self.cache and torch.device(device).type == "mps":
            raise ValueError(f"--kv-cache-dtype {self.cache} does not work on {device}, which has no such numbers")

    def apply(self, model: VideoChatFlashModel) -> VideoChatFlashModel:
        """Change a model in place; it cannot be trained or saved any more."""
        if self.weights:
            for module in list(model.decoder.layers.modules()):
                for name, child in module.named_children():
                    if isinstance(child, nn.Linear):
                        setattr(module, name, Int8Linear(child))
        if self.cache:
            model.decoder.cache = Float8Cache
        return model


AS_LOADED = Packing()


def load(
    name: str | Path,
    packing: Packing,
    *,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    steps: Steps | None = None,
) -> VideoChatFlash:
    """``VideoChatFlash.from_pretrained`` of a model that is held smaller. Weights become int8 on the host: a device
    never has to hold them as they were.

    Raises:
        FileNotFoundError: no such model.
        ValueError: weights that do not fit, or a device that is not there or cannot hold them so.
    """
    packing.check(device)
    if not packing.weights:
        vc = VideoChatFlash.from_pretrained(name, revision=revision, dtype=dtype, device=device, steps=steps)
        packing.apply(vc.model)
        return vc
    folder = weights.find(name, revision)
    model = packing.apply(weights.load_model(folder, weights.read_config(folder), dtype))
    if dtype is None and device == "cpu":
        model.suit_cpu()
    return VideoChatFlash(model.to(device), weights.read_tokenizer(folder), weights.read_decoding(folder), steps)


class Int8Linear(nn.Module):
    """A linear layer whose weights are whole numbers times a scale for each output, by the largest of its weights."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        exact = linear.weight.detach().float()
        scale = (exact.abs().amax(1) / 127).clamp(min=LEAST).to(linear.weight.dtype)  # so it adds no error of its own
        whole = (exact / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        bias = None if linear.bias is None else linear.bias.detach()
        for name, value in {"weight": whole, "scale": scale, "bias": bias}.items():
            self.register_buffer(name, value)

    def forward(self, x: Float[Tensor, "T E"]) -> Float[Tensor, "T inner"]:
        """Weights are written out for a product and forgotten. On a CPU a few rows meet them as they are, in bfloat16:
        that takes a tenth of the time (docs/decisions.md)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if x.shape[0] > FEW or x.shape[1] % LANES or not x.is_cpu:  # with other lengths that kernel reads beyond rows
            return F.linear(x, self.weight * self.scale.to(x.dtype)[:, None], bias)
        ones = self.scale.new_ones(len(self.scale), dtype=torch.bfloat16)
        made = torch._weight_int8pack_mm(x.bfloat16(), self.weight, ones).to(x.dtype) * self.scale.to(x.dtype)
        return made if bias is None else made + bias


class Float8Cache(LayerCache):
    """Rows are cast when they come and cast back when they are attended to, by those that came with them, too: so it
    is no matter in how many pieces a prompt passes. Behind the numbers of a row stands its scale, in two bytes."""

    def extend(
        self, keys: Float[Tensor, "K n H"], values: Float[Tensor, "K n H"]
    ) -> tuple[Float[Tensor, "K m H"], Float[Tensor, "K m H"]]:
        """Append rows and return all that are held, cast back."""
        held = super().extend(_packed(keys), _packed(values))
        return _unpacked(held[0], keys.dtype), _unpacked(held[1], keys.dtype)


def _packed(rows: Float[Tensor, "K n H"]) -> Float[Tensor, "K n bytes"]:
    wide = rows.float()
    scale = (wide.abs().amax(-1, keepdim=True) / LARGEST).clamp(min=LEAST).to(SCALE)
    made = torch.empty(*rows.shape[:2], rows.shape[2] + SCALE.itemsize, dtype=FLOAT8, device=rows.device)
    made[..., : -SCALE.itemsize] = wide / scale.float()
    made[..., -SCALE.itemsize :].view(SCALE).copy_(scale)
    return made


def _unpacked(held: Float[Tensor, "K m bytes"], dtype: torch.dtype) -> Float[Tensor, "K m H"]:
    scale = held[..., -SCALE.itemsize :].view(SCALE).to(dtype)
    return held[..., : -SCALE.itemsize].to(dtype).mul_(scale)
