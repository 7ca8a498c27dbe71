"""Small files of questions about small videos, and models that answer as they are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import videos

from videochat_flash.eval.ask import Said, Unanswered
from videochat_flash.eval.items import Item, read_items
from videochat_flash.grade import LETTERS

Row = Mapping[str, Any]
COLOURS = ("red", "blue", "green", "black")


def rows() -> list[dict[str, Any]]:
    """Twelve questions about three videos, of all kinds."""
    made: list[dict[str, Any]] = []
    for number in range(3):
        video = f"clips/{number}.mp4"
        for i in range(2):
            made.append(
                {
                    "id": f"{number}-choice-{i}",
                    "video": video,
                    "question": f"Which colour has card {i}?",
                    "options": list(COLOURS),
                    "answer": "ABCD"[(number + i) % 4],
                    "group": {"task": "colour", "ability": ["seeing", "reading"][: 1 + i]},
                }
            )
        made.append({"id": f"{number}-words", "video": video, "question": "Which way?", "reference": ["left", "West"]})
        made.append(
            {
                "id": f"{number}-time",
                "video": video,
                "question": "When?",
                "interval": [number, number + 2],
                "group": "t",
            }
        )
    return made


def write(folder: Path, some: Sequence[Row] | None = None, clips: bool = True) -> Path:
    """A file of rows, with its videos beside it."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for number in range(3 if clips else 0):
        videos.make(folder / "clips" / f"{number}.mp4", 8, 2)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows() if some is None else some)))
    return path


def items(folder: Path, some: Sequence[Row] | None = None) -> list[Item]:
    """The same as items; their videos are empty files."""
    path = write(folder, some, clips=False)
    for row in rows() if some is None else some:
        (folder / str(row["video"])).touch()
    found, flaws = read_items(path)
    assert not flaws
    return found


def truth(item: Item) -> str:
    """The right answer as it is to be said."""
    if item.interval is not None:
        start = item.start or 0.0
        return f"From {item.interval[0] - start:g} to {item.interval[1] - start:g} seconds."
    return item.references[0] if item.references else LETTERS[item.answer]


def wrong(item: Item) -> str:
    """A wrong one that can be read."""
    if item.interval is not None:
        return "From 90 to 91 seconds."
    return "nowhere" if item.references else LETTERS[(item.answer + 1) % len(item.options)]


@dataclass
class Told:
    """An asker that says what it is told; what returns None fails. Blind, it says what ``unseen`` does."""

    says: Callable[[Item], str | None]
    unseen: Callable[[Item], str | None] = lambda _: "A"
    name: str = "told"
    prompt: str = "full"
    asked: list[tuple[str, bool]] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, object]:
        return {
            "model": self.name,
            "dtype": "none",
            "keep": "off",
            "frames": {"policy": "paper"},
            "prompt": self.prompt,
        }

    def __call__(self, item: Item, blind: bool) -> Said:
        self.asked.append((item.id, blind))
        text = self.unseen(item) if blind else self.says(item)
        if text is None:
            raise Unanswered("it would not say")
        return Said(text, 10)


def quiet(*_: object) -> None:
    """A bar that nobody sees."""
