"""Token merging against its rules, and against a loop that merges one pair at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import draw
from torch import Tensor

from videochat_flash.merge import merge_round, merge_schedule, merge_tokens


def ones(x: Tensor) -> Tensor:
    return x.new_ones(*x.shape[:2], 1)


def features(seed: int, tokens: int, width: int = 12) -> Tensor:
    return draw(1, tokens, width, seed=seed, dtype=torch.float64)


def one_by_one(x: Tensor, sizes: Tensor, remove: int, heads: int) -> tuple[Tensor, Tensor, list[int]]:
    """A round by hand, for one clip; also the even tokens that stayed, in order."""
    slices = [x[:, i * (x.shape[1] // heads) : (i + 1) * (x.shape[1] // heads)] for i in range(heads)]
    metric = sum(slices) / heads
    even, odd = range(0, len(x), 2), range(1, len(x), 2)
    cosine = {a: [float(metric[a] @ metric[b] / metric[a].norm() / metric[b].norm()) for b in odd] for a in even}
    ranked = sorted(even, key=lambda a: -max(cosine[a]))
    groups = {b: [b] for b in odd}
    for a in ranked[:remove]:
        groups[odd[cosine[a].index(max(cosine[a]))]].append(a)
    groups = {a: [a] for a in ranked[remove:]} | groups
    weights = [sum(sizes[i] for i in group) for group in groups.values()]
    means = [sum(x[i] * sizes[i] for i in group) / w for group, w in zip(groups.values(), weights, strict=True)]
    return torch.stack(means), torch.stack(weights), ranked[remove:]


@pytest.mark.parametrize(
    ("tokens", "keep", "counts"),
    [
        (3136, 64, [1568, 784, 392, 196, 98, 64]),
        (784, 64, [392, 196, 98, 64]),
        (196, 64, [98, 64]),
        (1024, 64, [512, 256, 128, 64]),
        (256, 64, [128, 64]),
        (1568, 128, [784, 392, 196, 128]),
        (65, 64, [64]),
        (5, 1, [3, 2, 1]),
    ],
)
def test_the_schedule_is_that_of_the_table(tokens: int, keep: int, counts: list[int]) -> None:
    left = []
    for remove in merge_schedule(tokens, keep):
        tokens -= remove
        left.append(tokens)
    assert left == counts


@given(st.integers(2, 4000), st.data())
def test_no_round_removes_more_than_half_and_the_last_one_arrives(tokens: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, tokens - 1))
    there = tokens
    for remove in merge_schedule(tokens, keep):
        assert 0 < remove <= there // 2
        there -= remove
    assert there == keep


@pytest.mark.parametrize(("tokens", "keep"), [(64, 64), (63, 64), (10, 0), (10, -1), (0, 0)])
def test_too_few_tokens_are_refused_with_both_numbers(tokens: int, keep: int) -> None:
    with pytest.raises(ValueError, match=f"{tokens} tokens to {keep}"):
        merge_schedule(tokens, keep)
    with pytest.raises(ValueError, match="cannot merge"):
        merge_tokens(torch.ones(1, tokens, 4), keep, 2)


@given(st.integers(0, 999), st.integers(2, 21), st.data())
def test_a_round_equals_merging_pair_by_pair(seed: int, tokens: int, data: st.DataObject) -> None:
    remove = data.draw(st.integers(1, tokens // 2))
    heads = data.draw(st.sampled_from([1, 3, 6]))
    x = features(seed, tokens)
    sizes = torch.randint(1, 9, (1, tokens, 1), generator=torch.Generator().manual_seed(seed)).double()
    merged, counted = merge_round(x, sizes, remove, heads)
    by_hand, by_hand_sizes, _ = one_by_one(x[0], sizes[0], remove, heads)
    torch.testing.assert_close(merged[0], by_hand)
    torch.testing.assert_close(counted[0], by_hand_sizes)


@given(st.integers(0, 999), st.integers(3, 40), st.data())
def test_sizes_add_up_to_the_original_tokens_and_so_do_the_features(
    seed: int, tokens: int, data: st.DataObject
) -> None:
    keep = data.draw(st.integers(1, tokens - 1))
    x = features(seed, tokens)
    merged, sizes = x, ones(x)
    for remove in merge_schedule(tokens, keep):
        merged, sizes = merge_round(merged, sizes, remove, 3)
        assert sizes.sum() == tokens
    torch.testing.assert_close((merged * sizes).sum(dim=1), x.sum(dim=1))
    assert torch.equal(merged, merge_tokens(x, keep, 3, dtype=None))


def test_an_exact_halving_leaves_the_odd_places_in_order_whatever_the_ranking() -> None:
    x = features(0, 32)
    merged, sizes = merge_round(x, ones(x), 16, 3)
    by_hand, _, staying = one_by_one(x[0], ones(x)[0], 16, 3)
    assert staying == [] and sizes.sum() == 32
    torch.testing.assert_close(merged[0], by_hand)
    louder = x.clone()
    louder[:, ::2] *= torch.linspace(1, 2, 16, dtype=torch.float64)[:, None]  # the same directions: the same targets
    assert torch.equal(merge_round(louder, ones(x), 16, 3)[1], sizes)


def test_leftovers_come_first_most_similar_first_and_then_all_odd_places() -> None:
    x = features(3, 98)
    merged, sizes = merge_round(x, ones(x), 34, 3)
    _, _, staying = one_by_one(x[0], ones(x)[0], 34, 3)
    assert len(staying) == 15 and merged.shape[1] == 64
    assert torch.equal(merged[0, :15], x[0, staying])
    assert torch.equal(sizes[0, :15], torch.ones(15, 1, dtype=torch.float64))
    alone = sizes[0, 15:, 0] == 1
    assert torch.equal(merged[0, 15:][alone], x[0, 1::2][alone])


def test_zero_vectors_stay_finite() -> None:
    x = features(0, 20)
    x[:, [0, 3, 4, 10]] = 0
    assert merge_tokens(x, 7, 3).isfinite().all()
    assert torch.equal(merge_tokens(torch.zeros(2, 20, 12), 7, 3), torch.zeros(2, 7, 12))


def test_equal_tokens_tie_at_the_first_place_and_the_order_holds() -> None:
    x = torch.ones(1, 7, 4)
    merged, sizes = merge_round(x, ones(x), 2, 2)
    assert torch.equal(merged, torch.ones(1, 5, 4))
    assert sizes.flatten().tolist() == [1, 1, 3, 1, 1]


@pytest.mark.parametrize("tokens", [9, 15, 99])
def test_an_odd_number_of_tokens_has_one_more_even_place(tokens: int) -> None:
    x = features(1, tokens)
    merged, sizes = merge_round(x, ones(x), tokens // 2, 3)
    assert merged.shape[1] == tokens - tokens // 2
    assert sizes[0, 0] == 1 and sizes.sum() == tokens


def test_each_clip_is_merged_alone() -> None:
    x = draw(5, 49, 12)
    together = merge_tokens(x, 16, 3)
    for i in range(5):
        torch.testing.assert_close(together[i : i + 1], merge_tokens(x[i : i + 1], 16, 3), rtol=0, atol=1e-6)


def test_half_precision_is_merged_in_float32_unless_the_dtype_is_kept() -> None:
    x = draw(2, 98, 12).bfloat16()
    exact = merge_tokens(x.float(), 64, 3)
    ours, theirs = merge_tokens(x, 64, 3), merge_tokens(x, 64, 3, dtype=None)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert torch.equal(ours, exact.bfloat16())
    assert not torch.equal(theirs, ours)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 12 is no multiple of 5 heads"):
        merge_tokens(torch.ones(1, 8, 12), 4, 5)


@pytest.mark.parametrize(("tokens", "keep"), [(12, 6), (14, 4), (9, 7)])
def test_the_gradient_is_that_of_the_means(tokens: int, keep: int) -> None:
    x = features(5, tokens).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: merge_tokens(t, keep, 3, dtype=None), (x,))
    merge_tokens(x, keep, 3).sum().backward()
    assert x.grad is not None and (x.grad > 0).all()  # every token is in some mean
