"""mp4.py: what is written is read again as it was, at its times; whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from videos import HEIGHT, WIDTH, numbered, read_numbers

from videochat_flash.mp4 import write
from videochat_flash.video import SamplePlan, VideoInfo, decode, probe


def read(info: VideoInfo) -> np.ndarray:
    """All frames."""
    plan = SamplePlan(np.arange(info.frames), info.seconds, (0.0, info.duration), info.duration)
    return np.concatenate([part.pixels for part in decode(info, plan, None)])


@pytest.mark.parametrize("fps", [25, 12.5, 29.97, 30000 / 1001, 23.976, 1 / 3, 60])
def test_what_is_written_is_read_again(fps: float, tmp_path: Path) -> None:
    assert write(tmp_path / "a.mp4", (numbered(i) for i in range(40)), fps) == 40
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.height, info.width) == (40, HEIGHT, WIDTH)
    np.testing.assert_allclose(info.seconds, np.arange(40) / fps, rtol=1e-9)
    assert info.duration == pytest.approx(40 / fps, rel=1e-6)
    assert read_numbers(read(info)) == [*range(40)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 16), (16, 17), (33, 21)])
def test_odd_sizes_are_written(height: int, width: int, tmp_path: Path) -> None:
    picture = np.full((height, width, 3), (200, 80, 40), np.uint8)
    assert write(tmp_path / "a.mp4", [picture], 10) == 1
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.duration) == (1, 0.1)
    assert (info.height, info.width) == (height + height % 2, width + width % 2)
    assert np.abs(read(info).astype(int) - (200, 80, 40)).max() < 8


def test_writing_is_deterministic_and_leaves_nothing_else(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write(tmp_path / name, (numbered(i * 7) for i in range(30)), 30)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    head = (tmp_path / "a.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_file_is_not_left_behind(error: type[BaseException], tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from (numbered(i) for i in range(30))
        raise error

    (tmp_path / "a.mp4").write_bytes(b"as it was")
    with pytest.raises(error):
        write(tmp_path / "a.mp4", broken(), 25)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"as it was"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write(tmp_path / "a.mp4", [], 25)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="number from"):
            write(tmp_path / "a.mp4", [numbered(0)], fps)
    with pytest.raises(ValueError, match="frame 2"):
        write(tmp_path / "a.mp4", [numbered(0), numbered(1, scale=2)], 25)
    with pytest.raises(ValueError, match="absent"):
        write(tmp_path / "absent" / "a.mp4", [numbered(0)], 25)
    assert not [*tmp_path.iterdir()]
