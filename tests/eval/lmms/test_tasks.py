"""Tasks of lmms-eval from a data set's own files: what is shown and asked; both runners give the same figures."""

from __future__ import annotations

import importlib
import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotations import JUDGED, SETS, Set
from command import run
from questionnaires import Told, quiet, wrong

from videochat_flash.eval import judging, score
from videochat_flash.eval.items import read_items
from videochat_flash.eval.lmms import tasks
from videochat_flash.eval.lmms.written import FOLDER
from videochat_flash.eval.prompts import prompt
from videochat_flash.eval.run import read_results
from videochat_flash.eval.run import run as ask_all
from videochat_flash.journal import read_run

pytestmark = pytest.mark.usefixtures("unchecked")
METRIC = re.compile(
    r"  - \{metric: ([\w.]+), aggregation: !function ([\w.]+)\.(\w+), higher_is_better: (?:true|false)\}"
)


def made(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Set, list[dict[str, Any]], str]:
    """A data set, its rows as lmms-eval's loader gives them (None for what a row lacks), and its task."""
    some = {**SETS, **JUDGED}[name](tmp_path / "data")
    out = tmp_path / "rows.jsonl"
    said = ["--subtitles", some.subtitles] if some.subtitles else []
    done = run(capsys, "rows", name, *some.files, "--videos", some.videos, "--out", out, "--task", *said)
    assert done.code == 0 and "lmms-eval finds it with --include_path" in done.out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    fields = dict.fromkeys(field for row in rows for field in row)
    return some, [{field: row.get(field) for field in fields} for row in rows], (tmp_path / "rows.yaml").read_text()


def metrics(task: str) -> dict[str, Callable[[Any], Any]]:
    found = {}
    for line in task.partition("metric_list:\n")[2].splitlines():
        parts = METRIC.fullmatch(line)
        assert parts, line
        found[parts[1]] = getattr(importlib.import_module(parts[2]), parts[3])
    return found


def figures(docs: list[dict[str, Any]], answers: list[str], task: str) -> dict[str, Any]:
    """As lmms-eval: every metric that the task lists, over the rows that have it."""
    values = defaultdict(list)
    for doc, answer in zip(docs, answers, strict=True):
        for name, value in tasks.scores(doc, [answer]).items():
            values[name].append(value)
    listed = metrics(task)
    assert set(listed) - {"paper_macro"} <= set(values)
    return {name: how(values[name]) for name, how in listed.items()}


@pytest.mark.parametrize("name", [*SETS, *JUDGED])
def test_every_benchmark_has_a_task_that_says_how_it_is_asked(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(judging.URL, "http://localhost:1/v1")
    monkeypatch.setenv(judging.MODEL, "judge")
    _, docs, task = made(name, tmp_path, capsys)
    subtitles = "_subtitles" if name in ("video-mme", "longvideobench") else ""
    assert task.startswith(f"task: {name.replace('-', '_')}{subtitles}_paper\n")
    assert f'include: "{FOLDER / "paper.yaml"}"' in task and (FOLDER / f"{name}.yaml").is_file()
    frames = 640 if name == "lvbench" else 512
    assert f'{{vcflash: {{policy: reference, max_frames: {frames}, keep: "off"}}, default: {{}}}}' in task
    items, _ = read_items(tmp_path / "rows.jsonl", judge=True)
    kwargs = {"folder": str(tmp_path)}
    for item, doc in zip(items, [doc for doc in docs if doc.get("answer") != "e"], strict=True):
        ((message,),) = [tasks.to_messages(doc, kwargs)]
        video, text = message["content"]
        assert (video["url"], video["start_time"], video["end_time"]) == (str(item.video), item.start, item.end)
        assert text["text"] == tasks.to_text(doc, kwargs) == prompt(item, "paper", name)
        (visual,) = tasks.to_visual(doc, kwargs)
        stretch = {"type": "video", "path": str(item.video), "video_start": item.start, "video_end": item.end}
        assert visual == (str(item.video) if item.end is None else stretch)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("says", ["gold", "wrong", "empty", "hostile"])
def test_both_runners_give_the_same_figures(
    name: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some, docs, task = made(name, tmp_path, capsys)
    items, flaws = read_items(tmp_path / "rows.jsonl")
    gold = {doc["id"]: answer for doc, answer in zip(docs, some.gold, strict=True)}
    told = {
        "gold": lambda item: gold[item.id],
        "wrong": wrong,
        "empty": lambda item: "" if item is items[0] else gold[item.id],
        "hostile": lambda item: "Based on a video, the answer may be A or B, from 1 to 2 or 3 to 4.",
    }[says]
    ask_all(items, tmp_path / "run", Told(told, prompt="paper"), False, quiet)
    records, ran = read_results(tmp_path / "run"), read_run(tmp_path / "run")
    theirs = score.summary(items, flaws, records, ran, name)
    asked = [doc for doc in docs if doc["id"] in {one.id for one in items}]
    answers = [records[item.id, item.mark, False].text for item in items]
    found = figures(asked, answers, task)
    if theirs["intervals"]:
        row = theirs["intervals"]["all"]
        assert (found["strict_miou"], found["paper_miou"]) == pytest.approx((row["score"], row["reference"]))
        assert [found[f"strict_{name}"] for name in tasks.RECALLS] == list(row["recall"].values())
        assert [found[f"paper_{name}"] for name in tasks.RECALLS] == list(row["reference_recall"].values())
    else:
        row = theirs["answers"]["all"]
        assert (found["strict"], found["chance"]) == pytest.approx((row["score"], row["chance"]))
        assert found["paper"] == (None if row["reference"] is None else pytest.approx(row["reference"]))
        assert found["impossible"] == 0
    assert found["constant"] == pytest.approx(row["constant"])
    assert found["unparsed"] * len(items) == pytest.approx(row["unparsed"] + row["empty"])
    if says == "gold":
        best = ("strict_miou", "paper_miou") if theirs["intervals"] else ("strict", "paper")
        assert [found[one] for one in best] == [1, 1]
        assert all(value == 1 for one, value in found.items() if re.match("paper_(task|duration|type)_", one))


def test_a_row_without_a_right_option_counts_as_wrong_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, docs, task = made("mlvu", tmp_path, capsys)
    found = figures(docs, ["B", "A", "D"], task)
    assert (found["impossible"], found["strict"], found["paper"]) == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    assert found["paper_macro"] == pytest.approx(3 / 4) and found["paper_task_findneedle"] == 0.5
    assert tasks.to_target(docs[1]) == "e" and tasks.to_text(docs[1], {"folder": str(tmp_path)})


def test_what_cannot_be_asked_is_told_before_anything_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, docs, _ = made("mlvu", tmp_path, capsys)
    with pytest.raises(ValueError, match=r"row 2_needle-0: its video .*needle_1.mp4 is missing"):
        tasks.to_text(docs[0], {"folder": str(tmp_path / "elsewhere")})
    with pytest.raises(ValueError, match="'question' must be a text"):
        tasks.to_text({**docs[0], "question": None}, {"folder": str(tmp_path)})


def test_the_yaml_is_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = pytest.importorskip("yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    for name in (*SETS, *JUDGED):
        _, docs, task = made(name, tmp_path / name, capsys)
        values = yaml.load(task, Loader)
        assert values["generation_kwargs"]["until"] == [] and values["generation_kwargs"]["do_sample"] is False
        assert values["model_specific_generation_kwargs"]["vcflash"]["keep"] == "off"
        assert values["dataset_kwargs"] == {"data_files": {"test": "rows.jsonl"}} and docs
    common = yaml.load((FOLDER / "paper.yaml").read_text(), Loader)
    for name, value in common.items():
        if str(value).startswith("videochat_flash."):
            module, _, function = value.rpartition(".")
            assert callable(getattr(importlib.import_module(module), function)), name


def test_rows_with_a_judge_are_not_for_the_small_runner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made("videoeval-pro-open", tmp_path, capsys)
    done = run(capsys, "eval", tmp_path / "rows.jsonl", "--out", tmp_path / "run")
    assert done.code == 1 and "need a judge: its task of lmms-eval asks one" in done.err
