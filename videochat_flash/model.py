"""The model: tower, connector and decoder joined. Knows clips and prompts, not files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .config import Config
from .connector import Connector
from .dropout import Run, Segment
from .llm import Decoder
from .prompt import IGNORE, Prompt
from .vision import make_tower


class VideoChatFlashModel(nn.Module):
    """VideoChat-Flash (arXiv 2501.00574)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.vision = make_tower(config.vision)
        self.connector = Connector(config)
        self.decoder = Decoder(config.llm)
        self.head = None if config.llm.tied else nn.Linear(config.llm.width, config.llm.vocab, bias=False)
        self.newline = nn.Parameter(torch.zeros(config.llm.width)) if config.newline == "one_token" else None

    def see(self, clips: Float[Tensor, "C F 3 h w"]) -> Float[Tensor, "C M E"]:
        """Normalised pixels of C clips, or of C images (F = 1) -> their tokens for the language model."""
        return self.connector(self.vision(clips), clips.shape[1])

    def embed(
        self, prompts: Sequence[Prompt], videos: Sequence[Sequence[Float[Tensor, "_ _ E"]]]
    ) -> tuple[Float[Tensor, "T E"], tuple[Segment, ...]]:
        """Pack conversations: text embeddings with each video's rows in its place.

        Rows whose attention ranks visual rows are the last before each answer, or the last one of all.

        Raises:
            ValueError: a conversation with another number of videos than places for them.
        """
        rows, segments = [], []
        ids = [token for prompt in prompts for token in prompt.ids]
        texts = self.decoder.embed_tokens(torch.tensor(ids, device=self.device))
        for prompt, seen, text in zip(prompts, videos, texts.split([len(p.ids) for p in prompts]), strict=True):
            if len(prompt.slots) != len(seen):
                raise ValueError(f"the prompt has places for {len(prompt.slots)} videos, but {len(seen)} were given")
            pieces, runs, at, length = [], [], 0, 0
            for slot, tokens in zip(prompt.slots, seen, strict=True):
                visual = self._visual_rows(tokens).to(text)
                pieces += [text[at:slot], visual]
                length += slot - at
                runs.append(Run(length, len(visual), len(visual)))
                at, length = slot, length + len(visual)
            pieces.append(text[at:])
            length += len(text) - at
            rows += pieces
            segments.append(Segment(length, tuple(runs), self._queries(prompt, length, runs)))
        return torch.cat(rows), tuple(segments)

    def logits(self, rows: Float[Tensor, "T E"]) -> Float[Tensor, "T V"]:
        """Scores of the next token behind each row, in float32."""
        weight = self.decoder.embed_tokens.weight if self.head is None else self.head.weight
        return F.linear(rows, weight).float()

    @property
    def device(self) -> torch.device:
        return self.decoder.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.embed_tokens.weight.dtype

    def suit_cpu(self) -> None:
        """Compute in float32, but in bfloat16 in a tower that is stored so, where the processor has units for it."""
        for name, weight in self.named_parameters():
            stored = name.startswith("vision.") and weight.dtype == torch.bfloat16
            weight.data = weight.data if stored and torch.cpu._is_amx_tile_supported() else weight.data.float()

    def fingerprint(self) -> str:
        """What made a Sight: sizes of tower and connector, and a sample of their weights."""
        sizes = repr((asdict(self.config.vision), self.config.clip_tokens, self.config.image_tokens)).encode()
        return hashlib.sha256(sizes + sampled(self.vision) + sampled(self.connector)).hexdigest()[:16]

    def _visual_rows(self, tokens: Float[Tensor, "C M E"]) -> Float[Tensor, "S E"]:
        rows = tokens.flatten(0, 1)
        return rows if self.newline is None else torch.cat([rows, self.newline[None].to(rows)])

    @staticmethod
    def _queries(prompt: Prompt, length: int, runs: Sequence[Run]) -> tuple[int, ...]:
        """Text rows before each answer, as rows of the spliced conversation."""
        learned = [label != IGNORE for label in prompt.labels]
        before = [i for i in range(len(learned) - 1) if learned[i + 1] and not learned[i]]
        if not before:
            return (length - 1,)
        shifts = list(zip(prompt.slots, (run.length for run in runs), strict=True))
        return tuple(i + sum(n for slot, n in shifts if slot <= i) for i in before)


def sampled(part: nn.Module) -> bytes:
    """Names and some numbers of its weights, by which they are known: in any dtype, if they are stored in bfloat16."""
    known = b""  # of numbers as bfloat16 and float16 both hold them: of the smallest float16 has not all
    for name, tensor in part.state_dict().items():
        flat = tensor.flatten()
        places = torch.arange(64, device=flat.device) * (len(flat) - 1) // 63  # whole numbers: alike on every device
        known += name.encode() + flat[places].bfloat16().half().float().cpu().numpy().tobytes()
    return known
