"""Measures a model on needle videos as a user would meet them: python -m videochat_flash.train.report

Every video is a real mp4 that is decoded and seen once; then it is asked many questions, once for each dropout plan
and once without the video ("blind"). Seeds and haystacks are the caller's choice: anyone can repeat it on other ones.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from .. import errors, show
from ..chat import VideoChatFlash
from ..config import Plan, check_plan, parse_plan
from ..files import beside
from ..needle import PROCEDURAL, make_needle
from ..synth import ATTRIBUTES, COLOURS, DIGITS, DIRECTIONS, KINDS, SHAPES, SPEEDS, Question
from ..video import Sampling

OWN = "default"  # names the model's own dropout plan
KEEPS = (OWN, "off", "2:0.5")
POOLED = "attribute"  # character, colour and shape together
# Answers that a question leaves open. Of yes and no, the more frequent one is what a guesser would say.
OPTIONS = {
    "character": len(DIGITS),  # the question says whether it is a digit or a letter; there are as many of both
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "motion": len(DIRECTIONS),
    "speed": len(SPEEDS),
    "order": 2,
    "description": len(COLOURS) * len(SHAPES),
}
PER_VIDEO = 15  # questions about one video, roughly
SEEDS = 10_000  # videos that one seed has room for


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        frames: of the videos, one a second; one group of videos for each.
        haystacks: taken in turn.
        keeps: dropout plans by name.
        wanted: questions of each kind, for each number of frames.
        seed: of everything.
    """

    frames: tuple[int, ...]
    haystacks: tuple[str, ...]
    keeps: Mapping[str, Plan]
    wanted: Mapping[str, int]
    seed: int


@dataclass(frozen=True)
class Record:
    """One question with the answers to it."""

    frames: int
    haystack: str
    seed: int  # of the video
    kind: str
    question: str
    truth: str
    answers: dict[str, str]  # by the name of the dropout plan
    blind: str


@dataclass(frozen=True)
class Row:
    """Accuracy on one kind of question, at one length and dropout plan."""

    kind: str
    frames: int
    keep: str
    asked: int
    right: int
    accuracy: float
    interval: tuple[float, float]  # Wilson, 95 %
    chance: float
    blind: float


@dataclass
class Quota:
    """How many questions of each kind are still to be asked."""

    left: Counter[str]
    share: dict[str, int] = field(default_factory=dict)  # of one video at most

    @staticmethod
    def of(wanted: Mapping[str, int]) -> Quota:
        """A quota that is used up in videos of about PER_VIDEO questions."""
        videos = max(1, math.ceil(sum(wanted.values()) / PER_VIDEO))
        return Quota(Counter(wanted), {kind: math.ceil(count / videos) for kind, count in wanted.items()})

    def take(self, questions: Sequence[Question]) -> list[Question]:
        """This video's share of the questions that are still wanted."""
        taken: list[Question] = []
        here: Counter[str] = Counter()
        for one in questions:
            if self.left[one.kind] > 0 and here[one.kind] < self.share[one.kind]:
                here[one.kind] += 1
                self.left[one.kind] -= 1
                taken.append(one)
        return taken

    @property
    def met(self) -> bool:
        """Whether nothing is left to ask."""
        return not +self.left


def wanted_of(attributes: int, motion: int, others: int) -> dict[str, int]:
    """Questions of each kind: the three attributes share theirs."""
    shared = {kind: attributes // 3 + (i < attributes % 3) for i, kind in enumerate(ATTRIBUTES)}
    rest = {kind: others for kind in KINDS if kind not in (*ATTRIBUTES, "motion")}
    return {kind: count for kind, count in {**shared, "motion": motion, **rest}.items() if count}


def measure(vc: VideoChatFlash, setting: Setting, told: show.Told) -> Iterator[Record]:
    """Make videos until every kind of question was asked often enough."""
    total, number = sum(setting.wanted.values()) * len(setting.frames), 0
    done = 0
    for frames in setting.frames:
        quota = Quota.of(setting.wanted)
        empty = 0  # videos in a row that had nothing to ask
        while not quota.met:
            haystack = setting.haystacks[number % len(setting.haystacks)]
            seed = setting.seed * SEEDS + number
            number += 1
            records = list(_video(vc, setting, frames, haystack, seed, quota))
            empty = 0 if records else empty + 1
            if empty == 20 or number == SEEDS:
                raise ValueError(f"{frames} frames show no {', '.join(+quota.left)}: use more frames or fewer kinds")
            done += len(records)
            told(done, total)
            yield from records


def _video(
    vc: VideoChatFlash, setting: Setting, frames: int, haystack: str, seed: int, quota: Quota
) -> Iterator[Record]:
    """Make one video, see it once, ask all there is to ask of it."""
    with tempfile.TemporaryDirectory() as scratch:
        film, truth = Path(scratch) / "needle.mp4", Path(scratch) / "truth.json"
        movers = 2 if frames >= 32 else None
        made = make_needle(haystack, frames, None, seed, film, truth, kinds=KINDS, movers=movers)
        questions = quota.take(made.questions)
        if not questions:
            return
        sight = vc.see(film, Sampling(max_frames=max(frames, 4)))
    for one in questions:
        said = {plan: vc.answer(sight, one.question, keep=plan).strip() for plan in set(setting.keeps.values())}
        answers = {name: said[plan] for name, plan in setting.keeps.items()}
        blind = vc.answer(None, one.question).strip()
        yield Record(frames, haystack, seed, one.kind, one.question, one.answer, answers, blind)


def wilson(right: int, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Where a share truly lies, with 95 % confidence, when ``right`` of ``asked`` were seen."""
    if not asked:
        return 0.0, 1.0
    share, spread = right / asked, z * z / asked
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / asked + spread / (4 * asked))
    return max(0.0, middle - half), min(1.0, middle + half)


def rows_of(records: Sequence[Record]) -> list[Row]:
    """Accuracy by kind, length and dropout; the attributes also together."""
    groups: dict[tuple[str, int, str], list[Record]] = {}
    for kind in (POOLED, *KINDS):
        members = ATTRIBUTES if kind == POOLED else (kind,)
        for one in records:
            if one.kind in members:
                for keep in one.answers:
                    groups.setdefault((kind, one.frames, keep), []).append(one)
    return [_row(*place, group) for place, group in groups.items()]


def _row(kind: str, frames: int, keep: str, group: Sequence[Record]) -> Row:
    right = sum(one.answers[keep] == one.truth for one in group)
    blind = sum(one.blind == one.truth for one in group)
    chance = sum(_chance(one, group) for one in group) / len(group)
    return Row(
        kind, frames, keep, len(group), right, right / len(group), wilson(right, len(group)), chance, blind / len(group)
    )


def _chance(one: Record, group: Sequence[Record]) -> float:
    if one.kind in OPTIONS:
        return 1 / OPTIONS[one.kind]
    return max(Counter(other.truth for other in group).values()) / len(group)


def table_of(rows: Sequence[Row]) -> Table:
    """The rows for people to read."""
    table = Table("question", "frames", "dropout", "right", "accuracy", "95 % interval", "chance", "blind")
    for column in (1, 3, 4, 6, 7):
        table.columns[column].justify = "right"
    for i, row in enumerate(rows):
        low, high = (f"{100 * bound:.1f}" for bound in row.interval)
        table.add_row(
            row.kind, str(row.frames), row.keep, f"{row.right}/{row.asked}", f"{100 * row.accuracy:.1f} %",
            f"{low} to {high} %", f"{100 * row.chance:.1f} %", f"{100 * row.blind:.1f} %",
            end_section=i + 1 < len(rows) and rows[i + 1].kind != row.kind,
        )  # fmt: skip
    return table


def report(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="A name or a folder.")] = "flash-tiny",
    seed: Annotated[int, typer.Option(min=0, help="Of videos and questions.")] = 1000,
    haystack: Annotated[list[str] | None, typer.Option(help="A video or: procedural; may be repeated.")] = None,
    questions: Annotated[int, typer.Option(min=0, help="About attributes, for each length.")] = 500,
    motion: Annotated[int, typer.Option(min=0, help="About motion.")] = 100,
    others: Annotated[int, typer.Option(min=0, help="Of each other kind.")] = 60,
    frames: Annotated[str, typer.Option(help="Lengths of the videos.")] = "64,256",
    keep: Annotated[list[str] | None, typer.Option(help=f"Dropout: {OWN}, off, 2:0.5; may be repeated.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Everything, as JSON.")] = Path("report-tiny.json"),
) -> None:
    """Measure how often a model answers right, and print and save a table of it."""
    began = time.perf_counter()
    with errors.usage():
        lengths = _lengths(frames)
        named = {name: None if name == OWN else parse_plan(name) for name in keep or KEEPS}
    vc = VideoChatFlash.from_pretrained(model, device=device)
    keeps = {name: vc.model.config.keep if plan is None else plan for name, plan in named.items()}
    for plan in keeps.values():
        check_plan(plan, vc.model.config.llm)
    wanted = wanted_of(questions, motion, others)
    setting = Setting(lengths, tuple(haystack or [PROCEDURAL]), keeps, wanted, seed)
    with show.progress("asking", wanted=True) as told:
        records = list(measure(vc, setting, told))
    rows = rows_of(records)
    facts = {
        "model": model,
        "made_by": vc.made_by,
        "setting": asdict(setting),
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": device,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "seconds": round(time.perf_counter() - began, 1),
        "warnings": context.obj,
        "rows": [asdict(row) for row in rows],
        "records": [asdict(record) for record in records],
    }
    with beside(out) as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    Console(width=None if sys.stdout.isatty() else show.WIDE).print(table_of(rows))
    print(f"{out}: {len(records)} questions, each with every answer to it")


def _lengths(text: str) -> tuple[int, ...]:
    lengths = tuple(int(word) for word in text.split(",") if word.isdecimal())
    if len(lengths) != len(text.split(",")) or any(one < 4 or one % 4 for one in lengths):
        raise ValueError(f"--frames {text!r} is not a list of lengths in whole clips of 4, as 64,256")
    return lengths


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(report)


def main() -> None:
    """The entry point."""
    sys.exit(errors.ended("report", lambda notes: app(standalone_mode=False, prog_name="report", obj=notes)))


if __name__ == "__main__":
    main()
