"""Has an untrusted video read by a process of its own, and believes nothing that it says without looking."""

from __future__ import annotations

import json
import math
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..video import Frames, Sampling
from .decoder import BATCH, CPUS
from .limits import Limits
from .refuse import REASONS, Refused

AHEAD = 4  # batches that are read before they are wanted
MOST_JSON = 1 << 16
ROOT = str(Path(__file__).resolve().parents[2])
START = (  # isolated: no environment, no current folder, no user's packages
    "import sys; sys.path[:0] = [] if sys.argv[1] in sys.path else [sys.argv[1]]\n"
    "from videochat_flash.serve.decoder import main; main()"
)
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Head:
    """What there is to see."""

    total: int
    duration: float
    source: str


class Reading:
    """A video that is being read. Frames come in batches of whole clips, a picture as one frame.

    Args:
        path: a file, whose suffix tells pictures from videos.
        kind: which of both it is to be.
        sampling: which frames; None for a picture.
        size: side of the square frames, in pixels.
        limits: memory, time, and what is too large.
        wake: called, from another thread, when there is something to take.
    """

    def __init__(
        self,
        path: Path,
        kind: Literal["video", "image"],
        sampling: Sampling | None,
        size: int,
        limits: Limits,
        wake: Callable[[], object],
    ) -> None:
        self.head: Head | None = None
        self.seconds = 0.0  # spent waiting for the process
        self._size, self._limits, self._wake = size, limits, wake
        self._most = 1 if sampling is None else sampling.max_frames
        self._found: queue.Queue[Frames | Refused | None] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", START, ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what ffmpeg says of a file
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
        named = ("decode_bytes", "video_seconds", "video_frames", "frame_pixels", "pixels")
        caps = {name: getattr(limits, name) for name in named}
        ask = {"path": str(path), "kind": kind, "sampling": asdict(sampling) if sampling else None, "size": size}
        ask["limits"] = caps | {"cpu_seconds": CPUS * limits.decode_deadline_most}
        self._ask = json.dumps(ask).encode()
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ready(self) -> bool:
        """Whether ``take`` returns at once."""
        return not self._found.empty()

    def take(self) -> Frames | None:
        """The next frames; None behind the last.

        Raises:
            Refused: the video cannot be read, or is too large, or takes too long.
        """
        found = self._found.get()
        if isinstance(found, Refused):
            raise found
        return found

    def close(self) -> None:
        """End the process, wherever it is."""
        self._closed.set()
        self._process.kill()
        self._thread.join()

    # -- in a thread of its own ------------------------------------------------------------------------------------

    def _run(self) -> None:
        last: Refused | None = Refused("undecodable", detail="whoever waited for the decoder failed")
        try:
            with self._process:
                try:
                    self._read()
                    last = None
                except (BrokenPipeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                    last = Refused("undecodable", detail=f"the decoder said nothing sensible: {error}")
                except Refused as refused:
                    last = refused
                finally:
                    self._process.kill()
        finally:
            self._put(last)  # there is always an end, whatever happens

    def _read(self) -> None:
        if self._process.stdin is None:
            raise ValueError("no pipe to the decoder")
        self._process.stdin.write(self._ask)
        self._process.stdin.close()
        done = 0
        while (told := self._message()) is not None:
            if "refused" in told:
                code = told["refused"]
                raise Refused(code if code in REASONS else "undecodable", detail=told.get("detail", ""))
            if self.head is None:
                self.head = self._checked(told)
                continue
            done += int(told["frames"])
            if not 0 < told["frames"] <= BATCH or done > self.head.total:
                raise ValueError(f"{done} frames of {self.head.total}")
            self._put(self._frames(int(told["frames"])))
        if self.head is None or done != self.head.total:
            raise ValueError(f"{done} frames")

    def _checked(self, told: dict[str, Any]) -> Head:
        head = Head(int(told["total"]), float(told["duration"]), str(told["source"])[:64])
        if not (0 < head.total <= self._most and math.isfinite(head.duration) and head.duration >= 0):
            raise ValueError(f"the decoder tells of {head}")
        return head

    def _message(self) -> dict[str, Any] | None:
        size = int.from_bytes(self._bytes(4), "big")
        if size > MOST_JSON:
            raise ValueError(f"{size} bytes of JSON")
        told = json.loads(self._bytes(size))
        if not isinstance(told, dict):
            raise ValueError("no object")
        return None if told.get("end") is True else told

    def _frames(self, count: int) -> Frames:
        seconds = np.frombuffer(self._bytes(count * 8), "<f8")
        pixels = np.frombuffer(self._bytes(count * self._size**2 * 3), np.uint8)
        if self.head is None or not np.isfinite(seconds).all():
            raise ValueError("frames without times")
        return Frames(pixels.reshape(count, self._size, self._size, 3), seconds, self.head.duration)

    def _bytes(self, count: int) -> bytes:
        """So many bytes of what the process says.

        Raises:
            Refused: it ended or is too slow.
        """
        if self._process.stdout is None:
            raise ValueError("no pipe from the decoder")
        fd, parts, left = self._process.stdout.fileno(), [], count
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while left:
            began = time.monotonic()
            allowed = self._limits.decode_deadline(self.head.duration if self.head else 0.0) - self.seconds
            found = poll.poll(1000 * max(0.0, min(self._limits.decode_wait if self.head else allowed, allowed)))
            self.seconds += time.monotonic() - began
            if not found:
                raise Refused("undecodable", detail=f"no frame within {self.seconds:.1f} s")
            part = os.read(fd, min(left, 1 << 20))
            if not part:
                raise Refused("undecodable", detail=f"the decoder ended with code {self._process.poll()}")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _put(self, found: Frames | Refused | None) -> None:
        while not self._closed.is_set():
            try:
                self._found.put(found, timeout=0.1)
            except queue.Full:
                continue
            self._wake()
            return
