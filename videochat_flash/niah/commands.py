"""vcflash niah: build, run, score, plot, verify. Whatever is heavy is imported inside the commands."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from .. import errors, show
from ..options import TINY, Device, Dtype, Json, Keep, KeepBy, MaxNewTokens, Model, Quiet, Revision, SynthSeed, typed
from . import options

if TYPE_CHECKING:
    from .ask import Ours
    from .endpoint import Endpoint
    from .suite import Suite

app = typer.Typer(help="Needle in a video haystack: how far into a long video a model finds what is hidden there.")


@app.command()
def build(
    context: typer.Context,
    out: options.Out,
    haystack: options.Haystacks = None,
    join: options.Join = False,
    fps: options.Fps = 1.0,
    size: options.Size = None,
    allow_repeat: options.AllowRepeat = False,
    lengths: options.Lengths = "64",
    depths: options.Depths = "0,0.2,0.4,0.6,0.8,1",
    item_count: options.Items = 20,
    hops: options.Hops = "none",
    decoys: options.Decoys = 1,
    hold: options.Hold = 4,
    align: options.Align = "clip",
    needles: options.Needles = None,
    images: options.Images = None,
    way: options.Ask = None,
    rotations: options.Rotations = 1,
    controls: options.Controls = 8,
    compat: options.Compat = False,
    no_duplicate: options.NoDuplicate = False,
    seed: SynthSeed = 0,
    quiet: Quiet = False,
) -> None:
    """Write a suite: every trial with its film, question and answer. Needs no model."""
    from ..needle import PROCEDURAL
    from .build import build as make
    from .suite import Setting

    names = tuple(one if one == PROCEDURAL else str(Path(one).resolve()) for one in haystack or [PROCEDURAL])
    with errors.usage():
        _check_listed(typed(context))
        setting = Setting(
            mode="compat" if compat else "strict",
            haystacks=(names,) if join else tuple((name,) for name in names),
            lengths=tuple(sorted(set(_numbers("--lengths", lengths, int)))),
            depths=tuple(sorted(set(_numbers("--depths", depths, float)))),
            items=item_count,
            hops=tuple(sorted(set(_numbers("--hops", hops, int)))),
            decoys=decoys,
            hold=hold,
            align=align,
            way=way or ("letters" if needles else "words"),
            rotations=rotations,
            controls=controls,
            fps=fps,
            size=_size(size),
            seed=seed,
            allow_repeat=allow_repeat,
            duplicate=not no_duplicate,
            needles=str(needles) if needles else "",
            images=str(images) if images else "",
        )
    with show.progress("looking", not quiet) as told:
        made = make(out, setting, told)
    grid = sum(not trial.control for trial in made.trials)
    typer.echo(f"{out}: {grid} trials and {len(made.trials) - grid} of controls")


@app.command()
def run(
    folder: options.Folder,
    model: Model = TINY,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    keep: Keep = None,
    keep_by: KeepBy = None,
    yarn: options.Yarn = None,
    max_new_tokens: MaxNewTokens = None,
    pixels: options.Pixels = False,
    no_share: options.NoShare = False,
    endpoint: options.Url = None,
    send: options.Send = "video",
    stamps: options.Stamps = False,
    timeout: options.Timeout = 120.0,
    retries: options.Retries = 3,
    no_delivery_check: options.NoCheck = False,
    trained: options.Trained = None,
    shard: options.Part = "1/1",
    name: options.Name = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer every trial that has no answer yet. Stopped at any moment, the same command goes on."""
    from .ask import limits
    from .results import Shard
    from .run import claim
    from .run import run as answer
    from .suite import load_suite

    with errors.usage():
        part, where = Shard.parse(shard), _run_folder(folder, name)
        limits(max_new_tokens)
        ours = {"revision": revision, "keep": keep, "keep-by": keep_by, "yarn": yarn, "pixels": pixels}
        ours |= {"no-share": no_share, "device": device != "cpu", "dtype": dtype != "auto"}
        theirs = {"send": send != "video", "stamps": stamps, "timeout": timeout != 120.0, "retries": retries != 3}
        _of_one_alone(endpoint, ours, {**theirs, "no-delivery-check": no_delivery_check})
    suite, bars = load_suite(folder), not (quiet or as_json)
    with show.progress("seeing", bars) as seeing:
        if endpoint is not None:
            asker: Ours | Endpoint = _endpoint(
                suite, endpoint, model, send, timeout, retries, stamps, no_delivery_check, max_new_tokens
            )
        else:
            asker = _ours(
                suite, model, revision, device, dtype, keep, keep_by, yarn, pixels, not no_share, max_new_tokens, seeing
            )
        asker.facts = {**asker.facts, "trained": trained}
        if claim(suite, where, asker, part) and not (endpoint is not None and no_delivery_check):
            asker.ready()
    with show.progress("asking", bars) as told:
        ran = answer(suite, where, asker, part, told)
    if as_json:
        typer.echo(json.dumps(vars(ran)))
    else:
        typer.echo(f"{where}: {ran.answered} answers, {ran.before} were there, {ran.failed} of {ran.trials} failed")
    if ran.failed:
        raise ValueError(f"{ran.failed} trials failed and are not scored: the same command tries them again")


@app.command()
def score(
    folder: options.Folder,
    name: options.Name = "",
    against: options.Against = None,
    as_json: Json = False,
) -> None:
    """Write summary.json and report.md, and tell the main figures."""
    from ..files import beside
    from .report import percent, report

    where = _run_folder(folder, name)
    facts = _summary(folder, name, against)
    for file, text in (
        ("summary.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n"),
        ("report.md", report(facts)),
    ):
        with beside(where / file) as part:
            part.write_text(text, encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    counts, controls = facts["counts"]["grid"], facts["counts"]["controls"]
    told = {"accuracy": percent(facts["accuracy"]), "answered": counts["answered"], "trials": counts["trials"]}
    told |= {key: counts[key] for key in ("errors", "missing", "unparsed", "empty") if counts[key]}
    if controls["trials"]:
        told["controls"] = f"{controls['answered']} of {controls['trials']} answered"
    if facts["incomplete"]:
        told["cells without answers"] = facts["incomplete"]
    show.print_facts({**told, "report": str(where / "report.md")})


@app.command()
def plot(folder: options.Folder, name: options.Name = "") -> None:
    """Draw heat maps as PNG and SVG."""
    try:
        from .plot import draw
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{str(error.name).partition('.')[0]} is not installed: pip install 'videochat-flash[niah]'"
        ) from None
    for path in draw(_summary(folder, name, None), _run_folder(folder, name)):
        typer.echo(path)


@app.command()
def verify(folder: options.Folder, name: options.Name = "", as_json: Json = False) -> None:
    """Check a suite, its needles and haystacks, and what was answered so far."""
    from ..journal import read_run
    from .results import files_of, read_results
    from .suite import load_suite
    from .suite import verify as check

    suite = load_suite(folder)
    wrong = list(check(suite))
    where = _run_folder(folder, name)
    records = read_results(suite, where, read_run(where)["run"]) if files_of(where) else {}
    answered = sum(one.status == "ok" for one in records.values())
    facts = {"trials": len(suite.trials), "answered": answered, "failed": len(records) - answered, "wrong": wrong}
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        for words in wrong:
            typer.echo(show.one_line(words))
        show.print_facts({**facts, "wrong": len(wrong)})
    if wrong:
        raise typer.Exit(1)


def _check_listed(given: Mapping[str, str]) -> None:
    """Raises ValueError for what changes nothing with a list of needles, or without one."""
    if "images" in given and "needles" not in given:
        raise ValueError("--images is where the pictures of --needles lie: name these, too")
    for name in ("item_count", "decoys"):
        if name in given and "needles" in given:
            raise ValueError(f"{given[name]} is of what is drawn, --needles brings its own: leave out {given[name]}")


def _numbers(option: str, text: str, kind: type[Any]) -> list[Any]:
    """A list such as 64,256; ``none`` is empty."""
    if text == "none":
        return []
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} {text!r} is not a list of numbers, as 1,2,3") from None


def _size(text: str | None) -> tuple[int, int] | None:
    from ..needle import SMALLEST, parse_size

    size = parse_size(text) if text is not None else None
    if size and min(size) < SMALLEST:
        raise ValueError(f"--size {text}: nothing can be read on less than {SMALLEST} pixels")
    return size


def _of_one_alone(endpoint: str | None, ours: Mapping[str, object], theirs: Mapping[str, object]) -> None:
    """Raises ValueError for options of a model in this process where there is an endpoint, and the other way round."""
    named = ", ".join(f"--{name}" for name, value in (theirs if endpoint is None else ours).items() if value)
    if named and endpoint is None:
        raise ValueError(f"{named}: of an endpoint: name one with --endpoint")
    if named:
        raise ValueError(f"{named}: of a model in this process, which --endpoint is not")


def _run_folder(folder: Path, name: str) -> Path:
    if Path(name).name != name or name in ("..", "cache"):
        raise errors.Misuse(f"--name {name!r} is not a plain name")
    return folder / name if name else folder


def _summary(folder: Path, name: str, against: str | None) -> dict[str, Any]:
    from ..journal import read_run
    from .results import read_results
    from .score import compared, summary
    from .suite import load_suite
    from .verdicts import scored

    suite = load_suite(folder)
    where = _run_folder(folder, name)
    run = read_run(where, "run the suite first with 'vcflash niah run'")
    records = read_results(suite, where, run["run"])
    facts = summary(suite, records, run)
    if against is not None:
        beyond = _run_folder(folder, against)
        other = read_results(suite, beyond, read_run(beyond)["run"])
        told = compared(scored(suite, records), scored(suite, other), suite.setting.seed)
        facts["against"] = {"name": against or "the unnamed run", "parts": told}
    if facts["counts"]["errors"] or facts["counts"]["missing"]:
        counts = facts["counts"]
        warnings.warn(
            f"{counts['errors']} trials failed and {counts['missing']} were not run: not scored", stacklevel=2
        )
    return facts


def _ours(
    suite: Suite,
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    keep: str | None,
    keep_by: str | None,
    yarn: float | None,
    pixels: bool,
    share: bool,
    limit: int | None,
    told: show.Told,
) -> Ours:
    from ..config import check_plan
    from ..session import DTYPES, plan_of
    from .ask import Loading, Ours, load
    from .place import length_of

    with errors.usage():
        plan = plan_of(keep, keep_by)
    how = Loading(model, revision, device, DTYPES[dtype], yarn)
    vc = load(how)
    with errors.usage():
        check_plan(plan or (), vc.model.config.llm)
        asker = Ours(vc, how, suite, plan, pixels, told, share, limit)
    longest, window = max((length_of(one.film) for one in suite.trials), default=0), asker.facts["window"]
    if isinstance(window, int) and longest > window:
        text = f"films of {longest} frames are beyond the {window} that the model's positions were made for"
        warnings.warn(text, stacklevel=2)
    return asker


def _endpoint(
    suite: Suite,
    url: str,
    model: str,
    send: Literal["video", "frames"],
    timeout: float,
    retries: int,
    stamps: bool,
    unchecked: bool,
    limit: int | None,
) -> Endpoint:
    from .endpoint import Endpoint, Line

    with errors.usage():
        line = Line(url, model, send, timeout, retries, stamps=stamps)
    return Endpoint(line, suite, limit, unchecked)
