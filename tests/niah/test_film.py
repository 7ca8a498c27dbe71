"""Haystacks and films: the right frames, and a splice that equals the film that went through a real mp4."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import videos
from PIL import Image

from videochat_flash import Sampling, Sight, VideoChatFlash, looks
from videochat_flash.niah import film, haystack, place
from videochat_flash.niah.film import Scenery, Splicer
from videochat_flash.niah.haystack import Haystack, open_haystack
from videochat_flash.niah.items import Needle
from videochat_flash.niah.place import Part
from videochat_flash.video import VideoError

pytestmark = pytest.mark.usefixtures("unchecked")
CARD = Needle(card=("red", "star", "7"), seed=3)
OTHER = Needle(card=("blue", "circle", "A", "red", "star"), seed=4)


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred numbered frames in ten seconds."""
    return videos.make(tmp_path_factory.mktemp("films") / "film.mp4", 100, 10)


def made(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Haystack:
    return open_haystack(["procedural"], seed, 0, size=size)


def numbers(stack: Haystack, first: int, count: int) -> list[int]:
    return videos.read_numbers(np.stack(list(stack.read(first, count))))


# Haystacks.


def test_frames_of_files_a_second_apart(numbered: Path) -> None:
    stack = open_haystack([str(numbered)], 0, 0)
    assert stack.frames == 10 and numbers(stack, 0, 10) == [10 * i for i in range(10)]
    assert numbers(stack, 3, 4) == [30, 40, 50, 60]
    finer = open_haystack([str(numbered)], 0, 0, fps=5)
    assert finer.frames == 50 and numbers(finer, 47, 3) == [94, 96, 98] and finer.digest != stack.digest
    assert open_haystack([str(numbered)], 0, 0, every=True).frames == 10


def test_files_are_joined_and_repeated_only_where_it_is_said(numbered: Path, tmp_path: Path) -> None:
    other = str(videos.make(tmp_path / "other.mp4", 96, 10))
    both = open_haystack([str(numbered), other], 0, 0)
    assert both.frames == 20 and numbers(both, 8, 4) == [80, 90, 0, 10]
    with pytest.raises(ValueError, match="has 20 frames, 21 are needed"):
        list(both.read(0, 21))
    with pytest.raises(ValueError, match="twice"):
        open_haystack([str(numbered), other, str(numbered)], 0, 0)
    assert open_haystack([str(numbered), other, str(numbered)], 0, 0, repeat=True).frames == 20
    again = open_haystack([str(numbered)], 0, 0, repeat=True)
    assert numbers(again, 8, 14) == [80, 90, *range(0, 100, 10), 0, 10]


def test_a_made_haystack_has_no_end() -> None:
    stack = made()
    assert stack.frames is None and next(stack.read(5000, 1)).shape == (64, 96, 3)
    assert [a.tobytes() for a in stack.read(2, 2)] == [next(stack.read(i, 1)).tobytes() for i in (2, 3)]
    assert stack.digest == made().digest != made(1).digest


def test_haystacks_that_cannot_be(numbered: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fewer than --fps 20"):
        open_haystack([str(numbered)], 0, 0, fps=20)
    gap = videos.make(tmp_path / "gap.mp4", 60, 10, times=[i / 10 + 3 * (i > 30) for i in range(60)])
    with pytest.raises(ValueError, match="frames that are more than 1 s apart"):
        open_haystack([str(gap)], 0, 0)
    with pytest.raises(ValueError, match="above 0"):
        open_haystack([str(numbered)], 0, 0, fps=0)
    with pytest.raises(VideoError, match="missing"):
        open_haystack([str(tmp_path / "none.mp4")], 0, 0)
    with pytest.raises(ValueError, match="cannot be joined"):
        open_haystack(["procedural", str(numbered)], 0, 0)


def test_near_duplicates_are_counted(numbered: Path) -> None:
    told: list[int] = []
    once = haystack.hashes(open_haystack([str(numbered)], 0, 0), 10, told.append)
    twice = np.concatenate([once, once])
    assert told == [*range(1, 11)]
    assert looks.near_duplicates(twice) == looks.near_duplicates(once) + 10
    assert looks.looks_like(int(once[3]), once) and not looks.looks_like(int(~once[0]), once[:1])


# Films.


def scenery(stack: Haystack, square: bool = False) -> Scenery:
    return Scenery(stack, {"a": CARD, "b": OTHER, "code": Needle(code="7KQ2ZT")}, square)


FILMS = {
    "between clips": place.with_needles(24, [8, 16], ["a", "b"], 4),
    "at both ends": place.with_needles(16, [0, 16], ["a", "b"], 4),
    "through clips": place.with_needles(24, [6, 13], ["a", "b"], 4),
    "one frame each": place.with_needles(18, [3, 9], ["a", "b"], 1),
    "nothing": (Part("", 0, 16),),
    "nothing else": (Part("a", 0, 4), Part("b", 0, 4)),
    "not from the beginning": (Part("", 8, 8), Part("code", 15, 4), Part("", 4, 4)),
}


@pytest.mark.parametrize("name", FILMS)
def test_the_splice_equals_the_film_that_went_through_an_mp4(name: str, vc: VideoChatFlash, tmp_path: Path) -> None:
    what, parts = scenery(made()), place.whole_clips(FILMS[name])
    count = place.length_of(parts)
    film.as_mp4(what.frames(parts), tmp_path / "film.mp4", film.LOSSLESS)
    whole = vc.see(tmp_path / "film.mp4", Sampling("count", max_frames=count, num_frames=count))
    spliced = Splicer(vc, what, tmp_path / "cache").film(parts)
    torch.testing.assert_close(spliced.tokens, whole.tokens, atol=1e-5, rtol=1e-5)
    assert torch.equal(spliced.seconds, whole.seconds) and spliced.duration == whole.duration == count
    assert vc.answer(spliced, "What?") == vc.answer(whole, "What?")


def test_what_is_seen_once_is_kept(vc: VideoChatFlash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "CHUNK", 16)
    told: list[tuple[int, int]] = []
    first = Splicer(vc, scenery(made()), tmp_path, lambda *seen: told.append(seen))
    before = first.film(FILMS["between clips"])
    assert told[-1] == (24, 24) and len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(film, "seen", None)  # nothing more is seen
    again = first.film(FILMS["between clips"])
    assert torch.equal(before.tokens, again.tokens)
    other = Splicer(vc, scenery(made()), tmp_path)
    assert torch.equal(other.haystack(24).tokens, first.haystack(24).tokens)
    with pytest.raises(TypeError):  # another haystack is another one
        Splicer(vc, scenery(made(1)), tmp_path).haystack(24)


def test_a_haystack_behind_a_shift_is_seen_once(
    vc: VideoChatFlash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needles of one frame shift all that is behind them by as much; films with them elsewhere show the same clips."""
    splicer, see, frames = Splicer(vc, scenery(made()), tmp_path), film.seen, list[int]()
    monkeypatch.setattr(
        film, "seen", lambda vc, shown, count, *more: frames.append(count) or see(vc, shown, count, *more)
    )
    splicer.haystack(36)
    for cut in (3, 9, 17, 21):
        splicer.film(place.with_needles(39, [cut], ["a"], 1))
    assert frames == [36, 36, 4, 4, 4, 4]  # as it is, shifted, and the clip of each needle


def test_films_are_whole_clips(vc: VideoChatFlash, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not whole clips"):
        Splicer(vc, scenery(made()), tmp_path).film((Part("", 0, 6),))


def test_needles_are_drawn_over_what_was_shown_last() -> None:
    stack = made(size=(160, 120))
    what = scenery(stack)
    frames = list(what.frames(FILMS["between clips"]))
    back = next(stack.read(7, 1)).astype(int)
    assert all(np.abs(frames[i].astype(int) - back).mean() > 8 for i in range(8, 12))
    assert not np.array_equal(frames[8], frames[9]) and np.array_equal(frames[12], next(stack.read(8, 1)))
    coded = what.frame(("code", 0, 7)).astype(int)
    changed = np.argwhere(np.abs(coded - back).max(-1) > 0)
    assert changed[:, 0].min() > 20 and (coded == 255).mean() > 0.05 and (coded == 0).mean() > 0.005


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pictures_are_fitted_or_squared(tmp_path: Path) -> None:
    Image.fromarray(np.full((30, 90, 3), 200, np.uint8)).save(tmp_path / "wide.png")
    picture = {"p": Needle(picture=str(tmp_path / "wide.png"), sha256=digest_of(tmp_path / "wide.png"))}
    assert Scenery(made(), picture).frame(("p", 0, 0)).shape == (64, 96, 3)
    square = Scenery(made(), picture, square=True).frame(("p", 0, 0))
    assert (
        square.shape == (90, 90, 3)
        and square[0, 0].tolist() == [123, 116, 103]
        and square[45, 45].tolist() == [200] * 3
    )
    (tmp_path / "wide.png").write_text("no picture")
    with pytest.raises(ValueError, match="wide.png is another one than when"):
        Scenery(made(), picture).frame(("p", 0, 0))
    picture = {"p": Needle(picture=str(tmp_path / "wide.png"), sha256=digest_of(tmp_path / "wide.png"))}
    with pytest.raises(ValueError, match="wide.png cannot be read"):
        Scenery(made(), picture).frame(("p", 0, 0))


def test_rows_of_the_reference_are_cut_through_clips(vc: VideoChatFlash, tmp_path: Path) -> None:
    splicer = Splicer(vc, scenery(made(), square=True), tmp_path)
    whole = splicer.haystack(16).tokens.reshape(64 // 4, 16, -1)
    parts = (Part("", 0, 6), Part("a", 0, 4), Part("", 6, 8))
    rows = splicer.rows(parts)
    assert rows.shape == (18, 16, whole.shape[2])
    assert torch.equal(rows[:6], whole[:6]) and torch.equal(rows[10:], whole[6:14])


def test_chosen_frames_stand_alone_in_the_mp4(tmp_path: Path) -> None:
    still = [*made().read(0, 1)] * 20  # without cuts, of which an encoder makes key frames of its own
    film.as_mp4(still, tmp_path / "film.mp4", film.SENT, keys=[7, 8])
    with warnings.catch_warnings(), av.open(str(tmp_path / "film.mp4")) as stored:
        keys = sorted(packet.pts for packet in stored.demux(video=0) if packet.size and packet.is_keyframe)
        rate = stored.streams.video[0].time_base
    assert [round(float(pts * rate)) for pts in keys] == [0, 7, 8]


def test_sights_of_films_are_plain_sights(vc: VideoChatFlash, tmp_path: Path) -> None:
    sight = Splicer(vc, scenery(made()), tmp_path / "cache").film(FILMS["between clips"])
    sight.save(tmp_path / "film.safetensors")
    assert torch.equal(Sight.load(tmp_path / "film.safetensors").tokens, sight.tokens) and sight.frames == 32
