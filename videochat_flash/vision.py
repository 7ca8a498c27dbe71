"""The video towers: clips of frames -> patch tokens (paper section 3.1). Attention never leaves a clip.

Two towers, which share only what is truly the same: UMT-L computes its position table, InternVideo2-1B learns it.
Modules carry the names of the released checkpoints.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from .attention import attend
from .config import PIXEL_MEAN, PIXEL_STD, VisionConfig

PRETRAINED_GRID = 14  # UMT's position table is made for 14 x 14 patches; other grids interpolate it
PRETRAINED_FRAMES = 4


def sinusoid(places: Tensor, width: int) -> Tensor:
    """angle(p, j) = p / 10000^(2 floor(j/2) / width); even j sine, odd j cosine; in float64."""
    j = torch.arange(width, dtype=torch.float64)
    angle = places.double()[:, None] / 10000 ** (2 * (j // 2) / width)
    return torch.where(j % 2 == 0, angle.sin(), angle.cos())


@lru_cache(maxsize=8)
def umt_positions(frames: int, grid: int, width: int, device: torch.device) -> Float[Tensor, "p D"]:
    """UMT's position table for a clip: a sinusoid over the flat token index, time-major, resized where needed.

    An image (one frame) takes the first frame of the table. Nothing of it is in a checkpoint.
    """
    side = PRETRAINED_GRID
    with torch.inference_mode(False), torch.no_grad():
        table = sinusoid(torch.arange(PRETRAINED_FRAMES * side * side), width).float()
        table = table.view(PRETRAINED_FRAMES, side, side, width)
        if side != grid:
            maps = F.interpolate(table.permute(0, 3, 1, 2), size=(grid, grid), mode="bicubic", align_corners=False)
            table = maps.permute(0, 2, 3, 1)
        table = table.reshape(PRETRAINED_FRAMES, grid * grid, width)
        if frames == 1:
            table = table[:1]
        elif frames != PRETRAINED_FRAMES:
            table = F.interpolate(table.permute(1, 2, 0), size=frames, mode="linear").permute(2, 0, 1)
        return table.reshape(-1, width).to(device)


def internvideo2_positions(frames: int, grid: int, width: int) -> Float[Tensor, "p D"]:
    """The values InternVideo2's learned tables start from: a zero row for the class token, then 3-D sine-cosine.

    A quarter of the width encodes time, three eighths the column and three eighths the row, each as [sin | cos].
    """

    def encode(index: Tensor, channels: int) -> Tensor:
        half = channels // 2
        angle = index.double()[:, None] / 10000 ** (torch.arange(half, dtype=torch.float64) / half)
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    time, row, column = (
        axis.reshape(-1)
        for axis in torch.meshgrid(torch.arange(frames), torch.arange(grid), torch.arange(grid), indexing="ij")
    )
    quarter, space = width // 4, width // 4 * 3 // 2
    table = torch.cat([encode(time, quarter), encode(column, space), encode(row, space)], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table]).float()


def normalise(pixels: UInt8[Tensor, "... h w 3"]) -> Float[Tensor, "... 3 h w"]:
    """RGB levels, on any device, as the towers see them: x / 255, less the mean, over the standard deviation."""
    width, whole = pixels.shape[-2], torch.tensor(255.0, device=pixels.device)  # no number: a GPU would multiply
    mean, std = (torch.tensor(one, device=pixels.device).repeat(width) for one in (PIXEL_MEAN, PIXEL_STD))
    rows = pixels.flatten(-2).float().div_(whole).sub_(mean).div_(std)
    return rows.unflatten(-1, (width, 3)).movedim(-1, -3)


class PatchEmbed(nn.Module):
    """Pixels of each patch of each frame -> one token: "C F 3 h w" -> "C F*P D"."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        kernel = (1, config.patch, config.patch)
        self.proj = nn.Conv3d(3, config.width, kernel_size=kernel, stride=kernel)

    def forward(self, clips: Float[Tensor, "C F 3 h w"]) -> Float[Tensor, "C p D"]:
        # kernel equals stride, so the convolution is one matrix product over cut-out patches (bitwise steadier on CPU)
        count, frames, _, height, width = clips.shape
        side = self.proj.kernel_size[1]
        patches = clips.reshape(count, frames, 3, height // side, side, width // side, side)
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
        return F.linear(patches.to(self.proj.weight.dtype), self.proj.weight.flatten(1), self.proj.bias)


class Mlp(nn.Module):
    """Two linear layers around an exact (erf) GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "C p D"]) -> Float[Tensor, "C p D"]:
        return self.fc2(F.gelu(self.fc1(x)))


def attend_heads(
    q: Float[Tensor, "C p D"], k: Float[Tensor, "C p D"], v: Float[Tensor, "C p D"], heads: int
) -> Float[Tensor, "C p D"]:
    """Full attention among the tokens of each clip."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return attend(q, k, v).transpose(1, 2).flatten(2)


class UmtAttention(nn.Module):
    """Attention whose queries and values have a bias and whose keys have none."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "C p D"]) -> Float[Tensor, "C p D"]:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        return self.proj(attend_heads(q, k, v, self.heads))


class UmtBlock(nn.Module):
    """Pre-norm block of UMT-L."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = UmtAttention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = Mlp(config.width, config.mlp_width)

    def forward(self, x: Float[Tensor, "C p D"]) -> Float[Tensor, "C p D"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Umt(nn.Module):
    """UMT-L: joint space-time attention in a clip, computed positions, no class token."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(UmtBlock(config) for _ in range(config.depth))
        self.vision_layernorm = nn.LayerNorm(config.width, eps=1e-12)

    def forward(self, clips: Float[Tensor, "C F 3 h w"]) -> Float[Tensor, "C p D"]:
        """Normalised pixels of C clips (F = 4), or of C images (F = 1) -> F*P tokens each, time-major."""
        return self.encode(self.embed(clips))

    def embed(self, clips: Float[Tensor, "C F 3 h w"]) -> Float[Tensor, "C p D"]:
        """Patches with their positions, before any attention."""
        x = self.patch_embed(clips)
        return x + umt_positions(clips.shape[1], self.config.grid, self.config.width, x.device).to(x.dtype)

    def encode(self, x: Float[Tensor, "C p D"]) -> Float[Tensor, "C p D"]:
        """All blocks and the final norm; also over some of a clip's patches, since each carries its position."""
        for block in self.blocks:
            x = block(x)
        norm = self.vision_layernorm  # its epsilon of 1e-12 is lost in half precision, so it runs in float32
        wide = F.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
        return wide.to(x.dtype)


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast back, times a weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class LayerScale(nn.Module):
    """A factor per channel, multiplied in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return (x.float() * self.weight.float()).to(x.dtype)


class InternVideo2Attention(nn.Module):
    """Attention without qkv bias; queries and keys are normalised over the whole width, all heads together."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = RMSNorm(width, 1e-6)
        self.k_norm = RMSNorm(width, 1e-6)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "C p D"]) -> Float[Tensor, "C p D"]:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(attend_heads(self.q_norm(q), self.k_norm(k), v, self.heads))


class InternVideo2Block(nn.Module):
    """Pre-norm block of InternVideo2-1B, each branch scaled per channel."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.width, 1e-6)
        self.attn = InternVideo2Attention(config.width, config.heads)
        self.ls1 = LayerScale(config.width)
        self.norm2 = RMSNorm(config.width, 1e-6)
        self.mlp = Mlp(config.width, config.mlp_width)
        self.ls2 = LayerScale(config.width)

    def forward(self, x: Float[Tensor, "C p D"]) -> Float[Tensor, "C p D"]:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class InternVideo2(nn.Module):
    """InternVideo2-1B: a class token before each clip, learned positions for clips and for images, no final norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(internvideo2_positions(config.clip_frames, config.grid, config.width)[None])
        self.img_pos_embed = nn.Parameter(internvideo2_positions(1, config.grid, config.width)[None])
        self.blocks = nn.ModuleList(InternVideo2Block(config) for _ in range(config.depth))

    def forward(self, clips: Float[Tensor, "C F 3 h w"]) -> Float[Tensor, "C p D"]:
        """Normalised pixels of C clips, or of C images (F = 1) -> F*P tokens each; the class token is dropped."""
        x = self.patch_embed(clips)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + (self.img_pos_embed if clips.shape[1] == 1 else self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return x[:, 1:]


def make_tower(config: VisionConfig) -> Umt | InternVideo2:
    """The tower that ``config.kind`` names, with fresh weights."""
    return Umt(config) if config.kind == "umt" else InternVideo2(config)
