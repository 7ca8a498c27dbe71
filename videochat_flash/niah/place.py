"""Where needles go: a film as parts of haystack and needles, in frames. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..synth.world import Rng
from ..video import CLIP

MARGIN = 0.02  # of a haystack, at both ends, where no card of a chain is shown
GAP = CLIP  # frames of haystack between two cards of a chain, at least


@dataclass(frozen=True)
class Part:
    """Frames that follow each other in a film.

    Attributes:
        needle: which needle is shown, or "" for the haystack itself.
        first: the first haystack frame; of a needle the one that it is drawn over.
        count: how many frames.
    """

    needle: str
    first: int
    count: int


Film = tuple[Part, ...]
Ref = tuple[str, int, int]  # needle or "", frame of it, haystack frame behind it


def length_of(film: Film) -> int:
    """Frames of a film."""
    return sum(part.count for part in film)


def shown(film: Film) -> int:
    """How many of a haystack's frames have to be there for a film."""
    return max((part.first + part.count for part in film if not part.needle), default=0)


def refs(film: Film) -> Iterator[Ref]:
    """Every frame of a film."""
    for part in film:
        for i in range(part.count):
            yield ("", part.first + i, 0) if not part.needle else (part.needle, i, part.first)


def depth_at(length: int, depth: float, step: int = 1) -> int:
    """Haystack frames before a needle: ``int(depth * length)`` as in the reference, down to a multiple of ``step``."""
    return int(depth * length) // step * step


def spread_over(length: int, count: int, step: int, rng: Rng) -> list[int]:
    """Haystack frames before each of ``count`` cards: one draw in each of as many equal shares, ascending.

    Args:
        length: haystack frames.
        count: cards.
        step: cuts are multiples of this; CLIP keeps the clips of the haystack whole.
        rng: of the draws.

    Raises:
        ValueError: no room for the cards with haystack around and between them.
    """
    edge, gap = max(GAP, int(MARGIN * length)), -(-GAP // step)
    first = -(-edge // step)
    free = (length - edge) // step - first - gap * (count - 1)  # places that are left when every gap is taken
    if free < 0:
        raise ValueError(
            f"{length} frames of haystack have no room for {count} cards with {GAP} frames around each of them: "
            "use longer films, fewer hops or fewer decoys"
        )
    shares = [free * i // count for i in range(count + 1)]
    drawn = [int(rng.integers(low, high + 1)) for low, high in zip(shares, shares[1:], strict=False)]
    return [(first + at + gap * i) * step for i, at in enumerate(sorted(drawn))]


def with_needles(length: int, cuts: Sequence[int], needles: Sequence[str], hold: int) -> Film:
    """A film of ``length`` haystack frames with a needle of ``hold`` frames behind each cut.

    A needle is drawn over the haystack frame that was shown last; at the beginning, over the first one.
    """
    film, at = [], 0
    for cut, needle in zip(cuts, needles, strict=True):
        if cut > at:
            film.append(Part("", at, cut - at))
        film.append(Part(needle, max(0, cut - 1), hold))
        at = cut
    if length > at:
        film.append(Part("", at, length - at))
    return tuple(film)


def whole_clips(film: Film) -> Film:
    """The film cut to whole clips at its end."""
    left, kept = length_of(film) // CLIP * CLIP, []
    for part in film:
        count = min(part.count, left)
        if count:
            kept.append(Part(part.needle, part.first, count))
        left -= count
    return tuple(kept)
