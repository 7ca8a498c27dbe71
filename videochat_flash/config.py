"""What a model is: frozen dataclasses and the released sizes.

Imports nothing of ours, nor torch. The letters that shapes are written in, everywhere in the package:

====  =========================================  ====  ==================================
C     clips                                      D     vision width
F     frames in a clip (4)                       E     LLM width
P     patches in a frame (196 at 224/16)         N     heads
M     tokens a clip keeps (64: 16 per frame)     K     key/value heads
S     visual tokens of a video (C * M)           H     head width
T     rows on the packed axis                    V     vocabulary
h w   pixels
====  =========================================  ====  ==================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
KEEP_BY = ("uniform", "attention", "uniform0_attention", "uniform1_attention")


@dataclass(frozen=True)
class VisionConfig:
    """A video tower (paper section 3.1). The defaults are UMT-L at 224 pixels as released."""

    kind: Literal["umt", "internvideo2"] = "umt"
    image_size: int = 224
    patch: int = 16
    clip_frames: int = 4
    width: int = 1024
    depth: int = 23  # blocks that exist: the releases read the last but one layer of 24 and drop the rest
    heads: int = 16
    mlp_width: int = 4096

    def __post_init__(self) -> None:
        if self.kind not in ("umt", "internvideo2"):
            raise ValueError(f"vision kind {self.kind!r} is not known: use 'umt' or 'internvideo2'")
        if self.image_size % self.patch or self.width % self.heads:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of patch {self.patch}, "
                f"and width {self.width} of heads {self.heads}"
            )

    @property
    def grid(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch

    @property
    def patches(self) -> int:
        """Patches in one frame, the letter P."""
        return self.grid**2


@dataclass(frozen=True)
class Yarn:
    """YaRN rope scaling (arXiv 2309.00071), as Qwen2 configs ask for it."""

    factor: float
    original_max_positions: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True)
class LLMConfig:
    """A Qwen2 / Qwen2.5 decoder. The defaults are the released 7B."""

    vocab: int = 152064
    width: int = 3584
    layers: int = 28
    heads: int = 28
    kv_heads: int = 4
    ffn: int = 18944
    rope_theta: float = 1e6
    rms_eps: float = 1e-6
    max_positions: int = 32768
    tied: bool = False
    yarn: Yarn | None = None
    log_scaled_from: int = 0  # rows beyond which queries grow with the logarithm of their position; 0: never

    def __post_init__(self) -> None:
        if min(self.vocab, self.width, self.layers, self.heads, self.kv_heads, self.ffn, self.max_positions) < 1:
            raise ValueError(f"a decoder's sizes are numbers above 0: {self}")
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"width {self.width} must be a multiple of heads {self.heads}, and heads of kv_heads {self.kv_heads}"
            )
        if self.log_scaled_from < 0 or self.log_scaled_from == 1:
            raise ValueError(f"log_scaled_from {self.log_scaled_from} is no number of rows: 2 or more, or 0 for never")

    @property
    def head_width(self) -> int:
        """Width of one attention head, the letter H."""
        return self.width // self.heads

    @property
    def limit(self) -> int:
        """Rows that it was made for; with YaRN those that it is stretched to, whichever ``max_positions`` tells."""
        return int(self.yarn.factor * self.yarn.original_max_positions) if self.yarn else self.max_positions


@dataclass(frozen=True)
class Drop:
    """Keep ``ratio`` of a video's original tokens, chosen just before decoder layer ``layer`` (paper section 3.2)."""

    layer: int
    ratio: float
    by: Literal["uniform", "attention"] = "attention"

    def __post_init__(self) -> None:
        if self.layer < 0 or not 0.0 <= self.ratio <= 1.0:
            raise ValueError(f"a drop needs layer >= 0 and 0 <= ratio <= 1, not {self.layer}:{self.ratio}")


Plan = tuple[Drop, ...]


def drop_plan(kind: str, layers: tuple[int, ...], ratios: tuple[float, ...]) -> Plan:
    """The published kinds of dropout as a plan.

    Args:
        kind: ``uniform``, ``attention``, or ``uniform0_attention`` / ``uniform1_attention``, whose first one / two
            drops are uniform and the rest by attention.
        layers: where to drop, ascending; one entry per drop.
        ratios: the share of the original tokens that each drop leaves.

    Raises:
        ValueError: unknown kind, unequal lengths, layers not ascending, or ratios that grow.
    """
    if kind not in KEEP_BY:
        raise ValueError(f"dropout kind {kind!r} is not known: use one of {', '.join(KEEP_BY)}")
    if len(layers) != len(ratios):
        raise ValueError(f"{len(layers)} layers need as many ratios, not {len(ratios)}")
    if any(b <= a for a, b in zip(layers, layers[1:], strict=False)):
        raise ValueError(f"dropout layers must ascend, not {list(layers)}")
    if any(b > a for a, b in zip(ratios, ratios[1:], strict=False)):
        raise ValueError(f"dropout ratios are shares of the original tokens and cannot grow: {list(ratios)}")
    uniform = {"uniform": len(layers), "attention": 0, "uniform0_attention": 1, "uniform1_attention": 2}[kind]
    return tuple(
        Drop(layer, ratio, "uniform" if i < uniform else "attention")
        for i, (layer, ratio) in enumerate(zip(layers, ratios, strict=True))
    )


def parse_plan(text: str, kind: str = "attention") -> Plan:
    """A plan from the command line: ``"4:0.75,18:0.25"``; an empty text or ``"off"`` drops nothing.

    Raises:
        ValueError: text that is not a list of layer:ratio pairs.
    """
    if text.strip() in ("", "off"):
        return ()
    try:
        pairs = [(int(a), float(b)) for a, b in (item.split(":") for item in text.split(","))]
    except ValueError:
        raise ValueError(f"dropout plan {text!r} is not layer:ratio pairs such as '4:0.75,18:0.25' or off") from None
    return drop_plan(kind, tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


@dataclass(frozen=True)
class Config:
    """A whole model. The defaults are VideoChat-Flash-Qwen2-7B_res224."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    llm: LLMConfig = field(default_factory=LLMConfig)
    tokens_per_frame: int = 16
    image_tokens: int = 64
    newline: Literal["nothing", "one_token"] = "nothing"
    keep: Plan = ()  # dropout used when a caller names none

    def __post_init__(self) -> None:
        check_plan(self.keep, self.llm)

    @property
    def clip_tokens(self) -> int:
        """Tokens that a clip keeps, the letter M."""
        return self.tokens_per_frame * self.vision.clip_frames


def check_plan(plan: Plan, llm: LLMConfig) -> None:
    """Raises ValueError for a drop in a layer that the decoder does not have."""
    for drop in plan:
        if drop.layer >= llm.layers:
            raise ValueError(f"dropout before layer {drop.layer}, but the decoder's layers are 0 to {llm.layers - 1}")


UMT_224 = VisionConfig()
UMT_448 = VisionConfig(image_size=448)
INTERNVIDEO2 = VisionConfig(kind="internvideo2", patch=14, width=1408, depth=39, heads=16, mlp_width=6144)
TOWERS = {"umt-large": UMT_224, "umt-hd-large": UMT_448, "internvideo2": INTERNVIDEO2}

_QWEN_1_5B = LLMConfig(vocab=151936, width=1536, heads=12, kv_heads=2, ffn=8960, tied=True)
_QWEN_7B_1M = LLMConfig(rope_theta=1e7, rms_eps=1e-5, max_positions=1010000)

RELEASES: dict[str, Config] = {
    "VideoChat-Flash-Qwen2_5-2B_res448": Config(vision=UMT_448, llm=_QWEN_1_5B),
    "VideoChat-Flash-Qwen2-7B_res224": Config(),
    "VideoChat-Flash-Qwen2-7B_res448": Config(vision=UMT_448),
    "VideoChat-Flash-Qwen2_5-7B-1M_res224": Config(llm=_QWEN_7B_1M),
    "VideoChat-Flash-Qwen2_5-7B_InternVideo2-1B": Config(vision=INTERNVIDEO2),
}
RELEASE_OWNER = "OpenGVLab"

FLASH_TINY = Config(  # the embedded model: the same classes in small, trained by recipes/tiny
    vision=VisionConfig(width=192, depth=6, heads=3, mlp_width=768),
    llm=LLMConfig(vocab=512, width=256, layers=6, heads=4, kv_heads=2, ffn=768, max_positions=262_144, tied=True,
                  log_scaled_from=640),
    keep=parse_plan("1:0.5,4:0.25", "uniform0_attention"),
)  # fmt: skip
