"""``vcflash train``: a recipe with a bar, what it would take, what is wrong with its data, what came of it."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from .. import show
from ..weights import find, read_config, read_tokenizer
from .checkpoint import Keeper
from .estimate import estimate, facts
from .exam import Mark, examine_folder, rows_of, table_of, unseen
from .loop import METRICS, Step
from .optimize import Group
from .parallel import rank
from .recipe import Recipe, architecture, load_recipe
from .records import Record, epoch_order, name_of
from .samples import Bad, Sample, Samples, check
from .stage import MODEL, history, losses, read_data, sources_of, train
from .watch import Watch, draw_losses
from .written import resolved


def run(path: Path, changes: Sequence[str], quiet: bool, as_json: bool = False) -> None:
    """Train to the end, or go on where it stopped."""
    quiet = quiet or as_json
    recipe = load_recipe(path, changes)
    out = Path(recipe.out)
    speaks = rank() == 0
    last = 0
    with Watch(out / "tensorboard") as watch, ExitStack() as shown:
        bar = shown.enter_context(show.progress("", False))

        def begun(groups: list[Group]) -> None:
            nonlocal bar
            if not quiet:
                print_groups(groups)
            bar = shown.enter_context(show.progress("training", not quiet))  # not before: it would be written over

        def told(step: Step, steps: int) -> None:
            nonlocal last
            last = step.step
            watch(step)
            bar(step.step, steps, said(step))

        try:
            model = train(recipe, told, lambda text: warnings.warn(text, stacklevel=2), begun)
        except KeyboardInterrupt:
            if speaks:
                warnings.warn(f"stopped behind step {last}: the same command goes on from {saved(out)}", stacklevel=1)
            raise
    if not speaks:
        return
    rows, curve = history(out), losses(out)
    step, reasons = rows[-1]["step"], rows[-1].get("reasons", {})  # which older runs did not tell
    loss = curve[-1][1] if curve else None
    if curve:
        draw_losses(curve, out / "loss.png", f"{path.stem}: {recipe.batch} conversations a step")
    if as_json:
        came = {"model": str(model), "step": step, "loss": loss, "left_out": reasons, "metrics": str(out / METRICS)}
        print(json.dumps(came, ensure_ascii=False))
        return
    print_bad(reasons)
    if loss is None:
        print(f"{model}: {step} steps, none of them with an answer to learn; {out / METRICS} tells the rest")
        return
    print(f"{model}: trained to step {step}, loss {loss:.4f}; {out / METRICS} and {out / 'loss.png'} tell the rest")


def print_groups(groups: Sequence[Group]) -> None:
    """What learns, at which rate."""
    header = ("part", "parameters", "rate", "weight decay", "optimizer")
    lines = [(one.part, f"{one.parameters:,}", f"{one.rate:g}", f"{one.decay:g}", one.optimizer) for one in groups]
    show.print_table("what learns", header, lines)


def print_bad(reasons: Mapping[str, int]) -> None:
    """Why conversations were left out, where some were."""
    if reasons:
        show.print_table(
            "conversations left out", ("reason", "times"), [(reason, f"{count:,}") for reason, count in reasons.items()]
        )


def saved(out: Path) -> str:
    """Where a run would go on."""
    steps = Keeper(out / "checkpoints", 1, "", {}).steps()
    return f"step {steps[-1]}" if steps else "the beginning"


def said(step: Step) -> str:
    """A step in a few words."""
    words = [
        "no answer" if step.loss is None else f"loss {step.loss:.3f}",
        f"{step.rows / max(step.seconds, 1e-3):,.0f} rows/s",
    ]
    words.append(f"{step.tflops:.3g} TFLOP/s" + ("" if step.mfu is None else f" ({step.mfu:.0%} of the peak)"))
    if step.memory:
        words.append(f"{step.memory / 2**30:.1f} GiB")
    if step.bad:
        words.append(f"{step.bad} bad")
    return ", ".join(words)


def dry_run(path: Path, changes: Sequence[str], gpu: str, gpus: int, as_json: bool) -> None:
    """Print the whole recipe and what it takes; neither weights nor media are opened."""
    recipe = load_recipe(path, changes)
    config = architecture(recipe, None if recipe.model else read_config(_described(recipe.start)))
    made = facts(estimate(recipe, config, _records(recipe), gpu, gpus))
    if as_json:
        print(json.dumps({"recipe": resolved(recipe), **made}, ensure_ascii=False))
        return
    print(resolved(recipe))
    show.print_facts(made)


def _records(recipe: Recipe) -> int | None:
    """Conversations of an epoch, where the annotation files are there already."""
    sources = sources_of(recipe) if not recipe.mixture or Path(recipe.mixture).is_file() else None
    if sources is None or not all(one.world.kind or Path(one.annotation).expanduser().is_file() for one in sources):
        return None
    data = read_data(recipe)
    return len(epoch_order(data.sources, data.sizes, recipe.seed, 0))


def _described(name: str) -> Path:
    """The folder of a model that is there or can be fetched, of which no weights are wanted."""
    return find(name, wanted=("*.json", "*.txt"))


def _tokenizer(recipe: Recipe) -> Tokenizer:
    """What the training will read text with; that of its ``model``, where what it begins with is not there yet.

    Raises:
        FileNotFoundError: neither.
    """
    own = recipe.start or recipe.decoder or recipe.model
    try:
        return read_tokenizer(_described(own))
    except FileNotFoundError:
        if recipe.model in ("", own):
            raise
    warnings.warn(f"no tokenizer in {own} yet: text is counted with that of {recipe.model}", stacklevel=2)
    return read_tokenizer(_described(recipe.model))


def exam(path: Path, changes: Sequence[str], count: int, quiet: bool, as_json: bool) -> None:
    """Ask what came out ``count`` new conversations of each world that the recipe draws, and print what was right."""
    recipe = load_recipe(path, changes)
    folder = find(str(Path(recipe.out) / MODEL))
    marks: list[Mark] = []
    with tempfile.TemporaryDirectory() as scratch, show.progress("asking", not (quiet or as_json)) as bar:
        asked = unseen(recipe, count, Path(scratch))
        total = count * len(asked.data)
        for done, some in examine_folder(folder, asked, recipe.plan):
            marks += some
            bar(done, total, "")
    if as_json:
        told = {"rows": [asdict(one) for one in rows_of(marks)], "marks": [asdict(one) for one in marks]}
        print(json.dumps(told, ensure_ascii=False))
    else:
        Console().print(table_of(rows_of(marks)))


def check_data(path: Path, changes: Sequence[str], quiet: bool, as_json: bool) -> bool:
    """Read every record with its media and print what is wrong; whether the run would accept it."""
    recipe = load_recipe(path, changes)
    config = architecture(recipe, None if recipe.model else read_config(_described(recipe.start)))
    data = read_data(recipe)
    records = [one for one in data.records if isinstance(one, Record)]  # what is drawn is never bad
    if not records:
        raise ValueError(f"{path} draws all of its data: there is no record to check")
    samples = Samples(recipe, config, _tokenizer(recipe), records)
    bad: list[Bad] = []
    with show.progress("reading", not (quiet or as_json)) as bar:
        done = 0

        def told(one: Sample | Bad) -> None:
            nonlocal done
            done += 1
            bar(done, len(samples), f"{len(bad)} bad" if bad else "")
            if isinstance(one, Bad):
                bad.append(one)

        rows = check(samples, told)
    often = {name_of(source): source.weight for source in data.sources}  # that a run meets each of its records
    met = sum(often[name] * count for name, count, _ in rows)
    broken = sum(often[name] * sum(reasons.values()) for name, _, reasons in rows)
    fine = broken <= recipe.max_bad_share * met
    if as_json:
        sources = [{"source": name, "records": count, "bad": reasons} for name, count, reasons in rows]
        told_of = [vars(one) for one in bad]
        print(json.dumps({"sources": sources, "bad": told_of, "accepted": fine}, ensure_ascii=False))
        return fine
    table = Table("source", "records", "bad", "why")
    for name, count, reasons in rows:
        why = ", ".join(f"{reason} {number}" for reason, number in reasons.items())
        table.add_row(name, f"{count:,}", f"{sum(reasons.values()):,}", why)
    Console(width=show.WIDE).print(table)
    for one in bad[:20]:
        print(show.one_line(f"{one.id}: {one.reason}: {one.detail}"))
    if len(bad) > 20:
        print(f"and {len(bad) - 20} more; --json lists all")
    return fine
