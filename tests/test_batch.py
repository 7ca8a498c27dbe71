"""Many rows: right answers, failures told, and a run that goes on where it was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command import ROOT, ray_began, run, start
from videos import make

from videochat_flash import batch, batch_cluster
from videochat_flash.chat import VideoChatFlash
from videochat_flash.video import Sampling

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    make(tmp_path / "films" / "a.mp4", 32, 4)
    make(tmp_path / "films" / "b.mp4", 16, 4)
    (tmp_path / "films" / "bad.mp4").write_text("no video")
    return tmp_path / "films"


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> dict[Any, dict[str, Any]]:
    return {one["id"]: one for one in map(json.loads, path.read_text().splitlines())}


ROWS = [
    {"id": 1, "video": "a.mp4", "question": "What is it?", "truth": "left alone"},
    {"id": "two", "video": "b.mp4", "question": "What is it?"},
    {"id": 3, "video": "bad.mp4", "question": "What is it?"},
    {"id": 4, "video": "a.mp4", "question": "And when?"},
    {"id": 5, "video": "a.mp4", "question": "And when?", "start": 2, "end": 6},
    {"id": 6, "video": "nothing.mp4", "question": "What is it?"},
    {"id": 7, "video": "b.mp4", "question": ""},
    {"id": 8, "video": "b.mp4", "question": "When?", "start": 99},
]


def test_every_row_gets_its_answer_or_its_failure(
    films: Path, model: Path, vc: VideoChatFlash, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = written(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    done = run(capsys, "batch", asked, out, "--model", model, "--root", films, "--max-frames", 16)
    told = read(out)
    assert (done.code, done.out) == (1, f"{out}: 4 answered, 4 failed, 0 were there\n")
    a, b = vc.see(films / "a.mp4", Sampling(max_frames=16)), vc.see(films / "b.mp4", Sampling(max_frames=16))
    part = vc.see(films / "a.mp4", Sampling(max_frames=16, start=2.0, end=6.0))
    expected = {1: (a, "What is it?"), "two": (b, "What is it?"), 4: (a, "And when?"), 5: (part, "And when?")}
    assert {row: told[row].get("answer") for row in expected} == {
        row: vc.answer(sight, words) for row, (sight, words) in expected.items()
    }
    assert {row for row, one in told.items() if one.get("error")} == {3, 6, 7, 8}
    assert told[1]["frames"] == 16 and told[1]["generated_tokens"] > 0


def test_rows_about_one_video_are_seen_once(films: Path, vc: VideoChatFlash, tmp_path: Path) -> None:
    seen: list[object] = []

    class Counting(VideoChatFlash):
        def see(self, *given: Any, **more: Any) -> Any:
            seen.append(given[0].source)
            return super().see(*given, **more)

    counting = Counting(vc.model, vc.tokenizer, vc.decoding)
    rows = batch.read_rows(written(tmp_path / "in.jsonl", ROWS))
    how = batch.How(films, Sampling(max_frames=16), batch.Manner())
    assert [len(list(batch.answers(counting, group, how))) for group in batch.grouped(rows)] == [2, 2, 1, 1, 1, 1]
    assert seen.count(str(films / "a.mp4")) == 2 and seen.count(str(films / "b.mp4")) == 2  # whole, and one stretch


def test_too_little_memory_fails_a_row_and_a_fault_of_the_program_all(
    films: Path, vc: VideoChatFlash, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, how = (
        batch.grouped([batch.Row(1, "a.mp4", "What is it?", None, None)])[0],
        batch.How(films, Sampling(), batch.Manner()),
    )

    def fails(words: str) -> None:
        def see(*given: object, **more: object) -> None:
            raise RuntimeError(words)

        monkeypatch.setattr(VideoChatFlash, "see", see)

    fails("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    assert "can't allocate" in next(batch.answers(vc, group, how))["error"]
    fails("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes"):
        next(batch.answers(vc, group, how))


def test_what_is_there_is_not_asked_again(
    films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = written(tmp_path / "in.jsonl", ROWS[:3]), tmp_path / "out.jsonl"
    out.write_text('{"id": 1, "answer": "mine"}\n{"id": "two", "answ')  # cut off in the middle
    done = run(capsys, "batch", asked, out, "--model", model, "--root", films)
    assert done.out == f"{out}: 1 answered, 1 failed, 1 were there\n"
    assert read(out)[1] == {"id": 1, "answer": "mine"} and set(read(out)) == {1, "two", 3}
    before = out.read_text()
    done = run(capsys, "batch", asked, out, "--model", "another", "--root", films)
    assert done.code == 1 and f"was answered by {model}, not by another" in done.err and out.read_text() == before
    (tmp_path / "all.jsonl").write_text(before.replace(str(model), "no-model-is-loaded"))
    done = run(capsys, "batch", asked, tmp_path / "all.jsonl", "--model", "no-model-is-loaded", "--root", films)
    assert done.code == 1 and done.out.endswith("0 answered, 0 failed, 3 were there, 1 of them failed (--retry)\n")
    make(films / "bad.mp4", 16, 4)
    done = run(capsys, "batch", asked, out, "--model", model, "--root", films, "--retry")
    assert (done.code, done.out) == (0, f"{out}: 1 answered, 0 failed, 2 were there\n")
    assert read(out)[1] == {"id": 1, "answer": "mine"} and "answer" in read(out)[3]


def test_another_question_or_another_way_is_not_taken_for_what_is_there(
    films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = written(tmp_path / "in.jsonl", ROWS[:2]), tmp_path / "out.jsonl"
    same = ("batch", asked, out, "--model", model, "--root", films)
    assert run(capsys, *same).code == 0
    before = out.read_text()
    for more in (("--max-frames", 16), ("--keep", "off")):
        done = run(capsys, *same, *more)
        assert done.code == 1 and "id 1 was asked something else, or with other options" in done.err
    written(asked, [{**ROWS[0], "question": "What was it?"}, ROWS[1]])
    assert "id 1 was asked something else" in run(capsys, *same).err and out.read_text() == before
    written(asked, [{**ROWS[0], "truth": "what is none of a row's"}, *ROWS[1:2], ROWS[3]])
    assert run(capsys, *same).out.endswith("1 answered, 0 failed, 2 were there\n")


def test_where_a_prefix_finds_no_room_questions_are_asked_without(
    films: Path, vc: VideoChatFlash, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = batch.grouped([batch.Row(i, "a.mp4", "What is it?", None, None) for i in (1, 2)])[0]
    how = batch.How(films, Sampling(max_frames=16), batch.Manner())
    plain = list(batch.answers(vc, group, how))
    full = torch.OutOfMemoryError("CUDA out of memory")
    real, used = batch.say, []

    def refused(*given: Any, **more: Any) -> Any:
        used.append(more["prefix"])
        if more["prefix"] is not None:
            raise full
        return real(*given, **more)

    def none(*given: object, **more: object) -> None:
        raise full

    monkeypatch.setattr(batch, "say", refused)
    asked = list(batch.answers(vc, group, how))
    assert [one is None for one in used] == [False, True, True]
    monkeypatch.setattr(batch, "prepare", none)
    again = list(batch.answers(vc, group, how))
    assert [one["answer"] for one in asked] == [one["answer"] for one in again] == [one["answer"] for one in plain]


def test_a_killed_run_goes_on(films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": i, "video": "a.mp4", "question": f"Question {i}?"} for i in range(60)]
    asked, out = written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    process = start("batch", asked, out, "--model", model, "--root", films)
    end = time.monotonic() + 600
    while not out.exists() or out.read_text().count("\n") < 3:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    second = run(capsys, "batch", asked, out, "--model", model, "--root", films)
    assert second.code == 1 and "another run" in second.err
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    there = out.read_text().count("\n")
    done = run(capsys, "batch", asked, out, "--model", model, "--root", films)
    assert done.code == 0 and f"{there} were there" in done.out
    assert set(read(out)) == set(range(60)) and out.read_text().count("\n") == 60


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ('{"id": 1, "video": "a.mp4", "question": "x"}', "id 1 stands there before"),
        ('{"video": "a.mp4", "question": "x"}', "'id' is missing"),
        ('{"id": true, "video": "a.mp4", "question": "x"}', "id must not be True"),
        ('{"id": 2, "video": 3, "question": "x"}', "video must not be 3"),
        ('{"id": 2, "video": "a.mp4", "question": "x", "start": "1"}', "start must be seconds"),
        ('{"id": 2, "video": "a\\ud83d.mp4", "question": "x"}', "surrogates not allowed"),
    ],
)
def test_what_is_no_row_is_told_before_anything_is_done(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + line + "\n")
    done = run(capsys, "batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert done.code == 1 and words in done.err and len(done.lines) == 1 and not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "words", ["my notes\nand more", "my notes", "my notes\n", '{"a": 1}\n', '{"no end', '{"id": 1}\n{"id": 2}']
)
def test_a_file_that_holds_something_else_is_left_alone(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = written(tmp_path / "in.jsonl", ROWS), tmp_path / "notes.txt"
    out.write_text(words)
    done = run(capsys, "batch", asked, out)
    assert done.code == 1 and "something else" in done.err and out.read_text() == words


# On Ray.


@pytest.fixture
def ray() -> None:
    pytest.importorskip("ray")


def plain(path: Path) -> dict[Any, dict[str, Any]]:
    """What stands in a file, without how long it took."""
    return {row: {name: one[name] for name in one if name != "seconds"} for row, one in read(path).items()}


def ray_processes(pid: int) -> list[int]:
    """Processes of Ray's that a process has started, and theirs."""
    own = [int(one) for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]
    return [one for child in own for one in (child, *ray_processes(child))]


@pytest.mark.slow
def test_two_workers_of_a_ray_cluster_write_what_one_process_writes(
    ray: None, films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, here, there = written(tmp_path / "in.jsonl", ROWS), tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    common = ("--model", model, "--root", films, "--max-frames", 16)
    assert run(capsys, "batch", asked, here, *common).code == 1
    process = start("batch", asked, there, *common, "--ray-address", "local", "--workers", 2)
    out, err = process.communicate(timeout=600)
    ray_began(err)
    assert (process.returncode, out) == (1, f"{there}: 4 answered, 4 failed, 0 were there\n"), err
    assert plain(there) == plain(here) and there.read_text().count("\n") == len(ROWS)


@pytest.mark.slow
def test_a_run_on_ray_that_is_killed_goes_on_and_leaves_no_process(
    ray: None, films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": i, "video": f"{'ab'[i % 2]}.mp4", "question": f"Question {i}?"} for i in range(600)]
    asked, out = written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    common = ("--model", model, "--root", films, "--max-frames", 16)
    process = start("batch", asked, out, *common, "--ray-address", "local", "--workers", 2)
    end = time.monotonic() + 600
    while not out.exists() or out.read_text().count("\n") < 5:
        if process.poll() is not None:
            told = process.communicate()
            ray_began(told[1])
            raise AssertionError(told)
        assert time.monotonic() < end
        time.sleep(0.02)
    left = ray_processes(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    there = out.read_text().count("\n")
    assert 5 <= there < len(rows) and left
    few = written(tmp_path / "few.jsonl", rows[: there + 20])
    again = start("batch", few, out, *common, "--ray-address", "local", "--workers", 2)
    _, err = again.communicate(timeout=600)
    ray_began(err)
    assert again.returncode == 0, err
    assert {row["id"] for row in rows[: there + 20]} <= set(read(out)) and len(read(out)) == out.read_text().count("\n")
    alone = tmp_path / "alone.jsonl"
    assert run(capsys, "batch", few, alone, *common).code == 0
    assert {row: plain(out)[row] for row in plain(alone)} == plain(alone)
    while any(Path(f"/proc/{pid}").exists() for pid in left):  # Ray takes a minute to see that it is alone
        assert time.monotonic() < end
        time.sleep(0.1)


FRAGILE = """
import contextlib, os, sys, time
from pathlib import Path
from videochat_flash import batch, batch_cluster, cluster
from videochat_flash.video import Sampling

films, model, here = map(Path, sys.argv[1:4])
once, told = here / "once", here / "told"

class Fragile(batch_cluster.Worker):
    def ready(self):
        began = time.monotonic()
        while once.exists() and told.parent.joinpath("slowly").exists() and not told.exists():
            if time.monotonic() - began > 60:
                here.joinpath("late").touch()
                break
            time.sleep(0.02)
        return super().ready()

    def answers(self, group):
        for line, row in zip(super().answers(group), group):
            if row.question == "Die?" or (row.question == "Once?" and not once.exists()):
                once.touch()
                os._exit(9)
            while row.question == "After?" and not once.exists():
                time.sleep(0.02)
            yield line

batch_cluster.Worker = Fragile
if __name__ == "__main__":
    rows = [batch.Row(i, *one.split(" ")) for i, one in enumerate(sys.argv[5:])]
    how = batch.How(films, Sampling(max_frames=8), batch.Manner())
    loading = {"model": str(model), "revision": None, "device": "cpu", "dtype": "auto"}
    workers = int(sys.argv[4])
    ray, lines = cluster.join("local", workers), []
    with contextlib.redirect_stdout(sys.stderr):  # Ray tells of dead processes
        for line in batch_cluster.answered(ray, batch_cluster.start(ray, workers, 1, loading, how), rows):
            lines.append((line["id"], line.get("error", "answered")))
            if once.exists() and rows[line["id"]].question == "After?":
                told.touch()
    print(*(" ".join(map(str, one)) for one in lines), sep="\\n")
"""


def fragile(films: Path, model: Path, folder: Path, workers: int, *rows: str) -> list[str]:
    """Rows ("VIDEO QUESTION") answered by workers that are really killed, by the row that they answer."""
    done = subprocess.run(
        [sys.executable, "-c", FRAGILE, *map(str, (films, model, folder, workers)), *rows],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    ray_began(done.stderr)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "raylet" not in line]


@pytest.mark.slow
def test_a_row_that_ends_its_workers_is_a_failure_and_the_others_are_answered(
    ray: None, films: Path, model: Path, tmp_path: Path
) -> None:
    rows = [f"a.mp4 {words}" for words in ("One?", "Once?", "Three?", "Die?", "Five?")]
    expected = [f"{row} answered" for row in (0, 1, 2)] + [f"3 {batch_cluster.LOST}", "4 answered"]
    assert fragile(films, model, tmp_path, 1, *rows) == expected


@pytest.mark.slow
def test_while_a_worker_starts_again_the_lines_of_others_are_written(
    ray: None, films: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "slowly").touch()  # it waits for a line of the other one
    rows = ["a.mp4 Once?", *["b.mp4 After?"] * 4]
    assert sorted(fragile(films, model, tmp_path, 2, *rows)) == [f"{row} answered" for row in range(5)]
    assert not (tmp_path / "late").exists()


@pytest.mark.slow
def test_a_model_that_is_not_there_ends_it_in_one_line_on_ray_too(ray: None, films: Path, tmp_path: Path) -> None:
    asked, out = written(tmp_path / "in.jsonl", ROWS[:1]), tmp_path / "out.jsonl"
    process = start("batch", asked, out, "--model", tmp_path / "nothing", "--root", films, "--ray-address", "local")
    _, err = process.communicate(timeout=600)
    ray_began(err)
    assert process.returncode == 1 and "nothing" in err and len(err.splitlines()) == 1, err
    assert not out.read_text()
