"""Scores, reports and pictures: they say what was answered, and what was not."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystacks import Told, small, truth, wrong
from PIL import Image

from videochat_flash.journal import read_run
from videochat_flash.niah import plot, score
from videochat_flash.niah.report import report
from videochat_flash.niah.results import Shard, read_results
from videochat_flash.niah.run import run
from videochat_flash.niah.suite import Suite, Trial
from videochat_flash.remote import Refused
from videochat_flash.stats import wilson

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return small(tmp_path_factory.mktemp("suites") / "both", lengths=(48, 64), hops=(0, 1), rotations=2, items=4)


def facts_of(suite: Suite, folder: Path, says: Any, name: str = "told", **more: Any) -> dict[str, Any]:
    run(suite, folder, Told(says, name, **more), Shard(), lambda *_: None)
    return score.summary(suite, read_results(suite, folder), read_run(folder))


def test_an_oracle_has_everything_right(suite: Suite, tmp_path: Path) -> None:
    facts = facts_of(suite, tmp_path, truth)
    assert facts["accuracy"] == 1.0 and facts["counts"]["right"] == len(suite.trials)
    single, multi = facts["single"], facts["multi"]
    assert len(single["cells"]) == 6 and single["all_rotations"] == 1.0 and single["chance"] == 0.25
    [cell] = [one for one in single["cells"] if (one["length"], one["depth"]) == (48, 0.5)]
    assert (cell["right"], cell["asked"]) == (4, 4) and (cell["low"], cell["high"]) == wilson(4, 4)  # of two orders
    assert single["reliable_length"] is None and single["reliable_needs"] == 35
    assert multi["joint"]["mean"] == 1.0 and multi["counts"]["both right"] == 2 * 4 * 2
    assert [(one["length"], one["hops"], one["asked"]) for one in multi["cells"]] == [
        *((48, 0, 4), (48, 1, 4), (64, 0, 4), (64, 1, 4))
    ]
    assert facts["controls"]["multi"]["shares"]["C7"]["accuracy"] == 1.0
    assert facts["lines"] == {"trained": 20, "window": 24, "unique": None}


def needled(trial: Trial) -> str:
    """Right where the answer can be seen; else wrong."""
    return truth(trial) if trial.control in ("", "C2", "C7") else wrong(trial)


def test_controls_tell_what_was_needed(suite: Suite, tmp_path: Path) -> None:
    told = facts_of(suite, tmp_path, needled)["controls"]
    assert {name: one["accuracy"] for name, one in told["single"]["shares"].items()} == {
        "C0": 0.0,
        "C1": 0.0,
        "C2": 1.0,
        "C3": 0.0,
    }
    assert told["single"]["blind_adjusted"] == 1.0 and told["single"]["chain_necessity"] is None
    assert told["multi"]["chain_necessity"] == 1.0 and told["multi"]["shares"]["C5"]["asked"] == 2
    assert told["single"]["full"]["asked"] == 2 and told["multi"]["shares"]["C5"]["whole"]["asked"] == 2


def test_chains_are_needed_by_those_that_have_any(suite: Suite, tmp_path: Path) -> None:
    """Without a pointer nothing is broken: what such chains score says nothing of the others' need."""

    def direct(trial: Trial) -> str:
        return truth(trial) if trial.suite == "multi" and not trial.hops else wrong(trial)

    told = facts_of(suite, tmp_path, direct)["controls"]["multi"]
    assert told["chain_necessity"] == 0.0 and told["full"]["accuracy"] == 0.5
    assert told["shares"]["C5"]["whole"]["accuracy"] == 0.0 and told["shares"]["C0"]["whole"]["accuracy"] == 0.5


def test_controls_are_held_against_the_same_depth(suite: Suite, tmp_path: Path) -> None:
    def middle(trial: Trial) -> str:
        return truth(trial) if trial.control == "C2" or trial.depth == 0.5 and not trial.control else wrong(trial)

    assert facts_of(suite, tmp_path, middle)["controls"]["single"]["blind_adjusted"] == 1.0


def test_cells_without_answers_are_told(suite: Suite, tmp_path: Path) -> None:
    def lost(trial: Trial) -> str | None:
        gone = trial.suite == "single" and (trial.length == 64 or trial.depth == 0.0) or trial.hops == trial.length - 63
        return None if gone and not trial.control else truth(trial)

    facts = facts_of(suite, tmp_path, lost, failure=Refused)
    single, multi = facts["single"], facts["multi"]
    assert [one["asked"] for one in single["cells"]] == [0, 4, 4, 0, 0, 0] and single["reliable_length"] is None
    assert single["mean"]["incomplete"] == 4 and multi["joint"]["incomplete"] == 1
    assert [one["asked"] for one in multi["cells"]] == [4, 4, 4, 0]
    assert [one["mean"] for one in single["by_length"]] == [1.0, None]
    told = report(json.loads(json.dumps(facts)))
    assert "Grid mean 100.0 % (51.0 to 100.0) of an incomplete grid" in told and "| 0% | - | - |" in told
    assert plot.draw(facts, tmp_path)


def test_scores_over_lengths_are_no_more_certain_than_chains_are_many(suite: Suite, tmp_path: Path) -> None:
    good = {one.item for one in suite.trials if one.suite == "multi" and one.item.endswith(("0", "1"))}
    told = facts_of(suite, tmp_path, lambda one: truth(one) if one.item in good else wrong(one))["multi"]
    assert told["cap"]["asked"] == 4 and told["cap"]["accuracy"] == 0.5
    assert told["cap"]["high"] - told["cap"]["low"] > 0.9  # of two chains in four, whatever was asked of them
    assert [(one["length"], one["cap"]["asked"]) for one in told["by_length"]] == [(48, 4), (64, 4)]
    low, high = wilson(2, 4)
    assert (told["by_length"][0]["cap"]["low"], told["by_length"][0]["cap"]["high"]) == (low, high)


def test_official_chains_are_told_by_length_and_guessed_by_question(tmp_path: Path) -> None:
    trailer = "\nOptions: (A) red\n(B) blue\n(C) green\n(D) pink\nOnly give the best option. Best option: ("
    entries = []
    for names in (["niah_1_3_a.png", "bare.png", "niah_1_1_b.png"], ["1.png", "niah_2_2_b.png"]):
        for name in names:
            Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / name)
        entries.append(
            {
                "images": names,
                **{f"{key}{i}": value for key, value in (("question", trailer), ("answer", "A")) for i in (1, 2)},
            }
        )
    (tmp_path / "list.json").write_text(json.dumps([entries[0], entries[0], entries[1]]))
    listed = str(tmp_path / "list.json")
    made = small(tmp_path / "suite", mode="compat", needles=listed, lengths=(20, 32))
    facts = facts_of(made, tmp_path / "run", lambda one: truth(one) if one.hops and one.length == 20 else wrong(one))
    multi = facts["multi"]
    assert multi["chance"] == 0.25**2 and facts["accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert [one["counts"]["both right"] for one in multi["by_length"]] == [2, 0]
    assert [one["mean_of_cap_and_qa"] for one in multi["by_length"]] == [pytest.approx(2 / 3), 0]
    assert "| both right | 2 | 0 | 2 |" in report(facts) and "6.2 % by chance" in report(facts)


def test_a_blind_guesser_is_at_chance(suite: Suite, tmp_path: Path) -> None:
    facts = facts_of(suite, tmp_path, lambda trial: "A")
    assert facts["single"]["all_rotations"] == 0.0
    assert 0 < facts["accuracy"] < 0.75


def test_joint_and_marginal_scores_are_told_apart(suite: Suite, tmp_path: Path) -> None:
    facts = facts_of(suite, tmp_path, lambda one: wrong(one) if one.role == "cap" else truth(one))["multi"]
    assert (facts["cap"]["accuracy"], facts["qa"]["accuracy"], facts["qa_joint"]["accuracy"]) == (0.0, 1.0, 0.0)
    assert facts["counts"] == {"both right": 0, "only cap right": 0, "only qa right": 16, "both wrong": 0}
    assert facts["mean_of_cap_and_qa"] == 0.5 and facts["qa_given_cap"]["accuracy"] is None
    assert facts["joint"]["mean"] == 0.0  # of chains: single needles beside them, all right, count for themselves
    assert [cell["accuracy"] for cell in facts["cells"]] == [1.0, 0.0, 1.0, 0.0]


def test_what_cannot_be_read_is_wrong_and_told(suite: Suite, tmp_path: Path) -> None:
    def says(trial: Trial) -> str | None:
        return (
            {0.0: "I see something.", 0.5: "", 1.0: None}.get(trial.depth or 0.0, "")
            if trial.depth is not None
            else "B"
        )

    facts = facts_of(suite, tmp_path, lambda one: says(one) if int(one.id, 16) % 3 else truth(one))
    counts = facts["counts"]
    assert counts["unparsed"] and counts["empty"] and counts["errors"]
    assert counts["answered"] + counts["errors"] == counts["trials"]
    assert counts["answered"] == sum(counts[name] for name in ("right", "wrong", "unparsed", "empty"))
    asked = sum(cell["asked"] for cell in facts["single"]["cells"] if cell["depth"] == 1.0)
    assert asked < 8  # failures are in no cell
    told = report(facts)
    assert f"{counts['grid']['errors']} failed (not scored)" in told and "x it would not say" in told


def test_what_controls_cannot_read_is_told_apart(suite: Suite, tmp_path: Path) -> None:
    """Who says nothing to a text without a video is not thereby worse at the grid."""
    lost = next(one for one in suite.trials if one.control == "C1")
    blind = sum(one.control == "C0" for one in suite.trials)

    def says(trial: Trial) -> str | None:
        return None if trial == lost else "" if trial.control == "C0" else truth(trial)

    facts = facts_of(suite, tmp_path, says)
    counts, controls = facts["counts"]["grid"], facts["counts"]["controls"]
    assert counts["trials"] == counts["right"] == sum(not one.control for one in suite.trials)
    assert counts["empty"] == counts["errors"] == 0 and controls["empty"] == blind and controls["errors"] == 1
    assert facts["counts"]["trials"] == counts["trials"] + controls["trials"] == len(suite.trials)
    told = report(facts)
    assert f"- trials: {counts['trials']} of {counts['trials']} answered, 0 failed" in told
    assert f"- of controls: {controls['trials'] - 1} of {controls['trials']} answered, 1 failed" in told


def test_chains_with_a_missing_answer_are_left_out(suite: Suite, tmp_path: Path) -> None:
    lost = next(one for one in suite.trials if one.kind == "caption" and not one.control)
    facts = facts_of(suite, tmp_path, lambda one: None if one.id == lost.id else truth(one))
    assert sum(facts["multi"]["counts"].values()) == 2 * 4 * 2 - 1


def test_nothing_answered_is_nothing_to_score(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in a row"):
        run(suite, tmp_path, Told(lambda _: None), Shard(), lambda *_: None)
    with pytest.raises(ValueError, match="nothing to score; the last error: it would not say"):
        score.summary(suite, read_results(suite, tmp_path), read_run(tmp_path))


def answers(suite: Suite, folder: Path, name: str, says: Any) -> list[score.Scored]:
    run(suite, folder / name, Told(says, name), Shard(), lambda *_: None)
    return score.scored(suite, read_results(suite, folder / name))


def test_two_runs_are_compared(suite: Suite, tmp_path: Path) -> None:
    told = score.compared(answers(suite, tmp_path, "a", truth), answers(suite, tmp_path, "b", wrong), 0)
    assert [one["part"] for one in told] == ["single-hop", "chains, 0 hops", "chains, 1 hop", "all"]
    assert all(one["difference"] == 1.0 for one in told)
    assert [(one["trials"], one["clusters"]) for one in told] == [(24, 4), (8, 4), (8, 4), (40, 12)]
    assert [one["p"] for one in told[:3]] == [0.125] * 3 and told[3]["p"] == 2 / 2**12  # of 4 and of 12 items


def test_a_difference_in_chains_is_not_that_of_single_needles(suite: Suite, tmp_path: Path) -> None:
    first = answers(suite, tmp_path, "a", truth)
    second = answers(suite, tmp_path, "b", lambda one: wrong(one) if one.kind == "caption" else truth(one))
    told = {one["part"]: one["difference"] for one in score.compared(first, second, 0)}
    assert told == {"single-hop": 0.0, "chains, 0 hops": 0.0, "chains, 1 hop": 1.0, "all": 0.2}  # a chain as a whole


def test_orders_of_letters_count_once(suite: Suite, tmp_path: Path) -> None:
    """Who is right in one order of two has half of an item, not one of two items."""
    first = answers(suite, tmp_path, "a", truth)
    second = answers(suite, tmp_path, "b", lambda one: wrong(one) if one.rotation else truth(one))
    assert {one["difference"] for one in score.compared(first, second, 0)} == {0.5}
    turned = [one for one in second if not one.trial.rotation]  # only what both have answered is compared
    assert {one["difference"] for one in score.compared(first, turned, 0)} == {0.0}
    with pytest.raises(ValueError, match="share nothing"):
        score.compared(first, [], 0)


def test_the_report_says_all_of_it(suite: Suite, tmp_path: Path) -> None:
    facts = facts_of(suite, tmp_path, truth)
    one = {"part": "single-hop", "difference": 0.5, "p": 0.01, "trials": 8, "clusters": 4}
    against = {"name": "b", "parts": [one, {**one, "part": "all", "p": 0.0002}]}
    told = report({**json.loads(json.dumps(facts)), "against": against})
    for words in (
        "## Single-hop",
        "## Multi-hop",
        "## Controls",
        "Chain necessity",
        "design effect",
        "504",
        "rotations=2",
        "| single-hop | +50.0 points | 8 | 4 | 0.010 |",
        "| all | +50.0 points | 8 | 4 | < 0.001 |",
        "trained to 20 frames",
    ):
        assert words in told
    assert "| 50% | 100.0 % (51 to 100, n 4) |" in told


# Pictures.


def test_what_each_haystack_gave_is_told_where_there_are_several(tmp_path: Path, suite: Suite) -> None:
    two = small(tmp_path / "two", lengths=(48,), haystacks=(("procedural",), ("procedural",)), hops=(1,), items=4)
    facts = facts_of(two, tmp_path / "told", lambda trial: truth(trial) if trial.haystack else wrong(trial))
    assert [(one["single"]["mean"], one["multi"]["mean"]) for one in facts["by_haystack"]] == [(0, 0), (1, 1)]
    assert facts["single"]["mean"]["mean"] == 0.5
    told = report(facts)
    assert "## By haystack" in told and told.count("100.0 % (") >= 2
    alone = facts_of(suite, tmp_path / "one", truth)
    assert alone["by_haystack"] == [] and "## By haystack" not in report(alone)


def test_heat_maps_of_both_suites(suite: Suite, tmp_path: Path) -> None:
    facts = facts_of(suite, tmp_path / "run", truth)
    facts["lines"] = {"trained": 50, "window": 63.0, "unique": None}
    made = plot.draw(facts, tmp_path)
    names = [f"heatmap{part}.{form}" for part in ("", "-multi") for form in ("png", "svg")]
    assert [path.name for path in made] == names and sorted(path.name for path in tmp_path.glob("heat*")) == sorted(
        names
    )
    with Image.open(made[0]) as image:
        assert image.width > 400 and len(image.convert("RGB").getcolors(10**6) or ()) > 20
    assert ElementTree.parse(made[1]).getroot().tag.endswith("svg")
    before = made[1].read_bytes()
    assert plot.draw(facts, tmp_path)[1].read_bytes() == before


def test_numbers_stand_in_the_cells_and_rows_are_not_merged() -> None:
    depths = [round(i * 0.05, 2) for i in range(21)]
    cells = [{"length": n, "depth": d, "accuracy": d} for n in (1000, 10_000) for d in depths]
    figure = plot.heatmap(cells[:-1], "depth", "depth", "title", {"unique": 5000, "window": 10_000, "trained": None})
    axes = figure.axes[0]
    written = [text.get_text() for text in axes.texts]
    assert len(written) == 42 and written[:2] == ["0.00", "0.00"] and written[-1] == "–"
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(labels)) == 21 and "5%" in labels and "10,000" in [one.get_text() for one in axes.get_xticklabels()]
    assert axes.images[0].get_clim() == (0, 1)
    assert [line.get_xdata()[0] for line in axes.lines] == [0.5]


@pytest.mark.parametrize(
    ("at", "place"), [(None, None), (50, -0.5), (100, 0.5), (150, 0.5), (200, 1.5), (300, None), (400, None)]
)
def test_where_lines_cross(at: float | None, place: float | None) -> None:
    assert plot.crossing([100, 200, 300], at) == place
