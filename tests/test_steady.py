"""Decoding at fixed addresses gives what decoding plainly gives; that it may be replayed: test_gpu.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from videochat_flash.config import Plan, parse_plan
from videochat_flash.generate import Decoding, Prefilled, decode, next_logits, prefill
from videochat_flash.llm import LayerCache
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.steady import Steady, Window, steps

NET = tiny.model()
TOKENS = [7, 3, 250, 9, 9, 31, 4, 100, 5, 77, 1]
PLANS = ["", "2:0.5,4:0.25"]


def begun(net: VideoChatFlashModel, plan: Plan, room: int = 0) -> Prefilled:
    """A prompt of 33 rows that has passed the decoder, with caches of its own."""
    seen = tiny.draw(3, 8, net.config.llm.width).to(net.device, net.dtype)
    return prefill(net, [Prompt(tuple(range(9)), (IGNORE,) * 9, (3,))], [[seen]], plan, room)


def told(net: VideoChatFlashModel, plan: Plan, tokens: Sequence[int], window: int | None) -> Tensor:
    """Scores behind each of some tokens: plainly, or in windows."""
    start = begun(net, plan, 20)
    if window is None:
        return torch.cat([next_logits(net, [token], start.caches) for token in tokens])
    steady = Steady(net, start.caches, window)
    return torch.cat([steady(token).clone() for token in tokens])


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 12), st.sampled_from([(1, 1), (6, 2), (4, 4)]), st.integers(0, 99))
def test_a_window_behind_rows_is_one_row_of_rows(held: int, size: int, heads: tuple[int, int], seed: int) -> None:
    many, few = heads
    cache, place, hidden = LayerCache(), torch.zeros(1, dtype=torch.long), torch.zeros(size)
    before = tiny.draw(few, held, 8, seed=seed), tiny.draw(few, held, 8, seed=seed + 1)
    cache.extend(*before)
    window = Window(before, (torch.zeros(few, size, 8), torch.zeros(few, size, 8)), place, hidden)
    for at in range(size):
        q, k, v = (tiny.draw(n, 1, 8, seed=seed + i + 3 * at) for i, n in enumerate((many, few, few)))
        place.fill_(at)
        hidden.fill_(-torch.inf)[: at + 1] = 0
        torch.testing.assert_close(window.attend(q, k, v), cache.attend(q, k, v), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("window", [11, 32])
def test_steady_decoding_is_plain_decoding(plan: str, window: int) -> None:
    for net in (NET, tiny.model(replace(tiny.CONFIG, llm=replace(tiny.LLM, log_scaled_from=8)))):
        plain, ours = (told(net, parse_plan(plan), TOKENS, size) for size in (None, window))
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=2e-5)


@torch.inference_mode()
def test_what_is_not_filled_yet_counts_for_nothing() -> None:
    start = begun(NET, ())
    steady = Steady(NET, start.caches, 8)
    first = steady(5)
    for layer in start.caches:
        assert len(layer[0]) == 33 + 8
        assert not layer[0].extend(torch.zeros(2, 0, 8), torch.zeros(2, 0, 8))[0][:, 34:].any()
    assert first.isfinite().all()


def test_only_a_gpu_in_half_precision_is_served() -> None:
    assert steps(NET, begun(NET, ()), 8) is None


def test_an_answer_is_the_same_however_tokens_are_fed() -> None:
    how, start = Decoding(max_new_tokens=9), begun(NET, ())
    plain = list(decode(NET, begun(NET, ()), how))
    assert list(decode(NET, start, how, lambda net, one, tokens: Steady(net, one.caches, tokens))) == plain
