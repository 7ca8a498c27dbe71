"""What the commands have in common: options checked early, bars while they work, a report."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from . import quantise, show, steady
from .chat import Reply, Stopwatch, VideoChatFlash
from .config import Plan, check_plan, parse_plan
from .evidence import Evidence, look
from .facts import plan_facts
from .files import beside
from .generate import Begun, Decoding
from .model import sampled
from .prefix import Prefix, prepare
from .prompt import Turn
from .quantise import Packing
from .sheet import contact_sheet, timeline
from .show import one_line
from .sight import Sight
from .video import Sampling, VideoInfo, VideoWarning, decode, plan, probe

Write = Callable[[str], object]
THUMBNAILS = 12
DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def sampling_of(
    max_frames: int,
    fps: float | None,
    num_frames: int | None,
    start: float | None,
    end: float | None,
    policy: Literal["paper", "reference"] | None,
) -> Sampling:
    """Which frames to take.

    Raises:
        ValueError: options that exclude each other, or values that no video can meet.
    """
    given = [
        name for name, value in (("fps", fps), ("num-frames", num_frames), ("policy", policy)) if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"--{' and --'.join(given)} exclude each other: choose one")
    chosen = "fps" if fps is not None else "count" if num_frames is not None else policy or "paper"
    return Sampling(chosen, max_frames, fps=fps, num_frames=num_frames, start=start, end=end)


def plan_of(keep: str | None, keep_by: str | None) -> Plan | None:
    """A dropout plan, or None for the model's own.

    Raises:
        ValueError: not a plan.
    """
    if keep is None and keep_by is not None:
        raise ValueError("--keep-by says how --keep chooses: give --keep, too")
    return None if keep is None else parse_plan(keep, keep_by or "attention")


@dataclass(frozen=True)
class Manner:
    """How to answer, where it differs from the model's own way.

    Attributes:
        keep: dropout plan; None is the model's own.
        changes: fields of Decoding.
        stop: texts that end an answer.
    """

    keep: Plan | None = None
    changes: Mapping[str, float | int] = field(default_factory=dict)
    stop: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.decoding(Decoding())

    def check(self, vc: VideoChatFlash) -> None:
        """Before anything is seen.

        Raises:
            ValueError: a plan beyond the decoder.
        """
        check_plan(self.keep or (), vc.model.config.llm)
        drawn = [f"--{name.replace('_', '-')}" for name in ("seed", "top_p", "top_k") if name in self.changes]
        if drawn and self.decoding(vc.decoding).temperature == 0:
            warnings.warn(f"no token is drawn without --temperature: {', '.join(drawn)} not used", stacklevel=2)

    def decoding(self, own: Decoding) -> Decoding:
        """The model's way of choosing tokens with the changes."""
        values = {**vars(own), **self.changes}
        return Decoding(**values)


def manner_of(
    keep: str | None,
    keep_by: str | None,
    seed: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    repetition_penalty: float | None,
    max_new_tokens: int | None,
    stop: Sequence[str] | None,
) -> Manner:
    """A manner out of the options of ask, chat and batch, None where one was not given.

    Raises:
        ValueError: not a plan, or a value that no decoding can have.
    """
    changes = {"seed": seed, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    changes |= {"repetition_penalty": repetition_penalty, "max_new_tokens": max_new_tokens}
    given = {name: value for name, value in changes.items() if value is not None}
    return Manner(plan_of(keep, keep_by), given, stop or ())


@dataclass(frozen=True)
class Source:
    """What is to be seen: a video that was looked into, or a Sight of one. ``seconds`` are those of its frames."""

    name: str
    what: VideoInfo | Sight
    seconds: tuple[float, ...] | None

    @property
    def is_sight(self) -> bool:
        """Whether it was seen already."""
        return isinstance(self.what, Sight)


def key_frames(info: VideoInfo) -> VideoInfo:
    """A video as if it had no other frames: each is decoded alone, so a long film is seen in moments.

    Warns how far apart they are.
    """
    if info.index is None or info.kind != "video":
        return info
    keys = np.flatnonzero(info.index[:, 1] == info.index[:, 2])  # decoding starts with themselves
    if not len(keys):
        return info
    gap = np.diff(info.seconds[keys], append=info.duration).max()
    text = f"only its {len(keys)} key frames of {info.frames} are looked at, up to {gap:.1f} s apart: {info.source}"
    warnings.warn(text, VideoWarning, stacklevel=3)
    count, seconds = len(keys), info.seconds[keys]
    return replace(info, index=info.index[keys], seconds=seconds, frames=count, fps=count / info.duration)


def open_source(path: Path, sampling: Sampling, watch: Stopwatch, keys: bool = False) -> Source:
    """Look into a video or load a Sight: quick, and before any model is loaded. ``keys``: see ``key_frames``.

    Raises:
        VideoError: a video that is not there or cannot be read.
        ValueError: a window outside the video, or a file that is no Sight.
    """
    if path.suffix == ".safetensors":
        if keys or sampling != Sampling():
            warnings.warn(f"{path} holds the frames it was seen with: options of frames are not used", stacklevel=2)
        return Source(str(path), Sight.load(path), None)
    with watch.stage("decode"):
        info = key_frames(probe(path)) if keys else probe(path)
        return Source(str(path), info, tuple(plan(info, sampling).seconds.tolist()))


def load(
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    watch: Stopwatch,
    quantization: str | None = None,
    kv_cache_dtype: str = "auto",
) -> VideoChatFlash:
    """The model, as loaded or held smaller."""
    packing = Packing.of(quantization, kv_cache_dtype)
    with watch.stage("load"):
        return quantise.load(model, packing, revision=revision, dtype=DTYPES[dtype], device=device, steps=steady.steps)


def decoder_mark(vc: VideoChatFlash) -> str:
    """Digest of the decoder's sizes and a sample of its weights: results of two models of one name stay apart."""
    sizes = repr((asdict(vc.model.config.llm), vc.model.config.newline)).encode()
    return hashlib.sha256(sizes + sampled(vc.model.decoder)).hexdigest()[:16]


def see(vc: VideoChatFlash, source: Source, sampling: Sampling, watch: Stopwatch, bars: bool = True) -> Sight:
    """See what is not a Sight yet, with a bar of frames."""
    if isinstance(source.what, Sight):
        return source.what
    with show.progress("seeing", bars) as told:
        return vc.see(source.what, sampling, watch=watch, on_frames=told)


def say(
    vc: VideoChatFlash,
    sight: Sight | None,
    question: str,
    manner: Manner,
    *,
    history: Sequence[Turn] = (),
    prefix: Begun | None = None,
    watch: Stopwatch | None = None,
    bars: bool = True,
    write: Write | None = None,
) -> Reply:
    """Answer with a bar of layers; pieces are written as they come."""
    layers = vc.model.config.llm.layers
    with show.progress("reading", bars and prefix is None) as told:  # a prefix was read before, and tells no layers
        pieces = vc.reply(
            sight,
            question,
            history=history,
            keep=manner.keep,
            decoding=manner.decoding(vc.decoding),
            stop=manner.stop,
            prefix=prefix,
            watch=watch,
            on_layer=lambda done: told(done, layers),
        )
        return to_the_end(pieces, write)


def ready(vc: VideoChatFlash, sight: Sight, manner: Manner, bars: bool = True) -> Prefix:
    """What every question about a Sight begins with, done once, with a bar of layers."""
    layers = vc.model.config.llm.layers
    with show.progress("reading", bars) as told:
        return prepare(vc, sight, keep=manner.keep, on_layer=lambda done: told(done, layers))


def draw_evidence(
    vc: VideoChatFlash, sight: Sight, source: Source, sampling: Sampling, question: str, manner: Manner, path: Path
) -> Evidence:
    """Write a picture of when the model looked.

    Raises:
        OSError: it cannot be written there.
    """
    told = look(vc, sight, question, keep=manner.keep)
    size = sight.tokens.shape[1]
    strips = [(f"left from layer {stage.layer} on", [count / size for count in stage.kept[0]]) for stage in told.stages]
    begins, pace = [first for first, _ in told.seconds[0]], sight.duration / max(1, len(sight))
    end = max(told.seconds[0][-1][1], begins[-1] + pace)
    bars = (f"attention of layer {told.layer} to each clip: {one_line(question)[:120]}", told.attention[0])
    with beside(path) as part:
        timeline(begins, end, bars, strips, _thumbnails(source, sampling)).save(part, "PNG")
    return told


def _thumbnails(source: Source, sampling: Sampling) -> Image.Image | None:
    """A row of pictures, in the middle of equal shares of the video, each frame once; none of a Sight, whose video is
    not at hand."""
    if isinstance(source.what, Sight) or source.what.kind == "image":
        return None
    info = source.what
    wanted = plan(info, replace(sampling, policy="count", max_frames=THUMBNAILS, num_frames=THUMBNAILS, fps=None))
    places = np.unique(wanted.frames, return_index=True)[1]  # of fewer frames, the last one is there again
    wanted = replace(wanted, frames=wanted.frames[places], seconds=wanted.seconds[places])
    frames = next(decode(info, wanted, 160, THUMBNAILS))
    return contact_sheet(frames, THUMBNAILS, 160, info.width / info.height)


def to_the_end(pieces: Generator[str, None, Reply], write: Write | None = None) -> Reply:
    """Run an answer to its end; pieces are written as they come."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            reply: Reply = end.value
            return reply
        if write is not None:
            write(piece)


def sight_report(sight: Sight, source: Source) -> dict[str, object]:
    """What was seen, for --json."""
    return {
        "video": source.name,
        "frames": sight.frames,
        "clips": [[round(float(t), 3) for t in clip] for clip in sight.seconds],
        "seconds_sampled": None if source.seconds is None else [round(t, 3) for t in source.seconds],
        "duration": sight.duration,
        "visual_tokens": sight.tokens.shape[0] * sight.tokens.shape[1],
    }


def answer_report(vc: VideoChatFlash, reply: Reply, manner: Manner) -> dict[str, object]:
    """What answering took, for --json."""
    return {
        "rows": reply.rows,
        "tokens_per_layer": list(reply.visual),
        "keep": plan_facts(vc.model.config.keep if manner.keep is None else manner.keep),
        "generated_tokens": reply.tokens,
    }


def cost_report(watch: Stopwatch, began: float, device: str, notes: Sequence[str]) -> dict[str, object]:
    """Time of each stage, memory and warnings, for --json."""
    spent = {**watch.seconds, "total": time.perf_counter() - began}
    memory: dict[str, object] = {"peak_memory_mb": show.peak_megabytes()}
    if device.startswith("cuda"):
        memory["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    seconds = {name.replace(" ", "_"): round(value, 4) for name, value in spent.items()}
    return {"seconds": seconds, **memory, "warnings": list(notes)}
