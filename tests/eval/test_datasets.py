"""Public benchmarks in their own file formats, made up and small: from annotations and real videos to their scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from annotations import SETS, Set, dump, film, longvideobench, mlvu, mvbench, video_mme
from command import Done, run
from PIL import Image
from questionnaires import Told, quiet

from videochat_flash.eval import score, subtitles
from videochat_flash.eval.benchmarks import BENCHMARKS
from videochat_flash.eval.items import read_items
from videochat_flash.eval.prompts import prompt
from videochat_flash.eval.run import read_results
from videochat_flash.eval.run import run as ask_all
from videochat_flash.eval.subtitles import Line, shown, white_lines
from videochat_flash.grade import LETTERS
from videochat_flash.journal import read_run
from videochat_flash.video import Sampling, decode, plan, probe

pytestmark = pytest.mark.usefixtures("unchecked")


def written(name: str, some: Set, out: Path, capsys: pytest.CaptureFixture[str], said: bool = True) -> Done:
    more = ["--subtitles", some.subtitles] if said and some.subtitles else []
    return run(capsys, "rows", name, *some.files, "--videos", some.videos, "--out", out, *more)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_from_annotations_to_scores(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked in the paper's words, of which flash-tiny knows none: that all arrives and is read is what counts."""
    some = SETS[name](tmp_path / "data")
    out = tmp_path / "rows.jsonl"
    done = written(name, some, out, capsys)
    wrong = some.gold.count(None)
    assert done.code == 0 and f"{len(some.gold) - wrong} questions about" in done.out
    assert bool(done.err) == bool(wrong)
    items, flaws = read_items(out)
    assert len(flaws) == wrong and {axis for one in items for axis, _ in one.groups} == some.axes
    assert set(BENCHMARKS[name].axes) <= some.axes

    asked = ["eval", out, "--out", tmp_path / "run", "--benchmark", name, "--prompt", "paper"]
    told = run(capsys, *asked, "--policy", "reference", "--keep", "off", "--no-blind", "--allow-missing", "--json")
    facts = json.loads(told.out)
    assert told.code == 0 and facts["counts"]["answered"] == len(items) and facts["counts"]["failed"] == 0

    gold = iter([one for one in some.gold if one is not None])
    right = {item.id: next(gold) for item in items}
    ask_all(items, tmp_path / "oracle", Told(lambda one: right[one.id], prompt="paper"), False, quiet)
    facts = score.summary(items, flaws, read_results(tmp_path / "oracle"), read_run(tmp_path / "oracle"), name)
    row = facts["answers" if facts["answers"] else "intervals"]["all"]
    assert row["score"] == row["reference"] == 1.0 and facts["reference"] == BENCHMARKS[name].title


def cards_in(name: str, at: Path, capsys: pytest.CaptureFixture[str], shift: float = 0.0) -> Set:
    """A data set in its own format whose film flash-tiny knows: which card is where, asked in words.

    Args:
        name: of the benchmark.
        at: its folder.
        shift: seconds by which stretches of the film lie beside what is asked about.
    """
    film, told = at / "videos" / "film.mp4", at / "truth.json"
    film.parent.mkdir(parents=True)
    drawn = ["--haystack", "procedural", "--frames", 48, "--questions", 8, "--seed", 7, "--out", film, "--truth", told]
    assert run(capsys, "synth", "needle", *drawn).code == 0
    words = {"character": ["P", "E", "L", "5"], "colour": ["white", "yellow", "red"], "shape": ["diamond", "triangle"]}
    asked = [one for one in json.loads(told.read_text()) if one["kind"] in words]
    both = ("question", "answer")
    every = [{**{field: one[field] for field in both}, "candidates": words[one["kind"]]} for one in asked]
    gold: list[str | None] = [one["answer"] for one in every]
    if name == "mvbench":  # cut to a stretch
        cut = [(one["seconds"][0] + shift - 2, one["seconds"][1] + shift + 2) for one in asked]
        rows = [
            {**one, "video": "film.mp4", "start": max(0.0, start), "end": min(48.0, end)}
            for one, (start, end) in zip(every, cut, strict=True)
        ]
        return Set([dump(at / "action_sequence.json", rows)], film.parent, None, gold, {"task"})
    if name == "lvbench":  # a folder of frames
        folder = film.parent / "00000001"
        folder.mkdir()
        info = probe(film)
        for chunk in decode(info, plan(info, Sampling("count", num_frames=48)), 224):
            for second, pixels in zip(chunk.seconds, chunk.pixels, strict=True):
                Image.fromarray(pixels).save(folder / f"frame_{second:05.0f}.png")
        rows = [{**one, "video": folder.name, "type": "tv", "question_type": ["reasoning"]} for one in every]
        return Set([dump(at / "lvbench_clean.json", rows)], film.parent, None, gold, {"type", "ability"})
    more = {"duration": "short", "domain": "d", "sub_category": "s", "task_type": "t", "videoID": "film"}
    rows = [
        {**more, "question": one["question"], "options": one["candidates"]}
        | {"answer": LETTERS[one["candidates"].index(one["answer"])]}
        for one in every
    ]
    return Set([dump(at / "test.json", rows)], film.parent, None, gold, {"duration"})


def right(name: str, some: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> float:
    """How many flash-tiny answers right, from the data set's own files to the score."""
    assert written(name, some, tmp_path / "rows.jsonl", capsys).code == 0
    asked = ["eval", tmp_path / "rows.jsonl", "--out", tmp_path / "run", "--prompt", "question", "--no-blind", "--json"]
    done = run(capsys, *asked)
    assert done.code == 0, done.err
    return float(json.loads(done.out)["answers"]["all"]["score"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvbench", "lvbench", "video-mme"])
def test_flash_tiny_sees_what_a_data_set_shows(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Videos, stretches of them and folders of frames arrive at the model as what they are."""
    assert right(name, cards_in(name, tmp_path / "data", capsys), tmp_path, capsys) >= 0.8


@pytest.mark.slow
def test_and_nothing_of_it_in_another_stretch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert right("mvbench", cards_in("mvbench", tmp_path / "data", capsys, 8.0), tmp_path, capsys) < 0.5


def rows_of(name: str, some: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert written(name, some, tmp_path / "rows.jsonl", capsys).code == 0
    return [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]


def test_clips_and_folders_of_frames_keep_their_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, episode = rows_of("mvbench", mvbench(tmp_path / "data"), tmp_path, capsys)
    assert (first["id"], first["video"], first["start"], first["end"]) == (
        *("action_sequence-0", "data/video/sta/1.mp4", 1.0, 5.5),
    )
    assert second["options"] == ["a"] and first["group"] == {"task": "action_sequence"}
    assert (episode["start"], episode["end"]) == (0.0, 10.5)  # three frames a second, each shown for one
    assert episode["video"] == "data/video/tvqa/show_seg01_clip_00"


def test_an_answer_that_is_none_of_the_options_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = written("mlvu", mlvu(tmp_path / "data"), tmp_path / "rows.jsonl", capsys)
    assert "1 of 3 rows cannot be asked (1 answer not among options), the first: line 2" in done.err
    assert "answer 'e' is not among its options" in done.err and len(done.lines) == 1


def test_subtitles_of_longvideobench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = longvideobench(tmp_path / "data")
    first, _ = rows_of("longvideobench", some, tmp_path, capsys)
    assert first["subtitles"] == "Seen.\nShort, and seen." and first["options"] == ["one", "two", "three"]
    assert written("longvideobench", some, tmp_path / "bare.jsonl", capsys, said=False).code == 0
    assert "subtitles" not in (tmp_path / "bare.jsonl").read_text()
    (tmp_path / "data" / "subtitles" / "a_en.json").unlink()
    done = written("longvideobench", some, tmp_path / "rows.jsonl", capsys)
    assert done.code == 1 and "a_en.json are missing" in done.err


@pytest.mark.parametrize(
    ("start", "end", "duration", "begin", "seen"),
    [
        (1.2, 2.5, 8, 0, True),
        (1.2, 1.8, 8, 0, False),  # widened to 1 to 2: no whole second lies strictly inside
        (1.1, 1.3, 8, 0, True),  # widened to 0.7 to 1.7
        (1.0, 2.0, 8, 0, False),  # the ends do not count
        (8.5, 9.5, 8, 0, False),
        (18.5, 19.5, 12, 10, True),
        (0.5, 1.9, 1024, 0, False),  # a frame every two seconds
        (1.5, 2.9, 1024, 0, True),
    ],
)
def test_a_line_is_shown_where_a_frame_is_taken(
    start: float, end: float, duration: float, begin: float, seen: bool
) -> None:
    assert list(shown([Line(start, end, "x")], duration, begin)) == ["x"] * seen


def test_subtitles_of_video_mme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("video-mme", video_mme(tmp_path / "data"), tmp_path, capsys)
    assert [row.get("subtitles") for row in rows] == ["Hello.\nBye.", "", None]
    assert rows[2]["options"] == ["one", "two", "three", "A. Four."]
    items, _ = read_items(tmp_path / "rows.jsonl")
    told = [prompt(one, "paper", "video-mme") for one in items]
    assert told[0].startswith("This video's subtitles are listed below: \nHello.\nBye.\nThese are the frames and ")
    assert told[1].startswith("This video's subtitles are listed below: \n\nThese are the frames and subtitles of ")
    assert told[2].startswith("These are the frames of a video.") and "\nD. A. Four.\n" in told[2]
    assert white_lines("plain") == []


BAD = {
    "name": (["nlvr", "{}/a.json"], 2, "BENCHMARK"),
    "missing": (["mlvu", "{}/none.json"], 1, "none.json is missing"),
    "text": (["mlvu", "{}/text.json"], 1, "is not JSON"),
    "object": (["mlvu", "{}/object.json"], 1, "not a list of objects"),
    "format": (["mlvu", "{}/a.json"], 1, "record 0: not in the format of mlvu (KeyError: 'candidates')"),
    "nothing": (["mlvu", "{}/nothing.json"], 1, "no questions in it"),
    "twice": (["charades-sta", "{}/twice.json"], 1, "several videos are named v.mp4"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_said_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.json").write_text("x")
    dump(tmp_path / "object.json", {"a": 1})
    dump(tmp_path / "nothing.json", [])
    dump(tmp_path / "a.json", [{"video": "v.mp4", "question": "q"}])
    dump(tmp_path / "twice.json", [{"video": "v.mp4", "caption": "c", "timestamp": [0, 1]}])
    for folder in "ab":
        film(tmp_path / "videos" / folder / "v.mp4")
    arguments, code, words = BAD[name]
    given = [one.format(tmp_path) for one in arguments]
    done = run(capsys, "rows", *given, "--videos", tmp_path / "videos", "--out", tmp_path / "rows.jsonl")
    assert (done.code, done.out, len(done.lines)) == (code, "", 1) and words in done.err
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_folder_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path / "a.json", [])
    done = run(capsys, "rows", "mlvu", tmp_path / "a.json", "--videos", tmp_path / "no", "--out", tmp_path / "r.jsonl")
    assert done.code == 1 and "is not a folder" in done.err


def test_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet, arrow = (pytest.importorskip(name) for name in ("pyarrow.parquet", "pyarrow"))
    some = video_mme(tmp_path / "data")
    path = tmp_path / "data" / "test.parquet"
    parquet.write_table(arrow.Table.from_pylist(json.loads(some.files[0].read_text())), path)
    assert written("video-mme", some, tmp_path / "a.jsonl", capsys).code == 0
    done = run(capsys, "rows", "video-mme", path, "--videos", some.videos, "--subtitles", some.subtitles or "", "--out",
               tmp_path / "b.jsonl")  # fmt: skip
    assert done.code == 0 and (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()


def test_subtitles_that_cannot_be_read(tmp_path: Path) -> None:
    for values in ([{"when": 1}], [1], {"a": 1}):
        with pytest.raises(ValueError, match="holds no subtitles"):
            subtitles.read_lines(dump(tmp_path / "s.json", values))


def test_a_parquet_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.parquet").write_text("x")
    done = run(capsys, "rows", "mlvu", tmp_path / "a.parquet", "--videos", tmp_path, "--out", tmp_path / "r.jsonl")
    assert done.code == 1 and "is not a parquet file" in done.err and len(done.lines) == 1


def test_without_pyarrow(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.parquet").write_text("x")
    done = run(capsys, "rows", "mlvu", tmp_path / "a.parquet", "--videos", tmp_path, "--out", tmp_path / "r.jsonl")
    assert done.code == 1 and "pip install 'videochat-flash[eval]'" in done.err
