"""Adapters: drawn from the seed alone, resumed to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import stage
import tiny
import torch
from stage import shared_run, trained

from videochat_flash.train.adapters import add_adapters
from videochat_flash.train.begin import begin
from videochat_flash.train.stage import losses

LORA = ('lora.parts=["decoder", "tower"]', "lora.rank=4")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage.make(tmp_path_factory.mktemp("stage"))


def test_adapters_are_drawn_from_the_seed_alone(path: Path) -> None:
    made = []
    for seed in (1, 2):  # as two processes have it
        with tiny.seeded(seed):
            made.append(dict(begin(stage.recipe(path, *LORA))[0].named_parameters()))
            torch.rand(3)
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_a_part_that_takes_no_adapters_is_refused() -> None:
    with pytest.raises(ValueError, match="use some of decoder, tower"):
        add_adapters(tiny.model(), ["connector"], 4, 16, 0.0)


@pytest.mark.parametrize("workers", [0, 1])
def test_dropout_of_adapters_goes_on_to_the_bit(path: Path, tmp_path: Path, workers: int) -> None:
    more = (*LORA, "lora.dropout=0.3", f"workers={workers}")
    out = tmp_path / "run"
    expected = trained(stage.recipe(path, f"out={out}", *more))
    shutil.rmtree(out / "checkpoints" / "step-00000004")
    shutil.rmtree(out / "model")
    assert trained(stage.recipe(path, f"out={out}", *more)) == expected


@pytest.mark.slow
def test_two_processes_train_the_adapters_of_one(path: Path, tmp_path: Path) -> None:
    more = (*LORA, "lora.dropout=0.0")
    expected = trained(stage.recipe(path, f"out={tmp_path / 'one'}", *more))
    shared_run(path, 2, f"out={tmp_path / 'two'}", *more)
    np.testing.assert_allclose(losses(tmp_path / "two"), expected, rtol=1e-5)
