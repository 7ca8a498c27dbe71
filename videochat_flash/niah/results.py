"""Results as they come: one line for each finished trial, never rewritten, and none lost when a run is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from .. import journal
from ..files import beside
from ..journal import canonical, digest
from .suite import Suite

RUN = "run.json"
RESULTS = "results"


@dataclass(frozen=True)
class Record:
    """What came of a trial.

    Attributes:
        id: of the trial.
        manifest: digest of the suite's manifest.
        run: digest of what answered, and how it was asked.
        status: ``ok`` if there was an answer, even an empty one; ``error`` if there was none.
        text: the answer as it came.
        error: what went wrong.
        finish: why the answer ended, as the model tells it.
        rows: text and visual rows or tokens of the prompt, where that is known.
        seconds: that it took.
    """

    id: str
    manifest: str
    run: str
    status: Literal["ok", "error"]
    text: str = ""
    error: str = ""
    finish: str = ""
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Shard:
    """One of ``of`` parts of a suite's trials, by the remainder of the trial's id."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"shard {self.number}/{self.of} is not one of 1/{self.of} to {self.of}/{self.of}")

    @staticmethod
    def parse(text: str) -> Shard:
        """From the command line: ``2/8``.

        Raises:
            ValueError: anything else.
        """
        number, slash, of = text.partition("/")
        if not slash or not number.isdecimal() or not of.isdecimal():
            raise ValueError(f"--shard {text!r} is not as 1/4")
        return Shard(int(number), int(of))

    def holds(self, trial: str) -> bool:
        """Whether a trial is part of it."""
        return int(trial, 16) % self.of == self.number - 1

    @property
    def file(self) -> str:
        """Its results file."""
        return f"{RESULTS}.jsonl" if self.of == 1 else f"{RESULTS}-{self.number}-of-{self.of}.jsonl"


class Log:
    """A results file that is open to be added to."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def add(self, record: Record) -> None:
        """Append a record; it is there once this returns."""
        journal.add(self.file, canonical(asdict(record)))


@contextmanager
def appending(path: Path) -> Iterator[Log]:
    """A results file for one process alone.

    Raises:
        ValueError: another process has it.
        OSError: it cannot be written.
    """
    with journal.appending(path, "wait for it, or take another --shard") as file:
        yield Log(file)


def files_of(folder: Path) -> list[Path]:
    """All results files of a run: of every shard, or of all together."""
    return sorted(folder.glob(f"{RESULTS}*.jsonl"))


def read_results(suite: Suite, folder: Path) -> dict[str, Record]:
    """Every trial's record: its answer if there is one in any file, else its last error.

    Raises:
        ValueError: a damaged line, results of another suite, or of several runs.
    """
    found: dict[str, Record] = {}
    known = {trial.id for trial in suite.trials}
    runs: set[str] = set()
    for path in files_of(folder):
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            record = _parsed(line, path, number, last=number == len(lines))
            if record is None:
                continue
            if record.manifest != suite.manifest or record.id not in known:
                raise ValueError(
                    f"{path}, line {number}: this is a result of another manifest than {suite.folder}'s: "
                    "score it with the suite that it was run from"
                )
            runs.add(record.run)
            if record.id not in found or found[record.id].status == "error":
                found[record.id] = record
    if len(runs) > 1:
        raise ValueError(
            f"{folder} mixes results of {len(runs)} runs (other models or other settings): keep them apart"
        )
    return found


def _parsed(line: bytes, path: Path, number: int, last: bool) -> Record | None:
    if not line.strip():
        return None
    try:
        return Record(**json.loads(line))
    except (ValueError, TypeError):
        if last:  # a run was killed while it wrote: the trial counts as not run
            return None
        raise ValueError(f"{path}, line {number} is damaged: remove that line, and its trial is run again") from None


def begin_run(suite: Suite, folder: Path, settings: Mapping[str, object], facts: Mapping[str, object]) -> str:
    """Write run.json, or check that what is there is the same run; returns its digest.

    Args:
        suite: whose trials are run.
        folder: of the run.
        settings: all that answers depend on.
        facts: what else is worth knowing; it may differ between shards.

    Raises:
        ValueError: the folder holds a run of another model or with other settings.
    """
    mark, path = digest(dict(settings)), folder / RUN
    if path.is_file():
        there = read_run(folder)
        if there["run"] != mark:
            old = there["settings"]
            changed = sorted(
                name for name in {*old, *settings} if old.get(name) != json.loads(canonical(settings)).get(name)
            )
            told = ", ".join(f"{name} {old.get(name)!r} there, {settings.get(name)!r} now" for name in changed)
            raise ValueError(f"{folder} holds results of another run ({told}): name this one with --name")
        return mark
    folder.mkdir(parents=True, exist_ok=True)
    values = {"run": mark, "manifest": suite.manifest, "settings": dict(settings), "facts": dict(facts)}
    with beside(path) as part:
        part.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return mark


def read_run(folder: Path) -> dict[str, Any]:
    """What ``begin_run`` wrote.

    Raises:
        FileNotFoundError: nothing was run there.
        ValueError: it is damaged.
    """
    path = folder / RUN
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the suite first with 'vcflash niah run'")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: values[name] for name in ("run", "manifest", "settings", "facts")}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}): remove it, and run again") from None
