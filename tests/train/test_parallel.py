"""Who is among whom, as torchrun, srun or nobody says."""

from __future__ import annotations

import os

import pytest
import torch

from videochat_flash.train.parallel import Place, _meet, join, rank

SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "123456"}
STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "gpu[03-05,9],far1"}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*SLURM, *STEP, "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_shell_of_a_slurm_job_is_alone(bare: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        bare.setenv(name, value)
    assert rank() == 0 and join("cpu") == Place(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("nodes", "first"), [("gpu[03-05,9],far1", "gpu03"), ("one,two", "one"), ("n7", "n7"), ("a-[1]-x", "a-1-x")]
)
def test_a_step_of_slurm_meets_at_its_first_node(bare: pytest.MonkeyPatch, nodes: str, first: str) -> None:
    for name, value in {**SLURM, **STEP, "SLURM_STEP_NODELIST": nodes}.items():
        bare.setenv(name, value)
    _meet()
    assert rank() == 2 and os.environ["MASTER_ADDR"] == first and 20000 <= int(os.environ["MASTER_PORT"]) < 40000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_refused(bare: pytest.MonkeyPatch, device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this is a Mac")
    with pytest.raises(ValueError, match=f"device {device} is not there"):
        join(device)


def test_what_one_process_counts_is_all() -> None:
    assert Place(0, 1, torch.device("cpu")).all({"damaged": 2}) == {"damaged": 2}
    assert Place(0, 1, torch.device("mps")).exact == torch.float32
