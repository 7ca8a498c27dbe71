"""Attention by plain products is attention by the fused kernel, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from videochat_flash import attention
from videochat_flash.attention import attend, attend_short


def drawn(seed: int, heads: int, kv_heads: int, rows: int, count: int = 2, width: int = 8) -> tuple[Tensor, ...]:
    chance = torch.Generator().manual_seed(seed)
    shapes = ((count, heads, rows, width), (count, kv_heads, rows, width), (count, kv_heads, rows, width))
    return tuple(torch.randn(shape, generator=chance).requires_grad_() for shape in shapes)


def assert_fused(got: Tensor, mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...], causal: bool, seed: int) -> None:
    """What came of ``mine`` is what the fused kernel makes of ``theirs``, and so is what they learn."""
    wanted = F.scaled_dot_product_attention(*theirs, is_causal=causal, enable_gqa=True)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(seed))
    (got * weights).sum().backward()
    (wanted * weights).sum().backward()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 2**20), st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]), st.integers(1, 40), st.booleans())
def test_products_equal_the_fused_kernel(seed: int, heads: tuple[int, int], rows: int, causal: bool) -> None:
    mine, theirs = drawn(seed, *heads, rows), drawn(seed, *heads, rows)
    got = attend_short(*mine, causal)
    assert_fused(got, mine, theirs, causal, seed)


@given(st.integers(0, 2**20), st.sampled_from([(1, 1), (4, 2)]), st.integers(5, 40), st.booleans())
def test_some_rows_at_a_time_learn_as_all_at_once(seed: int, heads: tuple[int, int], rows: int, kept: bool) -> None:
    mine, theirs = drawn(seed, *heads, rows), drawn(seed, *heads, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK", 4)
        patch.setattr(attention, "KEPT", 2 * heads[0] * rows**2 if kept else 0)
        got = attend(*mine, causal=True)
    assert_fused(got, mine, theirs, True, seed)


def test_half_precision_stays_half_under_autocast() -> None:
    q, k, v = drawn(0, 4, 2, 12)
    with torch.autocast("cpu", torch.bfloat16):  # queries with a float32 bias arrive as float32
        got = attend_short(q, k.bfloat16(), v.bfloat16(), causal=True)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), attend_short(q, k, v, causal=True), rtol=0.05, atol=0.05)


@given(st.integers(0, 2**20), st.sampled_from([(1, 1), (4, 2)]), st.integers(2, 30), st.integers(1, 9))
def test_a_mask_of_some_rows_at_a_time_is_the_whole_mask(
    seed: int, heads: tuple[int, int], rows: int, before: int
) -> None:
    q, k, v = (one.detach() for one in drawn(seed, *heads, rows + before))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "MASKED", 4)
        got = attention.attend_masked(q[:, :, before:], k, v)
    whole = attend(q, k, v, causal=True)[:, :, before:]
    torch.testing.assert_close(got, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rows", "learns", "plain"), [(4, True, True), (4, False, False), (9, True, False)])
def test_products_serve_short_rows_that_learn(
    monkeypatch: pytest.MonkeyPatch, rows: int, learns: bool, plain: bool
) -> None:
    used: list[int] = []
    monkeypatch.setattr(attention, "SHORT", 8)
    monkeypatch.setattr(attention, "attend_short", lambda q, k, v, causal: used.append(q.shape[2]) or q)
    attend(*(t if learns else t.detach() for t in drawn(0, 2, 2, rows)), causal=True)
    assert bool(used) == plain
