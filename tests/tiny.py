"""A small model with seeded weights, and small conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from videochat_flash.config import Config, LLMConfig, VisionConfig
from videochat_flash.dropout import Run, Segment
from videochat_flash.llm import Decoder, LayerCache
from videochat_flash.model import VideoChatFlashModel

VISION = VisionConfig(image_size=32, patch=16, width=48, depth=2, heads=3, mlp_width=96)
LLM = LLMConfig(vocab=320, width=48, layers=6, heads=6, kv_heads=2, ffn=96, max_positions=1024)
CONFIG = Config(vision=VISION, llm=LLM, tokens_per_frame=2, image_tokens=3)  # 16 patches of a clip -> 8, 4 -> 3
INTERNVIDEO2 = replace(CONFIG, vision=replace(VISION, kind="internvideo2"))


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Global draws of torch inside are seeded, and outside nothing is seen of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def enliven(net: nn.Module) -> None:
    """Draw all weights anew so that every one of them matters: fresh ones leave attention nearly even."""
    with torch.no_grad():
        for name, weight in net.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            spread = 0.2 if weight.ndim < 2 else 1.5 / weight[0].numel() ** 0.5
            weight.copy_(torch.randn(weight.shape) * spread + centre)


def decoder(config: LLMConfig = LLM, seed: int = 0) -> Decoder:
    with seeded(seed):
        net = Decoder(config)
        enliven(net)
    return net


def model(config: Config = CONFIG, seed: int = 0) -> VideoChatFlashModel:
    with seeded(seed):
        net = VideoChatFlashModel(config)
        enliven(net)
    return net


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def clips(config: Config, count: int, frames: int) -> Tensor:
    """Normalised pixels, random."""
    return draw(count, frames, 3, config.vision.image_size, config.vision.image_size)


def counted(call: Callable[[], object]) -> int:
    """Operations as torch counts them; attention written out, whose CPU kernel it does not know."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def segment(before: int, visual: int, after: int) -> Segment:
    """Text, one video, text; ranked by the last row. No video where ``visual`` is 0."""
    length = before + visual + after
    return Segment(length, (Run(before, visual, visual),) if visual else (), (length - 1,))


def caches(layers: int, conversations: int = 1, room: int = 0) -> list[list[LayerCache]]:
    return [[LayerCache(room) for _ in range(conversations)] for _ in range(layers)]


QWEN_SPLIT = (  # how Qwen2 cuts text before byte-level BPE
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def tokenizer() -> Tokenizer:
    """A byte-level BPE of the Qwen family that knows the words of the chat form; it reads control tokens in a text."""
    words = (
        "system\nYou are a helpful assistant.\nuser\nThe video lasts for seconds, and frames are uniformly sampled\n"
    )
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([words] * 4, trainer)
    return made


def remembered(net: nn.Module) -> dict[str, object]:
    """Every attribute of every module, in a form that can be compared; parameters by identity and value."""
    return {
        f"{name}.{key}": _frozen(value) for name, module in net.named_modules() for key, value in vars(module).items()
    }


def _frozen(value: object) -> object:
    if isinstance(value, Tensor):
        return id(value), tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, nn.Module):
        return id(value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_frozen(item) for item in value]
    return frozenset(value) if isinstance(value, set) else value
