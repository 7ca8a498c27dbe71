"""vcflash batch. Whatever is heavy is imported inside."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    RayAddress,
    Revision,
    Seed,
    Start,
    Stop,
    Temperature,
    TopK,
    TopP,
)

if TYPE_CHECKING:
    from .batch import How, Line, Row

In = Annotated[
    Path, typer.Argument(metavar="IN.jsonl", help="Lines with id, video, question; start and end in seconds if wanted.")
]
Out = Annotated[
    Path,
    typer.Argument(metavar="OUT.jsonl", help="Lines with id and answer, or error, and model; what is there stays."),
]
Root = Annotated[Path, typer.Option(help="Folder that videos are named from.")]
Workers = Annotated[int | None, typer.Option(min=1, help="With --ray-address: processes, each with a model; 2.")]
WORKERS = 2
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
    ray_address: RayAddress = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Answer many questions about many videos. Stopped at any moment, the same command goes on."""
    from . import batch as room
    from . import session

    with errors.usage():
        sampling = session.sampling_of(max_frames, fps, num_frames, start, end, policy)
        manner = session.manner_of(
            keep, keep_by, seed, temperature, top_p, top_k, repetition_penalty, max_new_tokens, stop
        )
        if ray_address is None and workers is not None:
            raise ValueError("--workers are processes on Ray: name --ray-address, too")
        if ray_address is not None and device.startswith("cuda:"):
            raise ValueError("on Ray each worker has a GPU of its own: say --device cuda")
    how = room.How(root.absolute(), sampling, manner)
    loading = {"model": model, "revision": revision, "device": device, "dtype": dtype}
    asked = room.read_rows(rows)
    errors.check_target(out)
    marks = room.marks_of(asked, how)
    with room.results(out, retry, model, marks) as (log, done, missed):
        left = [row for row in asked if row.id not in done | missed]
        before = sum(row.id in missed for row in asked)
        failed = 0
        if left:
            with (
                _answering(left, how, loading, ray_address, workers or WORKERS) as lines,
                show.progress("answering", not quiet) as told,
            ):
                failed = room.write_all(lines, log, len(left), told, model, marks)
    there = f"{len(asked) - len(left)} were there" + (f", {before} of them failed (--retry)" if before else "")
    typer.echo(f"{out}: {len(left) - failed} answered, {failed} failed, {there}")
    if failed or before:
        raise typer.Exit(1)


@contextmanager
def _answering(
    rows: Sequence[Row], how: How, loading: Mapping[str, str | None], address: str | None, workers: int
) -> Iterator[Iterator[Line]]:
    """Lines of rows, made in this process or on a cluster."""
    from . import session
    from .batch import answers, grouped
    from .chat import Stopwatch

    if address is None:
        vc = session.load(**loading, watch=Stopwatch())  # type: ignore[arg-type]
        with errors.usage():
            how.manner.check(vc)
        yield (line for group in grouped(rows) for line in answers(vc, group, how))
        return
    from .batch_cluster import answered, start
    from .cluster import join, share

    workers = min(workers, len(grouped(rows)))
    cpus = share(address, workers)
    ray = join(address, workers * cpus, workers if loading["device"] == "cuda" else 0)
    with redirect_stdout(sys.stderr):  # where Ray tells of processes that died
        try:
            yield answered(ray, start(ray, workers, cpus, loading, how), rows)
        finally:
            ray.shutdown()
