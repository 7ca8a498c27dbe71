"""Scores that are more than right or wrong: intervals of time, descriptions, questions that belong together, options.

Pure functions of words, for everyone who measures a model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from .synth import CHARACTERS, COLOURS, SHAPES
from .times import Interval, interval

Key = TypeVar("Key", bound=Hashable)

RIGHT, WRONG, UNPARSED, EMPTY = "right", "wrong", "unparsed", "empty"  # what an answer may be
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of options
# Before a letter: that an option or an answer is named.
OPTION, ANSWER = (rf"(?<!not )(?<!n't )\b(?i:{word})\b(?i:\s+is)?[\s:*\"'(\[]*" for word in ("option", "answer"))
# Behind it: no word that it begins, nor that it is wrong; nor, of an answer's A, one that it may be the article of.
BEHIND = r"(?!\w)(?!\s+is\s+(?:wrong|incorrect|not))"
NOUN = r"(?!(?<=A)\s+(?!because|since|based|given|according|as\b|is\s+(?:correct|right))\w)"
SIGN = re.compile(rf"\b(?:digit|letter|character)\s+([{''.join(CHARACTERS)}])\b")


def iou(one: Interval, other: Interval) -> float:
    """How much of the time that either interval takes both take, 0 to 1."""
    both = min(one[1], other[1]) - max(one[0], other[0])
    either = max(one[1], other[1]) - min(one[0], other[0])  # where they meet, their union; elsewhere both is 0
    return max(0.0, both) / either if either > 0 else 0.0


def grounding(answer: str, truth: Interval) -> float:
    """The overlap of the interval that an answer states with the true one; 0 where it states none."""
    said = interval(answer)
    return iou(said, truth) if said is not None else 0.0


def attributes(text: str) -> dict[str, str]:
    """Colour, shape and character that a description names; one of which it names none or several is missing."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    found = {
        "colour": words & set(COLOURS),
        "shape": words & set(SHAPES),
        "character": set(SIGN.findall(text)),
    }
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def named(answer: str, truth: str) -> dict[str, bool]:
    """For each attribute in a true description, whether the answer names it, and no other value of it."""
    said = attributes(answer)
    return {name: said.get(name) == value for name, value in attributes(truth).items()}


def jointly(answers: Iterable[tuple[Key, bool]]) -> dict[Key, bool]:
    """For every chain, given which chain each answer belongs to and whether it is right: whether all of them are."""
    right: dict[Key, bool] = {}
    for chain, one in answers:
        right[chain] = right.get(chain, True) and one
    return right


def option(text: str, options: Sequence[str], lettered: bool = True) -> int | None:
    """Which option an answer names, and nothing that has to be guessed.

    Read are, in this order: a lone letter, a letter before a delimiter, an answer that "is" a letter (the last such
    words count), and an option's own words, by themselves or behind the last colon.
    Two different letters are no answer.

    Args:
        text: what was said.
        options: the texts of the options, the first one lettered A.
        lettered: whether the options were shown with letters; if not, only their own words are read.

    Returns:
        The index of the option, or None for anything else.
    """
    text = unicodedata.normalize("NFKC", text)
    plain = bare(text)
    letters = LETTERS[: len(options)]
    if lettered and len(plain) == 1 and plain.upper() in letters:
        return letters.index(plain.upper())
    named = {letters.index(one) for one in re.findall(rf"\b([{letters}])[).:\]]", text)} if lettered else set()
    lead = re.match(rf"([{letters}])[).:\]](.*)", plain, re.DOTALL) if named else None
    if lead:
        first = letters.index(lead[1])
        whole = bare(lead[2]).casefold() == bare(options[first]).casefold()  # of whatever letters these words hold
        return first if whole else named.pop() if len(named) == 1 else None
    said = re.findall(rf"{OPTION}([{letters}]){BEHIND}|{ANSWER}([{letters}]){BEHIND}{NOUN}", plain) if lettered else []
    if said:
        several = re.search(rf"\b[{letters}][)\]*\"']*\s(?:or|and)\s[\s*\"'(\[]*[{letters}](?!\w)", plain)
        return None if several else letters.index("".join(said[-1]))
    for words in (plain, conclusion(plain)):
        own = [i for i, one in enumerate(options) if bare(one).casefold() == bare(words).casefold()]
        if own:
            return own[0] if len(own) == 1 else None
    return None


def right(text: str, truth: str) -> bool:
    """Whether an answer is the true one, word for word, by itself or behind its last colon."""
    return truth in (text.strip(), conclusion(text.strip()))


def conclusion(text: str) -> str:
    """What stands behind a text's last colon, before which many a model thinks; the whole where there is none."""
    return re.split(r":\s+", text)[-1]


def bare(text: str) -> str:
    """A text without the marks, quotes and brackets around it."""
    return unicodedata.normalize("NFKC", text).strip(" \t\r\n*_`#>\"'\u201c\u201d\u2018\u2019()[]{}.:")
