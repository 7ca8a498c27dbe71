"""Questions that follow from a time line and from nothing else: the paper's task families, by templates.

An event is asked about by its text only where no other event's text is like it, and in time only where no other one
overlaps it: whoever saw the video must come to the same answer.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from .records import Event, Film
from .weave import DETERMINERS, like, normal, words_of

VERSION = "template 3"
TOUCH = 0.5  # seconds by which events that follow each other may overlap
LISTED = 30  # events of a list, at most
QUOTED = 40  # words of a text that is quoted, at most
SCENE = 1.0  # seconds between two scenes that follow each other, at most
BRIEF = 4.0  # seconds of an event in which all that its text names is seen from the beginning on, at most
MOST_OTHERS = 7  # wrong options of a question, at most: ask.options is 8 or less
ORDER = 'Which happens first: "{}" or "{}"?'
TRIES = 8  # events that are tried for each question that is wanted
PART = 0.8  # share of a video of which a summary is one of the whole


@dataclass(frozen=True)
class Draft:
    """A question, not yet with options. ``others``: what could be answered and is wrong, all of the same video."""

    family: str
    kind: str
    question: str
    answer: str
    start: float
    end: float
    events: tuple[int, ...]
    others: tuple[str, ...] = ()
    closed: bool = False  # it makes no sense without options
    notes: tuple[int, ...] = ()  # that the answer was taken from, where it is not from events


class Plot:
    """A film's time line as templates see it.

    Args:
        film: the film.
        rng: draws which events are asked about, and in which words.
        each: questions of a kind that are wanted.
    """

    def __init__(self, film: Film, rng: random.Random, each: int) -> None:
        self.film, self.rng, self.each = film, rng, each
        self.events = film.events
        self.seen = [place for place, event in enumerate(film.events) if event.sort == "seen"]
        self.said = [place for place, event in enumerate(film.events) if event.sort == "said"]
        self.bags = [Counter(normal(event.text)) for event in film.events]
        self.plain: dict[int, bool] = {}
        self.rows: list[int] | None = None
        self.made: Counter[tuple[str, str]] = Counter()  # questions of each family and kind

    def drawn(self, places: Sequence[int]) -> list[int]:
        """Some of these events, in random order."""
        return self.rng.sample(list(places), min(len(places), TRIES * self.each))

    def full(self, family: str, kind: str) -> bool:
        """Whether there are as many questions of a kind as are wanted."""
        return self.made[family, kind] >= self.each

    def clear(self, place: int) -> bool:
        """Whether an event is known by its text."""
        if place not in self.plain:
            short = len(self.events[place].text.split()) <= QUOTED
            self.plain[place] = short and self.unlike(place, (place,))
        return self.plain[place]

    def unlike(self, place: int, same: Sequence[int]) -> bool:
        """Whether no event's text, but those of ``same``, could be taken for this one's."""
        mine = self.bags[place]
        return not any(like(mine, bag) for i, bag in enumerate(self.bags) if i not in same)

    def fit(self, place: int) -> bool:
        """Whether an event can be asked for by its time, as far as its text and its length go."""
        return self.clear(place) and self.events[place].end - self.events[place].start >= 1

    def alone(self, place: int) -> bool:
        """Whether nothing else is seen while an event lasts."""
        event = self.events[place]
        return not any(
            min(one.end, event.end) - max(one.start, event.start)
            > min(TOUCH, (one.end - one.start) / 2, (event.end - event.start) / 2)
            for one in (self.events[i] for i in self.seen if i != place)
        )

    def row(self) -> list[int]:
        """What is seen, in the order of time, if each thing begins and ends behind the one before; else nothing."""
        if self.rows is None:
            pairs = pairwise(self.events[place] for place in self.seen)
            follow = all(one.end - other.start <= TOUCH < other.start - one.start for one, other in pairs)
            self.rows = self.seen if follow else []
        return self.rows

    def others(self, *places: int, fit: Callable[[int], bool] = lambda _: True) -> tuple[str, ...]:
        """Texts of what else is seen and fit, as answers: wrong wherever those of ``places`` are right or named."""
        named = [self.bags[place] for place in places]
        texts = {bare(self.events[i].text): i for i in self.rng.sample(self.seen, len(self.seen))}
        wrong = (text for text, i in texts.items() if not any(like(self.bags[i], one) for one in named) and fit(i))
        return tuple(islice(wrong, MOST_OTHERS))


def rounds(plot: Plot, some: Iterable[Draft]) -> Iterator[Draft]:
    """Questions of a kind, drawn in rounds in which every answer is right once, and wrong for all others.

    So no answer of a round is likelier than another: not the smallest number, not the earliest time. Where a round has
    one answer only, its question has no options.
    """
    left: dict[str, list[Draft]] = {}
    for draft in some:
        left.setdefault(draft.answer, []).append(draft)
    while left:
        drawn = [left[answer].pop(plot.rng.randrange(len(left[answer]))) for answer in left]
        plot.rng.shuffle(drawn)
        for draft in drawn:
            yield replace(
                draft, others=tuple(plot.rng.sample([one.answer for one in drawn if one != draft], len(drawn) - 1))
            )
        left = {answer: drafts for answer, drafts in left.items() if drafts}


def said_time(seconds: float) -> str:
    """Seconds as answers give them: whole ones bare, others with one decimal."""
    return f"{round(seconds)}" if abs(seconds - round(seconds)) < 0.05 else f"{seconds:.1f}"


def span(start: float, end: float) -> str:
    """``12 to 25 seconds``; what ``times.interval`` reads behind ``From``."""
    return f"{said_time(start)} to {said_time(end)} seconds"


def sentence(text: str) -> str:
    """A text that ends as a sentence does."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def bare(text: str) -> str:
    """A text without the end of its sentence, to be quoted."""
    return text.strip().rstrip(".")


# -- captions and summaries --------------------------------------------------------------------------------------------


def whole(plot: Plot) -> Iterator[Draft]:
    """What happens, in order; and the same with times."""
    some = plot.seen
    if not 1 <= len(some) <= LISTED:
        return
    events, length = [plot.events[i] for i in some], plot.film.video.duration
    ask = plot.rng.choice(("Describe what happens in this video, in order.", "What happens in this video, in order?"))
    told = " ".join(sentence(event.text) for event in events)
    yield Draft("caption", "whole", ask, told, 0.0, length, tuple(some))
    ask = plot.rng.choice(
        ("List everything that happens, each with its time.", "What happens when? Give the times in seconds.")
    )
    lines = (f"{when(event)}: {sentence(event.text)}" for event in events)
    yield Draft("caption", "dense", ask, "\n".join(lines), 0.0, length, tuple(some))


def when(event: Event) -> str:
    """When an event happens, as answers say it."""
    return f"At {said_time(event.start)} seconds" if event.open else f"From {span(event.start, event.end)}"


def segment(plot: Plot) -> Iterator[Draft]:
    """What happens, or is said, in a part of the video: that of one to four events."""
    for place in plot.drawn(plot.seen):
        start, end = plot.events[place].start, plot.events[min(place + plot.rng.randrange(4), len(plot.events) - 1)].end
        inside = [i for i in plot.seen if plot.events[i].start < end - 0.1 and plot.events[i].end > start + 0.1]
        whole_ones = all(plot.events[i].start >= start - 0.1 and plot.events[i].end <= end + 0.1 for i in inside)
        if end - start >= 1 and inside and whole_ones:
            ask = plot.rng.choice(("What happens from {}?", "Describe the part from {}.")).format(span(start, end))
            told = " ".join(sentence(plot.events[i].text) for i in inside)
            yield Draft("caption", "segment", ask, told, start, end, tuple(inside))


def summary(plot: Plot) -> Iterator[Draft]:
    """What annotators wrote of the whole or of parts, and the chapters."""
    length = plot.film.video.duration
    for place, note in enumerate(plot.film.notes):
        if note.kind != "summary" or note.open:
            continue  # where nobody said when it ends, nobody knows what it is a summary of
        told = sentence(note.text)
        if note.end - note.start >= PART * length:
            yield Draft("summary", "whole", "Summarise this video.", told, 0.0, length, (), notes=(place,))
        elif note.end > note.start:
            ask = f"Summarise what happens from {span(note.start, note.end)}."
            yield Draft("summary", "part", ask, told, note.start, note.end, (), notes=(place,))
    places = tuple(place for place, note in enumerate(plot.film.notes) if note.kind == "chapter")
    marks = [plot.film.notes[place] for place in places]
    if 2 <= len(marks) <= LISTED:
        ask = plot.rng.choice(("What are the parts of this video?", "Into which parts does this video fall, and when?"))
        told = "\n".join(f"From {span(note.start, note.end)}: {sentence(note.text)}" for note in marks)
        yield Draft("summary", "chapters", ask, told, 0.0, length, (), notes=places)


# -- events and their times --------------------------------------------------------------------------------------------


def understanding(plot: Plot) -> Iterator[Draft]:
    """Which of what the video shows happens in a certain part of it."""
    for place in plot.drawn(plot.seen):
        event = plot.events[place]
        if plot.full("understanding", "at"):
            return
        if plot.fit(place) and plot.alone(place):
            ask = plot.rng.choice(("Which of these happens from {}?", "What is shown from {}?"))
            others = plot.others(place, fit=plot.fit)  # what could never be right would be known to be wrong
            text = ask.format(span(event.start, event.end))
            yield Draft("understanding", "at", text, bare(event.text), event.start, event.end, (place,), others, True)


def heard(plot: Plot) -> Iterator[Draft]:
    """What is said in a part of the video."""
    for place in plot.drawn(plot.said):
        event = plot.events[place]
        if len(event.text.split()) >= 4 and event.end - event.start >= 1:
            ask = f"What is said from {span(event.start, event.end)}?"
            yield Draft("understanding", "said", ask, event.text, event.start, event.end, (place,))


def grounding(plot: Plot) -> Iterator[Draft]:
    """When something happens."""
    alone: dict[str, list[Draft]] = {"begins": [], "span": []}
    for place in plot.drawn(plot.seen):
        event = plot.events[place]
        if not plot.clear(place):
            continue
        name = bare(event.text)
        if event.open:
            kind, ask = "begins", f'At what time does this begin: "{name}"?'
        else:
            ask = plot.rng.choice(('When does this happen: "{}"?', 'From when to when does this happen: "{}"?'))
            kind, ask = "span", ask.format(name)
        draft = Draft("grounding", kind, ask, f"{when(event)}.", event.start, event.end, (place,))
        if plot.alone(place):
            alone[kind].append(draft)  # as an option it overlaps no other one
        else:
            yield draft
    for some in alone.values():
        yield from rounds(plot, some)


# -- how events stand to each other ------------------------------------------------------------------------------------


def neighbours(plot: Plot) -> Iterator[Draft]:
    """What comes right after and right before something, and between two things."""
    row = plot.row()
    for number in plot.drawn(range(len(row))):
        here = row[number]
        for kind, other in (("after", number + 1), ("before", number - 1)):
            if 0 <= other < len(row) and not plot.full("relationship", kind) and plot.clear(here):
                there = row[other]
                ask = f'What happens right {kind} this: "{bare(plot.events[here].text)}"?'
                yield _of(plot, kind, ask, there, (here, there))
        if number + 2 >= len(row) or plot.full("relationship", "between"):
            continue
        if plot.clear(here) and plot.clear(row[number + 2]):
            first, middle, last = row[number : number + 3]
            texts = bare(plot.events[first].text), bare(plot.events[last].text)
            ask = f'What happens between "{texts[0]}" and "{texts[1]}"?'
            yield _of(plot, "between", ask, middle, (first, middle, last))


def ends(plot: Plot) -> Iterator[Draft]:
    """What comes first and last of all."""
    row = plot.row()
    if len(row) >= 3:
        yield _of(plot, "first", "What is the first thing that happens in this video?", row[0], (row[0],))
        yield _of(plot, "last", "What is the last thing that happens in this video?", row[-1], (row[-1],))


def _of(plot: Plot, kind: str, ask: str, answer: int, events: tuple[int, ...]) -> Draft:
    """A question that one event answers; nothing that the question names is among its options."""
    some = [plot.events[place] for place in events]
    start, end = min(event.start for event in some), max(event.end for event in some)
    told = bare(plot.events[answer].text)
    return Draft("relationship", kind, ask, told, start, end, events, plot.others(*events))


def order(plot: Plot) -> Iterator[Draft]:
    """Which of two things came first; the one that is named first is so half the time."""
    row = plot.row()
    if len(row) < 2:
        return
    pairs = (sorted(plot.rng.sample(range(len(row)), 2)) for _ in range(TRIES * plot.each))
    for early, late in dict.fromkeys((one, other) for one, other in pairs):
        here, there = row[early], row[late]
        if plot.clear(here) and plot.clear(there):
            texts = [bare(plot.events[here].text), bare(plot.events[there].text)]
            named = texts if plot.rng.random() < 0.5 else texts[::-1]
            ask = ORDER.format(*named)
            span_of = plot.events[here].start, plot.events[there].end
            yield Draft("relationship", "order", ask, texts[0], *span_of, (here, there), (texts[1],))


# -- counts and changes ------------------------------------------------------------------------------------------------


def count(plot: Plot) -> Iterator[Draft]:
    """How often something happens; what happens once is only asked about beside what happens more often."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place in plot.seen:
        groups.setdefault(normal(plot.events[place].text), []).append(place)
    made = []
    for places in plot.rng.sample(list(groups.values()), len(groups)):
        event = plot.events[places[0]]
        if plot.unlike(places[0], places) and len(event.text.split()) <= QUOTED:
            ask = plot.rng.choice(('How many times does this happen: "{}"?', 'How often does this happen: "{}"?'))
            length = plot.film.video.duration
            made.append(
                Draft("count", "times", ask.format(bare(event.text)), str(len(places)), 0.0, length, tuple(places))
            )
    yield from (draft for draft in rounds(plot, made) if draft.answer != "1" or draft.others)


def scenes(plot: Plot) -> Iterator[Draft]:
    """When one thing gives way to the next."""
    row = plot.row()
    made = []
    for number in plot.drawn(range(len(row) - 1)):
        here, there = plot.events[row[number]], plot.events[row[number + 1]]
        close = -TOUCH <= there.start - here.end <= SCENE and not here.open
        if close and plot.clear(row[number]) and plot.clear(row[number + 1]):
            ask = f'At what time does "{bare(here.text)}" give way to "{bare(there.text)}"?'
            told = f"At {said_time(there.start)} seconds."
            places = row[number], row[number + 1]
            made.append(Draft("change", "scene", ask, told, here.start, there.end, places))
    yield from rounds(plot, made)


def things(plot: Plot) -> Iterator[Draft]:
    """When a thing comes into view first, and for the last time, where it was gone before."""
    met: dict[str, list[int]] = {}
    for place in plot.seen:
        for name in plot.events[place].entities:
            met.setdefault(name, []).append(place)
    texts = [f" {' '.join(words_of(event.text))} " for event in plot.events]
    appears, last_seen = [], []
    for name in plot.rng.sample(list(met), min(len(met), TRIES * plot.each)):
        words = f" {name} "
        where = [i for i, text in enumerate(texts) if words in text]
        if not set(where) <= set(met[name]) or len({plot.events[i].start for i in where}) < len(where):
            continue  # its words are in other names as well, or it is told of twice at once
        *before, last = where
        gone = max((plot.events[i].end for i in before), default=math.inf)
        if _at_once(plot.events[where[0]], texts[where[0]], words):
            appears.append(_thing(plot, "appears", f"At what time does the {name} first come into view?", where[0]))
        if plot.events[last].start - gone > SCENE and _at_once(plot.events[last], texts[last], words):
            ask = f"At what time does the {name} come into view for the last time?"
            last_seen.append(_thing(plot, "last_seen", ask, last))
    yield from rounds(plot, appears)
    yield from rounds(plot, last_seen)


def _at_once(event: Event, text: str, words: str) -> bool:
    """Whether a thing is seen from the beginning of an event on: it is short, or is told of this thing first of all."""
    return event.end - event.start <= BRIEF or set(text.split(words)[0].split()) <= set(DETERMINERS)


def _thing(plot: Plot, kind: str, ask: str, place: int) -> Draft:
    event = plot.events[place]
    told = f"At {said_time(event.start)} seconds."
    return Draft("change", kind, ask, told, event.start, event.end, (place,))


MAKERS: tuple[tuple[str, Callable[[Plot], Iterator[Draft]]], ...] = (
    *(("caption", whole), ("caption", segment), ("summary", summary)),
    *(("understanding", understanding), ("understanding", heard), ("grounding", grounding)),
    *(("relationship", neighbours), ("relationship", ends), ("relationship", order)),
    *(("count", count), ("change", scenes), ("change", things)),
)


def drafts(film: Film, families: Sequence[str], each: int, rng: random.Random) -> Iterator[Draft]:
    """Questions about a film: of each kind, up to ``each``."""
    plot = Plot(film, rng, each)
    for family, make in MAKERS:
        for draft in make(plot) if family in families else ():
            if not plot.full(draft.family, draft.kind):
                plot.made[draft.family, draft.kind] += 1
                yield draft
