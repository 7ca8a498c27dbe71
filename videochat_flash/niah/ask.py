"""Asks a model in this process: from a spliced Sight, through a real mp4, or as the reference asks."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch

from .. import steady, weights
from ..chat import VideoChatFlash, check_device
from ..config import Plan, Yarn
from ..failures import out_of_memory
from ..generate import Decoding, prefill
from ..prefix import Beginning, Prefix, begin, prepare
from ..prompt import IGNORE, IM_END, IM_START, Prompt, control
from ..remote import Refused
from ..session import decoder_mark, to_the_end
from ..sight import Sight
from ..video import CLIP
from . import compat
from .film import Splicer, seen
from .place import Film, length_of, shown
from .results import LIMITS
from .suite import Suite, Trial

PROMPTS = "strict 1"  # version of the wording and of what is around it
CACHE = "cache"  # folder of Sights in a suite's
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Said:
    """An answer: its text as it came, why it ended, and how long the prompt was."""

    text: str
    finish: str = ""
    rows: int = 0


def limits(tokens: int | None) -> tuple[int, int]:
    """New tokens at most, where words are asked for and where a letter is.

    Raises:
        ValueError: less than one.
    """
    if tokens is not None and tokens < 1:
        raise ValueError(f"--max-new-tokens must be at least 1, not {tokens}")
    return LIMITS if tokens is None else (tokens, tokens)


@runtime_checkable
class Asker(Protocol):
    """Answers trials. ``settings`` is all that its answers depend on, ``facts`` what else is worth knowing."""

    settings: dict[str, object]
    facts: dict[str, object]

    def __call__(self, trial: Trial) -> Said:
        """Raises Unanswered where there is no answer, ValueError where going on makes no sense."""
        ...


@dataclass(frozen=True)
class Loading:
    """Which model, and how it is held."""

    name: str = weights.EMBEDDED
    revision: str | None = None
    device: str = "cpu"
    dtype: torch.dtype | None = None
    yarn: float | None = None


def load(how: Loading) -> VideoChatFlash:
    """A model, with another YaRN factor than its config's where one is asked for.

    Raises:
        FileNotFoundError: no such model.
        ValueError: weights that do not fit, or a device that is not there.
    """
    if how.yarn is None:
        return VideoChatFlash.from_pretrained(
            how.name, revision=how.revision, dtype=how.dtype, device=how.device, steps=steady.steps
        )
    check_device(how.device)
    folder = weights.find(how.name, how.revision)
    config = weights.read_config(folder)
    before = config.llm.yarn.original_max_positions if config.llm.yarn else config.llm.max_positions
    config = replace(config, llm=replace(config.llm, yarn=Yarn(how.yarn, before)))
    model = weights.load_model(folder, config, how.dtype, how.device)
    if how.dtype is None and how.device == "cpu":
        model.suit_cpu()
    return VideoChatFlash(model, weights.read_tokenizer(folder), weights.read_decoding(folder), steady.steps)


class Ours:
    """A model of ours. Films of one haystack follow each other: its Sight is held until another one's turn.

    Args:
        vc: the model.
        how: it was loaded.
        suite: whose trials it is to answer.
        keep: dropout; None is the model's own, and in compat none at all, as in the reference.
        pixels: send every film through an mp4 and the tower anew, instead of splicing.
        told: frames of haystacks that were seen, of how many.
        share: run what films of a haystack begin with through the decoder once; it takes memory.
        tokens: new ones at most; None is LIMITS.

    Raises:
        ValueError: pixels in compat.
    """

    def __init__(
        self,
        vc: VideoChatFlash,
        how: Loading,
        suite: Suite,
        keep: Plan | None,
        pixels: bool,
        told: Told,
        share: bool = True,
        tokens: int | None = None,
    ) -> None:
        compatible = suite.setting.mode == "compat"
        if compatible and pixels:
            raise ValueError("compat splices as the reference does: leave out --pixels")
        self.vc, self.suite, self.pixels, self.told = vc, suite, pixels, told
        self.limits = limits(tokens)
        self.share = share and not pixels
        self.plan: Plan = (() if compatible else vc.model.config.keep) if keep is None else keep
        llm = vc.model.config.llm
        self.settings: dict[str, object] = {
            "transport": "pixels" if pixels else "splice",
            "model": how.name,
            "revision": how.revision or "",
            "tower": vc.made_by,
            "decoder": decoder_mark(vc),
            "dtype": str(vc.model.dtype).removeprefix("torch."),
            "keep": [[drop.layer, drop.ratio, drop.by] for drop in self.plan],
            "yarn": llm.yarn.factor if llm.yarn else 1.0,
            "prompt": "compat" if compatible else PROMPTS,
            "max_new_tokens": list(self.limits),
        }
        self.facts: dict[str, object] = {"device": how.device, "window": llm.limit // vc.model.config.tokens_per_frame}
        self.held: tuple[int, Splicer] | None = None
        self.last: tuple[tuple[int, Film], Sight] | None = None
        self.begun: Prefix | None = None  # of the last film, where anything of it is used more than once
        self.beginning: tuple[tuple[int, int], Beginning | None] | None = None  # of the haystack and length in turn
        self.uses = Counter((trial.haystack, trial.film) for trial in suite.trials)

    def __call__(self, trial: Trial) -> Said:
        """Raises Refused where memory does not suffice."""
        try:
            return self._compat(trial) if trial.mode == "compat" else self._strict(trial)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise Refused(f"out of memory: {error}") from None

    def ready(self) -> None:
        """See all haystacks now, as far as films show them."""
        for number in range(0 if self.pixels else len(self.suite.stacks)):
            self.splicer(number)

    def splicer(self, number: int) -> Splicer:
        """Of a haystack that was seen as far as any film of the suite needs it."""
        if self.held is None or self.held[0] != number:
            folder = self.suite.folder / CACHE
            needed = [self.suite.needed(one) for one in range(len(self.suite.stacks))]
            before, total = sum(needed[:number]), sum(needed)
            self.held = (
                number,
                Splicer(self.vc, self.suite.scenery(number), folder, lambda done, _: self.told(before + done, total)),
            )
            if not self.pixels:  # compat cuts through clips; elsewhere a cut one is seen with its needle
                whole = needed[number] // CLIP * CLIP
                self.held[1].haystack(needed[number] if self.suite.setting.mode == "compat" else whole)
        return self.held[1]

    def _strict(self, trial: Trial) -> Said:
        sight = self._film(trial.haystack, trial.film) if trial.film else None
        how = Decoding(max_new_tokens=self.limits[trial.lettered], eos=self.vc.decoding.eos)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "[0-9]+ rows are beyond")  # the command says it once, for all films
            begun = self._begun(trial, sight) if sight is not None else None
            pieces = self.vc.reply(sight, trial.prompt, keep=self.plan, decoding=how, prefix=begun)
        reply = to_the_end(pieces)
        return Said(reply.text, "length" if reply.cut else "stop", reply.rows)

    def _begun(self, trial: Trial, sight: Sight) -> Prefix | None:
        """A film up to its questions, where there are several or where the film begins as others of its haystack."""
        if self.begun is None:
            beginning = self._beginning(trial.haystack, trial.length)
            if beginning is not None or self.uses[trial.haystack, trial.film] > 1:
                self.begun = prepare(self.vc, sight, keep=self.plan, beginning=beginning)
        return self.begun

    def _beginning(self, number: int, length: int) -> Beginning | None:
        """What films of a haystack and a length may begin with; None where there is a single one, or no memory."""
        place = number, length
        if self.beginning is None or self.beginning[0] != place:
            self.beginning = None  # before the next one takes its memory
            films = {one.film for one in self.suite.trials if (one.haystack, one.length) == place and one.film}
            clips = max(map(shown, films), default=0) // CLIP
            self.beginning = place, self._shared(number, clips) if self.share and len(films) > 1 and clips else None
        return self.beginning[1]

    def _shared(self, number: int, clips: int) -> Beginning | None:
        stack = self.splicer(number).haystack(clips * CLIP)[:clips]
        try:
            return begin(self.vc, stack, keep=self.plan)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            warnings.warn("memory does not suffice for what films share: each is asked about alone", stacklevel=2)
            return None

    def _film(self, number: int, film: Film) -> Sight:
        """What the model sees of a film; the last one is remembered, since several questions follow each other."""
        if self.last is None or self.last[0] != (number, film):
            splicer = self.splicer(number)
            frames = splicer.scenery.frames(film)
            sight = seen(self.vc, frames, length_of(film)) if self.pixels else splicer.film(film)
            self.last, self.begun = ((number, film), sight), None
        return self.last[1]

    def _compat(self, trial: Trial) -> Said:
        """The likeliest token behind the reference's prompt: no generation, no time behind the video."""
        rows = self.splicer(trial.haystack).rows(trial.film).to(self.vc.model.device, self.vc.model.dtype)
        prompt = compat_prompt(self.vc, trial.prompt)
        begun = prefill(self.vc.model, [prompt], [[rows]], self.plan)
        token = int(begun.logits[0].argmax())
        length = len(prompt.ids) + begun.visual[0]  # of the film, and the newline row of models that have one
        return Said(self.vc.tokenizer.decode([token], skip_special_tokens=False), "", length)


def compat_prompt(vc: VideoChatFlash, question: str) -> Prompt:
    """The reference's layout: the video's rows stand between the user's header and the question.

    Raises:
        ValueError: a tokenizer that is not of the Qwen chat family.
    """
    before, after = _tokens(vc, compat.BEFORE), [*_tokens(vc, question, True), *_tokens(vc, compat.AFTER)]
    ids = (*before, *after)
    return Prompt(ids, (IGNORE,) * len(ids), (len(before),))


def _tokens(vc: VideoChatFlash, text: str, plain: bool = False) -> list[int]:
    """Token ids of a text whose control tokens are obeyed, or, ``plain``, read as the characters they are."""
    if plain:
        return list(vc.tokenizer.encode(text, add_special_tokens=False).ids)
    ids: list[int] = []
    for start, piece in enumerate(text.split(IM_START)):
        ids += [control(vc.tokenizer, IM_START)] if start else []
        for end, words in enumerate(piece.split(IM_END)):
            ids += [control(vc.tokenizer, IM_END)] if end else []
            ids += list(vc.tokenizer.encode(words, add_special_tokens=False).ids) if words else []
    return ids
