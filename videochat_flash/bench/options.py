"""The options of vcflash bench, each said once. Their defaults stand in the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_WHAT, _HOW, _TELL = "What is measured", "How it is measured", "What is told"
Video = Annotated[
    Path | None, typer.Option(help="A file to read; else frames are drawn, and none is decoded.", rich_help_panel=_WHAT)
]
Frames = Annotated[
    str | None,
    typer.Option(
        help="Whole clips of 4 of them; several numbers as 256,1024. If not said 256; each of --compare has its own.",
        rich_help_panel=_WHAT,
    ),
]
Size = Annotated[str, typer.Option(help="Of drawn frames.", rich_help_panel=_WHAT)]
Model = Annotated[
    str,
    typer.Option(help="flash-tiny (built in), a released name, umt-qwen-eighth, or a folder.", rich_help_panel=_WHAT),
]
Random = Annotated[
    bool, typer.Option("--random-weights", help="Draw the weights: nothing is fetched.", rich_help_panel=_WHAT)
]
ImageSize = Annotated[
    int | None, typer.Option(help="Pixels of a side that the tower sees; else the model's.", rich_help_panel=_WHAT)
]
Tokens = Annotated[int, typer.Option("--max-new-tokens", help="Generated after a prompt.", rich_help_panel=_HOW)]
Repeats = Annotated[int, typer.Option(help="Rounds that count.", rich_help_panel=_HOW)]
Warmup = Annotated[int, typer.Option(help="Rounds before them that do not.", rich_help_panel=_HOW)]
Whole = Annotated[
    bool,
    typer.Option("--whole/--no-whole", help="After the stages all of it in one call, too.", rich_help_panel=_HOW),
]
Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:1, mps; with --plan also H200, H100, A100-80, L4, RTX 4090.", rich_help_panel=_HOW
    ),
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Compute instead of run, and say whether it fits.", rich_help_panel=_HOW)
]
Share = Annotated[
    float, typer.Option(help="Of --plan: share of its peaks that a device reaches.", rich_help_panel=_HOW)
]
Compare = Annotated[
    str | None,
    typer.Option(
        help="Instead of stages, hold one way against another, in turn: seeing (with a float32 tower, clip by clip), "
        "prefill (with no dropout), asking (with asking again), reading (with plain libraries); several as "
        "seeing,prefill, or all.",
        rich_help_panel=_HOW,
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder for bench.json, bench.md and bench.png.", rich_help_panel=_TELL)]
Write = Annotated[
    Path | None,
    typer.Option(
        help="A Markdown file to put the tables in, in place of what the same command wrote of the same files before.",
        rich_help_panel=_TELL,
    ),
]
