"""From pixels to tokens, stage by stage: each is run as the pipeline runs it, but alone, so that it can be timed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..chat import CLIP_BATCH, Stopwatch, VideoChatFlash
from ..config import Plan
from ..generate import Begun, Prefilled, decode, prefill
from ..prompt import Turn, render
from ..quantise import AS_LOADED, Packing
from ..show import Told
from ..sight import Sight
from ..synth import procedural
from ..video import Frames, Sampling, VideoInfo, plan, probe
from ..video import decode as decode_video
from ..vision import normalise
from .gauge import Gauge, Reading
from .work import CONNECTOR, DECODE, FIRST, NORMALISE, PREFILL, RESIZE, TOKEN, TOWER, Work, sample_of, works

QUESTION = "What happens in this video?"
DRAWN = 64  # frames that differ, drawn or read; then they come again
WHOLE = "to the first token"  # seeing and answering as a user's call does it, all at once


@dataclass(frozen=True)
class Setting:
    """What to run.

    Attributes:
        frames: whole clips of them.
        video: a file; None draws frames of ``size``.
        size: width and height of drawn frames.
        keep: dropout plan; None is the model's own.
        tokens: generated after the prompt, the first included.
        repeats: that count.
        warmup: that do not.
        whole: whether all of it is done in one call, too.
        packing: how the decoder is held.
    """

    frames: int
    video: Path | None = None
    size: tuple[int, int] = (640, 360)
    keep: Plan | None = None
    tokens: int = 16
    repeats: int = 3
    warmup: int = 1
    whole: bool = True
    packing: Packing = AS_LOADED

    def __post_init__(self) -> None:
        for wrong, text in (
            (
                self.tokens < 2,
                f"--max-new-tokens must be at least 2, not {self.tokens}: the first is a stage of its own",
            ),
            (self.repeats < 1, f"--repeats must be at least 1, not {self.repeats}"),
            (self.warmup < 0, f"--warmup cannot be negative, not {self.warmup}"),
            (min(self.size) < 2, f"--size {self.size[0]}x{self.size[1]} is too small: 2x2 at least"),
        ):
            if wrong:
                raise ValueError(text)


@dataclass(frozen=True)
class Footage:
    """Where frames come from: a file, or frames that are drawn.

    ``info``: what the file holds; what is timed looks into it again, as a call does. ``side``: to which a file's frames
    are resized while they are read, as the pipeline does it: their size decides how many decoders may be ahead. None
    leaves them as they are.
    """

    setting: Setting
    info: VideoInfo | None
    side: int | None = None

    @staticmethod
    def open(setting: Setting, side: int | None = None, info: VideoInfo | None = None) -> Footage:
        """Raises VideoError for a file that cannot be read, ValueError for one with fewer frames than wanted.

        ``info``: what the file holds, if it was looked into already.
        """
        if info is None and setting.video is not None:
            info = probe(setting.video)
        if info is not None and info.frames < setting.frames:
            raise ValueError(f"{setting.video} has {info.frames} frames, fewer than --frames {setting.frames}")
        return Footage(setting, info, side)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.setting.size if self.info is None else (self.info.width, self.info.height)

    @property
    def sampling(self) -> Sampling:
        """As many frames as wanted, evenly from the whole file."""
        return Sampling("count", max_frames=self.setting.frames, num_frames=self.setting.frames)

    @cached_property
    def some(self) -> Frames:
        """The first frames of the file, or different frames of a made video, one second apart."""
        if self.info is not None:
            wanted = plan(self.info, self.sampling)
            few = replace(wanted, frames=wanted.frames[:DRAWN], seconds=wanted.seconds[:DRAWN])
            return next(decode_video(self.info, few, self.side, DRAWN))
        width, height = self.setting.size
        stack, count = procedural(np.random.default_rng(0), height, width), min(DRAWN, self.setting.frames)
        return Frames(np.stack([stack.frame(i) for i in range(count)]), np.arange(float(count)), float(count))

    def read(self) -> None:
        """Look into the file and decode all its frames, keeping none."""
        if self.setting.video is not None:
            info = probe(self.setting.video)
            for _ in decode_video(info, plan(info, self.sampling), self.side):
                pass

    def chunks(self) -> Iterator[Frames]:
        """As many frames as wanted, some at a time; nothing is decoded meanwhile."""
        for at in range(0, self.setting.frames, DRAWN):
            count = min(DRAWN, self.setting.frames - at)
            yield replace(self.some, pixels=self.some.pixels[:count], seconds=self.some.seconds[:count])

    def see(self, vc: VideoChatFlash, watch: Stopwatch) -> Sight:
        """As a user sees it, from the path on."""
        if self.setting.video is not None:
            return vc.see(self.setting.video, self.sampling, watch=watch)
        return Sight.join([vc.see(chunk, watch=watch) for chunk in self.chunks()])


@dataclass
class Stage:
    """Readings of a stage: seconds of every repeat (or token) that counts, and peaks over them. ``dtype``: what it
    computes in; None where there are several."""

    work: Work
    dtype: torch.dtype | None
    seconds: list[float] = field(default_factory=list)
    host: int | None = None
    device: int | None = None

    def add(self, reading: Reading) -> None:
        """One more."""
        self.seconds.append(reading.seconds)
        self.host = _larger(self.host, reading.host)
        self.device = _larger(self.device, reading.device)


@dataclass(frozen=True)
class Run:
    """One number of frames, measured."""

    frames: int
    rows: int  # text and visual rows of the prompt
    visual: tuple[int, ...]  # visual rows that entered each layer
    stages: Mapping[str, Stage]
    whole: Stage | None
    waited: Sequence[float]  # seconds of it in which the tower had to wait for frames
    cold: Mapping[str, float]  # seconds of stages in the first round, which pays for what is loaded and chosen once


def run(vc: VideoChatFlash, setting: Setting, told: Told, info: VideoInfo | None = None) -> Run:
    """Measure every stage ``repeats`` times, and then all of it in one call.

    Args:
        info: what the file holds, if it was looked into already.

    Raises:
        ValueError: frames that are not whole clips, or more than the file has.
        VideoError: a file that cannot be read.
    """
    config = vc.model.config
    keep = config.keep if setting.keep is None else setting.keep
    sample_of(config, setting.frames)
    footage = Footage.open(setting, config.vision.image_size, info)
    found: dict[str, list[Reading]] = defaultdict(list)
    waited: list[float] = []
    cold: dict[str, float] = {}
    rounds = setting.warmup + setting.repeats
    for number in range(rounds):
        told(number, rounds, f"{setting.frames} frames")
        gauge = Gauge(vc.model.device)
        tokens = see(vc, footage, gauge)
        begun, text = _prefill(vc, tokens, setting, keep, gauge)
        visual, after = begun.visual, list(_speak(vc, begun, setting.tokens))
        del tokens, begun
        if setting.whole:
            watch = Stopwatch()
            after.append(_whole(vc, footage, keep, watch))
            waited.append(watch.seconds["decode"])
        for name, reading in [*gauge.readings.items(), *after]:
            cold.setdefault(name, reading.seconds)
            if number >= setting.warmup:
                found[name].append(reading)
    told(rounds, rounds)
    sample = sample_of(config, setting.frames, text)
    batch = CLIP_BATCH[vc.model.device.type]
    dtype, tower = vc.model.dtype, next(vc.model.vision.parameters()).dtype
    done, seen = (
        works(config, sample, keep, kind.itemsize, footage.size, batch, setting.packing) for kind in (dtype, tower)
    )
    done[TOWER] = seen[TOWER]
    done[DECODE] = done[RESIZE]  # of a file that is one stage
    done[WHOLE] = Work(setting.frames, sum(done[name].flops or 0 for name in (TOWER, CONNECTOR, PREFILL)), None)
    types = {TOWER: tower, WHOLE: dtype if dtype == tower else None}
    if vc.model.device.type != "cpu":  # whose peaks are no measure of what the host does
        types |= {DECODE: None, RESIZE: None}
    stages = {name: Stage(work, types.get(name, dtype)) for name, work in done.items() if name in found}
    for name, stage in stages.items():
        for reading in found[name]:
            stage.add(reading)
    whole = stages.pop(WHOLE, None)
    return Run(setting.frames, sample.rows, visual, stages, whole, waited[setting.warmup :], cold)


@torch.inference_mode()
def see(vc: VideoChatFlash, footage: Footage, gauge: Gauge) -> Tensor:
    """A file is decoded, or drawn frames are resized; then frames flow through the stages a few clips at a time. Left
    are the tokens, "C M E"."""
    side, clip = vc.model.config.vision.image_size, vc.model.config.vision.clip_frames
    tokens: list[Tensor] = []
    if footage.info is not None:
        with gauge.stage(DECODE):
            footage.read()
    for chunk in footage.chunks():
        small = chunk.pixels
        if footage.info is None:
            with gauge.stage(RESIZE):
                small = np.stack([_squashed(pixels, side) for pixels in small])
        step = CLIP_BATCH[vc.model.device.type] * clip
        for at in range(0, len(small), step):
            with gauge.stage(NORMALISE):
                levels = torch.from_numpy(small[at : at + step]).to(vc.model.device)
                clips = normalise(levels.unflatten(0, (-1, clip))).to(vc.model.dtype)
            with gauge.stage(TOWER):
                patches = vc.model.vision(clips)
            with gauge.stage(CONNECTOR):
                tokens.append(vc.model.connector(patches, clip).cpu())
    return torch.cat(tokens)


def _squashed(pixels: np.ndarray, side: int) -> np.ndarray:
    """As the decoder gives it: a square, whatever the aspect."""
    if pixels.shape[:2] == (side, side):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def _prefill(vc: VideoChatFlash, tokens: Tensor, setting: Setting, keep: Plan, gauge: Gauge) -> tuple[Prefilled, int]:
    """The prompt through the decoder, and how many rows of text it has."""
    sight = sight_of(vc, tokens)
    prompt = render(vc.tokenizer, [Turn("user", QUESTION)], [sight])
    with gauge.stage(PREFILL):
        begun = prefill(vc.model, [prompt], [vc.tokens_of([sight])], keep, setting.tokens)
    return begun, len(prompt.ids)


def _speak(vc: VideoChatFlash, begun: Prefilled, count: int) -> Iterator[tuple[str, Reading]]:
    """Greedy tokens, a reading for each; none of them ends the answer."""
    greedy = replace(vc.decoding, max_new_tokens=count, temperature=0.0, eos=())
    steps = decode(vc.model, begun, greedy, vc.steps)
    for number in range(count):
        gauge, name = Gauge(vc.model.device), FIRST if number == 0 else TOKEN
        with gauge.stage(name):
            next(steps)
        yield name, gauge.readings[name]


def _whole(vc: VideoChatFlash, footage: Footage, keep: Plan, watch: Stopwatch) -> tuple[str, Reading]:
    """Seeing and the first token in the calls that users make, with whatever they overlap or skip."""
    gauge = Gauge(vc.model.device)
    with gauge.stage(WHOLE):
        first_token(vc, footage.see(vc, watch), QUESTION, keep)
    return WHOLE, gauge.readings[WHOLE]


def first_token(
    vc: VideoChatFlash,
    sight: Sight,
    question: str,
    keep: Plan,
    prefix: Begun | None = None,
    history: Sequence[Turn] = (),
) -> None:
    """Answer with one token."""
    one = replace(vc.decoding, max_new_tokens=1, temperature=0.0, eos=())
    for _ in vc.reply(sight, question, history=history, keep=keep, decoding=one, prefix=prefix):
        pass


def sight_of(vc: VideoChatFlash, tokens: Tensor) -> Sight:
    """Tokens of clips as a Sight of a video with one frame a second."""
    clip = vc.model.config.vision.clip_frames
    starts = torch.arange(len(tokens), dtype=torch.float64) * clip
    return Sight(tokens, torch.stack([starts, starts + clip - 1], 1), float(len(tokens) * clip), clip, "", vc.made_by)


def _larger(one: int | None, other: int | None) -> int | None:
    return max((n for n in (one, other) if n is not None), default=None)
