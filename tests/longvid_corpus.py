"""Small videos with annotations in every layout, and faults among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from videochat_flash.longvid.records import Event, Film, Note, Video
from videochat_flash.mp4 import write

SECONDS = 60
ACTS = (
    "A woman opens the red door.",
    "A man cuts the onion on a board.",
    "A dog runs across the grass.",
    "A child throws the blue ball.",
    "A man cuts the onion on a board.",
    "A train leaves the station.",
)


def film(path: Path, seed: int, seconds: int = SECONDS, scenes: int = 6, crf: int = 18, side: int = 16) -> Path:
    """A video of one frame a second whose scenes are random mosaics."""
    rng = np.random.default_rng(seed)
    looks = [rng.integers(0, 256, (9, 12, 3)).astype(np.uint8) for _ in range(scenes)]
    shown = (looks[i * scenes // seconds].repeat(side, 0).repeat(side, 1) for i in range(seconds))
    write(path, shown, 1.0, crf=crf)
    return path


def captions(path: Path, name: str, acts: Sequence[str] = ACTS) -> Path:
    """Dense captions in ActivityNet's layout, one each ten seconds."""
    times = [[10.0 * i, 10.0 * i + 10] for i in range(len(acts))]
    entry = {"duration": 10.0 * len(acts), "timestamps": times, "sentences": list(acts)}
    path.write_text(json.dumps({name: entry}), encoding="utf-8")
    return path


def corpus(folder: Path, count: int = 3) -> Path:
    """Videos with captions beside them."""
    folder.mkdir(parents=True)
    for number in range(count):
        film(folder / f"film{number}.mp4", number)
        turned = ACTS[number % 6 :] + ACTS[: number % 6]
        captions(folder / f"film{number}.json", f"film{number}", turned)
    return folder


def video(duration: float = 60.0, **more: object) -> Video:
    """A video that nobody opens."""
    values: dict[str, object] = {"key": "0" * 32, "path": "films/some.mp4", "source": "films", "license": "CC0"}
    values |= {"kind": "video", "duration": duration, "fps": 1.0, "frames": int(duration), "height": 9, "width": 16}
    return Video(**(values | more))  # type: ignore[arg-type]


def told(*acts: tuple[float, float, str], duration: float = 60.0, sort: str = "seen") -> Film:
    """A film with a time line of these events."""
    notes = tuple(
        Note(start, end, "caption", text, f"made.json: entry {i}") for i, (start, end, text) in enumerate(acts)
    )
    events = tuple(Event(one.start, one.end, one.text, sort, (i,)) for i, one in enumerate(notes))  # type: ignore[arg-type]
    return Film(video(duration), notes, events)
