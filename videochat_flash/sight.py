"""A Sight: what a model saw of a video, as compressed tokens with the times they come from. Pay once, ask often."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .files import beside

FORMAT = "videochat-flash sight 1"


@dataclass(frozen=True, eq=False)
class Sight:
    """Visual tokens of a video or an image.

    Attributes:
        tokens: what the language model reads, per clip.
        seconds: when each clip's first and last sampled frame is shown.
        duration: seconds of the video, or of the window of it that was looked at; 0 for an image.
        clip_frames: sampled frames in a clip; 1 for an image.
        source: fingerprint of the file.
        made_by: fingerprint of the tower and connector.
    """

    tokens: Float[Tensor, "C M E"]
    seconds: Float[Tensor, "C 2"]
    duration: float
    clip_frames: int
    source: str
    made_by: str

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or tuple(self.seconds.shape) != (self.tokens.shape[0], 2):
            raise ValueError(
                f"a sight needs tokens (clips, M, E) and seconds (clips, 2), "
                f"not {tuple(self.tokens.shape)} and {tuple(self.seconds.shape)}"
            )

    def __len__(self) -> int:
        """Clips."""
        return self.tokens.shape[0]

    def __getitem__(self, clips: slice) -> Sight:
        """Some of the clips; exact, since the tower never looks across clips."""
        return replace(self, tokens=self.tokens[clips], seconds=self.seconds[clips])

    def __repr__(self) -> str:
        return f"Sight(tokens={tuple(self.tokens.shape)}, frames={self.frames}, duration={self.duration:.2f} s)"

    @property
    def frames(self) -> int:
        """Sampled frames, repeated ones included."""
        return len(self) * self.clip_frames

    @property
    def is_image(self) -> bool:
        return self.clip_frames == 1

    @staticmethod
    def join(sights: Sequence[Sight]) -> Sight:
        """One video out of the clips of several, in the order given; the first one's duration and source stay.

        Raises:
            ValueError: none given, or made by different models.
        """
        if not sights:
            raise ValueError("nothing to join: give at least one sight")
        for other in sights:
            if (other.made_by, other.clip_frames) != (sights[0].made_by, sights[0].clip_frames):
                raise ValueError(
                    f"sights of different models cannot be joined: {sights[0].made_by} and {other.made_by}"
                )
        tokens, seconds = (torch.cat(parts) for parts in zip(*((s.tokens, s.seconds) for s in sights), strict=True))
        return replace(sights[0], tokens=tokens, seconds=seconds)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: beside it first, then renamed.

        Raises:
            OSError: it cannot be written there.
        """
        path = Path(path)
        header = {name: getattr(self, name) for name in ("duration", "clip_frames", "source", "made_by")}
        values = {"tokens": self.tokens.contiguous().cpu(), "seconds": self.seconds.contiguous().cpu()}
        with beside(path) as part:
            save_file(values, part, metadata={"format": FORMAT, "sight": json.dumps(header)})

    @staticmethod
    def load(path: str | Path) -> Sight:
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is not a sight.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no sight at {path}: make one with 'vcflash see VIDEO -o {path}'")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise ValueError(f"{path} is not a sight of this version: its format is {header.get('format')!r}")
                return Sight(file.get_tensor("tokens"), file.get_tensor("seconds"), **json.loads(header["sight"]))
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a sight, or a damaged one: {error}") from None
