"""What a request may cost. The server sets it; a request may ask for less, never for more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Limits:
    """Every cap, each with its unit."""

    body_bytes: int = 64 * MIB  # of a request without an upload; videos inside it (data:) are held in memory
    upload_bytes: int = 4 * GIB  # of an upload or a fetched video
    turns: int = 64  # messages of a conversation
    parts: int = 16  # of a message
    media: int = 4  # videos and pictures of a request; they share the frames
    question_characters: int = 20_000  # of one message
    text_characters: int = 131_072  # of all messages
    frames: int = 1_024  # that are seen, of all videos of a request
    video_seconds: int = 4 * 3600
    video_frames: int = 1_000_000  # that a file holds, seen or not
    frame_pixels: int = 4096 * 4096  # of one frame, as stored
    pixels: int = 1 << 34  # of all frames that are seen of one video, as stored
    output_tokens: int = 4_096
    active: int = 8  # requests that are seen or answered in turns
    queue: int = 16  # requests that wait for that
    seconds: int = 600  # from the first byte of a request to the last of its answer, waiting included
    body_wait: int = 30  # seconds without a byte of a body
    upload_seconds: int = 3600  # of an upload
    fetch_seconds: int = 300  # of one fetched video
    fetch_wait: int = 10  # seconds without a byte of it; to connect, half of that
    decode_seconds: int = 60  # of reading a video, on top of a quarter of its length
    decode_wait: int = 20  # seconds without a frame
    decode_bytes: int = 2 * GIB  # address space of a process that reads a video
    upload_store_bytes: int = 16 * GIB  # uploads that are kept
    sight_store_bytes: int = 8 * GIB  # Sights that are kept
    prefix_bytes: int | None = None  # beginnings of prompts kept in memory; None: by the model and what is free

    def __post_init__(self) -> None:
        for one in fields(self):
            least = 0 if one.name in ("queue", "prefix_bytes") else 4 if one.name == "frames" else 1
            value = getattr(self, one.name)
            if value is not None and value < least:
                raise ValueError(f"limit {one.name} must be at least {least}, not {getattr(self, one.name)}")

    def decode_deadline(self, seconds: float) -> float:
        """Seconds that reading a video of so many seconds may take."""
        return self.decode_seconds + seconds / 4

    @property
    def decode_deadline_most(self) -> int:
        """Of the longest video that is allowed."""
        return math.ceil(self.decode_deadline(self.video_seconds))


def with_changes(changes: Sequence[str]) -> Limits:
    """The limits with changes, each as ``frames=2048`` or ``body_bytes=8M`` (K, M, G: powers of 1,024).

    Raises:
        ValueError: no such limit, or no number.
    """
    names = [one.name for one in fields(Limits)]
    given: dict[str, int] = {}
    for change in changes:
        name, _, value = change.partition("=")
        name = name.strip().replace("-", "_")
        if name not in names:
            raise ValueError(f"--limit {change}: there is no such limit, only {', '.join(names)}")
        given[name] = _number(change, value.strip())
    return Limits(**given)


def _number(change: str, value: str) -> int:
    unit = {"K": 1 << 10, "M": MIB, "G": GIB}.get(value[-1:].upper(), 1)
    digits = value if unit == 1 else value[:-1]
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"--limit {change}: give a whole number, as frames=2048 or body_bytes=8M")
    return int(digits) * unit
