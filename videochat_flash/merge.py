"""Token merging: similar tokens of a clip become their mean (paper section 3.1, after arXiv 2210.09461).

Pure functions, written from the mathematics. A clip is merged on its own, so any batch of clips gives the same tokens.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def merge_schedule(tokens: int, keep: int) -> list[int]:
    """How many tokens each round removes: as many as wanted, but never more than half of those there.

    Raises:
        ValueError: fewer tokens than ``keep``, or none to keep.
    """
    if not 0 < keep < tokens:
        raise ValueError(f"cannot merge {tokens} tokens to {keep}: the target must be positive and below {tokens}")
    removals = []
    while tokens > keep:
        removals.append(min(tokens - keep, tokens // 2))
        tokens -= removals[-1]
    return removals


def merge_round(
    x: Float[Tensor, "C p D"], sizes: Float[Tensor, "C p 1"], remove: int, heads: int
) -> tuple[Float[Tensor, "C q D"], Float[Tensor, "C q 1"]]:
    """One round of bipartite merging: ``remove`` tokens at even places join their most similar token at an odd place.

    Similarity is the cosine between features averaged over ``heads`` slices of the width. What is left of the even
    places comes first, most similar first, then every odd place in order; each token is the mean of the original
    tokens in it, and ``sizes`` counts them.
    """
    count, tokens, width = x.shape
    with torch.no_grad():
        metric = x.view(count, tokens, heads, width // heads).mean(dim=2)
        metric = metric / metric.norm(dim=-1, keepdim=True)
        best, target = (metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)).max(dim=-1)
        order = best.argsort(dim=-1, descending=True, stable=True).unsqueeze(-1)
        joining, staying = order[:, :remove], order[:, remove:]
        target = target.unsqueeze(-1).gather(1, joining)
    weighted = torch.cat([x * sizes, sizes], dim=-1)  # sums of features and of sizes travel together
    even, odd = weighted[:, ::2], weighted[:, 1::2]
    wide = (-1, -1, width + 1)
    odd = odd.scatter_add(1, target.expand(wide), even.gather(1, joining.expand(wide)))
    merged = torch.cat([even.gather(1, staying.expand(wide)), odd], dim=1)
    return merged[..., :width] / merged[..., width:], merged[..., width:]


def merge_tokens(
    x: Float[Tensor, "C p D"], keep: int, heads: int, dtype: torch.dtype | None = torch.float32
) -> Float[Tensor, "C q D"]:
    """Merge every clip to ``keep`` tokens.

    Args:
        x: patch tokens of C clips, time-major.
        keep: tokens that stay (the letter M: 64 for a clip of 4 frames, 64 for an image).
        heads: slices of the width that are averaged for similarity: the tower's heads (16 in the releases).
        dtype: arithmetic of similarity and sums; None is the dtype of ``x`` as in the reference, where half precision
            ties the best match of many tokens.

    Returns:
        "C keep D" in the dtype of ``x``; sums over original tokens divided by their number.
    """
    if x.shape[2] % heads:
        raise ValueError(f"width {x.shape[2]} is no multiple of {heads} heads")
    work = x if dtype is None else x.to(dtype)
    sizes = work.new_ones(work.shape[0], work.shape[1], 1)
    for remove in merge_schedule(x.shape[1], keep):
        work, sizes = merge_round(work, sizes, remove, heads)
    return work.to(x.dtype)
