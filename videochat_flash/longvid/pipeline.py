"""scan -> shots -> describe -> weave -> ask -> sieve -> write: one after the other, or one alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..files import beside
from . import ask, describe, scan, shots, sieve, weave
from .records import line_of, read_lines, stored
from .settings import Setting
from .steps import Ran, Step, Told, Where, check, counts, run
from .workers import counted, cpu, local

STEPS = ("scan", "shots", "describe", "weave", "ask", "sieve", "write")
STATE = "steps.json"  # how each step went that is done
Makers = Callable[[Setting], Step]
PLAIN: dict[str, Makers] = {
    "describe": describe.step,
    "weave": weave.step,
    "ask": ask.step,
    "sieve": sieve.step,
}


def do(name: str, setting: Setting, told: Told = lambda *_: None, where: Where | None = None) -> Ran:
    """Run one step on what the step before it left.

    Args:
        name: of the step; all but ``write``.
        setting: of the build.
        told: records that are done, of how many.
        where: workers; else as many processes as the setting says.

    Raises:
        FileNotFoundError: the step before has not run, or a source is not there.
        ValueError: settings or sources that cannot be followed, a step before that is not done, or too many failures.
        OSError: the folder cannot be written to.
    """
    out = Path(setting.out)
    out.mkdir(parents=True, exist_ok=True)
    ready(name, out)
    step, lines = _prepared(name, setting, out)
    _remember(out, {key: value for key, value in remembered(out).items() if key != name})  # not done until it is again
    where, began = where or local(setting.workers), cpu()
    ran = run(step, lines, out, setting.max_failed, told, where, setting.between)
    ran.workers, ran.cpu = setting.workers, round(cpu() - began, 3) if counted(where) else 0.0
    check(ran, setting.max_failed, out)
    state = remembered(out)
    given = None if name == STEPS[0] else state.get(STEPS[STEPS.index(name) - 1], {}).get("made")
    _remember(out, {**state, name: {**counts([ran])[name], "given": given, "made": _digest(stored(out, name))}})
    return ran


def ready(name: str, out: Path) -> None:
    """Raises ValueError where a step before has left a file that is not whole, since it was stopped, or that is made of
    what an earlier step has changed since."""
    state, made = remembered(out), None
    for before in STEPS[: STEPS.index(name)]:
        if not stored(out, before).is_file():
            made = None
            continue  # whoever reads it says so
        if before not in state:
            raise ValueError(
                f"{before} is not done: it was stopped, or too much failed (see {out / f'{before}.aside.jsonl'}); run "
                f"'vcflash longvid {before}' with the same arguments first, it goes on where it was"
            )
        if made is not None and state[before].get("given") != made:
            raise ValueError(
                f"{before} is not done with what the step before it left since; run 'vcflash longvid {before}' with "
                "the same arguments first, it does what is new"
            )
        made = state[before].get("made")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _prepared(name: str, setting: Setting, out: Path) -> tuple[Step, Callable[[], Iterator[str]]]:
    """A step and the lines that it is given."""
    if name == "scan":
        return scan.step(setting), lambda: map(line_of, scan.discover(setting))
    if name == "shots":
        joined = shots.Joined(setting, stored(out, "scan"))
        return shots.step(setting, joined.asides), joined.lines
    before = stored(out, STEPS[STEPS.index(name) - 1])
    return PLAIN[name](setting), lambda: read_lines(before)


def _remember(out: Path, state: dict[str, Any]) -> None:
    with beside(out / STATE) as part:
        part.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def remembered(out: Path) -> dict[str, Any]:
    """How each step went that is done."""
    with suppress(FileNotFoundError, json.JSONDecodeError):
        held: dict[str, Any] = json.loads((out / STATE).read_text(encoding="utf-8"))
        return held
    return {}
