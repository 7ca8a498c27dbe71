"""A kept prefix changes nothing but the time: the same scores, the same caches, the same answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videochat_flash import VideoChatFlash
from videochat_flash.attention import attend
from videochat_flash.config import Drop, Plan, parse_plan
from videochat_flash.generate import Decoding, decode, prefill
from videochat_flash.prefix import begin, make_beginning, make_prefix, prepare
from videochat_flash.prompt import IGNORE, Prompt, plain_text
from videochat_flash.sight import Sight

PLANS: tuple[Plan, ...] = (
    (),
    (Drop(2, 0.5),),
    (Drop(0, 0.5), Drop(4, 0.25)),
    (Drop(1, 0.5, "uniform"),),
    (Drop(1, 0.75, "uniform"), Drop(3, 0.5), Drop(5, 0.25)),
)


def prompt_of(before: int, after: int, seed: int, videos: int = 1) -> Prompt:
    chance = torch.Generator().manual_seed(seed)
    ids = torch.randint(320, (before + after,), generator=chance).tolist()
    return Prompt(tuple(ids), (IGNORE,) * len(ids), tuple(before - videos + 1 + i for i in range(videos)))


@settings(max_examples=25)
@given(st.sampled_from(PLANS), st.integers(1, 9), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_a_question_behind_a_prefix_is_the_whole_prompt(
    plan: Plan, before: int, after: int, videos: int, seed: int
) -> None:
    net = tiny.model()
    seen = [tiny.draw(2 + i, 8, 48, seed=seed + i) for i in range(videos)]
    first, second = (prompt_of(before + videos, after + i, seed, videos) for i in (0, 3))
    kept = make_prefix(net, first, seen, plan)
    assert kept.bytes > 0
    for prompt in (first, second, first):  # a prefix is not used up
        prompt = Prompt((*kept.ids, *prompt.ids[len(kept.ids) :]), prompt.labels, prompt.slots)
        kept.check(prompt, seen)
        whole, part = prefill(net, [prompt], [seen], plan, 4), kept.go_on(net, prompt, 4)
        torch.testing.assert_close(part.logits, whole.logits, rtol=1e-5, atol=3e-5)
        assert part.visual == whole.visual
        assert [len(layer[0]) for layer in part.caches] == [len(layer[0]) for layer in whole.caches]
        how = Decoding(max_new_tokens=6)
        assert list(decode(net, part, how)) == list(decode(net, whole, how))


@settings(max_examples=25)
@given(st.sampled_from(PLANS), st.integers(0, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 99))
def test_a_video_that_begins_as_another_is_not_done_again(
    plan: Plan, alike: int, others: int, less: int, seed: int
) -> None:
    net, prompt = tiny.model(), prompt_of(4, 6, seed)
    first = tiny.draw(5, 8, 48, seed=seed)
    second = torch.cat([first[:alike], tiny.draw(others, 8, 48, seed=seed + 1), first[alike : 5 - less]])
    beginning = make_beginning(net, prompt, [first], plan)
    if beginning is None:
        assert plan[0].layer == 0
        return
    entered, _ = net.embed([prompt], [[second]])
    assert beginning.shared(entered) == 4 + 8 * alike
    for video in (second, first, first[:3]):
        whole = make_prefix(net, prompt, [video], plan).go_on(net, prompt, 4)
        part = make_prefix(net, prompt, [video], plan, beginning=beginning).go_on(net, prompt, 4)
        torch.testing.assert_close(part.logits, whole.logits, rtol=1e-5, atol=1e-5)
        assert part.visual == whole.visual
        assert [len(layer[0]) for layer in part.caches] == [len(layer[0]) for layer in whole.caches]
        how = Decoding(max_new_tokens=6)
        assert list(decode(net, part, how)) == list(decode(net, whole, how))


def test_a_beginning_of_another_dropout_is_told() -> None:
    net, seen, prompt = tiny.model(), [tiny.draw(2, 8, 48)], prompt_of(4, 3, 0)
    beginning = make_beginning(net, prompt, seen, (Drop(2, 0.5),))
    with pytest.raises(ValueError, match="another dropout"):
        make_prefix(net, prompt, seen, (Drop(1, 0.5),), beginning=beginning)


@given(st.integers(1, 9), st.integers(0, 20))
def test_the_last_rows_see_all_before_them(rows: int, before: int) -> None:
    q, k, v = (tiny.draw(1, heads, before + rows, 8, seed=heads) for heads in (4, 2, 2))
    whole = attend(q, k, v, causal=True)[:, :, before:]
    part = attend(q[:, :, before:], k, v, causal=True)
    torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5)


def test_a_prefix_in_half_precision_is_as_exact_as_the_whole_prompt() -> None:
    off: dict[str, list[float]] = {"whole": [], "part": []}
    for seed in range(6):
        net, seen, prompt = tiny.model(seed=seed), [tiny.draw(6, 8, 48, seed=seed)], prompt_of(4, 6, seed)
        exact = prefill(net, [prompt], [seen]).logits
        net, seen = net.bfloat16(), [seen[0].bfloat16()]
        whole = prefill(net, [prompt], [seen]).logits
        part = make_prefix(net, prompt, seen, ()).go_on(net, prompt).logits
        off["whole"].append(float((whole - exact).norm()))
        off["part"].append(float((part - exact).norm()))
    assert sum(off["part"]) < 1.2 * sum(off["whole"]), off


def test_a_prefix_that_leaves_no_rows_holds_none() -> None:
    """A view of none of them would hold all in memory, and count for nothing."""
    kept = make_prefix(tiny.model(), prompt_of(4, 3, 0), [tiny.draw(2, 8, 48)], ())
    assert kept.rows.untyped_storage().nbytes() == 0


def test_a_prefix_of_something_else_is_told() -> None:
    net, seen = tiny.model(), [tiny.draw(2, 8, 48)]
    prompt = prompt_of(4, 3, 0)
    kept = make_prefix(net, prompt, seen, ())
    for other, videos in (
        (Prompt((1, *prompt.ids[1:]), prompt.labels, prompt.slots), seen),
        (Prompt(prompt.ids, prompt.labels, (3,)), seen),
        (prompt, [tiny.draw(2, 8, 48, seed=1)]),
        (prompt, [tiny.draw(3, 8, 48)]),
        (prompt, [seen[0].flip(0)]),
    ):
        with pytest.raises(ValueError, match="does not begin as the prefix"):
            kept.check(other, videos)
    with pytest.raises(ValueError, match="without a video"):
        make_prefix(net, Prompt((1, 2), (IGNORE,) * 2, ()), [], ())


@pytest.mark.parametrize("keep", ["off", "2:0.5", "1:0.75,4:0.25"])
def test_a_prepared_sight_is_answered_the_same(keep: str) -> None:
    plan = parse_plan(keep)
    config = replace(tiny.CONFIG, llm=replace(tiny.LLM, vocab=512))
    vc = VideoChatFlash(tiny.model(config), plain_text(tiny.tokenizer()), Decoding(max_new_tokens=8))
    sights = [Sight(tiny.draw(n, 8, 48), torch.arange(2.0 * n).view(n, 2), 4.0 * n, 4, "", vc.made_by) for n in (3, 2)]
    for sight in (sights[0], sights):
        beginning = begin(vc, sights[1], keep=plan) if sight is sights[0] else None
        kept = prepare(vc, sight, keep=plan, beginning=beginning)
        for question in ("What is it?", "Which way does it move, and how fast?"):
            assert vc.answer(sight, question, keep=plan, prefix=kept) == vc.answer(sight, question, keep=plan)
    with pytest.raises(ValueError, match="prepare another"):
        vc.answer(sights, "What?", keep=(Drop(3, 0.5),), prefix=kept)
    with pytest.raises(ValueError, match="does not begin"):
        vc.answer(sights[0], "What?", keep=plan, prefix=kept)
