"""Frames of a file by their numbers, in the order shown: by several decoders at once, or by one that goes through.

An index tells of every frame its time in the file's own ticks, which packet holds it, with which packet its decoding
starts, and when the frame of that one is shown and when it is decoded.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from operator import itemgetter
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64, UInt8

FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,gif,flv,asf,ogg"  # no playlists: they open other files and addresses
LEAN = ("h264",)  # of these a frame that no other refers to can be left out, and nothing else changes
WAITING = 16 << 20  # bytes of frames that each thread may have ready
PIXELS = 1 << 25  # that may be decoded at once: every decoder holds several frames

T = TypeVar("T")
Index = Int64[np.ndarray, "n 5"]
Ready = Callable[[Any], tuple[UInt8[np.ndarray, "h w 3"], bool]]
Shown = tuple[int, UInt8[np.ndarray, "h w 3"], bool]  # its number, its pixels, whether it is damaged
Frames = Generator[Shown, None, None]


class VideoError(ValueError):
    """A source that cannot be read."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """The library, a file opened with it, and the first stream in it of moving pictures."""
    import av

    options, cover = {"format_whitelist": FORMATS}, av.stream.Disposition.attached_pic
    try:  # "file:" lest a name such as "concat:a" be taken for a protocol
        with av.open(f"file:{path.resolve()}", "r", None, None, options, metadata_errors="replace") as container:
            known = (one for one in container.streams.video if one.codec_context and not one.disposition & cover)
            if (stream := next(known, None)) is None:
                found = ", ".join(s.type for s in container.streams) or "part of one: its index is missing"
                raise VideoError(f"{path} holds no video that can be decoded, only {found}")
            yield av, container, stream
    except av.FFmpegError as error:
        doing = "read: give a whole mp4, mov, mkv, webm, avi, ts or gif"
        raise VideoError(f"{path} cannot be {doing} ({error.strerror})") from error


def decoded(av: Any, stream: Any, packet: Any) -> list[Any]:
    """What comes out of the decoder for a packet, or for None all it holds back; nothing for a damaged packet."""
    with suppress(av.FFmpegError):
        return list(stream.codec_context.decode(packet))
    return []


def fetch(path: Path, index: Index, wanted: list[int], ready: Ready, room: int, area: int) -> Frames:
    """For every wanted frame (ascending) the nearest sound one, made ready by threads ahead of whoever takes it.

    Groups of pictures are decoded at once, as far as they are as they should be and not too large; from there on one
    decoder goes through.

    Args:
        room: bytes of a frame that is ready.
        area: pixels of a frame that is decoded.
    """
    done = 0
    with closing(_grouped(path, index, wanted, ready, room, area)) as found, suppress(VideoError):
        for one in found:
            yield one
            done += 1
    if done < len(wanted):
        rest, stop = wanted[max(0, done - 1) :], Event()  # the last one may be the nearest to the next
        with closing(in_turn(rest, _through(path, index, rest, area, stop), ready, room, str(path), stop)) as found:
            yield from itertools.islice(found, min(done, 1), None)


def in_turn(
    wanted: list[int], found: Iterator[tuple[int, Any]], ready: Ready, room: int, source: str, stop: Event
) -> Frames:
    """For every wanted frame the found one that is nearest to it, which is itself unless the source is damaged."""
    shown: Iterator[Shown] = ((number, *ready(picture)) for number, picture in _nearest(wanted, found, source))
    return ahead([partial(next, shown)] * len(wanted), 1, min(32, 1 + WAITING // room), stop)


def ahead(jobs: Iterable[Callable[[], T]], workers: int, depth: int, stop: Event) -> Generator[T, None, None]:
    """What jobs give, in order. While it is used, threads do the next ones, ``depth`` of them at most."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _grouped(path: Path, index: Index, wanted: list[int], ready: Ready, room: int, area: int) -> Frames:
    """The wanted frames, every group of pictures decoded on its own, up to the first where that cannot be done."""
    starts, stop, free = index[wanted, 2].tolist(), Event(), SimpleQueue[Any]()
    groups = [[n for _, n in some] for _, some in itertools.groupby(zip(starts, wanted, strict=True), itemgetter(0))]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, len(groups), 1 + PIXELS // area)
    if max(map(len, groups)) * room > WAITING:
        return
    with ExitStack() as files:
        for _ in range(workers):
            _, container, stream = files.enter_context(opened(path))
            if container.format.name == "avi":  # it has no times of showing to find frames by
                return
            stream.thread_type, stream.codec_context.thread_count = _threading(area), cores // workers
            free.put((container, stream))
        files.callback(_gathered, free, workers)
        jobs = (partial(_group, free, index, group, ready, stop) for group in groups)
        found = files.enter_context(closing(ahead(jobs, workers, workers, stop)))
        for group, made in zip(groups, found, strict=True):
            if [number for number, *_ in made] != group:
                return
            yield from made


def _gathered(free: SimpleQueue[Any], count: int) -> None:
    """Wait for what threads still use, and leave them nothing: one that Ctrl-C met as it started is in no pool."""
    for number in range(2 * count):
        free.get() if number < count else free.put(None)


def _group(free: SimpleQueue[Any], index: Index, group: list[int], ready: Ready, stop: Event) -> list[Shown]:
    """The wanted frames of a group of pictures; others, or none, where it is not as it should be."""
    (_, _, first, start, early), last, made = index[group[0]].tolist(), int(index[group, 1].max()), list[Shown]()
    numbers = dict(zip(index[group, 0].tolist(), group, strict=True))
    if (held := free.get()) is None:
        return []
    container, stream = held
    try:
        decoder, lean = stream.codec_context, stream.codec_context.name in LEAN
        container.seek(early, stream=stream)
        stored = itertools.dropwhile(lambda packet: packet.pts != start, _packets(container, stream))
        for packet in itertools.chain(itertools.islice(stored, max(0, last - first + 1)), (None,)):
            if stop.is_set():
                break
            if lean:
                decoder.skip_frame = "DEFAULT" if packet is None or packet.pts in numbers else "NONREF"
            for frame in decoder.decode(packet):
                halves = lean and frame.interlaced_frame  # they may come in two packets, of which one was left out
                if frame.is_corrupt or halves or (frame.pts == start and not frame.key_frame):
                    return []
                if frame.pts in numbers and frame.pts >= start:
                    made.append((numbers[frame.pts], *ready(frame)))
        decoder.flush_buffers()
    finally:
        free.put(held)
    return made


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    return (packet for packet in container.demux(stream) if packet.size)


def _threading(area: int) -> str:
    return "AUTO" if area <= 1920 * 1088 else "SLICE"  # AUTO holds many frames


def _through(path: Path, index: Index, wanted: list[int], area: int, stop: Event) -> Iterator[tuple[int, Any]]:
    """Number and frame of whatever is decoded on the way to the wanted ones, in the order shown.

    For every wanted frame, packets are decoded from the key frame before it to its own. The others are read over: at
    5 us each that is cheap, and right where an index to seek by may be wrong.
    """
    stamps, places, starts, begun, _ = index.T
    begins, needed = dict(zip(starts, begun, strict=True)), np.zeros(places.max() + 2, bool)  # ends with a no
    with opened(path) as (av, container, stream), suppress(av.FFmpegError):
        # H.264 in AVI has no stamps for the order of showing: there frames are counted, of which 16 may be held back.
        counted = container.format.name == "avi" and bool(np.all(np.diff(places) > 0))
        for first, last in zip(starts[wanted], places[wanted] + 16 * counted, strict=True):
            needed[first : min(last, places.max()) + 1] = True
        stream.thread_type, stored = _threading(area), enumerate(_packets(container, stream))
        for place, packet in itertools.compress(stored, needed[: np.flatnonzero(needed)[-1] + 1]):
            if not needed[place - 1]:
                stream.codec_context.flush_buffers()
                start, count = begins[place], itertools.count(place)
            for fed in (packet,) if needed[place + 1] else (packet, None):
                for frame in () if stop.is_set() else decoded(av, stream, fed):
                    known, at = (places, next(count)) if counted else (stamps, frame.pts)
                    number = int(np.searchsorted(known, at or 0))
                    if at in known[number : number + 1] and (counted or at >= start):
                        yield number, frame


def _nearest(wanted: list[int], found: Iterator[tuple[int, Any]], source: str) -> Iterator[tuple[int, Any]]:
    before: tuple[int, Any] | None = None
    after = next(found, None)
    for number in wanted:
        while after and after[0] < number:
            before, after = after, next(found, None)
        if before and not (after and after[0] - number <= number - before[0]):
            yield before
        elif after:
            yield after
        else:
            raise VideoError(f"{source} holds no frame that can be decoded")
