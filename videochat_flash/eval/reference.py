"""How the reference reads answers, for comparison with its published numbers. Never the headline: it guesses.

Each rule with what it gets wrong:

- MVBench, MLVU, LVBench: the first ``a`` that stands alone is option A, an English article as well.
- Perception Test: the same with the first capital.
- Video-MME: the first capital A to D anywhere, the one that begins ``Based on`` as well.
- LongVideoBench: where nothing is found, a letter is drawn.
- Charades-STA: "to" is a dash inside of words as well, a unit between number and dash hides the interval, and the
  first pair of numbers counts, whatever it measures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from ..grade import LETTERS
from ..times import Interval

Reader = Callable[[str, Sequence[str], np.random.Generator], str | None]

MARKS = ';/[]"{}()=+\\_-><@`,?!'  # taken out before a letter is looked for
PREFIXES = ("The best answer is", "The correct answer is", "The answer is", "The answer")
NUMBER = r"\d+(?:\.\d+)?"
HINTS = ("start", "end", "happen")


def mvbench(text: str, options: Sequence[str], rng: np.random.Generator) -> str | None:
    """A leading ``B. and more``, else the first a to e that stands alone once marks are taken out."""
    led = re.match(r"([A-E])\.\s*\S", text)
    if led:
        return led[1]
    text = re.sub(r"[\n\t]", " ", text)
    plain = text
    for mark in MARKS:
        beside_a_space = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if beside_a_space else " ")
    found = re.search(r"\b[a-e]\b", plain.strip().lower())
    return found[0].upper() if found else None


def perception_test(text: str, options: Sequence[str], rng: np.random.Generator) -> str | None:
    """The first capital A to D that stands alone."""
    found = re.search(r"\b[A-D]\b", text)
    return found[0] if found else None


def video_mme(text: str, options: Sequence[str], rng: np.random.Generator) -> str | None:
    """The first capital A to D anywhere, once known beginnings are taken out.

    Of these beginnings two more stand in the reference, fused by a missing comma, so that they never match.
    """
    text = text.strip()
    for words in PREFIXES:
        text = text.replace(words, "")
    found = re.search(r"[A-D]", text)  # none in many words or in few: no answer either way
    return found[0] if found else None


def longvideobench(text: str, options: Sequence[str], rng: np.random.Generator) -> str | None:
    """``(B)``, else ``B ``, else ``B.``, else an option's text in an answer of more than five words: the last one.

    Where there is nothing, a letter is drawn from ``rng``, as the reference draws it from the global one.
    """
    letters = LETTERS[: len(options)]
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    for form in ("({})", "{} ", "{}."):
        places = {letter: text.rfind(form.format(letter)) for letter in letters}
        if max(places.values(), default=-1) >= 0:
            return max(places, key=lambda letter: places[letter])
    if len(text.split()) > 5:
        places = {letter: text.lower().rfind(words.lower()) for letter, words in zip(letters, options, strict=True)}
        if max(places.values(), default=-1) >= 0:
            return max(places, key=lambda letter: places[letter])
    return letters[int(rng.integers(len(letters)))] if letters else None


def charades(text: str) -> Interval | None:
    """The first ``num - num`` with "to" as a dash, else first numbers of sentences that hint at times, else h:mm:ss.

    The reference first deletes an example sentence, which is not known here.
    """
    text = text.lower().replace("to", "-")
    pairs = [(float(a), float(b)) for a, b in re.findall(rf"({NUMBER})\s*-\s*({NUMBER})", text)]
    if not pairs:
        hinted = [one for one in re.split(r"[!?\n]|\.(?!\d)", text) if any(hint in one for hint in HINTS)]
        firsts = [float(found[0]) for found in (re.search(NUMBER, one) for one in hinted) if found]
        pairs = list(zip(firsts[::2], firsts[1::2], strict=False))
    if not pairs:
        clocks = [int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in re.findall(r"(\d+):(\d\d):(\d\d)", text)]
        pairs = [(float(a), float(b)) for a, b in zip(clocks[::2], clocks[1::2], strict=False)]
    if not pairs:
        return None
    start, end = sorted(pairs[0])
    return start, end
