"""Needles from files: a user's own list, and the two official ones."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..grade import LETTERS
from .items import Item, Needle, Question, Role

OWN_KEYS = {"image", "question", "options", "answer"}
SINGLE_KEYS = {"question", "answer", "image", "id"}
MULTI_KEYS = {"images", "question1", "answer1", "question2", "answer2"}
TRAILER = "\nOnly give the best option. Best option: ("
LAYOUT = re.compile(rf"(?P<text>.*?)\nOptions: (?P<options>\(A\) .*?){re.escape(TRAILER)}", re.DOTALL)
RANKED = re.compile(r"niah_\d+_(\d+)_")  # in the name of an image that carries a pointer


def read_list(path: Path, images: Path | None) -> list[Item]:
    """Items of a JSON list: a user's own (image, question, options, answer), or an official one, single- or multi-hop.

    Args:
        path: the list.
        images: the folder that its image paths start from; None is the list's own.

    Raises:
        FileNotFoundError: the list or one of its images is missing.
        ValueError: anything in it that does not fit; the message names the entry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give a JSON list of needles")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} is not a JSON list with at least one needle in it")
    root = images or path.parent
    readers = {frozenset(OWN_KEYS): _own, frozenset(SINGLE_KEYS): _single, frozenset(MULTI_KEYS): _multi}
    items = []
    for number, entry in enumerate(entries):
        keys = frozenset(entry) if isinstance(entry, dict) else frozenset()
        if keys not in readers:
            expected = "; ".join(", ".join(sorted(one)) for one in readers)
            raise ValueError(f"{path}: entry {number} has keys {sorted(keys)}, expected one of: {expected}")
        try:
            items.append(readers[keys](entry, number, root))
        except (ValueError, TypeError) as error:  # texts where lists belong, and the other way round
            raise ValueError(f"{path}: entry {number}: {error}") from None
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path}: entry {number}: {error}") from None
    if len({item.suite for item in items}) > 1:
        raise ValueError(f"{path} mixes single-hop and multi-hop entries: give two lists")
    return items


def lettered(text: str) -> tuple[str, tuple[str, ...]]:
    """An official question's text and its options.

    Raises:
        ValueError: another layout.
    """
    found = LAYOUT.fullmatch(text)
    if found is None:
        raise ValueError("the question does not end with options (A), (B), ... and the official trailer")
    lines = re.split(r"\n?\(([A-H])\) ", found["options"])[1:]
    letters, options = lines[::2], lines[1::2]
    if letters != list(LETTERS[: len(letters)]) or len(options) < 2:
        raise ValueError(f"options are lettered {', '.join(letters)}, not A, B, C, ...")
    return found["text"], tuple(options)


def true_chain(names: Sequence[str]) -> tuple[int, ...]:
    """Places of the true chain's images, by the hop-rank rule: of the numbers 1, 2, ... in the names one is missing,
    and that is the rank of the one image without a number, which ends the chain.

    Raises:
        ValueError: names that do not obey it.
    """
    ranks = [int(found[1]) if (found := RANKED.search(Path(name).name)) else 0 for name in names]
    missing = set(range(1, len(names) + 1)) - set(ranks)
    if ranks.count(0) != 1 or len(missing) != 1 or len(set(ranks)) != len(names):
        raise ValueError(f"image numbers {ranks} do not obey the hop-rank rule: one image bare, one number missing")
    end = missing.pop()
    return tuple(ranks.index(rank) if rank < end else ranks.index(0) for rank in range(1, end + 1))


def _own(entry: Mapping[str, Any], number: int, root: Path) -> Item:
    options, answer, text = entry["options"], entry["answer"], entry["question"]
    texts = [one.strip().casefold() for one in options if isinstance(one, str)] if isinstance(options, list) else []
    if not 2 <= len(texts) <= len(LETTERS) or len({*texts} - {""}) != len(options):
        raise ValueError(f"options must be 2 to {len(LETTERS)} different texts")
    if answer not in options:
        raise ValueError(f"answer {answer!r} is none of its options")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"question {text!r} is no text")
    question = Question("single", "own", text, tuple(options), options.index(answer), 1 / len(options))
    return Item(f"own-{number:04d}", "single", 0, (_picture(root, entry["image"]),), (0,), (question,))


def _single(entry: Mapping[str, Any], number: int, root: Path) -> Item:
    question = _official("single", entry["question"], entry["answer"])
    return Item(f"listed-{number:04d}", "single", 0, (_picture(root, entry["image"]),), (0,), (question,))


def _multi(entry: Mapping[str, Any], number: int, root: Path) -> Item:
    chain = true_chain(entry["images"])
    questions = (
        _official("cap", entry["question1"], entry["answer1"]),
        _official("qa", entry["question2"], entry["answer2"]),
    )
    needles = tuple(_picture(root, name) for name in entry["images"])
    return Item(f"chain-{number:04d}", "multi", len(chain) - 1, needles, chain, questions)


def _official(role: Role, text: str, answer: str) -> Question:
    words, options = lettered(text)
    letters = tuple(LETTERS[: len(options)])
    if answer not in letters:
        raise ValueError(f"answer {answer!r} is not one of {', '.join(letters)}")
    return Question(role, role, words, options, letters.index(answer), 1 / len(options), exact=text)


def _picture(root: Path, name: object) -> Needle:
    path = root / str(name)
    if not path.is_file():
        raise FileNotFoundError(f"image {path} is missing: give the folder that its paths start from")
    return Needle(picture=str(path.resolve()), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
