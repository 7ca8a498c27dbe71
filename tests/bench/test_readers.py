"""Plain readers are a fair yardstick: they give the frames that ours gives."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import videos

from videochat_flash.bench.readers import decord, readers, torchcodec
from videochat_flash.video import Sampling, decode, plan, probe

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a library that cannot be loaded here
    THERE = readers()


@pytest.mark.parametrize("name", THERE)
@pytest.mark.parametrize("gop", [5, 100])
def test_plain_readers_give_our_frames(name: str, gop: int, tmp_path: Path) -> None:
    path = videos.make(tmp_path / "film.mp4", 80, gop=gop)
    info = probe(path)
    wanted = plan(info, Sampling("count", num_frames=12))
    ours = np.concatenate([chunk.pixels for chunk in decode(info, wanted, None)])
    plain = np.stack(list(THERE[name](path, wanted.frames.tolist())))
    assert videos.read_numbers(plain) == wanted.frames.tolist() == videos.read_numbers(ours)
    assert plain.shape == ours.shape


@pytest.mark.parametrize("name", THERE)
def test_a_frame_that_fills_a_clip_is_given_as_often_as_wanted(name: str, tmp_path: Path) -> None:
    path = videos.make(tmp_path / "film.mp4", 9)
    assert videos.read_numbers(np.stack(list(THERE[name](path, [2, 6, 6, 8, 8])))) == [2, 6, 6, 8, 8]


def test_a_library_that_cannot_be_loaded_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "decord.py").write_text("raise OSError('built for something else')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "decord", raising=False)
    monkeypatch.setattr("videochat_flash.bench.readers.find_spec", lambda name: name == "decord" or None)
    with pytest.warns(UserWarning, match="decord is installed but cannot be loaded.*built for something else"):
        assert "decord" not in readers()


@pytest.mark.parametrize("name", ["PyAV, decoding through", "PyAV, seeking"])
def test_what_pyav_cannot_read_is_a_value_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):  # the library's own is none
        list(THERE[name](tmp_path / "absent.mp4", [0]))


def test_what_decord_and_torchcodec_cannot_read_is_a_value_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By stand-ins: neither need be installed here."""

    class Own(Exception):
        """Of no kind that Python knows."""

    def refuse(error: Exception) -> Any:
        def go(*_: object, **__: object) -> None:
            raise error

        return go

    for error in (Own("cannot find a video stream"), IndexError("out of bound indices")):
        parts = {
            "decord": SimpleNamespace(VideoReader=refuse(error)),
            "decord.base": SimpleNamespace(DECORDError=Own),
            "torchcodec.decoders": SimpleNamespace(VideoDecoder=refuse(error)),
        }
        for part, made in parts.items():
            monkeypatch.setitem(sys.modules, part, made)
        with pytest.raises(ValueError, match=str(error)):
            list(decord(tmp_path / "film.mp4", [0]))
    with pytest.raises(ValueError, match="out of bound indices"):
        list(torchcodec(tmp_path / "film.mp4", [0]))
