"""Samples: the right frames, tiles, prompts and labels, and one reason for whatever cannot be learned from."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer
from torch.utils.data import DataLoader
from videos import cut, make, numbered, read_numbers

from videochat_flash.mp4 import write
from videochat_flash.prompt import IGNORE, SYSTEM, Turn, plain_text, render
from videochat_flash.sight import Sight
from videochat_flash.train.media import PADDING, best_tiles, plan_video, raster, read_images, read_video
from videochat_flash.train.recipe import Recipe, Source, Video
from videochat_flash.train.records import Record, epoch_order
from videochat_flash.train.samples import Bad, Sample, Samples, arranged, chat_prompt, check, estimated_rows
from videochat_flash.train.worlds import Drawn, World
from videochat_flash.video import Sampling, VideoInfo, decode, plan, probe

SIZE = 48  # pixels: numbers can be read in squares of this
GOLDEN = Path(__file__).parent / "conversation.txt"
DYNAMIC = Video("dynamic", 64, 512)
RECIPE = Recipe("out", model="flash-tiny", image_size=SIZE, workers=0, video=Video("dynamic", 4, 8))


@cache
def tokenizer() -> Tokenizer:
    return plain_text(tiny.tokenizer())


def ask(text: str = "<image>\nWhat?", answer: str = "A dog.") -> tuple[Turn, ...]:
    return (Turn("user", text), Turn("assistant", answer))


def film(*media: Path | str, **more: Any) -> Record:
    return Record("one", "films", more.pop("turns", ask()), tuple(map(str, media)), more.pop("kind", "video"), **more)


def loaded(record: Record, recipe: Recipe = RECIPE) -> Sample | Bad:
    return Samples(recipe, tiny.CONFIG, tokenizer(), [record])[0]


def good(record: Record, recipe: Recipe = RECIPE) -> Sample:
    sample = loaded(record, recipe)
    assert isinstance(sample, Sample), sample
    return sample


def numbers(sample: Sample, slot: int = 0) -> list[int]:
    return read_numbers(sample.clips[slot].flatten(0, 1).numpy())


def written(sample: Sample) -> str:
    """The conversation as text: <image> where pixels stand, what is learned in [brackets]."""
    prompt, pieces, learned = sample.prompt, [], False
    for i, token in enumerate(prompt.ids):
        pieces += ["<image>"] * prompt.slots.count(i)
        if learned != (prompt.labels[i] != IGNORE):
            learned = not learned
            pieces.append("[" if learned else "]")
        pieces.append(tokenizer().decode([token], skip_special_tokens=False))
    return "".join([*pieces, "]" * learned])


@pytest.fixture(scope="module")
def numbered_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 s at 10 frames a second, every frame with its number."""
    path = tmp_path_factory.mktemp("films") / "numbered.mp4"
    write(path, (numbered(i) for i in range(400)), 10)
    return path


# -- videos ------------------------------------------------------------------------------------------------------------


def at_30_fps(frames: int) -> VideoInfo:
    seconds = np.arange(frames) / 30
    return VideoInfo("film", "video", seconds, frames / 30, 30.0, frames, 9, 9, 0, "")


@pytest.mark.parametrize(
    ("start", "end", "count", "begins", "ends"),
    [
        (0, 64, 64, [14, 44, 74, 104, 134, 164], [1874, 1904]),
        (10, 74, 64, [314, 344, 374, 404, 434, 464], [2174, 2204]),
        (100, 164, 64, [3014, 3044, 3074, 3104, 3134, 3164], [4874, 4904]),
        (280, 400, 64, [8404, 8413, 8422, 8431, 8441, 8450], [8981, 8990]),
        (5, 7, 60, [150, 151, 152], [208, 209]),
        (-3, 64, 64, [14, 44, 74], [1874, 1904]),
    ],
)
def test_windows_of_the_reference(start: float, end: float, count: int, begins: list[int], ends: list[int]) -> None:
    chosen = plan_video(at_30_fps(9000), DYNAMIC, start, end)
    frames = chosen.frames.tolist()
    assert (len(frames), frames[: len(begins)], frames[-2:]) == (count, begins, ends)
    assert chosen.duration == pytest.approx(min(end, 299.9) - max(0, start))
    assert np.array_equal(chosen.seconds, np.array(frames) / 30)


def test_short_windows_of_the_reference() -> None:
    assert plan_video(at_30_fps(9000), Video("dynamic", 4, 8), 5, 7).frames.tolist() == [157, 172, 187, 202]


@pytest.mark.parametrize(
    ("frames", "fps", "video", "first", "count"),
    [
        (900, 30, Video("middle", 4, 4), [112, 337, 562, 787], 4),
        (900, 30, Video("dynamic", 4, 8), [55, 168, 280, 393, 505, 618, 730, 843], 8),
        (900, 30, DYNAMIC, [6, 20, 34, 48, 62, 76], 64),
        (3000, 30, DYNAMIC, [14, 44, 74, 104, 134, 164], 100),
        (30, 30, DYNAMIC, [0, 1, 2, 3, 4, 5], 28),
        (3, 30, DYNAMIC, [0, 1, 2, 2], 4),
        (3, 30, Video("middle", 4, 4), [0, 1, 2, 2], 4),
        (66, 0.5, DYNAMIC, [0, 1, 2, 3, 4, 5], 132),
        (54000, 29.97, DYNAMIC, [52, 157, 262, 368, 473, 579], 512),
    ],
)
def test_whole_videos_of_the_reference(frames: int, fps: float, video: Video, first: list[int], count: int) -> None:
    info = replace(at_30_fps(1), seconds=np.arange(frames) / fps, duration=frames / fps, fps=fps, frames=frames)
    chosen = plan_video(info, video, None, None).frames.tolist()
    assert (chosen[: len(first)], len(chosen)) == (first, count)


def test_a_whole_video_shows_the_frames_that_it_says(numbered_film: Path) -> None:
    sample = good(film(numbered_film))
    assert sample.clips[0].shape == (2, 4, SIZE, SIZE, 3) and sample.clips[0].dtype == torch.uint8
    assert numbers(sample) == [24, 74, 124, 174, 224, 274, 324, 374]
    assert "lasts for 40.00 seconds, and 8 frames" in written(sample)
    assert sample.rows == len(sample.prompt.ids) + 2 * tiny.CONFIG.clip_tokens


@pytest.mark.parametrize(
    ("start", "end", "shown", "duration"),
    [(10, 20, [106, 118, 131, 143, 156, 168, 181, 193], "10.00"), (36, 99, [364, 373, 383, 393], "3.90")],
)
def test_a_window_shows_the_frames_between_its_ends(
    numbered_film: Path, start: float, end: float, shown: list[int], duration: str
) -> None:
    sample = good(film(numbered_film, start=start, end=end))
    assert len(numbers(sample)) == len(shown) and all(start * 10 <= n < min(400, end * 10) for n in numbers(sample))
    assert np.abs(np.array(numbers(sample)) - shown).max() <= 1
    assert f"lasts for {duration} seconds, and {len(shown)} frames" in written(sample)


@given(st.floats(0, 39), st.floats(0.2, 45), st.sampled_from([DYNAMIC, Video("dynamic", 4, 8), Video("middle", 4, 16)]))
def test_windows_hold_only_what_is_in_them(start: float, length: float, video: Video) -> None:
    chosen = plan_video(at_30_fps(1200), video, start, start + length)
    assert len(chosen.frames) % 4 == 0 and len(chosen.frames) <= video.max_frames
    assert np.all(np.diff(chosen.frames) >= 0)
    assert start - 1 / 30 <= chosen.seconds[0] and chosen.seconds[-1] < min(start + length, 39.9) + 1e-6


def test_a_window_of_uneven_frames_goes_by_their_times(tmp_path: Path) -> None:
    times = [i / 10 for i in range(40)] + [4 + i for i in range(16)]  # 10 a second for 4 s, then 1 a second
    path = make(tmp_path / "slides.mp4", 56, 10, times=times)
    sample = good(film(path, start=10, end=18))
    assert set(numbers(sample)) <= set(range(46, 54)) and len(set(numbers(sample))) == 8


def test_a_folder_of_frames_has_the_rate_of_its_source(tmp_path: Path) -> None:
    folder = tmp_path / "tvqa_frames"  # the name says nothing
    folder.mkdir()
    for i in range(24):
        Image.fromarray(numbered(i)).save(folder / f"img_{i + 1}.png")
    one, three = good(film(folder)), good(film(folder, frame_fps=3.0))
    assert "lasts for 24.00 seconds, and 8 frames" in written(one)
    assert "lasts for 8.00 seconds, and 8 frames" in written(three) and numbers(one) == numbers(three)
    part = good(film(folder, frame_fps=3.0, start=4.0, end=7.0))
    assert numbers(part) == [12, 14, 16, 19] and "lasts for 3.00 seconds, and 4 frames" in written(part)


def test_a_gif_lasts_as_long_as_its_frames(tmp_path: Path) -> None:
    path, pictures = tmp_path / "a.gif", [Image.fromarray(numbered(i)).convert("P") for i in range(6)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[500] * 5 + [1500])
    sample = good(film(path))
    assert "lasts for 4.00 seconds, and 4 frames" in written(sample)
    assert numbers(sample) == sorted(numbers(sample)) and set(numbers(sample)) <= set(range(6))
    pictures[0].save(path, save_all=True, append_images=pictures[1:2], duration=500)
    assert numbers(good(film(path))) == [0, 1, 1, 1]  # the last one again


def test_media_may_be_elsewhere(numbered_film: Path) -> None:
    with fsspec.open("memory://films/a.mp4", "wb") as file:
        file.write(numbered_film.read_bytes())
    there, here = good(film("memory://films/a.mp4")), good(film(numbered_film))
    assert torch.equal(there.clips[0], here.clips[0])
    missing = loaded(film("memory://films/none.mp4"))
    assert isinstance(missing, Bad) and missing.reason == "missing file"


def test_pixels_are_those_of_the_one_reader(numbered_film: Path) -> None:
    info = probe(numbered_film)
    chosen = plan_video(info, RECIPE.video, None, None)
    pixels = np.concatenate([part.pixels for part in decode(info, chosen, SIZE, chunk=3)])
    assert np.array_equal(
        read_video(str(numbered_film), RECIPE.video, SIZE, None, None, 1.0).clips.flatten(0, 1), pixels
    )


# -- images ------------------------------------------------------------------------------------------------------------


def picture(path: Path, width: int, height: int, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("image", "size", "chosen"),
    [  # width and height
        ((640, 480), 224, (672, 672)),
        ((1920, 1080), 224, (1344, 896)),
        ((3000, 4000), 224, (1120, 1344)),
        ((1920, 1080), 448, (2240, 1344)),
        ((224, 224), 224, (224, 224)),
        ((100, 80), 224, (224, 224)),
    ],
)
def test_tiles_of_the_reference(image: tuple[int, int], size: int, chosen: tuple[int, int]) -> None:
    rows, columns = best_tiles(*image, size, 6)
    assert (columns * size, rows * size) == chosen


def test_an_image_is_one_square_as_it_is_when_asked_about(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 70, 30)
    sample = good(film(path, kind="image"))
    info = probe(path)
    shown = next(decode(info, plan(info, Sampling()), SIZE)).pixels
    assert np.array_equal(sample.clips[0][:, 0], shown) and sample.clips[0].shape == (1, 1, SIZE, SIZE, 3)
    assert sample.grids == (None,) and sample.rows == len(sample.prompt.ids) + tiny.CONFIG.image_tokens
    assert written(sample) == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<image>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\n[A dog.<|im_end|>]\n"
    )


def test_an_image_is_cut_into_tiles_row_by_row(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 3 * SIZE, 2 * SIZE)
    sample = good(film(path, kind="image"), replace(RECIPE, tiles=6))
    assert sample.grids == ((2, 3),) and sample.clips[0].shape == (7, 1, SIZE, SIZE, 3)
    whole, pixels = Image.open(path), np.asarray(Image.open(path))
    assert np.array_equal(sample.clips[0][0, 0], np.asarray(whole.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
    for i, tile in enumerate(sample.clips[0][1:, 0]):
        y, x = i // 3 * SIZE, i % 3 * SIZE
        assert np.array_equal(tile, pixels[y : y + SIZE, x : x + SIZE])
    assert sample.rows == len(sample.prompt.ids) + 7 * tiny.CONFIG.image_tokens
    small = good(film(picture(tmp_path / "b.png", 20, 10), kind="image"), replace(RECIPE, tiles=6))
    assert small.grids == ((1, 1),) and torch.equal(small.clips[0][0], small.clips[0][1])


def test_several_images_are_padded_to_a_square_each(tmp_path: Path) -> None:
    assert PADDING == (123, 116, 103)
    Image.new("RGB", (SIZE, SIZE // 2), (255, 0, 0)).save(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png"), str(picture(tmp_path / "b.png", SIZE, SIZE))]
    first, second = read_images(paths, SIZE, 6)
    assert first.grid is None and first.clips.shape == second.clips.shape == (1, 1, SIZE, SIZE, 3)
    assert first.clips[0, 0, 0, 0].tolist() == list(PADDING) and first.clips[0, 0, SIZE // 2, 0].tolist() == [255, 0, 0]
    turns = ask("Compare <image> with <image>.", "Red.")
    sample = good(film(*paths, kind="image", turns=turns))
    assert "user\nCompare <image> with <image>.<|im_end|>" in written(sample) and len(sample.clips) == 2


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_tokens_of_tiles_are_read_row_by_row(rows: int, columns: int, side: int) -> None:
    places = torch.arange(rows * side * columns * side).view(rows * side, columns * side)
    tiles = [
        places[r * side : (r + 1) * side, c * side : (c + 1) * side].flatten()
        for r in range(rows)
        for c in range(columns)
    ]
    tokens = torch.stack([torch.full((side**2,), -1), *tiles]).float()[..., None]
    read = raster(tokens, rows, columns)
    assert read.shape == tokens.shape and read.flatten().tolist() == [-1] * side**2 + list(range(places.numel()))


def test_other_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match="2x3 tiles and the whole image need 7 squares of tokens, not 6 times 4"):
        raster(torch.zeros(6, 4, 2), 2, 3)
    with pytest.raises(ValueError, match="not 7 times 5"):
        raster(torch.zeros(7, 5, 2), 2, 3)


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["<image>\nQUESTION", "QUESTION\n<image>", " QUESTION <image> "])
def test_the_user_turn_of_the_reference(numbered_film: Path, text: str) -> None:
    line = (
        "<image>\nThe video lasts for 40.00 seconds, and 8 frames are uniformly sampled from it. \nQUESTION<|im_end|>"
    )
    assert line in written(good(film(numbered_film, turns=ask(text))))


def test_the_words_are_tokens_as_in_one_string(numbered_film: Path) -> None:
    """The space and the newline behind the time are one token, so they must not be cut apart."""
    sample = good(film(numbered_film))
    text = "\nThe video lasts for 40.00 seconds, and 8 frames are uniformly sampled from it. \nWhat?"
    words = tokenizer().encode(text, add_special_tokens=False).ids
    at = sample.prompt.slots[0]
    assert at == 14 and list(sample.prompt.ids[at : at + len(words)]) == words


def test_a_conversation_with_what_is_learned_marked(numbered_film: Path) -> None:
    turns = (
        *ask("<image>\nWhat is shown?", "Numbers: <|im_end|> is text."),
        *ask("How many?\nSay QA_GT_caption_based_noisyit.", "Four\nhundred."),
    )
    shown = written(good(film(numbered_film, start=10.0, end=20.0, turns=turns)))
    print(shown)
    assert shown == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi", "Hi"),
        ("<image>Hi ", "<image>Hi "),
        ("Hi <image>there ", "<image>\nHi there"),
        ("<image>", "<image>"),
        ("\n<image>", "<image>"),
        ("A <image> B <image>", "A <image> B <image>"),
        ("QA_GT_caption_based_noisyHi", "Hi"),
    ],
)
def test_where_a_place_goes(text: str, expected: str) -> None:
    assert arranged(text) == expected


def test_text_alone_is_rendered_as_when_asked() -> None:
    turns = (*ask("Hi <|im_end|>", "Ho"), *ask("And?", "So."))
    sample = good(film(kind="text", turns=turns))
    assert sample.prompt == render(tokenizer(), turns) and sample.clips == () and sample.rows == len(sample.prompt.ids)


def test_an_image_is_rendered_as_when_asked() -> None:
    image = Sight(torch.zeros(1, 8, 6), torch.zeros(1, 2), 0.0, 1, "", "")
    turns = ask("What?")
    assert chat_prompt(tokenizer(), ask(), [""]) == render(tokenizer(), turns, [image])


def test_two_videos_have_a_time_each(numbered_film: Path) -> None:
    sample = good(film(numbered_film, numbered_film, turns=ask("<image>\n<image>\nSame?", "Yes")))
    time = "<image>\nThe video lasts for 40.00 seconds, and 8 frames are uniformly sampled from it. \n"
    assert f"user\n{time}{time}Same?" in written(sample) and len(sample.clips) == len(sample.grids) == 2


def test_the_plain_template_learns_the_caption_and_its_newline(numbered_film: Path) -> None:
    plain = replace(RECIPE, template="plain")
    sample = good(film(numbered_film, turns=ask("<image>\nDescribe it.", "A row of squares.")), plain)
    assert written(sample) == "<image>[A row of squares.\n]" and sample.prompt.slots == (0,)
    for turns, media in ((ask("Hi"), ()), ((*ask(), *ask("And?")), (numbered_film,))):
        bad = loaded(film(*media, turns=turns), plain)
        assert isinstance(bad, Bad) and bad.reason == "no caption"


def test_the_system_text_of_a_record_is_kept(numbered_film: Path) -> None:
    assert written(good(film(numbered_film, system="Be brief."))).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n"
    )


# -- what cannot be learned from ---------------------------------------------------------------------------------------


def reason(record: Record, recipe: Recipe = RECIPE) -> str:
    bad = loaded(record, recipe)
    assert isinstance(bad, Bad) and (bad.id, bad.source) == ("one", "films") and bad.detail
    return bad.reason


def test_every_fault_has_its_reason(numbered_film: Path, tmp_path: Path) -> None:
    half, noise, still = cut(numbered_film, 0.5), tmp_path / "noise.mp4", picture(tmp_path / "a.png", 60, 40)
    noise.write_bytes(b"no video")
    (tmp_path / "empty").mkdir()
    torn = cut(still, 0.5)
    window = {"start": 5.0, "end": 5.0}
    for record, expected in (
        (film(tmp_path / "none.mp4"), "missing file"),
        (film(tmp_path / "none.png", kind="image"), "missing file"),
        (film(still / "below.mp4"), "missing file"),
        (film(noise), "damaged"),
        (film(half), "damaged"),
        (film(tmp_path / "empty"), "damaged"),
        (film(torn, kind="image"), "damaged"),
        (film(noise, kind="image"), "damaged"),
        (film(still), "no video"),
        (film(numbered_film, **window), "empty window"),
        (film(numbered_film, start=9.0, end=3.0), "empty window"),
        (film(numbered_film, start=60.0, end=70.0), "empty window"),
        (film(numbered_film, turns=ask("No place")), "placeholder mismatch"),
        (film(numbered_film, turns=ask("<image><image>")), "placeholder mismatch"),
        (film(numbered_film, turns=ask(answer="An <image>")), "placeholder mismatch"),
        (film(kind="text"), "placeholder mismatch"),
        (film(numbered_film, flaw="a.json record 3: nothing"), "malformed record"),
    ):
        assert reason(record) == expected, record


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(numbered_film: Path, tmp_path: Path) -> None:
    path = tmp_path / "closed.mp4"
    path.write_bytes(numbered_film.read_bytes())
    path.chmod(0)
    assert reason(film(path)) == "unreadable file"


def test_a_cut_off_conversation_is_left_out_not_shortened(numbered_film: Path) -> None:
    rows = good(film(numbered_film)).rows
    assert good(film(numbered_film), replace(RECIPE, max_rows=rows)).rows == rows
    assert reason(film(numbered_film), replace(RECIPE, max_rows=rows - 1)) == "too long"


# -- many --------------------------------------------------------------------------------------------------------------


def shelf(numbered_film: Path) -> list[Record]:
    """Twelve records of three sources, each third one missing."""
    records = []
    for i in range(12):
        path = numbered_film if i % 3 else numbered_film.with_name("none.mp4")
        record = film(path, start=float(i), end=float(i + 8))
        records.append(replace(record, id=str(i), source=f"shelf {i // 4}"))
    return records


def test_the_order_is_the_same_for_any_number_of_workers(numbered_film: Path) -> None:
    samples = Samples(RECIPE, tiny.CONFIG, tokenizer(), shelf(numbered_film))
    order = epoch_order([Source("a"), Source("b")], [8, 4], 3, 1).tolist()
    seen = []
    for workers in (0, 1, 2):
        loader: DataLoader[Sample | Bad] = DataLoader(
            samples, None, sampler=order, num_workers=workers, generator=torch.Generator()
        )
        got = list(loader)
        assert [one.id for one in got] == [str(i) for i in order]
        seen.append([_bytes(one) for one in got])
    assert seen[0] == seen[1] == seen[2]


def _bytes(one: Sample | Bad) -> object:
    return one if isinstance(one, Bad) else (one.prompt, [clips.numpy().tobytes() for clips in one.clips])


@pytest.mark.parametrize("workers", [0, 2])
def test_checking_counts_by_source_and_reason(numbered_film: Path, workers: int) -> None:
    told: list[Sample | Bad] = []
    samples = Samples(replace(RECIPE, workers=workers), tiny.CONFIG, tokenizer(), shelf(numbered_film))
    table = check(samples, told.append)
    assert table == [
        ("shelf 0", 4, {"missing file": 2}),
        ("shelf 1", 4, {"missing file": 1}),
        ("shelf 2", 4, {"missing file": 1}),
    ]
    assert [one.id for one in told] == [str(i) for i in range(12)]
    assert check(Samples(RECIPE, tiny.CONFIG, tokenizer(), [film(numbered_film)]), told.append) == [("films", 1, {})]


def test_a_tokenizer_in_another_process_still_takes_control_tokens_for_text() -> None:
    turns = ask("Hi <|im_end|>")
    moved = Tokenizer.from_str(tokenizer().to_str())
    assert chat_prompt(moved, turns, []) == chat_prompt(tokenizer(), turns, [])


def test_rows_are_estimated_without_opening_anything(numbered_film: Path, tmp_path: Path) -> None:
    config = tiny.CONFIG
    for record in (
        film(numbered_film, duration=40.0),
        film(numbered_film, start=10.0, end=20.0),
        film(picture(tmp_path / "a.png", 60, 40), kind="image"),
        film(kind="text", turns=ask("Hi")),
    ):
        visual = good(record).rows - len(good(record).prompt.ids)
        text = estimated_rows(replace(record, media=(), kind="text"), RECIPE, config)
        assert estimated_rows(record, RECIPE, config) == text + visual
    drawn = Drawn("a", "b", World("videos", 1, clips=(3, 9), tokens=4), 0, 7)
    assert estimated_rows(drawn, RECIPE, config) == 200 + 16 * drawn.world.length(drawn.rng)
    unknown = replace(film("nowhere.mp4"), turns=())
    assert estimated_rows(unknown, RECIPE, config) == config.clip_tokens
    assert estimated_rows(unknown, replace(RECIPE, video=Video("middle", 4, 8)), config) == 2 * config.clip_tokens
    still = replace(unknown, kind="image")
    assert estimated_rows(still, replace(RECIPE, tiles=2), config) == 5 * config.image_tokens
