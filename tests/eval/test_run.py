"""Runs: nothing is asked twice, nothing recorded is lost, and results of something else are never scored."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from questionnaires import Told, items, quiet, truth

from videochat_flash.eval.run import IN_A_ROW, RESULTS, Ran, in_order, read_results, run


def test_every_question_is_asked_once_with_and_without_its_video(tmp_path: Path) -> None:
    some, told = items(tmp_path / "data"), list[tuple[int, int, str]]()
    asker, out = Told(truth), tmp_path / "out"
    assert run(some, out, asker, True, lambda *how: told.append(how)) == Ran(24, 0, 24, 0)
    assert len(set(asker.asked)) == len(asker.asked) == 24 and told[-1] == (24, 24, "")
    records = read_results(out)
    assert all(records[one.id, one.mark, False].text == truth(one) for one in some)
    assert {records[one.id, one.mark, True].text for one in some} == {"A"}
    assert run(some, out, asker, True, quiet) == Ran(24, 24, 0, 0) and len(asker.asked) == 24


def test_questions_about_one_look_follow_each_other(tmp_path: Path) -> None:
    some = items(tmp_path)
    mixed = [*some[::2], *some[1::2], replace(some[0], id="window", start=1.0)]
    looks = [item.look for item, blind in in_order(mixed, True)]
    assert len(list(groupby(looks))) == len(set(looks)) == 4 and len(looks) == 26


def test_blind_questions_can_come_later(tmp_path: Path) -> None:
    some, asker = items(tmp_path / "data"), Told(truth)
    assert run(some, tmp_path / "out", asker, False, quiet) == Ran(12, 0, 12, 0)
    assert run(some, tmp_path / "out", asker, True, quiet) == Ran(24, 12, 12, 0)
    assert sum(blind for _, blind in asker.asked) == 12


def test_what_failed_is_tried_again_and_never_an_answer(tmp_path: Path) -> None:
    some, out = items(tmp_path / "data"), tmp_path / "out"
    ran = run(some, out, Told(lambda one: None if one.interval else truth(one)), False, quiet)
    assert (ran.answered, ran.failed) == (9, 3)
    failed = [one for one in read_results(out).values() if one.status == "error"]
    assert len(failed) == 3 and {one.error for one in failed} == {"it would not say"}
    again = Told(truth)
    assert run(some, out, again, False, quiet) == Ran(12, 9, 3, 0) and len(again.asked) == 3
    assert all(one.status == "ok" for one in read_results(out).values())


def test_many_videos_in_a_row_end_a_run_one_video_does_not(tmp_path: Path) -> None:
    rows = [
        {"id": f"{video}-{i}", "video": f"{video}.mp4", "question": "Which?", "reference": "x"}
        for video in range(12)
        for i in range(12)
    ]
    (tmp_path / "data").mkdir()
    some = items(tmp_path / "data", rows)
    lonely = Told(lambda one: None if one.name == "3.mp4" else "x")
    assert run(some, tmp_path / "one", lonely, True, quiet).failed == 12
    with pytest.raises(ValueError, match=f"about {IN_A_ROW} videos in a row failed, the last one: it would not say"):
        run(some, tmp_path / "many", Told(lambda one: None), True, quiet)
    assert len({key[0].partition("-")[0] for key in read_results(tmp_path / "many")}) == IN_A_ROW


def test_videos_that_failed_before_do_not_end_a_run_again(tmp_path: Path) -> None:
    rows = [{"id": str(i), "video": f"{i}.mp4", "question": "Which?", "reference": "x"} for i in range(IN_A_ROW + 2)]
    (tmp_path / "data").mkdir()
    some, out = items(tmp_path / "data", rows), tmp_path / "out"
    seen = Told(lambda one: None if int(one.id) % 2 else "x")
    assert run(some, out, seen, True, quiet).failed == 6
    unseen = Told(lambda one: None)
    more = [*some, *(replace(one, id=f"new {one.id}") for one in some[: IN_A_ROW - 1])]
    assert run(more, out, unseen, False, quiet).failed == 6 + IN_A_ROW - 1  # the next run, and new ones beside


def test_answers_of_another_run_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    some, out = items(tmp_path / "data"), tmp_path / "out"
    run(some, out, Told(truth), False, quiet)
    (out / "run.json").unlink()
    with pytest.raises(ValueError, match="answers of another run"):
        run(some, out, Told(truth, name="other"), False, quiet)


def test_a_half_written_line_is_a_question_that_was_not_asked(tmp_path: Path) -> None:
    some, out = items(tmp_path / "data"), tmp_path / "out"
    run(some, out, Told(truth), False, quiet)
    path = out / RESULTS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:30])
    assert len(read_results(out)) == 11
    asker = Told(truth)
    run(some, out, asker, False, quiet)
    assert len(asker.asked) == 1 and len(read_results(out)) == 12
    path.write_bytes(lines[0] + b'{"id": "x"}\n' + lines[1])
    with pytest.raises(ValueError, match=r"results.jsonl, line 2 is damaged"):
        read_results(out)


def test_a_row_that_was_changed_is_asked_again(tmp_path: Path) -> None:
    some, out = items(tmp_path / "data"), tmp_path / "out"
    run(some, out, Told(truth), False, quiet)
    changed = [replace(one, question="Now what?") if one.id == "1-words" else replace(one, answer=0) for one in some]
    asker = Told(truth)
    assert run(changed, out, asker, False, quiet) == Ran(12, 11, 1, 0) and asker.asked == [("1-words", False)]


def test_runs_are_not_mixed(tmp_path: Path) -> None:
    some, out = items(tmp_path / "data"), tmp_path / "out"
    run(some, out, Told(truth), False, quiet)
    with pytest.raises(ValueError, match=r"another run \(model 'told' there, 'other' now\): choose another --out"):
        run(some, out, Told(truth, name="other"), False, quiet)
    line = (out / RESULTS).read_text().splitlines()[0]
    with (out / RESULTS).open("a") as file:
        file.write(json.dumps({**json.loads(line), "run": "x"}) + "\n")
    with pytest.raises(ValueError, match="mixes results of 2 runs"):
        read_results(out)
