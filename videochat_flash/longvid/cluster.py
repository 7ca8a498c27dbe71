"""The records of a step on a Ray cluster, through Ray Data.

Lines travel as text, in files of some hundred that are written where every machine can read them; what comes back goes
into the same journal as anywhere else, so that the step's files are the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cluster import join
from .steps import JOURNAL, KEY, Step, Work, finished
from .workers import portable

KEYS = re.compile(f"[0-9a-f]{{{KEY}}}")
PART = 256  # lines of a file: what one task of Ray reads
BATCH = 8  # lines that a worker does before what came of them is on its way


class Cluster:
    """Workers on a Ray cluster.

    Args:
        address: of the cluster, as ``ray.init`` takes it, or ``local``.
        workers: at a time.
        folder: of all steps, which every machine of the cluster sees under this path, as it does the videos.

    Raises:
        ValueError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """

    def __init__(self, address: str, workers: int, folder: Path) -> None:
        self.ray, self.workers, self.folder = join(address, workers + 1), workers, folder.absolute()  # one more reads
        self.ray.data.DataContext.get_current().enable_progress_bars = False

    def __call__(self, step: Step, lines: Iterator[tuple[str, str]]) -> Iterator[str]:
        """Journal lines, as they are finished."""
        parts = self.folder / JOURNAL / f"{step.name}.todo"
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        try:
            number = 0
            while some := list(islice(lines, PART)):
                (parts / f"{number:06d}.txt").write_text("".join(packed(*one) for one in some), encoding="ascii")
                number += 1
            if number:
                data = self.ray.data.read_text(str(parts), override_num_blocks=number)
                made = data.map_batches(
                    Worker, fn_constructor_args=(portable(step),), batch_size=BATCH, concurrency=self.workers
                )
                yield from (str(row["line"]) for row in made.iter_rows())
        finally:
            shutil.rmtree(parts, ignore_errors=True)


def packed(key: str, line: str) -> str:
    """A keyed line in ASCII: Ray ends lines at separators that JSON may hold as they are, such as U+2028."""
    return f"{key}{json.dumps(line)}\n"


def unpacked(text: str) -> tuple[str, str]:
    """Key and line.

    Raises:
        ValueError: no keyed line.
    """
    key, line = text[:KEY], json.loads(text[KEY:])
    if not KEYS.fullmatch(key):
        raise ValueError(f"{key!r} is no record's key: build again")
    return key, str(line)


class Worker:
    """Does records of a step in a process of the cluster."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.work: Work = step.worker()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Journal lines of a batch of keyed lines."""
        pairs = (unpacked(str(text)) for text in batch["text"])
        return {"line": np.array([finished(self.step, self.work, key, line) for key, line in pairs], dtype=object)}
