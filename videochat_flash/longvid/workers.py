"""Where the records of a step are worked on: in this process or in several; the results are the same."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import islice

from .steps import Step, Where, Work, finished, worked

AHEAD = 4  # bunches handed out for each process, beyond which no more are read
BRIEF = 0.05  # seconds; records are handed out in bunches that take about as long, or one by one
LARGEST = 256  # records of a bunch
_steps: list[Step] = []  # the one of a worker process, which does nothing else
_works: list[Work] = []  # what does it


def local(processes: int) -> Where:
    """Workers on this machine."""
    return worked if processes == 1 else Pool(processes)


def counted(where: Where) -> bool:
    """Whether all that is worked there is work of this process and its children."""
    return where is worked or isinstance(where, Pool)


def cpu() -> float:
    """Seconds of cores that this process took, and its children that have ended."""
    told = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in told)


def portable(step: Step) -> Step:
    """What of a step is needed to work on single records; it can be sent to other processes."""
    return replace(step, settle=None, more=tuple, lost=None)


class Pool:
    """Several processes; a few bunches of records are ahead, so that memory stays flat."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def __call__(self, step: Step, lines: Iterator[tuple[str, str]]) -> Iterator[str]:
        """Journal lines, as they are finished."""
        context = multiprocessing.get_context("spawn")  # what was loaded here must not be shared by fork
        with ProcessPoolExecutor(self.processes, context, _begin, (portable(step),)) as pool:
            ahead: set[Future[tuple[float, list[str]]]] = set()
            size = 1
            while True:
                try:  # a pool that has lost a process takes no more either
                    while len(ahead) < AHEAD * self.processes and (some := list(islice(lines, size))):
                        ahead.add(pool.submit(_some, some))
                    if not ahead:
                        return
                    ended, ahead = wait(ahead, return_when=FIRST_COMPLETED)
                    results = [one.result() for one in ended]
                except BrokenProcessPool:
                    raise OSError(f"{step.name}: a worker process was ended: the same command goes on") from None
                for seconds, made in results:
                    size = min(LARGEST, 2 * size) if seconds < BRIEF else max(1, size // 2)
                    yield from made


def _begin(step: Step) -> None:
    """Makes this process a worker of a step."""
    _steps.append(step)


def _some(pairs: Sequence[tuple[str, str]]) -> tuple[float, list[str]]:
    """Seconds that it took, and journal lines.

    The step's work is made here and not as the process begins, so that why it cannot be is told as any error is.
    """
    [step] = _steps
    if not _works:
        _works.append(step.worker())
    [work], began = _works, time.perf_counter()
    made = [finished(step, work, *pair) for pair in pairs]
    return time.perf_counter() - began, made
