"""The options of vcflash longvid, each said once. Their defaults stand in the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="A .toml file; or give --videos and --out.")]
Videos = Annotated[
    str | None,
    typer.Option(help="A folder of videos, or a bucket's URL, with annotations beside them if there are any."),
]
Out = Annotated[str | None, typer.Option(help="Folder of everything that is built; over the file's own.")]
License = Annotated[str | None, typer.Option(help="Of --videos, carried into every record; else: unknown.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; over the file's own.")]
MaxFailed = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share that may fail in a step; over the file's own.")
]
NoPlots = Annotated[bool, typer.Option("--no-plots", help="Only report.md, no pictures.")]
ProofOut = Annotated[Path, typer.Option("--out", help="Folder of the videos and of what is built from them.")]
Count = Annotated[int, typer.Option(min=1, help="Videos that are rendered.")]
Minutes = Annotated[
    float, typer.Option(min=0.5, max=15, help="That they last, on average: from a third of it to five thirds.")
]
Haystacks = Annotated[
    list[str] | None, typer.Option(help="A video to draw over, for every second one; may be repeated.")
]
ShotFps = Annotated[float, typer.Option(min=0, help="Frames a second that are looked at for shots; 0 finds none.")]
Needles = Annotated[
    int,
    typer.Option(
        min=0, help="For so many videos, one more shows nothing, and cards are hidden in its copy; 0 is none."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")]
Hours = Annotated[float, typer.Option(min=0, help="Of video that are planned for.")]
Cores = Annotated[int, typer.Option(min=1, help="That work at a time.")]
PerMachine = Annotated[int, typer.Option(min=1, help="Cores of a machine.")]
PerFrame = Annotated[int, typer.Option(min=1, help="Of a picture that an endpoint is shown, where none was asked.")]
Built = Annotated[Path, typer.Argument(metavar="DIR", help="Where a set was built.")]
Most = Annotated[int, typer.Option(min=0, help="Questions at most; 0 is all.")]
SimulateOut = Annotated[Path, typer.Option("--out", help="Folder of the steps' files.")]
Records = Annotated[int, typer.Option(min=1, help="Films that are made up.")]
Processes = Annotated[int, typer.Option("--workers", min=1, help="Processes.")]
