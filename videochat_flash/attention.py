"""Softmax attention of towers and decoder: PyTorch's fused kernel, or plain products where these are faster."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MASKED = 512  # rows of a mask: as bytes and as scores it takes their number times that of all rows held
SHORT = 400  # rows up to which plain products learn faster on a CPU than the fused kernel (docs/decisions.md)
BLOCK = 256  # causal rows at a time, by which that is faster whatever their number
KEPT = 2**28  # heads times rows times rows, beyond which their scores are not kept but made anew for the backward pass


def attend(
    q: Float[Tensor, "B N n H"], k: Float[Tensor, "B K m H"], v: Float[Tensor, "B K m H"], causal: bool = False
) -> Float[Tensor, "B N n H"]:
    """softmax(q k^T / sqrt(H)) v, query heads sharing key heads in equal groups.

    Args:
        causal: the n rows are the last of the m, and each sees itself and those before it alone.
    """
    rows, held, grouped = q.shape[2], k.shape[2], q.shape[1] != k.shape[1]
    half = q.is_cuda and q.dtype != torch.float32 and q.shape[3] % 8 == 0  # what the flash kernel takes, since Ampere
    half = half and torch.cuda.get_device_capability(q.device) >= (8, 0)
    if grouped and q.is_cuda and not half:  # kernels that keep no n x m scores want as many key heads as query heads
        k, v, grouped = *(x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v)), False
    if half and rows == 1:  # what PyTorch may prefer, cuDNN, makes a plan for each number of rows held
        return attend_flash(q, k, v)[0]
    if causal and 1 < rows < held:  # PyTorch's flag would take the rows for the first ones
        if half or q.device.type == "cpu":
            return attend_after(q, k, v)
        return attend_masked(q, k, v)
    if causal and q.requires_grad and q.device.type == "cpu" and rows > BLOCK:
        few = q.shape[0] * q.shape[1] * rows**2 <= KEPT
        done = attend_short if few else partial(checkpoint, attend_short, use_reentrant=False)
        ends = range(BLOCK, rows + BLOCK, BLOCK)
        return torch.cat([done(q[:, :, e - BLOCK : e], k[:, :, :e], v[:, :, :e], True) for e in ends], 2)
    if q.requires_grad and q.device.type == "cpu" and rows <= SHORT:
        return attend_short(q, k, v, causal)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal and rows > 1, enable_gqa=grouped)


def attend_after(
    q: Float[Tensor, "B N n H"], k: Float[Tensor, "B K m H"], v: Float[Tensor, "B K m H"]
) -> Float[Tensor, "B N n H"]:
    """The same for the last rows: over those before them and among themselves, weighed by sums of exponentials."""
    held = k.shape[2] - q.shape[2]
    before, log_before = attend_flash(q, k[:, :, :held], v[:, :, :held])
    own, log_own = attend_flash(q, k[:, :, held:], v[:, :, held:], causal=True)
    return torch.lerp(own.float(), before.float(), (log_before - log_own).sigmoid()[..., None]).to(own.dtype)


def attend_masked(
    q: Float[Tensor, "B N n H"], k: Float[Tensor, "B K m H"], v: Float[Tensor, "B K m H"]
) -> Float[Tensor, "B N n H"]:
    """The same for the last rows by a mask, of some rows at a time: one of all would be larger than anything else."""
    places, grouped = torch.arange(k.shape[2], device=q.device), q.shape[1] != k.shape[1]
    parts = zip(q.split(MASKED, 2), places[-q.shape[2] :].split(MASKED), strict=True)
    seen = ((some, places <= rows[:, None]) for some, rows in parts)
    return torch.cat([F.scaled_dot_product_attention(some, k, v, m, enable_gqa=grouped) for some, m in seen], 2)


def attend_flash(
    q: Float[Tensor, "B N n H"], k: Float[Tensor, "B K m H"], v: Float[Tensor, "B K m H"], causal: bool = False
) -> tuple[Float[Tensor, "B N n H"], Float[Tensor, "B N n"]]:
    """The same by PyTorch's flash kernel, which tells the logarithm of each row's sum of exponentials, too."""
    ops = torch.ops.aten
    fused = ops._scaled_dot_product_flash_attention if q.is_cuda else ops._scaled_dot_product_flash_attention_for_cpu
    return fused(q, k, v, 0.0, causal)[:2]


def attend_short(
    q: Float[Tensor, "B N n H"], k: Float[Tensor, "B K m H"], v: Float[Tensor, "B K m H"], causal: bool
) -> Float[Tensor, "B N n H"]:
    """The same by matrix products over n x m scores; causal, the n rows are the last of the m."""
    groups, rows, columns = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    query = q.to(k.dtype).reshape(-1, groups * rows, q.shape[3])  # query heads of one key head, below each other
    hidden = query.new_full((rows, columns), -math.inf if causal else 0.0).triu(1 + columns - rows)
    keys, values = k.flatten(0, 1), v.to(k.dtype).flatten(0, 1)
    with torch.autocast(q.device.type, enabled=False):  # it would take the softmax to float32, at twice the time
        scores = torch.baddbmm(hidden.repeat(groups, 1), query, keys.transpose(1, 2), alpha=1 / math.sqrt(q.shape[3]))
        return torch.bmm(scores.softmax(dim=-1), values).view(q.shape)
