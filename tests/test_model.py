"""The model as a whole: where rows lie, what is learned of them, and that nothing is remembered."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import naive, run
from tiny import CONFIG, INTERNVIDEO2, LLM, caches, draw, model, remembered
from torch import Tensor

from videochat_flash.config import RELEASES, Config, Plan, drop_plan
from videochat_flash.dropout import Run, Segment
from videochat_flash.generate import Decoding, decode, prefill
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.train.losses import loss

NET = model()
NEWLINE = replace(CONFIG, newline="one_token")
UNIFORM = drop_plan("uniform", (2, 4), (0.75, 0.25))
ATTENTION = drop_plan("attention", (2, 4), (0.75, 0.25))
every_plan = pytest.mark.parametrize("plan", [(), UNIFORM, ATTENTION], ids=["none", "uniform", "attention"])


def asking(length: int = 12, *slots: int, first: int = 5) -> Prompt:
    return Prompt(tuple(range(first, first + length)), (IGNORE,) * length, slots or (4,))


def teaching(length: int = 12, slot: int | None = 4, learned: Sequence[int] = (8, 9), first: int = 5) -> Prompt:
    """A conversation whose tokens at ``learned`` are answers."""
    ids = tuple(range(first, first + length))
    labels = tuple(token if i in learned else IGNORE for i, token in enumerate(ids))
    return Prompt(ids, labels, () if slot is None else (slot,))


def video(clips: int = 3, seed: int = 0) -> Tensor:
    return draw(clips, 8, LLM.width, seed=seed)


def text(net: VideoChatFlashModel, prompt: Prompt) -> Tensor:
    return net.decoder.embed_tokens.weight[list(prompt.ids)]


# Seeing.


@pytest.mark.parametrize("config", [CONFIG, INTERNVIDEO2], ids=["umt", "internvideo2"])
def test_seeing_is_the_tower_and_then_the_connector_clip_by_clip(config: Config) -> None:
    net, clips = model(config), draw(3, 4, 3, 32, 32)
    with torch.no_grad():
        tokens = net.see(clips)
        assert tokens.shape == (3, config.clip_tokens, LLM.width)
        assert torch.equal(tokens, net.connector(net.vision(clips), 4))
        assert torch.equal(tokens, net.see(clips))
        for i in range(3):
            torch.testing.assert_close(tokens[i : i + 1], net.see(clips[i : i + 1]), rtol=0, atol=1e-5)
        assert net.see(draw(2, 1, 3, 32, 32)).shape == (2, config.image_tokens, LLM.width)


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
def test_on_a_cpu_a_tower_keeps_bfloat16_where_there_are_units_for_it(
    monkeypatch: pytest.MonkeyPatch, units: bool, stored: torch.dtype
) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: units)
    net, clips = model(NEWLINE).to(stored), draw(3, 4, 3, 32, 32)
    wide, mark = copy.deepcopy(net).float(), net.fingerprint()
    net.suit_cpu()
    kept = units and stored == torch.bfloat16
    for name, weight in net.named_parameters():
        assert weight.dtype == (stored if kept and name.startswith("vision.") else torch.float32)
        assert torch.equal(weight.float(), wide.get_parameter(name))  # nothing is rounded
    with torch.no_grad():
        exact, ours = wide.vision(clips), net.vision(clips).float()
        tokens = net.see(clips)
    assert (ours - exact).std() < (0.02 * exact.std() if kept else 1e-6)
    assert tokens.dtype == net.dtype == torch.float32 and net.fingerprint() == mark


def test_the_fingerprint_is_that_of_tower_and_connector_in_any_dtype() -> None:
    net = model()
    mark = net.fingerprint()
    assert mark == model().fingerprint() == model().bfloat16().fingerprint() and len(mark) == 16
    with torch.no_grad():
        net.decoder.norm.weight.zero_()
        assert net.fingerprint() == mark
        net.connector.mlp[2].bias += 1
    assert net.fingerprint() != mark
    assert model(seed=1).fingerprint() != mark
    assert model(replace(CONFIG, tokens_per_frame=1)).fingerprint() != mark


def test_the_fingerprint_of_what_is_stored_in_bfloat16_is_that_in_float16() -> None:
    """Which has only some of bfloat16's smallest numbers, as there are some in every larger model."""
    net = model().bfloat16()
    with torch.no_grad():
        for scale, weight in zip(10.0 ** torch.linspace(0, -8, 40), net.vision.parameters(), strict=False):
            weight *= scale
    assert copy.deepcopy(net).half().fingerprint() == net.fingerprint() == copy.deepcopy(net).float().fingerprint()


# Rows.


def test_the_rows_of_a_video_stand_in_its_place() -> None:
    prompt = asking()
    rows, segments = NET.embed([prompt], [[video()]])
    assert segments == (Segment(36, (Run(4, 24, 24),), (35,)),)
    assert torch.equal(rows[4:28], video().flatten(0, 1))
    assert torch.equal(torch.cat([rows[:4], rows[28:]]), text(NET, prompt))


def test_several_videos_and_several_conversations_lie_one_behind_the_other() -> None:
    prompts = [asking(10, 2, 6), Prompt((7, 8, 9), (IGNORE,) * 3, ()), asking(5, 5, first=30)]
    videos = [[video(1, seed=1), video(2, seed=2)], [], [video(1, seed=3)]]
    rows, segments = NET.embed(prompts, videos)
    assert segments == (
        Segment(34, (Run(2, 8, 8), Run(14, 16, 16)), (33,)),
        Segment(3, (), (2,)),
        Segment(13, (Run(5, 8, 8),), (12,)),
    )
    first = text(NET, prompts[0])
    expected = [
        *(first[:2], videos[0][0].flatten(0, 1), first[2:6], videos[0][1].flatten(0, 1), first[6:]),
        *(text(NET, prompts[1]), text(NET, prompts[2]), videos[2][0].flatten(0, 1)),
    ]
    assert torch.equal(rows, torch.cat(expected))


def test_a_newline_follows_each_video_if_the_config_says_so() -> None:
    net = model(NEWLINE)
    rows, segments = net.embed([asking()], [[video()]])
    assert segments[0].runs == (Run(4, 25, 25),) and net.newline is not None
    assert torch.equal(rows[28], net.newline)
    assert NET.newline is None


@pytest.mark.parametrize("videos", [[], [video(), video()]])
def test_places_and_videos_must_agree_in_number(videos: list[Tensor]) -> None:
    with pytest.raises(ValueError, match=f"places for 1 videos, but {len(videos)} were given"):
        NET.embed([asking()], [videos])


def test_prompts_and_lists_of_videos_must_agree_in_number() -> None:
    with pytest.raises(ValueError, match="zip"):
        NET.embed([asking()], [])


@pytest.mark.parametrize(
    ("learned", "rows"),
    [((), (35,)), ((8, 9), (31,)), ((8, 9, 11), (31, 34)), ((2, 8), (1, 31)), ((5,), (28,)), ((0, 7), (30,))],
)
def test_the_row_before_each_answer_ranks_or_else_the_last(learned: tuple[int, ...], rows: tuple[int, ...]) -> None:
    _, segments = NET.embed([teaching(learned=learned)], [[video()]])
    assert segments[0].queries == rows


def test_visual_rows_take_the_dtype_of_the_text() -> None:
    rows, _ = model().bfloat16().embed([asking()], [[video().half()]])
    assert rows.dtype == torch.bfloat16


def test_more_than_2048_frames_are_not_cut() -> None:
    clips = torch.ones(2_052, 16, LLM.width)  # 8,208 frames
    rows, (segment,) = NET.embed([asking()], [[clips]])
    assert rows.shape[0] == segment.length == 12 + 2_052 * 16
    assert torch.equal(rows[-8:], text(NET, asking())[4:])


# Learning.


def by_hand(prompt: Prompt, videos: Sequence[Tensor], plan: Plan) -> Tensor:
    """The losses of one conversation, from the plain decoder."""
    rows, (segment,) = NET.embed([prompt], [videos])
    plain = run(NET.state_dict(), LLM, rows, segment, plan, prefix="decoder.")
    labels = list(prompt.labels)
    for slot, seen in reversed(list(zip(prompt.slots, videos, strict=True))):
        labels[slot:slot] = [IGNORE] * seen.shape[0] * seen.shape[1]
    assert NET.head is not None
    scores = (plain.rows @ NET.head.weight.double().T).log_softmax(dim=-1)
    losses = [
        -scores[place, labels[row + 1]]
        for place, row in enumerate(plain.kept)
        if row + 1 < len(labels) and labels[row + 1] != IGNORE
    ]
    return torch.stack(losses).float() if losses else torch.zeros(0)


PACKED = [teaching(), teaching(7, None, (3, 4), first=40), teaching(9, 2, (5, 7, 8), first=60)]
VIDEOS = [[video(3)], [], [video(2, seed=5)]]


@every_plan
def test_labels_follow_the_rows_that_stay(plan: Plan) -> None:
    with torch.no_grad():
        losses = loss(NET, PACKED, VIDEOS, plan)
    assert len(losses) == 2 + 2 + 3
    expected = torch.cat([by_hand(p, v, plan) for p, v in zip(PACKED, VIDEOS, strict=True)])
    torch.testing.assert_close(losses, expected.detach(), rtol=0, atol=5e-5)


@every_plan
def test_packed_conversations_learn_what_each_alone_would(plan: Plan) -> None:
    with torch.no_grad():
        together = loss(NET, PACKED, VIDEOS, plan)
        alone = torch.cat([loss(NET, [p], [v], plan) for p, v in zip(PACKED, VIDEOS, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@given(st.sets(st.integers(1, 11), max_size=11), st.integers(0, 8))
def test_every_answered_token_is_learned_once_wherever_the_video_stands(learned: set[int], slot: int) -> None:
    with torch.no_grad():
        losses = loss(NET, [teaching(slot=slot, learned=sorted(learned))], [[video(1)]], ATTENTION)
    assert len(losses) == len(learned)


def test_without_answers_there_is_nothing_to_learn() -> None:
    assert loss(NET, [asking()], [[video()]], UNIFORM).shape == (0,)


@every_plan
def test_gradients_reach_tower_connector_and_decoder_and_equal_finite_differences(plan: Plan) -> None:
    net, clips = model().double(), draw(2, 4, 3, 32, 32, dtype=torch.float64)

    def mean() -> Tensor:
        return loss(net, [teaching()], [[net.see(clips)]], plan).mean()

    mean().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    weights = dict(net.named_parameters())
    for name in (
        *("vision.patch_embed.proj.weight", "vision.blocks.0.mlp.fc1.weight", "connector.mlp.0.weight"),
        *("decoder.layers.0.self_attn.q_proj.weight", "decoder.layers.5.mlp.down_proj.weight"),
    ):
        weight = weights[name]
        assert weight.grad is not None
        place = int(weight.grad.abs().argmax())
        flat, step = weight.data.view(-1), 3e-3
        kept = flat[place].item()
        with torch.no_grad():
            flat[place] = kept + step
            above = mean()
            flat[place] = kept - step
            below = mean()
            flat[place] = kept
        slope = float(above - below) / (2 * step)
        assert slope == pytest.approx(weight.grad.view(-1)[place].item(), rel=1e-2), name


def test_dropped_rows_teach_only_the_layers_that_saw_them() -> None:
    tokens = video().requires_grad_()
    loss(NET, [teaching()], [[tokens]], drop_plan("uniform", (0,), (0.25,))).sum().backward()
    assert tokens.grad is not None
    reached = tokens.grad.flatten(0, 1).abs().sum(dim=-1) > 0
    assert reached.nonzero().flatten().tolist() == torch.linspace(0, 23, 6, dtype=torch.long).tolist()


# Answering.


@every_plan
def test_cached_decoding_equals_recomputation(plan: Plan) -> None:
    prompt, seen = asking(), [video()]
    how = Decoding(max_new_tokens=8)
    begun = prefill(NET, [prompt], [seen], plan)
    tokens = [step[0] for step in decode(NET, begun, how)]
    assert tokens == naive(NET, prompt, seen, plan, how) and len(tokens) == 8


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_float32_and_a_tied_head_is_the_embedding(tied: bool) -> None:
    net = model(replace(CONFIG, llm=replace(LLM, tied=tied))).bfloat16()
    rows = draw(3, LLM.width).bfloat16()
    logits = net.logits(rows)
    assert logits.dtype == torch.float32 and (net.head is None) == tied
    weight = net.decoder.embed_tokens.weight if net.head is None else net.head.weight
    assert torch.equal(logits, (rows @ weight.T).float())


@pytest.mark.parametrize("config", [CONFIG, INTERNVIDEO2, NEWLINE], ids=["umt", "internvideo2", "newline"])
def test_nothing_is_remembered_on_any_module(config: Config) -> None:
    net = model(config)
    before = remembered(net)
    seen = net.see(draw(3, 4, 3, 32, 32)).detach()
    net.see(draw(1, 1, 3, 32, 32))
    loss(net, [teaching()], [[seen]], ATTENTION).sum().backward()
    net.zero_grad()
    for plan in (ATTENTION, UNIFORM, ()):
        list(decode(net, prefill(net, [asking(), asking(6, 1)], [[seen], [seen[:1]]], plan, 4), Decoding(4)))
    net.fingerprint()
    assert remembered(net) == before


def test_the_same_call_gives_the_same_rows_after_anything_else() -> None:
    rows, segments = NET.embed([asking()], [[video()]])

    @torch.no_grad()
    def run_once() -> Tensor:
        return NET.decoder(rows, segments, ATTENTION, caches(LLM.layers)).rows

    first = run_once()
    list(decode(NET, prefill(NET, [asking(9, 3)], [[video(5, seed=9)]], UNIFORM), Decoding(3)))
    assert torch.equal(first, run_once())


# The releases.


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("VideoChat-Flash-Qwen2_5-2B_res448", 1.838),
        ("VideoChat-Flash-Qwen2-7B_res224", 7.923),
        ("VideoChat-Flash-Qwen2_5-7B_InternVideo2-1B", 8.621),
    ],
)
def test_the_releases_have_their_size(name: str, billions: float) -> None:
    with torch.device("meta"):
        net = VideoChatFlashModel(RELEASES[name])
    assert round(sum(p.numel() for p in net.parameters()) / 1e9, 3) == billions
    assert not list(net.buffers())
