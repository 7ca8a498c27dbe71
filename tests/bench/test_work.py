"""What a stage has to do and holds, against real runs: operations counted by torch, tensors that are alive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import tiny
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from videochat_flash.attention import attend
from videochat_flash.bench.gauge import by_data_sheet
from videochat_flash.bench.models import random_model
from videochat_flash.bench.plan import RESERVED, forecast, most_frames
from videochat_flash.bench.work import (
    CONNECTOR,
    DECODE,
    NORMALISE,
    PREFILL,
    RESIZE,
    TOKEN,
    TOWER,
    held_cache,
    memory,
    parameters,
    repeats_heads,
    sample_of,
    saved,
    works,
)
from videochat_flash.chat import CLIP_BATCH
from videochat_flash.config import RELEASES, Config, parse_plan
from videochat_flash.cost import Sample, cache_bytes, decoder_flops
from videochat_flash.generate import prefill
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.quantise import Packing

BIG = RELEASES["VideoChat-Flash-Qwen2-7B_res224"]
PLANS = ["", "2:0.5,4:0.25"]
# Wide and long enough that rows matter and single numbers do not.
WIDE = replace(
    tiny.CONFIG,
    vision=replace(tiny.VISION, image_size=128, width=96, mlp_width=384),
    llm=replace(tiny.LLM, width=192, heads=6, kv_heads=2, ffn=512),
    tokens_per_frame=16,
)
TEXT = 20


def question() -> Prompt:
    return Prompt(tuple(range(TEXT)), (IGNORE,) * TEXT, (3,))


def seen(model: VideoChatFlashModel, config: Config, clips: int) -> torch.Tensor:
    """A few clips at a time, as the pipeline does it."""
    pixels = tiny.clips(config, clips, 4).to(model.dtype).split(CLIP_BATCH["cpu"])
    return torch.cat([model.see(part) for part in pixels])


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", ["umt", "internvideo2"])
def test_all_stages_together_need_what_torch_counts(name: str, plan: str) -> None:
    """Tower, merging, connector and prefill with dropout and without; torch counts above the diagonal, too."""
    config = {"umt": tiny.CONFIG, "internvideo2": tiny.INTERNVIDEO2}[name]
    model, sample, drops = tiny.model(config), sample_of(config, 24, TEXT), parse_plan(plan)
    with torch.no_grad():
        real = tiny.counted(lambda: prefill(model, [question()], [[seen(model, config, 6)]], drops))
    done = works(config, sample, drops, 4)
    ours = sum(done[stage].flops or 0 for stage in (TOWER, CONNECTOR, PREFILL))
    assert ours + decoder_flops(config.llm, sample, drops, 1).skipped == pytest.approx(real, rel=0.02)


def test_bytes_are_those_of_weights_pixels_rows_and_caches() -> None:
    config, model = tiny.CONFIG, tiny.model(tiny.CONFIG)
    sample = sample_of(config, 32, TEXT)
    done = works(config, sample, (), 4, (64, 48))
    assert done[DECODE].bytes == 32 * 64 * 48 * 3
    assert done[RESIZE].bytes == 32 * (64 * 48 + 32 * 32) * 3
    assert done[NORMALISE].bytes == 32 * 32 * 32 * 3 * 5
    tower = sum(p.nbytes for p in model.vision.parameters())
    assert done[TOWER].bytes == 2 * tower + 32 * (32 * 32 * 3 + 4 * 48) * 4  # eight clips are two batches
    decoder = sum(p.nbytes for p in model.decoder.layers.parameters()) + model.decoder.norm.weight.nbytes
    head = 0 if model.head is None else model.head.weight.nbytes
    cache = 6 * (64 + TEXT) * 2 * 2 * 8 * 4
    assert done[TOKEN].bytes == decoder + head + cache
    assert done[PREFILL].bytes == decoder + head + cache + 64 * 48 * 4
    assert sum(parameters(config)[:3]) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("frames", [0, 2, 10, -4])
def test_frames_are_whole_clips(frames: int) -> None:
    with pytest.raises(ValueError, match=f"--frames {frames} is not whole clips of 4 frames: use"):
        sample_of(tiny.CONFIG, frames)


class Alive(TorchDispatchMode):
    """Bytes of all tensors that operations made and that are still there, at their most; what came from outside, as
    weights, does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}
        self.outside: set[int] = set()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.held = {key: (ref, size) for key, (ref, size) in self.held.items() if not ref.expired()}
        self.outside |= {storage._cdata for storage in storages((args, kwargs))} - self.held.keys()
        made = func(*args, **(kwargs or {}))
        for storage in storages(made):
            if storage._cdata not in self.outside:
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.most = max(self.most, sum(size for _, size in self.held.values()))
        return made


def storages(tree: object) -> list[torch.UntypedStorage]:
    return [one.untyped_storage() for one in tree_leaves(tree) if isinstance(one, torch.Tensor)]


def alive(call: Callable[[], object]) -> int:
    with torch.inference_mode(), Alive() as mode:
        call()
    return mode.most


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packing", [Packing(), Packing("int8"), Packing(None, "fp8")])
def test_a_prefill_holds_what_is_foreseen(dtype: torch.dtype, plan: str, packing: Packing) -> None:
    model = packing.apply(random_model(WIDE, dtype, "cpu"))
    sample, drops = sample_of(WIDE, 96, TEXT), parse_plan(plan)
    tokens = tiny.draw(24, 64, 192).to(dtype)
    real = alive(lambda: prefill(model, [question()], [[tokens]], drops)) + tokens.nbytes
    held = sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers()))
    ours = memory(WIDE, sample, drops, dtype.itemsize, packing=packing)[PREFILL] - held
    assert 0.85 < real / ours <= 1


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("packing", [Packing(), Packing(None, "fp8")])
def test_heads_that_a_gpu_writes_out_are_foreseen(plan: str, packing: Packing, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``attend`` does it there in float32; of a model in which nothing else takes as much."""

    def attend_on_gpu(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False) -> torch.Tensor:
        return attend(q, *(x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v)), causal)

    monkeypatch.setattr("videochat_flash.llm.attend", attend_on_gpu)
    config = replace(WIDE, llm=replace(WIDE.llm, ffn=128))
    model = packing.apply(random_model(config, torch.float32, "cpu"))
    sample, drops, tokens = sample_of(config, 96, TEXT), parse_plan(plan), tiny.draw(24, 64, 192)
    real = alive(lambda: prefill(model, [question()], [[tokens]], drops)) + tokens.nbytes
    held = sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers()))
    ours, plain = (memory(config, sample, drops, 4, packing=packing, repeated=one)[PREFILL] for one in (True, False))
    assert 0.85 < real / (ours - held) < 1.01 and plain < ours  # the kernel's logarithms are not in it
    token, few = (memory(config, sample, drops, 4, packing=packing, repeated=one)[TOKEN] for one in (True, False))
    assert token - few == 2 * sample.rows * 192 * 4


def test_a_gpu_writes_heads_out_where_its_flash_kernel_does_not_serve() -> None:
    assert repeats_heads(BIG.llm, 4) and repeats_heads(BIG.llm, 2, old=True) and not repeats_heads(BIG.llm, 2)
    assert repeats_heads(replace(tiny.LLM, width=36, heads=6), 2)  # heads of 6 numbers
    assert not repeats_heads(replace(tiny.LLM, kv_heads=6), 4)


@pytest.mark.parametrize("packing", [Packing("int8"), Packing(None, "fp8"), Packing("int8", "fp8")])
def test_what_is_held_smaller_is_counted_so(packing: Packing) -> None:
    model, sample = packing.apply(random_model(WIDE, torch.bfloat16, "cpu")), sample_of(WIDE, 96, TEXT)
    before, now = (works(WIDE, sample, (), 2, packing=one)[TOKEN].bytes for one in (Packing(), packing))
    begun = prefill(model, [question()], [[tiny.draw(24, 64, 192).bfloat16()]])
    real = sum(layer[0].bytes for layer in begun.caches)
    assert held_cache(WIDE.llm, sample, (), 2, packing) == real
    layers = sum(tensor.nbytes for tensor in model.decoder.layers.state_dict().values())
    plain = sum(tensor.nbytes for tensor in random_model(WIDE, torch.bfloat16, "cpu").decoder.layers.parameters())
    assert saved(WIDE, 2, packing) == plain - layers
    assert before - now == plain - layers + cache_bytes(WIDE.llm, sample, (), 2) - real > 0


@pytest.mark.parametrize("kind", ["umt", "internvideo2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_seeing_holds_what_is_foreseen(dtype: torch.dtype, kind: str) -> None:
    config = replace(WIDE, vision=replace(WIDE.vision, kind=kind))
    model, sample = random_model(config, dtype, "cpu"), sample_of(config, 16, TEXT)
    clips = tiny.clips(config, 4, 4).to(dtype)
    patches = model.vision(clips)
    held = memory(config, sample, (), dtype.itemsize)
    weights = sum(p.nbytes for p in model.parameters())
    real = {
        TOWER: alive(lambda: model.vision(clips)) + clips.nbytes,
        CONNECTOR: alive(lambda: model.connector(patches, 4)) + patches.nbytes,
    }
    for name, most in real.items():
        assert 0.85 < most / (held[name] - weights) < 1.1, name  # what checks shapes in tests holds arguments, too


# Computed for a device.


def test_a_floor_is_work_over_speed() -> None:
    machine = by_data_sheet("H200", torch.bfloat16)
    made = forecast(BIG, 10_000, parse_plan("4:0.75,18:0.25"), 2, machine, 0.5)
    assert made.rows == 160_060
    assert made.stages[PREFILL].floor == pytest.approx(3.57e15 / 989e12, rel=0.01)
    assert made.stages[TOWER].floor == pytest.approx(1.28e15 / 989e12, rel=0.01)
    assert made.stages[TOKEN].floor == pytest.approx((14.1e9 + 5.57e9) / 4.8e12, rel=0.01)  # bytes are the limit
    assert made.seconds == 2 * made.floor == 2 * sum(s.floor for name, s in made.stages.items() if name != TOKEN)


def test_what_fits_is_said_for_the_largest_stage() -> None:
    large, small = by_data_sheet("H200", torch.bfloat16), by_data_sheet("L4", torch.bfloat16)
    made = forecast(BIG, 10_000, (), 2, large, 0.5)
    assert made.fits and 15.8e9 + 9.18e9 < made.needed < 141e9
    assert not forecast(BIG, 10_000, (), 2, small, 0.5).fits
    assert made.most is not None and made.most > 10_000
    room = 24e9 - RESERVED
    most = most_frames(BIG, (), 2, room)
    assert most % 4 == 0 and 0 < most < 10_000
    assert max(memory(BIG, sample_of(BIG, most), (), 2).values()) <= room
    assert max(memory(BIG, sample_of(BIG, most + 4), (), 2).values()) > room
    assert most_frames(BIG, (), 2, 1e9) == 0


def test_a_smaller_decoder_lets_more_frames_fit() -> None:
    room = 24e9 - RESERVED
    most = [most_frames(BIG, (), 2, room, packing=one) for one in (Packing(), Packing("int8"), Packing("int8", "fp8"))]
    assert 0 < most[0] < most[1] < most[2]
    small = forecast(BIG, most[2], (), 2, by_data_sheet("L4", torch.bfloat16), 0.5, packing=Packing("int8", "fp8"))
    assert (
        small.fits and small.stages[TOKEN].work.bytes < 0.65 * works(BIG, sample_of(BIG, most[2]), (), 2)[TOKEN].bytes
    )


def test_dropout_lets_more_frames_fit() -> None:
    assert most_frames(BIG, parse_plan("4:0.75,18:0.25"), 2, 60e9) > most_frames(BIG, (), 2, 60e9)
    one = Sample(1, 4, 64, TEXT)
    assert memory(BIG, one, parse_plan("4:0.5"), 2)[TOKEN] < memory(BIG, one, (), 2)[TOKEN]
