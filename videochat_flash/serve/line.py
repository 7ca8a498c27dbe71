"""The server's end of the line to the worker: who waits, who is served, and what happens when the worker dies."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from .limits import Limits
from .metrics import Metrics
from .refuse import Refused
from .sandbox import ROOT

START = (
    "import sys; sys.path[:0] = [] if sys.argv[1] in sys.path else [sys.argv[1]]\n"
    "from videochat_flash.serve.owner import main; main()"
)
MOST_LINE = 1 << 22  # bytes of a message
PAUSES = (0.2, 1, 5, 30)  # seconds before the worker is started again, the last one over and over
SECRETS = ("VCF_API_KEY", "RAY_AUTH_TOKEN")  # in the environment, and none of the worker's business
log = logging.getLogger("vcflash.serve")

Event = dict[str, Any]


class Places(ABC):
    """Who is here, and who is worked on; the others wait. Who works is said by what derives from it.

    Args:
        limits: how many wait.
        metrics: where that is counted.
        most: how many are worked on at once.
    """

    def __init__(self, limits: Limits, metrics: Metrics, most: int) -> None:
        self.limits, self.metrics, self.most = limits, metrics, most
        self.facts: dict[str, Any] = {}  # of the model, once it was loaded
        self.ready = asyncio.Event()
        self.admitted = self.active = 0
        self._slots = asyncio.Semaphore(most)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place, for as long as a request is here.

        Raises:
            Refused: there is none.
        """
        if self.admitted >= self.most + self.limits.queue:
            raise Refused("queue_full")
        self._count(admitted=+1)
        try:
            yield
        finally:
            self._count(admitted=-1)

    @abstractmethod
    def run(self, name: str, ask: Mapping[str, object], deadline: float) -> AsyncGenerator[Event, None]:
        """Have a request answered: ``seen`` of ``total`` frames, pieces, and at last what was done.

        Raises:
            Refused: it is not answered, or not before the deadline (of the event loop's clock).
        """

    @abstractmethod
    async def keep(self) -> None:
        """Start who works, and again whenever one dies, until ``stop``.

        Raises:
            ValueError: the model cannot be loaded the first time.
        """

    @abstractmethod
    async def stop(self) -> None:
        """End them."""

    async def enter(self, deadline: float) -> None:
        """Wait until a request can be worked on.

        Raises:
            Refused: that was not before the deadline (of the event loop's clock).
        """
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
                try:
                    await self.ready.wait()
                except asyncio.CancelledError:
                    self._slots.release()
                    raise
        except TimeoutError:
            raise Refused("too_slow" if self.ready.is_set() else "not_ready") from None
        self._count(active=+1)

    def leave(self) -> None:
        """It is worked on no more."""
        self._slots.release()
        self._count(active=-1)

    def _count(self, admitted: int = 0, active: int = 0) -> None:
        self.admitted, self.active = self.admitted + admitted, self.active + active
        self.metrics.active.set(self.active)
        self.metrics.waiting.set(max(0, self.admitted - self.active))


class Line(Places):
    """One worker, restarted when it dies.

    Args:
        settings: what the worker loads.
        limits: how many it works on, how many wait, how long.
        metrics: where that is counted.
        loud: whether what the worker writes to stderr is shown.
    """

    def __init__(self, settings: Mapping[str, object], limits: Limits, metrics: Metrics, loud: bool = False) -> None:
        super().__init__(limits, metrics, limits.active)
        self.settings, self.loud = settings, loud
        self._calls: dict[str, asyncio.Queue[Event]] = {}  # requests that the worker has, and what it tells of each
        self._writer: asyncio.StreamWriter | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the worker."""
        return self._process.pid if self._process else None

    # -- requests ------------------------------------------------------------------------------------------------------

    async def run(self, name: str, ask: Mapping[str, object], deadline: float) -> AsyncGenerator[Event, None]:
        """By the worker."""
        await self.enter(deadline)
        events = self._calls[name] = asyncio.Queue()
        self._say({"do": "answer", "id": name, **ask})
        ended = False
        try:
            while not ended:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await events.get()
                except TimeoutError:
                    raise Refused("too_slow") from None
                ended = "done" in event or "refused" in event
                if "refused" in event:
                    raise Refused(event["refused"], event.get("field"), event.get("detail", ""))
                yield event
        finally:
            if not ended:  # the place is free when the worker says so
                self._say({"do": "cancel", "id": name})

    def _say(self, message: Mapping[str, object]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    # -- the worker ----------------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """The worker, which is loaded once for each of its lives."""
        turn = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            failed = await self._serve_one()
            if failed and not self.facts:
                raise ValueError(failed)
            if self._stopping.is_set():
                return
            turn = 0 if time.monotonic() - began > 60 else turn
            log.error("the model's process ended; it is started again")
            log.debug("why: %s", failed or "it did not say")
            self.metrics.restarts.inc()
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSES[min(turn, len(PAUSES) - 1)]):
                    await self._stopping.wait()
            turn += 1

    async def stop(self) -> None:
        """End the worker."""
        self._stopping.set()
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, 5)
            except subprocess.TimeoutExpired:
                self._process.kill()

    async def _serve_one(self) -> str:
        """From a worker's birth to its end; returns why it could not load its model."""
        ours, theirs = socket.socketpair()
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, ROOT, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if self.loud else subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=environment,
            start_new_session=True,  # Ctrl-C is for the server
        )
        theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=MOST_LINE)
        self._say({**self.settings, "limits": vars(self.limits)})
        failed = ""
        try:
            with suppress(ConnectionError):
                while (text := await reader.readline()).endswith(b"\n"):  # else it was killed in the middle
                    failed = self._heard(json.loads(text)) or failed
        finally:
            self._lost()
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        return failed

    def _heard(self, event: Event) -> str:
        if "failed" in event:
            return str(event["failed"])
        if "ready" in event:
            self.facts = event["ready"]
            self.ready.set()
            self.metrics.ready.set(1)
            log.info("the model is loaded; %s", self.facts["kept"])
            return ""
        name = event["id"]
        events = self._calls.get(name)
        if events is not None:
            events.put_nowait(event)
            if "done" in event or "refused" in event:
                self._release(name)
        return ""

    def _release(self, name: str) -> None:
        del self._calls[name]
        self.leave()

    def _lost(self) -> None:
        """The worker is gone: so are all that it had."""
        self.ready.clear()
        self.metrics.ready.set(0)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for name, events in list(self._calls.items()):
            events.put_nowait({"id": name, "refused": "worker_lost"})
            self._release(name)
