"""Where the records of a step are worked on: in this process or in several; the results are the same."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import islice

from .steps import Step, Where, Work, finished, worked

AHEAD = 4  # records handed out for each process, beyond which no more are read
_held: dict[str, tuple[Step, Work]] = {}  # the step of a worker process, which does nothing else


def local(processes: int) -> Where:
    """Workers on this machine."""
    return worked if processes == 1 else Pool(processes)


def portable(step: Step) -> Step:
    """What of a step is needed to work on single records; it can be sent to other processes."""
    return replace(step, settle=None, more=tuple)


class Pool:
    """Several processes; a few records are ahead, so that memory stays flat."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def __call__(self, step: Step, lines: Iterator[tuple[str, str]]) -> Iterator[str]:
        """Journal lines, as they are finished."""
        context = multiprocessing.get_context("spawn")  # what was loaded here must not be shared by fork
        with ProcessPoolExecutor(self.processes, context, _begin, (portable(step),)) as pool:
            ahead: set[Future[str]] = set()
            while True:
                room = AHEAD * self.processes - len(ahead)
                ahead |= {pool.submit(_one, pair) for pair in islice(lines, room)}
                if not ahead:
                    return
                ended, ahead = wait(ahead, return_when=FIRST_COMPLETED)
                try:
                    yield from [one.result() for one in ended]
                except BrokenProcessPool:
                    raise OSError(f"{step.name}: a worker process was ended: the same command goes on") from None


def _begin(step: Step) -> None:
    """Makes this process a worker of a step."""
    _held["step"] = step, step.worker()


def _one(pair: tuple[str, str]) -> str:
    step, work = _held["step"]
    return finished(step, work, *pair)
