"""ask: questions with answers about each film: by templates, by an endpoint, and about cards hidden in copies."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..journal import digest
from ..remote import Refused
from .answers import Answers, prompt, prompt_mark
from .hide import COPIES, MAKER, hidden, lost
from .records import Aside, Film, Question, is_text, question_id
from .settings import Ask, Setting
from .steps import Made, Step, Work
from .templates import VERSION, Draft, drafts, said_time

FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)
TOKENS = 120  # of a question with its answer, as an endpoint writes it
WRONG = 30  # of each wrong answer beside it
WRITTEN = ("understanding", "relationship", "count", "change", "summary")  # families that an endpoint writes of
MOST_EVENTS = 400  # of a time line that is sent


def step(setting: Setting) -> Step:
    """The step."""
    mark: dict[str, Any] = {"version": VERSION, **vars(setting.ask)}
    if setting.ask.needles:
        mark["cards"] = [MAKER, *sorted(_without_needles(setting))]
    if setting.ask.endpoint:
        mark |= {"model": setting.endpoint.model, "prompt": prompt_mark("questions")}
        mark["tokens"] = most_tokens(setting.ask)
    return Step("ask", mark, partial(worker, setting), lost=lost)


def worker(setting: Setting) -> Work:
    """Asks about one film; makes a second one where cards are hidden in it."""
    ask = setting.ask
    answers = Answers(setting) if ask.endpoint else None
    none = _without_needles(setting)

    def work(film: Film) -> Made:
        asked = list(by_templates(film, ask))
        asides: list[Aside] = []
        entries = 0
        if answers and film.events and set(WRITTEN) & set(ask.families):
            more, bad = _by_endpoint(film, ask, answers)
            asked, asides, entries = [*asked, *more], bad, len(more) + len(bad)
        films = [replace(film, questions=tuple({one.id: one for one in asked}.values()))]
        wanted = {"needle", "hops"} & set(ask.families)
        some = ask.needles and wanted and film.video.kind == "video" and film.video.source not in none
        if some and int(film.video.key, 16) % ask.needles == 0:
            try:
                films.append(hidden(film, ask, Path(setting.out) / COPIES))
            except ValueError as error:  # too short or too small; its other questions stand
                asides.append(Aside("ask", "rejected", film.video.path, f"no cards are hidden in it: {error}"))
        return Made(tuple(films), tuple(asides), entries)

    return work


def _without_needles(setting: Setting) -> set[str]:
    """Sources in whose videos no cards are hidden."""
    return {source.label for source in setting.source if not source.needles}


def by_templates(film: Film, ask: Ask) -> Iterator[Question]:
    """Questions that need no model; the same for the same film, seed and settings."""
    rng = random.Random(digest(["ask", ask.seed, film.video.key]))
    for draft in drafts(film, ask.families, ask.each, rng):
        options = options_of(draft, ask, rng)
        if options or not draft.closed:
            yield question(film, draft, options, f"{VERSION} {draft.family}.{draft.kind}")


def options_of(draft: Draft, ask: Ask, rng: random.Random) -> tuple[str, ...]:
    """The options of a question, the right one anywhere among them; none if it is to be asked without."""
    others = tuple(one for one in dict.fromkeys(draft.others) if one != draft.answer)[: ask.options - 1]
    if not others or not (draft.closed or rng.random() < ask.choices):
        return ()
    shown = [draft.answer, *others]
    rng.shuffle(shown)
    return tuple(shown)


def question(film: Film, draft: Draft, options: Sequence[str], maker: str) -> Question:
    """A draft with its name, options and maker."""
    return Question(
        question_id(film.video, draft.question, draft.answer),
        draft.family,
        draft.kind,
        draft.question,
        draft.answer,
        round(draft.start, 3),
        round(draft.end, 3),
        maker,
        tuple(options),
        draft.events,
        draft.notes,
    )


# -- by an endpoint ----------------------------------------------------------------------------------------------------


def _by_endpoint(film: Film, ask: Ask, answers: Answers) -> tuple[list[Question], list[Aside]]:
    """What an endpoint asks of a time line; what is no question is kept aside."""
    families = [family for family in WRITTEN if family in ask.families]
    words = prompt("questions").format(
        duration=said_time(film.video.duration),
        events=told(film),
        count=ask.endpoint,
        families=", ".join(families),
        wrong=ask.options - 1,
    )
    maker = f"{answers.model} {prompt_mark('questions')}"
    place = f"{film.video.path} {maker}"
    try:
        reply = answers.ask({"video": film.video.key}, list, words, most_tokens(ask))
    except Refused as error:
        return [], [Aside("ask", "entry", place, str(error))]
    made: list[Question] = []
    asides: list[Aside] = []
    try:
        entries = parse_list(reply.text)
    except ValueError as error:
        entries, why = [], str(error)
        if reply.finish == "length":
            entries = whole_entries(reply.text)
            why = f"the reply was cut off at {most_tokens(ask)} tokens, behind {len(entries)} whole questions"
        asides.append(Aside("ask", "entry", place, why, reply.text))
    rng = random.Random(digest(["written", ask.seed, film.video.key]))
    for number, entry in enumerate(entries):
        try:
            draft = _draft(film, entry, families)
            made.append(question(film, draft, options_of(draft, ask, rng), maker))
        except ValueError as error:
            asides.append(Aside("ask", "entry", f"{place} question {number}", str(error), json.dumps(entry)))
    return made, asides


def told(film: Film) -> str:
    """A time line as a prompt has it; of a very long one, evenly spread events."""
    every = max(1, -(-len(film.events) // MOST_EVENTS))
    return "\n".join(
        f"{place}. {said_time(event.start)} to {said_time(event.end)} s, {event.sort}: {event.text}"
        for place, event in list(enumerate(film.events))[::every]
    )


def most_tokens(ask: Ask) -> int:
    """Of a reply: wrong answers are written beside each question."""
    return (TOKENS + WRONG * (ask.options - 1)) * ask.endpoint


def parse_list(text: str) -> list[Any]:
    """The JSON list that a reply is.

    Raises:
        ValueError: it is none.
    """
    text = text.strip()
    fenced = FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except json.JSONDecodeError:
        raise ValueError("the endpoint wrote prose, no JSON list") from None
    if not isinstance(value, list):
        raise ValueError("the endpoint wrote JSON, but no list")
    return value


def whole_entries(text: str) -> list[Any]:
    """The entries of a JSON list that breaks off, without the one within which it does."""
    _, _, rest = text.partition("[")
    entries, rest = [], rest.lstrip()
    with suppress(json.JSONDecodeError):
        while rest.startswith("{"):
            entry, end = json.JSONDecoder().raw_decode(rest)
            entries.append(entry)
            rest = rest[end:].lstrip().removeprefix(",").lstrip()
    return entries


def _draft(film: Film, entry: Any, families: Sequence[str]) -> Draft:
    """Raises ValueError where an entry is no question."""
    if not isinstance(entry, dict):
        raise ValueError("a question is a JSON object")
    texts = [entry.get(name) for name in ("family", "question", "answer")]
    family, ask, answer = (str(one).strip() if isinstance(one, str | int) else "" for one in texts)
    places = entry.get("events")
    if family not in families or not ask or not answer:
        raise ValueError(f"family, question or answer is missing, or family is none of {', '.join(families)}")
    wrong = entry.get("wrong", [])
    if not isinstance(wrong, list) or not all(isinstance(one, str | int) for one in wrong):
        raise ValueError(f"wrong {wrong!r} is no list of answers")
    if not all(is_text(str(one)) for one in (ask, answer, *wrong)):
        raise ValueError("it holds half a character")
    if not isinstance(places, list) or not places or not all(_is_place(one, film) for one in places):
        raise ValueError(f"events {places!r} are no numbers of events")
    some = [film.events[place] for place in places]
    span = min(event.start for event in some), max(event.end for event in some)
    return Draft(family, "written", ask, answer, *span, tuple(places), tuple(str(one).strip() for one in wrong))


def _is_place(value: object, film: Film) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(film.events)
