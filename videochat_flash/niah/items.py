"""Needles and what is asked of them, drawn from synth's world: neither memorised nor guessable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..grade import LETTERS
from ..synth import (
    ATTRIBUTES,
    CHARACTERS,
    COLOURS,
    DIGITS,
    SHAPES,
    Card,
    Event,
    Pointer,
    Scene,
    Style,
    ask,
    random_chain,
    random_style,
    random_what,
)
from ..synth import LETTERS as SIGNS
from ..synth.questions import LEADS, sort_of, thing, with_article
from ..synth.world import Rng, pick
from .draws import rng_of

SECONDS = 4.0  # that a card's scene lasts: longer than any needle is held
ALL = 1_000  # more questions than a scene has
CHOICES = 4  # options with letters
CAPTION = "Which card is the last one?"
Role = Literal["single", "cap", "qa"]
Way = Literal["words", "letters"]


@dataclass(frozen=True)
class Needle:
    """What is shown: a card, a picture, or a code.

    Attributes:
        card: colour, shape, character, and of an indicator colour and shape that it points at; else empty.
        seed: of a card's look.
        picture: a file.
        sha256: of the picture's bytes.
        code: characters to read back.
    """

    card: tuple[str, ...] = ()
    seed: int = 0
    picture: str = ""
    sha256: str = ""
    code: str = ""

    def drawn(self) -> tuple[Card, Style]:
        """The card and its look."""
        colour, shape, character, *pointer = self.card
        card = Card(colour, shape, character, Pointer(*pointer) if pointer else None)
        return card, random_style(rng_of(self.seed, "style"), card)


@dataclass(frozen=True)
class Question:
    """A question with one right answer.

    Attributes:
        role: ``single``, or of a chain ``cap`` (what the last frame shows) or ``qa`` (a detail of it).
        kind: what is asked, as ``colour``.
        text: without options.
        options: what may be answered.
        answer: index of the right option.
        guess: how often one is right who sees everything but follows no pointer, or who only guesses.
        exact: of an official list, its own words, options and all.
    """

    role: Role
    kind: str
    text: str
    options: tuple[str, ...]
    answer: int
    guess: float
    exact: str = ""


@dataclass(frozen=True)
class Item:
    """Needles that are shown together, and what is asked.

    Attributes:
        id: unique in its suite.
        suite: ``single`` or ``multi``.
        hops: pointers to follow.
        needles: in the order in which they are shown.
        chain: indices of the true chain's needles, the last one being the answer.
        decoys: the same of the other chains.
        questions: what is asked.
        flipped: the same questions from the start of a decoy chain, answered by its end.
    """

    id: str
    suite: Literal["single", "multi"]
    hops: int
    needles: tuple[Needle, ...]
    chain: tuple[int, ...]
    questions: tuple[Question, ...]
    flipped: tuple[Question, ...] = ()
    decoys: tuple[tuple[int, ...], ...] = ()


def kind_of(seed: int, number: int, stacks: int) -> str:
    """What a single card is asked for: its colour, its shape or its character, as often as each other.

    Items are dealt out to the haystacks in turn, so kinds are shuffled in blocks in which each haystack has every kind
    once; of the first so many items, which controls are made of, no kind has more than two more than another.
    """
    turn, stack = divmod(number, stacks)
    block, place = divmod(turn, len(ATTRIBUTES))
    order = rng_of(seed, "kinds", block).permutation(len(ATTRIBUTES)).tolist()
    return ATTRIBUTES[order[(place + stack) % len(ATTRIBUTES)]]


def single(seed: int, number: int, way: Way, stacks: int = 1) -> Item:
    """One card, asked for its colour, its shape or its character; ``stacks`` haystacks are in the suite."""
    name = f"single-{number:04d}"
    rng = rng_of(seed, "item", name)
    card = random_what(rng, moving=False)
    assert isinstance(card, Card)
    needle = _needle(rng, card)
    kind = kind_of(seed, number, stacks)
    [asked] = ask(rng, _scene([needle]), (kind,), 1)
    known = {"colour": COLOURS, "shape": SHAPES, "character": DIGITS if card.character in DIGITS else SIGNS}[kind]
    options = [str(one) for one in known]
    if way == "letters":
        others = [one for one in options if one != asked.answer]
        kept = {asked.answer, *(others[i] for i in rng.permutation(len(others))[: CHOICES - 1].tolist())}
        options = [one for one in options if one in kept]
    answer = options.index(asked.answer)
    told = [_shown(one) for one in options] if way == "letters" else options
    question = Question("single", kind, asked.question, tuple(told), answer, 1 / len(options))
    return Item(name, "single", 0, (needle,), (0,), (question,))


def multi(seed: int, number: int, hops: int, decoys: int, way: Way) -> Item:
    """A chain of indicator cards and as long decoys, in random order, with the same questions for any of them."""
    name = f"multi-{hops}-{number:04d}"
    rng = rng_of(seed, "item", name, decoys)
    cards: list[Card] = []
    for _ in range(decoys + 1):
        drawn = random_chain(rng, hops, cards)
        while not hops and cards and sort_of(drawn[0].character) != sort_of(cards[0].character):
            drawn = random_chain(rng, hops, cards)  # "which digit" would tell it from a letter
        cards += drawn
    order = rng.permutation(len(cards)).tolist()
    needles = [_needle(rng, cards[i]) for i in order]
    chains = [cards[i : i + hops + 1] for i in range(0, len(cards), hops + 1)]
    asked = _questions(rng, chains, needles, way)
    place = {card: order.index(i) for i, card in enumerate(cards)}
    chain, *others = (tuple(place[card] for card in cards) for cards in chains)
    return Item(name, "multi", hops, tuple(needles), chain, asked[0], asked[1] if decoys else (), tuple(others))


def _questions(
    rng: Rng, chains: Sequence[Sequence[Card]], needles: Sequence[Needle], way: Way
) -> list[tuple[Question, ...]]:
    """What is asked of each chain, in the same words for all of them."""
    starts, ends = [chain[0] for chain in chains], [chain[-1] for chain in chains]
    names = [thing(card.colour, card.shape) for card in starts]
    guess = 1 / len(chains)
    kinds: tuple[str, ...]
    if len(chains[0]) == 1:  # nothing to follow: the card that is named is the one that is asked about
        kinds, words = ("character",), _direct(rng, needles, names)
    elif way == "words":
        kinds, words = ATTRIBUTES, _followed(rng, needles, names)
    else:
        kinds, words = ("caption", "character"), _lettered(rng, names)
    told: list[tuple[Question, ...]] = []
    for number, end in enumerate(ends):
        questions = []
        for kind in kinds:
            if way == "words":
                options, answer = _vocabulary(kind), _value(kind, end)
            else:
                options, answer = _realised(rng, kind, end, chains), _shown(_value(kind, end))
            share = max(guess, 1 / len(options)) if way == "letters" else guess
            role: Role = "qa" if kind == "character" else "cap"
            questions.append(Question(role, kind, words[kind][number], options, options.index(answer), share))
        told.append(tuple(questions))
    return told


def _direct(rng: Rng, needles: Sequence[Needle], names: Sequence[str]) -> dict[str, list[str]]:
    asked = [one.question for one in ask(rng, _scene(needles), ("character",), ALL)]
    return {"character": [next(text for text in asked if name in text) for name in names]}


def _followed(rng: Rng, needles: Sequence[Needle], names: Sequence[str]) -> dict[str, list[str]]:
    words = {}
    for kind in ATTRIBUTES:
        asked = {one.chain: one.question for one in ask(rng, _scene(needles), (f"hop_{kind}",), ALL)}
        words[kind] = [asked[name] for name in names]
    return words


def _lettered(rng: Rng, names: Sequence[str]) -> dict[str, list[str]]:
    lead = pick(rng, LEADS)
    asked = {"caption": CAPTION, "character": "What is on the last card?"}
    return {kind: [f"{lead.format(thing=name)} {words}" for name in names] for kind, words in asked.items()}


def _value(kind: str, card: Card) -> str:
    if kind == "caption":
        return with_article(thing(card.colour, card.shape))
    return {"colour": card.colour, "shape": card.shape, "character": card.character}[kind]


def _vocabulary(kind: str) -> tuple[str, ...]:
    return {"colour": COLOURS, "shape": SHAPES, "character": CHARACTERS}[kind]


def _realised(rng: Rng, kind: str, end: Card, chains: Sequence[Sequence[Card]]) -> tuple[str, ...]:
    """Options that are all in the video: those of the chains' ends first, then of their other cards."""
    ends = [chain[-1] for chain in chains if chain[-1] != end]
    rest = [card for chain in chains for card in chain[:-1]]
    shown = [end, *ends, *(rest[i] for i in rng.permutation(len(rest)).tolist())]
    values = list(dict.fromkeys(_shown(_value(kind, card)) for card in shown))[:CHOICES]
    return tuple(values[i] for i in rng.permutation(len(values)).tolist())


def _shown(value: str) -> str:
    """An option that is no bare letter: such a one could be taken for an option's own letter."""
    return f"the {sort_of(value)} {value}" if len(value) == 1 else value


def _needle(rng: Rng, card: Card) -> Needle:
    pointer = (card.points.colour, card.points.shape) if card.points else ()
    return Needle((card.colour, card.shape, card.character, *pointer), int(rng.integers(2**31)))


def _scene(needles: Sequence[Needle]) -> Scene:
    """A scene of these cards one after the other, to ask questions of."""
    events = [Event(SECONDS * i, SECONDS, *needle.drawn()) for i, needle in enumerate(needles)]
    return Scene(SECONDS * len(events), 1.0, tuple(events))


def ordered(question: Question, seed: int, item: str, rotation: int, way: Way) -> Question:
    """The question with its options in the order in which they get letters: drawn, then turned."""
    if way == "words":
        return question
    count = len(question.options)
    drawn = rng_of(seed, "letters", item, question.kind).permutation(count).tolist()
    order = [drawn[(i + rotation) % count] for i in range(count)]
    options = tuple(question.options[i] for i in order)
    return replace(question, options=options, answer=order.index(question.answer))


def wording(question: Question, way: Way) -> str:
    """What is sent: the question alone, or with lettered options."""
    if way == "words":
        return question.text
    lines = [f"({letter}) {words}" for letter, words in zip(LETTERS, question.options, strict=False)]
    return "\n".join([question.text, "Options:", *lines, "Answer with the letter of the best option only."])
