"""video.py: whatever people have as a video gives the right frames at the right times, or one clear error."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import av
import golden
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from videos import HEIGHT, WIDTH, cut, damage, make, numbered, read_numbers, sound_only, spoil

from videochat_flash.video import (
    Frames,
    SamplePlan,
    Sampling,
    VideoError,
    VideoInfo,
    VideoWarning,
    at_rate,
    decode,
    plan,
    probe,
    sample_indices,
    spread,
)
from videochat_flash.vision import normalise

REAL = Path(os.environ.get("VCF_VIDEOS") or golden.FOLDER.parent / "videos")


def fixed(info: VideoInfo, numbers: list[int]) -> SamplePlan:
    """A plan of just these frames."""
    return SamplePlan(np.array(numbers, np.int64), info.seconds[numbers], (0.0, info.duration), info.duration)


def read(info: VideoInfo, numbers: list[int], size: int | None = None, chunk: int = 16) -> Frames:
    """These frames, as one."""
    parts = list(decode(info, fixed(info, numbers), size, chunk))
    assert [len(part.seconds) for part in parts[:-1]] == [chunk] * (len(parts) - 1)
    return Frames(
        np.concatenate([part.pixels for part in parts]), np.concatenate([part.seconds for part in parts]), info.duration
    )


def shown(info: VideoInfo, numbers: list[int]) -> list[int]:
    """The numbers that these frames show; their times are those of the index."""
    frames = read(info, numbers)
    np.testing.assert_array_equal(frames.seconds, info.seconds[numbers])
    return read_numbers(frames.pixels)


def made_up(seconds: list[float], duration: float, fps: float | None = None) -> VideoInfo:
    """What ``probe`` would say of a video with these times."""
    rate = fps or len(seconds) / duration
    return VideoInfo("made.mp4", "video", np.array(seconds, float), duration, rate, len(seconds), 2, 2, 0, "f")


def steady(frames: int, fps: float) -> VideoInfo:
    return made_up([i / fps for i in range(frames)], frames / fps, fps)


# -- files that are well ---------------------------------------------------------------------------------------------

KINDS = {
    "h264.mp4": ("libx264", "yuv420p", {}),
    "h264.mov": ("libx264", "yuv420p", {}),
    "h264.mkv": ("libx264", "yuv420p", {}),
    "h264.ts": ("libx264", "yuv420p", {}),
    "h264.avi": ("libx264", "yuv420p", {}),
    "opengop.mp4": ("libx264", "yuv420p", {"x264-params": "open-gop=1:bframes=3:scenecut=0"}),
    "intra.mp4": ("libx264", "yuv420p", {"g": "1"}),
    "hevc.mp4": ("libx265", "yuv420p", {"x265-params": "log-level=none"}),
    "hevc.mkv": ("libx265", "yuv420p", {"x265-params": "log-level=none"}),
    "vp8.webm": ("libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "av1.mp4": ("libsvtav1", "yuv420p", {"preset": "12"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "bframes.avi": ("mpeg4", "yuv420p", {"bf": "2"}),
    "mpeg2.ts": ("mpeg2video", "yuv420p", {"bf": "2"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "ffv1.mkv": ("ffv1", "yuv420p", {}),
    "prores.mov": ("prores", "yuv422p10le", {}),
    "flv1.flv": ("flv", "yuv420p", {}),
    "gif.gif": ("gif", "rgb8", {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_container_and_codec(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVT_LOG", "1")
    codec, pix_fmt, options = KINDS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    info = probe(make(tmp_path / name, 50, codec=codec, pix_fmt=pix_fmt, options=options))
    assert (info.kind, info.frames, info.fps, info.duration) == ("video", 50, 25.0, 2.0)
    assert (info.height, info.width, info.rotation) == (HEIGHT, WIDTH, 0)
    np.testing.assert_allclose(info.seconds, np.arange(50) / 25, atol=1e-3)
    for numbers in ([*range(50)], [*range(3, 50, 11)], [0, 0, 1, 30, 30, 49], [49], [24, 25]):
        assert shown(info, numbers) == numbers


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.ts"])
def test_a_variable_rate_keeps_its_times(name: str, tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).choice([0.01, 0.04, 0.25], 60)).round(3)
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    info = probe(make(tmp_path / name, 60, times=times.tolist(), codec=codec))
    np.testing.assert_allclose(info.seconds, times - times[0], atol=1e-3)
    assert info.seconds[-1] < info.duration < info.seconds[-1] + 0.3
    chosen = plan(info, Sampling("count", num_frames=20))
    middles = (np.array(spread(60, 20)) + 0.5) / 60 * info.duration
    assert all(np.searchsorted(info.seconds, middles, "right") - 1 == chosen.frames)
    assert shown(info, chosen.frames.tolist()) == chosen.frames.tolist()


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_rotation(name: str, turn: int, tmp_path: Path) -> None:
    info = probe(make(tmp_path / name, 12, rotation=turn))
    assert info.rotation == turn
    assert (info.height, info.width) == ((WIDTH, HEIGHT) if turn % 180 else (HEIGHT, WIDTH))
    upright = np.rot90(read(info, [*range(12)]).pixels, -turn // 90, axes=(1, 2))
    assert read_numbers(upright) == [*range(12)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_the_first_frame_is_at_zero(name: str, tmp_path: Path) -> None:
    info = probe(make(tmp_path / name, 30, shift=2.0, sound=name == "a.mp4"))
    assert (info.seconds[0], info.frames, info.duration) == (0.0, 30, 1.2)
    assert shown(info, [3, 17]) == [3, 17]


def test_frames_that_an_edit_hides_do_not_count(tmp_path: Path) -> None:
    info = probe(make(tmp_path / "a.mp4", 50, shift=-0.6, container={"avoid_negative_ts": "disabled"}))
    first = 50 - info.frames
    assert first >= 13
    assert info.duration == info.frames / 25
    assert shown(info, [*range(info.frames)]) == [*range(first, 50)]


def test_sound_does_not_disturb(tmp_path: Path) -> None:
    info = probe(make(tmp_path / "a.mkv", 30, sound=True))
    assert (info.frames, info.duration) == (30, 1.2)
    assert shown(info, [0, 29]) == [0, 29]


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.gif"])
def test_one_frame(name: str, tmp_path: Path) -> None:
    codec = {"codec": "gif", "pix_fmt": "rgb8"} if name.endswith("gif") else {}
    info = probe(make(tmp_path / name, 1, **codec))
    assert info.frames == 1
    assert 0 < info.duration < 0.2
    chosen = plan(info, Sampling())
    assert chosen.frames.tolist() == [0, 0, 0, 0]
    assert shown(info, chosen.frames.tolist()) == [0, 0, 0, 0]


def test_one_pixel(tmp_path: Path) -> None:
    dots = (np.full((1, 1, 3), 20 * i, np.uint8) for i in range(8))
    info = probe(make(tmp_path / "dot.mkv", dots, codec="ffv1", pix_fmt="yuv444p"))
    assert (info.height, info.width) == (1, 1)
    assert read(info, [2, 5]).pixels.reshape(-1, 3)[:, 1].tolist() == [40, 100]
    assert read(info, [2], size=8).pixels.shape == (1, 8, 8, 3)


def test_eight_thousand_pixels(tmp_path: Path) -> None:
    large = (np.full((4320, 7680, 3), 60 * (i + 1), np.uint8) for i in range(2))
    info = probe(make(tmp_path / "large.mp4", large, options={"preset": "ultrafast"}))
    assert (info.height, info.width) == (4320, 7680)
    np.testing.assert_allclose(read(info, [0, 1], size=16).pixels.mean(axis=(1, 2, 3)), [60, 120], atol=3)


def test_frames_may_change_their_size(tmp_path: Path) -> None:
    small = make(tmp_path / "1.ts", 20)
    large = make(tmp_path / "2.ts", (numbered(20 + i, scale=2) for i in range(20)), shift=1.0)
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    info = probe(tmp_path / "both.ts")
    assert (info.frames, info.height, info.width) == (40, HEIGHT, WIDTH)
    assert shown(info, [*range(0, 40, 3)]) == [*range(0, 40, 3)]


# -- pictures ------------------------------------------------------------------------------------------------------


def test_a_folder_of_frames(tmp_path: Path) -> None:
    for i, name in enumerate(["b_1.png", "a_2.jpg", "b_3.webp", "c_10.bmp", "a_11.jpeg", "a_100.PNG"]):
        Image.fromarray(numbered(i, scale=1 + i % 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a frame")
    info = probe(tmp_path)
    assert (info.kind, info.frames, info.duration, info.fps, info.height) == ("folder", 6, 6.0, 1.0, HEIGHT)
    assert info.seconds.tolist() == [0, 1, 2, 3, 4, 5]
    assert shown(info, [0, 1, 2, 3, 3, 4, 5]) == [0, 1, 2, 3, 3, 4, 5]
    before = info.fingerprint
    (tmp_path / "a_11.jpeg").unlink()
    assert probe(tmp_path).fingerprint != before


def test_a_damaged_picture_in_a_folder(tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(numbered(i)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"damaged")
    info = probe(tmp_path)
    with pytest.warns(VideoWarning, match=r"1 of 4 frames of .* are damaged"):
        frames = read(info, [0, 1, 2, 3])
    assert read_numbers(frames.pixels) in ([0, 1, 1, 3], [0, 1, 3, 3])
    assert frames.seconds.tolist() == read_numbers(frames.pixels)


def test_an_image(tmp_path: Path) -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6  # lies on its left side
    Image.fromarray(np.rot90(numbered(77))).save(tmp_path / "a.png")
    Image.fromarray(np.rot90(numbered(77))).save(tmp_path / "a.jpg", exif=rotated)
    info = probe(tmp_path / "a.png")
    assert (info.kind, info.frames, info.duration, info.height) == ("image", 1, 0.0, WIDTH)
    for sampling in (Sampling(), Sampling("reference"), Sampling("fps", fps=2), Sampling("count", num_frames=8)):
        assert plan(info, sampling).frames.tolist() == [0]
    info = probe(tmp_path / "a.jpg")
    assert (info.height, info.width) == (HEIGHT, WIDTH)
    assert shown(info, [0]) == [77]


# -- files that are not well ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_file_cut_off(name: str, tmp_path: Path) -> None:
    codec = {"codec": "mpeg4"} if name == "a.avi" else {}
    whole = make(tmp_path / name, 250, container={"movflags": "faststart"} if name == "a.mp4" else {}, **codec)
    with pytest.warns(VideoWarning, match=r"^only \d\.\d of 10\.0 s of .*cut_a\.\w+ could be read$"):
        info = probe(cut(whole, 0.6))
    assert 50 < info.frames < 200
    assert info.duration < 8
    numbers = np.round(info.seconds * 25).astype(int).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)  # the very last frame may lack half of its bytes
        frames = read(info, [*range(info.frames)])
    assert sum(a != b for a, b in zip(read_numbers(frames.pixels), numbers, strict=True)) <= 1


@pytest.mark.parametrize(
    "name",
    [
        *("missing.mp4", "empty.mp4", "text.mp4", "sound.mp4", "index_last.mp4", "list.m3u8", "list.mp4", "folder"),
        "unknown_codec.mp4",
    ],
)
def test_what_is_no_video(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "empty.mp4":
        path.touch()
    elif name == "text.mp4":
        path.write_text("This is not a video.\n" * 100)
    elif name == "sound.mp4":
        sound_only(path)
    elif name == "index_last.mp4":
        path = cut(make(path, 50), 0.6)
    elif name.startswith("list"):  # a playlist would make the reader open what it names
        make(tmp_path / "a.ts", 10)
        head = (
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" if name == "list.m3u8" else "ffconcat version 1.0\nfile "
        )
        path.write_text(head + "a.ts\n")
    elif name == "folder":
        path.mkdir()
    elif name == "unknown_codec.mp4":
        path.write_bytes(make(path, 10).read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError) as caught:
        probe(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_nearest_frame_stands_in_for_a_damaged_one(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 60, gop=1, container={"movflags": "faststart"})
    info = probe(path)
    spoil(path, [*range(20, 30), 59])
    assert info.frames == probe(path).frames == 60
    with pytest.warns(VideoWarning, match=r"^6 of 30 frames of .*a\.mp4 are damaged: the nearest sound ones stand in$"):
        frames = read(info, [*range(1, 61, 2)])
    stand_ins = [19, 19, 31, 31, 31, 57]
    expected = [i for i in range(1, 61, 2) if i not in (21, 23, 25, 27, 29, 59)] + stand_ins
    assert read_numbers(frames.pixels) == sorted(expected)
    assert frames.seconds.tolist() == info.seconds[sorted(expected)].tolist()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.webm"])
def test_damage_in_the_middle_stays_there(name: str, tmp_path: Path) -> None:
    codec, flags = "libvpx-vp9" if name == "a.webm" else "libx264", {"movflags": "faststart"} if name == "a.mp4" else {}
    path = make(tmp_path / name, 200, gop=20, container=flags, codec=codec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)
        info = probe(damage(path, 0.45, 0.55))
        frames = read(info, plan(info, Sampling("count", num_frames=100)).frames.tolist())
    right = np.array(read_numbers(frames.pixels)) == np.round(frames.seconds * 25)
    assert right[:30].all()
    assert right[-20:].all()
    assert right.mean() >= 0.65


def test_a_title_may_be_written_in_any_alphabet(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 10)
    path.write_bytes(path.read_bytes().replace(b"VideoHandler", b"Vid\xe9oHandler"))  # not UTF-8
    assert probe(path).frames == 10


def test_nothing_decodes(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 60, container={"movflags": "faststart"})
    info = probe(path)
    share = (path.read_bytes().index(b"mdat") + 8) / path.stat().st_size
    damage(path, share, 1.0)
    with pytest.raises(VideoError, match=r"a\.mp4 holds no frame that can be decoded"):
        list(decode(info, plan(info, Sampling()), 16))
    with pytest.raises(VideoError, match=r"a\.mp4 holds no frame that can be decoded"):
        probe(path)


def test_a_file_that_has_gone_since(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 8)
    info = probe(path)
    path.unlink()
    with pytest.raises(VideoError, match=r"a\.mp4"):
        list(decode(info, plan(info, Sampling()), 16))


# -- which frames --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VideoInfo]:
    folder = tmp_path_factory.mktemp("long")
    names = {"a.mp4": "libx264", "a.ts": "libx264", "a.avi": "libx264", "a.webm": "libvpx-vp9"}
    return {name: probe(make(folder / name, 300, gop=12, codec=codec)) for name, codec in names.items()}


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.avi", "a.webm"])
@given(numbers=st.lists(st.integers(0, 299), min_size=1, max_size=12).map(sorted))
def test_any_plan_gives_the_frames_it_names(name: str, numbers: list[int], long_videos: dict[str, VideoInfo]) -> None:
    assert shown(long_videos[name], numbers) == numbers


def test_skipping_to_key_frames_changes_nothing(long_videos: dict[str, VideoInfo]) -> None:
    info = long_videos["a.mp4"]
    everything = read(info, [*range(300)], size=32).pixels
    some = [5, 6, 7, 100, 101, 250, 299]
    np.testing.assert_array_equal(read(info, some, size=32, chunk=2).pixels, everything[some])


@given(
    frames=st.integers(1, 5000),
    fps=st.sampled_from([0.5, 1, 12.5, 23.976, 25, 29.97, 60]),
    most=st.integers(4, 3000),
    least=st.integers(0, 600),
    policy=st.sampled_from(["paper", "reference", "fps", "count"]),
    group=st.sampled_from([4, 8]),
)
def test_counts_hold_for_every_policy(frames: int, fps: float, most: int, least: int, policy: str, group: int) -> None:
    rate, count = (
        (least / 100 + 0.1 if policy == "fps" else None),
        (min(least + 1, most) if policy == "count" else None),
    )
    sampling = Sampling(policy, most, least, rate, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)  # of a rate that takes more than ``most``
        indices = sample_indices(frames, frames / fps, sampling, group=group)
    assert indices
    assert len(indices) % 4 == 0
    assert indices == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < frames
    if policy != "reference":
        assert len(indices) <= most
    if policy in ("paper", "fps"):  # repeats only fill the last clip
        assert len(indices) - len(set(indices)) < 4


@pytest.mark.parametrize(
    ("frames", "fps", "sampling", "count"),
    [
        (900, 30, Sampling(), 64),
        (30 * 100, 30, Sampling(), 96),
        (30 * 1000, 30, Sampling(), 512),
        (900, 30, Sampling(max_frames=32), 32),
        (900, 30, Sampling("reference", max_frames=32), 64),
        (900, 30, Sampling(max_frames=20), 20),
        (7, 30, Sampling(), 8),
        (2, 30, Sampling(), 4),
        (1, 30, Sampling("reference"), 8),
        (300, 30, Sampling("fps", fps=2), 20),
        (300, 30, Sampling("fps", fps=0.05), 4),
        (300, 30, Sampling("fps", fps=1e9), 300),
        (10 * 3600, 1, Sampling(max_frames=20000), 20000),
        (300, 30, Sampling("count", num_frames=8), 8),
        (300, 30, Sampling("count", 1000, num_frames=1000), 1000),
    ],
)
def test_counts(frames: int, fps: float, sampling: Sampling, count: int) -> None:
    chosen = plan(steady(frames, fps), sampling)
    assert len(chosen.frames) == count
    assert chosen.frames.tolist() == sample_indices(frames, frames / fps, sampling)


def test_a_rate_above_the_most_is_thinned_and_that_is_said() -> None:
    asked = Sampling("fps", fps=30, max_frames=50)
    with pytest.warns(VideoWarning, match=r"^fps 30 takes more frames than max_frames: 48 spread evenly are used$"):
        thinned = sample_indices(300, 10, asked)
    assert thinned == sample_indices(300, 10, Sampling("count", num_frames=48))
    assert len(sample_indices(300, 10, Sampling("fps", fps=30, max_frames=300))) == 300  # and nothing is said


@pytest.mark.parametrize(
    ("seconds", "count"), [(5, 64), (63, 64), (64, 64), (71, 64), (72, 72), (511, 504), (512, 512), (4000, 512)]
)
@pytest.mark.parametrize("fps", [23.976, 25, 30])
@pytest.mark.parametrize("policy", ["paper", "reference"])
def test_counts_by_duration(policy: str, fps: float, seconds: int, count: int) -> None:
    frames = int(np.ceil(seconds * fps))
    assert len(plan(steady(frames, fps), Sampling(policy)).frames) == count


@pytest.mark.parametrize(
    ("frames", "fps", "most", "least", "first", "last", "count"),
    [  # the reference's own, group 4
        (900, 30, 8, 1, [55, 168, 280], [730, 843], 8),
        (900, 30, 512, 64, [6, 20, 34], [877, 892], 64),
        (3000, 30, 512, 64, [14, 44, 74], [2954, 2984], 100),
        (30, 30, 512, 64, [0, 1, 2], [27, 28], 28),
        (3, 30, 512, 64, [0, 1, 2], [2, 2], 4),
        (191, 23.976, 8, 1, [23, 70], [118, 166], 4),
        (54000, 29.97, 512, 64, [52, 157, 262], [53841, 53946], 512),
        (66, 0.5, 512, 64, [0, 1, 2], [65, 65], 132),
    ],
)
def test_indices_of_the_reference(
    frames: int, fps: float, most: int, least: int, first: list[int], last: list[int], count: int
) -> None:
    indices = sample_indices(frames, frames / fps, Sampling("reference", most, least), group=4)
    assert (indices[: len(first)], indices[-2:], len(indices)) == (first, last, count)


def test_a_constant_rate_gives_the_counted_frames_whatever_the_container_rounds() -> None:
    exact = steady(1536, 23.976)
    rounded = made_up(exact.seconds.round(3).tolist(), exact.duration, exact.fps)
    for sampling in (Sampling(), Sampling("fps", fps=3), Sampling("count", num_frames=500)):
        indices = sample_indices(1536, 1536 / 23.976, sampling)
        assert plan(exact, sampling).frames.tolist() == plan(rounded, sampling).frames.tolist() == indices


def test_slides_are_chosen_by_time() -> None:
    info = made_up([0, 1, 50], 100)  # three slides, shown for 1, 49 and 50 seconds
    chosen = plan(info, Sampling("count", num_frames=4))  # at 17, 50 and 83 seconds
    assert chosen.frames.tolist() == [1, 2, 2, 2]
    assert chosen.seconds.tolist() == [1, 50, 50, 50]


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        (None, None, 0, 749),
        (10.0, 20.0, 250, 499),
        (10.0, None, 250, 749),
        (None, 5.0, 0, 124),
        (28.0, 99.0, 700, 749),
        (10.01, 20.01, 250, 499),
        (29.99, 30.0, 749, 749),
    ],
)
def test_windows(start: float | None, end: float | None, first: int, last: int) -> None:
    info = steady(750, 25)
    chosen = plan(info, Sampling("count", num_frames=512, start=start, end=end))
    assert (chosen.frames[0], chosen.frames[-1]) == (first, last) or last - first >= 512
    assert first <= chosen.frames[0] <= chosen.frames[-1] <= last
    assert chosen.window == (start or 0.0, min(end or 30.0, 30.0))
    assert chosen.duration == chosen.window[1] - chosen.window[0]


def test_a_window_before_the_first_frame_begins_with_it() -> None:
    """As where key frames alone are taken from a recording that begins between two."""
    late = made_up([2.0, 4.0, 6.0, 8.0], 10.0, fps=0.4)
    for start, end in ((0.0, 5.0), (None, 1.0)):
        chosen = plan(late, Sampling("count", num_frames=4, start=start, end=end))
        assert chosen.frames.min() == 0 and (np.diff(chosen.frames) >= 0).all()


def test_a_window_is_counted_like_a_video_of_its_length() -> None:
    inside = plan(steady(25 * 300, 25), Sampling(start=100, end=200))
    alone = plan(steady(25 * 100, 25), Sampling())
    assert (inside.frames - 2500).tolist() == alone.frames.tolist()


def test_a_window_of_slides_holds_what_is_shown_in_it() -> None:
    info = made_up([0, 10, 26], 30)
    assert set(plan(info, Sampling("count", num_frames=4, start=5, end=12)).frames.tolist()) == {0, 1}


def test_a_start_beyond_the_end() -> None:
    with pytest.raises(ValueError, match=r"start 31 s .*made\.mp4.* 30 s"):
        plan(steady(750, 25), Sampling(start=31))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_frames": 0}, "max_frames must be at least 4"),
        ({"max_frames": 3}, "at least 4"),
        ({"max_frames": 50_001}, "at most 50000"),
        ({"min_frames": -1}, "min_frames"),
        ({"policy": "fps"}, "fps"),
        ({"policy": "fps", "fps": 0}, "fps must be above 0, not 0"),
        ({"policy": "fps", "fps": float("nan")}, "fps must be above 0"),
        ({"fps": 2}, "fps"),
        ({"policy": "count"}, "num_frames"),
        ({"policy": "count", "num_frames": 0}, "num_frames"),
        ({"policy": "count", "num_frames": 513}, "num_frames 513 is above max_frames 512"),
        ({"start": -1}, "start must be 0 s or later, not -1 s"),
        ({"start": 5, "end": 5}, "end 5 s must come after start 5 s"),
        ({"end": 0}, "end"),
    ],
)
def test_wrong_sampling(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Sampling(**arguments)


def test_odd_numbers_are_rounded_and_said_so() -> None:
    with pytest.warns(VideoWarning, match="max_frames 1002 is not whole clips of 4 frames: 1000 are used"):
        assert len(plan(steady(2000, 1), Sampling(max_frames=1002)).frames) == 1000
    with pytest.warns(VideoWarning, match="num_frames 2 .* 4 are used"):
        assert len(plan(steady(2000, 1), Sampling("count", num_frames=2)).frames) == 4


# -- the reference and real videos ----------------------------------------------------------------------------------


@pytest.mark.golden
def test_frame_indices_of_the_reference(goldens: Path) -> None:
    cases = [c for file in sorted(goldens.glob("frame_indices*.json")) for c in json.loads(file.read_text())["cases"]]
    assert cases
    for case in cases:
        a = case["args"]
        frames, most, least = a["vlen"], a["max_num_frames"], a.get("min_num_frames", 1)
        duration = frames / a["input_fps"]
        if a["sample"] == "dynamic_fps1":
            sampling = Sampling("reference", max_frames=most, min_frames=least)
            ours = sample_indices(frames, duration, sampling, group=a["local_num_frames"])
        elif a["sample"] == "middle":
            ours = spread(frames, max(min(least, frames), most if most > 0 else a["num_frames"]))
        else:
            ours = at_rate(frames, duration, float(a["sample"].removeprefix("fps")))
            ours = ours[:most] if most > 0 else ours
        assert ours == case["indices"], a


@pytest.mark.golden
def test_pixels_of_the_reference(goldens: Path) -> None:
    from safetensors.numpy import load_file

    for file in sorted(goldens.glob("preprocess*.safetensors")):
        tensors = load_file(file)
        names = sorted({name.split(".")[0] for name in tensors})
        assert names
        for name in names:
            theirs = tensors[f"{name}.pixel_values"]
            pictures = [Image.fromarray(one) for one in tensors[f"{name}.frames_u8"]]
            square = [one.resize(theirs.shape[2:], Image.Resampling.BICUBIC) for one in pictures]
            ours = normalise(torch.from_numpy(np.stack([np.asarray(one) for one in square]))).numpy()
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() <= 1.01 / 255 / 0.224
            assert np.mean(ours == theirs) >= 0.99


@pytest.mark.golden
def test_decoding_prepares_pixels_as_the_reference_does(goldens: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    for file in sorted(goldens.glob("preprocess*.safetensors")):
        tensors = load_file(file)
        for name in {name.split(".")[0] for name in tensors}:
            theirs, folder = tensors[f"{name}.pixel_values"], tmp_path / f"{file.stem}_{name}"
            folder.mkdir()
            for i, picture in enumerate(tensors[f"{name}.frames_u8"]):
                Image.fromarray(picture).save(folder / f"{i}.png")
            info = probe(folder)
            ours = normalise(torch.from_numpy(read(info, [*range(info.frames)], size=theirs.shape[-1]).pixels)).numpy()
            np.testing.assert_allclose(ours, theirs, atol=1.01 / 255 / 0.224)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real videos in {REAL} (set VCF_VIDEOS)")
def test_real_videos() -> None:
    paths = [
        path for path in sorted(REAL.iterdir()) if path.suffix in (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")
    ]
    assert paths
    for path in paths:
        info = probe(path)
        assert info.duration == pytest.approx(info.frames / info.fps)
        chosen = plan(info, Sampling(max_frames=16))
        parts = list(decode(info, chosen, 64))
        assert np.concatenate([part.seconds for part in parts]).tolist() == chosen.seconds.tolist()
        slow = [frame for i, frame in enumerate(_sequential(path)) if i in set(chosen.frames.tolist())]
        for ours, theirs in zip(np.concatenate([part.pixels for part in parts]), slow, strict=False):
            np.testing.assert_array_equal(ours, np.asarray(theirs.resize((64, 64), Image.Resampling.BICUBIC)))


def _sequential(path: Path) -> Iterator[Image.Image]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_image()


# -- frames ---------------------------------------------------------------------------------------------------------


def test_frames_are_checked_at_birth() -> None:
    pixels = np.zeros((3, 4, 5, 3), np.uint8)
    frames = Frames(pixels, np.array([0.0, 1.0, 1.0]), 9.0)
    assert repr(frames) == "Frames(uint8(3, 4, 5, 3), seconds(3,), 9 s)"
    for wrong, seconds in (
        (pixels, [0.0, 1.0]),
        (pixels, [0.0, 2.0, 1.0]),
        (pixels.astype(np.float32), [0.0, 1.0, 2.0]),
        (pixels[..., :2], [0.0, 1.0, 2.0]),
    ):
        with pytest.raises((ValueError, TypeError)):
            Frames(wrong, np.array(seconds), 9.0)


def test_probe_says_what_it_read(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 12)
    info, again = probe(path), probe(str(path))
    assert info == again
    assert info.source == str(path)
    assert len(info.fingerprint) == 64
    assert "seconds" not in repr(info)
    assert probe(make(tmp_path / "b.mp4", 13)).fingerprint != info.fingerprint


def test_nothing_heavy_is_loaded_before_a_file_is_opened() -> None:
    code = "import sys, videochat_flash.video; assert not {'torch', 'av', 'av.container'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    path, statm = tmp_path / "a.mp4", Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system does not say how much memory a process holds now")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 432, 768, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((648, 768), np.uint8), format="yuv420p")
        for frame.pts in range(4096):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    info, held = probe(path), []
    for part in decode(info, fixed(info, [*range(4096)]), None, 16):
        assert part.pixels.shape == (16, 432, 768, 3)
        del part
        held.append(int(statm.read_text().split()[1]) * resource.getpagesize())
    assert len(held) == 256
    assert max(held[8:]) - held[8] < 32 << 20  # two chunks; all frames are 4 GB
