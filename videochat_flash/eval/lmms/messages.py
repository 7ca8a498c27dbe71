"""What lmms-eval asks, in chat messages and generation arguments -> what is shown, and the turns about it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ... import session
from ...config import Plan
from ...generate import Decoding
from ...prompt import Turn
from ...video import Sampling

Message = Mapping[str, Any]
NEW_TOKENS = 1024  # at most, where a task says nothing
RULES = ("policy", "fps", "num_frames"), ("keep", "keep_by"), ("max_frames",)  # arguments that belong together
LOOKS = tuple(name for rule in RULES for name in rule)


@dataclass(frozen=True)
class Medium:
    """A video, a folder of frames or a picture, and which frames of it are seen."""

    path: Path
    sampling: Sampling


@dataclass(frozen=True)
class Wanted:
    """One request.

    Attributes:
        media: what is shown; it all stands before the first question, as the model was trained.
        turns: of the conversation; the last one is the question.
        keep: dropout; None is the model's own.
        decoding: how tokens are chosen.
    """

    media: tuple[Medium, ...]
    turns: tuple[Turn, ...]
    keep: Plan | None
    decoding: Decoding


def read_request(
    messages: Sequence[Message], generation: Mapping[str, Any], given: Mapping[str, Any], own: Decoding, pictures: Path
) -> Wanted:
    """A request as the model takes it.

    Args:
        messages: as lmms-eval's chat tasks give them.
        generation: arguments of a task; what it says of frames and dropout counts where ``given`` has no such rule.
        given: of ``LOOKS``, what the model was started with.
        own: the model's way of choosing tokens.
        pictures: folder to which pictures that are in memory are written.

    Raises:
        ValueError: media that the model does not know, turns that do not alternate, arguments that cannot be.
    """
    look = {
        name: said.get(name)
        for rule in RULES
        for said in [given if any(given.get(name) is not None for name in rule) else generation]
        for name in rule
    }
    sampling = sampling_of(look)
    media, turns = [], list[Turn]()
    for message in messages:
        texts = []
        for part in _parts(message["content"]):
            if part["type"] == "text":
                texts.append(str(part["text"]))
            else:
                media.append(_medium(part, sampling, pictures))
        _add(turns, message["role"], "\n".join(texts))
    if not turns or turns[0].role == "assistant" or turns[-1].role == "assistant":
        raise ValueError(f"a conversation begins and ends with a question, not {[one.role for one in turns]}")
    if not turns[-1].text.strip():
        raise ValueError("the question is empty")
    return Wanted(tuple(media), tuple(turns), plan_of(look), decoding_of(generation, own))


def sampling_of(look: Mapping[str, Any]) -> Sampling:
    """Which frames to take, of arguments as ``vcflash eval`` has them.

    Raises:
        ValueError: arguments that exclude each other, or that no video can meet.
    """
    frames = 512 if look.get("max_frames") is None else look["max_frames"]
    return session.sampling_of(frames, look.get("fps"), look.get("num_frames"), None, None, look.get("policy"))


def plan_of(look: Mapping[str, Any]) -> Plan | None:
    """A dropout plan; in a list of arguments it is quoted, as it has commas. None is the model's own.

    Raises:
        ValueError: not a plan.
    """
    keep = look.get("keep")
    return session.plan_of(None if keep is None else str(keep).strip("'\""), look.get("keep_by"))


def decoding_of(generation: Mapping[str, Any], own: Decoding) -> Decoding:
    """How tokens are chosen. ``until`` is not heeded: the model ends its answers itself.

    lmms-eval sets it to an empty line where a task says nothing, and the reference takes it out.

    Raises:
        ValueError: beams, or values that cannot be.
    """
    if (generation.get("num_beams") or 1) > 1:
        raise ValueError(
            f"num_beams {generation['num_beams']} is not built: this model takes or draws one token at a time"
        )
    warm = float(generation.get("temperature") or 0.0)
    drawn = bool(generation.get("do_sample", warm > 0))
    changes: dict[str, Any] = {
        "max_new_tokens": int(generation.get("max_new_tokens") or NEW_TOKENS),
        "temperature": 0.0,
    }
    if drawn:
        changes |= {"temperature": warm or 1.0, "top_p": float(generation.get("top_p") or 1.0)}
        changes |= {"top_k": int(generation.get("top_k") or 0)}
    return replace(own, **changes)


def _parts(content: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, Sequence):
        yield from content
    else:
        raise ValueError(f"a message's content must be text or a list of parts, not {type(content).__name__}")


def _add(turns: list[Turn], role: str, text: str) -> None:
    """One more turn; of two of one side, and of a system message before a question, it makes one."""
    side: Literal["user", "assistant"] = "assistant" if role == "assistant" else "user"
    if turns and turns[-1].role == side:
        turns[-1] = replace(turns[-1], text=f"{turns[-1].text}\n{text}")
    else:
        turns.append(Turn(side, text))


def _medium(part: Mapping[str, Any], sampling: Sampling, pictures: Path) -> Medium:
    kind, url = part["type"], part.get("url")
    if kind not in ("image", "video"):
        raise ValueError(f"this model sees videos and pictures, no {kind}")
    start, end = part.get("start_time"), part.get("end_time")
    if isinstance(url, Mapping):  # how tasks say a stretch of a video without chat messages of their own
        start, end = url.get("video_start", start), url.get("video_end", end)
        url = url.get("url") or url.get("path") or url.get("video")
    if isinstance(url, Image.Image):
        return Medium(_written(url, pictures), sampling)
    if not isinstance(url, str | Path) or "://" in str(url).removeprefix("file://"):
        raise ValueError(f"a {kind} must be a file, a folder of frames or a picture in memory, not {str(url)[:80]!r}")
    return Medium(Path(str(url).removeprefix("file://")), replace(sampling, start=start, end=end))


def _written(picture: Image.Image, folder: Path) -> Path:
    store = io.BytesIO()
    picture.convert("RGB").save(store, "PNG")
    path = folder / f"{hashlib.sha256(store.getvalue()).hexdigest()}.png"
    path.write_bytes(store.getvalue())
    return path
