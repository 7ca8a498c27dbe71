"""A Sight: sliced, joined, saved and read back without a bit changing; other files refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import draw

from videochat_flash.sight import FORMAT, Sight


def sight(clips: int = 5, **other: object) -> Sight:
    times = torch.arange(2.0 * clips).view(clips, 2)
    made = Sight(draw(clips, 8, 6), times, 12.5, clip_frames=4, source="film", made_by="model")
    return replace(made, **other)


def same(one: Sight, other: Sight) -> bool:
    facts = [(s.duration, s.clip_frames, s.source, s.made_by, s.tokens.dtype) for s in (one, other)]
    return facts[0] == facts[1] and torch.equal(one.tokens, other.tokens) and torch.equal(one.seconds, other.seconds)


def test_it_counts_clips_and_frames_and_shows_them() -> None:
    assert len(sight()) == 5 and sight().frames == 20 and not sight().is_image
    assert sight(clip_frames=1).is_image
    assert repr(sight()) == "Sight(tokens=(5, 8, 6), frames=20, duration=12.50 s)"


@given(st.integers(0, 5), st.integers(0, 5))
def test_slices_join_to_the_whole(first: int, second: int) -> None:
    whole = sight()
    cuts = sorted((first, second))
    parts = [whole[: cuts[0]], whole[cuts[0] : cuts[1]], whole[cuts[1] :]]
    assert [len(part) for part in parts] == [cuts[0], cuts[1] - cuts[0], 5 - cuts[1]]
    assert same(Sight.join(parts), whole)


def test_clips_of_another_video_go_between_and_the_first_video_gives_the_facts() -> None:
    hay, needle = sight(), replace(sight(1), tokens=torch.ones(1, 8, 6), source="needle", duration=4.0)
    spliced = Sight.join([hay[:2], needle, hay[2:]])
    assert len(spliced) == 6 and (spliced.source, spliced.duration) == ("film", 12.5)
    assert torch.equal(spliced.tokens[2], torch.ones(8, 6)) and torch.equal(spliced.tokens[3], hay.tokens[2])


def test_nothing_cannot_be_joined_nor_can_sights_of_different_models() -> None:
    with pytest.raises(ValueError, match="nothing to join"):
        Sight.join([])
    with pytest.raises(ValueError, match="model and other"):
        Sight.join([sight(), sight(made_by="other")])
    with pytest.raises(ValueError, match="different models"):
        Sight.join([sight(), sight(clip_frames=1)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_read_back_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    one = sight(tokens=draw(5, 8, 6).to(dtype))
    one.save(tmp_path / "film.safetensors")
    assert same(Sight.load(tmp_path / "film.safetensors"), one)
    one[1:3].save(str(tmp_path / "part.safetensors"))
    assert same(Sight.load(str(tmp_path / "part.safetensors")), one[1:3])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.safetensors", "part.safetensors"]


@pytest.mark.usefixtures("unchecked")
def test_saving_replaces_the_old_file_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "film.safetensors"
    sight().save(path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        sight(source=b"bytes").save(path)
    assert same(Sight.load(path), sight())
    assert list(tmp_path.iterdir()) == [path]
    os.link(path, tmp_path / "read by another")
    sight()[:2].save(path)
    assert same(Sight.load(path), sight()[:2]) and same(Sight.load(tmp_path / "read by another"), sight())


def test_a_missing_file_says_how_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="vcflash see"):
        Sight.load(tmp_path / "nothing.safetensors")


def test_other_files_are_refused(tmp_path: Path) -> None:
    noise, weights, newer = (tmp_path / name for name in ("noise", "weights", "newer"))
    noise.write_bytes(b"not safetensors at all")
    save_file({"tokens": draw(1, 2, 3)}, weights)
    save_file({"tokens": draw(1, 2, 3)}, newer, metadata={"format": FORMAT[:-1] + "2", "sight": json.dumps({})})
    for path, words in ((noise, "is not a sight"), (weights, "format is None"), (newer, "sight 2")):
        with pytest.raises(ValueError, match=words):
            Sight.load(path)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("tokens", "seconds"), [((5, 8), (5, 2)), ((5, 8, 6), (4, 2)), ((5, 8, 6), (5, 3))])
def test_shapes_that_do_not_fit_are_refused(tokens: tuple[int, ...], seconds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a sight needs tokens"):
        Sight(torch.zeros(tokens), torch.zeros(seconds), 1.0, 4, "film", "model")
