"""vcflash batch. Whatever is heavy is imported inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import errors, show
from .options import (
    TINY,
    Device,
    Dtype,
    End,
    Fps,
    Keep,
    KeepBy,
    MaxFrames,
    MaxNewTokens,
    Model,
    NumFrames,
    Penalty,
    Policy,
    Quiet,
    Revision,
    Seed,
    Start,
    Stop,
    Temperature,
    TopK,
    TopP,
)

In = Annotated[
    Path, typer.Argument(metavar="IN.jsonl", help="Lines with id, video, question; start and end in seconds if wanted.")
]
Out = Annotated[
    Path, typer.Argument(metavar="OUT.jsonl", help="Lines with id and answer, or error; what is there stays.")
]
Root = Annotated[Path, typer.Option(help="Folder that videos are named from.")]
Retry = Annotated[bool, typer.Option("--retry", help="Ask again what has failed before.")]


def batch(
    rows: In,
    out: Out,
    root: Root = Path(),
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
    seed: Seed = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: Penalty = None,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    retry: Retry = False,
    quiet: Quiet = False,
) -> None:
    """Answer many questions about many videos. Stopped at any moment, the same command goes on."""
    from . import batch as room
    from . import session
    from .chat import Stopwatch

    chosen = {"seed": seed, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    chosen |= {"repetition_penalty": repetition_penalty, "max_new_tokens": max_new_tokens}
    with errors.usage():
        sampling = session.sampling_of(max_frames, fps, num_frames, start, end, policy)
        changes = {name: value for name, value in chosen.items() if value is not None}
        manner = session.Manner(session.plan_of(keep, keep_by), changes, stop or ())
    asked = room.read_rows(rows)
    errors.check_target(out)
    with room.results(out, retry) as (file, done):
        left = [row for row in asked if row.id not in done]
        failed = 0
        if left:
            vc = session.load(model, revision, device, dtype, Stopwatch())
            with errors.usage():
                manner.check(vc)
            with show.progress("answering", not quiet) as told:
                failed = room.answer_all(vc, left, file, root, sampling, manner, told)
    typer.echo(f"{out}: {len(left) - failed} answered, {failed} failed, {len(asked) - len(left)} were there")
    if failed:
        raise typer.Exit(1)
