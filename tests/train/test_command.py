"""``vcflash train`` as it is typed: what it would take, how far it is, and what is left when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import stage
import tiny
from command import ROOT, finished, run, start

from videochat_flash.train.command import said
from videochat_flash.train.loop import METRICS, Step
from videochat_flash.train.recipe import load_recipe

RECIPES = sorted(path for path in (ROOT / "recipes").glob("*/stage*.toml"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage.make(tmp_path_factory.mktemp("stage"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_stage_tells_what_it_would_take(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no data is
    done = run(capsys, "train", recipe, "--dry-run", "--json", "--gpu", "A100-80", "--gpus", 32)
    told = json.loads(done.out)
    assert done.code == 0 and "80 GB" in told["memory_per_gpu"]
    trained, rates = told["trained_parameters"], vars(load_recipe(recipe).rates)
    assert any(trained.values())
    assert {part: count > 0 for part, count in trained.items()} == {part: rate > 0 for part, rate in rates.items()}
    assert isinstance(told["steps"], int) or told["steps"] == "unknown: the data was not read"


def test_a_dry_run_counts_what_an_epoch_holds(path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "heavy.toml").write_text(path.read_text() + "\n        weight = 2.5\n")
    done = run(capsys, "train", tmp_path / "heavy.toml", "--dry-run", "--json", "--set", "steps=0", "--set", "batch=5")
    assert json.loads(done.out)["steps"] == 3  # 6 records, 2.5 times, 5 a step


def test_a_dry_run_needs_no_annotation_of_a_mixture(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mix.yaml").write_text(f"datasets:\n  - json_path: {tmp_path / 'none.json'}\n")
    done = run(capsys, "train", path, "--dry-run", "--set", f"mixture={tmp_path / 'mix.yaml'}", "--set", "steps=0")
    assert done.code == 0 and "the data was not read" in done.out


def test_a_step_in_a_few_words() -> None:
    step = Step(3, 1.25, 0.0, 2.0, {"tower": 1e-4}, 500, 4, 2, 0.5, 3 * 2**30, 1.234, 0.31)
    assert said(step) == "loss 1.250, 1,000 rows/s, 1.23 TFLOP/s (31% of the peak), 3.0 GiB, 2 bad"
    assert "rows/s" in said(Step(3, 1.25, 0.0, 2.0, {}, 500, 4, 0, 0.0, 0))
    assert said(Step(3, None, 0.0, 0.0, {}, 0, 0, 4, 0.5, 0)) == "no answer, 0 rows/s, 0 TFLOP/s, 4 bad"


def test_a_run_tells_what_learns_and_what_it_left_out(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = json.loads((path.parent / "records.json").read_text())
    (tmp_path / "some.json").write_text(json.dumps([*rows, stage.record(9, "What?", "it", video="none.mp4")]))
    (tmp_path / "some.toml").write_text(
        path.read_text().replace(str(path.parent / "records.json"), f"{tmp_path}/some.json")
    )
    sets = ("--set", f"out={tmp_path / 'run'}", "--set", "max_bad_share=0.5", "--set", "batch=7", "--set", "steps=2")
    with tiny.seeded():
        done = run(capsys, "train", tmp_path / "some.toml", *sets)
        again = run(capsys, "train", tmp_path / "some.toml", *sets, "-q")
    words = [line.split() for line in done.out.splitlines()]
    assert ["connector", "AdamW"] in [[line[0], line[-1]] for line in words if line] and "0.001" in done.out
    assert ["missing", "file", "2"] in words and ["missing", "file", "2"] in [x.split() for x in again.out.splitlines()]
    assert "trained to step 2" in done.out and "AdamW" not in again.out


def test_data_is_checked_before_the_stage_before_has_run(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = path.read_text().replace(f'start = "{path.parent / "small-0"}"', 'start = "runs/nowhere/model"')
    (tmp_path / "later.toml").write_text(text)
    done = run(capsys, "train", tmp_path / "later.toml", "--check-data", "--json", "--set", "model=flash-tiny")
    assert done.code == 0 and json.loads(done.out)["sources"] == [{"source": "records", "records": 6, "bad": {}}]
    (note,) = done.lines
    assert "no tokenizer in runs/nowhere/model yet" in note and "that of flash-tiny" in note
    done = run(capsys, "train", tmp_path / "later.toml", "--check-data")
    assert done.code == 1 and len(done.lines) == 1 and "runs/nowhere/model" in done.err and done.out == ""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "readers"), [(signal.SIGINT, 0), (signal.SIGTERM, 2)])
def test_a_run_that_is_stopped_loses_no_step_and_says_where_it_goes_on(
    path: Path, tmp_path: Path, number: signal.Signals, readers: int
) -> None:
    out = tmp_path / "run"
    sets = ("--set", f"out={out}", "--set", "steps=400", "--set", "save_every=1000", "--set", f"workers={readers}")
    process = start("train", path, *sets)
    behind(process, out, 4)
    process.send_signal(number)
    done = finished(process)
    last = steps_told(out)
    assert done.code == 130 and len(done.lines) == 1 and 4 <= last < 400
    assert f"stopped behind step {last}" in done.err and f"goes on from step {last}" in done.err
    assert (out / "checkpoints" / f"step-{last:08d}").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "readers"), [(signal.SIGINT, 0), (signal.SIGTERM, 1)])
def test_many_processes_that_are_stopped_lose_no_step(
    path: Path, tmp_path: Path, number: signal.Signals, readers: int
) -> None:
    """Ctrl-C of a terminal, or a cluster's end, go to torchrun, which passes them on: to readers as well."""
    out = tmp_path / "run"
    sets = (f"out={out}", "steps=400", "save_every=1000", "batch=96", f"workers={readers}")
    process = stage.shared_start(path, 2, *sets)
    behind(process, out, 2)
    os.killpg(process.pid, number)
    process.communicate(timeout=120)
    last = steps_told(out)
    assert 2 <= last < 400 and (out / "checkpoints" / f"step-{last:08d}").is_dir()


def behind(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Wait until a run has told of so many steps."""
    deadline = time.monotonic() + 120
    while steps_told(out) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def steps_told(out: Path) -> int:
    """How many steps a run has told of."""
    told = out / METRICS
    return len(told.read_text().splitlines()) if told.is_file() else 0
