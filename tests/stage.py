"""A small stage: a random model in the released layout, records about small videos, pictures and nothing, a recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from command import ENTRY, small_model, start
from PIL import Image

from videochat_flash.mp4 import write
from videochat_flash.train.recipe import Recipe, load_recipe
from videochat_flash.train.stage import losses, train

FRAMES = (8, 4, 12, 8)  # of the videos, at 2 a second


def make(folder: Path) -> Path:
    """Write everything into a folder; the recipe's path."""
    start = small_model(folder)
    draw = np.random.default_rng(0)
    media = folder / "media"
    media.mkdir()
    for number, frames in enumerate(FRAMES):
        write(media / f"{number}.mp4", draw.integers(0, 255, (frames, 48, 64, 3), np.uint8), 2.0)
    Image.fromarray(draw.integers(0, 255, (40, 60, 3), np.uint8)).save(media / "picture.png")
    rows = [record(number, f"What is in {number}?", f"thing {number}", video=f"{number}.mp4") for number in range(4)]
    rows.append(record(4, "What is it?", "a long answer about noise of many colours", image="picture.png"))
    rows.append(record(5, "Who are you?", "a model"))
    (folder / "records.json").write_text(json.dumps(rows))
    path = folder / "recipe.toml"
    path.write_text(
        f"""
        out = "{folder / "run"}"
        start = "{start}"
        steps = 4
        batch = 4
        save_every = 2
        workers = 0
        device = "cpu"
        precision = "float32"
        [rates]
        tower = 1e-4
        connector = 1e-3
        decoder = 5e-4
        [video]
        min_frames = 4
        max_frames = 8
        [[data]]
        annotation = "{folder / "records.json"}"
        media = "{media}"
        """
    )
    return path


def record(number: int, question: str, answer: str, **media: str) -> dict[str, object]:
    """One in the reference's form."""
    place = "<image>\n" if media else ""
    turns = [{"from": "human", "value": place + question}, {"from": "gpt", "value": answer}]
    return {"id": f"r{number}", "conversations": turns, **media}


def trained(recipe: Recipe) -> list[tuple[int, float]]:
    """Run a stage in this process; steps and losses."""
    with tiny.seeded():
        train(recipe, lambda step, steps: None, pytest.fail)
    return losses(Path(recipe.out))


def shared_run(path: Path, processes: int, *changes: str) -> None:
    """The command under torchrun, to its end."""
    process = shared_start(path, processes, *changes)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def shared_start(path: Path, processes: int, *changes: str) -> subprocess.Popen[str]:
    """The command under torchrun, in a group of processes of its own, as a terminal has it."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    sets = [word for change in changes for word in ("--set", change)]
    return start("train", path, *sets, "-q", entry=[*launch, *ENTRY[1:]], process_group=0)


def recipe(path: Path, *changes: str) -> Recipe:
    """The recipe of a folder, changed."""
    return load_recipe(path, changes)
