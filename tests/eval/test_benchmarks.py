"""How scores of items become those of benchmarks, and what judges wrote becomes scores."""

from __future__ import annotations

from typing import get_args

import pytest

from videochat_flash.eval.benchmarks import BENCHMARKS, Graded, by_group, macro, micro, reference_mean
from videochat_flash.eval.datasets import READERS
from videochat_flash.eval.judges import ASPECTS, Average, Judgement, judgement, three_way, vdc
from videochat_flash.eval.options import Name
from videochat_flash.eval.prompts import PAPER


def item(score: float, empty: bool = False, **groups: str | tuple[str, ...]) -> Graded:
    return Graded(score, {name: (one,) if isinstance(one, str) else one for name, one in groups.items()}, empty)


MLVU = [*[item(1, task="count")] * 3, item(0, task="count"), *[item(0, task="order")] * 2]


def test_every_benchmark_can_be_named() -> None:
    assert list(get_args(Name)) == list(BENCHMARKS) == list(READERS) and set(PAPER) <= set(BENCHMARKS)


def test_micro_and_macro_means_are_two_numbers() -> None:
    assert micro(MLVU) == 0.5 and macro(MLVU, "task") == 0.375
    assert micro([]) is None and macro([], "task") is None and macro(MLVU, "domain") is None


def test_an_item_counts_in_each_of_its_groups() -> None:
    some = [item(1, ability=("reasoning", "entity")), item(0, ability="entity")]
    found = {name: [one.score for one in part] for name, part in by_group(some, "ability").items()}
    assert found == {"entity": [1, 0], "reasoning": [1]}


def test_the_reference_leaves_out_what_is_empty_and_weighs_tasks_by_size() -> None:
    some = [item(1, task="a"), item(0, True, task="a"), item(1, task="b"), item(0, task="b"), item(0, task="b")]
    assert reference_mean(some, BENCHMARKS["mvbench"]) == pytest.approx((2 * 1 + 3 / 3) / 5)
    assert reference_mean(some, BENCHMARKS["video-mme"]) == micro(some) == pytest.approx(2 / 5)
    assert reference_mean([item(0, True, task="a")], BENCHMARKS["mlvu"]) is None
    assert reference_mean([item(1), item(0), item(0, True)], BENCHMARKS["mvbench"]) == 0.5  # of no task
    assert reference_mean([item(1, True, task="a"), item(1, task="b")], BENCHMARKS["mlvu"]) == 1.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{'pred': 'yes', 'score': 4}", Judgement(True, 4)),
        ('Sure: {"pred": "No", "score": 1.5}.', Judgement(False, 1.5)),
        ("{'pred': 'yes', 'score': 4} {'pred': 'yes', 'score': 4}", Judgement(True, 4)),
        *(
            (text, None)
            for text in (
                "",
                "yes",
                "{'pred': 'maybe', 'score': 4}",
                "{'pred': 'yes', 'score': 6}",
                "{'pred': 'yes', 'score': '4'}",
                "{'pred': 'yes', 'score': True}",
                "{'pred': 'yes'}",
                "{'pred': yes, 'score': 4}",
                "{'pred': 'yes', 'score': 4} {'pred': 'no', 'score': 0}",
                "{__import__('os').getcwd()}",
                "{1, 2}",
            )
        ),
    ],
)
def test_what_a_judge_wrote(text: str, found: Judgement | None) -> None:
    assert judgement(text) == found


def test_vdc_means_over_questions_then_videos_then_aspects() -> None:
    yes, no = Judgement(True, 5), Judgement(False, 1)
    videos = {"v1": [yes, yes, no, None], "v2": [no]}
    told = vdc({name: videos for name in ASPECTS})
    assert told["camera"] == Average(0.25, (11 / 4 + 1) / 2, 5, 1)
    assert told["all"] == Average(0.25, (11 / 4 + 1) / 2, 25, 5)
    assert list(vdc({"camera": videos})) == ["camera"]  # no headline out of some of the aspects
    assert vdc({"camera": {}}) == {}
    with pytest.raises(ValueError, match="no aspect sound"):
        vdc({"sound": videos})
    with pytest.raises(ValueError, match="camera caption of v3"):
        vdc({"camera": {"v3": []}})


@pytest.mark.parametrize(
    ("text", "label"),
    [("A", "correct"), ("B", "incorrect"), (" (C) ", "not attempted"), ("CORRECT", "correct"), ("A or B", None)],
)
def test_the_three_labels_of_videoeval_pro(text: str, label: str | None) -> None:
    assert three_way(text) == label
