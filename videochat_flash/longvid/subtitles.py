"""SRT, WebVTT and chapter marks -> cues."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
ARROW = re.compile(rf"^\s*{CLOCK}\s*-->\s*{CLOCK}")
CHAPTER = re.compile(rf"^\s*\[?\(?{CLOCK}\)?\]?\s*[-\u2013\u2014:|]*\s*(\S.*)$")
TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")


@dataclass(frozen=True)
class Cue:
    """A stretch of text; ``line`` is where it stands in the file. ``end`` is None for a mark without one."""

    line: int
    start: float
    end: float | None
    text: str


def cues(text: str) -> Iterator[Cue]:
    """The cues of an SRT or WebVTT file, in its order: whatever has a line of two times is one, and nothing else.

    An empty line ends a cue; one of spaces does not, which rolling subtitles have above their first words.
    """
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        found = ARROW.match(lines[number])
        number += 1
        if not found:
            continue
        begin = number
        while number < len(lines) and lines[number] and not ARROW.match(lines[number]):
            number += 1
        said = " ".join(lines[begin:number])
        if number < len(lines) and ARROW.match(lines[number]) and lines[number - 1].strip().isdecimal():
            said = " ".join(lines[begin : number - 1])  # the next cue's number, with no empty line before it
        groups = found.groups()
        yield Cue(begin, seconds(groups[:4]), seconds(groups[4:]), html.unescape(TAG.sub("", said)))


def chapters(text: str) -> Iterator[Cue]:
    """Lines such as ``1:02:30 The bridge``, as descriptions of videos have them."""
    for number, line in enumerate(text.splitlines(), 1):
        found = CHAPTER.match(line)
        if found and "-->" not in line:
            yield Cue(number, seconds(found.groups()[:4]), None, found.group(5))


def seconds(clock: tuple[str | None, ...]) -> float:
    """Hours, minutes, seconds and their fraction."""
    hours, minutes, whole, part = clock
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(whole or 0) + float(f"0.{part or 0}")
