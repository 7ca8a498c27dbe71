"""What looks alike is found however it was encoded, and what does not is not."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import videos
from longvid_corpus import film, video
from PIL import Image

from videochat_flash.longvid.pipeline import do
from videochat_flash.longvid.records import Film, Question, read_asides, read_films
from videochat_flash.longvid.rows import reference
from videochat_flash.longvid.scan import discover, hashes, is_frames, leaders, timed
from videochat_flash.longvid.settings import Scan, Setting, Shots, default, load
from videochat_flash.longvid.shards import Shards
from videochat_flash.longvid.shots import cuts
from videochat_flash.mp4 import write
from videochat_flash.video import SamplePlan, decode, probe


def copy(path: Path, out: Path, size: tuple[int, int], crf: int, start: int = 0) -> Path:
    """The same video in another size and quality, from a frame on."""
    info = probe(path)
    numbers = np.arange(start, info.frames)
    plan = SamplePlan(numbers, info.seconds[numbers], (0.0, info.duration), info.duration)
    frames = (frame for chunk in decode(info, plan, None) for frame in chunk.pixels)
    write(out, (np.asarray(Image.fromarray(one).resize(size)) for one in frames), info.fps, crf=crf)
    return out


def test_copies_are_found_and_so_is_what_looks_like_a_test_set(tmp_path: Path) -> None:
    folder, tests = tmp_path / "films", tmp_path / "tests"
    folder.mkdir()
    tests.mkdir()
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        film(folder / f"{name}.mp4", seed)
    copy(folder / "a.mp4", folder / "d.mp4", (96, 80), 36)
    copy(folder / "b.mp4", folder / "e.mp4", (400, 300), 30, start=5)  # its beginning is cut off
    (folder / "f.mp4").write_bytes((folder / "c.mp4").read_bytes())
    copy(folder / "c.mp4", tests / "exam.mp4", (128, 96), 33)
    path = tmp_path / "build.toml"
    path.write_text(
        f'out = "{tmp_path / "out"}"\n[scan]\nbenchmarks = ["{tests}"]\n'
        f'[[source]]\nvideos = "{folder}"\nname = "mine"\nlicense = "CC-BY-4.0"\n'
    )
    ran = do("scan", load(path))
    kept = list(read_films(tmp_path / "out" / "scan.jsonl"))
    assert [(one.video.stem, one.video.license, one.video.source) for one in kept] == [
        ("a", "CC-BY-4.0", "mine"),
        ("b", "CC-BY-4.0", "mine"),
    ]
    asides = read_asides(tmp_path / "out" / "scan.aside.jsonl")
    told = {Path(one.what).stem: (one.kind, Path(one.reason.split()[-1]).stem) for one in asides}
    exam = ("benchmark", "exam")
    assert told == {"c": exam, "f": exam, "d": ("duplicate", "a"), "e": ("duplicate", "b")}
    assert ran.failed == 0


def test_black_videos_are_not_alike_for_being_black(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for number in range(2):
        black = (np.full((48, 64, 3), 3 + 20 * number, np.uint8) for _ in range(20))
        write(tmp_path / "films" / f"black{number}.mp4", black, 1.0)
    ran = do("scan", default(str(tmp_path / "films"), str(tmp_path / "out")))
    assert ran.films == 2 and ran.kinds == {}


def test_leaders_are_the_first_of_each_group() -> None:
    rng = np.random.default_rng(0)
    some = [int(one) for one in rng.integers(0, 2**64, 12, np.uint64)]
    hashed = [some[:4], some[4:8], [one ^ 3 for one in some[:4]], [some[0], *some[9:12]], []]
    owners = np.repeat(np.arange(5), [len(one) for one in hashed]).astype(np.int64)
    looks = np.array([one for row in hashed for one in row], np.uint64)
    keys = np.array([1, 2, 3, 4, 2], np.uint64)
    assert leaders(keys, owners, looks, 0.5).tolist() == [0, 1, 0, 3, 1]
    assert leaders(keys, owners, looks, 0.25).tolist() == [0, 1, 0, 0, 1]
    assert leaders(keys, owners[:0], looks[:0], 0.5).tolist() == [0, 1, 2, 3, 1]


def test_a_film_does_not_go_for_a_compilation_that_goes_itself() -> None:
    """The second has half of the first and half of the third, which have nothing in common."""
    some = np.random.default_rng(0).integers(0, 2**64, 8, np.uint64)
    looks = np.concatenate([some[:4], some[2:6], some[4:]])
    owners, keys = np.repeat(np.arange(3), 4).astype(np.int64), np.arange(3, dtype=np.uint64)
    assert leaders(keys, owners, looks, 0.5).tolist() == [0, 0, 2]
    assert leaders(keys, owners, looks, 0.5, np.array([2], np.int64)).tolist() == [0, 2, 2]
    assert leaders(np.array([7, 1, 7], np.uint64), owners, looks, 0.5, np.array([2], np.int64)).tolist() == [2, 2, 2]


def test_what_is_a_test_sets_is_found_in_a_crowd() -> None:
    """Many hashes that share a band, and are not alike, lie between a benchmark's and its copy's."""
    rng = np.random.default_rng(0)
    low = (1 << 22) - 1
    crowd = (rng.integers(0, 2**64, 500, np.uint64) & ~np.uint64(low)) | np.uint64(0x15A5A5)
    exam = np.uint64(crowd[0])
    copied = exam ^ np.uint64((1 << 30) | (1 << 50))  # one bit in each other band
    looks = np.array([exam, *crowd[1:], copied], np.uint64)
    numbers = np.arange(len(looks), dtype=np.int64)
    plain = leaders(numbers.astype(np.uint64), numbers, looks, 0.5)
    told = leaders(numbers.astype(np.uint64), numbers, looks, 0.5, np.array([0], np.int64))
    assert plain[-1] == numbers[-1] and told[-1] == 0 and told[:-1].tolist() == numbers[:-1].tolist()


def test_folders_of_frames_are_videos(tmp_path: Path) -> None:
    frames = tmp_path / "films" / "walk"
    frames.mkdir(parents=True)
    for number in range(12):
        Image.fromarray(videos.numbered(number)).save(frames / f"img_{number:05d}.jpg")
    setting = default(str(tmp_path / "films"), str(tmp_path / "out"))
    [found] = discover(setting)
    assert Path(found.path) == frames
    do("scan", setting)
    [made] = read_films(tmp_path / "out" / "scan.jsonl")
    assert (made.video.kind, made.video.duration, made.video.stem, len(made.video.looks)) == ("folder", 12.0, "walk", 8)


def frames_of(folder: Path, count: int, colour: int, of: int = 12) -> Path:
    """Bitmaps of one size, the first ones alike whatever the colour."""
    folder.mkdir(parents=True)
    for number in range(of):
        pixels = np.full((24, 32, 3), 4 * number if number < count else colour + 4 * number, np.uint8)
        pixels[number : number + 9, ::3] = 255 - pixels[0, 0]
        Image.fromarray(pixels).save(folder / f"img_{number}.bmp")
    return folder


def test_folders_of_frames_of_one_size_are_not_one_for_it(tmp_path: Path) -> None:
    one = frames_of(tmp_path / "films" / "a", 4, 0)
    other = frames_of(tmp_path / "films" / "b", 4, 128)
    assert probe(one).fingerprint != probe(other).fingerprint
    assert [Path(file).stem for file in probe(one).files] == [f"img_{number}" for number in range(12)]


def test_frames_that_change_in_place_are_noticed(tmp_path: Path) -> None:
    folder = frames_of(tmp_path / "films" / "a", 12, 0)
    setting = default(str(tmp_path / "films"), str(tmp_path / "out"))
    [before] = discover(setting)
    with (folder / "img_5.bmp").open("r+b") as file:
        file.seek(-20, 2)
        file.write(b"\0" * 20)
    [after] = discover(setting)
    assert before.modified != after.modified and before.size == after.size == 12 * (folder / "img_5.bmp").stat().st_size


def test_folders_of_frames_have_the_rate_of_their_source(tmp_path: Path) -> None:
    frames_of(tmp_path / "films" / "a", 30, 0, of=30)
    setting = default(str(tmp_path / "films"), str(tmp_path / "out"))
    setting = replace(setting, source=(replace(setting.source[0], frame_fps=3.0),), scan=Scan(shortest=9.0))
    do("scan", setting)
    do("shots", setting)
    [made] = read_films(tmp_path / "out" / "shots.jsonl")
    assert (made.video.duration, made.video.fps, made.video.rate) == (10.0, 3.0, 3.0)
    assert made.notes[-1].end == 10.0 and timed(probe(made.video.path), 3.0).seconds[-1] == pytest.approx(29 / 3)


def test_frames_are_packed_in_their_order_and_nothing_else_is(tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    for number in (1, 2, 10):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"img_{number}.png")
    (folder / "readme.txt").write_text("no picture")
    walk = Film(video(path=str(folder), kind="folder"))
    question = Question("q", "caption", "whole", "What?", "That.", 0.0, 1.0, "made")
    assert reference(walk, (question,), "walk")["video_read_type"] == "img"
    assert "video_read_type" not in reference(Film(video()), (question,), "walk")
    files: list[Path] = []
    with Shards(tmp_path, "train", 1, files) as shards:
        shards.film(walk, [(question,)])
    with tarfile.open(files[0]) as tar:
        names = tar.getnames()
        held = [Image.open(tar.extractfile(name)).getpixel((0, 0)) for name in names[1:]]  # type: ignore[arg-type]
    assert [name.split(".", 1)[1] for name in names] == ["json", "000000.png", "000001.png", "000002.png"]
    assert held == [(1, 0, 0), (2, 0, 0), (10, 0, 0)]


def test_a_picture_hides_no_video_and_is_told_of(tmp_path: Path) -> None:
    folder, frames = tmp_path / "films", tmp_path / "films" / "frames"
    frames.mkdir(parents=True)
    film(folder / "a.mp4", 1)
    film(folder / "b.mp4", 2)
    for place in (folder / "poster.jpg", folder / "cover1.png", frames / "1.png", frames / "2.png"):
        Image.fromarray(videos.numbered(3)).save(place)
    setting = default(str(folder), str(tmp_path / "out"))
    assert [Path(one.path).name for one in discover(setting)] == ["a.mp4", "b.mp4", "frames"]
    do("scan", replace(setting, scan=Scan(shortest=1.0)))
    [aside] = read_asides(tmp_path / "out" / "scan.aside.jsonl")
    assert (aside.kind, aside.what) == ("rejected", str(folder)) and "its pictures, 2, are no frames" in aside.reason


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("img_1.jpg", "img_2.jpg", "notes.txt"), True),
        (("img_1.jpg",), False),
        (("img_1.jpg", "img_2.jpg", "poster.jpg"), False),
        (("img_1.jpg", "img_2.jpg", "film.mp4"), False),
        (("a.mp4",), False),
    ],
)
def test_what_frames_are(names: tuple[str, ...], told: bool) -> None:
    assert is_frames(names) is told


def test_a_link_to_nothing_is_one_video_that_fails(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    film(folder / "a.mp4", 1)
    (folder / "b.mp4").symlink_to(tmp_path / "gone.mp4")
    ran = do("scan", default(str(folder), str(tmp_path / "out")))
    assert (ran.records, ran.films, ran.failed) == (2, 1, 1)
    [aside] = read_asides(tmp_path / "out" / "scan.aside.jsonl")
    assert aside.what == str(folder / "b.mp4") and "is missing" in aside.reason


def test_what_cannot_be_looked_into_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, listed = tmp_path / "films", Path.iterdir
    (folder / "closed").mkdir(parents=True)
    film(folder / "a.mp4", 1)
    film(folder / "b.mp4", 2).rename(os.fsdecode(bytes(folder) + b"/caf\xe9.mp4"))

    def closed(self: Path) -> Iterator[Path]:
        if self.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", closed)
    ran = do("scan", default(str(folder), str(tmp_path / "out")))
    assert (ran.records, ran.failed) == (1, 0)
    odd, shut = read_asides(tmp_path / "out" / "scan.aside.jsonl")
    assert (odd.what, odd.reason) == (f"{folder}/caf\\udce9.mp4", "its name is no UTF-8: rename it")
    assert (shut.what, shut.reason) == (str(folder / "closed"), "it cannot be listed: Permission denied")


def test_a_source_without_videos_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    setting = default(str(tmp_path / "films"), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="no video in"):
        list(discover(setting))
    with pytest.raises(FileNotFoundError, match="there is no"):
        list(discover(Setting("o", default(str(tmp_path / "none"), "o").source)))


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_shots_begin_where_they_begin(detector: str, tmp_path: Path) -> None:
    path = film(tmp_path / "six.mp4", 4, seconds=60, scenes=6)
    found = cuts(probe(path), Shots(detector=detector))  # type: ignore[arg-type]
    assert found == [10.0, 20.0, 30.0, 40.0, 50.0]
    still = film(tmp_path / "still.mp4", 5, seconds=30, scenes=1)
    assert cuts(probe(still), Shots(detector=detector)) == []  # type: ignore[arg-type]


def test_frames_are_hashed_evenly(tmp_path: Path) -> None:
    info = probe(film(tmp_path / "six.mp4", 4, seconds=60, scenes=6))
    found = hashes(info, 6)
    assert len(set(found)) == 6 and hashes(info, 12)[::2] == found
