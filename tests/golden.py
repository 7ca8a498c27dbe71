"""Where the outputs of the reference implementation lie, and how one is read. Sizes come from the files alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(os.environ.get("VCF_GOLDENS") or Path(__file__).resolve().parents[2] / "shared" / "goldens")
ABSENT = f"no goldens in {FOLDER} (set VCF_GOLDENS)"


@dataclass(frozen=True)
class Golden:
    """One file: facts, weights by reference key, tensors."""

    facts: dict[str, Any]
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]


def read(path: Path) -> Golden:
    with safe_open(path, framework="pt") as file:
        facts = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights = {key.removeprefix("weights."): t for key, t in tensors.items() if key.startswith("weights.")}
    return Golden(facts, weights, {key: t for key, t in tensors.items() if not key.startswith("weights.")})


def of_kind(*kinds: str) -> list[Any]:
    """A test parameter for each file of these kinds, or one that skips and says why."""
    paths = []
    for path in sorted(FOLDER.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if json.loads((file.metadata() or {}).get("kind", "null")) in kinds:
                paths.append(path)
    if not paths:
        reason = f"no goldens of kind {' or '.join(kinds)} in {FOLDER}" if FOLDER.is_dir() else ABSENT
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    return [pytest.param(path, id=path.stem) for path in paths]


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest magnitude."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    return float((ours - theirs).abs().max() / theirs.abs().max())
