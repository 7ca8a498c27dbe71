"""What may fail with one video and not with the next is told; a fault of the program is raised."""

from __future__ import annotations

import pytest
import torch

from videochat_flash import errors
from videochat_flash.failures import out_of_memory, reason


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("CUDA out of memory")])
def test_too_little_memory_by_other_names(error: Exception) -> None:
    assert out_of_memory(error) and reason(error)


def test_what_a_cpu_says_of_it() -> None:
    with pytest.raises(RuntimeError) as told:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(told.value) and "memory" in reason(told.value)


def test_a_fault_of_the_program_is_raised() -> None:
    assert reason(ValueError("not so")) == "not so" and not out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="shapes"):
        reason(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), MemoryError()]
)
def test_a_command_that_finds_too_little_memory_ends_in_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: list[str]) -> None:
        raise error

    assert errors.ended("vcflash", full) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "too little memory: fewer frames (--max-frames)" in told[0]


def test_a_fault_of_the_program_ends_no_command_quietly() -> None:
    def faulty(_: list[str]) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        errors.ended("vcflash", faulty)
