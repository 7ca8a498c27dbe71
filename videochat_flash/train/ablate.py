"""The paper's ablations in small: python -m videochat_flash.train.ablate recipes/ablations/tokens

A folder is an ablation. Each recipe in it is an arm, ``base.toml`` what they share, ``exam.toml`` what all are asked.
Every arm is trained and examined once for each seed; what is done stays, so a stopped run goes on.
"""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from .. import errors, show
from ..files import beside
from ..synth import CARD_KINDS, HOPS
from .exam import Mark, examine_folder, unseen
from .recipe import PARTS, Recipe, load_recipe
from .report import OPTIONS
from .stage import MODEL, claim, history, train
from .written import resolved

SHARED = ("base", "exam")  # files that are no arm
ABOUT: dict[str, tuple[str, ...]] = {
    "attributes": CARD_KINDS,
    "motion": ("motion", "speed"),
    "order": ("order",),
    "presence": ("presence",),
    "grounding": ("grounding",),
    "chains": HOPS,
}
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # 95 %, by runs


@dataclass(frozen=True)
class Run:
    """One arm with one seed.

    Attributes:
        petaflop: operations of its training, 1e15.
        rows: that its training gave the decoder, before any were dropped.
    """

    arm: str
    seed: int
    petaflop: float
    rows: int
    marks: tuple[Mark, ...]

    def share(self, kinds: Sequence[str], of: str = "right") -> float | None:
        """Of the questions of some kinds, those answered right or blind; None where none was asked."""
        some = [getattr(mark, of) for mark in self.marks if mark.kind in kinds]
        return sum(some) / len(some) if some else None


def arms(folder: Path) -> dict[str, list[Path]]:
    """The arms of an ablation, numbers in their order: a recipe each, or a folder of stages that follow each other.

    Raises:
        FileNotFoundError: a folder without arms or without an exam.
    """
    stages = {path.stem: [path] for path in folder.glob("*.toml") if path.stem not in SHARED}
    stages |= {path.name: sorted(path.glob("*.toml")) for path in folder.glob("*/")}
    if not all(stages.values()) or not stages or not (folder / "exam.toml").is_file():
        raise FileNotFoundError(f"{folder} is no ablation: it needs an exam.toml, and a recipe for each arm")
    order = sorted(
        stages, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )
    return {name: stages[name] for name in order}


def run_arm(
    name: str, stages: Sequence[Path], exam: Path, changes: Sequence[str], seed: int, out: Path, count: int
) -> Run:
    """Train an arm and ask it ``count`` conversations of each world of the exam, or read what came of it before.

    Raises:
        ValueError: ``out`` holds an arm of other recipes.
    """
    path, steps = out / "exam.json", []
    begun: list[str] = []
    for stage in stages:
        own = out / stage.stem
        recipe = load_recipe(stage, [*changes, *begun, f"seed={seed}", f"out={own}"])
        claim(own, recipe)
        model = own / MODEL if path.is_file() else train(recipe, lambda step, steps: None, _warn)
        begun = behind(model)
        steps += history(own)
    asked = exam_of(recipe, load_recipe(exam, changes), count)
    told = resolved(replace(asked, out="run", pieces=""))
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if held.get("asked") != told:
        marks = [vars(mark) for _, some in examine_folder(model, asked, recipe.plan) for mark in some]
        held = {"asked": told, "marks": marks}
        with beside(path) as part:
            part.write_text(json.dumps(held), encoding="utf-8")
    petaflop = sum(step["tflops"] * step["seconds"] for step in steps) / 1000
    return Run(name, seed, petaflop, sum(step["rows"] for step in steps), tuple(Mark(**one) for one in held["marks"]))


def behind(model: Path) -> list[str]:
    """What a stage changes that begins with the model of the one before instead of parts of its own."""
    return [f"start={model}", *(f"{part}=" for part in PARTS)]


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def exam_of(recipe: Recipe, exam: Recipe, count: int) -> Recipe:
    """The exam's worlds, compressed as the arm's own; the same questions for every arm and seed."""
    own = recipe.data[0].world
    data = [replace(one, world=replace(one.world, tokens=own.tokens, by=own.by, alone=own.alone)) for one in exam.data]
    return replace(unseen(replace(exam, data=tuple(data)), count, Path(recipe.out)), pieces=recipe.pieces)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of some runs, and half of its 95 % interval by Student's t; infinite for a single run."""
    if len(values) < 2:
        return mean(values), math.inf
    return mean(values), STUDENT[len(values)] * stdev(values) / math.sqrt(len(values))


def summary(runs: Sequence[Run]) -> list[dict[str, str]]:
    """A line for each kind of question and arm: percent answered right, by a guess among all answers, and blind.

    The 95 % interval is over runs alone: all are asked the same questions.
    """
    lines = []
    for about, kinds in ABOUT.items():
        for arm in dict.fromkeys(run.arm for run in runs):
            own = [run for run in runs if run.arm == arm]
            right, blind = ([s for run in own if (s := run.share(kinds, of)) is not None] for of in ("right", "blind"))
            if not right:
                continue
            middle, half = interval(right)
            told = f"{100 * middle:.1f}" + (f" ± {100 * half:.1f}" if half < math.inf else "")
            line = {"question": about, "arm": arm, "right": told, "guess": _guess(own, kinds)}
            line["blind"] = f"{100 * mean(blind):.0f}"
            line["PFLOP"] = f"{mean(run.petaflop for run in own):.3g}"
            line["rows in"] = f"{mean(run.rows for run in own) / 1e6:.3g} M"
            lines.append(line)
    return lines


def _guess(runs: Sequence[Run], kinds: Sequence[str]) -> str:
    """Percent that a guess among the possible answers gets; a dash where that is not known."""
    asked = [mark.kind for run in runs for mark in run.marks if mark.kind in kinds]
    known = [1 / OPTIONS[kind] for kind in asked if kind in OPTIONS]
    return f"{100 * mean(known):.0f}" if len(known) == len(asked) else "-"


def draw(runs: Sequence[Run], path: Path, title: str) -> None:
    """Shares of right answers by arm, with their intervals and every run as a dot, as a PNG."""
    names = list(dict.fromkeys(run.arm for run in runs))
    shown = {about: kinds for about, kinds in ABOUT.items() if runs[0].share(kinds) is not None}
    figure = Figure(figsize=(2 + 1.6 * len(shown), 4), layout="constrained")
    axes = figure.add_subplot()
    wide = 0.8 / len(names)
    for number, arm in enumerate(names):
        own = [run for run in runs if run.arm == arm]
        values = [[run.share(kinds) or 0.0 for run in own] for kinds in shown.values()]
        places = [group + (number - (len(names) - 1) / 2) * wide for group in range(len(shown))]
        middles = [interval(some) for some in values]
        halves = [0.0 if half == math.inf else half for _, half in middles]
        axes.bar(places, [middle for middle, _ in middles], 0.9 * wide, yerr=halves, capsize=2, label=arm)
        for place, some in zip(places, values, strict=True):
            axes.plot([place] * len(some), some, ".", color="black", markersize=3)
    axes.set_xticks(range(len(shown)), list(shown))
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("right, share of the questions")
    axes.set_title(title)
    figure.legend(loc="outside lower center", frameon=False, ncols=len(names))
    with beside(path) as part:
        figure.savefig(part, format="png", dpi=120)


def ablate(
    folder: Annotated[Path, typer.Argument(help="An ablation, as those in recipes/ablations.")],
    seeds: Annotated[int, typer.Option(min=1, max=max(STUDENT), help="Runs of each arm.")] = 3,
    count: Annotated[int, typer.Option(min=1, help="Conversations of each world of the exam.")] = 200,
    out: Annotated[Path, typer.Option(help="Runs, table and picture.")] = Path("runs/ablations"),
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The table, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bar.")] = False,
) -> None:
    """Train and examine every arm of an ablation with every seed, and print and save what came of it."""
    found = arms(folder)
    changes = [f"pieces={out / 'pieces'}", *(changes or ())]  # the same for every ablation, since the tower is
    out = out / folder.name
    runs: list[Run] = []
    with show.progress(folder.name, not (quiet or as_json)) as bar:
        for seed in range(1, seeds + 1):
            for name, stages in found.items():
                bar(len(runs), len(found) * seeds, f"{name}, seed {seed}")
                place = out / f"{name}-{seed}"
                runs.append(run_arm(name, stages, folder / "exam.toml", changes, seed, place, count))
    lines = summary(runs)
    with beside(out / "table.json") as part:
        part.write_text(json.dumps(lines, indent=1), encoding="utf-8")
    draw(runs, out / "arms.png", f"{folder.name}: {seeds} seeds")
    if as_json:
        print(json.dumps(lines))
        return
    table = Table(*lines[0])
    for line in lines:
        table.add_row(*line.values())
    Console().print(table)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(ablate)
    sys.exit(errors.ended("ablate", lambda _: app(standalone_mode=False, prog_name="ablate")))
