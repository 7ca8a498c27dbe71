"""What another number of hours would take, from what a build took: machines, hours, disk, an endpoint's tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bucket import is_url
from .answers import FOLDER as RESPONSES
from .hide import COPIES
from .pipeline import STEPS, remembered
from .records import read_films, read_videos, stored
from .report import table
from .steps import JOURNAL, LINE
from .write import FOLDER as DATASET

WORDS = 100  # tokens of a prompt beside its pictures, where no response tells


@dataclass(frozen=True)
class Assumed:
    """What cannot be measured on this machine.

    Attributes:
        hours: of video that are planned for.
        cores: that work at a time.
        machine: cores of a machine.
        tokens_per_frame: of a picture that is sent to the endpoint.
        frames: of a shot that are sent.
        caption: tokens of a caption.
    """

    hours: float
    cores: int
    machine: int
    tokens_per_frame: int
    frames: int
    caption: int


def plan(built: Path, assumed: Assumed) -> dict[str, Any]:
    """The plan as JSON.

    Args:
        built: where a set was built, every step of it from the beginning to the end in one run.
        assumed: the rest.

    Raises:
        FileNotFoundError: no step has run.
        ValueError: a step was not run from its beginning, so that its cost is not known.
    """
    state = remembered(built)
    measured = sum(video.duration for video in read_videos(stored(built, "scan"))) / 3600
    costs = dict(_costs(built, state, measured))
    if untold := [name for name in STEPS[:-1] if name not in costs]:  # a sum without them would pass for all
        told = f"{', '.join(untold)} did not run from beginning to end in one run"
        raise ValueError(f"{built}: {told}, so that their cost is not known: build anew in an empty folder")
    shots = sum(note.kind == "shot" for film in read_films(stored(built, "shots")) for note in film.notes)
    tokens = _tokens(built)
    asked, prompt, reply = tokens.pop("captions")
    if not asked:
        prompt, reply = assumed.frames * assumed.tokens_per_frame + WORDS, assumed.caption
    many = assumed.hours / measured
    return {
        "measured_hours": round(measured, 3),
        "hours": assumed.hours,
        "cores": assumed.cores,
        "machines": -(-assumed.cores // assumed.machine),
        "steps": {
            name: {
                "core_seconds_per_hour": round(seconds, 3),
                "core_hours": round(seconds * assumed.hours / 3600, 1),
                "days": round(seconds * assumed.hours / 3600 / assumed.cores / 24, 2),
                "gigabytes": round(size * assumed.hours / 1e9, 2),
            }
            for name, (seconds, size) in costs.items()
        },
        "storage": {name: round(size * many / 1e9, 2) for name, size in _storage(built)},
        "other_tokens": {
            name: [round(count * many * mean) for mean in means] for name, (count, *means) in tokens.items() if count
        },
        "captions": {
            "shots": round(shots * many),
            "measured": asked,
            "prompt_tokens": round(shots * many * prompt),
            "reply_tokens": round(shots * many * reply),
        },
    }


def _costs(built: Path, state: Mapping[str, Any], hours: float) -> Iterator[tuple[str, tuple[float, float]]]:
    """For each step that was run whole: core seconds and bytes for an hour of video."""
    for name in STEPS[:-1]:
        one = state.get(name)
        if one and not one["before"] and hours:
            files = (stored(built, name), built / JOURNAL / f"{name}.jsonl")
            size = sum(path.stat().st_size for path in files if path.is_file())
            yield name, ((one["cpu"] or one["seconds"] * one["workers"]) / hours, size / hours)


def _storage(built: Path) -> Iterator[tuple[str, int]]:
    """Bytes on disk beside the steps' records: local videos, copies with hidden cards, responses, the written set."""
    places = [Path(video.path) for video in read_videos(stored(built, "scan")) if not is_url(video.path)]
    yield "videos", sum(_size(path) for path in places)
    for name in (COPIES, RESPONSES, DATASET):
        yield name, _size(built / name)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where there is nothing any more."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.stat().st_size for one in files if one.is_file())


def _tokens(built: Path) -> dict[str, tuple[int, float, float]]:
    """For captions, questions and blind answers: how many an endpoint gave, and the tokens of prompt and reply, on
    average, as it counted them."""
    sums = {name: [0, 0, 0] for name in ("captions", "questions", "blind")}
    for path in sorted((built / "responses").glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                told = LINE.match(line)  # half a line of a run that was killed is none
                if told is None or told["failed"] == b"true":
                    continue
                one = json.loads(line)
                usage, what = json.loads(one["response"]).get("usage") or {}, one["asked"]["what"]
                if usage.get("prompt_tokens"):
                    held = sums["captions" if "start" in what else "blind" if "blind" in what else "questions"]
                    for place, number in enumerate((1, usage["prompt_tokens"], usage.get("completion_tokens") or 0)):
                        held[place] += number
    return {
        name: (count, prompt / max(1, count), reply / max(1, count)) for name, (count, prompt, reply) in sums.items()
    }


def words(facts: Mapping[str, Any]) -> str:
    """The plan as Markdown."""
    rows = [
        (
            name,
            f"{one['core_seconds_per_hour']:,.2f}",
            f"{one['core_hours']:,.0f}",
            f"{one['days']:,.1f}",
            f"{one['gigabytes']:,.1f}",
        )
        for name, one in facts["steps"].items()
    ]
    total = [sum(one[key] for one in facts["steps"].values()) for key in ("core_hours", "days", "gigabytes")]
    rows.append(("all", "", f"{total[0]:,.0f}", f"{total[1]:,.1f}", f"{total[2]:,.1f}"))
    days = f"days on {facts['cores']:,} cores"
    head = ("step", "core seconds an hour of video", "core hours", days, "GB of records")
    captions = facts["captions"]
    stored_too = ", ".join(f"{name} {size:,.1f}" for name, size in facts["storage"].items())
    others = "".join(
        f" {name.capitalize()}: {prompt:,} tokens in, {reply:,} out, as responses tell."
        for name, (prompt, reply) in facts["other_tokens"].items()
    )
    known = f"as {captions['measured']:,} responses tell" if captions["measured"] else "assumed"
    return "\n".join(
        [
            f"# {facts['hours']:,g} hours of video, from what {facts['measured_hours']:,g} hours took",
            "",
            f"{facts['cores']:,} cores are {facts['machines']:,} machines.",
            "",
            *table(head, rows),
            "",
            f"Captions of all {captions['shots']:,} shots by an endpoint: {captions['prompt_tokens']:,} tokens in, "
            f"{captions['reply_tokens']:,} out ({known}).{others}",
            "",
            f"Beside the records, in GB, as far as they are there now: {stored_too}. The videos are read twice (scan, "
            "shots) and not copied, unless WebDataset shards are written.",
            "",
        ]
    )
