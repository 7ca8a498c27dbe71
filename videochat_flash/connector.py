"""From the tower to the language model: merge each clip's tokens, then a two-layer MLP (paper section 3.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .config import Config
from .merge import merge_tokens


class Connector(nn.Module):
    """Released under the name ``tome16_mlp_hd64``."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.vision.heads
        self.tokens_per_frame = config.tokens_per_frame
        self.image_tokens = config.image_tokens
        width, out = config.vision.width, config.llm.width
        self.mlp = nn.Sequential(nn.Linear(width, out), nn.GELU(), nn.Linear(out, out))

    def merge(
        self, x: Float[Tensor, "C p D"], frames: int, dtype: torch.dtype | None = torch.float32
    ) -> Float[Tensor, "C M D"]:
        """Merge clips of ``frames`` frames to 16 tokens a frame, or images (``frames`` = 1) to 64 tokens."""
        keep = self.image_tokens if frames == 1 else self.tokens_per_frame * frames
        return merge_tokens(x, keep, self.heads, dtype)

    def forward(self, x: Float[Tensor, "C p D"], frames: int) -> Float[Tensor, "C M E"]:
        """Patch tokens of C clips -> the tokens that the language model reads."""
        return self.mlp(self.merge(x, frames).to(next(self.mlp.parameters()).dtype))
