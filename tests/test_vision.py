"""The towers: position tables against closed forms, checkpoint names, clips that stay apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import INTERNVIDEO2, VISION, draw, enliven, seeded
from torch import Tensor, nn

from videochat_flash.config import TOWERS, VisionConfig
from videochat_flash.vision import (
    InternVideo2,
    LayerScale,
    PatchEmbed,
    RMSNorm,
    Umt,
    internvideo2_positions,
    make_tower,
    umt_positions,
)

CPU = torch.device("cpu")
SMALL = {"umt": VISION, "internvideo2": INTERNVIDEO2.vision}


def tower(config: VisionConfig) -> Umt | InternVideo2:
    with seeded():
        net = make_tower(config)
        enliven(net)
    return net


def base_table(rows: int, width: int) -> np.ndarray:
    """angle(p, j) = p / 10000^(2 floor(j/2) / width), even j sine and odd j cosine; float64, then float32."""
    table = np.empty((rows, width))
    for j in range(width):
        angle = np.arange(rows, dtype=np.float64) / np.power(10000, 2 * (j // 2) / width)
        table[:, j] = np.cos(angle) if j % 2 else np.sin(angle)
    return table.astype(np.float32)


def cubic(x: float) -> float:
    """The cubic convolution kernel with a = -0.75."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resize_matrix(kernel: Callable[[float], float], old: int, new: int) -> np.ndarray:
    """Weights "new old" of a resize with half-pixel centres and repeated edges."""
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(tap, 0), old - 1)] += kernel(centre - tap)
    return weights


@pytest.mark.parametrize("width", [1024, 64])
def test_umt_positions_at_224_are_the_closed_form_bit_for_bit(width: int) -> None:
    video, image = umt_positions(4, 14, width, CPU), umt_positions(1, 14, width, CPU)
    assert video.dtype == torch.float32
    assert np.array_equal(video.numpy(), base_table(784, width))
    assert np.array_equal(image.numpy(), base_table(196, width))


@pytest.mark.parametrize(("grid", "width"), [(28, 1024), (28, 64), (4, 64), (2, 48), (16, 32)])
def test_umt_positions_at_other_sizes_are_bicubic_maps_bit_for_bit(grid: int, width: int) -> None:
    maps = torch.from_numpy(base_table(784, width)).view(4, 14, 14, width)
    frames = [
        F.interpolate(one.permute(2, 0, 1)[None], size=(grid, grid), mode="bicubic", align_corners=False)[0]
        for one in maps
    ]
    by_frame = torch.stack([one.permute(1, 2, 0).reshape(grid * grid, width) for one in frames])
    assert torch.equal(umt_positions(4, grid, width, CPU), by_frame.flatten(0, 1))
    assert torch.equal(umt_positions(1, grid, width, CPU), by_frame[0])


@pytest.mark.parametrize("grid", [28, 20, 7])
def test_the_resize_is_cubic_convolution_with_a_of_three_quarters(grid: int) -> None:
    weights = resize_matrix(cubic, 14, grid)
    expected = np.einsum("iy,jx,fyxc->fijc", weights, weights, base_table(784, 16).reshape(4, 14, 14, 16))
    np.testing.assert_allclose(umt_positions(4, grid, 16, CPU).numpy(), expected.reshape(-1, 16), atol=2e-6)


@pytest.mark.parametrize(("frames", "grid"), list(product([2, 3, 8, 16], [14, 28])))
def test_other_frame_counts_interpolate_time_linearly_after_space(frames: int, grid: int) -> None:
    space = umt_positions(4, grid, 32, CPU).view(4, -1).numpy()
    expected = resize_matrix(lambda x: max(0.0, 1 - abs(x)), 4, frames) @ space
    table = umt_positions(frames, grid, 32, CPU)
    np.testing.assert_allclose(table.view(frames, -1).numpy(), expected, atol=1e-6)
    stacked = torch.from_numpy(space.T.copy())[None]
    exact = F.interpolate(stacked, size=frames, mode="linear", align_corners=False)[0].T
    assert torch.equal(table.view(frames, -1), exact)


@pytest.mark.parametrize("grid", [14, 28])
def test_an_image_takes_the_first_frame_of_the_table(grid: int) -> None:
    assert torch.equal(umt_positions(1, grid, 64, CPU), umt_positions(4, grid, 64, CPU)[: grid * grid])


def test_the_table_can_be_made_in_inference_mode_and_trained_with_later() -> None:
    with torch.inference_mode():
        first = umt_positions(4, 3, 20, CPU)
    assert first is umt_positions(4, 3, 20, CPU) and not first.is_inference()


@pytest.mark.parametrize(("frames", "grid", "width"), [(4, 16, 1408), (1, 16, 1408), (3, 2, 48)])
def test_internvideo2_starts_from_time_column_and_row(frames: int, grid: int, width: int) -> None:
    table = internvideo2_positions(frames, grid, width)
    assert table.shape == (1 + frames * grid * grid, width) and not table[0].any()
    quarter, space = width // 4, 3 * width // 8
    generator = np.random.default_rng(0)
    for _ in range(200):
        t, y, x = (int(generator.integers(n)) for n in (frames, grid, grid))
        row = []
        for value, channels in ((t, quarter), (x, space), (y, space)):
            angles = [value / 10000 ** (i / (channels // 2)) for i in range(channels // 2)]
            row += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        np.testing.assert_allclose(table[1 + (t * grid + y) * grid + x].numpy(), row, atol=1e-7)


@pytest.mark.parametrize("kind", SMALL)
def test_patches_are_those_of_the_strided_convolution(kind: str) -> None:
    with seeded():
        embed = PatchEmbed(SMALL[kind])
    clips = draw(2, 4, 3, 32, 32)
    by_convolution = embed.proj(clips.transpose(1, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(clips), by_convolution)


@pytest.mark.parametrize("kind", SMALL)
def test_each_clip_is_seen_alone_and_always_the_same(kind: str) -> None:
    net, clips = tower(SMALL[kind]), draw(3, 4, 3, 32, 32)
    with torch.no_grad():
        together = net(clips)
        assert together.shape == (3, 16, 48)
        assert torch.equal(together, net(clips))
        for i in range(3):
            torch.testing.assert_close(together[i : i + 1], net(clips[i : i + 1]), rtol=0, atol=1e-5)
        assert (net(clips.flip(1)) - together).abs().max() > 1e-2  # the order of frames matters


@pytest.mark.parametrize("kind", SMALL)
def test_an_image_is_a_clip_of_one_frame(kind: str) -> None:
    with torch.no_grad():
        assert tower(SMALL[kind])(draw(2, 1, 3, 32, 32)).shape == (2, 4, 48)


def test_internvideo2_has_tables_of_its_own_for_images_and_for_videos() -> None:
    net = tower(SMALL["internvideo2"])
    clips, image = draw(1, 4, 3, 32, 32), draw(1, 1, 3, 32, 32)
    for table, still, moved in ((net.pos_embed, image, clips), (net.img_pos_embed, clips, image)):
        with torch.no_grad():
            before = net(still), net(moved)
            table += 1
            assert torch.equal(net(still), before[0]) and not torch.equal(net(moved), before[1])


def test_umt_takes_other_numbers_of_frames() -> None:
    with torch.no_grad():
        assert tower(replace(VISION, clip_frames=8))(draw(1, 8, 3, 32, 32)).shape == (1, 32, 48)


# The towers once more, the plain way and in float64.


def plain_tower(net: Umt | InternVideo2, config: VisionConfig, clip: Tensor) -> Tensor:
    """Tokens of one clip, the plain way."""
    w = {name: tensor.double() for name, tensor in net.state_dict().items()}
    p, grid = config.patch, config.grid
    weight, bias = w["patch_embed.proj.weight"].flatten(1), w["patch_embed.proj.bias"]
    cut = [
        frame[:, i * p : (i + 1) * p, j * p : (j + 1) * p].reshape(-1)
        for frame, i, j in product(clip.double(), range(grid), range(grid))
    ]
    x = torch.stack(cut) @ weight.T + bias
    if config.kind == "umt":
        x = x + umt_positions(len(clip), grid, config.width, CPU).double()
    else:
        x = torch.cat([w["cls_token"][0], x]) + w["img_pos_embed" if len(clip) == 1 else "pos_embed"][0]
    for i in range(config.depth):
        x = plain_block({k.split(".", 2)[2]: t for k, t in w.items() if k.startswith(f"blocks.{i}.")}, config, x)
    if config.kind == "umt":
        return layer_norm(x, 1e-12) * w["vision_layernorm.weight"] + w["vision_layernorm.bias"]
    return x[1:]


def plain_block(w: dict[str, Tensor], config: VisionConfig, x: Tensor) -> Tensor:
    """Pre-norm attention and MLP; UMT's keys have no bias, InternVideo2's queries and keys are normalised whole."""
    umt, heads, width = config.kind == "umt", config.heads, config.width

    def norm(y: Tensor, name: str) -> Tensor:
        return layer_norm(y, 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"] if umt else rms(y) * w[f"{name}.weight"]

    q, k, v = (norm(x, "norm1") @ w["attn.qkv.weight"].T).chunk(3, dim=-1)
    if umt:
        q, v = q + w["attn.q_bias"], v + w["attn.v_bias"]
    else:
        q, k = norm(q, "attn.q_norm"), norm(k, "attn.k_norm")
    mixed = torch.empty_like(x)
    for h in range(heads):
        part = slice(h * width // heads, (h + 1) * width // heads)
        mixed[:, part] = (q[:, part] @ k[:, part].T / (width // heads) ** 0.5).softmax(dim=-1) @ v[:, part]
    mixed = mixed @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    x = x + (mixed if umt else mixed * w["ls1.weight"])
    hidden = norm(x, "norm2") @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    out = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2 @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    return x + (out if umt else out * w["ls2.weight"])


def layer_norm(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize(("kind", "frames"), list(product(SMALL, [4, 1])))
def test_the_towers_equal_plain_ones(kind: str, frames: int) -> None:
    net, clips = tower(SMALL[kind]), draw(1, frames, 3, 32, 32)
    with torch.no_grad():
        expected = plain_tower(net, SMALL[kind], clips[0])
        torch.testing.assert_close(net(clips)[0], expected.float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_small_numbers_are_normalised_with_the_right_epsilon(kind: str) -> None:
    """With weights and tokens of a thousandth, the epsilon is as large as the variance."""
    block, x = tower(SMALL[kind]).blocks[0], draw(1, 5, 48) / 1000
    with torch.no_grad():
        for name, weight in block.named_parameters():
            if "norm" not in name:
                weight /= 1000
        weights = {name: tensor.double() for name, tensor in block.state_dict().items()}
        ours, expected = block(x)[0] - x[0], plain_block(weights, SMALL[kind], x[0].double()) - x[0].double()
    assert (ours - expected).abs().max() < 1e-3 * expected.abs().max()


def test_norms_and_scales_calculate_in_float32() -> None:
    x = (draw(3, 48) * 300).half()  # squares overflow half precision
    assert RMSNorm(48, 1e-6).half()(x).isfinite().all()
    torch.testing.assert_close(LayerScale(48).half()(x), (x.float() * torch.tensor(1e-5).half().float()).half())


@pytest.mark.parametrize("kind", SMALL)
def test_half_precision_stays_near_and_finite(kind: str) -> None:
    net, clips = tower(SMALL[kind]), draw(1, 4, 3, 32, 32)
    with torch.no_grad():
        exact, rough = net(clips), net.bfloat16()(clips)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_the_last_norm_of_umt_has_an_epsilon_that_half_precision_cannot_hold_and_runs_in_float32() -> None:
    net = tower(VISION)
    assert net.vision_layernorm.eps == 1e-12
    seen: list[torch.dtype] = []
    real = F.layer_norm

    def watched(x: Tensor, *rest: object) -> Tensor:
        seen.append(x.dtype)
        return real(x, *rest)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "layer_norm", watched)
        net.half()(draw(1, 4, 3, 32, 32))
    assert seen == [torch.float16] * 4 + [torch.float32]


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("name", ["umt-large", "umt-hd-large"])
def test_umt_has_the_tensors_of_the_released_checkpoint(name: str) -> None:
    with torch.device("meta"):
        have = shapes(make_tower(TOWERS[name]))
    block = {
        **{f"norm{i}.{part}": (1024,) for i in (1, 2) for part in ("weight", "bias")},
        **{"attn.qkv.weight": (3072, 1024), "attn.q_bias": (1024,), "attn.v_bias": (1024,)},
        **{"attn.proj.weight": (1024, 1024), "attn.proj.bias": (1024,)},
        **{"mlp.fc1.weight": (4096, 1024), "mlp.fc1.bias": (4096,)},
        **{"mlp.fc2.weight": (1024, 4096), "mlp.fc2.bias": (1024,)},
    }
    expected = {f"blocks.{i}.{key}": shape for i in range(23) for key, shape in block.items()}
    expected |= {"patch_embed.proj.weight": (1024, 3, 1, 16, 16), "patch_embed.proj.bias": (1024,)}
    expected |= {"vision_layernorm.weight": (1024,), "vision_layernorm.bias": (1024,)}
    assert have == expected and len(have) == 303
    assert sum(math.prod(shape) for shape in have.values()) == 290_479_104


def test_internvideo2_has_the_tensors_of_the_released_checkpoint() -> None:
    with torch.device("meta"):
        have = shapes(make_tower(TOWERS["internvideo2"]))
    block = {
        **{f"{key}.weight": (1408,) for key in ("norm1", "norm2", "attn.q_norm", "attn.k_norm", "ls1", "ls2")},
        **{"attn.qkv.weight": (4224, 1408), "attn.proj.weight": (1408, 1408), "attn.proj.bias": (1408,)},
        **{"mlp.fc1.weight": (6144, 1408), "mlp.fc1.bias": (6144,)},
        **{"mlp.fc2.weight": (1408, 6144), "mlp.fc2.bias": (1408,)},
    }
    expected = {f"blocks.{i}.{key}": shape for i in range(39) for key, shape in block.items()}
    expected |= {"patch_embed.proj.weight": (1408, 3, 1, 14, 14), "patch_embed.proj.bias": (1408,)}
    expected |= {"cls_token": (1, 1, 1408), "pos_embed": (1, 1025, 1408), "img_pos_embed": (1, 257, 1408)}
    assert have == expected and len(have) == 512
    assert sum(math.prod(shape) for shape in have.values()) == 987_337_728
