"""Reads an interval of time out of an answer, in whatever form people and models write one; nothing is guessed.

``2.5 - 7``, ``from 2.5 to 7 seconds``, ``2.5s–7s``, ``between 2 and 7 s``, ``[2.5, 7]``, ``1:02 - 1:20.5``,
``0:01:02 to 0:01:20``, ``1 min 2 s to 1 min 20 s``, ``1 minute 2 to 1 minute 20 seconds``,
``starts at 2.5 s and ends at 7 s``, ``{"start": 2.5, "end": 7}``.
flash-tiny is taught one of them, ``From 12 to 15 seconds.``
"""

from __future__ import annotations

import re
import unicodedata

Interval = tuple[float, float]  # seconds

_NUMBER = r"\d+(?:\.\d+)?"
_HOURS, _MINUTES, _SECONDS = (
    rf"\s*(?:{words})(?![a-z])" for words in ("hours?|hrs?|h", "minutes?|mins?|m", "seconds?|seonds|secs?|s")
)  # "seonds" stands in the published prompt, and models repeat it
_CLOCK = r"(?:\d+:)?\d+:[0-5]\d(?:\.\d+)?"
_NEXT = r"\s*(?:,\s*)?(?:and\s+)?"
_H, _HM = rf"(?:{_NUMBER}{_HOURS}{_NEXT})?", rf"(?:{_NUMBER}{_HOURS}{_NEXT})?(?:{_NUMBER}{_MINUTES}{_NEXT})?"
_UNITS = rf"{_HM}{_NUMBER}{_SECONDS}|{_H}{_NUMBER}{_MINUTES}|{_NUMBER}{_HOURS}"
_CLOSED = re.compile(r"\s*(?:$|[.,;!?)\]}\"'*`]|and\b|or\b)")  # what may follow numbers that name no unit
_LARGE = rf"(?:{_H}{_NUMBER}{_MINUTES}|{_NUMBER}{_HOURS})"
_BARE = rf"{_LARGE}(?:\s+and)?\s*{_NUMBER}(?={_CLOSED.pattern})"  # 1 minute 5: of the next smaller unit
_TIME = rf"(?:{_CLOCK}|{_BARE}|{_UNITS}|{_NUMBER})"
_FIRST = rf"(?:{_LARGE}{_NEXT}{_NUMBER}|{_TIME})"  # a second time follows, not what the number could be one of
_BEFORE, _AFTER = r"(?<![\w.:])(?<!\d,)", r"(?![\w:]|[.,]\d)"
_DASH = r"\s*[-\u2010-\u2015\u2212~]\s*|\s+(?:to|until|till)\s+"
_SPANS = (
    re.compile(rf"{_BEFORE}({_FIRST})(?:{_DASH})({_TIME}){_AFTER}", re.IGNORECASE),
    re.compile(rf"\bbetween\s+({_FIRST})\s+and\s+({_TIME}){_AFTER}", re.IGNORECASE),
    re.compile(rf"[\[(]\s*({_TIME})\s*[,;]\s*({_TIME})\s*[\])]", re.IGNORECASE),
)
_STARTS, _ENDS = (
    re.compile(rf"\b(?:{words})[a-z_]*[^\d.;!?\n]{{0,24}}?{_BEFORE}({_TIME}){_AFTER}", re.IGNORECASE)
    for words in ("start|begin", "end|stop|finish")
)
_MARKED = re.compile(rf"({_NUMBER})(\s*[)\]}}\"'*`]+)({_HOURS}|{_MINUTES}|{_SECONDS})", re.IGNORECASE)
_PART = re.compile(rf"({_NUMBER})\s*([hms]?)", re.IGNORECASE)
_WORTH = {"h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}


def interval(text: str) -> Interval | None:
    """The one interval that a text states, in seconds; None where it states none, or several that differ.

    Numbers without a unit count where nothing else follows that they could be a number of: ``2 - 3`` at the end of a
    sentence does, ``2-3 people`` does not. An interval that ends before it starts, or as it starts, is none.
    """
    text = _MARKED.sub(r"\1\3\2", unicodedata.normalize("NFKC", text))  # ``[1, 2] minutes``
    pairs = [(found[1], found[2]) for form in _SPANS for found in form.finditer(text) if _is_time(found)]
    if not pairs:
        starts, ends = ({found[1] for found in form.finditer(text) if _is_time(found)} for form in (_STARTS, _ENDS))
        pairs = [(start, end) for start in starts for end in ends]
    stated = {_read(*pair) for pair in pairs}
    if len(stated) != 1:
        return None
    [(start, end)] = stated
    return (start, end) if start < end else None


def _is_time(found: re.Match[str]) -> bool:
    """Whether what was found has a unit or a clock's colon, or nothing behind it that it could be a number of."""
    return _has_unit("".join(found.groups())) or _CLOSED.match(found.string, found.end()) is not None


def _has_unit(words: str) -> bool:
    return re.search(r"[a-z:]", words, re.IGNORECASE) is not None


def _read(start: str, end: str) -> Interval:
    """``1`` and ``2 minutes`` are both minutes."""
    unit = re.fullmatch(rf"{_NUMBER}({_MINUTES}|{_HOURS})", end, re.IGNORECASE)
    return _seconds(start + unit[1] if unit and not _has_unit(start) else start), _seconds(end)


def _seconds(words: str) -> float:
    if ":" in words:
        total = 0.0
        for part in words.split(":"):
            total = total * 60 + float(part)
        return total
    parts = [(float(number), unit.lower()) for number, unit in _PART.findall(words)]
    if len(parts) > 1 and not parts[-1][1]:
        parts[-1] = (parts[-1][0], {"h": "m", "m": "s"}[parts[-2][1]])
    return sum(number * _WORTH[unit] for number, unit in parts)
