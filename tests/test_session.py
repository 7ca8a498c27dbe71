"""session.py: what the commands have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import videos
from PIL import Image

from videochat_flash import VideoChatFlash, session
from videochat_flash.chat import Stopwatch
from videochat_flash.session import Source, key_frames
from videochat_flash.video import Sampling, VideoWarning, decode, plan, probe


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_key_frames_are_a_video_of_their_own(name: str, tmp_path: Path) -> None:
    info = probe(videos.make(tmp_path / name, 108, gop=12, options={"bf": "3"}))
    with pytest.warns(
        VideoWarning, match=r"^only its 9 key frames of 108 are looked at, up to 0\.5 s apart: .*a\.\w+$"
    ):
        few = key_frames(info)
    assert (few.frames, few.duration, few.fingerprint) == (9, info.duration, info.fingerprint)
    wanted = plan(few, Sampling("count", num_frames=12))
    assert wanted.frames.tolist() == [*range(9), 8, 8, 8]
    chunk = next(decode(few, wanted, None))
    np.testing.assert_allclose(chunk.seconds, info.seconds[[*range(0, 108, 12), 96, 96, 96]])
    assert videos.read_numbers(chunk.pixels) == [*range(0, 108, 12), 96, 96, 96]
    part = plan(few, Sampling("count", num_frames=4, start=1.0, end=3.0))
    assert [round(25 * t) for t in part.seconds] == [24, 36, 48, 60]


@pytest.mark.parametrize(("frames", "shown"), [(1, 1), (5, 5), (12, 12), (40, 12)])
def test_a_short_video_has_fewer_thumbnails_and_none_twice(frames: int, shown: int, tmp_path: Path) -> None:
    source = Source("a.mp4", probe(videos.make(tmp_path / "a.mp4", frames)), None)
    sheet = session._thumbnails(source, Sampling())
    assert sheet is not None and sheet.width == shown * (160 + 8) + 8


def test_options_of_frames_are_told_to_be_unused_of_a_sight(vc: VideoChatFlash, tmp_path: Path) -> None:
    vc.see(probe(videos.make(tmp_path / "a.mp4", 16))).save(tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match="holds the frames it was seen with"):
        session.open_source(tmp_path / "a.safetensors", Sampling(start=1.0), Stopwatch())


def test_pictures_are_key_frames(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    info = probe(tmp_path)
    assert key_frames(info) is info
