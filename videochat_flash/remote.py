"""One request to an OpenAI-compatible endpoint: what is sent, tried again, refused, and what a reply must be."""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8
from PIL import Image

JPEG = 90  # quality of pictures that are sent
ASKED = {400, 413, 415, 422, 451}  # what is wrong with a request, not with the key, the address or the endpoint
AGAIN = {408, 409, 425, 429}  # and whatever is 500 or above: worth another try
LONGEST = 120.0  # seconds that are waited between two tries, whatever an endpoint asks for
KEY = "OPENAI_API_KEY"  # in the environment, where the endpoint wants one


@dataclass(frozen=True)
class Server:
    """How an endpoint is reached.

    Attributes:
        url: up to and with ``/v1``.
        timeout: seconds without a word from it.
        retries: further tries after a failure that may pass.
        wait: seconds before the first of them, at most; before each next one twice as many, unless the endpoint says
            how long it wants to be left alone (``Retry-After``). Never more than LONGEST.
    """

    url: str
    timeout: float = 120.0
    retries: int = 3
    wait: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"--endpoint {self.url!r} is not as http://host:port/v1")
        if not 0 < self.timeout < math.inf or self.retries < 0:
            raise ValueError(f"--timeout must be above 0 and --retries at least 0, not {self.timeout}, {self.retries}")


@dataclass(frozen=True)
class Reply:
    """A chat completion: its text, why it ended, and how many tokens the prompt and the text had."""

    text: str
    finish: str
    prompt_tokens: int
    tokens: int


class Unanswered(Exception):
    """A request that failed: the endpoint cannot be reached, refuses, or sends something else than an answer.

    ``response`` is what it sent, if it sent something.
    """

    def __init__(self, told: str, response: bytes = b"") -> None:
        super().__init__(told)
        self.response = response


class Refused(Unanswered):
    """The endpoint will not answer this request, however often it is asked."""


def post(server: Server, body: bytes, turn: Callable[[], None] = lambda: None) -> bytes:
    """POST a chat completion, with retries; returns the bytes that came.

    Args:
        server: where to.
        body: JSON.
        turn: called before each try; returns when it may be made.

    Raises:
        Refused: what the request asks for is not given.
        Unanswered: it still fails after the last retry.
    """
    headers, key = {"Content-Type": "application/json"}, os.environ.get(KEY, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):  # the library's error would show it
        raise ValueError(f"{KEY} holds characters that no key has")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    url = f"{server.url.rstrip('/')}/chat/completions"
    for tried in range(server.retries + 1):
        sent, asked = b"", 0.0
        turn()
        try:
            request = urllib.request.Request(url, body, headers)
            with urllib.request.urlopen(request, timeout=server.timeout) as reply:
                return bytes(reply.read())
        except urllib.error.HTTPError as error:
            sent, asked = _body(error), retry_after(error.headers)
            told = f"HTTP {error.code}: {_reason(error, sent)}"
            if error.code in ASKED:
                raise Refused(told, sent) from None
            if error.code < 500 and error.code not in AGAIN:
                raise Unanswered(told, sent) from None
        except TimeoutError:
            told = f"no answer within {server.timeout:g} s"
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            late = isinstance(getattr(error, "reason", None), TimeoutError)
            told = f"no answer within {server.timeout:g} s" if late else f"no connection: {error}"
        if tried < server.retries:
            time.sleep(pause(server.wait * 2**tried, asked))
    raise Unanswered(f"{told}, {server.retries + 1} times", sent)


def retry_after(headers: Message) -> float:
    """Seconds for which an endpoint wants to be left alone, as a number or as the time when they end; 0 without."""
    told = (headers.get("Retry-After") or "").strip()
    if told.isdecimal():
        return float(told)
    try:
        when = parsedate_to_datetime(told)
    except ValueError:
        return 0.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def pause(wait: float, asked: float) -> float:
    """Seconds until the next try: what the endpoint asked for, and from half of ``wait`` to all of it, so that those
    who failed together do not come back together."""
    return min(LONGEST, asked + wait * random.SystemRandom().uniform(0.5, 1.0))


def read_reply(data: bytes) -> Reply:
    """What a chat completion says.

    Raises:
        Unanswered: it is none.
    """
    try:
        value = json.loads(data)
        choice = value["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason") or ""
        usage = value.get("usage") or {}
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError):
        raise Unanswered(f"the endpoint sent no chat completion but {data[:80]!r}", data) from None
    if not isinstance(text, str | None):
        raise Unanswered(f"the endpoint's answer is no text but {str(text)[:80]!r}", data)
    whole = (text or "").encode("utf-8", "replace").decode()  # half a character could not be written down
    return Reply(whole, str(finish), *counts)


def picture(frame: UInt8[np.ndarray, "h w 3"]) -> dict[str, Any]:
    """A picture as a part of a message."""
    store = io.BytesIO()
    Image.fromarray(frame).save(store, "JPEG", quality=JPEG)
    url = f"data:image/jpeg;base64,{base64.b64encode(store.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def film(mp4: bytes) -> dict[str, Any]:
    """An mp4 as a part of a message."""
    data = base64.b64encode(mp4).decode()
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}


def _body(error: urllib.error.HTTPError) -> bytes:
    """What came with a refusal, as far as it came."""
    try:
        return bytes(error.read())
    except http.client.IncompleteRead as cut:
        return bytes(cut.partial)
    except (OSError, http.client.HTTPException):
        return b""


def _reason(error: urllib.error.HTTPError, sent: bytes) -> str:
    """What a server says of a refusal, in short."""
    try:
        value = json.loads(sent)["error"]
        said = value["message"] if isinstance(value, dict) else value
    except (ValueError, KeyError, TypeError):
        said = None
    return str(error.reason if said is None else said)[:200]
