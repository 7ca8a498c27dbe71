"""The options that several commands share, each said once. Their defaults stand in the commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer


def known_device(device: str) -> str:
    """The device; BadParameter for a name of none. Whether it is there is asked of torch, once that is loaded."""
    if not re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", device):
        raise typer.BadParameter(f"device {device!r} is not known: use cpu, cuda, cuda:N or mps")
    return device


def typed(context: typer.Context) -> dict[str, str]:
    """Parameters that were given, and how each was written."""
    found = {}
    for option in context.command.params:
        name = str(option.name)
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            found[name] = option.secondary_opts[0] if context.params[name] is False else option.opts[0]
    return found


TINY = "flash-tiny"  # the built-in model
_LOOK, _SAY, _LOAD, _TELL = "Which frames", "How it answers", "Which model", "What is told"
VideoOrSight = Annotated[
    Path, typer.Argument(metavar="VIDEO", help="A video, picture, folder of pictures, or a Sight.")
]
Model = Annotated[str, typer.Option(help="flash-tiny (built in), a released name, or a folder.", rich_help_panel=_LOAD)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a released model.", rich_help_panel=_LOAD)]
Device = Annotated[str, typer.Option(callback=known_device, help="cpu, cuda, cuda:1, mps.", rich_help_panel=_LOAD)]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        help="Of the weights; auto: as stored, on a CPU float32 but for towers that suit it.", rich_help_panel=_LOAD
    ),
]
Quantization = Annotated[
    Literal["int8"] | None,
    typer.Option(
        help="The decoder's weights as int8: half of bfloat16's memory, a small error. vcflash bench tells both.",
        rich_help_panel=_LOAD,
    ),
]
KvCacheDtype = Annotated[
    Literal["auto", "fp8"],
    typer.Option(
        help="fp8: keys and values in half the memory, a small error; auto: as computed.", rich_help_panel=_LOAD
    ),
]
MaxFrames = Annotated[int, typer.Option(help="Frames at most, in whole clips of 4.", rich_help_panel=_LOOK)]
Fps = Annotated[float | None, typer.Option(help="Take so many frames a second.", rich_help_panel=_LOOK)]
NumFrames = Annotated[int | None, typer.Option(help="Take so many frames in all.", rich_help_panel=_LOOK)]
Start = Annotated[float | None, typer.Option(help="Look from this second on.", rich_help_panel=_LOOK)]
End = Annotated[float | None, typer.Option(help="Look up to this second.", rich_help_panel=_LOOK)]
Policy = Annotated[
    Literal["paper", "reference"] | None,
    typer.Option(help="How many, by duration: as in the paper, or as the authors' code.", rich_help_panel=_LOOK),
]
SampledFrom = Annotated[
    Literal["frames", "keyframes"],
    typer.Option(
        "--sampling", help="keyframes: these alone, for films that take long to decode.", rich_help_panel=_LOOK
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        help="Dropout of visual tokens, layer:share, as 4:0.75,18:0.25; or off. Else the model's own.",
        rich_help_panel=_SAY,
    ),
]
KeepBy = Annotated[
    Literal["uniform", "attention", "uniform0_attention", "uniform1_attention"] | None,
    typer.Option(help="What chooses them (with --keep); attention if not said.", rich_help_panel=_SAY),
]
Seed = Annotated[int | None, typer.Option(help="Of drawn tokens.", rich_help_panel=_SAY)]
Temperature = Annotated[float | None, typer.Option(help="0 takes the likeliest token.", rich_help_panel=_SAY)]
TopP = Annotated[float | None, typer.Option(help="Draw from this share of probability.", rich_help_panel=_SAY)]
TopK = Annotated[int | None, typer.Option(help="Draw from so many tokens; 0 is all.", rich_help_panel=_SAY)]
Penalty = Annotated[float | None, typer.Option(help="Above 1, what was said is less likely.", rich_help_panel=_SAY)]
MaxNewTokens = Annotated[int | None, typer.Option(help="Tokens of an answer at most.", rich_help_panel=_SAY)]
Stop = Annotated[
    list[str] | None, typer.Option(help="A text that ends the answer; may be repeated.", rich_help_panel=_SAY)
]
Evidence = Annotated[
    Path | None,
    typer.Option(
        help="Draw when in the video the model looked, as a PNG; --json tells it, too.", rich_help_panel=_TELL
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_TELL)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.", rich_help_panel=_TELL)]
RayAddress = Annotated[
    str | None, typer.Option(help="Work on a Ray cluster: its address, or: local. Paths must be the same everywhere.")
]
SynthSeed = Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")]
