"""vcflash eval: what it prints, writes and refuses."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import videos
from command import run, start
from PIL import Image
from questionnaires import rows, write

from videochat_flash.eval.run import read_results

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


def test_from_a_file_to_a_report(file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    asked = ["eval", file, "--out", out, "--model", model]
    done = run(capsys, *asked)
    assert (done.code, done.err) == (0, "") and "right" in done.out and "mIoU" in done.out
    assert sorted(path.name for path in out.iterdir()) == [
        *("report.md", "report.png", "results.jsonl", "run.json", "summary.json")
    ]
    before = (out / "results.jsonl").read_bytes()
    told = json.loads(run(capsys, *asked, "--json").out)
    assert (out / "results.jsonl").read_bytes() == before and before.count(b"\n") == 24
    assert json.loads((out / "summary.json").read_text()) == told
    assert told["complete"] and told["counts"]["answered"] == 12 and told["run"]["settings"]["prompt"] == "full"
    assert (out / "report.md").read_text().startswith("# Evaluation\n")
    other = run(capsys, *asked, "--keep", "off")
    assert other.code == 1 and "holds results of another run (keep '2:0.5 by attention" in other.err
    assert "choose another --out" in other.err and len(other.lines) == 1
    again = run(capsys, *asked, "--keep", "off", "--out", tmp_path / "off", "--against", out, "--json")
    against = json.loads(again.out)["against"]
    assert again.code == 0 and against["name"] == str(out) and against["sections"]["answers"]["trials"] == 9
    scored = run(capsys, "eval", file, "--out", out, "--score-only", "--benchmark", "video-mme", "--json")
    assert json.loads(scored.out)["reference"] == "Video-MME" and (out / "results.jsonl").read_bytes() == before


def test_rows_that_cannot_be_asked_are_told_and_block(
    file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [{**rows()[0], "answer": "E"}, {**rows()[1], "video": "clips/9.mp4"}, {**rows()[2], "id": rows()[3]["id"]}]
    path = file.with_name("bad.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows(), *bad]))
    out = tmp_path / "run"
    asked = ["eval", path, "--out", out, "--model", model, "--no-blind"]
    done = run(capsys, *asked)
    assert (done.code, done.out, len(done.lines)) == (1, "", 4) and not out.exists()
    assert done.lines[0].startswith("vcflash: note: line 13 (id '0-choice-0'): answer 'E' is not among its options")
    assert (
        "3 of 15 rows cannot be asked (1 answer not among options, 1 missing video, 1 duplicated id)" in done.lines[3]
    )
    done = run(capsys, *asked, "--allow-missing")
    assert done.code == 0 and len(done.lines) == 3 and "unasked" in done.out
    told = json.loads((out / "summary.json").read_text())
    assert not told["complete"] and told["counts"]["unasked"] == 3 and len(told["flaws"]) == 3
    assert "**Incomplete**: 3 rows" in (out / "report.md").read_text()


def test_a_broken_video_fails_alone_and_blocks_the_score(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path)
    (tmp_path / "clips" / "1.mp4").write_bytes(b"no video")
    out = tmp_path / "run"
    asked = ["eval", file, "--out", out, "--model", model]
    done = run(capsys, *asked)
    assert done.code == 1 and len(done.lines) == 1 and not (out / "report.md").exists()
    assert "4 questions failed and 0 were not asked (most often: " in done.err and "clips/1.mp4" in done.err
    allowed = run(capsys, *asked, "--allow-missing", "--json")
    counts = json.loads(allowed.out)["counts"]
    assert (counts["answered"], counts["failed"]) == (8, 4)
    videos.make(tmp_path / "clips" / "1.mp4", 8, 2)
    mended = run(capsys, *asked)
    assert mended.code == 0 and "failed" not in mended.out


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(file: Path, model: Path, tmp_path: Path) -> None:
    """With real processes, and kill -9."""
    asked = ["eval", file, "--model", model, "--quiet", "--out"]
    path = tmp_path / "killed" / "results.jsonl"
    process = start(*asked, tmp_path / "killed")
    limit = time.monotonic() + 300
    while not (path.is_file() and path.read_bytes().count(b"\n") >= 3) and time.monotonic() < limit:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    kept = path.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    for out in (tmp_path / "killed", tmp_path / "whole"):
        process = start(*asked, out)
        _, told = process.communicate(timeout=300)
        assert (process.returncode, told) == (0, "")
    assert path.read_bytes().startswith(kept) and path.read_bytes().count(b"\n") == 24
    texts = [{key: one.text for key, one in read_results(tmp_path / name).items()} for name in ("killed", "whole")]
    assert texts[0] == texts[1]


def test_a_limit_and_an_end_before_all_is_asked(
    file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    few = run(capsys, "eval", file, "--out", out, "--model", model, "--limit", 4, "--no-blind", "--json")
    assert json.loads(few.out)["counts"]["answered"] == 4
    part = run(capsys, "eval", file, "--out", out, "--score-only")
    assert part.code == 1 and "8 were not asked (the run was stopped or limited)" in part.err
    assert run(capsys, "eval", file, "--out", out, "--score-only", "--allow-missing").code == 0


def test_windows_of_one_video_are_seen_apart(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, [{**rows()[0], "id": str(i), "start": i, "end": i + 2} for i in range(2)])
    beyond = [{**rows()[0], "id": "late", "start": 99}]
    assert run(capsys, "eval", file, "--out", tmp_path / "run", "--model", model, "--no-blind").code == 0
    late = write(tmp_path, beyond)
    done = run(capsys, "eval", late, "--out", tmp_path / "late", "--model", model, "--no-blind")
    assert done.code == 1 and "start 99 s is beyond the end of" in done.err and "there is nothing to score" in done.err


def test_pictures_and_folders_of_them(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "frames").mkdir()
    for i in range(4):
        Image.fromarray(videos.numbered(i)).save(tmp_path / "frames" / f"{i}.png")
    some = [{**rows()[0], "id": name, "video": name} for name in ("frames", "frames/0.png")]
    assert run(capsys, "eval", write(tmp_path, some), "--out", tmp_path / "run", "--model", model).code == 0


BAD = {
    "file": (["{}/none.jsonl", "--out", "{}/x"], 1, "none.jsonl is missing"),
    "out": (["{}/rows.jsonl"], 2, "--out"),
    "keep": (["{}/rows.jsonl", "--out", "{}/x", "--keep", "much"], 2, "much"),
    "plan": (["{}/rows.jsonl", "--out", "{}/x", "--keep", "99:0.5"], 2, "99"),
    "model": (["{}/rows.jsonl", "--out", "{}/x", "--model", "flash-tinny"], 1, "flash-tinny"),
    "frames": (["{}/rows.jsonl", "--out", "{}/x", "--fps", "1", "--num-frames", "8"], 2, "exclude each other"),
    "benchmark": (["{}/rows.jsonl", "--out", "{}/x", "--benchmark", "nlvr"], 2, "--benchmark"),
    "score": (["{}/rows.jsonl", "--out", "{}/x", "--score-only"], 1, "ask the questions first"),
    "limit": (["{}/rows.jsonl", "--out", "{}/x", "--limit", "0"], 2, "--limit"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_said_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    arguments, code, words = BAD[name]
    done = run(capsys, "eval", *(one.format(tmp_path) for one in arguments))
    assert (done.code, done.out, len(done.lines)) == (code, "", 1) and words in done.err
    assert not (tmp_path / "x").exists()


def test_nothing_to_compare_with(file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["eval", file, "--out", tmp_path / "run", "--model", model, "--limit", 1, "--no-blind"]
    done = run(capsys, *asked, "--against", tmp_path / "none")
    assert done.code == 1 and "names no run to compare with" in done.err and len(done.lines) == 1
    assert not (tmp_path / "run").exists()  # told before anything is asked


def test_without_matplotlib_there_is_no_picture_but_a_note(
    file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "videochat_flash.eval.plot", raising=False)
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.axes"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run(capsys, "eval", file, "--out", tmp_path / "run", "--model", model, "--limit", 1, "--no-blind")
    assert done.code == 0 and "no report.png: matplotlib" in done.err and (tmp_path / "run" / "report.md").is_file()
