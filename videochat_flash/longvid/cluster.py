"""The records of a step on a Ray cluster, through Ray Data.

Lines travel as text, in small files that are written where every machine can read them; what comes back goes into the
same journal as anywhere else, so that the step's files are the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cluster import join
from .steps import JOURNAL, KEY, Step, Work, finished
from .workers import portable

KEYS = re.compile(f"[0-9a-f]{{{KEY}}}")
LARGEST = 256  # lines of a file: one task of Ray reads it, and what came of them is on its way when all are done
SHARES = 4  # of the lines so far, a file has one part in so many for each worker


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
            number = count = 0
            while some := list(islice(lines, part_of(count, self.workers))):
                (parts / f"{number:06d}.txt").write_text("".join(packed(*one) for one in some), encoding="ascii")
                number, count = number + 1, count + len(some)
            if number:
                data = self.ray.data.read_text(str(parts), override_num_blocks=number)
                made = data.map_batches(
                    Worker, fn_constructor_args=(portable(step),), batch_size=None, concurrency=self.workers
                )
                yield from told(row for row in made.iter_rows())
        except self.ray.exceptions.RayError as error:
            *_, why = "", *str(error).strip().splitlines()
            raise OSError(
                f"{step.name}: a worker of the cluster failed ({why.strip()}): the same command goes on"
            ) from None
        finally:
            shutil.rmtree(parts, ignore_errors=True)


def part_of(count: int, workers: int) -> int:
    """How many lines the next file has, behind so many in others: few at first, so that of few lines every worker has
    some, and never more than all workers can share out."""
    return min(LARGEST, max(1, count // (SHARES * workers)))


def told(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Journal lines of what workers gave back.

    Raises:
        ValueError: a worker cannot begin.
    """
    for row in rows:
        if row["why"]:
            raise ValueError(str(row["why"]))
        yield str(row["line"])


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
        self.work: Work | None = None

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Journal lines of a batch of keyed lines; or why there are none.

        The step's work is made here and not as the process begins, so that why it cannot be is told as any error is.
        """
        try:
            work = self.work = self.work or self.step.worker()
            pairs = [unpacked(str(text)) for text in batch["text"]]
        except (ValueError, OSError) as error:
            return _columns([""], str(error) or type(error).__name__)
        return _columns([finished(self.step, work, key, line) for key, line in pairs])


def _columns(lines: Sequence[str], why: str = "") -> dict[str, NDArray[Any]]:
    return {"line": np.array(lines, dtype=object), "why": np.array([why] * len(lines), dtype=object)}
