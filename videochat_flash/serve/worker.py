"""The process that owns the model. Requests are done in small steps, in turns, so that none waits for another's end.

A step is a batch of clips that passes the tower, a prompt that passes the decoder, or a piece of an answer. Steps of
those that see and of those that answer alternate: a question about something known waits for one batch of clips and the
prompts before its own. Messages are lines of JSON on a socket; videos and Sights lie on disk.
"""

from __future__ import annotations

import math
import os
import queue
import secrets
import threading
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ..chat import Reply, Stopwatch, VideoChatFlash
from ..config import Plan, check_plan, parse_plan
from ..evidence import look
from ..failures import out_of_memory
from ..generate import Decoding
from ..model import VideoChatFlashModel
from ..prefix import Prefix, prepare
from ..prompt import Turn, render
from ..sight import Sight
from ..video import Sampling
from .limits import Limits
from .refuse import Refused
from .sandbox import Reading
from .shelf import Shelf

Message = dict[str, Any]
VIDEOS, SHARE = 8, 4  # prefixes that are kept if nobody says, within a fourth of what is free behind the weights
TEXT = 256  # rows of a prompt before and between its videos, at most


@dataclass(frozen=True)
class Step:
    """What a request does next, and whether it can."""

    kind: Literal["see", "answer"]
    ready: Callable[[], bool] = lambda: True


ANSWER = Step("answer")
Steps = Generator[Step, None, None]


class Cancelled(Exception):
    """Nobody waits for this any more."""


@dataclass
class Job:
    """A request on its way.

    Attributes:
        id: of the request.
        ask: media, turns, decoding, stop, keep, evidence.
        told: what is told at its end: numbers of frames and tokens, what was reused.
        next: the step that is next.
    """

    id: str
    ask: Message
    watch: Stopwatch = field(default_factory=Stopwatch)
    told: Message = field(default_factory=lambda: {"sights_reused": 0, "frames_seen": 0})
    next: Step = ANSWER
    steps: Steps | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def heed(self, *_: object) -> None:
        """Raises Cancelled if nobody waits any more: between layers, too."""
        if self.cancelled.is_set():
            raise Cancelled


class Prefixes:
    """Beginnings of prompts in memory, the least recently used forgotten first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[tuple[tuple[str, ...], Plan], Prefix] = {}

    @property
    def bytes(self) -> int:
        """Of all."""
        return sum(prefix.bytes for prefix in self._held.values())

    def get(self, keys: tuple[str, ...], plan: Plan) -> Prefix | None:
        """Of these Sights, with this dropout."""
        found = self._held.pop((keys, plan), None)
        if found is not None:
            self._held[keys, plan] = found
        return found

    def put(self, keys: tuple[str, ...], plan: Plan, prefix: Prefix) -> None:
        """One that is larger than all may be is not kept."""
        if prefix.bytes > self.limit:
            return
        while self._held and self.bytes + prefix.bytes > self.limit:
            self._held.pop(next(iter(self._held)))
        self._held[keys, plan] = prefix


def room_for_prefixes(model: VideoChatFlashModel, limits: Limits, free: int) -> int:
    """Bytes of beginnings that are kept if nobody says: those of VIDEOS that are as long as may be asked about, with
    nothing dropped; but no more than a share of what is free."""
    return min(free // SHARE, VIDEOS * longest_prefix(model, limits))


def longest_prefix(model: VideoChatFlashModel, limits: Limits) -> int:
    """Bytes of the beginning of a prompt about as many frames as may be asked about."""
    config, llm = model.config, model.config.llm
    rows = math.ceil(limits.frames / config.vision.clip_frames) * config.clip_tokens + TEXT
    one = torch.zeros(llm.kv_heads, 1, llm.head_width, dtype=model.dtype, device=model.device)
    (cache := model.decoder.cache()).extend(one, one)
    return rows * (llm.layers * cache.bytes + llm.width * model.dtype.itemsize)


def free_memory(device: torch.device) -> int:
    """Bytes that nobody holds, of a GPU or of this machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    told = Path("/proc/meminfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    if kilobytes is None:  # no Linux: half of all there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return kilobytes * 1024


class Worker:
    """A model and the requests that it works on.

    Args:
        vc: the model.
        limits: what requests may cost.
        sights: where Sights are kept.
        send: told every message.
    """

    def __init__(self, vc: VideoChatFlash, limits: Limits, sights: Shelf, send: Callable[[Message], object]) -> None:
        self.vc, self.limits, self.sights, self.send = vc, limits, sights, send
        given = limits.prefix_bytes
        self.prefixes = Prefixes(
            room_for_prefixes(vc.model, limits, free_memory(vc.model.device)) if given is None else given
        )
        self.jobs: dict[str, Job] = {}  # the one that was served least recently first
        self.seeing: set[str] = set()  # keys of Sights that are being made
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.turn: Literal["see", "answer"] = "answer"

    def kept(self) -> str:
        """What is kept in memory, in words."""
        most, one = self.prefixes.limit, longest_prefix(self.vc.model, self.limits)
        videos = f"of {most // one} videos of {self.limits.frames} frames" if most >= one else "of shorter videos only"
        return f"up to {most / 1e6:,.0f} MB of what questions share are kept in memory, {videos}"

    def run(self) -> None:
        """Work until the server is gone."""
        while self.take(block=not any(job.next.ready() for job in self.jobs.values())):
            self.step()
        for job in list(self.jobs.values()):
            self._end(job, {"refused": "gone"})

    def hear(self, message: Message) -> None:
        """Put a message to the others; may be called from any thread. A cancelled request ends at the next layer."""
        if message["do"] == "cancel" and (job := self.jobs.get(message["id"])):
            job.cancelled.set()
        if message["do"] == "stop":
            for job in list(self.jobs.values()):
                job.cancelled.set()
        self.inbox.put(message)

    def take(self, block: bool = False) -> bool:
        """Read what was heard, waiting for something if ``block``; False at the end."""
        while block or not self.inbox.empty():
            message = self.inbox.get()
            block = False
            if message["do"] == "stop":
                return False
            if message["do"] == "answer":
                self._begin(message)
            elif message["do"] == "cancel" and message["id"] in self.jobs:
                self._end(self.jobs[message["id"]], {"refused": "gone"})
        return True

    def step(self) -> bool:
        """Do one step of one request; False if none can go on."""
        able = [job for job in self.jobs.values() if job.next.ready()]
        job = next((job for job in able if job.next.kind == self.turn), able[0] if able else None)
        if job is None:
            return False
        self.turn = "see" if job.next.kind == "answer" else "answer"
        self.jobs[job.id] = self.jobs.pop(job.id)
        self._advance(job)
        return True

    # -- one request ---------------------------------------------------------------------------------------------------

    def _begin(self, ask: Message) -> None:
        job = Job(ask["id"], ask)
        job.steps = self._work(job)
        self.jobs[job.id] = job
        self._advance(job)

    def _advance(self, job: Job) -> None:
        if job.steps is None:
            return
        try:
            job.heed()
            job.next = next(job.steps)
        except StopIteration:
            seconds = {name: round(spent, 4) for name, spent in job.watch.seconds.items()}
            self._end(job, {"done": job.told | {"seconds": seconds}})
        except Cancelled:
            self._end(job, {"refused": "gone"})
        except Refused as refused:
            self._end(job, {"refused": refused.code, "field": refused.field, "detail": refused.detail})
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            if "CUDA error" in str(error):
                raise  # this process has lost its device: it ends, and another one begins anew
            code = "out_of_memory" if out_of_memory(error) else "internal"
            self._end(job, {"refused": code, "detail": f"{type(error).__name__}: {error}"})

    def _end(self, job: Job, last: Message) -> None:
        self.jobs.pop(job.id, None)
        if job.steps is not None:
            with suppress(Cancelled, Refused):
                job.steps.close()
        self.send({"id": job.id, **last})

    def _work(self, job: Job) -> Steps:
        sights: list[Sight] = []
        for media in job.ask["media"]:
            sights.append((yield from self._seen(job, media)))
        plan = self._plan(job.ask["keep"])
        how = self._decoding(job.ask["decoding"])
        *before, (_, question) = job.ask["turns"]
        history = [Turn(role, text) for role, text in before]
        prompt = render(self.vc.tokenizer, [*history, Turn("user", question)], sights)
        visual = sum(sight.tokens.shape[0] * sight.tokens.shape[1] for sight in sights)
        if len(prompt.ids) + visual > self.vc.model.config.llm.limit:
            raise Refused("prompt_too_long", "messages")
        yield ANSWER
        prefix = self._begun(job, sights, plan) if sights and self.prefixes.limit else None
        pieces = self.vc.reply(
            sights,
            question,
            history=history,
            keep=plan,
            decoding=how,
            stop=job.ask["stop"],
            prefix=prefix,
            watch=job.watch,
            on_layer=job.heed,
        )
        reply = yield from self._said(job, pieces)
        if sights and job.ask["evidence"]:
            yield ANSWER
            with job.watch.stage("evidence"):
                looked = look(self.vc, sights, question, history=history, keep=plan, on_layer=job.heed)
            job.told["evidence"] = looked.told()
        job.told |= {
            "prompt_tokens": reply.rows,
            "completion_tokens": reply.tokens,
            "finish": "length" if reply.cut else "stop",
            "frames": sum(sight.frames for sight in sights),
            "visual_tokens": visual,
            "visual_tokens_per_layer": list(reply.visual),
        }

    def _said(self, job: Job, pieces: Generator[str, None, Reply]) -> Generator[Step, None, Reply]:
        while True:
            try:
                self.send({"id": job.id, "piece": next(pieces)})
            except StopIteration as end:
                reply: Reply = end.value
                return reply
            yield ANSWER

    def _begun(self, job: Job, sights: Sequence[Sight], plan: Plan) -> Prefix:
        """What all questions about these videos begin with: kept, or made."""
        keys = tuple(media["key"] for media in job.ask["media"])
        prefix = self.prefixes.get(keys, plan)
        job.told["prefix_reused"] = prefix is not None
        if prefix is None:
            with job.watch.stage("prefill"):
                prefix = prepare(self.vc, sights, keep=plan, on_layer=job.heed)
            self.prefixes.put(keys, plan, prefix)
        return prefix

    def _plan(self, keep: str | None) -> Plan:
        plan = self.vc.model.config.keep if keep is None else parse_plan(keep)
        try:
            check_plan(plan, self.vc.model.config.llm)
        except ValueError as error:
            raise Refused("invalid", "keep", error) from None
        return plan

    def _decoding(self, changes: Mapping[str, float | int]) -> Decoding:
        chance = {"seed": secrets.randbits(62)}  # or whoever names none would be told the same draw each time
        how = Decoding(**{**vars(self.vc.decoding), **chance, **changes})
        return Decoding(**{**vars(how), "max_new_tokens": min(how.max_new_tokens, self.limits.output_tokens)})

    # -- seeing --------------------------------------------------------------------------------------------------------

    def _seen(self, job: Job, media: Message) -> Generator[Step, None, Sight]:
        """The Sight of a video: kept, or being made for another request, or made here."""
        key: str = media["key"]
        while (sight := self._kept(key)) is None and key in self.seeing:
            yield Step("see", lambda: key not in self.seeing)
        job.told["sights_reused"] += sight is not None
        if sight is not None:
            return sight
        if media["path"] is None:
            raise Refused("unknown_uuid")
        self.seeing.add(key)
        try:
            sight = yield from self._see(job, media)
            self._keep(key, sight)
        finally:
            self.seeing.discard(key)
        return sight

    def _see(self, job: Job, media: Message) -> Generator[Step, None, Sight]:
        sampling = Sampling(**media["sampling"]) if media["sampling"] else None
        clip_frames = 1 if sampling is None else self.vc.model.config.vision.clip_frames
        size = self.vc.model.config.vision.image_size
        wake = {"do": "wake"}
        reading = Reading(Path(media["path"]), media["kind"], sampling, size, self.limits, lambda: self.hear(wake))
        parts: list[Sight] = []
        try:
            while True:
                yield Step("see", reading.ready)
                frames = reading.take()
                if frames is None or reading.head is None:
                    break
                with job.watch.stage("encode"):
                    tokens = self.vc.encode(frames.pixels, clip_frames)
                times = torch.from_numpy(frames.seconds.reshape(-1, clip_frames)[:, [0, -1]])
                duration = 0.0 if sampling is None else reading.head.duration
                parts.append(Sight(tokens, times, duration, clip_frames, reading.head.source, self.vc.made_by))
                job.told["frames_seen"] += len(frames.seconds)
                self.send({"id": job.id, "seen": sum(part.frames for part in parts), "total": reading.head.total})
        finally:
            reading.close()
        spent = job.watch.seconds
        spent["decode"] = spent.get("decode", 0.0) + reading.seconds
        if not parts:
            raise Refused("undecodable")
        return Sight.join(parts)

    def _kept(self, key: str) -> Sight | None:
        path = self.sights.use(key)
        try:
            return None if path is None else Sight.load(path)
        except (ValueError, FileNotFoundError):  # damaged on the disk, or another worker made room: seen anew
            self.sights.drop(key)
            return None

    def _keep(self, key: str, sight: Sight) -> None:
        try:
            with self.sights.put(key) as part:
                sight.save(part)
        except OSError as error:  # a full disk costs the next question time, not this one its answer
            warnings.warn(f"a Sight could not be kept: {error}", stacklevel=1)
