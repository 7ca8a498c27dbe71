"""What a run looks like: TensorBoard while it goes, a loss curve as a picture at the end."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from ..files import beside
from .loop import Step

SMOOTHED = 50  # steps that the curve's thick line is a mean over, at most
matplotlib.use("Agg")


class Watch:
    """Writes steps to TensorBoard's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: SummaryWriter | None = None  # opened by the first step: a run that is refused leaves no folder

    def __enter__(self) -> Watch:
        return self

    def __call__(self, step: Step) -> None:
        """One step."""
        if self.writer is None:
            self.writer = SummaryWriter(str(self.folder), purge_step=step.step)
        figures = {
            **({} if step.loss is None else {"loss": step.loss}),
            "taught": step.taught,
            "gradient norm": step.norm,
            "rows per second": step.rows / max(step.seconds, 1e-3),
        }
        figures |= {f"rate/{part}": rate for part, rate in step.rates.items()} | {"bad records": step.bad}
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step.step)

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()


def draw_losses(losses: list[tuple[int, float]], path: Path, title: str) -> None:
    """Loss over steps, every step thin and a running mean thick, as a PNG."""
    steps, values = (np.array(column) for column in zip(*losses, strict=True))
    window = max(1, min(SMOOTHED, len(values) // 10))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, values, linewidth=0.6, alpha=0.45, marker="o" if len(values) == 1 else "", label="each step")
    if window > 1:
        means = np.convolve(values, np.ones(window) / window, "valid")
        axes.plot(steps[window - 1 :], means, linewidth=2, label=f"mean of {window} steps")
        axes.legend(frameon=False)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    with beside(path) as part:
        figure.savefig(part, format="png", dpi=120)
