"""What the command does with its options: measure stages, compute them, or compare."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import show
from ..chat import CLIP_BATCH, VideoChatFlash
from ..config import Config, Plan, check_plan
from ..facts import plan_text
from ..failures import out_of_memory
from ..model import VideoChatFlashModel
from ..quantise import AS_LOADED, Packing
from ..video import VideoInfo
from .compare import DROPPING, FRAMES, check, compare, drops_of, reason
from .gauge import Spread, busy, by_data_sheet, measured
from .models import config_of, load, mark_of
from .plan import Forecast, forecast
from .report import (
    Facts,
    Peaks,
    Table,
    comparison_facts,
    comparison_table,
    cost_facts,
    cost_table,
    forecast_facts,
    forecast_table,
    name_of,
    run_facts,
    run_table,
)
from .smaller import shrink
from .stages import Footage, Run, Setting, run
from .work import repeats_heads, sample_of

FEW = (256,)  # frames where none are given
# What helps where there is too little memory for frames, for a model, or for measuring what a device reaches.
FEWER = "take fewer frames; --plan tells how many fit"
SMALLER = "take a smaller model, or a larger device; --plan tells what it needs"
PEAKS = "end what else holds memory there, or name a device whose peaks are known"


@dataclass(frozen=True)
class Asked:
    """The options, read: see ``options.py``."""

    model: str
    random: bool
    image_size: int | None
    device: str
    dtype: torch.dtype | None
    packing: Packing
    keep: Plan | None
    frames: tuple[int, ...] | None
    bars: bool

    def config(self) -> Config:
        """The model's sizes."""
        return config_of(self.model, self.image_size)

    def check(self, share: float, compared: Sequence[str]) -> None:
        """What can be known before anything is loaded.

        Raises:
            ValueError: frames that are not whole clips, several numbers of them where one is compared, a plan beyond
                the decoder, dropout held against none where there is none, a share that nothing reaches.
        """
        config = self.config()
        check_plan(self.keep or (), config.llm)
        for frames in self.frames or ():
            sample_of(config, frames)
        if compared and len(self.frames or ()) > 1:
            raise ValueError("--compare takes one number of --frames")
        if "prefill" in compared and not drops_of(config, self.keep):
            raise ValueError("--compare prefill holds dropout against none, but there is none: give it by --keep")
        if not 0 < share <= 1:
            raise ValueError(f"--share must be above 0 and at most 1, not {share:g}")

    def drops(self, config: Config) -> Plan:
        """The dropout: as asked for, or the model's own."""
        return config.keep if self.keep is None else self.keep

    def load(self, packing: Packing = AS_LOADED) -> VideoChatFlash:
        """The model, on a device that is there, and a warning where others are at work, too."""
        self.packing.check(self.device)
        crowd = busy()
        if crowd is not None:
            text = f"{crowd:.1f} processes for each core were running before this began: times will be too long"
            warnings.warn(text, stacklevel=2)
        return load(self.model, self.random, self.dtype, self.device, self.image_size, packing)


@dataclass(frozen=True)
class Found:
    """What a command found: for machines, for people, and the bars of its picture."""

    peaks: Peaks
    facts: Facts
    tables: Sequence[Table]
    bars: Sequence[tuple[int, Mapping[str, float]]] = ()


def measure(asked: Asked, settings: Sequence[Setting]) -> Found:
    """Run every stage, for each number of frames. Where the device is full, those before are still told.

    Raises:
        ValueError: not even the first fits.
    """
    info = Footage.open(settings[0]).info
    for setting in settings:
        Footage.open(setting, info=info)
    with _room(SMALLER):
        vc = asked.load()
        peaks = _peaks(vc)
    with _room():
        cost = shrink(vc, settings[0], info) if asked.packing else None
    runs: list[Run] = []
    for setting in settings:
        try:
            with _room(), show.progress("measuring", asked.bars) as told:
                runs.append(run(vc, setting, told, info))
        except FullDevice as error:
            if not runs:
                raise
            warnings.warn(f"{setting.frames} frames: {error}", stacklevel=2)
    bars = [(one.frames, {name: Spread.of(s.seconds).median for name, s in one.stages.items()}) for one in runs]
    facts: Facts = {
        **_about(asked, vc.model.config, vc.model.dtype, next(iter(peaks)), asked.drops(vc.model.config)),
        "marks": _marks(asked, vc.model.config, vc.model, info),
        "smaller": None if cost is None else cost_facts(cost),
        "runs": [run_facts(one, peaks) for one in runs],
    }
    tables = [*([] if cost is None else [cost_table(cost)]), *(run_table(one, peaks) for one in runs)]
    return Found(peaks, facts, tables, bars)


def _peaks(vc: VideoChatFlash) -> Peaks:
    """In the types that tower and decoder compute in."""
    types = dict.fromkeys((next(vc.model.vision.parameters()).dtype, vc.model.dtype))
    return {dtype: measured(vc.model.device, dtype) for dtype in types}


class FullDevice(ValueError):
    """A device whose memory does not suffice."""


@contextmanager
def _room(advice: str = FEWER) -> Iterator[None]:
    """Say in one line that a device is full, or a CPU's memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise FullDevice(f"{reason(error)}: {advice}") from None


def compute(asked: Asked, share: float) -> Found:
    """Foresee every stage on a device that is named, or on one of this machine, whose peaks are measured.

    Raises:
        ValueError: a device that is neither known nor here, or cannot hold the decoder so.
    """
    config, here = asked.config(), asked.device.partition(":")[0] in ("cpu", "cuda", "mps")
    if here:
        asked.packing.check(asked.device)
    dtype = asked.dtype or (torch.float32 if asked.device == "cpu" else torch.bfloat16)
    with _room(PEAKS):
        machine = measured(torch.device(asked.device), dtype) if here else by_data_sheet(asked.device, dtype)
    keep, kind = asked.drops(config), torch.device(asked.device).type if here else "cuda"
    old = here and kind == "cuda" and torch.cuda.get_device_capability(asked.device) < (8, 0)
    repeated = kind == "cuda" and repeats_heads(config.llm, dtype.itemsize, old)
    made: list[Forecast] = [
        forecast(config, frames, keep, dtype.itemsize, machine, share, CLIP_BATCH[kind], asked.packing, repeated)
        for frames in asked.frames or FEW
    ]
    rows, limit = max(one.rows for one in made), config.llm.limit
    if rows > limit:
        warnings.warn(f"{rows} rows are beyond the {limit} positions that the model was made for", stacklevel=2)
    bars = [(one.frames, {name: stage.seconds for name, stage in one.stages.items()}) for one in made]
    facts: Facts = {
        **_about(asked, config, dtype, dtype, keep),
        "marks": _marks(asked, config),
        "forecasts": [forecast_facts(one) for one in made],
    }
    return Found({dtype: machine}, facts, [forecast_table(one) for one in made], bars)


def comparisons(text: str) -> tuple[str, ...]:
    """Names of comparisons: as seeing,prefill, or all.

    Raises:
        ValueError: an unknown one.
    """
    names = tuple(FRAMES) if text == "all" else tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in FRAMES]
    if unknown:
        raise ValueError(f"--compare {unknown[0]!r} is not known: use all, or some of {', '.join(FRAMES)}")
    return names


def hold(asked: Asked, names: Sequence[str], setting: Setting) -> Found:
    """Hold one way against another, at the frames that were asked for or at those that each comparison is made for.

    Raises:
        ValueError: no arm of any could be run.
    """
    wanted = {name: asked.frames[0] if asked.frames else FRAMES[name] for name in names}
    info = check(asked.config(), wanted, setting.video)
    with _room(SMALLER):
        vc = asked.load(asked.packing)
        peaks = _peaks(vc)
    with show.progress("comparing", asked.bars) as told:
        made = list(compare(vc, wanted, setting, told, info))
    if not any(one.arms for one in made):
        why = next((f": {text}" for one in made for text in one.failed.values()), "")
        raise ValueError(f"nothing could be compared{why}")
    config, dropping = vc.model.config, any(name in DROPPING for name in names)
    keep = drops_of(config, asked.keep) if dropping else asked.drops(config)
    facts: Facts = {
        **_about(asked, config, vc.model.dtype, next(iter(peaks)), keep),
        "marks": _marks(asked, config, vc.model, info),
        "comparisons": [comparison_facts(one) for one in made],
    }
    return Found(peaks, facts, [comparison_table(one) for one in made])


def _about(asked: Asked, config: Config, dtype: torch.dtype, tower: torch.dtype, keep: Plan) -> Facts:
    types = [name_of(one) for one in (dtype, tower)]
    return {
        "model": Path(asked.model).name if Path(asked.model).is_dir() else asked.model,
        "random_weights": asked.random,
        "dtype": types[0] if dtype == tower else f"{types[0]}, tower {types[1]}",
        "image_size": config.vision.image_size,
        "quantised": str(asked.packing) or None,
        "dropout": plan_text(keep),
    }


def _marks(
    asked: Asked, config: Config, model: VideoChatFlashModel | None = None, info: VideoInfo | None = None
) -> dict[str, str]:
    """Of a folder and a file: only the last name of their paths is told, which others may have, too."""
    marks = {"model": mark_of(config, model)} if Path(asked.model).is_dir() else {}
    return marks if info is None else {**marks, "video": info.fingerprint[:8]}
