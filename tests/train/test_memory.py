"""Too little memory in all of its forms is one line; anything else stays what it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from videochat_flash.train.memory import enough_memory


@pytest.mark.parametrize(
    "full",
    [
        lambda: torch.empty(1 << 50, dtype=torch.uint8),
        lambda: np.empty(1 << 50, np.uint8),
    ],
    ids=["torch", "numpy"],
)
def test_too_little_memory_says_where_and_what_helps(full: Callable[[], object]) -> None:
    with (
        pytest.raises(ValueError, match=r"^out of memory over there: buy some \(.+\)$"),
        enough_memory("over there", "buy some"),
    ):
        full()


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), enough_memory("over there", "buy some"):
        torch.zeros(2).view(3)
