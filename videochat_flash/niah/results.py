"""What came of a suite's trials, of every shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..journal import damaged, read_lines
from .suite import Suite

RESULTS = "results"
LIMITS = (64, 8)  # new tokens at most: of words, and the way that leads to them, and of a letter


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


def files_of(folder: Path) -> list[Path]:
    """All results files of a run: of every shard, or of all together."""
    return sorted(folder.glob(f"{RESULTS}*.jsonl"))


def read_results(suite: Suite, folder: Path, run: str = "") -> dict[str, Record]:
    """Every trial's record: its answer if there is one in any file, else its last error.

    Args:
        suite: that was run.
        folder: of the run.
        run: its digest, as run.json has it; "" takes any run's.

    Raises:
        ValueError: a damaged line, results of another suite or run, or of several runs.
    """
    found: dict[str, Record] = {}
    known = {trial.id for trial in suite.trials}
    runs: set[str] = set()
    for path in files_of(folder):
        for number, values in read_lines(path):
            try:
                record = Record(**values)
            except TypeError:
                raise damaged(path, number) from None
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
    if run and runs - {run}:
        raise ValueError(f"{folder} holds results of another run than its run.json tells of: keep the two together")
    return found


def flags_of(run: Mapping[str, Any]) -> list[str]:
    """Choices of a run that make its figures incomparable with others."""
    settings = run["settings"]
    usual = {"transport": "splice", "yarn": 1.0, "stamps": False, "max_new_tokens": [*LIMITS]}
    told = [f"{name}={settings[name]}" for name, value in usual.items() if settings.get(name, value) != value]
    if "keep" in settings:
        drops = ",".join(f"{layer}:{ratio:g} by {by}" for layer, ratio, by in settings["keep"])
        told.append(f"keep={drops or 'off'}")
    delivery = run["facts"].get("delivery")
    return [*told, f"delivery={delivery}"] if delivery and delivery != "passed" else told
