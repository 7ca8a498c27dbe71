"""Which trials there are: the grid of single needles, chains, and the controls of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..looks import hash_of, looks_like, near_duplicates
from ..video import CLIP
from . import compat, items, place
from .draws import rng_of
from .film import picture
from .haystack import Haystack, hashes
from .items import Item, Needle, Question
from .lists import read_list
from .place import Film, Part
from .suite import Setting, Suite, Trial, assets_of, open_stack, save_suite

CONTROL_DEPTH = 0.5  # of single needles in controls: the depth of the grid that is nearest to it


def build(folder: Path, setting: Setting, told: Callable[[int, int], None]) -> Suite:
    """Write a suite: haystacks are looked through once, for near-duplicates; no model is needed.

    Args:
        folder: of the suite.
        setting: what it is built from.
        told: frames that were looked at, of how many.

    Raises:
        FileNotFoundError: a list or one of its images is missing.
        VideoError: a haystack that cannot be read.
        ValueError: one that is too short, films that are too short for what they are to show, or a picture that looks
            like a frame of the haystack.
    """
    listed = (
        read_list(Path(setting.needles), Path(setting.images) if setting.images else None) if setting.needles else []
    )
    _fits(setting, listed)
    drawn = listed or _drawn(setting)
    stacks = [open_stack(setting, number) for number in range(len(setting.haystacks))]
    trials = [one.named() for one in Builder(setting, stacks, drawn).trials()]
    if not trials:
        raise ValueError("no trial is asked for: single needles need --depths")
    needles = {name_of(item, i): one for item in drawn for i, one in enumerate(item.needles)}
    shown = [_shown(setting, stack, trials, number) for number, stack in enumerate(stacks)]
    facts = []
    for number, stack in enumerate(stacks):
        own = [trial for trial in trials if trial.haystack == number]
        found = hashes(stack, shown[number], _onward(told, sum(shown[:number]), sum(shown)))
        facts.append(_facts(setting, stack, own, needles, shown[number], found))
    return save_suite(folder, setting, facts, needles, trials)


def _fits(setting: Setting, listed: Sequence[Item]) -> None:
    """Raises ValueError where a list cannot be asked as the setting says."""
    official = [bool(question.exact) for item in listed for question in item.questions]
    if setting.mode == "compat" and not all(official):
        raise ValueError(f"{setting.needles} is no official list, which --compat needs: leave out --compat")
    if setting.way == "words" and any(official):
        raise ValueError(f"the questions of {setting.needles} choose among options: ask with --ask letters")


def _onward(told: Callable[[int, int], None], before: int, total: int) -> Callable[[int], None]:
    """Tells of one haystack's frames among those of all."""
    return lambda seen: told(before + seen, total)


def name_of(item: Item, index: int) -> str:
    """A needle's name."""
    return f"{item.id}/{index}"


def _drawn(setting: Setting) -> list[Item]:
    singles, stacks = range(setting.items if setting.depths else 0), len(setting.haystacks)
    some = [items.single(setting.seed, n, setting.way, stacks) for n in singles]
    for hops in setting.hops:
        some += [items.multi(setting.seed, n, hops, setting.decoys, setting.way) for n in range(setting.items)]
    return some


def _shown(setting: Setting, stack: Haystack, trials: Sequence[Trial], number: int) -> int:
    """Frames of a haystack that films show; ValueError where it has fewer."""
    count = max((place.shown(one.film) for one in trials if one.haystack == number), default=0)
    stack.need(-(-count // CLIP) * CLIP if setting.mode == "compat" else count)  # compat cuts through whole clips
    return count


def _facts(
    setting: Setting,
    stack: Haystack,
    own: Sequence[Trial],
    needles: dict[str, Needle],
    shown: int,
    found: NDArray[np.uint64],
) -> dict[str, Any]:
    """What the report tells of a haystack.

    Raises:
        ValueError: a picture that looks like one of its frames.
    """
    names = dict.fromkeys(part.needle for trial in own for part in trial.film if part.needle)
    for needle in (needles[name] for name in names):
        if setting.mode == "strict" and needle.picture and _hidden(needle, stack.size, found):
            raise ValueError(f"image {needle.picture} looks like a frame of haystack {stack.name}: use another one")
    unique = len(found) if setting.mode == "strict" else len({i for one in own for i in _frames(one.film)})
    return {
        "name": stack.name,
        "digest": stack.digest,
        "size": list(stack.size),
        "unique": unique,
        "repeated": shown > len(found) or _repeats(own),
        "near_duplicates": near_duplicates(found),
    }


def _frames(film: Film) -> Iterator[int]:
    for part in film:
        if not part.needle:
            yield from range(part.first, part.first + part.count)


def _repeats(trials: Sequence[Trial]) -> bool:
    """Whether a film shows a frame of the haystack twice."""
    longest = max(trials, key=lambda one: place.length_of(one.film), default=None)
    shown = list(_frames(longest.film)) if longest else []
    return len(set(shown)) < len(shown)


def _hidden(needle: Needle, size: tuple[int, int], found: NDArray[np.uint64]) -> bool:
    """Whether a picture, as films show it, could not be told from the haystack."""
    return looks_like(hash_of(picture(needle, size)), found)


class Builder:
    """Lists the trials of a setting.

    Args:
        setting: what the suite is built from.
        stacks: its haystacks; items are dealt out to them in turn.
        listed: its items.
    """

    def __init__(self, setting: Setting, stacks: Sequence[Haystack], listed: Sequence[Item]) -> None:
        self.setting, self.stacks, self.listed = setting, stacks, listed
        self.needles = {name_of(item, i): one for item in listed for i, one in enumerate(item.needles)}
        self.step = CLIP if setting.align == "clip" else 1
        rows = max(compat.REQUESTED, *setting.lengths)
        self.rows = compat.haystack_rows(rows, setting.duplicate) if setting.mode == "compat" else []

    def trials(self) -> Iterator[Trial]:
        """All of them: the grid by length, then the controls."""
        for length in self.setting.lengths:
            for number, item in enumerate(self.listed):
                for depth in self._depths(length) if item.suite == "single" else (None,):
                    yield from self._asked(item, number, length, depth, "", self._film(item, length, depth))
        if self.setting.mode == "strict":
            yield from self._controls()

    def _depths(self, length: int) -> tuple[float, ...]:
        """Those of a setting; ValueError where two of them are the same film, which would be asked twice."""
        found: dict[int, float] = {}
        for depth in self.setting.depths:
            other = found.setdefault(self._cut(length, depth), depth)
            if other != depth:
                finer = ", or --align frame" if self.setting.mode == "strict" and self.step > 1 else ""
                raise ValueError(
                    f"--depths {other:g} and {depth:g} are one place in {length} frames: "
                    f"use longer films or fewer --depths{finer}"
                )
        return self.setting.depths

    def _cut(self, length: int, depth: float) -> int:
        """Haystack frames before a single needle."""
        if self.setting.mode == "compat":
            return compat.single_cut(length, depth)
        return place.depth_at(self._free(length, 1), depth, self.step)

    def _free(self, length: int, count: int) -> int:
        """Haystack frames of a film; ValueError where so many needles leave none."""
        free = length - self.setting.hold * count
        if free < CLIP:
            raise ValueError(
                f"{length} frames have no room for {count} needles of {self.setting.hold} frames in a haystack: "
                "use longer films, or a shorter --hold"
            )
        return free

    def _controls(self) -> Iterator[Trial]:
        """On the first items of each kind, at the shortest length."""
        length = min(self.setting.lengths)
        for suite, hops in dict.fromkeys((item.suite, item.hops) for item in self.listed):
            if suite == "single" and not self.setting.depths:
                continue
            group = [(i, item) for i, item in enumerate(self.listed) if (item.suite, item.hops) == (suite, hops)]
            for place_in, (number, item) in enumerate(group[: self.setting.controls]):
                other = group[(place_in + 1) % len(group)][1]
                depth = min(self.setting.depths, key=_off_middle) if suite == "single" else None
                for name, film in self._changed(item, other, length, depth):
                    yield from self._asked(item, number, length, depth, name, film)

    def _changed(self, item: Item, other: Item, length: int, depth: float | None) -> Iterator[tuple[str, Film]]:
        """The films of an item's controls."""
        whole = self._film(item, length, depth)
        shown = range(len(item.needles))
        yield "C0", ()
        yield "C1", _without(whole, {name_of(item, i) for i in shown})
        names = [name_of(item, i) for i in shown]
        yield "C2", place.whole_clips(tuple(Part(name, 0, max(CLIP, self.setting.hold)) for name in names))
        if other.id != item.id:
            yield "C3", _renamed(whole, item, other)
        if item.suite == "multi" and item.hops:
            # Of every chain the same one: where one alone were broken, its end would be known as the one left over.
            middle = {chain[(item.hops - 1) // 2] for chain in (item.chain, *item.decoys)}
            yield "C5", _without(whole, {name_of(item, i) for i in middle})
            yield "C6", _without(whole, {name_of(item, i) for i in shown if i != item.chain[-1]})
        if item.flipped:
            yield "C7", whole

    def _film(self, item: Item, length: int, depth: float | None) -> Film:
        names = [name_of(item, i) for i in range(len(item.needles))]
        if self.setting.mode == "compat":
            cuts = [self._cut(length, depth)] if depth is not None else compat.multi_cuts(length, len(names))
            return compat.film(cuts, self.rows[:length], names)
        free = self._free(length, len(names))
        if depth is not None:
            cuts = [self._cut(length, depth)]
        else:
            rng = rng_of(self.setting.seed, "places", item.id, length, self.step)
            cuts = place.spread_over(free, len(names), self.step, rng)
        return place.with_needles(free, cuts, names, self.setting.hold)

    def _asked(
        self, item: Item, number: int, length: int, depth: float | None, control: str, film: Film
    ) -> Iterator[Trial]:
        """A trial for each question and order of letters."""
        stack = number % len(self.stacks)
        questions = item.flipped if control == "C7" else item.questions
        for question in questions:
            for rotation in range(min(self.setting.rotations, len(question.options))):
                turned = self._turned(question, item, rotation)
                yield Trial(
                    suite=item.suite,
                    control=control,
                    item=item.id,
                    role=question.role,
                    kind=question.kind,
                    asked=len(questions),
                    haystack=stack,
                    stack=self.stacks[stack].digest,
                    length=length,
                    depth=depth,
                    hops=item.hops,
                    rotation=rotation,
                    film=film,
                    assets=assets_of(film, self.needles),
                    prompt=turned.exact or items.wording(turned, self.setting.way),
                    options=turned.options,
                    answer=turned.answer,
                    lettered=bool(turned.exact) or self.setting.way == "letters",
                    guess=question.guess,
                    mode=self.setting.mode,
                )

    def _turned(self, question: Question, item: Item, rotation: int) -> Question:
        if self.setting.mode == "compat":
            return question
        plain = replace(question, exact="")
        return items.ordered(plain, self.setting.seed, item.id, rotation, self.setting.way)


def _off_middle(depth: float) -> float:
    return abs(depth - CONTROL_DEPTH)


def _without(film: Film, names: set[str]) -> Film:
    """The film without some needles, in whole clips."""
    return place.whole_clips(tuple(part for part in film if part.needle not in names))


def _renamed(film: Film, item: Item, other: Item) -> Film:
    """The film with another item's needles in the same places."""
    names = {name_of(item, i): name_of(other, i % len(other.needles)) for i in range(len(item.needles))}
    return tuple(replace(part, needle=names[part.needle]) if part.needle else part for part in film)
