"""What ``vcflash info`` tells: facts of a model without its weights, of a video without its pixels, of a Sight."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from math import prod
from pathlib import Path

from . import weights
from .config import RELEASE_OWNER, RELEASES, Config, Plan
from .sight import Sight
from .video import MOST_FRAMES, probe

Facts = dict[str, object]
PARTS = {"vision": "tower", "connector": "connector", "decoder": "decoder", "head": "head", "newline": "newline"}


def facts_of(thing: str, revision: str | None = None) -> Facts:
    """Facts of a model (a name or a folder), a video, a picture, a folder of pictures, or a saved Sight.

    Raises:
        FileNotFoundError: it is none of these.
        ValueError: it is damaged.
    """
    path = Path(os.path.expanduser(thing))
    if path.suffix == ".safetensors" and not path.is_dir():
        return sight_facts(path)
    if path.exists() and not ((path / "config.json").is_file() or any(path.glob("*.safetensors"))):
        return video_facts(path)
    if not path.exists() and path.suffix and path.parent.is_dir():
        raise FileNotFoundError(f"{thing} does not exist: give a model, a video or a sight")
    return model_facts(thing, revision)


def plan_facts(plan: Plan) -> list[Facts]:
    """A dropout plan as JSON holds it."""
    return [asdict(drop) for drop in plan]


def plan_text(plan: Plan) -> str:
    """A dropout plan as people write it."""
    return ", ".join(f"{drop.layer}:{drop.ratio:g} by {drop.by}" for drop in plan) or "off"


def manifest(config: Config) -> dict[str, tuple[int, ...]]:
    """Every released key of a model with its shape."""
    tensors = weights.skeleton(config).state_dict()
    return {weights.released_name(name, config): tuple(tensor.shape) for name, tensor in tensors.items()}


def model_facts(name: str, revision: str | None = None) -> Facts:
    """Sizes of a model. Of a released one no file is needed; of another one on the hub, its config.json alone."""
    short = name.removeprefix(f"{RELEASE_OWNER}/")
    if short in RELEASES and not Path(name).is_dir():
        config, dtype, place = RELEASES[short], "bfloat16", f"{RELEASE_OWNER}/{short}"
    else:
        folder = weights.find(name, revision, wanted=("config.json",))
        config, place = weights.read_config(folder), str(folder)
        dtype = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("torch_dtype", "unknown")
    shapes = manifest(config)
    parts = _parameters(config)
    return {
        "model": name,
        "place": place,
        "tower": asdict(config.vision),
        "connector": {
            "tokens_per_frame": config.tokens_per_frame,
            "of_patches": config.vision.patches,
            "clip_tokens": config.clip_tokens,
            "image_tokens": config.image_tokens,
            "newline": config.newline,
        },
        "decoder": {name: value for name, value in asdict(config.llm).items() if value is not None},
        "dropout": plan_text(config.keep),
        "keep": plan_facts(config.keep),
        "tensors": len(shapes),
        "parameters": sum(parts.values()),
        "parameters_by_part": parts,
        "dtype": dtype,
        "max_rows": config.llm.limit,
        "max_frames": min(MOST_FRAMES, config.llm.limit // config.tokens_per_frame // 4 * 4),
    }


def _parameters(config: Config) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, tensor in weights.skeleton(config).state_dict().items():
        counts[PARTS[name.split(".")[0]]] += prod(tensor.shape)
    return dict(counts)


def video_facts(path: Path) -> Facts:
    """Times and sizes of a video, a picture or a folder of pictures."""
    info = probe(path)
    return {
        "source": info.source,
        "kind": info.kind,
        "duration": info.duration,
        "frames": info.frames,
        "fps": info.fps,
        "width": info.width,
        "height": info.height,
        "rotation": info.rotation,
        "fingerprint": info.fingerprint,
    }


def sight_facts(path: Path) -> Facts:
    """What a saved Sight holds, and who made it."""
    sight = Sight.load(path)
    clips, tokens, width = sight.tokens.shape
    return {
        "sight": str(path),
        "image": sight.is_image,
        "duration": sight.duration,
        "clips": clips,
        "frames": sight.frames,
        "visual_tokens": clips * tokens,
        "width": width,
        "dtype": str(sight.tokens.dtype).removeprefix("torch."),
        "seconds": [float(sight.seconds[0, 0]), float(sight.seconds[-1, 1])] if clips else [],
        "source": sight.source,
        "made_by": sight.made_by,
    }
