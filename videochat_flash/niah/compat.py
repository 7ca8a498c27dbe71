"""The rules of the reference, to the frame: rows, cuts, prompt, scorer. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .place import Film, Part

BATCH = 8  # frames that the reference encodes at once
EXTRA = 2  # batches behind the last one that was asked for
REQUESTED = 10_000  # rows that it encodes, however few of them its films show
MOST = 7_500  # frames; above, half are encoded and shown twice
COPIES = 4  # of a needle's frame
ROW_TOKENS = 16  # of what counts as a frame there: consecutive tokens of its clip
BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"

# What a compat run does otherwise than the reference; printed with every report.
DEVIATIONS = (
    "one device and no padding behind the answer (causal attention: the same scores) instead of a ring of GPUs",
    "the precision of the model that was loaded (the reference: bf16 decoder, fp16 tower)",
    "bicubic resizing by Pillow",
    "behind the video, needles and all, the newline row of a model with mm_newline_position one_token (the reference: "
    "none; no release has it)",
    "YaRN only where the model's config.json or --yarn asks for it",
)


def encoded(requested: int) -> int:
    """Frames that the reference encodes when so many are asked for: its stop comes two batches late."""
    wanted = requested // 2 if requested > MOST else requested
    return (wanted // BATCH + EXTRA) * BATCH


def haystack_rows(requested: int, duplicate: bool = True) -> list[int]:
    """The haystack frame behind each row of the cropped tensor.

    Args:
        requested: rows that are asked for.
        duplicate: above MOST, show half of them twice as the reference does; else every row is a frame of its own.
    """
    if not duplicate or requested <= MOST:
        return list(range(requested))
    saved = [*range(encoded(requested))] * 2
    return saved[:requested]


def single_cut(length: int, depth: float) -> int:
    """Rows before the needle."""
    return int(depth * length)


def multi_cuts(length: int, images: int) -> list[int]:
    """Rows before each image: equidistant, the first before and the last behind everything.

    Raises:
        ValueError: fewer than two images.
    """
    if images < 2:
        raise ValueError(f"a chain needs at least 2 images, not {images}")
    interval = length / (images - 1)
    return [int(i * interval) for i in range(images - 1)] + [int((images - 1) * interval)]


def film(cuts: Sequence[int], rows: Sequence[int], needles: Sequence[str]) -> Film:
    """Rows of haystack and four-fold needles; ``rows`` are the haystack frames behind the rows."""
    parts: list[Part] = []
    edges = [0, *cuts, len(rows)]
    for i, needle in enumerate([*needles, ""]):
        parts += _runs(rows[edges[i] : edges[i + 1]])
        if needle:
            parts.append(Part(needle, 0, COPIES))
    return tuple(parts)


def _runs(rows: Sequence[int]) -> list[Part]:
    """Frames that follow each other, as parts."""
    runs: list[Part] = []
    for row in rows:
        if runs and runs[-1].first + runs[-1].count == row:
            runs[-1] = Part("", runs[-1].first, runs[-1].count + 1)
        else:
            runs.append(Part("", row, 1))
    return runs


def padding(rows: int, devices: int) -> int:
    """Positions that the reference adds behind a sequence; as many as never less than one, at most twice its GPUs."""
    return 2 * devices - rows % (2 * devices)


def right(said: str, answer: str) -> bool:
    """Whether the likeliest token says the answer: case and brackets do not count, spaces do."""
    return said.lower().replace("(", "").replace(")", "") == answer.lower()


def depth_label(depth: float) -> str:
    """A depth in per cent that no other depth shares (the reference rounds to tens)."""
    return f"{100 * depth:g}%"
