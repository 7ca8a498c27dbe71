"""The synthetic suite: its rows say what its videos show, and a model that sees is scored on it from end to end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command import run
from questionnaires import Told, quiet

from videochat_flash.eval import score, synthetic
from videochat_flash.eval.items import Item, read_items
from videochat_flash.eval.run import read_results
from videochat_flash.eval.run import run as ask_all
from videochat_flash.eval.synthetic import GROUPS, options_of, write_suite
from videochat_flash.journal import read_run
from videochat_flash.needle import PROCEDURAL
from videochat_flash.synth import Question
from videochat_flash.synth.questions import TEMPLATES

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("suites") / "suite"
    write_suite(where, PROCEDURAL, 2, 40, 5, quiet)
    return where


def test_every_row_is_a_question_of_a_truth(folder: Path) -> None:
    items, flaws = read_items(folder / "suite.jsonl")
    assert flaws == [] and {one.video.suffix for one in items} == {".mp4"}
    tasks = Counter(dict(one.groups)["task"][0] for one in items)
    assert set(tasks) == set(GROUPS.values()) and max(Counter(dict(one.groups)["kind"] for one in items).values()) <= 4
    truths = {
        (path.with_suffix(".mp4").name, one["question"]): one
        for path in folder.glob("*.json")
        for one in json.loads(path.read_text())
    }
    for item in items:
        truth = truths[item.name, item.question]
        if item.interval:
            assert list(item.interval) == truth["seconds"]
        elif item.options:
            assert item.options[item.answer] == truth["answer"] and len(set(item.options)) == len(item.options) > 1
        else:
            assert item.references == (truth["answer"],)


def answer(item: Item) -> str:
    if item.interval:
        return "From {:g} to {:g} seconds.".format(*item.interval)
    return item.options[item.answer] if item.options else item.references[0]


def test_a_perfect_and_a_random_answerer(folder: Path, tmp_path: Path) -> None:
    items, _ = read_items(folder / "suite.jsonl")
    rng = np.random.default_rng(0)

    def anything(item: Item) -> str:
        if item.interval:
            return "{:.1f} - {:.1f}".format(*sorted(rng.uniform(0, 40, 2)))
        return item.options[int(rng.integers(len(item.options)))] if item.options else "A red star with the digit 7."

    facts = {}
    for name, says in (("perfect", answer), ("random", anything)):
        ask_all(items, tmp_path / name, Told(says, name=name, prompt="question"), False, quiet)
        facts[name] = score.summary(items, [], read_results(tmp_path / name), read_run(tmp_path / name))
    assert facts["perfect"]["answers"]["all"]["score"] == facts["perfect"]["intervals"]["all"]["score"] == 1.0
    assert facts["random"]["answers"]["all"]["score"] < 0.5 and facts["random"]["intervals"]["all"]["score"] < 0.5
    assert facts["random"]["answers"]["axes"]["kind"]["shape"]["chance"] == pytest.approx(1 / 6)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        out = tmp_path / name
        done = run(capsys, "synth", "suite", "--out", out, "--videos", 1, "--frames", 16, "--seed", seed)
        assert done.code == 0 and done.err == "" and done.out.startswith(f"{out}/suite.jsonl: ")
        made[name] = {path.name: path.read_bytes() for path in out.iterdir()}
    assert made["a"] == made["b"] != made["c"] and set(made["a"]) == {"0-plain.mp4", "0-plain.json", "suite.jsonl"}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--videos", "0"], 2, "--videos"),
        (["--videos", "1001"], 1, "1 to 1000"),
        (["--frames", "1"], 1, "more frames"),
        (["--frames", "3"], 1, "more frames"),  # known of the second video only
    ],
)
def test_suites_that_cannot_be(
    options: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(capsys, "synth", "suite", "--out", tmp_path / "s", *options)
    assert done.code == code and words in done.err and len(done.lines) == 1
    assert not (tmp_path / "s").exists() or not any((tmp_path / "s").iterdir())


def test_the_order_of_two_things_has_these_two_as_options() -> None:
    for text in TEMPLATES["order"]:
        question = Question(text.format(thing="red star", other="blue kite"), "the red star", "order", (0, 1))
        assert options_of(question) == ["the red star", "the blue kite"]


@pytest.mark.slow
def test_flash_tiny_sees_what_a_blind_one_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From drawing to report. It was never taught grounding and chains: of these only the mechanics count."""
    suite, out = tmp_path / "suite", tmp_path / "run"
    assert run(capsys, "synth", "suite", "--out", suite, "--videos", 2, "--frames", 24, "--seed", 3).code == 0
    done = run(capsys, "eval", suite / synthetic.FILE, "--out", out, "--prompt", "question", "--json")
    assert (done.code, done.err) == (0, "")
    facts = json.loads(done.out)
    assert facts["complete"] and facts["counts"]["answered"] == facts["counts"]["rows"]
    needles = facts["answers"]["axes"]["task"]["needles"]
    assert needles["score"] >= 0.8 and needles["score"] > needles["blind"] and needles["score"] > needles["constant"]
