"""sieve: what is well formed, in time, in its source, no double and not known without the video, stays.

First every question by itself, then the set as a whole: the same question with the same answer, caps, and balance. The
rest is kept aside with its reason. What goes for the sake of balance is drawn by the question's own name, so that the
same set always leaves the same one.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grade import iou, option
from ..journal import digest
from ..remote import Refused
from ..times import interval
from .answers import Answers
from .hide import MAKER as DRAWN
from .records import Aside, Event, Film, Note, Question, line_of
from .settings import Setting, Sieve
from .steps import Made, Step, Work
from .templates import ORDER, said_time
from .weave import normal

VERSION = 3
SLACK = 1.0  # seconds by which times may differ
BLIND = "Answer from general knowledge, without seeing the video. Give the answer alone.\n\n"
BLIND_TOKENS = 64
OVERLAP = 0.5  # of a blind answer's interval with the true one, from which on it counts as right
LENGTHS = (2, 5, 10, 40)  # words of answers that are one class of length
BALANCED, SOURCE = ("family", "length"), "source"
ABOVE = 2**64 - 1  # no question has this number
LESSER = re.compile("is|are|was|were|be|at|to|from|of|in|on|and|or|seconds?|s|it|this")
UNIT = r"\s*(?:seconds|second|secs|sec|s)\b"
SPAN = re.compile(rf"\bfrom\s+(\d+(?:\.\d+)?)(?:{UNIT})?\s+to\s+(\d+(?:\.\d+)?){UNIT}", re.IGNORECASE)
MOMENT = re.compile(rf"\bat\s+(\d+(?:\.\d+)?){UNIT}", re.IGNORECASE)
CLOCK = r"(?:\d+:)?\d+:[0-5]\d(?:\.\d+)?"
LARGER = r"\s*(?:minutes?|mins?|m|hours?|hrs?|h)\b"
TIME = re.compile(rf"(?<![\w.:])({CLOCK}|\d+(?:\.\d+)?)(?:{UNIT})?(?![\w:]|\.\d|{LARGER})", re.IGNORECASE)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: number for number, word in enumerate(WORDS)} | {"once": 1, "twice": 2}
NUMBER = rf"(\d+|{'|'.join(NUMBERS)})"
TIMES = re.compile(rf"^\W*{NUMBER}\W*$|\b{NUMBER}\s+times?\b", re.IGNORECASE)
ASKED = re.compile(re.escape(ORDER).replace(r"\{\}", "(.*?)"), re.DOTALL)
TIMED = ("grounding", "change")  # families whose answers may be times
Ask = Callable[[Film, Question], str]


def step(setting: Setting) -> Step:
    """The step."""
    mark: dict[str, Any] = {"version": VERSION, **vars(setting.sieve)}
    if setting.sieve.blind == "endpoint":
        mark["model"] = setting.endpoint.model
    if setting.sieve.blind == "flash-tiny":
        from ..weights import EMBEDDED, find

        mark["model"] = hashlib.sha256((find(EMBEDDED) / "model.safetensors").read_bytes()).hexdigest()[:16]
    return Step("sieve", mark, partial(worker, setting), settle=partial(settle, setting.sieve))


def worker(setting: Setting) -> Work:
    """Looks at the questions of one film."""
    rules, blind = setting.sieve, _blind(setting)

    def work(film: Film) -> Made:
        kept: list[Question] = []
        asides: list[Aside] = []
        seen: set[tuple[str, ...]] = set()
        for question in film.questions:
            reason = fault(film, question, rules)
            words = (question.family, question.kind, *normal(question.question))
            if not reason and words in seen:
                reason = "the same question of this video"
            if reason:
                asides.append(_rejected(film, question, reason))
            else:
                seen.add(words)
                kept.append(question)
        told = kept if blind is None else blindly(film, kept, blind)
        gone = [one for one in told if one.guessed and rules.drop_guessed]
        asides += [_rejected(film, one, "answered without the video") for one in gone]
        kept = [one for one in told if not (one.guessed and rules.drop_guessed)]
        return Made((replace(film, questions=tuple(kept)),), tuple(asides))

    return work


def _rejected(film: Film, question: Question, reason: str) -> Aside:
    return Aside("sieve", "rejected", film.video.path, reason, line_of(question))


# -- one question ------------------------------------------------------------------------------------------------------


def fault(film: Film, question: Question, rules: Sieve) -> str:
    """Why a question may not pass; empty if it may. Reasons are told in few kinds, to be counted."""
    words, length = len(question.answer.split()), film.video.duration
    options = question.options
    for wrong, reason in (
        (not question.question.strip() or not question.answer.strip(), "no question or no answer"),
        ("<image>" in question.prompt + question.answer or "<video>" in question.prompt, "a placeholder in its text"),
        (options and question.answer not in options, "its answer is none of its options"),
        (len({normal(one) for one in options}) < len(options), "two options are the same"),
        (len(options) == 1, "only one option"),
        (not 0 <= question.start < question.end <= length + SLACK, "times outside of the video"),
        (any(float(one) > length + SLACK for one in times_of(question.answer)), "an answer outside of the video"),
        (any(float(a) > float(b) for a, b in SPAN.findall(question.answer)), "an interval that ends before it begins"),
        (words < rules.least_words, "too short an answer"),
        (words > rules.most_words, "too long an answer"),
    ):
        if wrong:
            return reason
    if question.maker == DRAWN or grounded(film, question, rules.grounded):
        return ""
    return "its answer is not in its source"


def grounded(film: Film, question: Question, share: float) -> bool:
    """Whether the answer is in the text of its source: the events and notes that it names.

    A count has to be the number of the events, a time one at which an event begins or ends, and of other words the
    share ``share`` must come from the texts.
    """
    if max(question.events, default=-1) >= len(film.events) or max(question.notes, default=-1) >= len(film.notes):
        return False
    events = [film.events[place] for place in question.events]
    sources: Sequence[Event | Note] = [*events, *(film.notes[place] for place in question.notes)]
    if question.family == "count" and re.fullmatch(r"\d+", question.answer):
        return int(question.answer) == len(events)
    marks = {said_time(time) for one in sources for time in (one.start, one.end)}
    if not times_of(question.answer) <= marks:
        return False
    held = Counter(word for one in sources for word in normal(one.text))
    said = [word for word in normal(_timeless(question.answer)) if not LESSER.fullmatch(word)]
    if not said:
        return bool(sources)
    return sum(word in held for word in said) >= share * len(said)


def _timeless(text: str) -> str:
    """An answer without its times."""
    return MOMENT.sub(" ", SPAN.sub(" ", text))


def times_of(text: str) -> set[str]:
    """The times that an answer states, in seconds, as they stand there."""
    return {time for pair in SPAN.findall(text) for time in pair} | set(MOMENT.findall(text))


def right(said: str, question: Question) -> bool:
    """Whether what was said is the answer."""
    if question.options:
        return option(said, question.options) == question.options.index(question.answer)
    truth, told = interval(question.answer), interval(said)
    if truth is not None:
        return told is not None and iou(told, truth) >= OVERLAP
    if question.family in ("grounding", "change") and MOMENT.search(question.answer):
        moment, there = moment_of(question.answer), moment_of(said)
        return moment is not None and there is not None and abs(there - moment) <= SLACK
    if question.family == "count" and question.answer.isdecimal():
        return count_of(said) == int(question.answer)
    return _plain(said) == _plain(question.answer)


def moment_of(text: str) -> float | None:
    """The one time that a text names, in seconds: ``At 10 seconds.``, ``10 s``, ``0:10``."""
    found = {_seconds(one) for one in MOMENT.findall(text) or TIME.findall(text)}
    return found.pop() if len(found) == 1 else None


def _seconds(time: str) -> float:
    return reduce(lambda total, part: 60 * total + float(part), time.split(":"), 0.0)


def count_of(text: str) -> int | None:
    """The one number of times that a text names: ``2``, ``Two.``, ``2 times``, ``twice``."""
    said = {word.casefold() for words in TIMES.findall(text) for word in words if word}
    found = {NUMBERS[word] if word in NUMBERS else int(word) for word in said}
    return found.pop() if len(found) == 1 else None


def _plain(text: str) -> object:
    """Its words, or of an article alone, which may be a card's character, itself."""
    return normal(text) or text.strip().casefold()


def guessed(film: Film, question: Question, blind: Ask) -> Question:
    """A question with what was answered without the video.

    With options it is asked once for each place that the right one can have, and which of two things came first with
    their names in both orders, as long as the answers are right: what is right by its place alone, as an endpoint that
    always says (B), is no knowledge.
    """
    said = blind(film, question)
    good = right(said, question)
    for turned in _turned(question):
        good = good and right(blind(film, turned), turned)
    return replace(question, blind=said[:200] or "(nothing)", guessed=good)


def _turned(question: Question) -> Iterator[Question]:
    """A question with its options, and the two things whose order it asks for, in all other places."""
    options = question.options
    turns = [replace(question, options=options[turn:] + options[:turn]) for turn in range(max(1, len(options)))]
    if named := ASKED.fullmatch(question.question):
        turns += [replace(one, question=ORDER.format(named[2], named[1])) for one in turns]
    yield from turns[1:]


def blindly(film: Film, questions: Sequence[Question], blind: Ask) -> list[Question]:
    """The questions of a film with what was answered without it.

    Of a kind that is asked in rounds each answer is right once in a while: who always gives the same one, and without
    knowing anything is right with some, would leave the others to be guessed. Only who knows all of a kind knows any.
    """
    told = [guessed(film, question, blind) for question in questions]
    missed = {(one.family, one.kind) for one in told if _in_rounds(one) and not one.guessed}
    return [
        replace(one, guessed=False) if _in_rounds(one) and (one.family, one.kind) in missed else one for one in told
    ]


def _in_rounds(question: Question) -> bool:
    """Whether an answer is a number or a time."""
    return question.family == "count" or (question.family in TIMED and bool(times_of(question.answer)))


def _blind(setting: Setting) -> Ask | None:
    """Asks without the video: an endpoint, or the built-in model."""
    if setting.sieve.blind == "endpoint":
        answers = Answers(setting)

        def ask(film: Film, question: Question) -> str:
            try:
                return answers.ask({"blind": True}, list, BLIND + question.prompt, BLIND_TOKENS).text
            except Refused:
                return ""

        return ask
    if setting.sieve.blind == "flash-tiny":
        from ..chat import VideoChatFlash

        vc = VideoChatFlash.from_pretrained("flash-tiny")
        return lambda film, question: vc.answer(None, question.prompt)
    return None


# -- the whole set -----------------------------------------------------------------------------------------------------


def settle(rules: Sieve, films: Callable[[], Iterator[Film]]) -> Iterator[Film | Aside]:
    """What is left of the set when nothing is there too often; films without a question are not in it."""
    limits = Limits(rules, films())
    for film in films():
        kept: list[Question] = []
        for question in _mixed(film.questions):
            reason = limits.over(film, question)
            if not reason and len(kept) >= rules.per_video:
                reason = "more than sieve.per_video"
            words = limits.often.get(_words(question)) if not reason else None
            if words is not None and words >= rules.most_alike:
                reason = "the same question and answer, too often"
            if reason:
                yield _rejected(film, question, reason)
            else:
                if words is not None:
                    limits.often[_words(question)] = words + 1
                kept.append(question)
        if kept:
            order = {question.id: place for place, question in enumerate(film.questions)}
            yield replace(film, questions=tuple(sorted(kept, key=lambda question: order[question.id])))


def _mixed(questions: tuple[Question, ...]) -> list[Question]:
    """Questions of a film, the first ones of every kind before the second ones."""
    turn: Counter[str] = Counter()
    placed = []
    for place, question in enumerate(questions):
        placed.append((turn[question.kind], place, question))
        turn[question.kind] += 1
    return [question for _, _, question in sorted(placed, key=lambda one: one[:2])]


class Limits:
    """Caps of families, of lengths of answers and of sources, one after the other: of each, the questions whose names
    are the smallest numbers stay.

    While they are found, some 70 bytes are held for each question (28, and copies of them); afterwards only how often
    was kept what is there more often than it may be.
    """

    def __init__(self, rules: Sieve, films: Iterator[Film]) -> None:
        words, numbers = array("Q"), array("Q")
        names: dict[str, dict[str, int]] = {kind: {} for kind in (*BALANCED, SOURCE)}
        codes = {kind: array("I") for kind in names}
        for film in films:
            for question in film.questions:
                words.append(_words(question))
                numbers.append(_number(question))
                for kind, name in _classes(film, question).items():
                    codes[kind].append(names[kind].setdefault(name, len(names[kind])))
        told, counts = np.unique(np.array(words, np.uint64), return_counts=True)
        self.often = dict.fromkeys(told[counts > rules.most_alike].tolist(), 0)
        self.last: dict[str, dict[str, int]] = {}  # of each kind and class, the largest number that stays
        held, left = np.array(numbers, np.uint64), np.ones(len(numbers), np.bool_)
        least = math.ceil(rules.balance_leaves * len(numbers))
        shares = {"family": rules.family_share, "length": rules.length_share}
        for kind, known in names.items():
            code = np.array(codes[kind], np.int64)
            sizes = dict(zip(known, np.bincount(code[left], minlength=len(known)).tolist(), strict=True))
            most = dict.fromkeys(sizes, rules.per_source or len(numbers))
            allowed = most if kind == SOURCE else balanced(sizes, shares[kind], least)
            self.last[kind] = {
                name: _threshold(held[left & (code == number)], allowed[name]) for name, number in known.items()
            }
            last: NDArray[np.uint64] = np.array(list(self.last[kind].values()), np.uint64)
            left &= held < last[code] if len(last) else left

    def over(self, film: Film, question: Question) -> str:
        """Why a question is too much; empty if it is not."""
        for kind, name in _classes(film, question).items():
            if _number(question) >= self.last[kind][name]:
                return f"more than sieve.{'per_source' if kind == SOURCE else f'{kind}_share'}"
        return ""


def _classes(film: Film, question: Question) -> dict[str, str]:
    """What a question is balanced and capped by."""
    length = length_of(len(question.answer.split()))
    return {"family": question.family, "length": length, SOURCE: film.video.source}


def length_of(words: int) -> str:
    """The class of length of an answer."""
    return next((f"up to {most} words" for most in LENGTHS if words <= most), f"more than {LENGTHS[-1]} words")


def balanced(sizes: Mapping[str, int], share: float, least: int = 0) -> dict[str, int]:
    """How many of each class may stay, so that none is more than ``share`` of what stays; all, where no number can do
    that, and always ``least`` in all: of two classes of which one is tiny, the other is not given up for it."""

    def left(cap: int) -> int:
        return sum(min(size, cap) for size in sizes.values())

    high = max(sizes.values(), default=0)
    if high <= share * left(high):
        return dict(sizes)
    cap = _last(high, lambda cap: cap <= share * left(cap))  # the sum grows ever more slowly: what fits, fits from 0 on
    if cap and left(cap) < least:
        cap = _last(high, lambda cap: left(cap) < least) + 1
    return {name: min(size, cap or size) for name, size in sizes.items()}


def _last(below: int, holds: Callable[[int], bool]) -> int:
    """The last number under ``below`` for which something holds that holds for 0 and then for all up to it."""
    low, high = 0, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _words(question: Question) -> int:
    """What is the same for the same question with the same answer."""
    return int(digest([normal(question.question), normal(question.answer)])[:16], 16)


def _number(question: Question) -> int:
    return int(question.id, 16)


def _threshold(held: NDArray[np.uint64], count: int) -> int:
    """What the ``count`` smallest numbers are below."""
    return ABOVE if count >= len(held) else int(np.partition(held, count)[count])
