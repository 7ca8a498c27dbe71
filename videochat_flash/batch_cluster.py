"""Rows answered on a Ray cluster: workers take groups of rows, and their lines come back as they are made.

A worker that is ended while it answers is started again, and the rest of its rows are answered one by one by whoever is
free; a row at which a worker ended for the second time is a failure like any other.
"""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from .batch import How, Line, Row, answers, grouped
from .chat import Stopwatch, VideoChatFlash
from .session import load

LOST = "the process that answered it was ended, twice"
IN_A_ROW = 10  # workers that are ended without a line between; then something is wrong with more than a row


class Worker:
    """Answers rows in a process of the cluster.

    Args:
        loading: what ``session.load`` is told.
        how: what all rows have in common.
    """

    def __init__(self, loading: Mapping[str, str | None], how: How) -> None:
        self.loading, self.how = loading, how
        self.vc: VideoChatFlash | None = None

    def ready(self) -> tuple[str, list[str]]:
        """Load the model; why it cannot be used, if it cannot, and what there is to note."""
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", UserWarning)
            try:
                self.how.manner.check(self._model())
            except (ValueError, OSError) as error:
                return str(error), []
        return "", [str(note.message) for note in notes]

    def answers(self, group: Sequence[Row]) -> Iterator[Line]:
        """A line for each row."""
        yield from answers(self._model(), group, self.how)

    def _model(self) -> VideoChatFlash:
        if self.vc is None:  # a worker that was started again begins without
            self.vc = load(**self.loading, watch=Stopwatch())  # type: ignore[arg-type]
        return self.vc


def start(
    ray: ModuleType, workers: int, cpus: int, loading: Mapping[str, str | None], how: How
) -> list[Any]:  # of Ray's handles, which have no type
    """Processes that can answer.

    Args:
        ray: connected to a cluster.
        workers: how many, each with a model, and with a GPU where the model is to be on one.
        cpus: of each.
        loading: what ``session.load`` is told.
        how: what all rows have in common.

    Raises:
        ValueError: the model cannot be used.
        OSError: a worker was ended before it began.
    """
    kind = ray.remote(num_cpus=cpus, num_gpus=int(loading["device"] == "cuda"), max_restarts=-1)(Worker)
    made = [kind.remote(loading, how) for _ in range(workers)]
    try:
        begun = ray.get([worker.ready.remote() for worker in made])
    except ray.exceptions.RayActorError as error:
        raise OSError(f"a worker was ended before it began: {str(error).splitlines()[0]}") from None
    for failed, notes in begun:
        if failed:
            raise ValueError(failed)
        for note in notes:
            warnings.warn(note, stacklevel=2)
    return made


def answered(ray: ModuleType, workers: Sequence[Any], rows: Sequence[Row]) -> Iterator[Line]:
    """Lines of all rows, in the order in which they are made.

    Raises:
        OSError: workers are ended again and again.
    """
    groups, idle = deque(grouped(rows)), list(workers)
    busy: dict[Any, tuple[Any, deque[Row]]] = {}  # lines that are being made: by whom, of which rows
    starting: dict[Any, tuple[Any, int]] = {}  # workers that start again, and how often they were waited for
    losses: Counter[str | int] = Counter()
    in_a_row = 0
    while groups or busy:
        while groups and idle:
            worker, group = idle.pop(), groups.popleft()
            busy[worker.answers.options(num_returns="streaming").remote(group)] = worker, deque(group)
        (lines,), _ = ray.wait([*starting, *busy], num_returns=1)
        if lines in starting:
            idle += _started(ray, lines, starting)
            continue
        worker, left = busy[lines]
        try:
            line: Line = ray.get(next(lines))
        except StopIteration:
            idle.append(busy.pop(lines)[0])
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
            del busy[lines]
            in_a_row += 1
            if in_a_row == IN_A_ROW:
                raise OSError(f"{IN_A_ROW} workers were ended, one after the other: the same command goes on") from None
            yield from _given_up(left, losses)
            groups.extendleft([row] for row in reversed(left))  # alone: then it is known which one ends a worker
            starting[worker.ready.remote()] = worker, 1  # until then it would take a row and lose it
        else:
            in_a_row = 0
            left.popleft()
            yield line


def _started(ray: ModuleType, begun: Any, starting: dict[Any, tuple[Any, int]]) -> list[Any]:
    """The worker that has started again; none where it was ended while it did, and is waited for once more."""
    worker, waited = starting.pop(begun)
    try:
        ray.get(begun)
    except ray.exceptions.RayActorError:
        if waited < IN_A_ROW:
            starting[worker.ready.remote()] = worker, waited + 1
            return []
    return [worker]


def _given_up(left: deque[Row], losses: Counter[str | int]) -> Iterator[Line]:
    """The only row that was left, where a worker ended at it before. Of several it is not known which one it was: lines
    that were on their way are lost with a worker."""
    losses.update(row.id for row in left)
    if len(left) == 1 and losses[left[0].id] > 1:
        yield {"id": left.popleft().id, "error": LOST}
