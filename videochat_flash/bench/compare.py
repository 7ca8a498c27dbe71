"""One way against another on the same work: arms take turns within a run, so that noise hits them alike."""

from __future__ import annotations

import copy
import ctypes
import gc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..chat import VideoChatFlash
from ..config import Config, Plan
from ..facts import plan_text
from ..failures import FULL, out_of_memory
from ..generate import prefill
from ..prefix import prepare
from ..prompt import Turn, render
from ..show import Told, one_line
from ..sight import Sight
from ..video import MOST_FRAMES, Sampling, VideoInfo, decode, plan, probe
from ..vision import normalise
from .gauge import Gauge, Reading, Spread
from .models import CARD_PLAN
from .readers import Reader, readers
from .stages import QUESTION, Footage, Setting, first_token, sight_of
from .work import sample_of

# Frames where none are given: the prefill is then of 16,000 visual rows in the released models.
FRAMES = {"seeing": 128, "prefill": 1000, "asking": 1024, "reading": 512}
DROPPING = ("prefill", "asking")  # whose arms have dropout
OURS = "as vcflash does it"
SECOND, THIRD = "How often does it happen?", "And what comes after that?"
HISTORY = (
    Turn("user", QUESTION),
    Turn("assistant", "A card is shown."),
    Turn("user", SECOND),
    Turn("assistant", "Twice."),
)
FAILURES = (RuntimeError, ValueError, OSError, EOFError, MemoryError)  # of an arm: a full device, an unreadable file
Arms = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Comparison:
    """Some ways of doing the same.

    Attributes:
        name: what is done.
        about: how much of it.
        base: the arm that the others are held against.
        arms: readings of each, one a round; those of a round belong together.
        memory: of each arm, run once more after everything that is not in use was given back.
        failed: arms that could not be run to the end, and why; they are in neither.
    """

    name: str
    about: str
    base: str
    arms: Mapping[str, Sequence[Reading]]
    memory: Mapping[str, Reading]
    failed: Mapping[str, str] = field(default_factory=dict)

    def seconds(self, arm: str) -> Spread:
        """Of an arm."""
        return Spread.of([one.seconds for one in self.arms[arm]])

    def times(self, arm: str) -> Spread | None:
        """How many times as fast as the base, round by round; None where that failed."""
        if self.base not in self.arms:
            return None
        pairs = zip(self.arms[self.base], self.arms[arm], strict=True)
        return Spread.of([base.seconds / one.seconds for base, one in pairs])

    def peak(self, arm: str) -> int | None:
        """Bytes on the device or, where that tells nothing, of the whole program."""
        reading = self.memory[arm]
        return reading.host if reading.device is None else reading.device

    def times_the_added(self, arm: str) -> float | None:
        """What it held beyond what was there before, of the base's; None where that is not known, or nothing."""
        added, base = (self.memory[one].added if one in self.memory else None for one in (arm, self.base))
        return None if added is None or not base else added / base


def compare(
    vc: VideoChatFlash, wanted: Mapping[str, int], setting: Setting, told: Told, info: VideoInfo | None = None
) -> Iterator[Comparison]:
    """All comparisons that are asked for, one after the other. What fails is told, and the others go on.

    Args:
        vc: the model.
        wanted: names of FRAMES, and how many frames each is made with.
        setting: rounds, dropout, and the file of ``reading``.
        told: told the rounds.
        info: what the file holds, if it was looked into already.

    Raises:
        ValueError: what ``check`` refuses.
    """
    info = check(vc.model.config, wanted, setting.video, info)
    for name, count in wanted.items():
        try:
            yield from _compared(vc, name, count, setting, told, info)
        except FAILURES as error:  # before any arm was run
            warnings.warn(f"{name} is not compared: {reason(error)}", stacklevel=2)


def _compared(
    vc: VideoChatFlash, name: str, count: int, setting: Setting, told: Told, info: VideoInfo | None
) -> Iterator[Comparison]:
    if name == "seeing":
        yield _seeing(vc, count, setting, told)
    elif name == "prefill":
        yield _prefills(vc, count, setting, told)
    elif name == "asking":
        yield _asking(vc, count, setting, told)
    elif info is None:
        warnings.warn("how files are read is not compared: give one with --video", stacklevel=3)
    else:
        yield from _reading(info, count, setting, told)


def check(
    config: Config, wanted: Mapping[str, int], video: Path | None, info: VideoInfo | None = None
) -> VideoInfo | None:
    """What can be known before a model is there: of the file, if it is to be read, what it holds.

    Raises:
        ValueError: frames that are not whole clips, or more than the file has.
        VideoError: a file that cannot be read.
    """
    for count in wanted.values():
        sample_of(config, count)
    if "reading" in wanted and video is not None:
        return Footage.open(Setting(wanted["reading"], video), info=info).info
    return None


def drops_of(config: Config, keep: Plan | None) -> Plan:
    """The dropout of all arms that have one: as asked for, or the model's own, or that on the releases' card."""
    if keep is not None:
        return keep
    return config.keep or (CARD_PLAN if CARD_PLAN[-1].layer < config.llm.layers else ())


# -- what is compared --------------------------------------------------------------------------------------------------


def _seeing(vc: VideoChatFlash, count: int, setting: Setting, told: Told) -> Comparison:
    """Frames in memory -> visual tokens: as ``vc.see`` does it, and clip by clip in float32."""
    side, clip = vc.model.config.vision.image_size, vc.model.config.vision.clip_frames
    chunks = list(Footage.open(Setting(count, size=(side, side))).chunks())
    plain = copy.deepcopy(vc.model.vision).float(), copy.deepcopy(vc.model.connector).float()
    tower = next(vc.model.vision.parameters()).dtype

    @torch.inference_mode()
    def straightforward() -> None:
        for chunk in chunks:
            for at in range(0, len(chunk.seconds), clip):
                pixels = torch.from_numpy(chunk.pixels[at : at + clip])[None].to(vc.model.device)
                plain[1](plain[0](normalise(pixels)), clip).cpu()

    def ours() -> list[Sight]:
        return [vc.see(chunk) for chunk in chunks]

    base = "float32, a clip at a time"
    about = f"{count} frames of {side} pixels in memory to visual tokens; {OURS}: {str(tower).removeprefix('torch.')}"
    return _taken_in_turn("seeing", about, base, {base: straightforward, OURS: ours}, vc.model.device, setting, told)


def _prefills(vc: VideoChatFlash, count: int, setting: Setting, told: Told) -> Comparison:
    """A prompt through the decoder, with dropout and without."""
    sight, drops = _drawn_sight(vc, count), drops_of(vc.model.config, setting.keep)
    prompt = render(vc.tokenizer, [Turn("user", QUESTION)], [sight])

    def arm(keep: Plan) -> Callable[[], object]:
        return lambda: prefill(vc.model, [prompt], [vc.tokens_of([sight])], keep)

    rows, base = sight.tokens.shape[0] * sight.tokens.shape[1], "no dropout"
    arms = {base: arm(()), plan_text(drops): arm(drops)}
    about = f"{rows:,} visual rows and {len(prompt.ids)} of text, {_dtype(vc)}"
    return _taken_in_turn("prefill", about, base, arms, vc.model.device, setting, told)


def _asking(vc: VideoChatFlash, count: int, setting: Setting, told: Told) -> Comparison:
    """The first token of a first question, of a second one, and of the third turn of a conversation."""
    sight, drops = _drawn_sight(vc, count), drops_of(vc.model.config, setting.keep)
    prefix = prepare(vc, sight, keep=drops)
    base = "first question, nothing kept"
    arms: Arms = {
        base: lambda: first_token(vc, sight, QUESTION, drops),
        "making what is kept": lambda: prepare(vc, sight, keep=drops),
        "second question": lambda: first_token(vc, sight, SECOND, drops, prefix=prefix),
        "third turn": lambda: first_token(vc, sight, THIRD, drops, prefix=prefix, history=HISTORY),
    }
    kept = f"{prefix.bytes / 1e6:,.0f} MB are kept"
    about = f"a sight of {sight.frames:,} frames to the first token, dropout {plan_text(drops)}, {_dtype(vc)}; {kept}"
    return _taken_in_turn("asking", about, base, arms, vc.model.device, setting, told)


def _reading(info: VideoInfo, count: int, setting: Setting, told: Told) -> Iterator[Comparison]:
    """Frames of a file at the size they have: so many of them evenly, and one a second."""
    path = Path(info.source)
    for name, sampling in (
        (f"{count} frames", Sampling("count", max_frames=count, num_frames=count)),
        ("a frame a second", Sampling("fps", max_frames=MOST_FRAMES, fps=1.0)),
    ):
        wanted = plan(info, sampling).frames.tolist()
        arms = {one: _reads(reader, path, wanted) for one, reader in readers().items()}
        about = f"{len(wanted)} of {info.frames:,} frames, {info.width}x{info.height}, {info.duration:,.0f} s"
        made = _taken_in_turn(
            f"reading {name}",
            about,
            OURS,
            {**arms, OURS: _read_by_us(path, sampling)},
            torch.device("cpu"),
            setting,
            told,
        )
        ran = [arm for arm in arms if arm in made.arms]
        yield replace(made, base=min(ran, key=lambda arm: made.seconds(arm).median, default=OURS))


def _reads(reader: Reader, path: Path, wanted: list[int]) -> Callable[[], object]:
    """All frames that are wanted: one that stops early or leaves some out would only look faster."""

    def read() -> int:
        count = sum(1 for _ in reader(path, wanted))
        if count != len(wanted):
            raise ValueError(f"gave {count:,} of {len(wanted):,} frames")
        return count

    return read


def _read_by_us(path: Path, sampling: Sampling) -> Callable[[], object]:
    """From the path on: looking into the file is part of it."""

    def read() -> int:
        info = probe(path)
        return sum(len(chunk.seconds) for chunk in decode(info, plan(info, sampling), None))

    return read


# -- how it is compared ------------------------------------------------------------------------------------------------


def _taken_in_turn(
    name: str, about: str, base: str, arms: Arms, device: torch.device, setting: Setting, told: Told
) -> Comparison:
    """Rounds in which every arm is run once, each round beginning with another arm; then memory."""
    found: dict[str, list[Reading]] = {arm: [] for arm in arms}
    order, rounds, failed = list(arms), setting.warmup + setting.repeats, dict[str, str]()
    memory: dict[str, Reading] = {}
    for number in range(rounds + 1):
        last = number == rounds
        told(number, rounds + 1, f"{name}, memory" if last else name)
        turn = 0 if last else number % len(order)
        for arm in order[turn:] + order[:turn]:
            if arm in failed:
                continue
            try:
                if last:
                    _give_back(device)
                reading = _read(arms[arm], device)
            except FAILURES as error:
                failed[arm] = reason(error)
                continue
            if last:
                memory[arm] = reading
            elif number >= setting.warmup:
                found[arm].append(reading)
    ran = {arm: readings for arm, readings in found.items() if arm not in failed}
    return Comparison(name, about, base, ran, memory, failed)


def reason(error: Exception) -> str:
    """In one line. Of what PyTorch says the sentence about memory, or the first: around it stand advice and places in
    its source."""
    told = str(error).split(". ") if isinstance(error, RuntimeError) else [str(error)]
    full = (one for one in told if any(words in one for words in FULL))
    return one_line(next(full, told[0])) or ("out of memory" if out_of_memory(error) else type(error).__name__)


def _read(arm: Callable[[], object], device: torch.device) -> Reading:
    gauge = Gauge(device)
    with gauge.stage("arm"):
        arm()
    return gauge.readings["arm"]


def _give_back(device: torch.device) -> None:
    """What is free but still held by this program would hide in the peak of the next."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # glibc
        library.malloc_trim(0)


def _drawn_sight(vc: VideoChatFlash, frames: int) -> Sight:
    """Visual tokens that are drawn: the decoder takes as long for any."""
    sample = sample_of(vc.model.config, frames)
    shape = (sample.clips, vc.model.config.clip_tokens, vc.model.config.llm.width)
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    return sight_of(vc, torch.from_numpy(noise * shape[2] ** -0.5).to(vc.model.dtype))


def _dtype(vc: VideoChatFlash) -> str:
    return str(vc.model.dtype).removeprefix("torch.")
