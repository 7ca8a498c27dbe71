"""What an endpoint said: each thing is asked once, every response is kept as it came, and requests keep to a pace."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..journal import appending, canonical, digest
from ..remote import Reply, Server, Unanswered, post, read_reply
from .settings import Setting
from .steps import FAILED, HEAD, KEY, Index

FOLDER = "responses"
MOST_WRITERS = 1000
MOST_SAID = 10_000  # answers that are remembered while a step runs; the files are read when it begins


class Pace:
    """Lets so many requests a minute pass, evenly; 0 lets all pass."""

    def __init__(self, per_minute: float) -> None:
        self.between = 60 / per_minute if per_minute else 0.0
        self.next = 0.0
        self.lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        if not self.between:
            return
        with self.lock:
            turn = max(self.next, time.monotonic())
            self.next = turn + self.between
        time.sleep(max(0.0, turn - time.monotonic()))


class Answers:
    """Asks an endpoint, or looks up what it said before. May be used by several threads.

    Every process that asks has a file of its own in the build's folder; all are read. They share the pace out.

    Args:
        setting: of the build.
    """

    def __init__(self, setting: Setting) -> None:
        endpoint, where = setting.endpoint, Path(setting.out) / FOLDER
        self.server = Server(endpoint.url, endpoint.timeout, endpoint.retries)
        self.model, self.pace = endpoint.model, Pace(endpoint.per_minute / setting.workers)
        self.stack, self.lock = ExitStack(), threading.Lock()
        self.said: OrderedDict[str, Reply] = OrderedDict()  # to prompts that show nothing: films share them
        for number in range(MOST_WRITERS):
            try:
                self.log = self.stack.enter_context(appending(where / f"{number:03d}.jsonl", "no file is free"))
                break
            except ValueError:
                if number == MOST_WRITERS - 1:
                    raise
        self.known = [(path, Index(path)) for path in sorted(where.glob("*.jsonl"))]

    def ask(self, what: Mapping[str, Any], shown: Callable[[], list[dict[str, Any]]], words: str, tokens: int) -> Reply:
        """The reply to a prompt.

        Args:
            what: names of what is shown; with model, prompt and tokens all that the reply depends on.
            shown: makes the parts of the message that show it; only called if it has not been asked before.
            words: the prompt.
            tokens: of the reply, at most.

        Raises:
            Refused: the endpoint will not answer this.
            Unanswered: it cannot be reached, or sent no chat completion.
        """
        asked = {"what": dict(what), "model": self.model, "prompt": words, "tokens": tokens}
        key = digest(asked)[:KEY]
        with self.lock:
            said = self.said.get(key)
        if said is not None:
            return said
        held = self._held(key)
        if held is not None:
            return read_reply(held.encode())
        pictures = shown()
        content = [*pictures, {"type": "text", "text": words}]
        body = {"model": self.model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens}
        began = time.monotonic()
        failed, data = False, b""
        try:
            data = post(self.server, canonical({**body, "temperature": 0}).encode(), self.pace.wait)
            reply = read_reply(data)
            if not pictures:
                self._keep(key, reply)
            return reply
        except Unanswered as error:  # refusals, and what is no chat completion, are kept as well, but not as answers
            failed, data = True, error.response
            raise
        finally:
            if data:
                took = round(time.monotonic() - began, 3)
                told = canonical({"asked": asked, "response": data.decode(errors="replace"), "seconds": took})
                with self.lock:
                    self.log.line(f"{HEAD}{key}{FAILED}{str(failed).lower()},{told[1:]}")

    def close(self) -> None:
        """Give the file free."""
        self.stack.close()

    def _keep(self, key: str, reply: Reply) -> None:
        with self.lock:
            self.said[key] = reply
            if len(self.said) > MOST_SAID:
                self.said.popitem(last=False)

    def _held(self, key: str) -> str | None:
        for path, index in self.known:
            place = index.find(key)
            if place is not None and place >= 0:
                with path.open("rb") as file:
                    file.seek(place)
                    return str(json.loads(file.readline())["response"])
        return None


def prompt(name: str) -> str:
    """The text of a prompt file."""
    return (files("videochat_flash.longvid") / "prompts" / f"{name}.txt").read_text(encoding="utf-8")


def prompt_mark(name: str) -> str:
    """What tells one version of a prompt from another, in provenance."""
    return f"{name}@{digest(prompt(name))[:8]}"
