"""``vcflash demo``: make a video, ask about it, and show answers beside the truth, sizes, and where the time went."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import grade, session, show
from .chat import Reply, Stopwatch, VideoChatFlash
from .files import beside
from .needle import PROCEDURAL, Made, make_needle
from .sheet import contact_sheet
from .sight import Sight
from .synth import Question
from .video import Sampling, decode, plan, probe

FRAMES = 64  # one a second
KINDS = ("character", "motion", "colour")  # of the three questions
THUMB = 224  # pixels that the contact sheet's pictures are decoded to


@dataclass(frozen=True)
class Asked:
    """A question, what the model said, and whether that is the truth."""

    question: Question
    reply: Reply

    @property
    def right(self) -> bool:
        """Word for word, or what stands behind its last colon."""
        return grade.right(self.reply.text, self.question.answer)


def run(video: Path | None, out: Path, seed: int, model: str, frames: int = FRAMES) -> list[Asked]:
    """Write needle.mp4, truth.json and contact-sheet.png to ``out``, ask three questions and tell all about it.

    Args:
        video: a video to hide the needles in; None generates one.
        out: a folder; made where there is none.
        seed: of video and questions.
        model: who answers.
        frames: of the video, one a second.
    """
    began, watch = time.perf_counter(), Stopwatch()
    out.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else show.WIDE)
    with watch.stage("render"):
        film, truth = out / "needle.mp4", out / "truth.json"
        made = make_needle(video or PROCEDURAL, frames, len(KINDS), seed, film, truth, kinds=KINDS)
    _tell_video(console, made, video, frames)
    vc = session.load(model, None, "cpu", "auto", watch)
    sampling = Sampling(max_frames=frames)
    source = session.open_source(film, sampling, watch)
    sight = session.see(vc, source, sampling, watch)
    with watch.stage("contact sheet"):
        _contact_sheet(film, out / "contact-sheet.png", sampling)
    console.print(f"{out / 'contact-sheet.png'} shows the frames that the model saw\n")
    asked = []
    for question in made.questions:
        console.print(f"Q  {question.question}")
        reply = session.say(vc, sight, question.question, session.Manner(), watch=watch)
        asked.append(Asked(question, reply))
        _tell_answer(console, asked[-1])
    right = sum(one.right for one in asked)
    console.print(f"{right} of {len(asked)} right\n")
    console.print(_compression(vc, sight, asked[-1].reply))
    console.print(_times({**watch.seconds, "total": time.perf_counter() - began}))
    return asked


def _tell_video(console: Console, made: Made, video: Path | None, frames: int) -> None:
    cards, movers = len(made.scene.cards), len(made.scene.movers)
    stack = f"frames of {video}" if video else "generated frames"
    console.print(
        f"{made.video}: {frames} {stack}, {made.size[0]}x{made.size[1]}, one a second; "
        f"{cards} cards and {movers} moving shapes are hidden in it"
    )
    console.print(f"{made.truth}: three questions with their answers")


def _tell_answer(console: Console, asked: Asked) -> None:
    first, last = asked.question.seconds
    verdict = Text("right", "bold green") if asked.right else Text("wrong", "bold red")
    console.print(f"A  {show.one_line(asked.reply.text)}")
    console.print(f"   truth: {asked.question.answer} (shown from {first:.1f} to {last:.1f} s):", verdict, "\n")


def _contact_sheet(film: Path, path: Path, sampling: Sampling) -> None:
    info = probe(film)
    chosen = plan(info, sampling)
    (frames,) = decode(info, chosen, THUMB, chunk=len(chosen.frames))
    sheet = contact_sheet(frames, aspect=info.width / info.height)
    with beside(path) as part:
        sheet.save(part, "PNG")


def _compression(vc: VideoChatFlash, sight: Sight, reply: Reply) -> Table:
    """What was compressed to what."""
    config = vc.model.config
    patches = sight.frames * config.vision.patches
    visual = sight.tokens.shape[0] * sight.tokens.shape[1]
    rows = [
        ("patches of the tower", patches, f"{config.vision.patches} a frame"),
        ("visual tokens", visual, f"{config.tokens_per_frame} a frame, merged within each clip"),
    ]
    for layers, count in _kept(reply.visual):
        rows.append((f"read by {_span(layers)}", count, "after dropout" if count < visual else "all"))
    table = Table("what", "tokens", "how", "of the patches", title="What was compressed to what", title_justify="left")
    table.columns[1].justify = table.columns[3].justify = "right"
    table.add_row("frames seen", f"{sight.frames:,}", f"{sight.duration:g} s", "")
    for what, count, how in rows:
        table.add_row(what, f"{count:,}", how, f"1/{patches / max(count, 1):.2f}")
    return table


def _kept(visual: Sequence[int]) -> list[tuple[list[int], int]]:
    """Layers in a row that hold as many visual tokens."""
    return [([i for i, _ in run], count) for count, run in groupby(enumerate(visual), key=lambda item: item[1])]


def _span(layers: Sequence[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"


def _times(seconds: dict[str, float]) -> Table:
    table = Table("stage", "seconds", title="Where the time went", title_justify="left")
    table.columns[1].justify = "right"
    for name, spent in seconds.items():
        table.add_row(name, f"{spent:.2f}", end_section=name == list(seconds)[-2])
    return table
