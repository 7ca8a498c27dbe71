"""The connector: how many tokens stay, the MLP behind them, the released names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import CONFIG, VISION, draw, enliven, seeded

from videochat_flash.config import RELEASES, Config
from videochat_flash.connector import Connector
from videochat_flash.merge import merge_tokens


def connector(config: Config = CONFIG) -> Connector:
    with seeded():
        net = Connector(config)
        enliven(net)
    return net


@pytest.mark.parametrize(("frames", "patches", "keep"), [(4, 196, 64), (1, 196, 64), (8, 49, 128), (4, 784, 64)])
def test_a_frame_keeps_sixteen_tokens_and_an_image_sixty_four(frames: int, patches: int, keep: int) -> None:
    net = connector(Config(vision=VISION, llm=CONFIG.llm))
    with torch.no_grad():
        x = draw(1, frames * patches, 48)
        assert net.merge(x, frames).shape == (1, keep, 48)
        assert net(x, frames).shape == (1, keep, CONFIG.llm.width)


def test_it_is_merging_by_the_towers_heads_and_then_an_mlp_with_exact_gelu() -> None:
    net, x = connector(), draw(3, 16, 48)
    first, second = net.mlp[0], net.mlp[2]
    hidden = F.linear(merge_tokens(x, 8, VISION.heads), first.weight, first.bias)
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(net(x, 4), F.linear(hidden, second.weight, second.bias))
    assert not torch.equal(net.merge(x, 4), merge_tokens(x, 8, 1))


def test_clips_do_not_touch_each_other() -> None:
    net, x = connector(), draw(4, 16, 48)
    with torch.no_grad():
        together = net(x, 4)
        for i in range(4):
            torch.testing.assert_close(together[i : i + 1], net(x[i : i + 1], 4), rtol=0, atol=1e-5)


def test_the_dtype_of_the_reference_can_be_asked_for() -> None:
    net, x = connector(replace(CONFIG, tokens_per_frame=16)).bfloat16(), draw(1, 98, 48).bfloat16()
    assert torch.equal(net.merge(x, 4, dtype=None), merge_tokens(x, 64, VISION.heads, dtype=None))
    assert torch.equal(net.merge(x, 4), merge_tokens(x, 64, VISION.heads))


def test_as_many_tokens_as_are_to_stay_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot merge 8 tokens to 8"):
        connector()(draw(1, 8, 48), 4)


@pytest.mark.parametrize(
    ("name", "vision", "llm", "parameters"),
    [
        ("VideoChat-Flash-Qwen2-7B_res224", 1024, 3584, 16_522_240),
        ("VideoChat-Flash-Qwen2_5-2B_res448", 1024, 1536, 3_935_232),
        ("VideoChat-Flash-Qwen2_5-7B_InternVideo2-1B", 1408, 3584, 17_898_496),
    ],
)
def test_the_tensors_are_those_of_the_released_checkpoints(name: str, vision: int, llm: int, parameters: int) -> None:
    with torch.device("meta"):
        net = Connector(RELEASES[name])
    assert {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()} == {
        "mlp.0.weight": (llm, vision),
        "mlp.0.bias": (llm,),
        "mlp.2.weight": (llm, llm),
        "mlp.2.bias": (llm,),
    }
    assert sum(tensor.numel() for tensor in net.parameters()) == parameters


def test_the_gradient_reaches_every_weight_and_every_token() -> None:
    net, x = connector(), draw(2, 16, 48).requires_grad_()
    net(x, 4).square().sum().backward()
    assert x.grad is not None and (x.grad.abs().sum(dim=-1) > 0).all()
    assert all(weight.grad is not None and weight.grad.any() for weight in net.parameters())
