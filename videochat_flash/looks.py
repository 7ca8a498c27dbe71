"""What pictures look like, in 64 bits: alike for pictures that a codec or a resize made of one."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8, UInt64
from PIL import Image

HASH = 8  # rows and columns of a perceptual hash
NOISE = 2  # levels by which neighbours must differ: flat fields look alike, whatever a codec does to them
NEAR = 2  # bits of 64 in which near-duplicates differ at most


def hash_of(image: UInt8[np.ndarray, "h w 3"]) -> int:
    """A difference hash of 64 bits: alike for pictures that look alike."""
    small = Image.fromarray(image).convert("L").resize((HASH + 1, HASH), Image.Resampling.BILINEAR)
    values = np.asarray(small, np.int16)
    return int(np.packbits(values[:, 1:] > values[:, :-1] + NOISE).view(np.uint64)[0])


def near_duplicates(found: UInt64[np.ndarray, " n"]) -> int:
    """Pictures that look like one before them."""
    kept, count = np.empty_like(found), 0
    for one in found:
        if not np.any(np.bitwise_count(kept[:count] ^ one) <= NEAR):
            kept[count] = one
            count += 1
    return len(found) - count


def looks_like(one: int, found: UInt64[np.ndarray, " n"]) -> bool:
    """Whether a picture is a near-duplicate of any of these."""
    return bool(np.any(np.bitwise_count(found ^ np.uint64(one)) <= NEAR))
