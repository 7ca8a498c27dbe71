"""Stages run alone are those of the pipeline: the same tokens, readings for each, nothing left out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import videos
from command import SMALL

from videochat_flash import chat, reader
from videochat_flash.bench import stages
from videochat_flash.bench.gauge import Gauge, Machine
from videochat_flash.bench.report import rates
from videochat_flash.bench.stages import WHOLE, Footage, Setting, run, see
from videochat_flash.bench.work import DECODE, FIRST, PREFILL, RESIZE, STAGES, TOKEN, TOWER
from videochat_flash.chat import Stopwatch, VideoChatFlash
from videochat_flash.generate import Decoding
from videochat_flash.prompt import plain_text
from videochat_flash.video import VideoError, VideoInfo, probe


def quiet(done: int, total: int, words: str = "") -> None:
    """Nobody looks."""


def made_of(film: Path) -> int:
    """Pixels of a frame."""
    return probe(film).width * probe(film).height


@pytest.fixture(scope="module")
def vc() -> VideoChatFlash:
    ended = tuple(range(512))  # whatever it says would end an answer
    return VideoChatFlash(tiny.model(SMALL), plain_text(tiny.tokenizer()), Decoding(eos=ended))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.make(tmp_path_factory.mktemp("film") / "film.mp4", 40)


@pytest.mark.parametrize("frames", [8, 72])
def test_stage_by_stage_gives_the_tokens_of_the_pipeline(vc: VideoChatFlash, film: Path, frames: int) -> None:
    for setting in (Setting(frames, size=(64, 48)), Setting(min(frames, 40), film)):
        footage = Footage.open(setting, SMALL.vision.image_size)
        tokens, whole = see(vc, footage, Gauge(torch.device("cpu"))), footage.see(vc, Stopwatch())
        assert len(tokens) * 4 == whole.frames == setting.frames
        torch.testing.assert_close(tokens, whole.tokens)


def test_every_stage_is_read_as_often_as_it_should_be(vc: VideoChatFlash, film: Path) -> None:
    made = run(vc, Setting(8, film, tokens=3, repeats=2, warmup=1), quiet)
    assert set(made.cold) == {*made.stages, WHOLE} and min(made.cold.values()) > 0
    assert not {made.cold[PREFILL]} & {*made.stages[PREFILL].seconds}  # the round before those that count
    assert list(made.stages) == [name for name in STAGES if name != RESIZE]  # which is a part of decoding
    assert made.stages[DECODE].work.bytes == 8 * 3 * (made_of(film) + SMALL.vision.image_size**2)
    for name, stage in made.stages.items():
        assert len(stage.seconds) == (4 if name == TOKEN else 2), name
        assert min(stage.seconds) > 0 and stage.work.units == (1 if name in (FIRST, TOKEN) else 8)
    assert len(made.whole.seconds) == len(made.waited) == 2
    assert made.visual == (128, 128, 64, 64, 32, 32) and made.rows > 128


def test_looking_into_a_file_is_timed_as_a_call_pays_for_it(
    vc: VideoChatFlash, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = list[Path]()

    def slow(path: Path) -> VideoInfo:
        looked.append(path)
        time.sleep(0.5)
        return probe(path)

    for module in (stages, chat):
        monkeypatch.setattr(module, "probe", slow)
    made = run(vc, Setting(8, film, tokens=2, repeats=2, warmup=0), quiet, probe(film))
    assert looked == [film] * 4  # in each round once alone and once in all of it
    assert min(*made.stages[DECODE].seconds, *made.whole.seconds, *made.waited) >= 0.5


def test_shares_are_of_what_is_reached_in_the_type_that_a_stage_computes_in() -> None:
    mixed = VideoChatFlash(tiny.model(SMALL), plain_text(tiny.tokenizer()), Decoding(eos=tuple(range(512))))
    mixed.model.vision.bfloat16()
    made = run(mixed, Setting(4, size=(64, 48), tokens=2, repeats=1, warmup=0), quiet)
    types = {name: stage.dtype for name, stage in made.stages.items()}
    assert types[TOWER] == torch.bfloat16 and types[PREFILL] == types[TOKEN] == torch.float32
    peaks = {
        torch.bfloat16: Machine("", 4e9, 1e9, None, "drawn"),
        torch.float32: Machine("", 1e9, 5e8, None, "drawn"),
    }
    for name, machine in ((TOWER, peaks[torch.bfloat16]), (PREFILL, peaks[torch.float32])):
        flops, of_peak, moved, of_copy = rates(made.stages[name], peaks)
        assert flops and moved and of_peak == flops / machine.flops and of_copy == moved / machine.bandwidth
    assert made.whole.dtype is None and rates(made.whole, peaks)[0] and rates(made.whole, peaks)[1] is None


def test_a_file_is_read_by_as_many_decoders_as_in_the_pipeline(
    vc: VideoChatFlash, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of pictures may be too large to be kept ready as it is, and small enough as the tower sees it."""
    side = SMALL.vision.image_size
    monkeypatch.setattr(reader, "WAITING", 40 * 3 * side**2)
    alone: list[object] = []
    real = reader._through
    monkeypatch.setattr(reader, "_through", lambda *given: alone.append(given) or real(*given))
    setting = Setting(40, videos.make(film.parent / "large.mp4", np.zeros((40, 2 * side, 4 * side, 3), np.uint8)))
    see(vc, Footage.open(setting, side), Gauge(torch.device("cpu")))
    assert not alone
    Footage.open(setting).read()
    assert alone


def test_drawn_frames_are_not_decoded(vc: VideoChatFlash) -> None:
    made = run(vc, Setting(4, size=(64, 48), keep=(), tokens=2, repeats=1, warmup=0, whole=False), quiet)
    assert made.whole is None
    assert list(made.stages) == [name for name in STAGES if name != DECODE]
    assert set(made.visual) == {64}


def test_a_file_must_hold_the_frames(vc: VideoChatFlash, film: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 40 frames, fewer than --frames 44"):
        run(vc, Setting(44, film), quiet)
    with pytest.raises(ValueError, match="use 40 or 44"):
        run(vc, Setting(42, film), quiet)
    with pytest.raises(VideoError):
        Footage.open(Setting(4, tmp_path / "absent.mp4"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tokens": 1}, "--max-new-tokens must be at least 2"),
        ({"repeats": 0}, "--repeats must be at least 1"),
        ({"warmup": -1}, "--warmup cannot be negative"),
        ({"size": (0, 9)}, "--size 0x9 is too small"),
    ],
)
def test_what_cannot_be_run_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Setting(4, **changed)  # type: ignore[arg-type]
