"""What holds in every test: shapes are checked, one thread, no network, no random state that leaks."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"

import golden
import numpy as np
import pytest
import torch
from hypothesis import settings
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from videochat_flash import VideoChatFlash

install_import_hook("videochat_flash", "shapes.checked")  # before anything of the package is imported
torch.set_num_threads(1)  # tests run in parallel processes, and sums in one order are the same everywhere
settings.register_profile("here", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("here")


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of the reference implementation's outputs."""
    if not golden.FOLDER.is_dir():
        pytest.skip(golden.ABSENT)
    return golden.FOLDER


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random model, for all tests that leave it as it is."""
    from command import small_model  # the package itself is imported behind the hook above

    return small_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def vc(model: Path) -> VideoChatFlash:
    """The same, loaded."""
    from videochat_flash import VideoChatFlash

    return VideoChatFlash.from_pretrained(model)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As for users: nobody checks types and shapes, so the package's own message for a wrong value is seen."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def random_state() -> Iterator[None]:
    """Every test begins with the same global random state and must leave it as it was."""
    before = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    begun = _state()
    yield
    ended = _state()
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])
    moved = [name for name in begun if begun[name] != ended[name]]
    assert not moved, f"global random state of {moved} leaks: draw from a generator, or build inside tiny.seeded()"


def _state() -> dict[str, object]:
    _, keys, *rest = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (keys.tobytes(), *rest),
        "torch": bytes(torch.get_rng_state().numpy()),
    }
