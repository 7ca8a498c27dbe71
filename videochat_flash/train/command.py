"""``vcflash train``: a recipe with a bar, or what it would take, or what is wrong with its data."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .. import show
from ..weights import find, read_config, read_tokenizer
from .estimate import estimate, facts
from .loop import METRICS, Step
from .parallel import rank
from .recipe import Recipe, architecture, load_recipe, resolved
from .samples import Bad, Sample, Samples, check
from .stage import losses, read_data, train
from .watch import Watch, draw_losses


def run(path: Path, changes: Sequence[str], quiet: bool) -> None:
    """Train to the end, or go on where it stopped."""
    recipe = load_recipe(path, changes)
    out = Path(recipe.out)
    speaks = rank() == 0
    with Watch(out / "tensorboard") as watch, show.progress("training", speaks and not quiet) as bar:

        def told(step: Step, steps: int) -> None:
            watch(step)
            bar(step.step, steps, said(step))

        model = train(recipe, told, lambda text: warnings.warn(text, stacklevel=2))
    if not speaks:
        return
    curve = losses(out)
    draw_losses(curve, out / "loss.png", f"{path.stem}: {recipe.batch} conversations a step")
    step, loss = curve[-1]
    print(f"{model}: trained to step {step}, loss {loss:.4f}; {out / METRICS} and {out / 'loss.png'} tell the rest")


def said(step: Step) -> str:
    """A step in a few words."""
    words = [f"loss {step.loss:.3f}", f"{step.rows / step.seconds:,.0f} rows/s"]
    if step.memory:
        words.append(f"{step.memory / 2**30:.1f} GiB")
    if step.bad:
        words.append(f"{step.bad} bad")
    return ", ".join(words)


def dry_run(path: Path, changes: Sequence[str], gpu: str, gpus: int, as_json: bool) -> None:
    """Print the whole recipe and what it takes; neither weights nor media are opened."""
    recipe = load_recipe(path, changes)
    config = architecture(recipe, read_config(find(recipe.start)) if recipe.start and not recipe.model else None)
    made = facts(estimate(recipe, config, _records(recipe), gpu, gpus))
    if as_json:
        print(json.dumps({"recipe": resolved(recipe), **made}, ensure_ascii=False))
        return
    print(resolved(recipe))
    show.print_facts(made)


def _records(recipe: Recipe) -> int | None:
    """Conversations of an epoch, where the annotation files are there already."""
    files = [source.annotation for source in recipe.data] + ([recipe.mixture] if recipe.mixture else [])
    return len(read_data(recipe).records) if all(Path(file).is_file() for file in files) else None


def check_data(path: Path, changes: Sequence[str], quiet: bool, as_json: bool) -> bool:
    """Read every record with its media and print what is wrong; whether the run would accept it."""
    recipe = load_recipe(path, changes)
    folder = find(recipe.start or recipe.decoder or recipe.model)
    config = architecture(recipe, read_config(folder) if recipe.start else None)
    data = read_data(recipe)
    samples = Samples(recipe, config, read_tokenizer(folder), data.records)
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
    fine = len(bad) <= recipe.max_bad_share * len(samples)
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
