"""The worker, step by step: who goes first, what is reused, what is left when someone gives up."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from videos import make

from videochat_flash.chat import VideoChatFlash
from videochat_flash.config import RELEASES, parse_plan
from videochat_flash.generate import Decoding
from videochat_flash.prefix import prepare
from videochat_flash.quantise import Packing
from videochat_flash.serve.limits import Limits
from videochat_flash.serve.shelf import Shelf
from videochat_flash.serve.worker import Worker, longest_prefix, room_for_prefixes
from videochat_flash.sight import Sight
from videochat_flash.video import Sampling
from videochat_flash.weights import skeleton

pytestmark = pytest.mark.usefixtures("unchecked")
NAMES = itertools.count()


class Bench:
    """A worker without a socket."""

    def __init__(self, vc: VideoChatFlash, folder: Path, **limits: int) -> None:
        self.limits = Limits(**limits)
        self.told: list[dict[str, Any]] = []
        self.shelf = Shelf(folder / "sights", self.limits.sight_store_bytes, ".safetensors")
        self.worker = Worker(vc, self.limits, self.shelf, self.told.append)

    def ask(self, words: str, path: Path | None = None, sampling: Sampling | None = None, **more: Any) -> str:
        """Hand a question in; returns its id."""
        name = f"q{next(NAMES)}"
        sampling = sampling or Sampling(max_frames=512)
        seen = {"kind": "video", "path": str(path), "sampling": asdict(sampling), "key": f"{path.stem}" if path else ""}
        asked = {
            "media": [seen] if path else [],
            "turns": [["user", words]],
            "decoding": {},
            "stop": [],
            "keep": None,
            "evidence": False,
        }
        self.worker.hear({"do": "answer", "id": name, **asked, **more})
        return name

    def run(self, until: Callable[[], object]) -> None:
        """Work, and wait for frames, until something is so."""
        end = time.monotonic() + 600
        while not until():
            assert time.monotonic() < end
            self.worker.take()
            if not self.worker.step():
                time.sleep(0.005)

    def of(self, name: str) -> list[dict[str, Any]]:
        return [told for told in self.told if told["id"] == name]

    def ended(self, name: str) -> bool:
        return any("done" in told or "refused" in told for told in self.of(name))

    def answer(self, name: str) -> str:
        self.run(lambda: self.ended(name))
        assert "done" in self.of(name)[-1], self.of(name)[-1]
        return "".join(told.get("piece", "") for told in self.of(name))


@pytest.fixture
def bench(vc: VideoChatFlash, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(vc, tmp_path, frames=4096)
    yield bench
    for job in list(bench.worker.jobs.values()):
        bench.worker._end(job, {"refused": "gone"})


def test_a_short_question_waits_for_one_batch_of_clips_while_a_long_video_is_seen(bench: Bench, tmp_path: Path) -> None:
    long = make(tmp_path / "long.mp4", (pixels for pixels in itertools.repeat(_grey(), 4096)), 30, gop=64)
    seeing = bench.ask("What happens?", long, Sampling("count", max_frames=4096, num_frames=4096))
    bench.run(lambda: len(bench.of(seeing)) == 3)
    short = bench.ask("Hello?", decoding={"max_new_tokens": 64})
    bench.run(lambda: any("piece" in told for told in bench.of(short)))
    between = bench.told[3 : bench.told.index(bench.of(short)[0])]
    assert len(between) <= 1 and all(told["id"] == seeing for told in between)  # one batch of clips
    bench.run(lambda: bench.ended(short))
    places = [i for i, told in enumerate(bench.told) if told["id"] == short]
    assert max(b - a for a, b in itertools.pairwise(places)) <= 2  # one batch of clips between two pieces
    assert places[-1] - places[0] >= len(places)  # and the video was seen on meanwhile
    assert len(bench.of(seeing)) < 256 and not bench.ended(seeing)
    bench.worker.hear({"do": "cancel", "id": seeing})
    bench.run(lambda: bench.ended(seeing))


def _grey() -> Any:
    import numpy as np

    return np.full((48, 64, 3), 90, np.uint8)


def test_what_is_seen_in_batches_is_what_is_seen_at_once(bench: Bench, vc: VideoChatFlash, films: Path) -> None:
    said = bench.answer(bench.ask("What is it?", films / "a.mp4"))
    sight = vc.see(films / "a.mp4")
    assert said == vc.answer(sight, "What is it?")
    (kept,) = (Sight.load(bench.shelf.path(name)) for name in bench.shelf)
    assert torch.equal(kept.tokens, sight.tokens) and torch.equal(kept.seconds, sight.seconds)
    assert (kept.duration, kept.source, kept.made_by) == (sight.duration, sight.source, sight.made_by)


def test_two_that_ask_about_a_new_video_have_it_seen_once(bench: Bench, films: Path) -> None:
    first, second = bench.ask("One?", films / "a.mp4"), bench.ask("Two?", films / "a.mp4")
    bench.run(lambda: bench.ended(first) and bench.ended(second))
    done = [bench.of(name)[-1]["done"] for name in (first, second)]
    assert [one["sights_reused"] for one in done] == [0, 1] and [one["frames_seen"] for one in done] == [48, 0]


def test_who_waits_for_another_s_sight_makes_it_if_that_one_gives_up(bench: Bench, films: Path) -> None:
    first, second = bench.ask("One?", films / "a.mp4"), bench.ask("Two?", films / "a.mp4")
    bench.run(lambda: bench.of(first))
    bench.worker.hear({"do": "cancel", "id": first})
    bench.answer(second)
    assert bench.of(first)[-1]["refused"] == "gone" and bench.of(second)[-1]["done"]["frames_seen"] == 48


def test_giving_up_ends_the_process_that_reads_and_everything_of_the_request(bench: Bench, films: Path) -> None:
    others = _children()
    name = bench.ask("One?", films / "a.mp4")
    bench.worker.take()
    (job,) = bench.worker.jobs.values()
    (child,) = _children() - others
    bench.worker.hear({"do": "cancel", "id": name})
    assert job.cancelled.is_set()  # also between the layers of a prompt
    bench.worker.take()
    assert not bench.worker.jobs and not bench.worker.seeing and child not in _children()


def _children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_prefix_is_kept_for_the_next_question_and_changes_no_answer(
    bench: Bench, vc: VideoChatFlash, films: Path
) -> None:
    sight = vc.see(films / "b.mp4")
    for number, words in enumerate(("One?", "Another one?")):
        name = bench.ask(words, films / "b.mp4")
        assert bench.answer(name) == vc.answer(sight, words)
        assert bench.of(name)[-1]["done"]["prefix_reused"] is bool(number)
    assert 0 < bench.worker.prefixes.bytes <= bench.worker.prefixes.limit
    bench.worker.prefixes.limit = bench.worker.prefixes.bytes
    bench.answer(bench.ask("A?", films / "a.mp4"))
    bench.answer(bench.ask("B?", films / "b.mp4", keep="off"))
    assert bench.worker.prefixes.bytes <= bench.worker.prefixes.limit


@pytest.mark.parametrize("name", ["VideoChat-Flash-Qwen2-7B_res224", "VideoChat-Flash-Qwen2_5-2B_res448"])
def test_any_model_keeps_what_the_longest_videos_share(name: str) -> None:
    model = skeleton(RELEASES[name]).bfloat16()
    one, plenty = longest_prefix(model, Limits()), 100 << 30
    assert room_for_prefixes(model, Limits(), plenty) == 8 * one
    assert room_for_prefixes(model, Limits(), 4 << 30) == min(1 << 30, 8 * one)
    assert longest_prefix(model, Limits(frames=512)) < 0.6 * one
    small = longest_prefix(Packing(None, "fp8").apply(model), Limits())
    assert 0.5 < small / one < 0.6
    if "7B" in name:
        assert 0.9e9 < one < 1.1e9  # 585 frames of it had been the most


@pytest.mark.parametrize("keep", ["off", "2:0.5"])
def test_a_prefix_is_as_large_as_foreseen(vc: VideoChatFlash, films: Path, keep: str) -> None:
    sight = vc.see(films / "b.mp4")
    real, foreseen = (
        prepare(vc, sight, keep=parse_plan(keep)).bytes,
        longest_prefix(vc.model, Limits(frames=sight.frames)),
    )
    llm = vc.model.config.llm
    text = 256 * llm.layers * 2 * llm.kv_heads * llm.head_width * 4
    assert (foreseen - text) * (0.7 if keep == "off" else 0) < real <= foreseen


def test_what_is_given_holds_and_is_told(vc: VideoChatFlash, tmp_path: Path) -> None:
    one = longest_prefix(vc.model, Limits())
    for given, said in (
        (0, "up to 0 MB"),
        (one - 1, "of shorter videos only"),
        (3 * one, "of 3 videos of 1024 frames"),
    ):
        worker = Bench(vc, tmp_path, prefix_bytes=given).worker
        assert worker.prefixes.limit == given and said in worker.kept()
    own = Bench(vc, tmp_path).worker
    assert 0 < own.prefixes.limit <= 8 * one and f"{own.prefixes.limit / 1e6:,.0f} MB" in own.kept()


def test_nothing_is_kept_where_nothing_may_be(vc: VideoChatFlash, films: Path, tmp_path: Path) -> None:
    bench = Bench(vc, tmp_path, prefix_bytes=0)
    assert bench.answer(bench.ask("One?", films / "b.mp4")) == vc.answer(vc.see(films / "b.mp4"), "One?")
    assert bench.worker.prefixes.bytes == 0


def test_sights_outlive_the_worker_and_a_damaged_one_is_made_anew(
    vc: VideoChatFlash, films: Path, tmp_path: Path
) -> None:
    bench = Bench(vc, tmp_path)
    said = bench.answer(bench.ask("What?", films / "a.mp4"))
    later = Bench(vc, tmp_path)
    name = later.ask("What?", films / "a.mp4")
    assert later.answer(name) == said and later.of(name)[-1]["done"]["sights_reused"] == 1
    (file,) = (later.shelf.path(one) for one in later.shelf)
    file.write_bytes(file.read_bytes()[:1000])
    name = later.ask("What?", films / "a.mp4")
    assert later.answer(name) == said and later.of(name)[-1]["done"]["sights_reused"] == 0


def test_what_cannot_be_answered_is_refused_and_the_worker_goes_on(bench: Bench, films: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    asked = {
        bench.ask("What?", tmp_path / "bad.mp4"): "undecodable",
        bench.ask("What?", films / "a.mp4", Sampling(start=100.0)): "bad_window",
        bench.ask("What?", keep="99:0.5"): "invalid",
        bench.ask("word " * 5000): "prompt_too_long",
        bench.ask("What?", media=[{"kind": "video", "path": None, "sampling": None, "key": "k"}]): "unknown_uuid",
    }
    bench.run(lambda: all(bench.ended(name) for name in asked))
    assert {name: bench.of(name)[-1].get("refused") for name in asked} == asked
    assert bench.answer(bench.ask("Hello?"))


def test_memory_that_does_not_suffice_fails_one_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(bench.worker.vc, "reply", full)
        name = bench.ask("Hello?")
        bench.run(lambda: bench.ended(name))
    assert bench.of(name)[-1]["refused"] == "out_of_memory"
    assert bench.answer(bench.ask("Hello?"))


def test_a_lost_device_ends_the_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(bench.worker.vc, "reply", lost)
    name = bench.ask("Hello?")
    with pytest.raises(RuntimeError, match="CUDA error"):
        bench.run(lambda: bench.ended(name))


def test_an_answer_is_as_long_as_the_server_allows_at_most(vc: VideoChatFlash, tmp_path: Path) -> None:
    bench = Bench(vc, tmp_path, output_tokens=3)
    assert bench.worker._decoding({}).max_new_tokens == 3
    assert bench.worker._decoding({"max_new_tokens": 2, "seed": 4}) == replace(vc.decoding, max_new_tokens=2, seed=4)
    drawn = {bench.worker._decoding({}).seed for _ in range(3)}
    assert len(drawn) == 3 and isinstance(bench.worker._decoding({}), Decoding)  # who names no seed draws anew


def test_the_worker_ends_when_the_server_is_gone(bench: Bench, films: Path) -> None:
    others = _children()
    name = bench.ask("What?", films / "a.mp4")
    bench.worker.hear({"do": "stop"})
    bench.worker.run()
    assert bench.of(name)[-1] == {"id": name, "refused": "gone"} and _children() == others
