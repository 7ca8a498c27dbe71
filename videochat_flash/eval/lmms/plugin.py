"""The model ``vcflash`` of lmms-eval, found by its entry point ``lmms_eval.models``. Nothing else imports lmms-eval."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from ... import session, show
from ...chat import Stopwatch
from ...config import Plan, check_plan
from ...failures import FAILURES, reason
from ..ask import Unanswered, settings_of
from ..run import IN_A_ROW
from ..together import Answer, Seen, begin, finish, seen
from .answers import keeping, key_of
from .messages import LOOKS, Medium, Wanted, plan_of, read_request, sampling_of

MODEL_ID = "vcflash"
VERSION = "lmms-eval 1"  # of how requests are put to the model


def manifest() -> ModelManifest:
    """What lmms-eval asks the entry point for: our model's name, and where its class is."""
    return ModelManifest(model_id=MODEL_ID, chat_class_path=f"{__name__}.{VideoChatFlashChat.__name__}")


@dataclass(frozen=True)
class Request:
    """A request of lmms-eval.

    Attributes:
        place: among all.
        wanted: what is to be answered.
        keep: its dropout.
        key: of its answer; empty where nothing is kept, and where something that is shown cannot be read.
    """

    place: int
    wanted: Wanted
    keep: Plan
    key: str


class VideoChatFlashChat(lmms):  # type: ignore[misc]
    """A model of ours as lmms-eval's chat tasks use it. What cannot be answered raises; it is never text.

    Args:
        pretrained: ``flash-tiny``, a released name, or a folder.
        revision: of a released name.
        device: None is ``cuda`` where there is one, else ``cpu``.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        cache: folder in which every answer is kept as it comes; a run that was stopped goes on from there.
        blind: leave all media out, to see what the words alone give away.
        batch_size: answers whose tokens are made at once. In half precision some may differ from those made alone.
        looks: max_frames, policy, fps, num_frames, keep, keep_by as in ``vcflash eval``; each goes before what a task
            says.

    Raises:
        FileNotFoundError: no such model.
        ValueError: arguments that cannot be.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "flash-tiny",
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        cache: str | None = None,
        blind: bool = False,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **looks: Any,
    ) -> None:
        super().__init__()
        unknown = sorted(set(looks) - set(LOOKS))
        if unknown:
            raise ValueError(
                f"{MODEL_ID} has no argument {', '.join(unknown)}; of frames and dropout: {', '.join(LOOKS)}"
            )
        if dtype not in session.DTYPES:
            raise ValueError(f"dtype {dtype!r} is not known: use {', '.join(session.DTYPES)}")
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(f"batch_size must be a number from 1 on, not {batch_size!r}")
        self.looks, self.blind, self.batch = looks, blind, int(batch_size)
        self.cache = None if cache is None else Path(cache)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self.accelerator = Accelerator()
            self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
            device = str(self.accelerator.device) if device in (None, "cuda") else device  # each has its own
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        sampling_of(looks)  # raises now for what cannot be, not after loading
        keep = plan_of(looks)
        self.vc = session.load(pretrained, revision, str(self.device), dtype, Stopwatch())
        check_plan(keep or (), self.vc.model.config.llm)
        self.settings = settings_of(self.vc, pretrained) | {"asked": VERSION, "batch": self.batch}
        self.last: tuple[object, Seen | Unanswered] | None = None

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers in the order of the requests.

        Raises:
            Unanswered: some could not be answered. With a ``cache`` all others are asked first, and kept.
            SystemExit: the same, where this is one of several processes: the launcher then ends them all.
            ValueError: messages or arguments that the model does not take.
        """
        with tempfile.TemporaryDirectory() as folder, keeping(self.cache, self.settings, self.rank) as (there, add):
            asked = self._read(requests, Path(folder))
            answers = {one.place: there[one.key] for one in asked if one.key in there}
            left = [one for one in asked if one.place not in answers]
            failed: list[str] = []
            failing = set[tuple[Medium, ...]]()
            with show.progress("asking", self.rank == 0) as told:
                for done, (one, answer) in enumerate(self._answers(left), 1):
                    if isinstance(answer, Unanswered):
                        failed.append(str(answer))
                        failing.add(one.wanted.media)
                        if self.cache is None or len(failing) == IN_A_ROW:
                            self._give_up(failed, len(requests))
                    else:
                        answers[one.place] = answer
                        if one.key:
                            add(one.key, answer)
                        failing.clear()
                    told(len(asked) - len(left) + done, len(asked), f"{len(failed)} failed" if failed else "")
            if failed:
                self._give_up(failed, len(requests))
        return [_result(answers.get(place)) for place in range(len(requests))]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Raises NotImplementedError: rounds that depend on earlier answers are not built."""
        raise NotImplementedError(f"{MODEL_ID} answers tasks of one round")

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Raises NotImplementedError: probabilities of given texts are not built."""
        raise NotImplementedError(f"{MODEL_ID} generates answers; it gives no probabilities of given ones")

    def _read(self, requests: Sequence[Instance], pictures: Path) -> list[Request]:
        """Every request that is not only there to make processes even; of a repeated one, each draws its own answer."""
        found, times, contents = [], Counter[tuple[str, object]](), dict[Path, str]()
        for place, one in enumerate(requests):
            _, to_messages, generation, doc, task, split = one.args
            if one.metadata.get("__padding_only__"):
                continue
            wanted = read_request(
                to_messages(self.task_dict[task][split][doc]), generation, self.looks, self.vc.decoding, pictures
            )
            if self.blind:
                wanted = replace(wanted, media=())
            if wanted.decoding.temperature:
                wanted = replace(wanted, decoding=replace(wanted.decoding, seed=times[task, doc]))
                times[task, doc] += 1
            keep = self.vc.model.config.keep if wanted.keep is None else wanted.keep
            check_plan(keep, self.vc.model.config.llm)
            try:
                key = "" if self.cache is None else key_of(wanted, keep, contents)
            except (ValueError, OSError):
                key = ""  # it is told when it is asked
            found.append(Request(place, wanted, keep, key))
        return found

    def _answers(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Answer | Unanswered]]:
        """Answers as they come: about one video after another, batch after batch."""
        for batch in _batches(_by_media(requests), self.batch):
            yield from zip(batch, self._batch(batch), strict=True)

    def _batch(self, batch: Sequence[Request]) -> list[Answer | Unanswered]:
        begun = {}
        found: dict[int, Answer | Unanswered] = {}
        decoding = batch[0].wanted.decoding
        for one in batch:
            try:
                begun[one.place] = begin(self.vc, self._seen(one), one.wanted.turns, one.keep, decoding)
            except FAILURES as error:
                found[one.place] = Unanswered(reason(error))
            except Unanswered as error:
                found[one.place] = error
        try:
            found |= dict(zip(begun, finish(self.vc, list(begun.values()), decoding) if begun else (), strict=True))
        except (RuntimeError, MemoryError) as error:
            why = reason(error)
            if len(batch) > 1:  # together they are too many
                return [answer for one in batch for answer in self._batch([one])]
            found[batch[0].place] = Unanswered(why)
        return [found[one.place] for one in batch]

    def _seen(self, request: Request) -> Seen:
        """What is seen of the media of a request; the last is remembered, one that cannot be seen as well."""
        known = request.wanted.media, request.keep
        if self.last is None or self.last[0] != known:
            self.last = None
            try:
                sights = [self.vc.see(medium.path, medium.sampling) for medium in request.wanted.media]
                self.last = known, seen(self.vc, sights, request.keep)
            except FAILURES as error:
                self.last = known, Unanswered(reason(error))
        if isinstance(self.last[1], Unanswered):
            raise self.last[1]
        return self.last[1]

    def _give_up(self, failed: Sequence[str], of: int) -> NoReturn:
        kept = (
            "name a cache=FOLDER to keep the others" if self.cache is None else f"the others are kept in {self.cache}"
        )
        told = f"{len(failed)} of {of} requests failed, nothing is scored, {kept}; the first: {failed[0]}"
        if self.world_size > 1:  # lmms-eval would catch all else, and leave the other processes waiting for this one
            raise SystemExit(f"{MODEL_ID}: {told}")
        raise Unanswered(told)


def _by_media(requests: Iterable[Request]) -> list[Request]:
    groups: dict[object, list[Request]] = {}
    for one in requests:
        groups.setdefault((one.wanted.media, one.keep), []).append(one)
    return [one for group in groups.values() for one in group]


def _batches(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    """In order, as many as ``size``; tokens of a batch are all chosen in one way."""
    batch: list[Request] = []
    for one in requests:
        if batch and (len(batch) == size or batch[0].wanted.decoding != one.wanted.decoding):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _result(answer: Answer | None) -> GenerationResult:
    """None is a request that only makes processes even."""
    if answer is None:
        return GenerationResult("")
    return GenerationResult(answer.text, TokenCounts(input_tokens=answer.rows, output_tokens=answer.tokens))
