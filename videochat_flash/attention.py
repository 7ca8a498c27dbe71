"""Softmax attention of towers and decoder: PyTorch's fused kernel, or plain products where these are faster."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MASKED = 256  # rows that one mask serves
SHORT = 400  # rows up to which plain products learn faster on a CPU than the fused kernel (docs/decisions.md)


def attend(
    q: Float[Tensor, "B N n H"], k: Float[Tensor, "B K m H"], v: Float[Tensor, "B K m H"], causal: bool = False
) -> Float[Tensor, "B N n H"]:
    """softmax(q k^T / sqrt(H)) v, query heads sharing key heads in equal groups.

    Args:
        causal: the n rows are the last of the m, and each sees itself and those before it alone.
    """
    if causal and 1 < q.shape[2] < k.shape[2]:
        return torch.cat([_attend_last(part, k, v, at, q.shape[2]) for at, part in _parts(q)], dim=2)
    causal = causal and q.shape[2] > 1
    if q.requires_grad and q.device.type == "cpu" and q.shape[2] <= SHORT:
        return attend_short(q, k, v, causal)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def _parts(q: Float[Tensor, "B N n H"]) -> Iterator[tuple[int, Float[Tensor, "B N _ H"]]]:
    return ((at, q[:, :, at : at + MASKED]) for at in range(0, q.shape[2], MASKED))


def _attend_last(
    q: Float[Tensor, "B N n H"], k: Float[Tensor, "B K m H"], v: Float[Tensor, "B K m H"], at: int, rows: int
) -> Float[Tensor, "B N n H"]:
    """Rows ``at`` and on of the last ``rows`` of m; PyTorch's causal flag would take them for the first."""
    first = k.shape[2] - rows + at
    seen = (
        torch.arange(k.shape[2], device=q.device) <= torch.arange(first, first + q.shape[2], device=q.device)[:, None]
    )
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=q.shape[1] != k.shape[1])


def attend_short(
    q: Float[Tensor, "B N n H"], k: Float[Tensor, "B K m H"], v: Float[Tensor, "B K m H"], causal: bool
) -> Float[Tensor, "B N n H"]:
    """The same by matrix products over n x m scores."""
    groups, rows, columns = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    query = q.to(k.dtype).reshape(-1, groups * rows, q.shape[3])  # query heads of one key head, below each other
    hidden = query.new_zeros(rows, columns)
    if causal:
        hidden = query.new_full((rows, columns), -math.inf).triu(1)
    keys, values = k.flatten(0, 1), v.to(k.dtype).flatten(0, 1)
    with torch.autocast(q.device.type, enabled=False):  # it would take the softmax to float32, at twice the time
        scores = torch.baddbmm(hidden.repeat(groups, 1), query, keys.transpose(1, 2), alpha=1 / math.sqrt(q.shape[3]))
        return torch.bmm(scores.softmax(dim=-1), values).view(q.shape)
