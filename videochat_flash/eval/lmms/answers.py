"""Answers that are kept: a line each, there once it is written, by all that an answer depends on. Failures are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ...config import Plan
from ...journal import appending, begin_run, damaged, digest, read_lines
from ...video import probe
from ..together import Answer
from .messages import Wanted

Add = Callable[[str, Answer], None]


def key_of(wanted: Wanted, keep: Plan, contents: dict[Path, str]) -> str:
    """Digest of a request: the content of what is shown, the frames, the words, dropout and how tokens are chosen.

    Args:
        wanted: the request.
        keep: its dropout, the model's own where it says nothing.
        contents: fingerprints of files that were looked into before; those of this request are added.

    Raises:
        VideoError: something that cannot be read.
    """
    for path in {one.path for one in wanted.media} - set(contents):
        contents[path] = probe(path).fingerprint
    shown = [{"content": contents[one.path], **asdict(one.sampling)} for one in wanted.media]
    words, drops = [asdict(turn) for turn in wanted.turns], [asdict(drop) for drop in keep]
    return digest([shown, words, drops, asdict(wanted.decoding)])


@contextmanager
def keeping(folder: Path | None, settings: Mapping[str, object], rank: int) -> Iterator[tuple[dict[str, Answer], Add]]:
    """The answers of earlier runs with these settings, by key, and what adds to them.

    Other settings have another folder inside, so one folder serves all models. Each process writes a file of its own.

    Args:
        folder: of all that is kept; None keeps nothing.
        settings: all that answers depend on, but for the request itself.
        rank: of this process.

    Raises:
        ValueError: another process writes there, or a damaged line.
        OSError: it cannot be written.
    """
    if folder is None:
        yield {}, lambda key, answer: None
        return
    home = folder / digest(settings)[:16]
    begin_run(home, settings, {}, "choose another cache")
    with appending(home / f"answers-{rank}.jsonl") as log:
        there = {key: answer for path in sorted(home.glob("answers-*.jsonl")) for key, answer in _read(path)}
        yield there, lambda key, answer: log.add({"key": key, **asdict(answer)})


def _read(path: Path) -> Iterator[tuple[str, Answer]]:
    for number, values in read_lines(path):
        try:
            yield values.pop("key"), Answer(**values)
        except (KeyError, TypeError):
            raise damaged(path, number) from None
