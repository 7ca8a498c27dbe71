"""Turns of a conversation -> token ids, labels and the places of the videos in them (paper section 3.3).

A video's place is structure, never text: what a user types cannot become a control token or a place for a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer

from .sight import Sight

SYSTEM = "You are a helpful assistant."
IGNORE = -100  # label of a token that is not learned
IM_START, IM_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


@dataclass(frozen=True)
class Turn:
    """What one side said."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class Prompt:
    """Text tokens, and where in them the videos stand.

    Attributes:
        ids: text tokens only.
        labels: the id itself where it is to be learned, IGNORE elsewhere; as long as ``ids``.
        slots: for each video or image, the number of text tokens before it; ascending.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    slots: tuple[int, ...]


def plain_text(tokenizer: Tokenizer) -> Tokenizer:
    """Make the tokenizer read control tokens in a text as the characters they are written with."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()  # fine-tuning tools leave theirs in the file
    tokenizer.no_padding()
    return tokenizer


def time_sentence(sight: Sight) -> str:
    """What the model is told of a video's length; nothing for an image."""
    if sight.is_image:
        return ""
    length, count = f"{sight.duration:.2f} seconds", sight.frames
    return f"The video lasts for {length}, and {count} frames are uniformly sampled from it. "


def render(tokenizer: Tokenizer, turns: Sequence[Turn], sights: Sequence[Sight] = ()) -> Prompt:
    """Lay out a conversation in the Qwen chat form; videos and images stand before the first question.

    Assistant turns are labelled, their closing token included. When the last turn is a question, the header of the
    answer follows, so that the next token is the answer's first, and nothing is labelled.

    Raises:
        ValueError: no turns, or turns that do not alternate beginning with the user.
    """
    if not turns or any(turn.role != ("user", "assistant")[i % 2] for i, turn in enumerate(turns)):
        raise ValueError("a conversation alternates user, assistant, user, ... and begins with the user")
    first, *others = turns
    parts = [first.text]
    if sights:
        lead = "\n" + "".join(time_sentence(sight) for sight in sights)
        parts = ["", *["\n"] * (len(sights) - 1), lead + first.text]
    prompt = lay_out(tokenizer, [("user", parts), *((turn.role, [turn.text]) for turn in others)])
    if turns[-1].role == "assistant":
        return prompt
    header = [control(tokenizer, IM_START), *tokenizer.encode("assistant\n", add_special_tokens=False).ids]
    ids = (*prompt.ids, *header)
    # nothing is labelled, so that the last row ranks the visual rows, not one before an earlier answer
    return Prompt(ids, (IGNORE,) * len(ids), prompt.slots)


def lay_out(tokenizer: Tokenizer, turns: Sequence[tuple[str, Sequence[str]]], system: str = SYSTEM) -> Prompt:
    """A conversation in the Qwen chat form; what the assistant says is labelled, the token that closes it included.

    Args:
        turns: who speaks, and the text, in pieces: between two of them stands a video or image.
    """
    start, end = (control(tokenizer, name) for name in (IM_START, IM_END))
    ids: list[int] = []
    labels: list[int] = []
    slots: list[int] = []

    def add(tokens: Sequence[int], learned: bool = False) -> None:
        ids.extend(tokens)
        labels.extend(tokens if learned else [IGNORE] * len(tokens))

    def text(words: str) -> list[int]:
        return list(tokenizer.encode(words, add_special_tokens=False).ids)

    add([start, *text(f"system\n{system}"), end, *text("\n")])
    for role, parts in turns:
        answer = role == "assistant"
        add([start, *text(f"{role}\n")])
        for number, words in enumerate(parts):
            if number:
                slots.append(len(ids))
            add(text(words), learned=answer)
        add([end], learned=answer)
        add(text("\n"))
    return Prompt(tuple(ids), tuple(labels), tuple(slots))


def control(tokenizer: Tokenizer, name: str) -> int:
    """The id of a control token; ValueError where the tokenizer has none."""
    token = tokenizer.token_to_id(name)
    if token is None:
        raise ValueError(f"the tokenizer has no {name}: it is not one of the Qwen chat family")
    return int(token)
