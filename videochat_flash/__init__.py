"""VideoChat-Flash (arXiv 2501.00574): ask questions about videos of seconds to hours."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chat import Reply, Stopwatch, VideoChatFlash
    from .config import Config, Drop, parse_plan
    from .generate import Decoding
    from .prompt import Turn
    from .sight import Sight
    from .video import Frames, Sampling, VideoError

__version__ = "0.1.0"

_HOME = {
    "VideoChatFlash": "chat",
    "Reply": "chat",
    "Stopwatch": "chat",
    "Config": "config",
    "Drop": "config",
    "parse_plan": "config",
    "Decoding": "generate",
    "Turn": "prompt",
    "Sight": "sight",
    "Frames": "video",
    "Sampling": "video",
    "VideoError": "video",
}
__all__ = [
    "Config",
    "Decoding",
    "Drop",
    "Frames",
    "Reply",
    "Sampling",
    "Sight",
    "Stopwatch",
    "Turn",
    "VideoChatFlash",
    "VideoError",
    "parse_plan",
]


def __getattr__(name: str) -> Any:
    """Public names are loaded when first used, so that ``vcflash --help`` needs no torch."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
