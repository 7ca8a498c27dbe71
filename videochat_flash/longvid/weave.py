"""weave: notes -> one time line of events: joined, without doubles, in order, with what they have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Literal

from .records import Event, Note
from .settings import Setting, Weave
from .steps import Made, Step, Work

VERSION = 2
SEEN = ("narration", "step", "caption", "card")
DETERMINERS = ("a", "an", "the", "his", "her", "their", "its", "another", "some", "this", "that", "two", "three")
# Words that end a name, beside what looks like a verb: prepositions, conjunctions, pronouns, auxiliaries.
STOPS = re.compile(
    "of|in|on|at|to|into|onto|from|with|without|for|by|over|under|near|beside|behind|before|after|during|across|through|"
    "up|down|out|off|around|along|between|against|and|or|but|while|as|then|than|that|which|who|whose|when|where|is|are|"
    "was|were|be|been|being|has|have|had|do|does|did|can|could|will|would|may|might|must|not|no|it|he|she|they|we|you|i|"
    "him|them|us|me|there|here|very|also|still|again|both|each|every|all|any|other|one"
)
VAGUE = re.compile(
    "bit|front|back|left|right|side|top|bottom|end|beginning|way|lot|time|video|camera|wearer|thing|something"
)
LIKE = 0.7  # share of the words of either text in common, from which on they could be taken for each other
HELD = 0.9  # share of a text's words in a longer one, from which on that tells the same and more
VERBAL = re.compile(r".+(?:ing|ed|izes|ises)$")
MOST_WORDS = 3  # of an entity
MEET = 0.05  # seconds between events that meet, and between the beginnings of those that begin together, at most


def step(setting: Setting) -> Step:
    """The step."""
    return Step("weave", {"version": VERSION, **vars(setting.weave)}, partial(worker, setting.weave))


def worker(weave: Weave) -> Work:
    """Weaves one film."""
    return lambda film: Made((replace(film, events=time_line(film.notes, weave)),))


def time_line(notes: Sequence[Note], weave: Weave) -> tuple[Event, ...]:
    """The events of a film, by when they begin; chapters, summaries and shots are no events."""
    seen = [_event(note, place, "seen") for place, note in enumerate(notes) if note.kind in SEEN]
    said = [_event(note, place, "said") for place, note in enumerate(notes) if note.kind == "speech"]
    events = sorted(_once(seen, weave) + _joined(said, weave), key=lambda event: (event.start, event.end, event.text))
    return _linked(events)


def _event(note: Note, place: int, sort: Literal["seen", "said"]) -> Event:
    return Event(note.start, note.end, note.text, sort, (place,), open=note.open)


def _once(events: Sequence[Event], weave: Weave) -> list[Event]:
    """Events that overlap or meet and say the same are one, told in the longest of their texts.

    Two whose ends are guessed only meet because of that: what is told twice, one after the other, happened twice.
    """
    kept: list[Event] = []
    for event in sorted(events, key=lambda event: (event.start, event.end)):
        near = (
            place
            for place in range(len(kept) - 1, max(-1, len(kept) - 9), -1)
            if event.start <= kept[place].end + MEET
            and not (event.open and kept[place].open and event.start > kept[place].start + MEET)
            and alike(kept[place].text, event.text) >= weave.same
        )
        place = next(near, None)
        if place is None:
            kept.append(event)
        else:
            kept[place] = _both(kept[place], event, max(kept[place].text, event.text, key=len))
    return kept


def _joined(events: Sequence[Event], weave: Weave) -> list[Event]:
    """Speech with no silence between, up to the end of a sentence or the longest event."""
    kept: list[Event] = []
    for event in events:
        last = kept[-1] if kept else None
        ended = last is None or last.text.rstrip().endswith((".", "!", "?", "\u2026"))
        if last and not ended and event.start - last.end <= weave.gap and event.end - last.start <= weave.longest:
            kept[-1] = _both(last, event, f"{last.text} {event.text}")
        else:
            kept.append(event)
    return kept


def _both(one: Event, other: Event, text: str) -> Event:
    notes = tuple(sorted({*one.notes, *other.notes}))
    last = max(one, other, key=lambda event: event.end)
    return replace(one, start=min(one.start, other.start), end=last.end, text=text, notes=notes, open=last.open)


@lru_cache(maxsize=4096)  # a film's texts are compared with each other again and again
def normal(text: str) -> tuple[str, ...]:
    """The words that tell one text from another."""
    return tuple(word for word in re.findall(r"\w+", text.casefold()) if word not in ("a", "an", "the"))


def alike(one: str, other: str) -> float:
    """Share of the words of either text that both have, 0 to 1."""
    return shared(Counter(normal(one)), Counter(normal(other)))


def shared(one: Counter[str], other: Counter[str]) -> float:
    """The same of counted words."""
    both = sum(min(number, other[word]) for word, number in one.items())
    either = one.total() + other.total() - both
    return both / either if either else 1.0


def like(one: Counter[str], other: Counter[str]) -> bool:
    """Whether two texts, by their words, could be taken for each other: most are the same, or one tells the other with
    something more."""
    both = sum(min(number, other[word]) for word, number in one.items())
    either, least = one.total() + other.total() - both, min(one.total(), other.total())
    return not either or both / either >= LIKE or (least > 0 and both / least >= HELD)


def words_of(text: str) -> list[str]:
    """Words as entities have them."""
    return "".join(c if c.isalnum() or c in "'-_" else " " for c in text.casefold()).split()


# -- what events have in common ----------------------------------------------------------------------------------------


def _linked(events: Sequence[Event]) -> tuple[Event, ...]:
    """Events with the things that they name."""
    return tuple(replace(event, entities=entities(event.text)) if event.sort == "seen" else event for event in events)


def entities(text: str) -> tuple[str, ...]:
    """Things that a text names: up to three words behind ``a``, ``the`` or the like, up to a word that is no part of a
    name. A rule of the eye, not of grammar: what it finds is used only where the same words come back."""
    found: list[str] = []
    for clause in re.split(r"[.,;:!?()\"]", text):
        words = re.findall(r"[\w'-]+", clause)
        place = 0
        while place < len(words):
            if words[place].casefold() not in DETERMINERS:
                place += 1
                continue
            phrase = _phrase(words[place].casefold(), [word.casefold() for word in words[place + 1 :]])
            place += 1 + len(phrase)
            name = " ".join(phrase)
            if phrase and not VAGUE.fullmatch(phrase[-1]) and name not in found:
                found.append(name)
    return tuple(found)


def _phrase(determiner: str, words: Sequence[str]) -> list[str]:
    """The words of a name; none where it cannot be told from a verb: ``the red cards``, ``the dog runs``."""
    phrase: list[str] = []
    for word in words[:MOST_WORDS]:
        if STOPS.fullmatch(word) or word in DETERMINERS or (phrase and VERBAL.fullmatch(word)):
            break
        if phrase and word.endswith("s") and not word.endswith(("ss", "us")):
            return phrase if determiner in ("a", "an") else []
        phrase.append(word)
    return phrase
