"""The model as training sees it: packs without anything to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import stage
import tiny
import torch
from stage import shared_run, trained

from videochat_flash.train.begin import begin
from videochat_flash.train.learner import Learner
from videochat_flash.train.stage import history, losses

FROZEN = ("rates.decoder=0", "batch=1", "steps=6")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage.make(tmp_path_factory.mktemp("stage"))


def test_a_step_of_text_alone_under_a_frozen_decoder_passes_no_gradient_on(path: Path, tmp_path: Path) -> None:
    assert len(trained(stage.recipe(path, f"out={tmp_path / 'run'}", *FROZEN))) == 6
    assert sorted(row["norm"] == 0 for row in history(tmp_path / "run")) == [False] * 5 + [True]


def test_an_idle_pass_adds_a_zero_that_reaches_every_part(path: Path) -> None:
    with tiny.seeded():
        net = Learner(begin(stage.recipe(path))[0], idle=True)
        sums, counts, zero = net([])
        zero.backward()
    assert len(sums) == len(counts) == 0 and zero == 0
    reached = {name.split(".")[1] for name, value in net.named_parameters() if value.grad is not None}
    assert reached == {"vision", "connector", "decoder", "head"}
    assert all(torch.count_nonzero(value.grad) == 0 for value in net.parameters() if value.grad is not None)


@pytest.mark.slow
def test_two_processes_of_which_one_has_nothing_to_see(path: Path, tmp_path: Path) -> None:
    more = (*FROZEN, "train_with_dropout=2:0.5")
    expected = trained(stage.recipe(path, f"out={tmp_path / 'one'}", *more))
    shared_run(path, 2, f"out={tmp_path / 'two'}", *more)
    np.testing.assert_allclose(losses(tmp_path / "two"), expected, rtol=1e-5)
