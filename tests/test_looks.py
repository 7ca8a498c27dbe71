"""Pictures that are one picture have one look, whatever a codec or a resize did to it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from videochat_flash.looks import NEAR, hash_of, looks_like, near_duplicates


def mosaic(seed: int) -> np.ndarray:
    tiles = np.random.default_rng(seed).integers(0, 256, (9, 16, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(tiles).resize((320, 180), Image.Resampling.BICUBIC))


def test_a_resized_and_compressed_picture_looks_the_same_and_others_do_not() -> None:
    for seed in range(8):
        picture = mosaic(seed)
        store = io.BytesIO()
        Image.fromarray(picture).resize((200, 150)).save(store, "JPEG", quality=60)
        again = np.asarray(Image.open(store))
        assert (hash_of(picture) ^ hash_of(again)).bit_count() <= NEAR
        assert (hash_of(picture) ^ hash_of(mosaic(seed + 100))).bit_count() > 4 * NEAR


def test_plain_pictures_have_an_empty_look_whatever_the_noise() -> None:
    noise = np.random.default_rng(0).integers(-1, 2, (90, 160, 1))
    assert hash_of((np.full((90, 160, 3), 40) + noise).astype(np.uint8)) == 0


def test_near_duplicates_are_counted_and_found() -> None:
    some = np.array([hash_of(mosaic(seed)) for seed in (0, 1, 0, 2, 1)], np.uint64)
    assert near_duplicates(some) == 2
    assert looks_like(int(some[0]) ^ 1, some) and not looks_like(hash_of(mosaic(9)), some)
