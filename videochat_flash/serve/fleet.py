"""Several workers on a Ray cluster: replicas of Ray Serve, each with a line to a worker of its own.

The server in front stays one, with its guard, its queue and its store: no route, key or limit differs from a server
with a single worker, and what Ray listens on answers no client. Replicas read the videos and share the Sights of the
store, which all of their machines must see under the same path.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

from ray import exceptions, serve
from ray.serve.exceptions import RayServeException

from .limits import Limits
from .line import Event, Line, Places
from .metrics import Metrics
from .refuse import Refused

NAME = "vcflash"  # of the application; who starts another one on the same cluster takes its place
LOOK = 2.0  # seconds after which it is looked again how many replicas run
PATIENCE = 10  # seconds that running requests have when replicas are stopped
log = logging.getLogger("vcflash.serve")


class Replica:
    """A line to a worker, in a process of Ray.

    Args:
        settings: what the worker loads.
        limits: of each replica.
        loud: whether what the worker writes to stderr is shown.
    """

    async def __init__(self, settings: Mapping[str, object], limits: Limits, loud: bool) -> None:  # type: ignore[misc]
        self.line = Line(settings, limits, Metrics(), loud)
        self.keeping = asyncio.ensure_future(self.line.keep())
        ready = asyncio.ensure_future(self.line.ready.wait())
        await asyncio.wait({self.keeping, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()

    async def about(self) -> dict[str, Any]:
        """Of the model; or why it could not be loaded, which to Ray would be a reason to try again and again."""
        try:
            if self.keeping.done():
                self.keeping.result()
        except ValueError as error:
            return {"failed": str(error)}
        return self.line.facts

    async def answer(self, name: str, ask: Mapping[str, object], seconds: float) -> AsyncGenerator[Event, None]:
        """As the line tells it; a refusal is told, too."""
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async for event in self.line.run(name, ask, deadline):
                yield event
        except Refused as refused:
            yield {"refused": refused.code, "field": refused.field, "detail": refused.detail}


class Fleet(Places):
    """All replicas. Ray starts those that die again.

    Args:
        settings: what their workers load.
        limits: ``active`` is of each, ``queue`` of all.
        metrics: where requests and running replicas are counted.
        loud: whether what they write to stderr is shown.
        replicas: how many there are.
        cpus: of each.
        gpus: of each.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        limits: Limits,
        metrics: Metrics,
        loud: bool,
        *,
        replicas: int,
        cpus: int,
        gpus: int,
    ) -> None:
        super().__init__(limits, metrics, limits.active * replicas)
        self.settings, self.loud, self.replicas, self.cpus, self.gpus = settings, loud, replicas, cpus, gpus
        self._handle: Any = None  # Ray's handles have no type
        logging.getLogger("ray.serve").setLevel(logging.DEBUG if loud else logging.ERROR)
        self._stopping = asyncio.Event()

    async def run(self, name: str, ask: Mapping[str, object], deadline: float) -> AsyncGenerator[Event, None]:
        """By one of the replicas that have least to do."""
        await self.enter(deadline)
        try:
            seconds = deadline - asyncio.get_running_loop().time()
            events = self._handle.answer.options(stream=True).remote(name, dict(ask), seconds)
            try:
                ended = False
                while not ended:
                    event = await self._next(events, deadline)
                    ended = "done" in event
                    yield event
            finally:
                events.cancel()
        finally:
            self.leave()

    async def _next(self, events: Any, deadline: float) -> Event:
        try:
            async with asyncio.timeout_at(deadline):
                event: Event = await anext(events)
        except TimeoutError:
            raise Refused("too_slow") from None
        except (StopAsyncIteration, exceptions.RayError, RayServeException) as error:
            raise Refused("worker_lost", detail=f"{type(error).__name__}: {error}") from None
        if "refused" in event:
            raise Refused(event["refused"], event["field"], event["detail"])
        return event

    # -- the replicas --------------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Ray starts those that die again; here it is only looked how many run."""
        try:
            self._handle = await asyncio.to_thread(self._deploy)
        except (RuntimeError, exceptions.RayError, RayServeException) as error:
            if self._stopping.is_set():
                return
            raise ValueError(f"the replicas cannot be started: {str(error).splitlines()[0]}") from None
        facts = await self._handle.about.remote()
        if "failed" in facts:
            raise ValueError(facts["failed"])
        self.facts = facts
        log.info("the model is loaded; %s", self.facts["kept"])
        before = self.replicas
        while not self._stopping.is_set():
            running = await asyncio.to_thread(_running)
            self.metrics.ready.set(running)
            self.metrics.restarts.inc(max(0, before - running))
            if running < before:
                log.error("%d of %d replicas run; Ray starts the others again", running, self.replicas)
            self.ready.set() if running else self.ready.clear()
            before = running
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._stopping.wait()

    async def stop(self) -> None:
        """All replicas end, after what they answer."""
        self._stopping.set()
        with suppress(exceptions.RayError, RayServeException):  # there may be no cluster any more
            await asyncio.to_thread(serve.delete, NAME)

    def _deploy(self) -> Any:
        quiet = {"enable_access_log": False, "log_level": "DEBUG" if self.loud else "WARNING"}
        serve.start(proxy_location="Disabled", logging_config=quiet)  # no client talks to Ray
        replica = serve.deployment(
            num_replicas=self.replicas,
            max_ongoing_requests=self.limits.active + 1,  # one more asks about the model
            ray_actor_options={"num_cpus": self.cpus, "num_gpus": self.gpus},
            graceful_shutdown_timeout_s=PATIENCE,
            logging_config=quiet,
        )(Replica)
        app = replica.bind(dict(self.settings), self.limits, self.loud)
        return serve.run(app, name=NAME, route_prefix=None, logging_config=quiet)


def _running() -> int:
    """Replicas that run; none while nobody can be asked."""
    try:
        app = serve.status().applications.get(NAME)
    except (exceptions.RayError, RayServeException):
        return 0
    states = [pair for one in app.deployments.values() for pair in one.replica_states.items()] if app else []
    return sum(count for state, count in states if state == "RUNNING")
