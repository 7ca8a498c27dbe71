"""vcflash: the command line. Whatever is heavy is imported inside the commands, so that help answers at once."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from . import __version__, errors, show
from .batch_command import batch
from .bench.commands import bench
from .eval.commands import evaluate, ground, rows
from .longvid.commands import app as longvid
from .needle_commands import app as synth
from .niah.commands import app as niah
from .options import (
    TINY,
    Device,
    Dtype,
    End,
    Evidence,
    Fps,
    Json,
    Keep,
    KeepBy,
    KvCacheDtype,
    MaxFrames,
    MaxNewTokens,
    Model,
    NumFrames,
    Penalty,
    Policy,
    Quantization,
    Quiet,
    Revision,
    SampledFrom,
    Seed,
    Start,
    Stop,
    SynthSeed,
    Temperature,
    TopK,
    TopP,
    VideoOrSight,
)
from .serve.command import serve

# Each of these caches of PyTorch keeps 1,024 CPU kernels, one for every shape, a megabyte or more apiece: gigabytes in
# a training, whose steps all have other lengths. Read when torch is imported.
KERNEL_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")

app = typer.Typer(
    help="Ask questions of videos of seconds to hours: VideoChat-Flash (arXiv 2501.00574).",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(synth, name="synth")
app.add_typer(niah, name="niah")
app.add_typer(longvid, name="longvid")
app.command()(bench)
app.command()(batch)
app.command()(serve)

# -- commands ----------------------------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version.")] = False,
) -> None:
    if version:
        print(f"vcflash {__version__}")
        raise typer.Exit


@app.command()
def ask(
    context: typer.Context,
    video: VideoOrSight,
    question: Annotated[str, typer.Argument(help="Any text.")],
    model: Model = TINY,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    kv_cache_dtype: KvCacheDtype = "auto",
    max_frames: MaxFrames = 512,
    fps: Fps = None,
    num_frames: NumFrames = None,
    start: Start = None,
    end: End = None,
    policy: Policy = None,
    frames: SampledFrom = "frames",
    keep: Keep = None,
    keep_by: KeepBy = None,
    seed: Seed = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: Penalty = None,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    evidence: Evidence = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer one question about a video."""
    began = time.perf_counter()
    from . import chat, session

    watch = chat.Stopwatch({"load": time.perf_counter() - began})
    with errors.usage():
        sampling = session.sampling_of(max_frames, fps, num_frames, start, end, policy)
        manner = session.manner_of(
            keep, keep_by, seed, temperature, top_p, top_k, repetition_penalty, max_new_tokens, stop
        )
        if evidence is not None and evidence.suffix != ".png":
            raise ValueError(f"{evidence} is not named .png: --evidence draws a PNG")
    chat.check_question(question)
    if evidence is not None:
        errors.check_target(evidence)
    source = session.open_source(video, sampling, watch, frames == "keyframes")
    vc = session.load(model, revision, device, dtype, watch, quantization, kv_cache_dtype)
    with errors.usage():
        manner.check(vc)
    bars = not (quiet or as_json)
    sight = session.see(vc, source, sampling, watch, bars)
    reply = session.say(vc, sight, question, manner, watch=watch, bars=bars, write=None if as_json else _write)
    print(end="" if as_json else "\n", flush=True)
    looked = session.draw_evidence(vc, sight, source, sampling, question, manner, evidence) if evidence else None
    if not as_json:
        return
    facts: dict[str, object] = {"answer": reply.text, "question": question, "model": model}
    facts |= {"evidence": looked.told()} if looked else {}
    facts |= session.sight_report(sight, source) | session.answer_report(vc, reply, manner)
    _print_json(facts | session.cost_report(watch, began, device, context.obj))


@app.command()
def chat(
    video: VideoOrSight,
    model: Model = TINY,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    kv_cache_dtype: KvCacheDtype = "auto",
    max_frames: MaxFrames = 512,
    fps: Fps = None,
    num_frames: NumFrames = None,
    start: Start = None,
    end: End = None,
    policy: Policy = None,
    frames: SampledFrom = "frames",
    keep: Keep = None,
    keep_by: KeepBy = None,
    seed: Seed = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: Penalty = None,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    quiet: Quiet = False,
) -> None:
    """Talk about a video that is seen once. An empty line, /quit or Ctrl-D ends it."""
    from . import session
    from .chat import Stopwatch
    from .prompt import Turn

    watch = Stopwatch()
    with errors.usage():
        sampling = session.sampling_of(max_frames, fps, num_frames, start, end, policy)
        manner = session.manner_of(
            keep, keep_by, seed, temperature, top_p, top_k, repetition_penalty, max_new_tokens, stop
        )
    source = session.open_source(video, sampling, watch, frames == "keyframes")
    vc = session.load(model, revision, device, dtype, watch, quantization, kv_cache_dtype)
    with errors.usage():
        manner.check(vc)
    sight = session.see(vc, source, sampling, watch, not quiet)
    prefix = session.ready(vc, sight, manner, not quiet)
    history: list[Turn] = []
    for question in _questions():
        try:
            reply = session.say(
                vc, sight, question, manner, history=history, bars=not quiet, write=_write, prefix=prefix
            )
        except ValueError as error:  # the next question may be a better one
            errors.complain("vcflash", error)
            continue
        print(flush=True)
        history += [Turn("user", question), Turn("assistant", reply.text)]


@app.command()
def see(
    context: typer.Context,
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video, picture or folder of pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to save the Sight, a .safetensors file.")],
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
    frames: SampledFrom = "frames",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """See a video once and save its visual tokens, to ask about later."""
    began = time.perf_counter()
    from . import session
    from .chat import Stopwatch

    watch = Stopwatch({"load": time.perf_counter() - began})
    with errors.usage():
        sampling = session.sampling_of(max_frames, fps, num_frames, start, end, policy)
        if out.suffix != ".safetensors":
            raise ValueError(f"{out} is not named .safetensors: ask and chat know a sight by that")
    errors.check_target(out)
    source = session.open_source(video, sampling, watch, frames == "keyframes")
    if source.is_sight:
        raise ValueError(f"{video} is a sight already: give a video")
    vc = session.load(model, revision, device, dtype, watch)
    sight = session.see(vc, source, sampling, watch, not (quiet or as_json))
    sight.save(out)
    facts = {"sight": str(out), "model": model, **session.sight_report(sight, source)}
    if as_json:
        _print_json(facts | session.cost_report(watch, began, device, context.obj))
    else:
        print(f"{out}: {sight.frames} frames as {facts['visual_tokens']} visual tokens")


@app.command()
def info(
    thing: Annotated[str, typer.Argument(metavar="THING", help="A model (name or folder), a video or a Sight.")],
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Tell what a model, a video or a Sight is; no weights are loaded."""
    from .facts import facts_of

    facts = facts_of(thing, revision)
    if as_json:
        _print_json(facts)
    else:
        show.print_facts({name: value for name, value in facts.items() if name != "keep"})


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A .bin, .pt, .pth or .ckpt file.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The .safetensors file to write.")],
) -> None:
    """Turn a pickled checkpoint into safetensors; no code in it runs."""
    from .convert import convert as to_safetensors

    made = to_safetensors(source, target)
    dropped = f"; not part of the model: {', '.join(made.dropped)}" if made.dropped else ""
    print(f"{made.path}: {made.tensors} tensors{dropped}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A .toml file, as those in recipes/.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would take.")] = False,
    check_data: Annotated[
        bool, typer.Option("--check-data", help="Only read every record, tell what is wrong.")
    ] = False,
    exam: Annotated[
        int, typer.Option(min=0, help="Only ask the trained model so many new conversations of each drawn source.")
    ] = 0,
    gpu: Annotated[
        str | None, typer.Option(help="That --dry-run reckons with: H200, H100, A100-80, L4, RTX 4090; else H100.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="How many --dry-run reckons with; else 1.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train by a recipe, or go on where it stopped. For many GPUs: torchrun -m videochat_flash.cli train RECIPE."""
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, "64")
    with errors.usage():
        if sum((dry_run, check_data, exam > 0)) > 1:
            raise ValueError("--dry-run, --check-data and --exam are each for themselves: name one")
        if not dry_run and (gpu, gpus) != (None, None):
            raise ValueError("--gpu and --gpus are what --dry-run reckons with: add it")
    try:
        from .train import command as room
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'videochat-flash[train]'") from None
    if dry_run:
        room.dry_run(recipe, changes or (), gpu or "H100", gpus or 1, as_json)
    elif check_data:
        if not room.check_data(recipe, changes or (), quiet, as_json):
            raise typer.Exit(1)
    elif exam:
        room.exam(recipe, changes or (), exam, quiet, as_json)
    else:
        room.run(recipe, changes or (), quiet, as_json)


@app.command()
def demo(
    video: Annotated[Path | None, typer.Option(help="Hide the needles in this video; else in a generated one.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the video, its truth and the contact sheet.")] = Path(
        "demo-out"
    ),
    seed: SynthSeed = 0,
    model: Model = TINY,
) -> None:
    """Make a video, ask three questions about it, and show answers, truth, sizes and times."""
    from . import demo as room

    room.run(video, out, seed, model)


app.command("eval")(evaluate)
app.command()(rows)
app.command()(ground)

# -- helpers -----------------------------------------------------------------------------------------------------------


def _questions() -> Iterator[str]:
    """Questions typed on a terminal, or the lines of a pipe."""
    terminal = sys.stdin.isatty()
    if terminal:
        with suppress(ImportError):
            import readline  # noqa: F401  gives input() its line editing
    while True:
        try:
            line = input("> " if terminal else "")
        except EOFError:
            if terminal:
                print()
            return
        if line.strip() in ("", "/quit"):
            return
        yield line


def _write(piece: str) -> None:
    print(piece, end="", flush=True)


def _print_json(facts: dict[str, object]) -> None:
    print(json.dumps(facts, ensure_ascii=False))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    quiet = bool({"-q", "--quiet"} & set(arguments))

    def call(notes: list[str]) -> object:
        return app(arguments or ["--help"], prog_name="vcflash", standalone_mode=False, obj=notes)

    return errors.ended("vcflash", call, quiet)


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
