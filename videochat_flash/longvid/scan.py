"""scan: what videos there are, what they hold, and which of them look like another one or like a test set's."""

from __future__ import annotations

import hashlib
import warnings
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import xor
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from ..bucket import Stored, below, fetched, is_url
from ..looks import NEAR, hash_of
from ..video import STILLS, SamplePlan, VideoInfo, VideoWarning, decode, probe
from .records import FOUND, Aside, Film, Found, Video, is_text, written
from .settings import Scan, Setting
from .steps import Made, Step, Work

VERSION = 2
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".gif", ".flv", ".wmv", ".m4v")
SIDE = 128  # pixels at which frames are hashed
PLAIN = 6  # bits of a hash that must be set: black frames and title cards look alike everywhere
BANDS = 3  # of a hash: two that differ in NEAR bits have one of them in common
Places = Int64[np.ndarray, " k"]
CROWD = 64  # hashes in a row that share a band are compared with so many next to them


def step(setting: Setting) -> Step:
    """The step."""
    mark = {"version": VERSION, "looks": setting.scan.looks, "shortest": setting.scan.shortest}
    together = partial(settle, setting.scan.alike)
    return Step("scan", mark, partial(worker, setting.scan), FOUND, together, partial(strays, setting))


def discover(setting: Setting) -> Iterator[Found]:
    """Every video of every source, and of the benchmarks, sorted within each.

    Raises:
        FileNotFoundError: a source that is not there.
        ValueError: sources without a single video.
    """
    none = True
    for path in setting.scan.benchmarks:
        for one in _videos(path, "benchmarks"):
            yield Found(one.url, "benchmark", "", one.size, one.mark, benchmark=True)
    for source in setting.source:
        for one in _videos(source.videos, source.label):
            none = False
            yield Found(one.url, source.label, source.license, one.size, one.mark, frame_fps=source.frame_fps)
    if none:
        named = ", ".join(source.videos for source in setting.source)
        raise ValueError(f"no video in {named}: give folders with {', '.join(SUFFIXES[:5])} ... or folders of frames")


def strays(setting: Setting) -> Iterator[Aside]:
    """Folders that hold pictures which are no frames of a video, and what nobody could look into."""
    why = "no frames of a video: those are several, with numbers at the end of their names, and no video beside them"
    for path in (*setting.scan.benchmarks, *(source.videos for source in setting.source)):
        for folder in () if _is_file(path) else _folders(path, path):
            count = sum(_suffix(one.url) in STILLS for one in folder.files)
            if count and not is_frames([one.url for one in folder.files]):
                yield Aside("scan", "rejected", folder.path, f"its pictures, {count}, are {why}")
            for place, reason in folder.closed:
                yield Aside("scan", "rejected", place, reason)


def _is_file(path: str) -> bool:
    return not is_url(path) and Path(path).is_file()


def _videos(path: str, source: str) -> Iterator[Stored]:
    """A file, or all videos below a folder or a bucket's URL; a folder of frames is a video itself."""
    if _is_file(path):
        yield _stored(Path(path).absolute())
        return
    for folder in _folders(path, source):
        if is_frames([one.url for one in folder.files]):
            stills = [one for one in folder.files if _suffix(one.url) in STILLS]
            yield Stored(folder.path, sum(one.size for one in stills), reduce(xor, (one.mark for one in stills)))
        else:
            yield from (one for one in folder.files if _suffix(one.url) in SUFFIXES)


def is_frames(files: Sequence[str]) -> bool:
    """Whether the files of a folder are the frames of one video: several pictures, whose names all end in a number,
    with no video beside them."""
    stills = [name for name in files if _suffix(name) in STILLS]
    numbered = all(PurePosixPath(name).stem[-1:].isdecimal() for name in stills)
    return len(stills) > 1 and numbered and not any(_suffix(name) in SUFFIXES for name in files)


@dataclass(frozen=True)
class Folder:
    """What is not hidden in a folder."""

    path: str
    files: list[Stored]
    closed: tuple[tuple[str, str], ...] = ()  # what cannot be opened, and why


def _folders(path: str, source: str) -> Iterator[Folder]:
    """Each folder below a path or a bucket's URL."""
    if is_url(path):
        folders: dict[str, list[Stored]] = {}
        for one in below(path):
            if not PurePosixPath(one.url).name.startswith("."):
                folders.setdefault(one.url.rpartition("/")[0], []).append(one)
        yield from (Folder(folder, files) for folder, files in folders.items())
    elif Path(path).is_dir():
        yield from _local(Path(path).absolute())
    else:
        raise FileNotFoundError(f"{source}: there is no {path}")


def _local(folder: Path) -> Iterator[Folder]:
    try:
        shown = [one for one in sorted(folder.iterdir()) if not one.name.startswith(".")]
        within = [one for one in shown if is_text(one.name) and one.is_dir()]
    except OSError as error:
        yield Folder(str(folder), [], ((str(folder), f"it cannot be listed: {error.strerror}"),))
        return
    files = [_stored(one) for one in shown if is_text(one.name) and one not in within]
    odd = [written(str(one)) for one in shown if not is_text(one.name)]
    yield Folder(str(folder), files, tuple((one, "its name is no UTF-8: rename it") for one in odd))
    for one in within:
        yield from _local(one)


def _stored(path: Path) -> Stored:
    """A file; what cannot be looked at, as a link to nothing, is one of size 0, which then cannot be read either."""
    try:
        told = path.stat()
    except OSError:
        return Stored(str(path), 0, 0)
    mark = f"{path.name} {told.st_size} {told.st_mtime_ns}"
    return Stored(str(path), told.st_size, int(hashlib.sha256(mark.encode()).hexdigest()[:15], 16))


def _suffix(url: str) -> str:
    return PurePosixPath(url).suffix.lower()


def worker(scan: Scan) -> Work:
    """Opens one video: facts, and hashes of frames spread evenly over it."""

    def work(found: Found) -> Made:
        with fetched(found.path) as place, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", VideoWarning)
            info = timed(probe(place), found.frame_fps)
            if info.kind == "image" or info.duration < scan.shortest:
                reason = f"it lasts {info.duration:.1f} s, less than scan.shortest {scan.shortest:g}"
                return Made((), (Aside("scan", "rejected", found.path, reason),))
            looks = tuple(f"{one:016x}" for one in hashes(info, scan.looks))
        video = Video(
            info.fingerprint[:32],
            found.path,
            found.source,
            found.license,
            "folder" if info.kind == "folder" else "video",
            round(info.duration, 3),
            round(info.fps, 3),
            info.frames,
            info.height,
            info.width,
            looks,
            benchmark=found.benchmark,
        )
        mended = tuple(Aside("scan", "mended", found.path, str(one.message)) for one in told)
        return Made((Film(video),), mended)

    return work


def timed(info: VideoInfo, fps: float) -> VideoInfo:
    """A folder of frames at this many a second; anything else has its own times."""
    if info.kind != "folder":
        return info
    return replace(info, seconds=info.seconds / fps, duration=info.frames / fps, fps=fps)


def hashes(info: VideoInfo, count: int) -> list[int]:
    """Perceptual hashes of ``count`` frames, from the middles of as many equal parts of the video."""
    times = (np.arange(count) + 0.5) / count * info.duration
    numbers = np.maximum(np.searchsorted(info.seconds, times, "right") - 1, 0).astype(np.int64)
    plan = SamplePlan(numbers, info.seconds[numbers], (0.0, info.duration), info.duration)
    return [hash_of(frame) for chunk in decode(info, plan, SIDE, chunk=8) for frame in chunk.pixels]


# -- what looks alike --------------------------------------------------------------------------------------------------


def settle(alike: float, films: Callable[[], Iterator[Film]]) -> Iterator[Film | Aside]:
    """Of videos that are the same or look alike, the first one; none that is a benchmark's or looks like one.

    Held are some 20 bytes for each video and each of its hashes, and the names of those that have a copy.
    """
    keys, looks, owners, tests = array("Q"), array("Q"), array("q"), set()
    for number, film in enumerate(films()):
        keys.append(int(film.video.key[:16], 16))
        tests |= {number} if film.video.benchmark else set()
        some = [int(one, 16) for one in film.video.looks]
        told = [one for one in some if one.bit_count() >= PLAIN]
        looks.extend(told)
        owners.extend([number] * len(told))
    held = np.array(keys, np.uint64), np.array(owners, np.int64), np.array(looks, np.uint64)
    first = leaders(*held, alike, np.array(sorted(tests), np.int64))
    heads, sizes = np.unique(first, return_counts=True)
    names = dict.fromkeys(heads[sizes > 1].tolist(), "")
    for number, film in enumerate(films()):
        if number in names:
            names[number] = film.video.path
    leaked = {int(first[number]) for number in tests}
    for number, film in enumerate(films()):
        lead = int(first[number])
        if film.video.benchmark:
            continue
        if lead in leaked:
            yield Aside(
                "scan", "benchmark", film.video.path, f"it looks like {names[lead]}", film.video.key, names[lead]
            )
        elif lead != number:
            yield Aside(
                "scan", "duplicate", film.video.path, f"it looks like {names[lead]}", film.video.key, names[lead]
            )
        else:
            yield film


def leaders(
    keys: UInt64[np.ndarray, " n"],
    owners: Int64[np.ndarray, " m"],
    looks: UInt64[np.ndarray, " m"],
    alike: float,
    tests: Int64[np.ndarray, " t"] | None = None,
) -> Int64[np.ndarray, " n"]:
    """For each video the first one that stays and that it is the same as or looks like, which may be itself.

    A video that looks like one that goes is no copy for that: a film is not gone because of a compilation of it and
    others, which is itself a copy.

    Two look alike if at least the share ``alike`` of the frames of either have a frame in the other that differs in
    NEAR bits at most.

    Args:
        keys: of the videos; the same key is the same video.
        owners: the video of each hash.
        looks: hashes of frames.
        alike: 0 to 1.
        tests: the videos of benchmarks, which are compared with all others, however many are a little like them.
    """
    test = np.zeros(len(keys), bool)
    test[[] if tests is None else tests] = True
    order = np.concatenate([np.flatnonzero(test), np.flatnonzero(~test)])  # tests stay
    _, index, inverse = np.unique(keys[order], return_index=True, return_inverse=True)
    near: dict[int, list[int]] = defaultdict(list)
    for one, other in _alike(owners, looks, test[owners], np.bincount(owners, minlength=len(keys)), alike):
        near[one].append(other)
        near[other].append(one)
    first = np.full(len(keys), -1, np.int64)
    for number, same in zip(order.tolist(), order[index[inverse]].tolist(), strict=True):
        stays = [] if test[number] else [one for one in near.get(number, ()) if first[one] == one]
        found = min(stays, key=lambda one: (not test[one], one), default=number)
        first[number] = found if same == number else first[same]
    return first


def _alike(
    owners: Int64[np.ndarray, " m"],
    looks: UInt64[np.ndarray, " m"],
    exams: Bool[np.ndarray, " m"],
    counts: Int64[np.ndarray, " n"],
    alike: float,
) -> list[tuple[int, int]]:
    """Pairs of videos that have enough frames in common."""
    met: Counter[tuple[int, int]] = Counter()
    seen: set[tuple[int, int]] = set()  # a frame of the one, the other video: counted once
    for one, other in _near(looks, exams):
        near = np.bitwise_count(looks[one] ^ looks[other]) <= NEAR
        for a, b in zip(one[near].tolist(), other[near].tolist(), strict=True):
            u, v = int(owners[a]), int(owners[b])
            if u == v:
                continue
            for mine, video, theirs in ((a, u, v), (b, v, u)):
                if (mine, theirs) not in seen:
                    seen.add((mine, theirs))
                    met[video, theirs] += 1
    return [(u, v) for (u, v), count in met.items() if u < v and min(count / counts[u], met[v, u] / counts[v]) >= alike]


def _near(looks: UInt64[np.ndarray, " m"], exams: Bool[np.ndarray, " m"]) -> Iterator[tuple[Places, Places]]:
    """Pairs of hashes that share a band: those of benchmarks with all, the others with CROWD next to them."""
    width = -(-64 // BANDS)
    for band in range(BANDS):
        part = (looks >> np.uint64(band * width) & np.uint64((1 << width) - 1)).astype(np.uint32)
        order = np.argsort(part, kind="stable")
        sorted_part = part[order]
        for away in range(1, min(CROWD, len(order))):
            close = np.flatnonzero(sorted_part[away:] == sorted_part[:-away])
            if not len(close):
                break
            yield order[close], order[close + away]
        asked = np.flatnonzero(exams)
        first, last = (np.searchsorted(sorted_part, part[asked], side) for side in ("left", "right"))
        for one, start, end in zip(asked.tolist(), first.tolist(), last.tolist(), strict=True):
            if end - start > CROWD:  # else all of them were compared
                yield np.full(end - start, one), order[start:end]
