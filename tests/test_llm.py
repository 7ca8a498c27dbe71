"""The decoder against a plain one in float64 (oracle.py), and the rules that let it forget everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from oracle import rows_of, run
from oracle import whole_attention as brute_force
from tiny import LLM, caches, decoder, draw, remembered, segment
from torch import Tensor

from videochat_flash import llm
from videochat_flash.config import Drop, LLMConfig, Plan, Yarn, drop_plan
from videochat_flash.dropout import Run, Segment, choose
from videochat_flash.llm import (
    Decoder,
    Hidden,
    LayerCache,
    attend_padded,
    rotary_frequencies,
    rotary_tables,
    rotate,
    rotate_,
)

NET = decoder()
PLANS: dict[str, Plan] = {
    "none": (),
    "uniform": drop_plan("uniform", (2, 4), (0.75, 0.25)),
    "attention": drop_plan("attention", (2, 4), (0.75, 0.25)),
    "uniform0_attention": drop_plan("uniform0_attention", (1, 3), (0.75, 0.25)),
    "uniform1_attention": drop_plan("uniform1_attention", (1, 2, 5), (0.6, 0.37, 0.11)),
    "at once": (Drop(0, 0.5),),
    "nothing left": (Drop(3, 0.0),),
    "everything left": (Drop(3, 1.0),),
}
every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


def text(tokens: Sequence[int]) -> Tensor:
    return NET.embed_tokens(torch.tensor(tokens, dtype=torch.long))


@torch.no_grad()
def forward(
    rows: Tensor, segments: Sequence[Segment], plan: Plan = (), held: list[list[LayerCache]] | None = None
) -> Hidden:
    return NET(rows, segments, plan, held)


@torch.no_grad()
def greedy(hidden: Hidden, held: list[list[LayerCache]], steps: int) -> tuple[list[int], Tensor]:
    """Tokens by the largest product with an embedding, and the last row behind each."""
    rows, tokens = [hidden.rows[-1]], []
    for _ in range(steps):
        tokens.append(int((NET.embed_tokens.weight @ rows[-1]).argmax()))
        rows.append(forward(text(tokens[-1:]), [Segment(1)], (), held).rows[-1])
    return tokens, torch.stack(rows)


@every_plan
def test_it_equals_a_plain_decoder_with_whole_attention_squares(plan: Plan) -> None:
    rows, one = draw(30, 48), segment(4, 20, 6)
    ours, plain = forward(rows, [one], plan), run(NET.state_dict(), LLM, rows, one, plan)
    assert ours.kept.tolist() == plain.kept
    assert [n + 10 for n in ours.visual] == plain.lengths
    torch.testing.assert_close(ours.rows, plain.rows.float(), rtol=0, atol=2e-5)


@every_plan
def test_so_it_does_where_queries_grow_with_the_logarithm_of_their_position(plan: Plan) -> None:
    config = replace(LLM, log_scaled_from=6)
    net, rows, one = decoder(config), draw(30, 48), segment(4, 20, 6)
    with torch.no_grad():
        ours, plain = net(rows, [one], plan), run(net.state_dict(), config, rows, one, plan)
    assert ours.kept.tolist() == plain.kept
    torch.testing.assert_close(ours.rows, plain.rows.float(), rtol=0, atol=2e-5)
    assert not torch.allclose(ours.rows[-1], forward(rows, [one], plan).rows[-1], atol=1e-3)


@settings(max_examples=10)
@given(st.integers(0, 99), st.tuples(st.integers(0, 3), st.integers(1, 12), st.integers(0, 3), st.integers(1, 12)))
def test_two_videos_in_one_conversation_too(seed: int, sizes: tuple[int, int, int, int]) -> None:
    before, first, between, second = sizes
    runs = (Run(before, first, first), Run(before + first + between, second, second))
    one = Segment(sum(sizes) + 4, runs, (sum(sizes), sum(sizes) + 3))
    rows = draw(one.length, 48, seed=seed)
    plan = PLANS["uniform0_attention"]
    ours, plain = forward(rows, [one], plan), run(NET.state_dict(), LLM, rows, one, plan)
    assert ours.kept.tolist() == plain.kept
    torch.testing.assert_close(ours.rows, plain.rows.float(), rtol=0, atol=5e-5)


@pytest.mark.parametrize("queries", [(29,), (10, 29), (3, 15, 28)])
def test_ranking_is_the_layers_own_attention_among_all_rows(queries: tuple[int, ...]) -> None:
    rows, one = draw(30, 48), replace(segment(4, 20, 6), queries=queries)
    for index, block in enumerate(NET.layers):
        tables = rotary_tables(LLM, torch.arange(30))
        (score,) = block.rank(rows, [one], tables)
        expected = brute_force(NET.state_dict(), LLM, index, rows)[:, list(queries)].mean(dim=(0, 1))
        torch.testing.assert_close(score, expected.float(), rtol=0, atol=1e-6)
        assert score.sum() == pytest.approx(1, abs=1e-5)


def test_ranking_asks_for_nothing_where_there_is_no_video_or_no_query() -> None:
    segments = [segment(5, 0, 0), replace(segment(1, 2, 2), queries=()), segment(1, 2, 2)]
    scores = NET.layers[0].rank(draw(15, 48), segments, rotary_tables(LLM, torch.arange(15)))
    assert [score is None for score in scores] == [True, True, False]


# The first tests of architecture section 7.


@every_plan
def test_token_by_token_equals_one_pass_over_the_longer_sequence(plan: Plan) -> None:
    rows, one = draw(30, 48), segment(4, 20, 6)
    held = caches(LLM.layers, room=3)
    tokens, stepped = greedy(forward(rows, [one], plan, held), held, 8)
    longer = torch.cat([rows, text(tokens)])
    at_once = forward(longer, [replace(one, length=38)], plan)
    torch.testing.assert_close(stepped, at_once.rows[-9:], rtol=0, atol=2e-5)
    assert (NET.embed_tokens.weight @ at_once.rows[-9:-1].T).argmax(dim=0).tolist() == tokens
    plain = run(NET.state_dict(), LLM, longer, replace(one, length=38), plan)
    torch.testing.assert_close(stepped, plain.rows[-9:].float(), rtol=0, atol=5e-5)


@pytest.mark.parametrize("kind", ["uniform", "attention"])
def test_caches_are_of_unequal_length_and_grow_by_one(kind: str) -> None:
    held = caches(LLM.layers)
    hidden = forward(draw(30, 48), [segment(4, 20, 6)], PLANS[kind], held)
    lengths = [30, 30, 25, 25, 15, 15]
    assert [len(layer[0]) for layer in held] == lengths
    assert hidden.visual == (20, 20, 15, 15, 5, 5)
    assert hidden.segments == (Segment(15, (Run(4, 5, 20),), (14,)),)
    for step in range(1, 4):
        forward(text([step]), [Segment(1)], (), held)
        assert [len(layer[0]) for layer in held] == [n + step for n in lengths]


@every_plan
def test_packed_conversations_equal_each_one_alone(plan: Plan) -> None:
    segments = [segment(4, 20, 6), segment(9, 0, 0), segment(2, 8, 3)]
    rows = draw(sum(s.length for s in segments), 48)
    held = caches(LLM.layers, 3)
    together = forward(rows, segments, plan, held)
    step = forward(text([5, 6, 7]), [Segment(1)] * 3, (), held)
    parts = rows_of(together.segments)
    for i, (one, where) in enumerate(zip(segments, rows_of(segments), strict=True)):
        own = caches(LLM.layers)
        alone = forward(rows[where], [one], plan, own)
        torch.testing.assert_close(together.rows[parts[i]], alone.rows, rtol=0, atol=1e-5)
        assert (together.kept[parts[i]] - where.start).tolist() == alone.kept.tolist()
        assert together.segments[i] == alone.segments[0]
        next_row = forward(text([5 + i]), [Segment(1)], (), own).rows
        assert [len(layer[i]) for layer in held] == [len(layer[0]) for layer in own]
        torch.testing.assert_close(step.rows[i : i + 1], next_row, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 7, 29, 30, 10_000])
def test_any_row_chunk_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    rows, one = draw(30, 48), segment(4, 20, 6)
    with torch.no_grad():
        whole = NET(rows, [one], PLANS["attention"])
        monkeypatch.setattr(llm, "ROW_CHUNK", chunk)
        parts = NET(rows, [one], PLANS["attention"])
    assert torch.equal(whole.kept, parts.kept)
    torch.testing.assert_close(whole.rows, parts.rows, rtol=0, atol=1e-5)


def test_a_second_video_in_between_changes_the_first_conversation_by_exactly_nothing() -> None:
    before = remembered(NET)
    answers = []
    for interrupted in (False, True):
        held = caches(LLM.layers)
        hidden = forward(draw(30, 48), [segment(4, 20, 6)], PLANS["attention"], held)
        if interrupted:
            forward(draw(70, 48, seed=1), [segment(3, 60, 7)], PLANS["uniform"], caches(LLM.layers))
        answers.append(greedy(hidden, held, 6))
    assert answers[0][0] == answers[1][0]
    assert torch.equal(answers[0][1], answers[1][1])
    assert remembered(NET) == before


def test_a_wrong_shape_is_caught() -> None:
    for wrong in (draw(1, 30, 48), draw(30, 48).long()):
        with pytest.raises(TypeCheckError, match="rows"):
            NET(wrong, [segment(4, 20, 6)])
    with pytest.raises(TypeCheckError):
        LayerCache().extend(draw(2, 3, 8), draw(2, 4, 8))


def test_where_nothing_learns_rows_are_made_in_place_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, one = draw(30, 48), segment(4, 20, 6)
    before = rows.clone()
    for chunk in (8, 64):
        monkeypatch.setattr(llm, "ROW_CHUNK", chunk)
        learning = NET(rows, [one], PLANS["attention"])  # attention by plain products
        ours = forward(rows, [one], PLANS["attention"])
        torch.testing.assert_close(ours.rows, learning.rows, rtol=0, atol=2e-5)
        assert learning.rows.requires_grad and torch.equal(rows, before)


# Further.


def test_the_same_input_gives_the_same_rows() -> None:
    rows, one = draw(30, 48), segment(4, 20, 6)
    assert torch.equal(forward(rows, [one], PLANS["attention"]).rows, forward(rows, [one], PLANS["attention"]).rows)


def test_segments_that_do_not_add_up_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="segments hold 30 rows, but 29 were given"):
        NET(draw(29, 48), [segment(4, 20, 6)])


def test_several_rows_behind_a_cache_are_as_all_rows_at_once() -> None:
    held, rows = caches(LLM.layers), draw(9, 48)
    forward(rows[:5], [Segment(5)], (), held)
    behind = forward(rows[5:], [Segment(4)], (), held).rows
    torch.testing.assert_close(behind, forward(rows, [Segment(9)]).rows[5:], rtol=1e-5, atol=1e-5)


def test_rows_never_see_what_comes_later() -> None:
    rows = draw(20, 48).requires_grad_()
    NET(rows, [Segment(12), Segment(8)]).rows[7].sum().backward()
    assert rows.grad is not None
    assert (rows.grad.abs().sum(dim=-1) > 0).tolist() == [True] * 8 + [False] * 12


@given(st.integers(0, 6), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_a_cache_holds_what_it_was_given(room: int, sizes: list[int]) -> None:
    cache = LayerCache(room)
    keys, values = draw(2, sum(sizes), 4), draw(2, sum(sizes), 4, seed=1)
    for k, v in zip(keys.split(sizes, 1), values.split(sizes, 1), strict=True):
        held = cache.extend(k, v)
    assert len(cache) == sum(sizes)
    assert torch.equal(held[0], keys) and torch.equal(held[1], values)


def test_a_cache_reserves_its_room_once() -> None:
    cache = LayerCache(room=10)
    first = cache.extend(draw(2, 5, 4), draw(2, 5, 4))[0].data_ptr()
    for _ in range(10):
        assert cache.extend(draw(2, 1, 4), draw(2, 1, 4))[0].data_ptr() == first


# Rotary positions.


@pytest.mark.parametrize("theta", [1e6, 1e7])
def test_rotary_at_position_160_000_is_the_closed_form(theta: float) -> None:
    config = replace(LLM, width=128, heads=1, kv_heads=1, rope_theta=theta)
    positions = [0, 1, 32_767, 159_999, 160_000]
    cos, sin, *queries = rotary_tables(config, torch.tensor(positions))
    assert torch.equal(cos, queries[0]) and torch.equal(sin, queries[1])
    assert cos.dtype == sin.dtype == torch.float32
    for row, position in enumerate(positions):
        for channel in range(128):
            angle = position / theta ** (2 * (channel % 64) / 128)
            assert cos[row, channel].item() == pytest.approx(math.cos(angle), abs=1e-7)
            assert sin[row, channel].item() == pytest.approx(math.sin(angle), abs=1e-7)


def test_queries_grow_with_the_logarithm_of_their_position_from_where_it_is_said_on() -> None:
    config = replace(LLM, log_scaled_from=1000)
    cos, sin, *queries = rotary_tables(config, torch.tensor([0, 500, 999, 9_999, 999_999]))
    for plain, scaled in zip((cos, sin), queries, strict=True):
        torch.testing.assert_close(scaled, plain * torch.tensor([1, 1, 1, 4 / 3, 2])[:, None])
    assert torch.equal(cos, rotary_tables(LLM, torch.tensor([0, 500, 999, 9_999, 999_999]))[0])


def test_rotating_is_multiplication_of_complex_numbers_and_depends_on_distance_only() -> None:
    q, k = draw(1, 1, 8), draw(1, 1, 8, seed=1)

    def product(first: int, second: int) -> float:
        turned = (rotate(x, rotary_tables(LLM, torch.tensor([p]))) for x, p in ((q, first), (k, second)))
        return float((next(turned) * next(turned)).sum())

    assert product(3, 1) == pytest.approx(product(160_003, 160_001), abs=1e-5)
    z = torch.complex(q[0, 0, :4], q[0, 0, 4:]) * torch.polar(
        torch.ones(4), torch.tensor([5 * LLM.rope_theta ** (-i / 4) for i in range(4)])
    )
    turned = rotate(q, rotary_tables(LLM, torch.tensor([5])))[0, 0]
    torch.testing.assert_close(turned, torch.cat([z.real, z.imag]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turning_in_place_is_turning(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Bit by bit, in chunks that do not divide the rows, in the layout that projections have."""
    monkeypatch.setattr(llm, "ROTATED", 7)
    x, tables = draw(20, 3, 8).to(dtype).transpose(0, 1), rotary_tables(LLM, torch.arange(5, 25))
    with torch.no_grad():
        wanted, ours = rotate(x, tables), x.clone(memory_format=torch.preserve_format)
        assert rotate_(ours, tables) is ours
    assert torch.equal(ours, wanted)
    assert not torch.equal(x, wanted) and rotate_(x, tables) is not x


def test_decoding_behind_160_000_rows_attends_at_their_true_positions() -> None:
    """One row behind a long cache, against whole arithmetic in float64."""
    attention, held = NET.layers[0].self_attn, LayerCache(1)
    keys, values, x = draw(2, 160_000, 8), draw(2, 160_000, 8, seed=1), draw(1, 48, seed=2)
    held.extend(keys, values)
    angles = [160_000 * LLM.rope_theta ** (-i / 4) for i in range(4)]
    turn = torch.polar(torch.ones(4, dtype=torch.float64), torch.tensor(angles, dtype=torch.float64))

    def turned(projected: Tensor) -> Tensor:
        z = torch.complex(projected[..., :4].double(), projected[..., 4:].double()) * turn
        return torch.cat([z.real, z.imag], dim=-1)

    with torch.no_grad():
        ours = attention(x, [1], rotary_tables(LLM, torch.tensor([160_000])), [held])
        q = turned(attention.q_proj(x).view(6, 8))
        k = torch.cat([keys.double(), turned(attention.k_proj(x).view(2, 1, 8))], dim=1).repeat_interleave(3, 0)
        v = torch.cat([values, attention.v_proj(x).view(2, 1, 8)], dim=1).double().repeat_interleave(3, 0)
        share = ((k @ q[:, :, None])[..., 0] / 8**0.5).softmax(dim=-1)
        mixed = (share[:, None] @ v).reshape(1, 48).float()
        torch.testing.assert_close(ours, attention.o_proj(mixed), rtol=1e-4, atol=1e-6)


def test_no_table_is_stored_that_a_cast_could_spoil() -> None:
    net = decoder().bfloat16()
    assert not list(net.buffers())
    assert net._tables([159_999], [Segment(2)], torch.device("cpu"))[0].dtype == torch.float32


def test_places_of_rows_that_are_left_out_stay_free_and_fewer_of_them_behind_a_drop() -> None:
    net, device = decoder(), torch.device("cpu")
    before = Segment(11, (Run(2, 4, 4), Run(6, 4, 4, skipped=90)))
    _, (behind,) = choose([before], Drop(1, 0.5, "uniform"), [None])
    for one, places in ((before, [*range(6), *range(96, 101)]), (behind, [*range(4), *range(49, 52)])):
        expected = rotary_tables(LLM, torch.tensor(places))
        assert all(map(torch.equal, net._tables([0], [one], device), expected))


def test_more_than_2048_frames_pass_and_keep_their_ends() -> None:
    """33,000 visual rows, ranked at once by attention: the square of them would not fit."""
    config = replace(LLM, layers=1)
    net, one = decoder(config), segment(14, 33_000, 9)
    with torch.no_grad():
        hidden = net(draw(one.length, 48), [one], (Drop(0, 0.01),))
    assert hidden.visual == (330,)
    assert hidden.kept[-9:].tolist() == list(range(33_014, 33_023))
    assert hidden.kept[14:-9].min() < 8_000 and hidden.kept[14:-9].max() > 25_000


YARN = LLMConfig(rope_theta=1e6, max_positions=131_072, yarn=Yarn(factor=4.0, original_max_positions=32_768))


def test_yarn_keeps_fast_channels_interpolates_slow_ones_and_blends_between() -> None:
    """arXiv 2309.00071: r = L / wavelength; above beta_fast nothing changes, below beta_slow all is divided by s.

    Between the two the paper's ramp is linear in r; that of the released implementations, which models like Qwen's are
    run with, is linear in the channel, and so is ours.
    """
    ours, factor = rotary_frequencies(YARN)
    rotations = [32_768 / (2 * math.pi * 1e6 ** (2 * i / 128)) for i in range(64)]
    first = max(i for i, r in enumerate(rotations) if r > 32)  # the last channel that is certainly kept
    last = min(i for i, r in enumerate(rotations) if r < 1)  # the first that is certainly divided
    assert 0 < first < last < 63
    for i in range(64):
        plain = 1e6 ** (-2 * i / 128)
        interpolated = min(max((i - first) / (last - first), 0.0), 1.0)
        expected = (1 - interpolated) * plain + interpolated * plain / 4
        assert ours[i].item() == pytest.approx(expected, rel=1e-12)
        if rotations[i] > 32:
            assert ours[i].item() == pytest.approx(plain, rel=1e-12)
        if rotations[i] < 1:
            assert ours[i].item() == pytest.approx(plain / 4, rel=1e-12)
    assert factor == pytest.approx(0.1 * math.log(4) + 1)


def test_yarns_factor_is_on_queries_and_keys_alike() -> None:
    plain, scaled = (rotary_tables(replace(YARN, yarn=yarn), torch.tensor([0])) for yarn in (None, YARN.yarn))
    assert torch.equal(plain[0], torch.ones(1, 128))
    torch.testing.assert_close(scaled[0], torch.full((1, 128), 1.138629436))


def test_yarn_without_stretching_is_plain_rotary() -> None:
    same, factor = rotary_frequencies(replace(YARN, yarn=Yarn(1.0, 32_768)))
    torch.testing.assert_close(same, rotary_frequencies(replace(YARN, yarn=None))[0], rtol=1e-14, atol=0)
    assert factor == 1.0


# The released layout.


@pytest.mark.parametrize(
    ("width", "heads", "kv", "ffn", "vocab", "billions"),
    [(1536, 12, 2, 8960, 151936, 1.544), (3584, 28, 4, 18944, 152064, 7.616)],
)
def test_names_and_sizes_are_those_of_qwen2(
    width: int, heads: int, kv: int, ffn: int, vocab: int, billions: float
) -> None:
    with torch.device("meta"):
        net = Decoder(LLMConfig(vocab=vocab, width=width, heads=heads, kv_heads=kv, ffn=ffn))
    inner = kv * 128
    block = {
        **{"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)},
        **{"self_attn.q_proj.weight": (width, width), "self_attn.q_proj.bias": (width,)},
        **{f"self_attn.{n}_proj.weight": (inner, width) for n in "kv"},
        **{f"self_attn.{n}_proj.bias": (inner,) for n in "kv"},
        **{"self_attn.o_proj.weight": (width, width), "mlp.down_proj.weight": (width, ffn)},
        **{f"mlp.{n}_proj.weight": (ffn, width) for n in ("gate", "up")},
    }
    expected = {f"layers.{i}.{key}": shape for i in range(28) for key, shape in block.items()}
    expected |= {"embed_tokens.weight": (vocab, width), "norm.weight": (width,)}
    assert {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()} == expected
    head = 0 if width == 1536 else vocab * width
    assert round((sum(p.numel() for p in net.parameters()) + head) / 1e9, 3) == billions


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_padded_attention_is_that_of_each_conversation_alone(lengths: list[int]) -> None:
    q, k, v = (draw(heads, sum(lengths), 8, seed=heads + i) for i, heads in enumerate((6, 2, 2)))
    parts = zip(*(t.split(lengths, 1) for t in (q, k, v)), strict=True)
    alone = [
        torch.nn.functional.scaled_dot_product_attention(
            query[None], key[None], value[None], is_causal=True, enable_gqa=True
        )[0]
        for query, key, value in parts
    ]
    torch.testing.assert_close(attend_padded(q, k, v, lengths), torch.cat(alone, 1), rtol=1e-5, atol=1e-5)
