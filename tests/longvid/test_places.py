"""Videos in a bucket and a set that goes into one; Parquet between steps and as shards: the same questions."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import run
from longvid_corpus import corpus, film
from PIL import Image

from videochat_flash.bucket import below, fetched, put
from videochat_flash.longvid import exam
from videochat_flash.longvid.pipeline import STEPS, do
from videochat_flash.longvid.records import read_films, read_lines, read_videos, stored, writing
from videochat_flash.longvid.settings import Setting, default
from videochat_flash.longvid.write import Written, deliver, write

fsspec = pytest.importorskip("fsspec")
parquet = pytest.importorskip("pyarrow.parquet")
MEMORY = "memory:///longvid"
CONFIG = """
out = "{out}"
[[source]]
videos = "{films}"
annotations = ["{films}"]
license = "CC0"
[shots]
fps = 0
[ask]
needles = 1
[write]
formats = ["reference", "webdataset", "parquet"]
validation = 0.3
to = "{to}"
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = corpus(tmp_path_factory.mktemp("corpus") / "films")
    frames = folder / "some" / "frames"
    frames.mkdir(parents=True)
    for number in range(12):
        Image.fromarray(np.full((32, 32, 3), 20 * number, np.uint8)).save(frames / f"{number:02d}.png")
    return folder


@pytest.fixture
def bucket(films: Path) -> Iterator[str]:
    for path in films.rglob("*.*"):
        put(path, f"{MEMORY}/films/{path.relative_to(films)}")
    yield f"{MEMORY}/films"
    fsspec.filesystem("memory").rm("/longvid", recursive=True)


def config(path: Path, out: Path, films: str, to: str = "") -> Path:
    path.write_text(CONFIG.format(out=out, films=films, to=to), encoding="utf-8")
    return path


def plain(setting: Setting) -> Setting:
    return replace(setting, shots=replace(setting.shots, fps=0))


def test_videos_of_a_bucket_give_the_same_questions_and_the_set_goes_there(
    films: Path, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local, far = tmp_path / "local", tmp_path / "far"
    for path, where, to in ((local, str(films), ""), (far, bucket, f"{MEMORY}/set/")):
        done = run(capsys, "longvid", "build", config(tmp_path / "b.toml", path, where, to), "--no-plots", "--quiet")
        assert done.code == 0, done.err
    told = {path: [(one.video.key, one.questions) for one in read_films(path / "sieve.jsonl")] for path in (local, far)}
    assert told[local] == told[far] and any(one.parent for one in read_videos(far / "sieve.jsonl"))
    memory = fsspec.filesystem("memory")
    there = {path.removeprefix("/longvid/set/") for path in memory.find("/longvid/set")}
    here = {path.relative_to(far / "dataset").as_posix() for path in (far / "dataset").rglob("*.*")}
    copies = {f"needles/{path.name}" for path in (far / "needles").glob("*.mp4")}
    assert f"about 3 videos of 0.05 hours, {len(copies)} copies" in (far / "dataset" / "README.md").read_text()
    assert there == here | copies and {"README.md", "parquet/train-000000.parquet"} < here and copies
    lines = [json.loads(line) for line in memory.cat_file("/longvid/set/train.jsonl").decode().splitlines()]
    assert all(one["video"].startswith((f"{MEMORY}/films/film", f"{MEMORY}/set/needles/")) for one in lines)
    assert all(memory.exists(one["video"].removeprefix("memory://")) for one in lines)


def test_the_trainer_reads_a_set_and_its_videos_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    setting = plain(default(bucket, str(tmp_path / "out")))
    for name in STEPS[:-1]:
        do(name, setting)
    write(setting, tmp_path / "out" / "sieve.jsonl")
    put(tmp_path / "out" / "dataset" / "train.jsonl", f"{MEMORY}/films/train.jsonl")
    from videochat_flash.train.media import read_video
    from videochat_flash.train.recipe import Source, Video
    from videochat_flash.train.records import read_source

    [first, *_] = read_source(Source(f"{MEMORY}/films/train.jsonl"))
    assert not first.flaw and first.media[0].startswith(MEMORY)
    assert read_video(first.media[0], Video(max_frames=8, min_frames=8), 32, None, None, 1.0).duration == 60.0
    assert next(exam.held_out(tmp_path / "out"))[0].startswith(MEMORY)


def test_what_changes_in_a_bucket_is_done_anew_and_folders_of_frames_are_videos(bucket: str, tmp_path: Path) -> None:
    setting = default(bucket, str(tmp_path / "out"))
    first = do("scan", setting)
    assert (first.films, first.failed) == (4, 0)
    found = {one.stem: one for one in read_videos(tmp_path / "out" / "scan.jsonl")}
    assert found["frames"].kind == "folder" and found["frames"].frames == 12
    assert do("scan", setting).before == 4
    put(film(tmp_path / "other.mp4", 5), f"{bucket}/film1.mp4")
    again = do("scan", setting)
    assert (again.before, again.films) == (3, 4)


def test_a_bucket_that_is_none_and_an_out_that_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "longvid", "scan", "--videos", "memory://longvid/none", "--out", tmp_path / "out")
    assert done.code == 1 and "there is nothing at memory://longvid/none" in done.err and len(done.lines) == 1
    done = run(capsys, "longvid", "scan", "--videos", tmp_path, "--out", "memory://longvid/out")
    assert done.code == 2 and "out must be a local folder, since what is finished is appended" in done.err


def test_what_an_earlier_delivery_left_goes_and_nothing_else(tmp_path: Path) -> None:
    """A shard that stayed would have for training what is held out now."""
    names = ("train.jsonl", "validation.jsonl", "webdataset/train-000000.tar")
    old = ("train.json", "webdataset/train-000001.tar", "parquet/validation-000000.parquet")
    others = ("train.txt", "notes/train.jsonl", "webdataset/mine.tar", "parquet/2024/train-000000.parquet")
    out, folder = tmp_path / "out", tmp_path / "out" / "dataset"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("new")
    for to in (str(tmp_path / "there"), f"{MEMORY}/there"):
        for name in (*names, *old, *others):
            put(Path(__file__), f"{to}/{name}")
        setting = default(str(tmp_path / "films"), str(out))
        setting = replace(setting, write=replace(setting.write, to=to))
        deliver(setting, Written([folder / name for name in names]), lambda *_: None)
        there = {one.url.rpartition("/there/")[2] for one in below(to)}
        assert there == {*names, *others}
        with fetched(f"{to}/train.jsonl") as local:
            assert local.read_text() == "new"
    fsspec.filesystem("memory").rm("/longvid/there", recursive=True)


# Parquet.


def test_steps_leave_parquet_for_each_other_and_nothing_is_redone_for_it(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    setting = plain(default(str(films), str(out)))
    other = replace(setting, between="parquet")
    for name in STEPS[:-1]:
        do(name, setting)
    before = {name: list(read_lines(out / f"{name}.jsonl")) for name in STEPS[:-1]}
    for name in STEPS[:-1]:
        ran = do(name, other)
        assert ran.before == ran.records and not (out / f"{name}.jsonl").exists()
        assert list(read_lines(stored(out, name))) == before[name]
    assert write(other, stored(out, "sieve")).records["train"] > 60
    table = parquet.read_table(out / "sieve.parquet")
    assert table.column_names == ["video", "notes", "events", "questions"] and table.num_rows == 3
    assert run(capsys, "longvid", "report", "--videos", films, "--out", out, "--no-plots").code == 0
    assert run(capsys, "longvid", "plan", out).code == 1  # those runs redid nothing, so nobody knows what it costs
    for name in STEPS[:-1]:
        do(name, setting)
    assert {name: list(read_lines(out / f"{name}.jsonl")) for name in STEPS[:-1]} == before
    assert not list(out.glob("*.parquet"))


def test_shards_of_parquet_hold_the_conversations(films: Path, tmp_path: Path) -> None:
    setting = plain(default(str(films), str(tmp_path)))
    for turns in (1, 5):
        for name in STEPS[:-1]:
            do(name, setting)
        more = replace(setting.write, formats=("messages", "parquet"), turns=turns, validation=0.3)
        told = write(replace(setting, write=more), tmp_path / "sieve.jsonl")
        lines = [json.loads(line) for line in (tmp_path / "dataset" / "train.messages.jsonl").read_text().splitlines()]
        rows = parquet.read_table(tmp_path / "dataset" / "parquet" / "train-000000.parquet").to_pylist()
        assert len(rows) == told.records["train"] == len(lines)
        for row, line in zip(rows, lines, strict=True):
            assert {name: row[name] for name in line} == {
                name: [{**dict.fromkeys(row[name][0]), **one} for one in value] if name == "questions" else value
                for name, value in line.items()
            }
            assert not {name for name, value in row.items() if value is not None} - set(line)


def test_full_shards_are_ended_and_old_ones_go(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from videochat_flash.longvid.shards import Tables

    setting = plain(default(str(films), str(tmp_path)))
    for name in STEPS[:-1]:
        do(name, setting)
    [one, *_] = read_films(tmp_path / "sieve.jsonl")
    files: list[Path] = []
    with Tables(tmp_path, "train", 0, files, "") as tables:
        tables.film(one, [(question,) for question in one.questions])
    assert len(files) == len(one.questions) and all(parquet.read_table(path).num_rows == 1 for path in files)
    stale = tmp_path / "dataset" / "parquet" / "train-000007.parquet"
    stale.parent.mkdir(parents=True)
    shutil.copy(files[0], stale)
    write(replace(setting, write=replace(setting.write, formats=("parquet",))), tmp_path / "sieve.jsonl")
    assert not stale.exists()


def test_questions_are_mixed_into_conversations_and_none_is_lost(films: Path, tmp_path: Path) -> None:
    setting = plain(default(str(films), str(tmp_path)))
    for name in STEPS[:-1]:
        do(name, setting)
    asked = {q.id: q for one in read_films(tmp_path / "sieve.jsonl") for q in one.questions}
    write(replace(setting, write=replace(setting.write, turns=4, validation=0.3)), tmp_path / "sieve.jsonl")
    folder = tmp_path / "dataset"
    talks = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    held = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    told = [one["id"] for talk in talks for one in talk["questions"]] + [one["id"] for one in held]
    assert sorted(told) == sorted(asked) and all(len(one["conversations"]) == 2 for one in held)
    sizes = {len(talk["questions"]) for talk in talks}
    assert max(sizes) == 4 and min(sizes) >= 3
    for talk in talks:
        texts = [turn["value"] for turn in talk["conversations"]]
        assert texts[0].startswith("<image>\n") and not any("<image>" in text for text in texts[1:])
        named = [asked[one["id"]] for one in talk["questions"]]
        assert [text.removeprefix("<image>\n") for text in texts[::2]] == [one.prompt for one in named]
        assert texts[1::2] == [one.reply for one in named] and all(one["origins"] for one in talk["questions"])


def test_damaged_parquet_and_no_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scan.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="scan.parquet is damaged"):
        list(read_lines(path))
    with writing(path) as put_line:
        put_line('{"video":{"key":"a"}}')
    assert list(read_lines(path)) == ['{"video":{"key":"a"}}']
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pyarrow is not installed: pip install"):
        list(read_lines(path))
