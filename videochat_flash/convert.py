"""Pickled checkpoints -> safetensors. Nothing in a pickle ever runs: only plain tensors are read."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .files import beside
from .weights import PREFIXES, UMT_PREFIX, rename_layerscale


@dataclass(frozen=True)
class Converted:
    """What ``convert`` wrote."""

    path: Path
    tensors: int
    dropped: tuple[str, ...]


def convert(source: Path, target: Path) -> Converted:
    """A pickled checkpoint -> safetensors, read with ``weights_only=True`` so that nothing in it runs.

    Raw towers of the first training stage (``UMT-L_f4_vision.pt``, ``InternVideo2-1B_f4_vision.pt``) get released
    key names; a stage-1 connector (``mm_projector.bin``) and whole models keep theirs.

    Raises:
        FileNotFoundError: no such file.
        FileExistsError: the target is there already.
        ValueError: not a pickle of tensors, or one that would need code to load.
    """
    if not source.is_file():
        raise FileNotFoundError(f"no file {source}")
    if target.exists():
        raise FileExistsError(f"{target} exists: choose another name")
    tensors, dropped = _released_keys(_unpickle(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    with beside(target) as part:
        save_file(
            {key: tensor.contiguous().clone() for key, tensor in tensors.items()}, part, metadata={"format": "pt"}
        )
    return Converted(target, len(tensors), dropped)


def _unpickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as plain tensors, and nothing else is ever loaded: {reason}") from None
    for wrapper in ("state_dict", "model", "module"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if (
        not isinstance(loaded, dict)
        or not loaded
        or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items())
    ):
        raise ValueError(f"{path} holds no dictionary of tensors: it is not a checkpoint")
    return loaded


def _released_keys(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Raw towers get the released prefix (and UMT's last norm its released name); everything else keeps its keys."""
    if any(key.startswith("model.") or key.startswith("lm_head.") for key in tensors):
        return dict(tensors), ()
    if any(key.startswith("encoder.") for key in tensors):  # UMT: other parts of its pretraining are dropped
        names = {
            key: UMT_PREFIX + key.removeprefix("encoder.").replace("norm.", "vision_layernorm.", 1)
            if key.startswith("encoder.norm.")
            else UMT_PREFIX + key.removeprefix("encoder.")
            for key in tensors
            if key.startswith("encoder.")
        }
    elif "cls_token" in tensors:  # InternVideo2: its pooling head is not part of the model
        names = {
            key: PREFIXES["vision."] + rename_layerscale(key)
            for key in tensors
            if key.split(".")[0] in ("cls_token", "pos_embed", "img_pos_embed", "patch_embed", "blocks")
        }
    else:
        return dict(tensors), ()
    return {new: tensors[old] for old, new in names.items()}, tuple(sorted(tensors.keys() - names.keys()))
