"""The options of vcflash niah, each said once. Their defaults stand in the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_WHAT, _HOW, _FROM, _OVER = "What is hidden", "How it is asked", "Where it is hidden", "Of endpoints"
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A suite, as build makes it.")]
Out = Annotated[Path, typer.Option(help="Folder of the suite.")]
Haystacks = Annotated[
    list[str] | None, typer.Option(help="A video, or: procedural; may be repeated.", rich_help_panel=_FROM)
]
Join = Annotated[
    bool, typer.Option("--join", help="One haystack out of all videos, not one of each.", rich_help_panel=_FROM)
]
Fps = Annotated[float, typer.Option(help="Frames a second taken of videos.", rich_help_panel=_FROM)]
Size = Annotated[str | None, typer.Option(help="As 640x360; else the haystack's.", rich_help_panel=_FROM)]
AllowRepeat = Annotated[
    bool, typer.Option("--allow-repeat", help="A short haystack begins anew.", rich_help_panel=_FROM)
]
Lengths = Annotated[str, typer.Option(help="Frames of films, needles included.", rich_help_panel=_WHAT)]
Depths = Annotated[str, typer.Option(help="Of single needles, 0 to 1; or: none.", rich_help_panel=_WHAT)]
Items = Annotated[
    int, typer.Option("--items", help="Needles; and chains for each number of hops.", rich_help_panel=_WHAT)
]
Hops = Annotated[str, typer.Option(help="Of chains, 0 to 4, as 1,2,3; or: none.", rich_help_panel=_WHAT)]
Decoys = Annotated[int, typer.Option(help="Other chains in a film, 0 to 2.", rich_help_panel=_WHAT)]
Hold = Annotated[int, typer.Option(help="Frames that a needle is shown for.", rich_help_panel=_WHAT)]
Align = Annotated[
    Literal["clip", "frame"], typer.Option(help="Needles between clips, or anywhere.", rich_help_panel=_WHAT)
]
Needles = Annotated[Path | None, typer.Option(help="A JSON list of needles, own or official.", rich_help_panel=_WHAT)]
Images = Annotated[Path | None, typer.Option(help="Folder of its images; else the list's own.", rich_help_panel=_WHAT)]
Ask = Annotated[
    Literal["words", "letters"] | None,
    typer.Option(
        "--ask",
        help="For words (flash-tiny knows no letters) or letters; else letters with --needles, words without.",
        rich_help_panel=_HOW,
    ),
]
Rotations = Annotated[int, typer.Option(help="Turns of the options, 1 to 4; each is asked.", rich_help_panel=_HOW)]
Controls = Annotated[int, typer.Option(help="Items for each control; 0 is none.", rich_help_panel=_HOW)]
Compat = Annotated[
    bool, typer.Option("--compat", help="As the reference does it; needs --needles.", rich_help_panel=_HOW)
]
NoDuplicate = Annotated[bool, typer.Option("--no-duplicate", help="Of --compat: no frame twice.", rich_help_panel=_HOW)]
Yarn = Annotated[float | None, typer.Option(help="YaRN factor instead of the model's own.")]
Pixels = Annotated[bool, typer.Option("--pixels", help="Every film through an mp4: slow, the same.")]
NoShare = Annotated[bool, typer.Option("--no-share", help="Every film from its start: slower, less memory.")]
Trained = Annotated[int | None, typer.Option(help="Frames that the model was trained to; a line in plots.")]
Part = Annotated[str, typer.Option(help="A part of the trials, as 1/4.")]
Name = Annotated[str, typer.Option(help="Of a run, where a suite is run more than once: its results go to DIR/NAME.")]
Against = Annotated[str | None, typer.Option(help="Compare with the run of this name.")]
Url = Annotated[
    str | None,
    typer.Option(help="Ask this URL (with /v1) instead; --model names its model.", rich_help_panel=_OVER),
]
Send = Annotated[Literal["video", "frames"], typer.Option(help="An mp4, or pictures.", rich_help_panel=_OVER)]
Stamps = Annotated[
    bool, typer.Option("--stamps", help="Of --send frames: the second before each.", rich_help_panel=_OVER)
]
Timeout = Annotated[float, typer.Option(help="Seconds without a word from it.", rich_help_panel=_OVER)]
Retries = Annotated[int, typer.Option(help="How often it is asked again after a failure.", rich_help_panel=_OVER)]
NoCheck = Annotated[
    bool, typer.Option("--no-delivery-check", help="Run though frames may be lost.", rich_help_panel=_OVER)
]
