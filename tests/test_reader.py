"""reader.py: several decoders at once give exactly what one gives that goes through, and end as one."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import av
import golden
import numpy as np
import pytest
import videos
from hypothesis import given, settings
from hypothesis import strategies as st

from videochat_flash import reader
from videochat_flash.reader import Shown, ahead, fetch, in_turn
from videochat_flash.video import Sampling, VideoError, VideoInfo, VideoWarning, decode, plan, probe

REAL = Path(os.environ.get("VCF_VIDEOS") or golden.FOLDER.parent / "videos")
MADE: dict[str, Callable[[Path], Path]] = {
    "b-frames.mp4": lambda path: videos.make(path, 200, gop=40, options={"bf": "3"}),
    "b-frames.mkv": lambda path: videos.make(path, 200, gop=40, options={"bf": "3"}),
    "b-frames.ts": lambda path: videos.make(path, 200, gop=40, options={"bf": "3"}),
    "pyramid.mp4": lambda path: videos.make(path, 200, gop=40, options={"x264-params": "bframes=8:b-pyramid=normal"}),
    "open group.mp4": lambda path: videos.make(path, 200, gop=20, options={"x264-params": "open-gop=1:bframes=3"}),
    "open group.ts": lambda path: videos.make(path, 200, gop=20, options={"x264-params": "open-gop=1:bframes=3"}),
    "uneven.mp4": lambda path: videos.make(path, 200, times=uneven(200), gop=30, options={"bf": "2"}),
    "uneven.mkv": lambda path: videos.make(path, 200, times=uneven(200), gop=30, options={"bf": "2"}),
    "edited.mp4": lambda path: videos.make(
        path, 200, gop=30, shift=-1.5, container={"avoid_negative_ts": "disabled"}, options={"bf": "2"}
    ),
    "late.mp4": lambda path: videos.make(path, 120, gop=30, shift=2.0, sound=True),
    "turned.mp4": lambda path: videos.make(path, 120, gop=30, rotation=90),
    "interlaced.ts": lambda path: videos.make(path, 120, gop=30, options={"x264-params": "interlaced=1:bframes=3"}),
    "refresh.mp4": lambda path: videos.make(path, 200, gop=30, options={"x264-params": "intra-refresh=1:bframes=2"}),
    "hevc.mp4": lambda path: videos.make(
        path, 120, gop=30, codec="libx265", options={"x265-params": "log-level=none:open-gop=1"}
    ),
    "vp9.webm": lambda path: videos.make(path, 90, gop=30, codec="libvpx-vp9", options={"deadline": "realtime"}),
    "mpeg2.ts": lambda path: videos.make(path, 120, gop=15, codec="mpeg2video", options={"bf": "2"}),
    "mpeg4.avi": lambda path: videos.make(path, 120, gop=15, codec="mpeg4", options={"bf": "2"}),
    "pieces.mp4": lambda path: videos.make(
        path, 120, gop=20, container={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    "one group.mp4": lambda path: videos.make(path, 120, gop=1000, options={"bf": "3"}),
    "still.gif": lambda path: videos.make(path, 40, codec="gif", pix_fmt="rgb8"),
}
IN_GROUPS = set(MADE) - {"mpeg4.avi", "refresh.mp4", "interlaced.ts", "still.gif"}


def uneven(count: int) -> list[float]:
    return np.cumsum(np.random.default_rng(0).choice([0.01, 0.04, 0.25], count)).round(3).tolist()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VideoInfo]:
    """A file of MADE, made once."""
    folder, known = tmp_path_factory.mktemp("made"), dict[str, VideoInfo]()

    def info(name: str) -> VideoInfo:
        if name not in known:
            known[name] = probe(MADE[name](folder / name))
        return known[name]

    return info


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def ready(frame: av.VideoFrame) -> tuple[np.ndarray, bool]:
    return frame.to_ndarray(format="rgb24"), frame.is_corrupt


def fetched(info: VideoInfo, wanted: list[int]) -> list[Shown]:
    assert info.index is not None
    return list(fetch(Path(info.source), info.index, wanted, ready, 1 << 14, info.height * info.width))


def simply(info: VideoInfo, wanted: list[int]) -> list[Shown]:
    """By the simple path alone."""
    assert info.index is not None
    stop = Event()
    through = reader._through(Path(info.source), info.index, wanted, info.height * info.width, stop)
    return list(in_turn(wanted, through, ready, 1 << 14, info.source, stop))


def same(ours: list[Shown], theirs: list[Shown]) -> bool:
    assert [(one, bad) for one, _, bad in ours] == [(one, bad) for one, _, bad in theirs]
    return all(np.array_equal(one, other) for (_, one, _), (_, other, _) in zip(ours, theirs, strict=True))


def as_good(info: VideoInfo, wanted: list[int], ours: list[Shown], theirs: list[Shown]) -> bool:
    """Whether ours are nowhere farther from what is wanted, and the same where they are the same frames, but for a
    group of pictures: one decoder that met damage may lose more frames than one that begins behind it, and conceals by
    others."""
    assert info.index is not None
    pairs = [*zip(wanted, ours, theirs, strict=True)]
    alike = [(one, other) for _, one, other in pairs if one[0] == other[0]]
    torn = {int(info.index[one[0], 2]) for one, other in alike if not np.array_equal(one[1], other[1])}
    return all(abs(one[0] - want) <= abs(other[0] - want) for want, one, other in pairs) and len(torn) <= 1


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes the simple path fails."""

    def through(*_: object) -> Iterator[tuple[int, object]]:
        raise AssertionError("the simple path was taken")
        yield

    monkeypatch.setattr(reader, "_through", through)


# -- the same frames ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("cores", [1, 2, 5])
def test_several_decoders_give_what_one_gives(
    name: str, cores: int, made: Callable[[str], VideoInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores), raising=False)
    info = made(name)
    plans = [[*range(3, info.frames, 7)], [info.frames // 2], [0, info.frames - 1], [*range(info.frames)]]
    expected = [simply(info, wanted) for wanted in plans]
    if name in IN_GROUPS:
        alone(monkeypatch)
    for wanted, one in zip(plans, expected, strict=True):
        assert same(fetched(info, wanted), one)


@given(st.data())
@settings(max_examples=40)
def test_any_frames_of_any_file(made: Callable[[str], VideoInfo], data: st.DataObject) -> None:
    info = made(data.draw(st.sampled_from(sorted(MADE))))
    wanted = sorted(data.draw(st.sets(st.integers(0, info.frames - 1), min_size=1, max_size=20)))
    assert same(fetched(info, wanted), simply(info, wanted))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real videos in {REAL} (set VCF_VIDEOS)")
@pytest.mark.parametrize("step", [1, 10, 97])
def test_real_files_give_what_the_library_gives(step: int) -> None:
    paths = sorted(path for path in REAL.iterdir() if path.suffix in (".mp4", ".mkv"))
    assert paths
    for path in paths:
        info = probe(path)
        wanted = [*range(step // 2, info.frames if step > 1 else min(100, info.frames), step)]
        with av.open(str(path)) as container:
            plain = list(islice(container.decode(video=0), wanted[-1] + 1))
            for number, pixels, damaged in fetched(info, wanted):
                assert not damaged and np.array_equal(pixels, plain[number].to_ndarray(format="rgb24"))


def test_frames_that_no_other_needs_are_left_out(made: Callable[[str], VideoInfo]) -> None:
    """Otherwise it would not pay."""
    info, seen = made("b-frames.mp4"), list[int]()
    assert info.index is not None
    with av.open(info.source) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            stream.codec_context.skip_frame = "NONREF"
            seen += [frame.pts for frame in stream.codec_context.decode(packet)]
    assert len(seen) < 0.6 * info.frames
    left_out = sorted(set(range(info.frames)) - set(np.searchsorted(info.index[:, 0], seen).tolist()))
    assert videos.read_numbers(np.stack([pixels for _, pixels, _ in fetched(info, left_out)])) == left_out


# -- files that are not well -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b-frames.mp4", "b-frames.mkv", "open group.ts", "pyramid.mp4", "vp9.webm"])
@given(share=st.floats(0.1, 0.9), length=st.floats(0.001, 0.1), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_a_damaged_file_gives_what_one_decoder_gives_or_what_is_nearer(
    name: str, made: Callable[[str], VideoInfo], share: float, length: float, seed: int
) -> None:
    path = Path(made(name).source).with_name(f"noise {name}")
    path.write_bytes(Path(made(name).source).read_bytes())
    videos.damage(path, share, min(1.0, share + length), seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)
        try:
            info = probe(path)
        except VideoError:
            return
    wanted = [*range(min(1, info.frames - 1), info.frames, 3)]
    # libavcodec's threads do not always conceal damage alike, so that one decoder may differ from itself
    assert any(as_good(info, wanted, fetched(info, wanted), simply(info, wanted)) for _ in range(3))


def test_a_lost_group_is_filled_from_its_neighbours(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "a.mp4", 120, gop=20, container={"movflags": "faststart"})
    info = probe(path)
    videos.spoil(path, [*range(40, 60)])
    wanted = [*range(5, 120, 10)]
    found = fetched(info, wanted)
    assert same(found, simply(info, wanted))
    assert not {number for number, _, _ in found} & set(range(40, 60))
    assert {number for number, _, _ in found} > {5, 15, 25, 35, 65, 75, 85, 95, 105, 115}


def test_files_are_open_until_no_thread_uses_them(
    made: Callable[[str], VideoInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only no thread of the pool: Ctrl-C in the moment in which one starts leaves it out of it."""
    info, queues = made("b-frames.mp4"), list[SimpleQueue[Any]]()

    class Known(SimpleQueue[Any]):
        def __init__(self) -> None:
            queues.append(self)

    monkeypatch.setattr(reader, "SimpleQueue", Known)
    assert info.index is not None
    found = reader._grouped(Path(info.source), info.index, [*range(0, 200, 3)], ready, 1 << 14, 48 * 64)
    next(found)
    held = queues[0].get()
    ends = threading.Thread(target=found.close)
    ends.start()
    ends.join(0.5)
    assert ends.is_alive() and held[0].duration
    queues[0].put(held)
    ends.join(60)
    assert not ends.is_alive()
    assert reader._group(queues[0], info.index, [0], ready, Event()) == []  # nothing is left for who comes late


def test_a_file_that_is_another_since(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "a.mp4", 120, gop=20)
    info = probe(path)
    videos.make(path, 30, gop=7)
    assert same(fetched(info, [5, 50, 100]), simply(info, [5, 50, 100]))
    path.write_text("no video")
    with pytest.raises(VideoError, match=r"a\.mp4"):
        fetched(info, [5, 50, 100])


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b-frames.mp4", "mpeg4.avi"])
def test_an_error_in_a_thread_is_raised_where_frames_are_taken(name: str, made: Callable[[str], VideoInfo]) -> None:
    info, calls = made(name), list[int]()
    assert info.index is not None

    def fails(frame: av.VideoFrame) -> tuple[np.ndarray, bool]:
        calls.append(1)
        if len(calls) > 5:
            raise MemoryError("no room for a frame")
        return ready(frame)

    with pytest.raises(MemoryError, match="no room for a frame"):
        list(fetch(Path(info.source), info.index, [*range(0, 120, 3)], fails, 1 << 14, 1 << 14))


@pytest.mark.parametrize("name", ["b-frames.mp4", "mpeg4.avi"])
@pytest.mark.parametrize("taken", [0, 1, 30])
def test_whoever_stops_early_leaves_no_thread_at_work(name: str, taken: int, made: Callable[[str], VideoInfo]) -> None:
    info, calls = made(name), list[int]()
    assert info.index is not None

    def counted(frame: av.VideoFrame) -> tuple[np.ndarray, bool]:
        calls.append(1)
        return ready(frame)

    found = fetch(Path(info.source), info.index, [*range(info.frames)], counted, 1 << 14, 1 << 14)
    assert len(list(islice(found, taken))) == taken
    found.close()
    seen = len(calls)
    assert [thread.name for thread in threading.enumerate() if "ThreadPool" in thread.name] == []
    assert len(calls) == seen < info.frames


def test_closing_tells_the_jobs_that_run() -> None:
    """Else a user who gives up waits for all of a group."""
    stop, told = Event(), list[bool]()
    found = ahead([lambda: True, *[lambda: told.append(stop.wait(60)) or True] * 3], 2, 2, stop)
    assert next(found)
    found.close()
    assert told and all(told)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_where_frames_are_used_ends_the_threads(
    error: type[BaseException], made: Callable[[str], VideoInfo]
) -> None:
    info = made("b-frames.mp4")
    chunks = decode(info, plan(info, Sampling("count", num_frames=64)), 32, 4)
    with pytest.raises(error), closing(chunks):
        for _ in chunks:
            raise error


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 30))
def test_jobs_are_done_in_order_and_never_far_ahead(workers: int, depth: int, count: int) -> None:
    started, taken = list[int](), list[int]()

    def job(number: int) -> int:
        started.append(number)
        return number

    for one in ahead((partial(job, number) for number in range(count)), workers, depth, Event()):
        assert len(started) <= len(taken) + depth + 1
        taken.append(one)
    assert taken == list(range(count))


def test_a_group_that_is_too_large_is_not_gathered(
    made: Callable[[str], VideoInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = made("one group.mp4")
    expected = simply(info, [*range(info.frames)])
    monkeypatch.setattr(reader, "WAITING", 50 << 14)
    waiting = list[int]()

    def counted(frame: av.VideoFrame) -> tuple[np.ndarray, bool]:
        waiting.append(1)
        return ready(frame)

    assert info.index is not None
    found = fetch(Path(info.source), info.index, [*range(info.frames)], counted, 1 << 14, 1 << 14)
    for (number, pixels, _), (other, theirs, _) in zip(found, expected, strict=True):
        assert number == other and np.array_equal(pixels, theirs)
        assert len(waiting) <= number + 1 + 33
