"""Whether an answer is right by what was rendered. Knows the words of the questions, nothing of how they are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import ceil

from .records import Film, Question
from .rendered import Shown

SLACK = 0.06  # seconds: answers have one decimal
NUMBER = r"(\d+(?:\.\d+)?)"
SPAN = re.compile(rf"[Ff]rom {NUMBER} to {NUMBER} seconds")
MOMENT = re.compile(rf"At {NUMBER} seconds")
THING = re.compile(r"does the (.+?) (?:first come|come)")
CARD = re.compile(
    r"The (?P<thing>(?P<colour>\w+) (?P<shape>\w+)) with the (?:digit|letter) (?P<sign>\w)"
    r"(?:, pointing at the (?P<points>\w+ \w+))?\."
)
SIGN = re.compile(r"\b[A-Z0-9]\b")
Check = Callable[[Question, Sequence[Shown]], bool]


def right(film: Film, question: Question, truth: Sequence[Shown]) -> bool:
    """Whether the answer, and none of the other options, is what the renderer's truth says.

    Raises:
        ValueError: a kind of question that nothing here can check.
    """
    if question.family in ("needle", "hops"):
        return _drawn(film, question, truth)
    check = CHECKS.get(f"{question.family}.{question.kind}")
    if check is None:
        raise ValueError(f"no check for questions of {question.family}.{question.kind}")
    if question.options and (question.options.count(question.answer) != 1 or len(question.options) < 2):
        return False
    return check(question, truth)


def _drawn(film: Film, question: Question, truth: Sequence[Shown]) -> bool:
    """What is asked of hidden cards, by what was drawn when: the copy's events. Wrong is what is asked of anything that
    the video below the cards shows as well: it would have two answers."""
    cards = [(told, event) for event in film.events if (told := CARD.fullmatch(event.text))]
    named = {told["thing"]: (told, event) for told, event in cards}
    words, of_sign = question.question, question.family == "needle" and question.kind in ("colour", "shape")
    if of_sign:
        [sign] = SIGN.findall(words)
        found = [(told, event) for told, event in cards if told["sign"] == sign]
    else:
        found = [one for thing, one in named.items() if f" {thing} " in re.sub(r"\W", " ", words)]
    if len(found) != 1 or len(named) < len(cards):
        return False
    told, event = found[0]
    met = [told]
    for _ in cards if question.family == "hops" else ():
        told = named[told["points"]][0] if told["points"] else told
        met.append(told)
    if any(one.sign == told["sign"] if of_sign else one.thing in {card["thing"] for card in met} for one in truth):
        return False
    if question.kind == "grounding":
        return question.answer == f"From {ceil(event.start)} to {ceil(event.end)} seconds."
    wanted = {"character": "sign", "colour": "colour", "shape": "shape"}[question.kind.removeprefix("hop_")]
    return not (question.family == "hops" and told["points"]) and question.answer == told[wanted]


def _seen(truth: Sequence[Shown]) -> list[Shown]:
    return sorted((one for one in truth if one.sort == "seen"), key=lambda one: one.start)


def _bare(text: str) -> str:
    return text.strip().rstrip(".")


def _quoted(question: Question, truth: Sequence[Shown]) -> list[list[int]]:
    """For each quoted text, the places of what was rendered and is called so."""
    seen = _seen(truth)
    texts = re.findall(r'"([^"]+)"', question.question)
    return [[i for i, one in enumerate(seen) if _bare(one.text) == _bare(text)] for text in texts]


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= SLACK


def _inside(question: Question, some: Sequence[Shown]) -> list[Shown]:
    """What is shown within the seconds that a question names."""
    start, end = map(float, SPAN.findall(question.question)[0])
    return [one for one in some if min(one.end, end) - max(one.start, start) > 0.1]


def _whole(question: Question, truth: Sequence[Shown]) -> bool:
    return question.answer == " ".join(one.text for one in _seen(truth))


def _dense(question: Question, truth: Sequence[Shown]) -> bool:
    lines, seen = question.answer.split("\n"), _seen(truth)
    return len(lines) == len(seen) and all(
        line.endswith(f": {one.text}") and _stated(line, one) for line, one in zip(lines, seen, strict=True)
    )


def _stated(line: str, one: Shown) -> bool:
    """Whether a line states when something is shown; of what has only a beginning, that."""
    spans, moments = SPAN.findall(line), MOMENT.findall(line)
    if spans:
        return _near(float(spans[0][0]), one.start) and _near(float(spans[0][1]), one.end)
    return bool(moments) and _near(float(moments[0]), one.start)


def _segment(question: Question, truth: Sequence[Shown]) -> bool:
    return question.answer == " ".join(one.text for one in _inside(question, _seen(truth)))


def _summary(question: Question, truth: Sequence[Shown]) -> bool:
    return [question.answer] == [one.text for one in truth if one.sort == "summary"]


def _chapters(question: Question, truth: Sequence[Shown]) -> bool:
    marks = [one for one in truth if one.sort == "chapter"]
    lines = question.answer.split("\n")
    return len(lines) == len(marks) and all(
        _bare(line).endswith(one.text) and _stated(line, one) for line, one in zip(lines, marks, strict=True)
    )


def _at(question: Question, truth: Sequence[Shown]) -> bool:
    shown = {_bare(one.text) for one in _inside(question, _seen(truth))}
    return shown == {question.answer} and not shown & ({_bare(one) for one in question.options} - {question.answer})


def _said(question: Question, truth: Sequence[Shown]) -> bool:
    heard = _inside(question, [one for one in truth if one.sort == "said"])
    return question.answer == " ".join(one.text for one in heard)


def _grounding(question: Question, truth: Sequence[Shown]) -> bool:
    [places] = _quoted(question, truth)
    return len(places) == 1 and _stated(question.answer, _seen(truth)[places[0]])


def _beside(away: int) -> Check:
    def check(question: Question, truth: Sequence[Shown]) -> bool:
        [places] = _quoted(question, truth)
        seen = _seen(truth)
        return (
            len(places) == 1
            and 0 <= places[0] + away < len(seen)
            and question.answer == _bare(seen[places[0] + away].text)
        )

    return check


def _between(question: Question, truth: Sequence[Shown]) -> bool:
    first, last = _quoted(question, truth)
    seen = _seen(truth)
    if len(first) != 1 or len(last) != 1:
        return False
    return [_bare(one.text) for one in seen[first[0] + 1 : last[0]]] == [question.answer]


def _end(place: int) -> Check:
    return lambda question, truth: question.answer == _bare(_seen(truth)[place].text)


def _order(question: Question, truth: Sequence[Shown]) -> bool:
    one, other = _quoted(question, truth)
    seen = _seen(truth)
    return len(one) == len(other) == 1 and question.answer == _bare(seen[min(one[0], other[0])].text)


def _times(question: Question, truth: Sequence[Shown]) -> bool:
    [places] = _quoted(question, truth)
    return question.answer == str(len(places))


def _scene(question: Question, truth: Sequence[Shown]) -> bool:
    one, other = _quoted(question, truth)
    seen = _seen(truth)
    if len(one) != 1 or len(other) != 1 or other[0] != one[0] + 1:
        return False
    here, there = seen[one[0]], seen[other[0]]
    return abs(there.start - here.end) <= 1 + SLACK and _stated(question.answer, there)


def _named(question: Question, truth: Sequence[Shown]) -> list[Shown]:
    """What is shown in whose words the thing is that a question names."""
    name = f" {THING.findall(question.question)[0]} "
    return [one for one in _seen(truth) if name in f" {_bare(one.text).lower()} "]


def _appears(question: Question, truth: Sequence[Shown]) -> bool:
    where = _named(question, truth)
    return bool(where) and _stated(question.answer, where[0])


def _last_seen(question: Question, truth: Sequence[Shown]) -> bool:
    """Who comes into view once more was gone before."""
    where = _named(question, truth)
    gone = len(where) > 1 and max(one.end for one in where[:-1]) < where[-1].start
    return gone and _stated(question.answer, where[-1])


CHECKS: dict[str, Check] = {
    "caption.whole": _whole,
    "caption.dense": _dense,
    "caption.segment": _segment,
    "summary.whole": _summary,
    "summary.chapters": _chapters,
    "understanding.at": _at,
    "understanding.said": _said,
    "grounding.span": _grounding,
    "grounding.begins": _grounding,
    "relationship.after": _beside(1),
    "relationship.before": _beside(-1),
    "relationship.between": _between,
    "relationship.first": _end(0),
    "relationship.last": _end(-1),
    "relationship.order": _order,
    "count.times": _times,
    "change.scene": _scene,
    "change.appears": _appears,
    "change.last_seen": _last_seen,
}
