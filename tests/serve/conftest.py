"""One server for all tests that leave it as it was, and small videos to ask it about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Served, serving
from videos import make


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two videos that differ."""
    folder = tmp_path_factory.mktemp("films")
    make(folder / "a.mp4", 48, 8)
    make(folder / "b.mp4", 24, 4)
    return folder


@pytest.fixture(scope="session")
def served(model: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = tmp_path_factory.mktemp("served") / "store"
    with serving(
        model,
        store,
        "--media-root",
        films,
        "--limit",
        "body_bytes=256K",
        "--limit",
        "upload_bytes=8M",
        "--limit",
        "frames=64",
    ) as server:
        yield server
