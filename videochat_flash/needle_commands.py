"""vcflash synth: test videos and cards whose answers are known. Whatever is heavy is imported inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import errors, show
from .options import Quiet, SynthSeed

app = typer.Typer(help="Make test videos whose answers are known.")


@app.command()
def needle(
    out: Annotated[Path, typer.Option(help="The mp4 to write.")],
    haystack: Annotated[str, typer.Option(help="A video to hide things in, or: procedural.")] = "procedural",
    frames: Annotated[int, typer.Option(min=1, help="Frames of the video.")] = 64,
    questions: Annotated[int, typer.Option(min=1, help="Questions to ask.")] = 12,
    seed: SynthSeed = 0,
    truth: Annotated[Path | None, typer.Option(help="The JSON to write; else beside the mp4.")] = None,
    kinds: Annotated[str | None, typer.Option(help="Of questions, as character,colour,shape,motion.")] = None,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 1.0,
    size: Annotated[str | None, typer.Option(help="As 640x360; else the haystack's own.")] = None,
    quiet: Quiet = False,
) -> None:
    """Hide cards and movers in a video, with questions and their true answers."""
    from . import needle as maker

    truth = truth or out.with_suffix(".json")
    with errors.usage():
        asked = maker.parse_kinds(kinds) if kinds is not None else maker.KINDS
        shape = maker.parse_size(size) if size is not None else None
        if truth.absolute() == out.absolute():
            raise ValueError(f"{out} cannot be the video and its truth: name another --truth")
    errors.check_target(out)
    errors.check_target(truth)
    with show.progress("drawing", not quiet) as told:
        made = maker.make_needle(
            haystack, frames, questions, seed, out, truth, kinds=asked, fps=fps, size=shape, told=told
        )
    cards, movers = len(made.scene.cards), len(made.scene.movers)
    typer.echo(
        f"{out}: {frames} frames with {cards} cards and {movers} movers; {truth}: {len(made.questions)} questions"
    )


@app.command()
def suite(
    out: Annotated[Path, typer.Option(help="Folder for the videos and suite.jsonl.")],
    haystack: Annotated[str, typer.Option(help="A video to hide things in, or: procedural.")] = "procedural",
    videos: Annotated[int, typer.Option(min=1, help="How many; every second one holds chains.")] = 8,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each.")] = 64,
    seed: SynthSeed = 0,
    quiet: Quiet = False,
) -> None:
    """Make videos with a file of questions about them, for vcflash eval."""
    from .eval.synthetic import write_suite

    with show.progress("drawing", not quiet) as told:
        made = write_suite(out, haystack, videos, frames, seed, told)
    typer.echo(f"{made.file}: {made.questions} questions about {made.videos} videos")


@app.command()
def card(
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    colour: Annotated[str | None, typer.Option(help="As red; else random.")] = None,
    shape: Annotated[str | None, typer.Option(help="As star; else random.")] = None,
    character: Annotated[str | None, typer.Option(help="A digit or a letter; else random.")] = None,
    seed: SynthSeed = 0,
    size: Annotated[int, typer.Option(help="Pixels of a side.")] = 448,
) -> None:
    """Draw one card."""
    from . import needle as maker

    with errors.usage():
        made, image = maker.make_card(colour, shape, character, seed, size)
    errors.check_target(out)
    maker.save_png(image, out)
    typer.echo(f"{out}: {made.colour} {made.shape} with {made.character}")
