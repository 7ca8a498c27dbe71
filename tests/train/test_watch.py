"""What is left to look at: TensorBoard's files and the picture of the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from videochat_flash.train.loop import Step
from videochat_flash.train.watch import Watch, draw_losses


def test_tensorboard_reads_every_step(tmp_path: Path) -> None:
    with Watch(tmp_path / "board") as watch:
        for number in (1, 2, 3):
            watch(Step(number, 1 / number, 0.0, 2.0, {"tower": 1e-4}, 100, 4, 0, 0.0, 0))
    told = EventAccumulator(str(tmp_path / "board")).Reload()
    assert {"loss", "gradient norm", "rows per second", "rate/tower", "bad records"} <= set(told.Tags()["scalars"])
    assert [(one.step, round(one.value, 3)) for one in told.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 0.333)]


def test_a_run_without_a_step_leaves_no_folder(tmp_path: Path) -> None:
    with Watch(tmp_path / "board"):
        pass
    assert not (tmp_path / "board").exists()


def test_the_curve_is_a_picture(tmp_path: Path) -> None:
    for name, steps in (("one", 1), ("many", 40)):
        draw_losses([(i + 1, 1.0 / (i + 1)) for i in range(steps)], tmp_path / f"{name}.png", "a run")
        with Image.open(tmp_path / f"{name}.png") as picture:
            red, _, blue = np.asarray(picture.convert("RGB")).astype(int).transpose(2, 0, 1)
            assert picture.size == (960, 540) and (blue > red + 40).any()  # a line, or one point
