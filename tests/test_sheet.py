"""The contact sheet shows every frame over its time."""

from __future__ import annotations

import numpy as np

from videochat_flash.sheet import contact_sheet
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
