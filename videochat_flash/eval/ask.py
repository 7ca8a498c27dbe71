"""Asks a model in this process: questions about one video share what was seen of it, and the prompt up to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from ..chat import VideoChatFlash
from ..config import Plan
from ..facts import plan_text
from ..failures import FAILURES, reason
from ..prompt import Turn
from ..session import decoder_mark
from ..video import Sampling
from .items import Item
from .prompts import Wording, prompt
from .together import Seen, begin, finish, seen

NEW_TOKENS = {"choice": 16, "reference": 64, "interval": 50, "judged": 1024}  # at most, of answers
IN_WORDS = {**NEW_TOKENS, "choice": NEW_TOKENS["reference"]}  # without letters: words, and the way that leads to them
PROMPTS = "eval 1"  # version of the wording


@dataclass(frozen=True)
class Said:
    """An answer as it came, and how long the prompt was."""

    text: str
    rows: int = 0


class Unanswered(Exception):
    """A question that failed: recorded, never scored, and asked again by the next run."""


@runtime_checkable
class Asker(Protocol):
    """Answers questions. ``settings`` is all that its answers depend on, ``facts`` what else is worth knowing."""

    settings: dict[str, object]
    facts: dict[str, object]

    def __call__(self, item: Item, blind: bool) -> Said:
        """Answer with the video, or ``blind``, from the text alone. Raises Unanswered where there is no answer."""
        ...


@dataclass(frozen=True)
class How:
    """How questions are asked.

    Attributes:
        wording: of prompts.
        benchmark: whose wording ``paper`` is.
        sampling: which frames; a row's own start and end go before.
        keep: dropout; None is the model's own.
        new_tokens: at most, of an answer; None is enough for its kind.
    """

    wording: Wording = "full"
    benchmark: str = "mvbench"
    sampling: Sampling = Sampling()
    keep: Plan | None = None
    new_tokens: int | None = None


def settings_of(vc: VideoChatFlash, name: str) -> dict[str, object]:
    """By what a model is known: two trainings of one name are two models."""
    dtype = str(vc.model.dtype).removeprefix("torch.")
    return {"model": name, "tower": vc.made_by, "decoder": decoder_mark(vc), "dtype": dtype}


class Ours:
    """A model of ours, taking the likeliest token always.

    Args:
        vc: the model.
        name: what it was loaded by.
        how: questions are asked.
        facts: what else is worth knowing.
    """

    def __init__(self, vc: VideoChatFlash, name: str, how: How, facts: dict[str, object]) -> None:
        self.vc, self.how, self.facts = vc, how, facts
        self.plan: Plan = vc.model.config.keep if how.keep is None else how.keep
        usual = IN_WORDS if how.wording == "question" else NEW_TOKENS
        self.limits = dict.fromkeys(usual, how.new_tokens) if how.new_tokens else usual
        self.settings: dict[str, object] = {
            **settings_of(vc, name),
            "keep": plan_text(self.plan),
            "frames": {name: value for name, value in vars(how.sampling).items() if value is not None},
            "prompt": how.wording if how.wording != "paper" else f"paper ({how.benchmark})",
            "prompts": PROMPTS,
            "new_tokens": how.new_tokens or usual,
        }
        self.last: tuple[object, Seen | Unanswered] | None = None

    def __call__(self, item: Item, blind: bool) -> Said:
        """Raises Unanswered for a video that cannot be seen, a prompt too long, and where memory does not suffice."""
        what = Seen((), None) if blind else self._seen(item)
        decoding = replace(self.vc.decoding, max_new_tokens=self.limits[item.kind], temperature=0.0)
        turns = [Turn("user", prompt(item, self.how.wording, self.how.benchmark))]
        try:
            (answer,) = finish(self.vc, [begin(self.vc, what, turns, self.plan, decoding)], decoding)
        except FAILURES as error:
            raise Unanswered(reason(error)) from None
        return Said(answer.text, answer.rows)

    def _seen(self, item: Item) -> Seen:
        """What the model sees of a video; the last one is remembered, one that cannot be seen as well."""
        if self.last is None or self.last[0] != item.look:
            self.last = None
            sampling = replace(self.how.sampling, start=item.start, end=item.end)
            try:
                self.last = (item.look, seen(self.vc, [self.vc.see(item.video, sampling)], self.plan))
            except FAILURES as error:
                self.last = (item.look, Unanswered(reason(error)))
        found = self.last[1]
        if isinstance(found, Unanswered):
            raise found
        return found
