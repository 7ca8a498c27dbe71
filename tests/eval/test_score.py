"""Scores of runs: what answerers of every kind get, baselines beside it, what was left out, comparisons, reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from questionnaires import COLOURS, Told, items, quiet, rows, truth, wrong

from videochat_flash.eval import plot, score
from videochat_flash.eval.benchmarks import BENCHMARKS
from videochat_flash.eval.items import Flaw, Item
from videochat_flash.eval.report import report
from videochat_flash.eval.run import read_results, run
from videochat_flash.journal import read_run
from videochat_flash.stats import wilson


@pytest.fixture
def some(tmp_path: Path) -> list[Item]:
    return items(tmp_path / "data")


def facts_of(
    some: list[Item], out: Path, asker: Told, blind: bool = True, benchmark: str = "mvbench"
) -> dict[str, Any]:
    run(some, out, asker, blind, quiet)
    return score.summary(some, [], read_results(out), read_run(out), benchmark)


def test_a_perfect_answerer(some: list[Item], tmp_path: Path) -> None:
    facts = facts_of(some, tmp_path, Told(truth))
    assert facts["complete"] and facts["counts"]["answered"] == 12 and facts["counts"]["videos"] == 3
    answers, intervals = facts["answers"]["all"], facts["intervals"]["all"]
    assert (answers["score"], answers["asked"], answers["unparsed"]) == (1.0, 9, 0)
    assert answers["wilson"] == wilson(9, 9) and answers["clustered"] == wilson(3, 3)  # nine answers, three videos
    assert (intervals["score"], intervals["recall"]) == (1.0, {"0.3": 1.0, "0.5": 1.0, "0.7": 1.0})
    assert intervals["reference"] == 1.0 and intervals["wilson"] is None and intervals["reference_recall"]["0.7"] == 1.0
    assert answers["reference"] is None and answers["chance"] is None  # questions without options are among them
    colour = facts["answers"]["axes"]["task"]["colour"]
    assert (colour["asked"], colour["chance"], colour["reference"]) == (6, 0.25, 1.0)
    assert facts["answers"]["axes"]["ability"]["reading"]["asked"] == 3  # of the questions with two labels
    assert facts["answers"]["means"] == {"task": 1.0, "ability": 1.0}
    assert facts["intervals"]["axes"] == {"group": {"t": intervals}}


def test_a_blind_answerer_is_told_by_its_baselines(some: list[Item], tmp_path: Path) -> None:
    facts = facts_of(some, tmp_path, Told(lambda _: "A"))
    colour = facts["answers"]["axes"]["task"]["colour"]
    # of A B B C C D: one is right; the best constant letter gets two
    assert colour["score"] == colour["blind"] == pytest.approx(1 / 6) and colour["constant"] == pytest.approx(2 / 6)
    assert facts["intervals"]["all"]["score"] == 0.0 and facts["intervals"]["all"]["unparsed"] == 3
    met = [1 / 3, 1.0, 1 / 3]  # of 0 to 2, 1 to 3 and 2 to 4 by the best answer, 1 to 3
    assert facts["intervals"]["all"]["constant"] == pytest.approx(np.mean(met))
    assert facts_of(some, tmp_path / "x", Told(truth), False)["answers"]["all"]["blind"] is None


def test_a_hostile_answerer_gets_nothing(some: list[Item], tmp_path: Path) -> None:
    facts = facts_of(some, tmp_path, Told(lambda _: "A man walks from A to B, C or D; 0 - 1, 1 - 2, 2 - 3, 3 - 4."))
    assert facts["answers"]["all"]["score"] == facts["intervals"]["all"]["score"] == 0.0
    assert facts["counts"]["unparsed"] == 6 + 3 and facts["counts"]["wrong"] == 3
    assert facts["answers"]["axes"]["task"]["colour"]["reference"] == pytest.approx(1 / 6)  # "a" is A there


def test_empty_answers_are_wrong_and_only_the_reference_forgets_them(some: list[Item], tmp_path: Path) -> None:
    choices = [one for one in some if one.options]
    facts = facts_of(choices, tmp_path, Told(lambda one: truth(one) if one.name == "clips/0.mp4" else ""))
    row = facts["answers"]["all"]
    assert (row["score"], row["empty"], row["reference"]) == (pytest.approx(2 / 6), 4, 1.0)
    assert facts["intervals"] is None
    other = score.summary(choices, [], read_results(tmp_path), read_run(tmp_path), "perception-test")
    assert other["answers"]["all"]["reference"] == pytest.approx(2 / 6) and other["reference"] == "Perception Test"


def test_without_letters_options_are_named_by_their_words(some: list[Item], tmp_path: Path) -> None:
    choices = [one for one in some if one.options]
    facts = facts_of(choices, tmp_path, Told(lambda one: COLOURS[one.answer], prompt="question"))
    row = facts["answers"]["all"]
    assert (row["score"], row["reference"], row["constant"]) == (1.0, None, pytest.approx(2 / 6))
    assert facts_of(choices, tmp_path / "x", Told(truth, prompt="question"))["answers"]["all"]["score"] == 0.0


def test_times_count_from_the_row_s_start(tmp_path: Path) -> None:
    row = {**rows()[3], "interval": [11, 13], "start": 10, "end": 20}
    facts = facts_of(items(tmp_path / "data", [row]), tmp_path, Told(lambda _: "From 1 to 3 seconds."))
    assert facts["intervals"]["all"]["score"] == facts["intervals"]["all"]["reference"] == 1.0


def test_letters_that_the_reference_draws_are_the_same_every_time(some: list[Item]) -> None:
    rule = BENCHMARKS["longvideobench"]
    choices = [replace(one, question=f"{n}?") for one in some if one.options for n in range(20)]
    drawn = [score.as_reference(one, "unclear", True, rule) for one in choices]
    assert drawn == [score.as_reference(one, "unclear", True, rule) for one in choices]
    assert 0.1 < np.mean([float(one or 0) for one in drawn]) < 0.4


def test_what_is_left_out_is_counted_and_not_scored(some: list[Item], tmp_path: Path) -> None:
    run(some, tmp_path, Told(lambda one: None if one.interval else truth(one)), False, quiet)
    gone = replace(some[0], question="Now what?")
    flaws = [Flaw(13, "x", "missing video", "its video x.mp4 is missing")]
    facts = score.summary([gone, *some[1:]], flaws, read_results(tmp_path), read_run(tmp_path))
    counts = facts["counts"]
    told = {name: counts[name] for name in ("rows", "unasked", "answered", "failed", "missing", "others")}
    assert told == {"rows": 13, "unasked": 1, "answered": 8, "failed": 3, "missing": 1, "others": 1}
    assert not facts["complete"] and facts["intervals"] is None
    assert facts["answers"]["all"]["score"] == 1.0 and facts["answers"]["at_least"] == pytest.approx(8 / 10)
    text = report(facts)
    for words in ("**Incomplete**: 5 rows are not", "counted as wrong: 80.0 %", "1 missing video",
                  "line 13 (id 'x'): its", "3 x it would not say", "1 results of rows that are not"):  # fmt: skip
        assert words in text
    with pytest.raises(ValueError, match="nothing was answered: there is nothing to score; the last error: it would"):
        score.summary(some[3:4], [], read_results(tmp_path), read_run(tmp_path))


def test_two_runs_are_compared_on_what_both_answered(some: list[Item], tmp_path: Path) -> None:
    runs = {}
    for name, says in (("good", truth), ("bad", wrong), ("half", lambda one: None if one.interval else truth(one))):
        run(some, tmp_path / name, Told(says, name=name), False, quiet)
        where = tmp_path / name
        runs[name] = score.scored(some, read_results(where), read_run(where), BENCHMARKS["mvbench"])
    told = score.compared(runs["good"], runs["bad"])
    assert told["answers"]["difference"] == 1.0 and told["answers"]["trials"] == 9 and told["answers"]["clusters"] == 3
    assert told["answers"]["p"] == pytest.approx(2 / 2**3) and told["answers"]["against"] == 0.0
    assert told["intervals"]["difference"] == 1.0 and list(score.compared(runs["good"], runs["half"])) == ["answers"]
    assert score.compared(runs["good"], runs["good"])["intervals"]["p"] == 1.0
    with pytest.raises(ValueError, match="share no question"):
        score.compared(runs["good"], [])


def test_the_report_says_all_of_it(some: list[Item], tmp_path: Path) -> None:
    facts = facts_of(some, tmp_path, Told(truth))
    against = {"name": "other", "sections": score.compared(
        *(score.scored(some, read_results(tmp_path), read_run(tmp_path), BENCHMARKS["mvbench"]) for _ in range(2))
    )}  # fmt: skip
    text = report({**json.loads(json.dumps(facts)), "against": against})
    for words in ("# Evaluation", "model: told", "| all | 9 | 100.0 % | 70.1 to 100.0 | 43.8 to",
                  "### By ability", "| reading | 3 |", "## Intervals", "R@0.7", "+0.0 points", "p = 1."):  # fmt: skip
        assert words in text
    assert "Incomplete" not in text and "Left out" not in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(widths) == {11, 12}  # tables of answers and of intervals: every line has all columns


def test_a_bar_in_a_label_does_not_break_a_table(tmp_path: Path) -> None:
    row = {**rows()[0], "group": "a |\nb"}
    assert "| a / b |" in report(facts_of(items(tmp_path / "data", [row]), tmp_path, Told(truth)))


def test_the_picture(some: list[Item], tmp_path: Path) -> None:
    facts = facts_of(some, tmp_path, Told(lambda one: truth(one) if one.name != "clips/1.mp4" else "no"))
    path = plot.draw(facts, tmp_path / "report.png")
    with Image.open(path) as image:
        assert image.width == 960 and image.height > 400 and len(image.convert("RGB").getcolors(10**6) or ()) > 20
    before = path.read_bytes()
    assert plot.draw(facts, path).read_bytes() == before
    one = plot.draw({**facts, "intervals": None}, tmp_path / "one.png")
    with Image.open(one) as image:
        assert image.height < 500
