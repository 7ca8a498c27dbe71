"""vcflash eval and vcflash ground. Whatever is heavy is imported inside the commands."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import errors, show
from ..options import (
    TINY,
    Device,
    Dtype,
    End,
    Fps,
    Json,
    Keep,
    KeepBy,
    MaxFrames,
    Model,
    NumFrames,
    Policy,
    Quiet,
    Revision,
    Start,
)
from . import options

if TYPE_CHECKING:
    from .ask import How
    from .items import Flaw, Item

MOST_TOLD = 10  # rows that are wrong
NO_OTHER = "--against names no run to compare with"


def evaluate(
    file: options.Rows,
    out: options.Out,
    model: Model = TINY,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    max_frames: MaxFrames = 512,
    fps: Fps = None,
    num_frames: NumFrames = None,
    policy: Policy = None,
    keep: Keep = None,
    keep_by: KeepBy = None,
    wording: options.Words = "full",
    benchmark: options.Bench = "mvbench",
    max_new_tokens: options.NewTokens = None,
    no_blind: options.NoBlind = False,
    limit: options.Limit = None,
    allow_missing: options.AllowMissing = False,
    score_only: options.ScoreOnly = False,
    against: options.Against = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask a model all questions of a file, and report how many it answers right."""
    from .. import session
    from ..journal import read_run
    from .ask import How

    with errors.usage():
        sampling = session.sampling_of(max_frames, fps, num_frames, None, None, policy)
        how = How(wording, benchmark, sampling, session.plan_of(keep, keep_by), max_new_tokens)
    items, flaws = _rows(file, limit, allow_missing)
    if against is not None:
        read_run(against, NO_OTHER)  # or fail now, not after hours of asking
    if not score_only:
        _ask(items, out, (model, revision, device, dtype), how, not no_blind, not (quiet or as_json))
    facts = _summary(file, items, flaws, out, benchmark, against)
    if not facts["complete"] and not allow_missing:
        counts = facts["counts"]
        raise ValueError(
            f"{counts['failed']} questions failed and {counts['missing']} were not asked ({_first(facts)}): "
            "the same command tries them again, --allow-missing scores without them"
        )
    written = _write(facts, out)
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        show.print_facts({**_told(facts), "report": ", ".join(map(str, written))})


def _ask(
    items: Sequence[Item],
    out: Path,
    loading: tuple[str, str | None, str, str],
    how: How,
    blind: bool,
    bars: bool,
) -> None:
    from .. import session
    from ..chat import Stopwatch
    from ..config import check_plan
    from .ask import Ours
    from .run import run

    model, revision, device, _ = loading
    vc = session.load(*loading, Stopwatch())
    with errors.usage():
        check_plan(how.keep or (), vc.model.config.llm)
    with show.progress("asking", bars) as told:
        run(items, out, Ours(vc, model, how, {"device": device, "revision": revision or ""}), blind, told)


def _rows(file: Path, limit: int | None, allow_missing: bool) -> tuple[list[Item], list[Flaw]]:
    """The rows to ask; each that cannot be asked is told.

    Raises:
        ValueError: there are such rows and they are not allowed to be missing, or nothing else.
    """
    from .items import counted, read_items

    items, flaws = read_items(file)
    for one in flaws[:MOST_TOLD]:
        warnings.warn(str(one), stacklevel=2)
    if flaws and (not allow_missing or not items):
        raise ValueError(
            f"{file}: {len(flaws)} of {len(items) + len(flaws)} rows cannot be asked ({counted(flaws)}); the first: "
            f"{flaws[0]}{'' if not items else '. Correct them, or leave them out with --allow-missing'}"
        )
    return items[:limit], flaws


def _summary(
    file: Path, items: Sequence[Item], flaws: Sequence[Flaw], out: Path, benchmark: str, against: Path | None
) -> dict[str, Any]:
    from ..journal import read_run
    from .benchmarks import BENCHMARKS
    from .run import read_results
    from .score import compared, scored, summary

    run = read_run(out, "ask the questions first, without --score-only")
    records = read_results(out, run["run"])
    facts = {"file": str(file), **summary(items, flaws, records, run, benchmark)}
    if against is not None:
        other = read_run(against, NO_OTHER)
        rule = BENCHMARKS[benchmark]
        theirs = scored(items, read_results(against, other["run"]), other, rule)
        facts["against"] = {"name": str(against), "sections": compared(scored(items, records, run, rule), theirs)}
    if facts["counts"]["others"]:
        text = f"{facts['counts']['others']} results in {out} are of rows that are not in {file}, or were changed since"
        warnings.warn(f"{text}: they are not scored", stacklevel=2)
    return facts


def _first(facts: dict[str, Any]) -> str:
    return f"most often: {next(iter(facts['errors']))}" if facts["errors"] else "the run was stopped or limited"


def _write(facts: dict[str, Any], out: Path) -> list[Path]:
    """summary.json, report.md and, where there is matplotlib, report.png."""
    from ..files import beside
    from .report import report

    written = [out / "summary.json", out / "report.md"]
    for path, text in zip(
        written, (json.dumps(facts, indent=1, ensure_ascii=False) + "\n", report(facts)), strict=True
    ):
        with beside(path) as part:
            part.write_text(text, encoding="utf-8")
    try:
        from .plot import draw
    except ModuleNotFoundError as error:
        name = str(error.name).partition(".")[0]
        warnings.warn(f"no report.png: {name} is not installed: pip install 'videochat-flash[eval]'", stacklevel=2)
        return written
    return [*written, draw(facts, out / "report.png")]


def _told(facts: dict[str, Any]) -> dict[str, object]:
    """The main figures for a terminal."""
    from .report import percent, spread

    counts, told = facts["counts"], dict[str, object]()
    for name, words in (("answers", "right"), ("intervals", "mIoU")):
        if facts[name]:
            row = facts[name]["all"]
            blind = "" if row["blind"] is None else f", blind {percent(row['blind'])}"
            told[words] = (
                f"{percent(row['score'])} of {row['asked']} ({spread(row['clustered'])}{blind}, "
                f"constant {percent(row['constant'])})"
            )
            for axis, labels in list(facts[name]["axes"].items())[:1]:
                told[f"{words}, by {axis}"] = {label: percent(one["score"]) for label, one in labels.items()}
    for name, one in facts["against"]["sections"].items() if "against" in facts else ():
        told[f"{name}_against"] = f"{100 * one['difference']:+.1f} points, p = {one['p']:.4f}"
    left = ("unasked", "failed", "missing", "unparsed", "empty")
    return {**told, **{name: counts[name] for name in left if counts[name]}}


def rows(
    benchmark: options.Benchmark,
    files: options.Annotations,
    videos: options.Videos,
    out: options.RowsOut,
    subtitles: options.Subtitles = None,
    task: options.Task = False,
) -> None:
    """Turn a public benchmark's own annotations into a file of questions for eval."""
    from ..files import beside
    from .datasets import Media, write_rows
    from .items import counted, read_items
    from .lmms.written import name_of, task_of

    errors.check_target(out)
    if not videos.is_dir():
        raise NotADirectoryError(f"--videos {videos} is not a folder")
    made = list(write_rows(benchmark, files, Media(videos, subtitles, out.parent)))
    if not made:
        raise ValueError(f"{', '.join(map(str, files))}: there are no questions in it")
    with beside(out) as part:
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    items, flaws = read_items(out, judge=True)
    if flaws:
        text = f"{len(flaws)} of {len(made)} rows cannot be asked ({counted(flaws)}), the first: {flaws[0]}"
        warnings.warn(text, stacklevel=2)
    typer.echo(f"{out}: {len(items)} questions about {len({one.name for one in items})} videos")
    if task:
        path = out.with_suffix(".yaml")
        with beside(path) as part:
            part.write_text(task_of(benchmark, items, out), encoding="utf-8")
        typer.echo(
            f"{path}: the task {name_of(benchmark, items)}; lmms-eval finds it with --include_path {path.parent}"
        )


def ground(
    context: typer.Context,
    video: options.Video,
    event: options.Event,
    out: options.Strip = None,
    model: Model = TINY,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    max_frames: MaxFrames = 512,
    fps: Fps = None,
    num_frames: NumFrames = None,
    start: Start = None,
    end: End = None,
    policy: Policy = None,
    keep: Keep = None,
    keep_by: KeepBy = None,
    wording: options.Words = "question",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find when something happens: prints the interval in seconds, and writes a strip of pictures of it."""
    began = time.perf_counter()
    from .. import session
    from ..chat import Stopwatch, check_question
    from .ask import NEW_TOKENS
    from .ground import find, strip

    watch = Stopwatch({"load": time.perf_counter() - began})
    with errors.usage():
        sampling = session.sampling_of(max_frames, fps, num_frames, start, end, policy)
        manner = session.Manner(session.plan_of(keep, keep_by), {"max_new_tokens": NEW_TOKENS["interval"]})
    check_question(event)
    if out is not None:
        errors.check_target(out)
    source = session.open_source(video, sampling, watch)
    vc = session.load(model, revision, device, dtype, watch)
    with errors.usage():
        manner.check(vc)
    found = find(vc, source, event, wording, sampling, manner, watch, not (quiet or as_json))
    out = out or Path(f"{video.stem}-{found.start:g}-{found.end:g}.png")
    strip(found, out)
    if not as_json:
        typer.echo(f"{found.start:g} to {found.end:g} s; {out} shows it")
        return
    facts: dict[str, object] = {"event": event, "question": found.question, "answer": found.reply.text, "model": model}
    facts |= {"interval": [found.start, found.end], "strip": str(out)}
    facts |= session.sight_report(found.sight, source) | session.answer_report(vc, found.reply, manner)
    typer.echo(json.dumps(facts | session.cost_report(watch, began, device, context.obj), ensure_ascii=False))
