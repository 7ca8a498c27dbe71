"""lmms-eval itself, in the environment of make eval-env: tasks of its own kind and ours, end to end with flash-tiny."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotations import JUDGED, SETS
from command import run
from haystacks import serving

from videochat_flash.eval import judging
from videochat_flash.grade import LETTERS

pytest.importorskip("lmms_eval", reason="lmms-eval has an environment of its own: make eval-env, then make test-eval")
pytestmark = pytest.mark.usefixtures("unchecked")

STOCK = """task: cards
dataset_path: json
dataset_kwargs: {data_files: {test: cards.jsonl}}
test_split: test
output_type: generate_until
doc_to_visual: !function cards.video
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
process_results: !function cards.scores
generation_kwargs: {max_new_tokens: 16, temperature: 0, top_p: 1.0, num_beams: 1, do_sample: false}
metric_list: [{metric: right, aggregation: mean, higher_is_better: true}]
"""
STOCK_FUNCTIONS = """
def video(doc):
    return [doc["video"]]

def scores(doc, results):
    return {"right": float(results[0].strip(".").lower() == doc["answer"].lower())}
"""


def lmms_eval(folder: Path, *more: object, **environment: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """A run of lmms-eval as a user starts one; its results, where there are some."""
    out = folder / f"out-{len(list(folder.glob('out-*')))}"
    asked = ["--model", "vcflash", "--include_path", folder, "--output_path", out, "--log_samples", *more]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "lmms_eval", *map(str, asked)],
        env={**os.environ, **offline, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    found = list(out.rglob("*_results.json"))
    return done, json.loads(found[0].read_text()) if found else None


def samples(folder: Path, task: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob(f"*_samples_{task}.jsonl")):
        yield from map(json.loads, path.read_text().splitlines())


def test_a_task_of_its_own_kind_runs_unchanged_and_flash_tiny_sees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "suite"
    assert run(capsys, "synth", "suite", "--out", suite, "--videos", 1, "--frames", 24, "--seed", 3).code == 0
    rows = [json.loads(line) for line in (suite / "suite.jsonl").read_text().splitlines()]
    cards = [
        {
            "video": str(suite / row["video"]),
            "question": row["question"],
            "answer": row["options"][LETTERS.index(row["answer"])],
        }
        for row in rows
        if row["group"]["task"] == "needles"
    ]
    (tmp_path / "cards.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cards))
    (tmp_path / "cards.yaml").write_text(STOCK)
    (tmp_path / "cards.py").write_text(STOCK_FUNCTIONS)
    told = {}
    for name, more in (("seen", ""), ("blind", ",blind=True")):
        model = f"pretrained=flash-tiny,cache={tmp_path / 'cache'}{more}"
        done, found = lmms_eval(tmp_path, "--tasks", "cards", "--model_args", model, "--batch_size", 4)
        assert found is not None, done.stdout + done.stderr
        told[name] = found["results"]["cards"]["right,none"]
    assert told["seen"] >= 0.8 > told["blind"]
    (one, *_) = samples(tmp_path, "cards")
    assert one["token_counts"][0]["input_tokens"] > one["token_counts"][0]["output_tokens"] > 0


def test_its_tasks_of_these_benchmarks_run_unchanged(tmp_path: Path) -> None:
    """Data where they look for it: the annotations in place of a repository, the videos as if they were fetched."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name, repository, videos in (("video-mme", "Video-MME", "videomme/data"), ("charades-sta", "charades_sta", "")):
        some, home = SETS[name](tmp_path / name), tmp_path / "lmms-eval" / repository
        home.mkdir(parents=True)
        parquet.write_table(arrow.Table.from_pylist(json.loads(some.files[0].read_text())), home / "test.parquet")
        shutil.copytree(some.videos, tmp_path / "hf" / (videos or "charades_sta/Charades_v1_480"))
    model = "pretrained=flash-tiny,num_frames=8"
    done, found = lmms_eval(tmp_path, "--tasks", "videomme,temporal_grounding_charades", "--model_args", model)
    assert found is not None, done.stdout + done.stderr
    assert 0 <= found["results"]["videomme"]["videomme_perception_score,none"] <= 100
    assert 0 <= found["results"]["temporal_grounding_charades"]["charades_sta_mIOU,none"] <= 1
    assert (
        len(list(samples(tmp_path, "videomme"))) == 3
        and len(list(samples(tmp_path, "temporal_grounding_charades"))) == 2
    )


def test_every_benchmark_from_its_own_files_to_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = []
    for name, make in {**SETS, **JUDGED}.items():
        some = make(tmp_path / name)
        said = ["--subtitles", some.subtitles] if some.subtitles else []
        out = tmp_path / f"{name}.jsonl"
        assert run(capsys, "rows", name, *some.files, "--videos", some.videos, "--out", out, "--task", *said).code == 0
        task = out.with_suffix(".yaml").read_text()
        names.append(task.partition("\n")[0].removeprefix("task: "))
    model = f"pretrained=flash-tiny,num_frames=8,cache={tmp_path / 'cache'}"
    with serving(lambda _: "{'pred': 'yes', 'score': 4}") as server:
        judge = {judging.URL: server.url, judging.MODEL: "some-judge"}
        done, found = lmms_eval(tmp_path, "--tasks", ",".join(names), "--model_args", model, **judge)
    assert found is not None, done.stdout + done.stderr
    figures = found["results"]
    assert set(figures) == set(names)
    for name in set(names) - {"vdc_paper", "videoeval_pro_open_paper", "charades_sta_paper"}:
        assert 0 <= figures[name]["strict,none"] <= figures[name]["constant,none"] <= 1, name
        assert any(key.startswith("paper_") for key in figures[name])
    assert figures["charades_sta_paper"]["constant,none"] == pytest.approx(0.75)
    assert figures["mlvu_paper"]["impossible,none"] == pytest.approx(1 / 3)
    assert figures["vdc_paper"]["accuracy,none"] == 1 and figures["vdc_paper"]["score,none"] == 4
    assert figures["videoeval_pro_open_paper"]["unjudged,none"] == 1
    assert found["configs"]["lvbench_paper"]["generation_kwargs"]["max_frames"] == 640
    (first, *_) = samples(tmp_path, "mvbench_paper")
    assert first["target"] == "B" and {"strict", "paper", "unparsed"} <= set(first)


def test_a_broken_video_ends_it_without_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = SETS["mlvu"](tmp_path / "data")
    rows = ["rows", "mlvu", *some.files, "--videos", some.videos, "--out", tmp_path / "mlvu.jsonl", "--task"]
    assert run(capsys, *rows).code == 0
    (video,) = some.videos.rglob("*.mp4")
    video.write_bytes(b"no video")
    done, found = lmms_eval(tmp_path, "--tasks", "mlvu_paper", "--model_args", "pretrained=flash-tiny,num_frames=8")
    assert found is None and "1 of 3 requests failed, nothing is scored" in done.stdout + done.stderr
