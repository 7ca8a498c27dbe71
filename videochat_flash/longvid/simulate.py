"""Very many records through all steps but decoding: does memory stay flat, and what does a record cost?"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..files import beside
from ..journal import begin_run, digest
from . import ask, describe, scan, shots, sieve, weave
from .pipeline import STATE, remembered
from .records import Film, Note, Video, line_of, read_lines, writing
from .settings import Ask, Setting, Shots, Source
from .steps import JOURNAL, Made, Step, run
from .workers import local
from .write import write

ACTS = ("opens", "closes", "lifts", "drops", "paints", "washes", "carries", "breaks", "finds", "hides")
THINGS = ("door", "lamp", "cup", "stone", "letter", "ladder", "basket", "mirror", "drum", "kettle", "rope", "shelf")
PEOPLE = ("man", "woman", "child", "cook", "painter", "driver")
EVENTS = 3  # of a film
ASKED = ("understanding", "grounding", "count")  # some two questions about each film
ONCE_IN = 50  # films: one of so many is a copy of the one before
MADE = "made"
TELLING = 1000  # films that are made up from one word of it to the next
PAGE = os.sysconf("SC_PAGE_SIZE")


def films(count: int, seed: int) -> Iterator[str]:
    """Lines of films that nobody decoded, some of them copies, each with notes as annotations would give them."""
    before: tuple[str, ...] = ()
    for number in range(count):
        rng = random.Random(digest(["simulate", seed, number]))
        looks = before if number % ONCE_IN == ONCE_IN - 1 else tuple(f"{rng.getrandbits(64):016x}" for _ in range(8))
        before = looks
        key = f"{rng.getrandbits(128):032x}"
        length = round(rng.uniform(60, 3600), 1)
        video = Video(
            key, f"films/{key}.mp4", "simulated", "none", "video", length, 30.0, int(30 * length), 720, 1280, looks
        )
        yield line_of(Film(video, tuple(_notes(rng, length))))


def _notes(rng: random.Random, length: float) -> Iterator[Note]:
    step = length / EVENTS
    for number in range(EVENTS):
        text = f"A {rng.choice(PEOPLE)} {rng.choice(ACTS)} the {rng.choice(THINGS)} near a {rng.choice(THINGS)}."
        yield Note(round(step * number, 1), round(step * number + step / 2, 1), "caption", text, f"made.json: {number}")


def steps(setting: Setting) -> list[Step]:
    """All steps; the scan only looks for copies, and no shots are detected."""
    looked = Step("scan", {"simulated": True}, _nothing, settle=scan.step(setting).settle)
    return [looked, *(one.step(setting) for one in (shots, describe, weave, ask, sieve))]


def _nothing() -> Callable[[Film], Made]:
    return lambda film: Made((film,))


def resident() -> float:
    """Megabytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def begin_peak() -> None:
    """Let ``peak`` begin anew; where the kernel cannot do that, it tells the most since the process began."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> float:
    """Megabytes that this process held at most since ``begin_peak``, as the kernel counted them all the time."""
    [line] = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**10


def simulate(out: Path, count: int, seed: int, workers: int, told: Callable[[str], Any]) -> dict[str, Any]:
    """Run all steps; a step's files go when the next one has its own. The same call goes on where it was stopped.

    Args:
        out: folder of the steps.
        count: records.
        seed: of the films.
        workers: processes.
        told: a bar for each step, as a context that gives who is told.

    Returns:
        For each step: records in and out, seconds, megabytes held at its beginning, at its most and at its end, and
        megabytes on disk.

    Raises:
        OSError: no room on the disk.
        ValueError: the folder holds a run of other records.
    """
    setting = Setting(
        str(out), (Source("films", "simulated"),), workers=workers, shots=Shots(fps=0), ask=Ask(ASKED, each=1)
    )
    setting = replace(setting, write=replace(setting.write, formats=("reference",)))
    begin_run(out, {"records": count, "seed": seed}, {}, "choose another folder")
    facts = remembered(out)
    before = MADE
    if "scan" not in facts and not (out / f"{MADE}.jsonl").is_file():
        with told(MADE) as bar, writing(out / f"{MADE}.jsonl") as put:
            for number, line in enumerate(films(count, seed), 1):
                put(line)
                if number % TELLING == 0:
                    bar(number, count)
    for step in steps(setting):
        lines = partial(read_lines, out / f"{before}.jsonl")
        if step.name not in facts:
            with told(step.name) as bar:
                facts[step.name] = _measured(step, lines, out, workers, bar)
            with beside(out / STATE) as part:
                part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        _forget(out, before)
        before = step.name
    begin_peak()
    held, began = resident(), time.perf_counter()
    written = write(setting, out / f"{before}.jsonl")
    facts["write"] = {
        "records": facts["sieve"]["films"],
        "films": written.records["train"] + written.records["validation"],
        "seconds": round(time.perf_counter() - began, 2),
        "begin_mb": round(held, 1),
        "most_mb": round(peak(), 1),
        "end_mb": round(resident(), 1),
        "disk_mb": round(sum(path.stat().st_size for path in written.files) / 1e6, 1),
    }
    return facts


def _measured(
    step: Step, lines: Callable[[], Iterator[str]], out: Path, workers: int, bar: Callable[[int, int], None]
) -> dict[str, Any]:
    begin_peak()
    begin, began = resident(), time.perf_counter()
    ran = run(step, lines, out, 0.1, bar, local(workers))
    files = [out / f"{step.name}.jsonl", out / JOURNAL / f"{step.name}.jsonl"]
    return {
        "records": ran.records,
        "films": ran.films,
        "seconds": round(time.perf_counter() - began, 2),
        "begin_mb": round(begin, 1),
        "most_mb": round(peak(), 1),
        "end_mb": round(resident(), 1),
        "disk_mb": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }


def _forget(out: Path, name: str) -> None:
    for path in (out / f"{name}.jsonl", *(out / JOURNAL).glob(f"{name}.*jsonl")):
        path.unlink(missing_ok=True)
