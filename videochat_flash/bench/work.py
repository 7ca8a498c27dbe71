"""What each stage has to do, from shapes: operations, the fewest bytes that it must move, and what it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor, nn

from ..chat import CLIP_BATCH
from ..config import Config, LLMConfig, Plan
from ..cost import Sample, cache_bytes, connector_flops, decoder_flops, rows_left, token_flops, tower_flops
from ..llm import ROTATED, ROW_CHUNK
from ..quantise import AS_LOADED, SCALE, Packing
from ..weights import skeleton

DECODE, RESIZE, NORMALISE, TOWER, CONNECTOR, PREFILL, FIRST, TOKEN = STAGES = (
    "decode",
    "resize",
    "normalise",
    "tower",
    "merging+connector",
    "prefill",
    "first token",
    "decode per token",
)
LEAST_TEXT = 60  # rows of a short question in the chat form, where no tokenizer counts them


@dataclass(frozen=True)
class Work:
    """Of one stage.

    Attributes:
        units: frames, or tokens, that it is for.
        flops: of matrix products, without what lies above the diagonal of causal attention; None where there are none.
        bytes: the fewest that it must read and write: its weights once a batch, what comes in and what goes out.
    """

    units: int
    flops: float | None
    bytes: float | None


def sample_of(config: Config, frames: int, text: int = LEAST_TEXT) -> Sample:
    """A question about so many frames.

    Raises:
        ValueError: frames that are not whole clips.
    """
    clip = config.vision.clip_frames
    if frames < clip or frames % clip:
        below, above = frames // clip * clip, (frames // clip + 1) * clip
        near = f"{below} or {above}" if below else str(above)
        raise ValueError(f"--frames {frames} is not whole clips of {clip} frames: use {near}")
    clips = frames // clip
    return Sample(clips, clip, clips * config.clip_tokens + (config.newline == "one_token"), text)


def works(
    config: Config,
    sample: Sample,
    plan: Plan,
    width: int,
    source: tuple[int, int] | None = None,
    batch: int = CLIP_BATCH["cpu"],
    packing: Packing = AS_LOADED,
) -> dict[str, Work]:
    """The work of every stage.

    Args:
        width: bytes of a number.
        source: pixels of a frame as it comes, (width, height); None where no pixels come.
        batch: clips that pass the tower at once.
        packing: how the decoder is held.
    """
    frames, vision, llm = sample.clips * sample.frames, config.vision, config.llm
    pixels = 3 * vision.image_size**2 * frames
    patches = frames * vision.patches * vision.width * width
    tokens = sample.clips * config.clip_tokens * llm.width * width
    batches = math.ceil(sample.clips / batch)
    tower, connector, decoder, embeddings = parameters(config)
    cache = held_cache(llm, sample, plan, width, packing)
    read = decoder if llm.tied else decoder - embeddings  # of the table only the rows of the text
    read = read * width - saved(config, width, packing)
    native = None if source is None else 3.0 * source[0] * source[1] * frames
    return {
        DECODE: Work(frames, None, native),
        RESIZE: Work(frames, None, None if native is None else native + pixels),
        NORMALISE: Work(frames, None, pixels * (1 + width)),
        TOWER: Work(
            frames,
            (tower_flops(vision, sample.frames) * sample.clips).needed,
            batches * tower * width + pixels * width + patches,
        ),
        CONNECTOR: Work(
            frames,
            (connector_flops(config, sample.frames) * sample.clips).needed,
            batches * connector * width + patches + tokens,
        ),
        PREFILL: Work(frames, decoder_flops(llm, sample, plan, scored=1).needed, read + tokens + cache),
        FIRST: Work(1, None, None),
        TOKEN: Work(1, token_flops(llm, sample, plan).needed, read + cache),
    }


@lru_cache(maxsize=8)  # only a memo: shapes of a model without its weights
def parameters(config: Config) -> tuple[int, int, int, int]:
    """Of tower, connector, decoder with its head, and of these the table of embeddings."""
    model = skeleton(config)
    head = [] if model.head is None else list(model.head.parameters())
    return (
        _count(model.vision.parameters()),
        _count(model.connector.parameters()),
        _count(model.decoder.parameters()) + _count(head),
        model.decoder.embed_tokens.weight.numel(),
    )


@lru_cache(maxsize=8)
def _packed(config: Config) -> tuple[int, int]:
    """Weights that can be held as int8, and how many outputs they make."""
    linear = [layer for layer in skeleton(config).decoder.layers.modules() if isinstance(layer, nn.Linear)]
    return sum(layer.weight.numel() for layer in linear), sum(layer.out_features for layer in linear)


def saved(config: Config, width: int, packing: Packing) -> int:
    """Bytes of weights that need not be held: all but one of each, and a scale for each output."""
    weights, outputs = _packed(config)
    return weights * (width - 1) - outputs * width if packing.weights else 0


def held_cache(config: LLMConfig, sample: Sample, plan: Plan, width: int, packing: Packing) -> int:
    """Bytes of a conversation's keys and values: as computed, or one for each number and two for a row's scale."""
    if not packing.cache:
        return cache_bytes(config, sample, plan, width)
    return cache_bytes(config, sample, plan, 1) // config.head_width * (config.head_width + SCALE.itemsize)


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


# -- memory ------------------------------------------------------------------------------------------------------------


def memory(
    config: Config,
    sample: Sample,
    plan: Plan,
    width: int,
    batch: int = CLIP_BATCH["cpu"],
    packing: Packing = AS_LOADED,
    repeated: bool = False,
) -> dict[str, float]:
    """Bytes on the device while each stage runs, at their most: weights and what the code keeps and makes.

    Tests hold it against the tensors that are alive in a real run. Workspaces of kernels are not in it.
    ``repeated``: see ``repeats_heads``.
    """
    tower, connector, decoder, _ = parameters(config)
    weights = (tower + connector + decoder) * width - saved(config, width, packing)
    tokens = sample.clips * config.clip_tokens * config.llm.width * width
    frames = min(batch, sample.clips) * sample.frames
    seeing = _tower_bytes(config, frames, width), _merging_bytes(config, frames, width)
    cache = held_cache(config.llm, sample, plan, width, packing)
    back = 2 * sample.rows * config.llm.kv_heads * config.llm.head_width * width if packing.cache else 0
    back += 2 * sample.rows * config.llm.heads * config.llm.head_width * width if repeated else 0
    return {
        TOWER: weights + seeing[0],
        CONNECTOR: weights + seeing[1],
        PREFILL: weights + tokens + _prefill_bytes(config, sample, plan, width, packing, repeated),
        TOKEN: weights + tokens + cache + max(back, _written_out(config.llm, width, packing)),
    }


def _tower_bytes(config: Config, frames: int, width: int) -> float:
    """A batch of clips in a block: pixels, then of each patch its row, norm, three products, and attention before and
    after its heads are joined, or both layers of the MLP."""
    vision = config.vision
    row = max(8 * vision.width, 3 * vision.width + 2 * vision.mlp_width)
    return frames * (3 * vision.image_size**2 + vision.patches * row) * width


def _merging_bytes(config: Config, frames: int, width: int) -> float:
    """A batch of clips being merged: what the tower gave, and in float32 that, joined with its size, the half that
    joins, the half that is joined, and the result."""
    vision = config.vision
    patches = frames * vision.patches
    return patches * vision.width * (width + 12 + (4 if width < 4 else 0))


def _written_out(llm: LLMConfig, width: int, packing: Packing) -> int:
    """The largest matrix of a layer, as it is multiplied with."""
    return llm.width * llm.ffn * width if packing.weights else 0


def repeats_heads(llm: LLMConfig, width: int, old: bool = False) -> bool:
    """Whether a GPU writes keys and values out for every query head, as ``attend`` does where the flash kernel does not
    serve: in float32, with heads of some widths, or on one that is older than Ampere (``old``)."""
    return llm.heads != llm.kv_heads and (width > 2 or llm.head_width % 8 != 0 or old)


def _prefill_bytes(config: Config, sample: Sample, plan: Plan, width: int, packing: Packing, repeated: bool) -> float:
    """At the layer that needs most: the embeddings, the rows that enter it and the caches up to there; beside them the
    norm and the queries with a chunk that turns in float32, or attention with its result or, before that, with keys and
    values for every query head (``repeated``), or a chunk in the MLP. What is held smaller is written out where it is
    used."""
    llm = config.llm
    inner, kv = llm.heads * llm.head_width, llm.kv_heads * llm.head_width
    most, cache = 0.0, 0.0
    for layer, visual in enumerate(rows_left(llm, sample.visual, plan)):
        rows = visual + sample.text
        cache += 2 * rows * (kv + llm.kv_heads * SCALE.itemsize if packing.cache else kv * width)
        turning = min(rows, ROTATED) * inner * (16 if width < 4 else 12)
        turned = rows * width * (llm.width + inner) + turning
        beside = max(llm.width, 2 * inner) if repeated else llm.width
        attended = rows * width * (llm.width + beside + 2 * inner + (4 if packing.cache else 2) * kv)
        chunk = min(rows, ROW_CHUNK)
        mixed = width * (rows * llm.width + max(rows * llm.width, chunk * (llm.width + 3 * llm.ffn)))
        mixed += _written_out(llm, width, packing)
        entering = 0 if layer == 0 else rows * llm.width * width
        tables = 8 * rows * (llm.head_width + 1)  # and where each row came from
        most = max(most, cache + entering + tables + max(turned, attended, mixed))
    return sample.rows * llm.width * width + most
