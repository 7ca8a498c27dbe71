"""Which subtitles the reference puts into a prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FRAMES = 512  # that times are taken of, in LongVideoBench
SHORTEST = 1.0  # seconds; shorter lines are widened
WHITE = re.compile(r'<font color="white" size="\.72c">(.*?)</font>')  # what Video-MME's files are written in


@dataclass(frozen=True)
class Line:
    """What is said from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    text: str


def read_lines(path: Path) -> list[Line]:
    """A LongVideoBench file: a JSON list of {timestamp, text} or of {start, end, line}.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"subtitles {path} are missing")
    try:
        return [_line(one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no subtitles ({type(error).__name__}: {error})") from None


def _line(values: Mapping[str, Any]) -> Line:
    if "timestamp" in values:
        start, end = values["timestamp"]
        return Line(float(start), float(end), str(values["text"]))
    return Line(_seconds(str(values["start"])), _seconds(str(values["end"])), str(values["line"]))


def _seconds(clock: str) -> float:
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total


def shown(lines: Sequence[Line], duration: float, begin: float) -> Iterator[str]:
    """LongVideoBench: the lines during which a frame is taken.

    Frames are thought of at every whole second, or at 512 even times of a longer video; a line of less than a second
    is widened to one around its middle.

    Args:
        lines: of the whole film.
        duration: of the video, in seconds.
        begin: where in the film it begins.
    """
    step = duration / FRAMES if duration > FRAMES else 1.0
    count = FRAMES if duration > FRAMES else int(duration)
    times = [begin + i * step for i in range(count)]
    for line in lines:
        start, end = line.start, line.end
        if end - start < SHORTEST:
            middle = (start + end) / 2
            start, end = middle - SHORTEST / 2, middle + SHORTEST / 2
        if any(start < one < end for one in times):
            yield line.text


def white_lines(text: str) -> list[str]:
    """Video-MME: what is written in its one font in an .srt file; lines in any other way are not read."""
    return WHITE.findall(text)
