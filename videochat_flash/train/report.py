"""Measures a model on needle videos as a user would meet them: python -m videochat_flash.train.report

Every video is a real mp4 that is decoded and seen once; then it is asked many questions, once for each dropout plan
and once without the video ("blind"). Seeds and haystacks are the caller's choice: anyone can repeat it on other ones.
"""

from __future__ import annotations

import json
import math
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from .. import errors, grade, show
from ..chat import VideoChatFlash
from ..config import Plan, check_plan, parse_plan
from ..files import beside
from ..journal import Log, appending, begin_run, read_lines
from ..needle import CHAINS, MOST_HOPS, PROCEDURAL, make_needle
from ..prefix import prepare
from ..session import decoder_mark
from ..stats import wilson
from ..synth import ALL_KINDS, ATTRIBUTES, COLOURS, DIGITS, DIRECTIONS, HOPS, KINDS, SHAPES, SPEEDS, Question
from ..times import interval
from ..video import Sampling

OWN = "default"  # names the model's own dropout plan
KEEPS = (OWN, "off")
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
    **{kind: CHAINS for kind in HOPS},  # who sees all but follows nothing has as many last cards to choose from
}
JOINT, OVERLAP, NAMED = "multi-hop, joint", "grounding, mIoU", "description, named"  # rows that are no kind's own
PER_VIDEO = 15  # questions about one video, roughly
SEEDS = 10_000  # videos that one seed has room for
# What is asked of the same videos, and the number of the first one: what else is measured changes none of them.
GROUPS: tuple[tuple[tuple[str, ...], int], ...] = ((KINDS, 0), (HOPS, 5_000), (("grounding",), 7_500))


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
    chain: str = ""
    hops: int = 0

    def plain(self) -> dict[str, object]:
        """As it is saved: without chain and hops where there are none."""
        return {name: value for name, value in asdict(self).items() if self.chain or name not in ("chain", "hops")}


@dataclass(frozen=True)
class Row:
    """Accuracy on one kind of question, at one length and dropout plan."""

    kind: str
    frames: int
    keep: str
    asked: int
    right: float  # a number of answers, or a sum of overlaps
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

    def note(self, records: Sequence[Record]) -> None:
        """What was asked already."""
        self.left.subtract(one.kind for one in records)

    @property
    def met(self) -> bool:
        """Whether nothing is left to ask."""
        return not +self.left


class Asked:
    """What was asked of each video that is done, a line each: what was stopped goes on behind them."""

    def __init__(self, log: Log) -> None:
        self.log, self.since, self.seconds = log, time.perf_counter(), 0.0
        self.known: dict[int, list[Record]] = {}
        for _, values in read_lines(log.path):
            self.known[values["video"]] = [Record(**one) for one in values["records"]]
            self.seconds += values["seconds"]

    def add(self, video: int, records: Sequence[Record]) -> None:
        """Keep what was asked of a video, and the seconds that it took."""
        now = time.perf_counter()
        took, self.since = round(now - self.since, 3), now
        self.seconds += took
        self.log.add({"video": video, "seconds": took, "records": [asdict(one) for one in records]})


def wanted_of(attributes: int, motion: int, others: int, hops: int = 0, grounding: int = 0) -> dict[str, int]:
    """Questions of each kind: the three attributes share theirs, of each chain all is asked."""
    shared = {kind: attributes // 3 + (i < attributes % 3) for i, kind in enumerate(ATTRIBUTES)}
    rest = {kind: others for kind in KINDS if kind not in (*ATTRIBUTES, "motion")}
    extra = {**{kind: hops for kind in HOPS}, "grounding": grounding}
    return {kind: count for kind, count in {**shared, "motion": motion, **rest, **extra}.items() if count}


def measure(
    vc: VideoChatFlash, setting: Setting, told: Callable[[int, int], None], asked: Asked | None = None
) -> Iterator[Record]:
    """Make videos until every kind of question was asked often enough; those that were asked already are not made."""
    total, done = sum(setting.wanted.values()) * len(setting.frames), 0
    for kinds, first in GROUPS:
        for records in _group(vc, setting, kinds, first, asked):
            done += len(records)
            told(done, total)
            yield from records


def _group(
    vc: VideoChatFlash, setting: Setting, kinds: Sequence[str], number: int, asked: Asked | None
) -> Iterator[list[Record]]:
    """The records of one video after the other, until these kinds were asked often enough."""
    for frames in setting.frames:
        quota = Quota.of({kind: count for kind, count in setting.wanted.items() if kind in kinds})
        empty = 0  # videos in a row that had nothing to ask
        while not quota.met:
            if asked and number in asked.known:
                records = asked.known[number]
                quota.note(records)
            else:
                records = list(_video(vc, setting, kinds, frames, number, quota))
                if asked:
                    asked.add(number, records)
            number += 1
            empty = 0 if records else empty + 1
            if empty == 20 or number == SEEDS:
                raise ValueError(f"{frames} frames show no {', '.join(+quota.left)}: use more frames or fewer kinds")
            yield records


def _video(
    vc: VideoChatFlash, setting: Setting, kinds: Sequence[str], frames: int, number: int, quota: Quota
) -> Iterator[Record]:
    """Make one video, see it once, ask all there is to ask of it."""
    haystack, seed = setting.haystacks[number % len(setting.haystacks)], setting.seed * SEEDS + number
    with tempfile.TemporaryDirectory() as scratch:
        film, truth = Path(scratch) / "needle.mp4", Path(scratch) / "truth.json"
        movers = 2 if frames >= 32 else None
        hops = 1 + number // len(setting.haystacks) % MOST_HOPS if kinds == HOPS else None  # all in each haystack
        made = make_needle(haystack, frames, None, seed, film, truth, kinds=kinds, movers=movers, hops=hops)
        questions = quota.take(_by_chain(made.questions))
        if not questions:
            return
        sight = vc.see(film, Sampling("count", max_frames=frames, num_frames=frames))
    begun = {plan: prepare(vc, sight, keep=plan) for plan in set(setting.keeps.values())}
    for one in questions:
        said = {plan: vc.answer(sight, one.question, keep=plan, prefix=kept).strip() for plan, kept in begun.items()}
        answers = {name: said[plan] for name, plan in setting.keeps.items()}
        blind = vc.answer(None, one.question).strip()
        yield Record(frames, haystack, seed, one.kind, one.question, one.answer, answers, blind, one.chain, one.hops)


def _by_chain(questions: Sequence[Question]) -> list[Question]:
    """The same questions, of every kind about the same chain first: so that a quota takes whole chains."""
    chains = list(dict.fromkeys(one.chain for one in questions))
    return sorted(questions, key=lambda one: chains.index(one.chain))


def rows_of(records: Sequence[Record], named: bool = False) -> list[Row]:
    """Accuracy by kind, length and dropout; the attributes also together. Then, where there are any, chains of which
    all is right, the overlap of intervals and, if ``named``, how many attributes descriptions name."""
    groups: dict[tuple[str, int, str], list[Record]] = {}
    for kind in (POOLED, *ALL_KINDS):
        members = ATTRIBUTES if kind == POOLED else (kind,)
        for one in records:
            if one.kind in members:
                for keep in one.answers:
                    groups.setdefault((kind, one.frames, keep), []).append(one)
    rows = [_row(*place, group) for place, group in groups.items()]
    for (kind, frames, keep), group in groups.items():
        if kind == HOPS[0]:
            chains = [one for one in records if one.kind in HOPS and one.frames == frames and keep in one.answers]
            rows += _joint_rows(frames, keep, chains)
        elif kind == "grounding":
            rows.append(_overlap_row(frames, keep, group))
        elif kind == "description" and named:
            rows.append(_named_row(frames, keep, group))
    return rows


def _row(kind: str, frames: int, keep: str, group: Sequence[Record]) -> Row:
    right = sum(grade.right(one.answers[keep], one.truth) for one in group)
    blind = sum(grade.right(one.blind, one.truth) for one in group)
    chance = sum(_chance(one, group) for one in group) / len(group)
    return Row(
        kind, frames, keep, len(group), right, right / len(group), wilson(right, len(group)), chance, blind / len(group)
    )


def _joint_rows(frames: int, keep: str, group: Sequence[Record]) -> Iterator[Row]:
    """Chains of which every answer is right: of all lengths together, and of each."""
    for hops in (0, *sorted({one.hops for one in group})):
        some = [one for one in group if hops in (0, one.hops)]
        place = [(one.haystack, one.seed, one.chain) for one in some]
        right = grade.jointly(zip(place, (grade.right(one.answers[keep], one.truth) for one in some), strict=True))
        blind = grade.jointly(zip(place, (grade.right(one.blind, one.truth) for one in some), strict=True))
        kind = f"{JOINT}, {hops}" if hops else JOINT
        yield _scored(kind, frames, keep, [*right.values()], 1 / CHAINS, [*blind.values()])


def _overlap_row(frames: int, keep: str, group: Sequence[Record]) -> Row:
    """Mean overlap; by chance it is that of an answer with another question's truth."""
    truths = [interval(one.truth) or (0.0, 0.0) for one in group]
    scores = [grade.grounding(one.answers[keep], truth) for one, truth in zip(group, truths, strict=True)]
    blind = [grade.grounding(one.blind, truth) for one, truth in zip(group, truths, strict=True)]
    pairs = [grade.iou(one, other) for i, one in enumerate(truths) for other in truths[:i]]
    return _scored(OVERLAP, frames, keep, scores, sum(pairs) / max(1, len(pairs)), blind)


def _named_row(frames: int, keep: str, group: Sequence[Record]) -> Row:
    """Attributes named, but for the character, which the question gives away."""
    unknown = ("colour", "shape")
    right = [grade.named(one.answers[keep], one.truth)[name] for one in group for name in unknown]
    blind = [grade.named(one.blind, one.truth)[name] for one in group for name in unknown]
    return _scored(NAMED, frames, keep, right, sum(1 / OPTIONS[name] for name in unknown) / 2, blind)


def _scored(kind: str, frames: int, keep: str, scores: Sequence[float], chance: float, blind: Sequence[float]) -> Row:
    """A row of scores from 0 to 1; for the interval each counts as a share of one right answer."""
    right, asked = sum(scores), len(scores)
    share, interval = right / asked, wilson(right, asked)
    return Row(kind, frames, keep, asked, round(right, 2), share, interval, chance, sum(blind) / asked)


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
            row.kind, str(row.frames), row.keep, f"{row.right:g}/{row.asked}", f"{100 * row.accuracy:.1f} %",
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
    hops: Annotated[int, typer.Option(min=0, help="Chains of 1 to 3 pointers to follow, for each length.")] = 0,
    grounding: Annotated[int, typer.Option(min=0, help="About when something is shown.")] = 0,
    named: Annotated[bool, typer.Option("--named", help="Count also what descriptions name.")] = False,
    frames: Annotated[str, typer.Option(help="Lengths of the videos.")] = "64,256",
    keep: Annotated[list[str] | None, typer.Option(help=f"{OWN}, off, or a plan as 2:0.5; may be repeated.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Everything, as JSON.")] = Path("report-tiny.json"),
) -> None:
    """Measure how often a model answers right, and print and save a table of it; what was stopped goes on."""
    errors.check_target(out)
    with errors.usage():
        lengths = _lengths(frames)
        plans = {name: None if name == OWN else parse_plan(name) for name in keep or KEEPS}
    vc = VideoChatFlash.from_pretrained(model, device=device)
    keeps = {name: vc.model.config.keep if plan is None else plan for name, plan in plans.items()}
    for plan in keeps.values():
        check_plan(plan, vc.model.config.llm)
    wanted = wanted_of(questions, motion, others, hops, grounding)
    setting = Setting(lengths, tuple(haystack or [PROCEDURAL]), keeps, wanted, seed)
    run = out.with_name(f"{out.name}.run")
    known = {"made_by": vc.made_by, "decoder": decoder_mark(vc), "device": device, **asdict(setting)}
    begin_run(run, known, {}, "remove it, or name another --out")
    with appending(run / "videos.jsonl") as log, show.progress("asking", wanted=True) as told:
        asked = Asked(log)
        records = list(measure(vc, setting, told, asked))
    rows = rows_of(records, named)
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
        "seconds": round(asked.seconds, 1),
        "warnings": context.obj,
        "rows": [asdict(row) for row in rows],
        "records": [record.plain() for record in records],
    }
    with beside(out) as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(run)
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
