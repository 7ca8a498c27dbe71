"""VideoChatFlash: the one object that users meet. See a video once, ask about it as often as you like."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from . import weights
from .config import Plan, check_plan
from .generate import LONGEST, Begun, Decoding, Prefilled, Steps, decode, prefill
from .model import VideoChatFlashModel
from .prompt import IM_END, Turn, control, render
from .sight import Sight
from .video import Frames, Sampling, VideoInfo, probe
from .video import decode as decode_video
from .video import plan as plan_frames
from .vision import normalise

CLIP_BATCH = {"cpu": 4, "mps": 4, "cuda": 16}  # clips that pass the tower at once
MAX_QUESTION = 50_000  # characters
Seen = Sight | Sequence[Sight] | None


@dataclass
class Stopwatch:
    """Seconds spent in each stage; handed in by whoever wants to know."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


@dataclass(frozen=True)
class Reply:
    """An answer and what it took.

    Attributes:
        text: the answer.
        tokens: generated tokens.
        rows: text and visual rows of the prompt.
        visual: visual rows that entered each layer of the decoder.
        cut: whether it ended because there could be no more tokens.
    """

    text: str
    tokens: int
    rows: int
    visual: tuple[int, ...]
    cut: bool = False


class VideoChatFlash:
    """A model with its tokenizer. It remembers no video and no conversation: those are values that you hold."""

    def __init__(
        self, model: VideoChatFlashModel, tokenizer: Tokenizer, decoding: Decoding, steps: Steps | None = None
    ) -> None:
        self.model, self.tokenizer, self.decoding, self.steps = model, tokenizer, decoding, steps
        self.made_by = model.fingerprint()

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path = weights.EMBEDDED,
        *,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        steps: Steps | None = None,
    ) -> VideoChatFlash:
        """Load a model: ``flash-tiny`` (built in), a released name, or a folder in the released layout.

        Args:
            name_or_path: which model.
            revision: of a released name, a branch, tag or commit.
            dtype: of the weights; None is the stored one or, on a CPU, what suits it (``suit_cpu``).
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            steps: how tokens are fed: plainly, or as ``steady.steps`` does it on a GPU.

        Raises:
            FileNotFoundError: no such model, or a part of it is missing.
            ValueError: weights or config that do not fit, or a device that is not there.
        """
        check_device(device)
        folder = weights.find(name_or_path, revision)
        config = weights.read_config(folder)
        model = weights.load_model(folder, config, dtype, device)
        if dtype is None and device == "cpu":
            model.suit_cpu()
        return VideoChatFlash(model, weights.read_tokenizer(folder), weights.read_decoding(folder), steps)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the released layout: what this writes the authors' hosted code can read, and so can we."""
        weights.save_model(Path(folder), self.model, self.tokenizer, self.decoding)

    def see(
        self,
        video: str | Path | VideoInfo | Frames,
        sampling: Sampling | None = None,
        *,
        watch: Stopwatch | None = None,
        on_frames: Callable[[int, int], None] | None = None,
    ) -> Sight:
        """Decode, encode and compress a video or an image. Frames flow: only the compressed tokens are kept.

        Args:
            video: a file, a folder of frames, what ``probe`` said of one, or frames that are in memory already.
            sampling: which frames; None is the paper's, about one a second.
            watch: gathers the seconds of ``decode`` and ``encode``.
            on_frames: told frames done and frames in all.

        Raises:
            VideoError: a source that cannot be read.
            ValueError: a window outside the video.
        """
        watch = watch or Stopwatch()
        size, clip_frames = self.model.config.vision.image_size, self.model.config.vision.clip_frames
        batch = CLIP_BATCH[self.model.device.type] * clip_frames
        if isinstance(video, Frames):
            chunks = _squashed(video, size, clip_frames, batch)
            total, duration, image = len(video.seconds), video.duration, False
            source = hashlib.sha256(video.pixels.tobytes()).hexdigest()
        else:
            with watch.stage("decode"):
                info = video if isinstance(video, VideoInfo) else probe(video)
                wanted = plan_frames(info, sampling or Sampling())
            image = info.kind == "image"
            total, duration, source = len(wanted.frames), wanted.duration, info.fingerprint
            chunks, clip_frames = decode_video(info, wanted, size, batch), 1 if image else clip_frames
        tokens, seconds, done = [], [], 0
        with closing(chunks):
            while True:
                with watch.stage("decode"):
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                with watch.stage("encode"):
                    tokens.append(self.encode(chunk.pixels, clip_frames))
                seconds.append(chunk.seconds.reshape(-1, clip_frames)[:, [0, -1]])
                done += len(chunk.seconds)
                if on_frames is not None:
                    on_frames(done, total)
        times = torch.from_numpy(np.concatenate(seconds))
        return Sight(torch.cat(tokens), times, 0.0 if image else duration, clip_frames, source, self.made_by)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray, clip_frames: int) -> torch.Tensor:
        """Tokens "C M E" of a few whole clips, uint8 "n h w 3" of the tower's size, back on the CPU."""
        clips = torch.tensor(pixels, device=self.model.device).unflatten(0, (-1, clip_frames))
        return self.model.see(normalise(clips).to(self.model.dtype)).cpu()

    @overload
    def answer(
        self, sight: Seen, question: str, *, history: Sequence[Turn] = ..., stream: Literal[False] = ...,
        keep: Plan | None = ..., decoding: Decoding | None = ..., stop: Sequence[str] = ...,
        prefix: Begun | None = ...,
    ) -> str: ...  # fmt: skip

    @overload
    def answer(
        self, sight: Seen, question: str, *, history: Sequence[Turn] = ..., stream: Literal[True],
        keep: Plan | None = ..., decoding: Decoding | None = ..., stop: Sequence[str] = ...,
        prefix: Begun | None = ...,
    ) -> Iterator[str]: ...  # fmt: skip

    def answer(
        self,
        sight: Seen,
        question: str,
        *,
        history: Sequence[Turn] = (),
        stream: bool = False,
        keep: Plan | None = None,
        decoding: Decoding | None = None,
        stop: Sequence[str] = (),
        prefix: Begun | None = None,
    ) -> str | Iterator[str]:
        """Answer a question about what was seen. Never decodes or encodes anything again.

        Args:
            sight: what was seen; several for several videos or images; None for text alone.
            question: any text; control tokens in it are plain text.
            history: earlier turns about the same sight, user first.
            stream: return an iterator over pieces of the answer instead of the whole.
            keep: dropout of visual tokens; None is the model's own, () drops nothing.
            decoding: how tokens are chosen; None is the model's generation_config.json.
            stop: texts that end the answer; they are not part of it.
            prefix: what ``prefix.prepare`` made of the sight: the same answer, sooner.

        Raises:
            ValueError: an empty or overlong question, a sight of another model, a plan beyond the decoder, a prefix of
                something else.
        """
        pieces = self.reply(sight, question, history=history, keep=keep, decoding=decoding, stop=stop, prefix=prefix)
        return pieces if stream else "".join(pieces)

    def ask(self, video: str | Path | Frames, question: str, sampling: Sampling | None = None) -> str:
        """See and answer in one call."""
        return self.answer(self.see(video, sampling), question)

    def reply(
        self,
        sight: Seen,
        question: str,
        *,
        history: Sequence[Turn] = (),
        keep: Plan | None = None,
        decoding: Decoding | None = None,
        stop: Sequence[str] = (),
        prefix: Begun | None = None,
        watch: Stopwatch | None = None,
        on_layer: Callable[[int], None] | None = None,
    ) -> Generator[str, None, Reply]:
        """``answer`` with everything: a generator of pieces that returns a Reply. Arguments are checked at once."""
        sights = [] if sight is None else [sight] if isinstance(sight, Sight) else list(sight)
        plan = keep if keep is not None else self.model.config.keep if prefix is None else prefix.plan
        check_plan(plan, self.model.config.llm)
        check_question(question)
        videos = self.tokens_of(sights)
        prompt = render(self.tokenizer, [*history, Turn("user", question)], sights)
        newline = self.model.newline is not None
        rows = len(prompt.ids) + sum(s.tokens.shape[0] * s.tokens.shape[1] + newline for s in sights)
        if rows > (limit := self.model.config.llm.limit):
            warnings.warn(f"{rows} rows are beyond the {limit} positions that the model was made for", stacklevel=2)
        how = replace(given := decoding or self.decoding, eos=(*given.eos, control(self.tokenizer, IM_END)))
        room = min(how.max_new_tokens, LONGEST)
        begin = partial(prefill, self.model, [prompt], [videos], plan, room, on_layer)
        if prefix is not None:
            prefix.check(prompt, videos)
            if prefix.plan != plan:
                raise ValueError(f"the prefix was prepared for dropout {prefix.plan}, not for {plan}: prepare another")
            begin = partial(prefix.go_on, self.model, prompt, room)
        return self._generate(begin, how, stop, rows, watch or Stopwatch())

    def tokens_of(self, sights: Sequence[Sight]) -> list[Float[Tensor, "_ _ E"]]:
        """The visual tokens of sights, where and as the model reads them.

        Raises:
            ValueError: a sight of another model.
        """
        for one in sights:
            if one.made_by != self.made_by:
                raise ValueError(f"a sight by model {one.made_by}, not by this ({self.made_by}): see the video again")
        return [one.tokens.to(self.model.device, self.model.dtype) for one in sights]

    def _generate(
        self, begin: Callable[[], Prefilled], how: Decoding, stop: Sequence[str], rows: int, watch: Stopwatch
    ) -> Generator[str, None, Reply]:
        with watch.stage("prefill"):
            begun = begin()
            del begin  # and with it the visual tokens on the device
        made, told, ended = list[int](), "", False
        tokens = decode(self.model, begun, how, self.steps)
        while True:
            with watch.stage("decode tokens"):
                step = next(tokens, None)
            if step is None or step[0] is None:
                break
            made.append(step[0])
            text, ended = cut_at(self.tokenizer.decode(made, skip_special_tokens=True), stop)
            # a character may need several tokens, and a stop text several more: hold back what may still change
            ready = text if ended else text[: len(text) - held_back(text, stop)]
            if len(ready) > len(told):
                yield ready[len(told) :]
                told = ready
            if ended:
                break
        text = cut_at(self.tokenizer.decode(made, skip_special_tokens=True), stop)[0]
        if len(text) > len(told):
            yield text[len(told) :]
        return Reply(text, len(made), rows, begun.visual, not ended and len(made) >= how.max_new_tokens)


def cut_at(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first stop text, and whether there was one."""
    places = [place for place in (text.find(words) for words in stop if words) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def held_back(text: str, stop: Sequence[str]) -> int:
    """Characters at the end that may still become another character or the beginning of a stop text."""
    whole = text.rstrip("\N{REPLACEMENT CHARACTER}")
    begun = (n for words in stop for n in range(1, len(words)) if whole.endswith(words[:n]))
    return len(text) - len(whole) + max(begun, default=0)


def check_question(question: str) -> None:
    """Raises ValueError for an empty or overlong question, or one with halves of characters."""
    if not question.strip().encode():
        raise ValueError("the question is empty: ask something")
    if len(question) > MAX_QUESTION:
        raise ValueError(f"the question has {len(question)} characters, more than {MAX_QUESTION}: shorten it")


def check_device(device: str) -> None:
    """Raises ValueError for a device that this machine does not have."""
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r} is not known: use cpu, cuda, cuda:N or mps") from None
    places = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there = [name for name, found in places.items() if found]
    if wanted.type not in there:
        raise ValueError(f"device {device} is not there: this machine has {', '.join(there)}")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device} is not there: this machine has {torch.cuda.device_count()} GPUs")


def _squashed(frames: Frames, size: int, clip_frames: int, batch: int) -> Generator[Frames, None, None]:
    """Frames in memory as the decoder would have given them."""
    count = len(frames.seconds)
    if not count or count % clip_frames:
        raise ValueError(f"{count} frames are not whole clips of {clip_frames}: leave some out or repeat some")
    for at in range(0, count, batch):
        images = (Image.fromarray(pixels) for pixels in frames.pixels[at : at + batch])
        small = np.stack([np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)) for image in images])
        yield Frames(small, frames.seconds[at : at + batch], frames.duration)
