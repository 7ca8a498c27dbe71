"""Checkpoints that were damaged, and what a killed run left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from traceback import StackSummary

import pytest
import stage
import torch
from stage import trained
from torch.distributed.checkpoint.api import CheckpointException

from videochat_flash.train import checkpoint
from videochat_flash.train.parallel import Place
from videochat_flash.train.recipe import load_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    trained(stage.recipe(stage.make(folder)))
    shutil.rmtree(folder / "run" / "model")
    return folder


@pytest.mark.parametrize("what", ["metadata", "short"])
def test_a_damaged_checkpoint_says_what_to_do(run: Path, tmp_path: Path, what: str) -> None:
    shutil.copytree(run / "run", tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "step-00000004"
    if what == "metadata":
        (last / ".metadata").unlink()
    else:
        largest = max(last.glob("*.distcp"), key=lambda file: file.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:1000])
    recipe = stage.recipe(run / "recipe.toml", f"out={tmp_path / 'run'}")
    with pytest.raises(ValueError, match="step-00000004 .*damaged.*remove it"):
        trained(recipe)
    shutil.rmtree(last)
    assert [step for step, _ in trained(recipe)] == [1, 2, 3, 4]


def test_a_checkpoint_that_another_machine_alone_sees_is_told_of(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "most", lambda self, value: max(value, 3))  # what a process elsewhere has
    with pytest.raises(ValueError, match="step-00000003 is not there for every process"):
        trained(stage.recipe(run / "recipe.toml", f"out={tmp_path / 'run'}"))


@pytest.mark.parametrize("what", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
@pytest.mark.parametrize("when", ["save", "load"])
def test_a_stop_or_too_little_memory_is_no_fault_of_a_checkpoint(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: type[BaseException], when: str
) -> None:
    """PyTorch wraps all that happens in a checkpoint of several processes, and here the one's own, too."""

    def fails(*arguments: object, **options: object) -> None:
        raise CheckpointException(when, {0: (what(), StackSummary())})

    shutil.copytree(run / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    monkeypatch.setattr(checkpoint, when, fails)
    with pytest.raises((what, ValueError)) as told:
        trained(stage.recipe(run / "recipe.toml", f"out={tmp_path / 'run'}"))
    assert "remove it" not in str(told.value) and "no checkpoint" not in str(told.value)
    assert [one.name for one in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]


def test_recipe_and_versions_stand_beside_every_checkpoint_and_halves_go(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "run", tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    shutil.rmtree(folder / "step-00000004")
    (folder / ".step-00000003.part").mkdir()
    trained(stage.recipe(run / "recipe.toml", f"out={tmp_path / 'run'}"))
    assert sorted(one.name for one in folder.iterdir()) == ["step-00000002", "step-00000004"]
    for one in folder.iterdir():
        assert load_recipe(one / "recipe.toml").steps == 4
        assert {"python", "torch", "videochat-flash"} <= set(json.loads((one / "versions.json").read_text()))
