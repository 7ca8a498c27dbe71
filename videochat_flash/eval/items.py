"""Questions from a JSONL file, and everything that is wrong with its rows: told row by row, never guessed around."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from ..grade import LETTERS
from ..journal import digest
from ..times import Interval

FIELDS = (
    *("id", "video", "question", "options", "answer", "reference", "interval", "judge"),
    *("group", "start", "end", "subtitles", "meta"),
)
NO_OPTION, NO_JUDGE = "answer not among options", "no judge"  # kinds of flaws
MOST_QUESTION = 50_000  # characters; a model refuses more
Kind = Literal["choice", "reference", "interval", "judged"]


@dataclass(frozen=True)
class Item:
    """One question about a video.

    Attributes:
        id: of the row.
        name: the video as the row names it.
        video: where it is.
        question: its text.
        options: the texts of the options, where it has some.
        answer: index of the right option.
        references: texts that are right, where it has no options.
        interval: the seconds that are asked for, where it is about those.
        judged: questions with their right answers, by which a judge holds what was said against the truth.
        groups: its labels, one or several on each axis.
        start: the second at which the model begins to look; None is the beginning.
        end: the second at which it stops; None is the end.
        subtitles: what is said, a line each, for the prompt; None where nobody knows, "" where nothing is.
    """

    id: str
    name: str
    video: Path
    question: str
    options: tuple[str, ...] = ()
    answer: int = 0
    references: tuple[str, ...] = ()
    interval: Interval | None = None
    judged: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    start: float | None = None
    end: float | None = None
    subtitles: str | None = None

    @property
    def kind(self) -> Kind:
        """How it is scored."""
        if self.judged:
            return "judged"
        return "choice" if self.options else "reference" if self.references else "interval"

    @property
    def mark(self) -> str:
        """Digest of all that an answer depends on; the truth may be corrected without asking again."""
        asked = (self.name, self.question, self.options, self.kind, self.start, self.end, self.subtitles)
        return digest(asked)[:16]

    @property
    def look(self) -> tuple[Path, float | None, float | None]:
        """What the model sees: questions that share it are asked together."""
        return self.video, self.start, self.end


@dataclass(frozen=True)
class Flaw:
    """A row that cannot be asked.

    Attributes:
        line: in the file, from 1.
        id: the row's, as far as it has one.
        kind: what is wrong, for counting.
        text: what is wrong, in words.
    """

    line: int
    id: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}{f' (id {self.id!r})' if self.id else ''}: {self.text}"


class Wrong(ValueError):
    """What is wrong with a row, and its kind, for counting."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def read_items(path: Path, judge: bool = False) -> tuple[list[Item], list[Flaw]]:
    """All rows of a JSONL file that can be asked, and all others with what is wrong with them.

    Videos are looked for beside the file, unless their paths are absolute. Empty lines are no rows.

    Args:
        path: of the file.
        judge: whether there is one, for the rows that need it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without rows, or one that is not text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name a JSONL file of questions")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
    items, flaws = [], []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row: Mapping[str, Any] = {}
        try:
            row = _row(line)
            item = item_of(row, path.parent)
            if not item.video.exists():
                raise Wrong("missing video", f"its video {item.video} is missing")
            if item.judged and not judge:
                raise Wrong(NO_JUDGE, "its answers need a judge: its task of lmms-eval asks one")
            if item.id in seen:
                raise Wrong("duplicated id", f"its id is that of line {seen[item.id]}, too")
            seen[item.id] = number
            items.append(item)
        except Wrong as error:
            name = row.get("id", "")
            flaws.append(Flaw(number, name if isinstance(name, str) else "", error.kind, str(error)))
    if not items and not flaws:
        raise ValueError(f"{path} has no rows: one JSON object on each line is needed")
    return items, flaws


def counted(flaws: Sequence[Flaw]) -> str:
    """How many rows have what wrong with them, as ``2 missing video, 1 wrong field``."""
    return ", ".join(f"{number} {kind}" for kind, number in Counter(one.kind for one in flaws).most_common())


def _row(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Wrong("not JSON", f"it is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise Wrong("not JSON", "it is not a JSON object")
    if any("\ud800" <= one <= "\udfff" for one in json.dumps(row, ensure_ascii=False)):  # it could not be written down
        raise Wrong("wrong field", "a text of it holds half a character")
    return row


def item_of(row: Mapping[str, Any], folder: Path) -> Item:
    """A row as an item; whether its video is there is not looked at.

    Args:
        row: as JSON has it.
        folder: that its video is looked for in.

    Raises:
        Wrong: a row that cannot be asked.
    """
    for name in row:
        if name not in FIELDS:
            near = get_close_matches(name, FIELDS, 1)
            hint = f"is {near[0]!r} meant? " if near else ""
            raise Wrong("wrong field", f"field {name!r} is not known: {hint}further facts go into 'meta'")
    name, question = _text(row, "video"), _text(row, "question")
    if len(question) > MOST_QUESTION:
        raise Wrong("wrong field", f"the question has {len(question)} characters, more than {MOST_QUESTION}")
    options, answer, references, interval, judged = _truth(row)
    start, end = _window(row)
    subtitles = row.get("subtitles")
    if subtitles is not None and not isinstance(subtitles, str):
        raise Wrong("wrong field", f"'subtitles' must be a text, a line each, not {subtitles!r}")
    return Item(
        _text(row, "id"),
        name,
        folder / name,
        question,
        options,
        answer,
        references,
        interval,
        judged,
        tuple(_groups(row.get("group"))),
        start,
        end,
        subtitles,
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Wrong("wrong field", f"{name!r} must be a text, not {value!r}")
    return value


Truth = tuple[tuple[str, ...], int, tuple[str, ...], Interval | None, tuple[tuple[str, str], ...]]


def _truth(row: Mapping[str, Any]) -> Truth:
    """Options with the answer's index, references, an interval, or what a judge asks: exactly one of these."""
    given = [name for name in ("options", "reference", "interval", "judge") if row.get(name) is not None]
    if len(given) != 1:
        told = " and ".join(given) or "none"
        raise Wrong("wrong field", f"one of 'options', 'reference', 'interval' and 'judge' is needed, there is {told}")
    if given == ["options"]:
        return *_options(row), (), None, ()
    if "answer" in row:
        raise Wrong("wrong field", f"'answer' is the letter of an option, and there are none beside {given[0]!r}")
    if given == ["interval"]:
        return (), 0, (), _interval(row["interval"]), ()
    if given == ["judge"]:
        return (), 0, (), None, _judged(row["judge"])
    words = row["reference"]
    references = [words] if isinstance(words, str) else words
    if not isinstance(references, list) or not all(isinstance(one, str) and one.strip() for one in references):
        raise Wrong("wrong field", f"'reference' must be a text, or a list of them, not {words!r}")
    if not references:
        raise Wrong("wrong field", "'reference' is an empty list")
    return (), 0, tuple(references), None, ()


def _judged(value: object) -> tuple[tuple[str, str], ...]:
    pairs = value if isinstance(value, list) else []
    whole = [one for one in pairs if isinstance(one, dict) and set(one) >= {"question", "answer"}]
    told = tuple((one["question"], one["answer"]) for one in whole)
    words = [isinstance(one, str) and one.strip() for pair in told for one in pair]
    if not told or len(told) != len(pairs) or not all(words):
        raise Wrong("wrong field", f"'judge' must be a list of questions with their answers, not {value!r}")
    return told


def _options(row: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    options, answer = row["options"], row.get("answer")
    if not isinstance(options, list) or not all(isinstance(one, str) and one.strip() for one in options):
        raise Wrong("wrong field", f"'options' must be a list of texts, not {options!r}")
    if not 1 <= len(options) <= len(LETTERS):
        raise Wrong("wrong field", f"there must be 1 to {len(LETTERS)} options, not {len(options)}")
    letters = LETTERS[: len(options)]
    if not isinstance(answer, str) or len(answer) != 1 or answer not in letters:
        text = f"answer {answer!r} is not among its options: give a letter from A to {letters[-1]}"
        raise Wrong(NO_OPTION, text)
    return tuple(options), letters.index(answer)


def _interval(value: object) -> Interval:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_second(one) for one in value):
        raise Wrong("wrong interval", f"'interval' must be [start, end] in seconds, not {value!r}")
    start, end = map(float, value)
    if not 0 <= start < end:
        raise Wrong("wrong interval", f"'interval' [{start:g}, {end:g}] does not end after it starts, at 0 or later")
    return start, end


def _window(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    start, end = row.get("start"), row.get("end")
    if not all(one is None or _is_second(one) for one in (start, end)):
        raise Wrong("wrong field", f"'start' and 'end' must be seconds, not {start!r} and {end!r}")
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise Wrong("wrong field", f"'end' {end} must come after 'start' {start or 0}, and that at 0 or later")
    return None if start is None else float(start), None if end is None else float(end)


def _is_second(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _groups(value: object) -> Iterator[tuple[str, tuple[str, ...]]]:
    """``group`` as a text, or as labels on several axes: ``{"duration": "short", "ability": ["reasoning"]}``."""
    if value is None:
        return
    axes = {"group": value} if isinstance(value, str) else value
    if not isinstance(axes, dict):
        raise Wrong("wrong field", f"'group' must be a text, or an object of texts, not {value!r}")
    for axis, labels in axes.items():
        listed = [labels] if isinstance(labels, str) else labels
        if not isinstance(listed, list) or not listed or not all(isinstance(one, str) and one for one in listed):
            raise Wrong("wrong field", f"'group' {axis!r} must be a text, or a list of them, not {labels!r}")
        yield axis, tuple(dict.fromkeys(listed))
