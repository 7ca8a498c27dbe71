"""The contact sheet shows every frame over its time, the timeline every clip."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from videochat_flash.sheet import BAR, GONE, LINE, STRIP, WIDTH, contact_sheet, timeline
from videochat_flash.video import Frames


def test_every_frame_is_there_over_its_time() -> None:
    pixels = np.stack([np.full((32, 32, 3), 20 * i, np.uint8) for i in range(10)])
    seconds = np.array([0.0, 1.5, 59.96, 60.0, 61.24, 100.0, 600.0, 3599.0, 3600.0, 7325.5])
    sheet = contact_sheet(Frames(pixels, seconds, 8000.0), columns=4, width=120)
    assert sheet.mode == "RGB"
    assert 4 * 120 < sheet.width < 4 * 140
    assert 3 * 68 < sheet.height < 3 * 110
    drawn = np.asarray(sheet)
    for i in range(10):  # every thumbnail is there, and something light is written beneath it
        assert (drawn == 20 * i).all(axis=2).sum() >= 120 * 67
    assert (drawn.min(axis=2) > 150).sum() > 200
    one = contact_sheet(Frames(pixels[:1], seconds[:1], 1.0))
    assert one.width < 200


def test_a_timeline_is_as_high_as_the_attention_and_fades_with_what_is_left() -> None:
    shares, left = [0.1, 0.4, 0.2, 0.0], [1.0, 0.5, 0.25, 0.0]
    shown = Image.new("RGB", (640, 40), (0, 0, 255))
    drawn = np.asarray(timeline([0.0, 2.0, 4.0, 6.0], 8.0, ("bars", shares), [("left", left)], shown)).astype(int)
    full = (drawn == BAR).all(axis=2)
    columns = [drawn.shape[1] * (2 * i + 1) // 8 for i in range(4)]
    heights = [full[: -3 * LINE, column].sum() for column in columns]
    assert (drawn[:80] == (0, 0, 255)).all() and not full[:80].any()
    assert np.argmax(heights) == 1 and heights[2] == pytest.approx(heights[1] / 2, abs=2) and heights[3] <= 1
    strip = drawn[-2 * LINE - STRIP // 2, columns]
    assert np.all(np.diff(strip[:, 0]) < 0) and tuple(strip[0]) == BAR and tuple(strip[3]) == GONE


def test_a_picture_has_a_bar_and_no_time() -> None:
    drawn = np.asarray(timeline([0.0], 0.0, ("one picture", [1.0]), []))
    bar = (drawn == BAR).all(axis=2).any(axis=0)
    assert bar.sum() > 0.9 * WIDTH and (drawn[2 - 2 * LINE :] == drawn[-1, 0]).all()


def test_a_small_picture_above_a_timeline_is_not_blown_up() -> None:
    shown = Image.new("RGB", (200, 40), (0, 0, 255))
    drawn = np.asarray(timeline([0.0], 2.0, ("bars", [1.0]), [], shown))
    blue = (drawn == (0, 0, 255)).all(axis=2)
    columns = np.flatnonzero(blue.any(axis=0))
    assert (columns[0], columns[-1] + 1) == (WIDTH // 2 - 200, WIDTH // 2 + 200) and blue.any(axis=1).sum() == 80
