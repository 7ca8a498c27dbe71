"""The options of vcflash eval and vcflash ground, each said once. Their defaults stand in the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_HOW, _SCORE = "How it is asked", "How it is scored"
Rows = Annotated[Path, typer.Argument(metavar="FILE", help="A JSONL file, one question in each line.")]
Out = Annotated[Path, typer.Option(help="Folder for results and report; a run that was stopped goes on there.")]
Words = Annotated[
    Literal["full", "question", "paper"],
    typer.Option(
        "--prompt",
        help="With letters and the form of the answer; the question alone (flash-tiny knows no other); "
        "or in the reference's words.",
        rich_help_panel=_HOW,
    ),
]
NewTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens of an answer at most; else by kind.", rich_help_panel=_HOW)
]
NoBlind = Annotated[
    bool, typer.Option("--no-blind", help="Do not ask everything without the video as well.", rich_help_panel=_HOW)
]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask the first rows only.", rich_help_panel=_HOW)]
Name = Literal[
    "mvbench",
    "perception-test",
    "longvideobench",
    "mlvu",
    "video-mme",
    "lvbench",
    "charades-sta",
    "videoeval-pro",
    "videoeval-pro-open",
    "vdc",
]
Benchmark = Annotated[Name, typer.Argument(metavar="BENCHMARK", help="As mvbench; another name lists them all.")]
Annotations = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Its annotations: .json, .jsonl, .parquet.")]
Videos = Annotated[Path, typer.Option(help="Folder of its videos, anywhere below which each is found by its name.")]
Subtitles = Annotated[Path | None, typer.Option(help="Folder of its subtitles; they are left out where none is named.")]
Task = Annotated[bool, typer.Option("--task", help="Write a task of lmms-eval beside the file of rows, too.")]
RowsOut = Annotated[Path, typer.Option("--out", "-o", help="The JSONL file to write.")]
Bench = Annotated[
    Name,
    typer.Option(help="Whose wording --prompt paper is, and whose reading 'reference' scores.", rich_help_panel=_HOW),
]
Against = Annotated[
    Path | None, typer.Option(help="Compare with the run in this folder, question by question.", rich_help_panel=_SCORE)
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Score without rows that are wrong or failed.", rich_help_panel=_SCORE)
]
ScoreOnly = Annotated[
    bool, typer.Option("--score-only", help="Ask nothing: score what is there.", rich_help_panel=_SCORE)
]
Video = Annotated[Path, typer.Argument(metavar="VIDEO", help="A video, or a folder of pictures.")]
Event = Annotated[str, typer.Argument(metavar="EVENT", help="What is looked for, as 'the red star'; or a question.")]
Strip = Annotated[
    Path | None, typer.Option("--out", "-o", help="The PNG of the clip; else named after the video and the interval.")
]
