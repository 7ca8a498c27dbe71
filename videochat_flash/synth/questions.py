"""Questions about a scene whose answers follow from what it shows, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from videochat_flash.synth.scene import Event, Scene
from videochat_flash.synth.world import COLOURS, DIGITS, SHAPES, Card, Item, Mover, Pointer, Rng, pick


@dataclass(frozen=True)
class Question:
    """A question, its one right answer, and from when to when the video has to be seen to know it.

    Questions of the same ``chain``, named by the card at which it starts, belong together: only who answers all of
    them right has followed its pointers. ``hops`` is how many there are to follow. ``way`` is what leads to the
    answer, as the cards of a chain or when each of two came: who says it first has one thing to look up at a time.
    """

    question: str
    answer: str
    kind: str
    seconds: tuple[float, float]
    chain: str = ""
    hops: int = 0
    way: tuple[str, ...] = ()

    @property
    def thought(self) -> str:
        """The answer behind the way that leads to it: ``the green star, the blue square, nothing: 7``."""
        return f"{', '.join(self.way)}: {self.answer}" if self.way else self.answer


TEMPLATES: dict[str, tuple[str, ...]] = {
    "character": (
        "What {sort} is on the {thing}?",
        "Which {sort} does the {thing} show?",
        "Read the {sort} on the {thing}.",
        "There is a {sort} on the {thing}. Which one?",
    ),
    "colour": (
        "What colour is the shape with {a_sign}?",
        "Which colour is the card with the {sign}?",
        "Name the colour of the shape that has the {sign} on it.",
        "What is the colour of the shape showing {a_sign}?",
    ),
    "shape": (
        "What shape has the {sign} on it?",
        "Which shape is the card with {a_sign}?",
        "On what shape is the {sign}?",
        "What is the shape of the card showing the {sign}?",
    ),
    "presence": (
        "Is there {a_thing}?",
        "Does {a_thing} appear in the video?",
        "Can {a_thing} be seen at any time?",
        "Does the video show {a_thing}?",
    ),
    "motion": (
        "Which way does the {thing} move?",
        "In which direction does the {thing} move?",
        "Where is the {thing} heading: left, right, up or down?",
        "The {thing} moves across the frame. Which way?",
    ),
    "speed": (
        "Does the {thing} move slowly or fast?",
        "How does the {thing} move, slowly or fast?",
        "Is the {thing} moving slowly or fast?",
    ),
    "order": (
        "Which came first, the {thing} or the {other}?",
        "Which was shown earlier, the {thing} or the {other}?",
        "What appeared first: the {thing} or the {other}?",
    ),
    "description": (
        "Describe the card with the {sign}.",
        "Describe the shape that shows {a_sign}.",
        "What does the card with {a_sign} look like?",
    ),
}
KINDS = tuple(TEMPLATES)
ATTRIBUTES = ("character", "colour", "shape")
CARD_KINDS = (*ATTRIBUTES, "description")  # about one card

# Kinds that are asked only where they are named.
LEADS = (
    "Start at the {thing} and follow the pointers.",
    "Go from the {thing} to the card that it points at, and so on to the end.",
    "The {thing} points at another card: go on until no card points on.",
)
HOP_TEMPLATES = {
    "hop_character": ("What character is on the last card?", "Which character does the last card show?"),
    "hop_colour": ("What colour is the last card?", "Name the colour of the last card."),
    "hop_shape": ("What shape is the last card?", "Name the shape of the last card."),
}
GROUNDING_TEMPLATES = (
    "When is the {thing} shown?",
    "From when to when is the {thing} on screen?",
    "During which seconds can the {thing} be seen?",
    "At what time does the {thing} appear, and when is it gone?",
)
POINTER_TEMPLATES = (
    "What does the {thing} point at?",
    "Which thing does the {thing} point to?",
    "Is the {thing} pointing at another thing, and at which?",
)
HOPS = tuple(HOP_TEMPLATES)
EXTRA_KINDS = (*HOPS, "grounding", "pointer")
ALL_KINDS = (*KINDS, *EXTRA_KINDS)


def ask(rng: Rng, scene: Scene, kinds: Sequence[str], count: int) -> list[Question]:
    """Up to ``count`` different questions, taking the kinds in turn; fewer where the scene has no more to ask."""
    unknown = [kind for kind in kinds if kind not in MAKERS]
    if unknown:
        raise ValueError(f"kinds {unknown} are not known: use some of {', '.join(ALL_KINDS)}")
    piles = [_shuffled(rng, MAKERS[kind](rng, scene)) for kind in _shuffled(rng, dict.fromkeys(kinds))]
    asked: list[Question] = []
    while any(piles) and len(asked) < count:
        asked += [pile.pop() for pile in piles if pile]
    return asked[:count]


def thing(colour: str, shape: str) -> str:
    """What a card or mover is called."""
    return f"{colour} {shape}"


def _the(what: Card | Mover | Pointer) -> str:
    """What an answer calls a card or mover, or what is pointed at: ``the orange star``."""
    return f"the {thing(what.colour, what.shape)}"


def with_article(words: str) -> str:
    """``an orange star``, ``a 7``, ``an 8``, ``an F``: the article as the words are spoken."""
    spoken = words[0] in "8AEFHLM" if len(words) == 1 else words[0] in "aeiou"
    return f"{'an' if spoken else 'a'} {words}"


def sort_of(character: str) -> str:
    """Whether a character is a digit or a letter."""
    return "digit" if character in DIGITS else "letter"


def _shuffled(rng: Rng, items: Iterable[Item]) -> list[Item]:
    listed = list(items)
    return [listed[i] for i in rng.permutation(len(listed)).tolist()]


def _say(rng: Rng, kind: str, event: Event, other: Event | None = None) -> str:
    """One of the kind's templates, filled in for an event (and a second one)."""
    what = event.what
    name = thing(what.colour, what.shape)
    words = {"thing": name, "a_thing": with_article(name)}
    if isinstance(what, Card):
        words |= {"sort": sort_of(what.character), "sign": what.character, "a_sign": with_article(what.character)}
    if other is not None:
        words["other"] = thing(other.what.colour, other.what.shape)
    return pick(rng, TEMPLATES[kind]).format(**words)


def _of_cards(kind: str, answer: Callable[[Card], str]) -> Callable[[Rng, Scene], list[Question]]:
    """A maker of one question about every card."""

    def make(rng: Rng, scene: Scene) -> list[Question]:
        return [
            Question(_say(rng, kind, event), answer(event.what), kind, (event.start, event.end))
            for event in scene.events
            if isinstance(event.what, Card)
        ]

    return make


def _of_movers(kind: str, answer: Callable[[Mover], str]) -> Callable[[Rng, Scene], list[Question]]:
    """A maker of one question about every mover."""

    def make(rng: Rng, scene: Scene) -> list[Question]:
        return [
            Question(_say(rng, kind, event), answer(event.what), kind, (event.start, event.end))
            for event in scene.events
            if isinstance(event.what, Mover)
        ]

    return make


def _describe(card: Card) -> str:
    sort = sort_of(card.character)
    return f"{with_article(thing(card.colour, card.shape)).capitalize()} with the {sort} {card.character}."


def _presence(rng: Rng, scene: Scene) -> list[Question]:
    """As many yes as no. Each no shares its colour or its shape with something shown; half of them, where things shown
    can be recombined, both with two of them, so that seeing the colour and the shape is not enough.

    What is pictured as a pointer is not called absent. The way to each answer is the thing shown that is most like it.
    """
    shown = {(event.what.colour, event.what.shape) for event in scene.events} | pointed_at(scene)
    absent: set[tuple[str, str]] = set()
    questions: list[Question] = []
    for event in scene.events:
        colour, shape = event.what.colour, event.what.shape
        text = _say(rng, "presence", event)
        way = (_the(event.what),)
        questions.append(Question(text, "yes", "presence", (event.start, event.end), way=way))
        near = [(colour, one) for one in SHAPES] if rng.random() < 0.5 else [(one, shape) for one in COLOURS]
        mixed = [(one.what.colour, other.what.shape) for one in scene.events for other in scene.events]
        free = [pair for pair in near if pair not in shown | absent]
        nearer = [pair for pair in mixed if pair not in shown | absent]
        free = nearer if nearer and rng.random() < 0.5 else free
        if not free:
            continue
        pair = pick(rng, free)
        absent.add(pair)
        text = pick(rng, TEMPLATES["presence"]).format(a_thing=with_article(thing(*pair)))
        way = (_like(scene, *pair),)
        questions.append(Question(text, "no", "presence", (0.0, scene.duration), way=way))
    return questions


def _like(scene: Scene, colour: str, shape: str) -> str:
    """The first thing shown of that colour; where there is none, of that shape."""
    whats = [event.what for event in scene.events]
    near = [one for one in whats if one.colour == colour] + [one for one in whats if one.shape == shape]
    return _the(near[0])


def _order(rng: Rng, scene: Scene) -> list[Question]:
    """One question about every two events; which of them is named first says nothing. The way is when each came.

    Of what is pictured as a pointer as well it is not asked: that could be called shown twice.
    """
    questions = []
    goals = pointed_at(scene)
    events = [event for event in scene.events if (event.what.colour, event.what.shape) not in goals]
    for i, early in enumerate(events):
        for late in events[i + 1 :]:
            named = (early, late) if rng.random() < 0.5 else (late, early)
            way = tuple(f"{_the(one.what)} at {ceil(one.start)}" for one in named)
            text, span = _say(rng, "order", *named), (early.start, late.end)
            questions.append(Question(text, _the(early.what), "order", span, way=way))
    return questions


def _pointer(rng: Rng, scene: Scene) -> list[Question]:
    """One question about every card, named as a thing or by its character: what it points at, shown or not, or nothing.

    Cards without a pointer are asked about in the same words: following a chain means knowing where it ends.
    """
    questions = []
    for event in scene.cards:
        assert isinstance(event.what, Card)
        names = thing(event.what.colour, event.what.shape), f"card with the {event.what.character}"
        text = pick(rng, POINTER_TEMPLATES).format(thing=pick(rng, names))
        answer = _the(event.what.points) if event.what.points else "nothing"
        questions.append(Question(text, answer, "pointer", (event.start, event.end)))
    return questions


def _hops(kind: str, answer: Callable[[Card], str]) -> Callable[[Rng, Scene], list[Question]]:
    """A maker of one question about every chain, in the same words for all: none of them is marked as a decoy.

    The way is what each card points at, the last one at nothing.
    """

    def make(rng: Rng, scene: Scene) -> list[Question]:
        words = f"{pick(rng, LEADS)} {pick(rng, HOP_TEMPLATES[kind])}"
        questions = []
        for members in chains(scene):
            last = scene.events[members[-1]].what
            assert isinstance(last, Card)
            seen = [scene.events[i] for i in members]
            span = min(event.start for event in seen), max(event.end for event in seen)
            first, *ahead = (event.what for event in seen)
            name, way = thing(first.colour, first.shape), (*map(_the, ahead), "nothing")
            questions.append(Question(words.format(thing=name), answer(last), kind, span, name, len(ahead), way))
        return questions

    return make


def pointed_at(scene: Scene) -> set[tuple[str, str]]:
    """Colour and shape of everything at which a card of the scene points."""
    points = [event.what.points for event in scene.events if isinstance(event.what, Card)]
    return {(one.colour, one.shape) for one in points if one is not None}


def chains(scene: Scene) -> list[tuple[int, ...]]:
    """The events of every whole chain, from an indicator at which no card points to the card that ends it."""
    goals = pointed_at(scene)
    starts = [i for i, one in enumerate(scene.events) if (one.what.colour, one.what.shape) not in goals]
    return [chain for chain in map(scene.chain, starts) if len(chain) > 1]


def _grounding(rng: Rng, scene: Scene) -> list[Question]:
    """When each event is on screen, in the whole seconds at which it is: at one frame a second, its frames decide.

    Of what is pictured as a pointer as well it is not asked: that could be called shown twice.
    """
    questions = []
    goals = pointed_at(scene)
    for event in scene.events:
        if (event.what.colour, event.what.shape) in goals:
            continue
        text = pick(rng, GROUNDING_TEMPLATES).format(thing=thing(event.what.colour, event.what.shape))
        said = f"From {ceil(event.start)} to {ceil(event.end)} seconds."
        questions.append(Question(text, said, "grounding", (event.start, event.end)))
    return questions


MAKERS: dict[str, Callable[[Rng, Scene], list[Question]]] = {
    "character": _of_cards("character", lambda card: card.character),
    "colour": _of_cards("colour", lambda card: card.colour),
    "shape": _of_cards("shape", lambda card: card.shape),
    "presence": _presence,
    "motion": _of_movers("motion", lambda mover: mover.direction),
    "speed": _of_movers("speed", lambda mover: mover.speed),
    "order": _order,
    "description": _of_cards("description", _describe),
    "hop_character": _hops("hop_character", lambda card: card.character),
    "hop_colour": _hops("hop_colour", lambda card: card.colour),
    "hop_shape": _hops("hop_shape", lambda card: card.shape),
    "grounding": _grounding,
    "pointer": _pointer,
}
