"""What is learned of packed conversations: scores and labels of each labelled token, and their cross-entropy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..config import Plan
from ..dropout import Segment
from ..llm import Hidden
from ..model import VideoChatFlashModel
from ..prompt import IGNORE, Prompt

Videos = Sequence[Sequence[Float[Tensor, "_ _ E"]]]  # of each conversation
Skipped = Sequence[Sequence[int]]  # clips that are left out before each of its videos; () where none are


def loss(
    model: VideoChatFlashModel, prompts: Sequence[Prompt], videos: Videos, plan: Plan = (), skipped: Skipped = ()
) -> Float[Tensor, " n"]:
    """Cross-entropy of each labelled token of packed conversations, in order."""
    scores, labels = learned(model, prompts, videos, plan, skipped)
    return F.cross_entropy(scores, labels, reduction="none")


def learned(
    model: VideoChatFlashModel, prompts: Sequence[Prompt], videos: Videos, plan: Plan = (), skipped: Skipped = ()
) -> tuple[Float[Tensor, "n V"], Int[Tensor, " n"]]:
    """Scores of each labelled token of packed conversations, in order, and the label; these follow the rows that
    stay.

    Args:
        skipped: of each conversation; () where nothing is left out of any.
    """
    rows, segments = model.embed(prompts, videos)
    if skipped:
        segments = tuple(_apart(*one) for one in zip(segments, videos, skipped, strict=True))
    labels = torch.tensor(_labels(prompts, segments), device=rows.device)
    hidden: Hidden = model.decoder(rows, segments, plan)
    following = labels[hidden.kept].roll(-1)  # every conversation begins with a row that is never learned
    known = following != IGNORE
    return model.logits(hidden.rows[known]), following[known]


def _apart(segment: Segment, parts: Sequence[Tensor], skipped: Sequence[int]) -> Segment:
    """With the places of clips that are left out between its runs, each as long as those that are there."""
    gaps = skipped or [0] * len(parts)
    runs = zip(segment.runs, parts, gaps, strict=True)
    return replace(segment, runs=tuple(replace(run, skipped=gap * part.shape[1]) for run, part, gap in runs))


def _labels(prompts: Iterable[Prompt], segments: Sequence[Segment]) -> list[int]:
    labels: list[int] = []
    for prompt, segment in zip(prompts, segments, strict=True):
        at = 0
        for slot, run in zip(prompt.slots, segment.runs, strict=True):
            labels += [*prompt.labels[at:slot], *[IGNORE] * run.length]
            at = slot
        labels += prompt.labels[at:]
    return labels
