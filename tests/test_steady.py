"""Decoding at fixed addresses gives what decoding plainly gives; that it may be replayed: test_gpu.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from videochat_flash.attention import attend, attend_recent
from videochat_flash.config import Plan, parse_plan
from videochat_flash.generate import Prefilled, Steady, _next_logits, prefill
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import IGNORE, Prompt

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
        return torch.cat([_next_logits(net, [token], start.caches) for token in tokens])
    steady = Steady(net, start.caches, window)
    return torch.cat([steady(token).clone() for token in tokens])


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 12), st.sampled_from([(1, 1), (6, 2), (4, 4)]), st.integers(0, 99))
def test_a_window_behind_rows_is_one_row_of_rows(held: int, size: int, heads: tuple[int, int], seed: int) -> None:
    many, few = heads
    q = tiny.draw(many, 1, 8, seed=seed)
    before, recent = tiny.draw(2, few, held, 8, seed=seed + 1), tiny.draw(2, few, size, 8, seed=seed + 2)
    for place in range(size):
        hidden = torch.zeros(size)
        hidden[place + 1 :] = -torch.inf
        keys, values = torch.cat([before, recent[:, :, : place + 1]], dim=2)
        plain = attend(q[None], keys[None], values[None], causal=True)[0]
        torch.testing.assert_close(attend_recent(q, before, recent, hidden), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("window", [11, 32])
def test_steady_decoding_is_plain_decoding(plan: str, window: int) -> None:
    plain, ours = (told(NET, parse_plan(plan), TOKENS, size) for size in (None, window))
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


def test_one_conversation_on_a_gpu_in_half_precision_is_served() -> None:
    assert not Steady.serves(NET, begun(NET, ()))
