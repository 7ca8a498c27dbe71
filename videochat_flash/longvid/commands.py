"""vcflash longvid: build, its steps one by one, report. Whatever is heavy is imported inside the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import errors, show
from ..options import TINY, Device, Dtype, Json, MaxFrames, Model, Quiet, RayAddress, Revision
from . import options

if TYPE_CHECKING:
    from .settings import Setting
    from .steps import Where
    from .write import Written

app = typer.Typer(help="Build long-video instruction data: videos and what was said of them -> questions with answers.")
MISSING = "matplotlib is not installed: pip install 'videochat-flash[longvid]', or give --no-plots"


@app.command()
def build(
    config: options.Config = None,
    videos: options.Videos = None,
    out: options.Out = None,
    license: options.License = None,
    workers: options.Workers = None,
    max_failed: options.MaxFailed = None,
    ray_address: RayAddress = None,
    no_plots: options.NoPlots = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """All steps. Stopped at any moment, even by kill -9, the same command goes on where it was."""
    setting = _setting(config, videos, out, license, workers, max_failed)
    _check_plots(not no_plots)  # now, not after hours
    from . import pipeline

    where = _where(setting, ray_address)
    for name in pipeline.STEPS[:-1]:
        _run(name, setting, where, not (quiet or as_json))
    written = _write(setting)
    facts = _report(setting, written, not no_plots)
    _deliver(setting, written, not (quiet or as_json))
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    kept = {name: facts[name] for name in ("films", "copies", "hours", "questions", "words")}
    aside = {"kept aside": facts["kept_aside"]} if facts["kept_aside"] else {}
    show.print_facts(
        {**kept, **facts["families"], **aside, "records": written.records, "report": f"{setting.out}/report.md"}
    )


def _step(name: str, what: str) -> Callable[..., None]:
    """A command that runs one step."""

    def command(
        config: options.Config = None,
        videos: options.Videos = None,
        out: options.Out = None,
        license: options.License = None,
        workers: options.Workers = None,
        max_failed: options.MaxFailed = None,
        ray_address: RayAddress = None,
        as_json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        setting = _setting(config, videos, out, license, workers, max_failed)
        ran = _run(name, setting, _where(setting, ray_address), not (quiet or as_json))
        if as_json:
            typer.echo(json.dumps(ran, ensure_ascii=False))
        else:
            aside = ", ".join(f"{number} {kind}" for kind, number in ran["kinds"].items()) or "nothing"
            there = f"{ran['before']} were there, " if ran["before"] else ""
            made = f"{ran['films']} films of {ran['records']} records"
            typer.echo(f"{setting.out}/{name}.{setting.between}: {made}, {there}{aside} kept aside")

    command.__doc__ = what
    return command


for _name, _what in (
    ("scan", "What videos there are, what they hold, which look alike."),
    ("shots", "Where shots begin and end; annotations are taken in."),
    ("describe", "A caption for each shot, where an endpoint is named."),
    ("weave", "Notes -> one time line of events."),
    ("ask", "Questions with answers, by templates and by an endpoint."),
    ("sieve", "What may pass, and why the rest may not."),
):
    app.command(_name, help=f"Step: {_what}")(_step(_name, _what))


@app.command("write")
def write_set(
    config: options.Config = None,
    videos: options.Videos = None,
    out: options.Out = None,
    license: options.License = None,
    quiet: Quiet = False,
) -> None:
    """Step: the set in the layouts that trainers read, split by video, with its card."""
    from . import card
    from .report import facts_of

    setting = _setting(config, videos, out, license, None, None)
    written = _write(setting)
    written.files.append(card.save(setting, facts_of(Path(setting.out)), written))
    _deliver(setting, written, not quiet)
    for path in written.files:
        typer.echo(path)


@app.command()
def report(
    config: options.Config = None,
    videos: options.Videos = None,
    out: options.Out = None,
    no_plots: options.NoPlots = False,
    as_json: Json = False,
) -> None:
    """Counts, hours, words, durations, tasks and reasons: report.md and pictures."""
    facts = _report(_setting(config, videos, out, None, None, None), None, not no_plots)
    typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else facts["files"][0])


@app.command()
def proof(
    out: options.ProofOut,
    videos: options.Count = 50,
    minutes: options.Minutes = 2.0,
    haystack: options.Haystacks = None,
    fps: options.ShotFps = 1.0,
    needles: options.Needles = 5,
    seed: options.Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Render videos whose truth is known, build a set of them, and hold every answer against the truth."""
    from . import proof as room
    from .records import FAMILIES

    bars, plain = not (quiet or as_json), room.plain_ones(videos, needles)
    what = (out, videos, plain, round(60 * minutes), seed, haystack or [])
    room.begin(*what)
    with show.progress("rendering", bars) as told:
        room.corpus(*what, told)
    setting = room.setting_of(out, fps, plain)
    found = room.prove(setting, lambda name: show.progress(name, bars))
    fine = found.share >= room.LEAST and bool(found.asked)
    parts = {"of_annotations": found.of(set(FAMILIES) - set(room.CARDS)), "of_cards": found.of(room.CARDS)}
    facts = {
        "videos": videos + plain,
        "hours": round(found.seconds / 3600, 3),
        "asked": found.asked.total(),
        "right": found.right.total(),
        "share": found.share,
        **parts,
        "in_the_set": found.kept,
        "kinds": {name: [found.right[name], found.asked[name]] for name in sorted(found.asked)},
        **({"recipe": str(room.recipe(setting, out, round(60 * minutes)))} if fine else {}),
    }
    for path, question in found.wrong:
        typer.echo(show.one_line(f"wrong: {path} {question.family}.{question.kind}: {question.question}"), err=True)
        typer.echo(show.one_line(f"       {question.answer}"), err=True)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        kinds = {name: f"{found.right[name]} of {found.asked[name]}" for name in sorted(found.asked)}
        told_parts = {name: f"{right} of {asked}" for name, (right, asked) in parts.items()}
        show.print_facts({**facts, **told_parts, "kinds": len(kinds), **kinds})
    if not fine:
        raise typer.Exit(1)


@app.command()
def exam(
    built: options.Built,
    model: Model = TINY,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    max_frames: MaxFrames = 512,
    most: options.Most = 200,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask a model about the videos that were held out, with the video and without."""
    from itertools import islice

    from ..chat import VideoChatFlash
    from ..session import DTYPES
    from ..video import Sampling
    from . import exam as room

    asked = list(islice(room.held_out(built), most or None))
    with errors.usage():
        sampling = Sampling(max_frames=max_frames)
    vc = VideoChatFlash.from_pretrained(model, revision=revision, dtype=DTYPES[dtype], device=device)
    with show.progress("asking", not (quiet or as_json)) as told:
        scores = room.exam(vc, asked, sampling, lambda done: told(done, len(asked)))
    if as_json:
        typer.echo(json.dumps({"model": model, "families": {name: vars(one) for name, one in scores.items()}}))
        return
    for name, one in scores.items():
        shares = (f"{words} {100 * value / one.asked:.1f} %" for words, value in list(vars(one).items())[1:])
        typer.echo(f"{name}: {one.asked} asked, {', '.join(shares)}")


@app.command()
def simulate(
    out: options.SimulateOut,
    records: options.Records = 10_000,
    workers: options.Processes = 1,
    seed: options.Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Made-up records through all steps but decoding: seconds, memory and disk of each step."""
    from . import simulate as room

    facts = room.simulate(out, records, seed, workers, lambda name: show.progress(name, not (quiet or as_json)))
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, one in facts.items():
        count = f"{one['records']:,} -> {one['films']:,} in {one['seconds']:,.1f} s"
        memory = f"{one['begin_mb']:,.0f} MB held before, {one['most_mb']:,.0f} at most"
        typer.echo(f"{name}: {count}; {memory}; {one['disk_mb']:,.0f} MB on disk")


@app.command()
def plan(
    built: options.Built,
    hours: options.Hours = 300_000.0,
    cores: options.Cores = 1024,
    machine: options.PerMachine = 64,
    tokens_per_frame: options.PerFrame = 256,
    as_json: Json = False,
) -> None:
    """What so many hours would take, from what was measured when the set in DIR was built."""
    from . import plan as room
    from .settings import Describe

    describe = Describe()
    assumed = room.Assumed(hours, cores, machine, tokens_per_frame, describe.frames, describe.tokens)
    facts = room.plan(built, assumed)
    typer.echo(json.dumps(facts) if as_json else room.words(facts))


def _setting(
    config: Path | None,
    videos: str | None,
    out: str | None,
    license: str | None,
    workers: int | None,
    max_failed: float | None,
) -> Setting:
    """The file's setting, or the default one, with what was given besides. Paths to what is built are absolute."""
    from . import settings

    with errors.usage():
        if (config is None) == (videos is None):
            raise ValueError("give a CONFIG.toml, or --videos DIR and --out DIR")
        if config is None and out is None:
            raise ValueError("--videos needs --out, the folder to build in")
        if config and license:
            raise ValueError("--license is that of --videos: a CONFIG says it for each source")
        made = settings.load(config) if config else settings.default(str(videos), str(out), license or "unknown")
        given: dict[str, Any] = {"workers": workers, "max_failed": max_failed}
        given = {name: value for name, value in given.items() if value is not None}
        made = replace(made, **given, out=out or made.out)
        settings.check(made, str(config or "longvid"))
    return replace(made, out=str(Path(made.out).absolute()))


def _where(setting: Setting, ray_address: str | None) -> Where:
    """Workers of this machine, or of a Ray cluster."""
    if ray_address is None:
        from .workers import local

        return local(setting.workers)
    from .cluster import Cluster

    return Cluster(ray_address, setting.workers, Path(setting.out))


def _run(name: str, setting: Setting, where: Where, bars: bool) -> dict[str, Any]:
    from .pipeline import do

    with show.progress(name, bars) as told:
        return vars(do(name, setting, told, where))


def _check_plots(wanted: bool) -> None:
    """Raises ValueError where pictures are wanted and cannot be drawn."""
    if wanted and find_spec("matplotlib") is None:
        raise ValueError(MISSING)


def _write(setting: Setting) -> Written:
    from .pipeline import ready
    from .records import stored
    from .write import write

    ready("write", Path(setting.out))
    return write(setting, stored(Path(setting.out), "sieve"))


def _deliver(setting: Setting, written: Written, bars: bool) -> None:
    """Copy the set to where the setting wants it."""
    from .write import deliver

    if setting.write.to:
        with show.progress("copying", bars) as told:
            deliver(setting, written, told)


def _report(setting: Setting, written: Written | None, plots: bool) -> dict[str, Any]:
    from . import card, report
    from .pipeline import remembered

    out = Path(setting.out)
    facts = report.facts_of(out)
    files = report.texts(setting, facts, remembered(out), written)
    if written:
        written.files.append(card.save(setting, facts, written))
        files.append(written.files[-1])
    if plots:
        _check_plots(plots)
        from .plot import draw

        files += draw(facts, out)
    return {**report.totals(facts), "files": [str(path) for path in files]}
