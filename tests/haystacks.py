"""Small suites, models that answer as they are told, and an endpoint that behaves as badly as real ones do."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from videochat_flash.grade import LETTERS
from videochat_flash.niah import endpoint
from videochat_flash.niah.ask import Said
from videochat_flash.niah.build import build
from videochat_flash.niah.film import Scenery
from videochat_flash.niah.items import Needle
from videochat_flash.niah.suite import Setting, Suite, Trial
from videochat_flash.remote import Unanswered
from videochat_flash.video import SamplePlan, decode, probe

SIZE = (96, 64)
CODEC = 9.0  # levels by which a codec changes a picture at most, on average
LITTLE = Setting(lengths=(16, 32), depths=(0.0, 0.5, 1.0), items=3, controls=2, size=SIZE, way="letters")


def small(folder: Path, **changes: Any) -> Suite:
    """A small suite."""
    values = {**vars(LITTLE), **changes}
    return build(folder, Setting(**values), lambda *_: None)


def truth(trial: Trial) -> str:
    """The right answer as it is to be said."""
    return LETTERS[trial.answer] if trial.lettered else trial.options[trial.answer]


def wrong(trial: Trial) -> str:
    """A wrong one."""
    other = (trial.answer + 1) % len(trial.options)
    return LETTERS[other] if trial.lettered else trial.options[other]


@dataclass
class Told:
    """An asker that says what it is told; what returns None fails."""

    says: Callable[[Trial], str | None]
    name: str = "told"
    asked: list[str] = field(default_factory=list)
    facts: Mapping[str, object] = field(default_factory=lambda: {"window": 24, "trained": 20})
    failure: type[Unanswered] = Unanswered

    @property
    def settings(self) -> Mapping[str, object]:
        return {"model": self.name, "transport": "told", "dtype": "none"}

    def __call__(self, trial: Trial) -> Said:
        self.asked.append(trial.id)
        text = self.says(trial)
        if text is None:
            raise self.failure("it would not say")
        return Said(text, "stop", 10)


@dataclass
class Request:
    """What an endpoint was sent."""

    body: dict[str, Any]
    key: str
    number: int

    @property
    def words(self) -> str:
        return str(self.body["messages"][0]["content"][-1]["text"])

    def frames(self) -> list[np.ndarray]:
        """What is shown, decoded."""
        shown = []
        for part in self.body["messages"][0]["content"]:
            data = base64.b64decode(part[part["type"]]["url"].partition(",")[2]) if part["type"] != "text" else b""
            if part["type"] == "image_url":
                shown.append(np.asarray(Image.open(io.BytesIO(data))))
            elif part["type"] == "video_url":
                shown += unpacked(data)
        return shown


def unpacked(data: bytes) -> list[np.ndarray]:
    """The frames of an mp4."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "film.mp4"
        path.write_bytes(data)
        info = probe(path)
        plan = SamplePlan(np.arange(info.frames), info.seconds, (0.0, info.duration), info.duration)
        return [pixels for chunk in decode(info, plan, None) for pixels in chunk.pixels]


Behaviour = Callable[[Request], str | tuple[int, bytes] | tuple[int, bytes, str]]


@dataclass
class Server:
    """A running endpoint."""

    url: str
    requests: list[Request]


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Server]:
    """An OpenAI-compatible endpoint on this machine; a text is an answer, (status, body) is sent as it is, and
    (status, body, seconds) with Retry-After."""
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = Request(body, self.headers.get("Authorization", ""), len(requests))
            requests.append(request)
            assert self.path == "/v1/chat/completions"
            said = behaviour(request)
            choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            status, data, *later = (
                said if isinstance(said, tuple) else (200, json.dumps({"choices": [choice]}).encode())
            )
            try:
                self.send_response(status)
                for seconds in later:
                    self.send_header("Retry-After", seconds)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # nobody waits any more

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_address[1]}/v1", requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Eyes:
    """Answers like a model that sees everything it is sent, and knows the suite: a perfect oracle.

    Attributes:
        suite: whose answers it knows.
        keeps: which of the frames that it is sent reach it.
    """

    suite: Suite
    keeps: Callable[[int], bool] = lambda _: True

    def __call__(self, request: Request) -> str:
        shown = [frame.astype(int) for i, frame in enumerate(request.frames()) if self.keeps(i)]
        if request.words == endpoint.ASK_CODE:
            told = [(float(np.abs(image - one).mean()), code) for code, image in self.codes() for one in shown]
            return min(told)[1] if told and min(told)[0] < CODEC else "Nothing."
        trial = next(one for one in self.suite.trials if one.prompt == request.words)
        return truth(trial) if shown else wrong(trial)

    def codes(self) -> Iterator[tuple[str, np.ndarray]]:
        stack = self.suite.haystack(0)
        for cut, _ in endpoint.code_films(self.suite):
            code = endpoint.code_at(self.suite.setting.seed, cut)
            scenery = Scenery(stack, {"code": Needle(code=code)})
            yield code, scenery.frame(("code", 0, cut - 1)).astype(int)


def near(image: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures are the same but for what a codec does."""
    return float(np.abs(image - other).mean()) < CODEC


def slowly(seconds: float, behaviour: Behaviour) -> Behaviour:
    """The same, later."""

    def late(request: Request) -> str | tuple[int, bytes] | tuple[int, bytes, str]:
        time.sleep(seconds)
        return behaviour(request)

    return late
