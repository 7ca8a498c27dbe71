"""Arms take turns, ratios are of one round, and the arms do the same work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import videos
from command import SMALL

from videochat_flash.bench import compare, stages
from videochat_flash.bench.compare import Comparison
from videochat_flash.bench.gauge import Reading, Spread
from videochat_flash.bench.report import comparison_facts, comparison_table
from videochat_flash.bench.stages import Setting
from videochat_flash.chat import VideoChatFlash
from videochat_flash.config import RELEASES, parse_plan
from videochat_flash.generate import Decoding
from videochat_flash.prompt import plain_text
from videochat_flash.video import probe

SETTING = Setting(8, repeats=2, warmup=1)


def quiet(done: int, total: int, words: str = "") -> None:
    """Nobody looks."""


@pytest.fixture(scope="module")
def vc() -> VideoChatFlash:
    return VideoChatFlash(tiny.model(SMALL), plain_text(tiny.tokenizer()), Decoding())


def test_arms_take_turns_and_each_begins_a_round() -> None:
    order: list[str] = []
    arms = {name: lambda name=name: order.append(name) for name in "abc"}
    made = compare._taken_in_turn("x", "y", "a", arms, torch.device("cpu"), SETTING, quiet)
    assert "".join(order) == "abcbcacababc"  # warm-up, two rounds, memory
    assert {name: len(readings) for name, readings in made.arms.items()} == {"a": 2, "b": 2, "c": 2}
    assert made.memory.keys() == {"a", "b", "c"}


def test_ratios_are_of_one_round() -> None:
    slow, fast = [Reading(2.0), Reading(20.0), Reading(6.0)], [Reading(1.0), Reading(5.0), Reading(2.0)]
    made = Comparison("x", "y", "slow", {"slow": slow, "fast": fast}, {})
    assert made.times("fast") == Spread(2.5, 3.0, 3.5) and made.times("slow").median == 1.0
    assert made.seconds("fast") == Spread(1.5, 2.0, 3.5)


def test_peaks_are_of_the_device_where_that_tells() -> None:
    memory = {"a": Reading(1.0, 400, 100, 80), "b": Reading(1.0, 800, 150, 70), "c": Reading(1.0, 300)}
    made = Comparison("x", "y", "a", {}, memory)
    assert (made.peak("b"), memory["b"].added, made.times_the_added("b")) == (150, 80, 4.0)  # of 20
    assert (made.peak("c"), memory["c"].added, made.times_the_added("c")) == (300, None, None)
    for base in (Reading(1.0), Reading(1.0, 400, 100, 100)):  # not known, or nothing
        assert Comparison("x", "y", "a", {}, {**memory, "a": base}).times_the_added("b") is None


def test_an_arm_that_fails_is_told_and_the_others_go_on() -> None:
    rounds = {"a": 0, "b": 0, "c": 0}

    def arm(name: str, error: Exception | None = None) -> Callable[[], object]:
        def go() -> None:
            rounds[name] += 1
            if error is not None and rounds[name] == 2:
                raise error

        return go

    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB. See the documentation")
    for base in ("b", "a"):
        rounds = dict.fromkeys(rounds, 0)
        arms = {"a": arm("a"), "b": arm("b", full), "c": arm("c", ValueError("no\nfilm"))}
        made = compare._taken_in_turn("x", "y", base, arms, torch.device("cpu"), SETTING, quiet)
        assert made.failed == {"b": "CUDA out of memory", "c": "no film"} and rounds == {"a": 4, "b": 2, "c": 2}
        assert made.arms.keys() == made.memory.keys() == {"a"}
        assert (made.times("a") is None) == (base == "b")
        table, facts = comparison_table(made), comparison_facts(made)
        assert [row[:2] for row in table.rows[1:]] == [("b", "failed"), ("c", "failed")]
        assert table.notes == ("b: CUDA out of memory", "c: no film") and facts["failed"] == made.failed
        assert len({len(row) for row in (table.header, *table.rows)}) == 1


def test_too_little_memory_is_told_as_it_is_whoever_lacks_it() -> None:
    with pytest.raises(RuntimeError) as told:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert "can't allocate memory" in compare.reason(told.value) and "enforce fail" not in compare.reason(told.value)
    cublas = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    assert compare.reason(cublas) == str(cublas)
    assert compare.reason(MemoryError()) == "out of memory" and compare.reason(EOFError()) == "EOFError"

    def full() -> None:
        raise MemoryError("Unable to allocate 8.00 TiB")

    made = compare._taken_in_turn("x", "y", "a", {"a": full}, torch.device("cpu"), SETTING, quiet)
    assert made.failed == {"a": "Unable to allocate 8.00 TiB"}


def test_a_reader_that_gives_too_few_frames_is_no_fast_one() -> None:
    def some(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
        yield from np.zeros((2, 1, 1, 3), np.uint8)

    film = Path("film.mp4")
    arms = {"all": compare._reads(some, film, [4, 9]), "some": compare._reads(some, film, [4, 9, 14])}
    made = compare._taken_in_turn("x", "y", "all", arms, torch.device("cpu"), SETTING, quiet)
    assert made.arms.keys() == {"all"} and made.failed == {"some": "gave 2 of 3 frames"}


def test_a_mistake_of_ours_is_no_failure_of_an_arm() -> None:
    def wrong() -> None:
        raise TypeError("ours")

    with pytest.raises(TypeError, match="ours"):
        compare._taken_in_turn("x", "y", "a", {"a": wrong}, torch.device("cpu"), SETTING, quiet)


def test_what_cannot_even_begin_leaves_the_others(vc: VideoChatFlash, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Much more")

    monkeypatch.setattr(compare, "prepare", full)
    with pytest.warns(UserWarning, match="asking is not compared: CUDA out of memory"):
        made = list(compare.compare(vc, {"asking": 8, "prefill": 8}, SETTING, quiet))
    assert [one.name for one in made] == ["prefill"]


def test_dropout_is_as_asked_for_or_the_models_own_or_the_cards() -> None:
    released = RELEASES["VideoChat-Flash-Qwen2-7B_res224"]
    assert compare.drops_of(released, None) == parse_plan("4:0.75,18:0.25")
    assert compare.drops_of(SMALL, None) == SMALL.keep
    assert compare.drops_of(SMALL, ()) == compare.drops_of(released, ()) == ()
    assert compare.drops_of(replace(SMALL, keep=()), None) == ()  # it has no 18 layers


@pytest.mark.filterwarnings("ignore:.* is installed but cannot be loaded")
def test_every_comparison_runs(vc: VideoChatFlash, tmp_path: Path) -> None:
    film = videos.make(tmp_path / "film.mp4", 60, 20)
    setting = Setting(8, film, repeats=1, warmup=0)
    made = list(compare.compare(vc, dict.fromkeys(compare.FRAMES, 8), setting, quiet))
    assert [one.name for one in made] == ["seeing", "prefill", "asking", "reading 8 frames", "reading a frame a second"]
    for one in made:
        assert one.base in one.arms and len(one.arms) >= 2
        assert one.arms.keys() == one.memory.keys()
        assert all(reading.seconds > 0 for readings in one.arms.values() for reading in readings)
    assert "2:0.5 by attention, 4:0.25 by attention" in made[1].arms
    assert made[3].base != compare.OURS and compare.OURS in made[3].arms
    assert made[4].about.startswith("3 of 60 frames") or made[4].about.startswith("4 of 60 frames")


def test_without_a_file_reading_is_left_out_and_said(vc: VideoChatFlash) -> None:
    with pytest.warns(UserWarning, match="give one with --video"):
        assert list(compare.compare(vc, {"reading": 8}, SETTING, quiet)) == []


def test_a_film_that_is_too_short_is_refused(vc: VideoChatFlash, tmp_path: Path) -> None:
    film = videos.make(tmp_path / "film.mp4", 6)
    with pytest.raises(ValueError, match="has 6 frames, fewer than --frames 8"):
        list(compare.compare(vc, {"reading": 8}, Setting(8, film), quiet))


@pytest.mark.filterwarnings("ignore:.* is installed but cannot be loaded")
def test_a_file_is_looked_into_once_before_it_is_read(
    vc: VideoChatFlash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, looked = videos.make(tmp_path / "film.mp4", 60, 20), list[Path]()
    for module in (compare, stages):
        monkeypatch.setattr(module, "probe", lambda path: looked.append(path) or probe(path))
    info = compare.check(SMALL, {"reading": 8}, film)
    assert looked == [film]
    made = list(compare.compare(vc, {"reading": 8}, Setting(8, film, repeats=1, warmup=0), quiet, info))
    assert len(made) == 2 and looked == [film] * (1 + 2 * 2)  # our own arm, a round of each and one for memory
