"""A decoder that is held smaller: what it saves, how far it is off, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from command import run, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from videochat_flash import VideoChatFlash, quantise
from videochat_flash.bench.models import EIGHTH, random_model
from videochat_flash.config import Plan, parse_plan
from videochat_flash.generate import Decoding, Prefilled, decode, next_logits, prefill
from videochat_flash.llm import LayerCache
from videochat_flash.model import VideoChatFlashModel, sampled
from videochat_flash.prefix import make_beginning, make_prefix
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.quantise import Float8Cache, Int8Linear, Packing

PROMPT = Prompt(tuple(range(20)), (IGNORE,) * 20, (3,))
BOTH = Packing("int8", "fp8")
RANKED = parse_plan("1:0.5,4:0.25")
EVENLY = parse_plan("1:0.5,4:0.25", "uniform")  # what is chosen by attention may be chosen otherwise


def begun(net: VideoChatFlashModel, plan: Plan = (), clips: int = 6) -> Prefilled:
    seen = tiny.draw(clips, 8, net.config.llm.width).to(net.dtype)
    return prefill(net, [PROMPT], [[seen]], plan)


def off(ours: Tensor, exact: Tensor) -> float:
    """Root of the mean square, of the spread."""
    return float((ours - exact).pow(2).mean().sqrt() / exact.std())


# Weights.


@settings(max_examples=30)
@given(st.integers(1, 20), st.sampled_from([7, 32, 48, 64]), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_a_product_is_that_of_the_rounded_weights(rows: int, wide: int, out: int, bias: bool, seed: int) -> None:
    with tiny.seeded(seed):
        linear = nn.Linear(wide, out, bias)
        linear.weight.data[0] = 0  # nothing to scale by
    linear.requires_grad_(False)
    small, x = Int8Linear(linear), tiny.draw(rows, wide, seed=seed)
    whole = small.weight.float() * small.scale[:, None]
    assert small.weight.dtype == torch.int8 and small.weight.abs().amax() <= 127
    assert ((whole - linear.weight).abs() <= small.scale[:, None] * 0.5001).all()
    exact = nn.functional.linear(x, whole, linear.bias)
    few = rows <= quantise.FEW and wide % quantise.LANES == 0  # then rows are bfloat16
    torch.testing.assert_close(small(x), exact, rtol=0, atol=(0.02 if few else 1e-5) * float(exact.abs().max() + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 40])
def test_every_type_of_numbers_has_its_product(dtype: torch.dtype, rows: int) -> None:
    with tiny.seeded():
        linear = nn.Linear(64, 24).requires_grad_(False)
    x = tiny.draw(rows, 64)
    made = Int8Linear(linear.to(dtype))(x.to(dtype))
    assert made.dtype == dtype and off(made.float(), linear.float()(x)) < 0.02


def test_weights_stored_in_half_precision_are_computed_with_in_float32_on_a_cpu() -> None:
    net = Packing("int8").apply(tiny.model().bfloat16())
    net.suit_cpu()
    logits = begun(net).logits
    assert net.dtype == logits.dtype == torch.float32 and logits.isfinite().all()


def test_only_the_decoders_layers_become_smaller() -> None:
    net = tiny.model()
    marks = [sampled(part) for part in (net.vision, net.connector, net.decoder)]
    fingerprint, embeddings, head = net.fingerprint(), net.decoder.embed_tokens, net.head
    assert Packing("int8").apply(net) is net
    assert [sampled(part) for part in (net.vision, net.connector)] == marks[:2] and net.fingerprint() == fingerprint
    assert net.decoder.embed_tokens is embeddings and net.head is head
    assert sampled(net.decoder) != marks[2]  # results of both must not be mixed
    linear = [module for module in net.decoder.modules() if isinstance(module, nn.Linear)]
    small = [module for module in net.decoder.modules() if isinstance(module, Int8Linear)]
    assert not linear and len(small) == 7 * net.config.llm.layers
    assert net.decoder.cache is LayerCache


# Keys and values.


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.floats(1e-6, 1e6), st.integers(0, 99))
def test_rows_are_held_in_a_byte_for_each_number(heads: int, first: int, more: int, size: float, seed: int) -> None:
    keys, values = (tiny.draw(heads, first + more, 16, seed=seed + i) * size for i in range(2))
    keys[0, 0] = 0
    cache = Float8Cache(room=4)
    cache.extend(keys[:, :first], values[:, :first])
    assert cache.bytes == 2 * heads * (first + 4) * (16 + 2)
    held = cache.fork(more).extend(keys[:, first:], values[:, first:])
    assert len(cache) == first and type(cache.fork()) is Float8Cache
    for ours, exact in zip(held, (keys, values), strict=True):
        assert ours.dtype == exact.dtype and ours.shape == exact.shape
        least = exact.abs().amax(-1, keepdim=True) / quantise.LARGEST * 2**-9  # half of the smallest float8
        assert ((ours - exact).abs() <= exact.abs() * 2**-4 * 1.01 + least * 1.01).all()


@pytest.mark.parametrize("plan", [(), EVENLY])
@pytest.mark.parametrize("packing", [Packing("int8"), Packing(None, "fp8"), BOTH])
def test_scores_are_near_those_of_the_model_as_it_was(packing: Packing, plan: Plan) -> None:
    net = tiny.model()
    exact = begun(net, plan)
    ours = begun(packing.apply(net), plan)
    assert 0 < off(ours.logits, exact.logits) < 0.2
    assert ours.visual == exact.visual
    if packing.cache:
        for one, other in zip(ours.caches, exact.caches, strict=True):
            assert one[0].bytes * 32 == other[0].bytes * (8 + 2)  # float32 rows of 8


@pytest.mark.parametrize("plan", [(), EVENLY, RANKED, EVENLY[:1] + RANKED[1:]])
def test_prompts_in_pieces_are_prompts_at_once(plan: Plan) -> None:
    """Prefixes, beginnings and tokens one by one see the same rows as a prompt that passes whole."""
    net, seen = Packing(None, "fp8").apply(tiny.model()), tiny.draw(6, 8, 48)
    whole = prefill(net, [PROMPT], [[seen]], plan, 4)
    beginning = make_beginning(net, PROMPT, [seen[:3]], plan)
    part = make_prefix(net, PROMPT, [seen], plan, beginning=beginning).go_on(net, PROMPT, 4)
    assert {type(layer[0]) for layer in (*whole.caches, *part.caches)} == {Float8Cache}
    assert off(part.logits, whole.logits) < 0.01  # a number between two float8 may become either
    assert len(list(decode(net, part, Decoding(max_new_tokens=6)))) == 6
    if plan == ():
        short = Prompt(PROMPT.ids[:-1], PROMPT.labels[:-1], PROMPT.slots)
        fed = next_logits(net, [PROMPT.ids[-1]], prefill(net, [short], [[seen]]).caches)
        assert off(fed, whole.logits) < 0.01


# Models.


def test_the_embedded_model_answers_as_before() -> None:
    vc, small = VideoChatFlash.from_pretrained(), quantise.load("flash-tiny", BOTH)
    assert vc.made_by == small.made_by
    net = vc.model
    held, packed = (sum(t.nbytes for t in m.decoder.layers.state_dict().values()) for m in (net, small.model))
    assert packed < held * 0.27  # float32 on a CPU
    exact, ours = (begun(m.model, EVENLY, 12).logits for m in (vc, small))
    assert off(ours, exact) < 0.2


@pytest.mark.slow
def test_a_deep_decoder_stays_near() -> None:
    plan = parse_plan("4:0.75,18:0.25", "uniform")
    net = random_model(replace(EIGHTH, llm=replace(EIGHTH.llm, vocab=512)), torch.float32, "cpu")
    exact = begun(net, plan, 16).logits
    for packing, most in ((Packing("int8"), 0.1), (BOTH, 0.3)):
        assert 0 < off(begun(packing.apply(net), plan, 16).logits, exact) < most


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models"))


def test_what_is_asked_for_is_loaded(model: Path) -> None:
    plain, weights, cache = (quantise.load(model, one) for one in (Packing(), Packing("int8"), Packing(None, "fp8")))
    kinds = [{type(m) for m in vc.model.decoder.modules()} for vc in (plain, weights, cache)]
    assert [Int8Linear in one for one in kinds] == [False, True, False]
    assert [vc.model.decoder.cache for vc in (plain, weights, cache)] == [LayerCache, LayerCache, Float8Cache]
    assert [str(p) for p in (Packing("int8"), Packing(None, "fp8"), BOTH)] == [
        "int8 weights", "fp8 keys and values", "int8 weights and fp8 keys and values",
    ]  # fmt: skip
    assert Packing.of("int8", "fp8") == BOTH and not Packing.of(None, "auto")


@pytest.mark.usefixtures("unchecked")
def test_ask_takes_the_options(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    line = ("ask", tmp_path / "a.png", "What?", "--model", model, "--quiet")
    done = run(capsys, *line, "--quantization", "int8", "--kv-cache-dtype", "fp8")
    assert done.code == 0 and done.err == ""
    for name, value, known in (("--quantization", "int3", "int8"), ("--kv-cache-dtype", "fp4", "fp8")):
        wrong = run(capsys, *line, name, value)
        assert wrong.code == 2 and len(wrong.lines) == 1 and known in wrong.err


def test_a_device_without_such_numbers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ValueError, match="--kv-cache-dtype fp8 does not work on mps"):
        Packing(None, "fp8").check("mps")
    with pytest.raises(ValueError, match="device cuda:9 is not there"):
        quantise.load("flash-tiny", Packing("int8"), device="cuda:9")
