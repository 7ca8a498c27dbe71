"""The routes: what OpenAI's clients call, and what those who run the server look at."""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from .guard import refusal
from .limits import Limits
from .line import Event, Places
from .media import Finder
from .metrics import Metrics
from .page import add_page
from .refuse import Refused
from .samples import Samples
from .uploads import Uploads
from .wire import Ask, objects, understand

GRACE = 10.0  # seconds behind an answer's deadline, in which a client may still read how it ended
FORM = {  # of an upload
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string"}},
    "required": ["file"],
}


@dataclass
class House:
    """What the routes work with."""

    limits: Limits
    line: Places
    uploads: Uploads
    finder: Finder
    metrics: Metrics
    models: Sequence[str]
    scratch: Path  # where requests have their folders
    sights: Path
    samples: Samples
    began: int = field(default_factory=lambda: int(time.time()))


class App(FastAPI):
    """One that tells machines of the objects of a request, too."""

    def openapi(self) -> dict[str, Any]:
        """All routes; the objects stand where every reference looks for them."""
        told = super().openapi()
        told.setdefault("components", {}).setdefault("schemas", {}).update(objects())
        return told


def make_app(house: House) -> FastAPI:
    """The application; it wants a Guard around it."""
    app = App(title="videochat-flash", docs_url=None, redoc_url=None)  # their pages load scripts from elsewhere
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(OSError, _disk)
    app.add_exception_handler(ClientDisconnect, _went)
    app.add_exception_handler(Exception, _broken)
    _add_chat(app, house)
    _add_files(app, house)
    _add_health(app, house)
    add_page(app, house.samples)
    return app


# -- routes ------------------------------------------------------------------------------------------------------------


def _body(kind: str, schema: Mapping[str, object]) -> dict[str, object]:
    """What is told of a body that a route reads itself."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


def _add_chat(app: FastAPI, house: House) -> None:
    told = _body("application/json", {"$ref": "#/components/schemas/ChatRequest"})

    @app.post("/v1/chat/completions", openapi_extra=told)
    async def chat(request: Request) -> Response:
        """Answer the last message about the videos and pictures of all."""
        async with AsyncExitStack() as stack:
            stack.enter_context(house.line.admit())
            body = request.stream()  # what comes of it may be large: nothing here holds it while it is answered
            ask = understand(b"".join([chunk async for chunk in body]), house.limits, house.models)
            answer = _answer(house, request, ask, stack)
            del ask
            return await _unless_gone(request, answer)

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        """The model that is served."""
        return {"object": "list", "data": [_about(house, name) for name in house.models]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, object]:
        """One of them."""
        if name not in house.models:
            raise Refused("no_model", "model")
        return _about(house, name)


def _about(house: House, name: str) -> dict[str, object]:
    told = {"id": name, "object": "model", "created": house.began, "owned_by": "videochat-flash"}
    return {**told, **house.line.facts}


def _add_files(app: FastAPI, house: House) -> None:
    @app.post("/v1/files", openapi_extra=_body("multipart/form-data", FORM))
    async def upload(request: Request) -> dict[str, object]:
        """Keep a video, to be referred to by its id."""
        with house.line.admit():
            kind, tenant = request.headers.get("content-type", ""), request.state.tenant
            return (await house.uploads.receive(request.stream(), kind, tenant)).told()

    @app.get("/v1/files")
    async def files(request: Request) -> dict[str, object]:
        """Your uploads."""
        found = [upload.told() for upload in house.uploads.of(request.state.tenant)]
        return {"object": "list", "data": found, "has_more": False}

    @app.get("/v1/files/{name}")
    async def file(name: str, request: Request) -> dict[str, object]:
        """One of them."""
        found = house.uploads.find(name, request.state.tenant)
        if found is None:
            raise Refused("no_file")
        return found.told()

    @app.delete("/v1/files/{name}")
    async def delete(name: str, request: Request) -> dict[str, object]:
        """Forget an upload."""
        if not house.uploads.drop(name, request.state.tenant):
            raise Refused("no_file")
        return {"id": name, "object": "file", "deleted": True}


def _add_health(app: FastAPI, house: House) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether the model is loaded."""
        if not house.line.ready.is_set():
            raise Refused("not_ready")
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(house.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


# -- one question ------------------------------------------------------------------------------------------------------


async def _answer(house: House, request: Request, ask: Ask, stack: AsyncExitStack) -> Response:
    """``stack`` holds what the request holds: a stream takes it along, and whatever else ends lets it go."""
    name, deadline = request.state.id, request.state.began + house.limits.seconds
    if not house.line.ready.is_set() and not house.line.facts:
        raise Refused("not_ready")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=house.scratch)))
    made_by, tenant = house.line.facts["made_by"], request.state.tenant
    wanted, ask = ask.media, replace(ask, media=())
    media = await house.finder.find(wanted, folder, tenant, made_by, house.sights, deadline)
    del wanted
    told: dict[str, object] = {"media": media, "turns": ask.turns, "decoding": ask.decoding, "stop": ask.stop}
    told |= {"keep": ask.keep, "evidence": ask.evidence}
    events = house.line.run(name, told, deadline)
    stack.push_async_callback(events.aclose)
    answer = Answer(house, ask, name, len(media))
    if ask.stream:
        ahead = [] if ask.progress else [await _first(events, answer)]
        return Stream(_streamed(answer, ahead, events, request), stack.pop_all(), deadline + GRACE)
    async for event in events:
        answer.hear(event)
    return JSONResponse(answer.whole())


async def _first(events: AsyncIterator[Event], answer: Answer) -> Event:
    """The first event of an answer: until then a refusal can have a status of its own."""
    async for event in events:
        if "seen" not in event:
            return event
        answer.hear(event)
    raise Refused("internal")


async def _streamed(
    answer: Answer, ahead: Sequence[Event], events: AsyncIterator[Event], request: Request
) -> AsyncIterator[str]:
    try:
        yield answer.chunk({"role": "assistant", "content": ""})
        for event in ahead:
            for line in answer.lines(event):
                yield line
        async for event in events:
            for line in answer.lines(event):
                yield line
    except Refused as refused:
        request.state.code, request.state.detail = refused.code, refused.detail
        yield f"data: {json.dumps(refused.body(answer.name))}\n\n"
    yield "data: [DONE]\n\n"


class Stream(StreamingResponse):
    """Server-sent events, and what is to be let go when they end or the client is gone, begun or not.

    Args:
        deadline: of the event loop's clock, at which a client that does not read is left.
    """

    def __init__(self, lines: AsyncIterator[str], held: AsyncExitStack, deadline: float) -> None:
        super().__init__(lines, media_type="text/event-stream")
        self.held, self.deadline = held, deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with self.held:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self.deadline):
                    await super().__call__(scope, receive, send)


class Answer:
    """An answer as it comes in, in the words of OpenAI's API."""

    def __init__(self, house: House, ask: Ask, name: str, media: int) -> None:
        self.house, self.ask, self.name, self.media = house, ask, name, media
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self.text = ""
        self.done: Mapping[str, Any] = {}

    def hear(self, event: Event) -> None:
        """Keep what is told."""
        if "piece" in event:
            self.text += event["piece"]
        elif "done" in event:
            self.done = event["done"]
            self.house.metrics.finished(self.done, self.media)

    def lines(self, event: Event) -> list[str]:
        """What a stream says of an event."""
        self.hear(event)
        if "seen" in event:
            return [f": seen {event['seen']} of {event['total']}\n\n"] if self.ask.progress else []
        if "piece" in event:
            return [self.chunk({"content": event["piece"]})]
        last = [self.chunk({}, self.done["finish"])]
        if "evidence" in self.done:
            last.append(self.chunk(None, evidence=self.done["evidence"]))
        return [*last, self.chunk(None, usage=self.usage())] if self.ask.usage else last

    def chunk(self, delta: object, finish: str | None = None, usage: object = None, evidence: object = None) -> str:
        """One event of a stream; without ``delta``, one that tells something about the answer."""
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        told = self._told("chat.completion.chunk", choices) | ({"usage": usage} if self.ask.usage else {})
        told |= {"evidence": evidence} if evidence else {}
        return f"data: {json.dumps(told)}\n\n"

    def whole(self) -> dict[str, object]:
        """All at once."""
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.done["finish"]}
        evidence = {"evidence": self.done["evidence"]} if "evidence" in self.done else {}
        return self._told("chat.completion", [choice]) | {"usage": self.usage()} | evidence

    def usage(self) -> dict[str, object]:
        """Rows and tokens, as all clients know them, and what is ours: frames, visual rows of each layer, seconds."""
        rows, made = self.done["prompt_tokens"], self.done["completion_tokens"]
        ours = ("frames", "visual_tokens", "visual_tokens_per_layer", "sights_reused", "prefix_reused", "seconds")
        counts = {"prompt_tokens": rows, "completion_tokens": made, "total_tokens": rows + made}
        return counts | {name: self.done[name] for name in ours if name in self.done}

    def _told(self, kind: str, choices: object) -> dict[str, object]:
        told = {"id": self.id, "object": kind, "created": self.created, "model": self.house.models[0]}
        return {**told, "choices": choices}


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do it, but not for a client that hangs up.

    Raises:
        Refused: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Refused("gone")
    finally:
        for one in (task, gone):
            if not one.done():
                one.cancel()
                with suppress(asyncio.CancelledError, Refused):
                    await one


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# -- whatever goes wrong -----------------------------------------------------------------------------------------------


async def _refused(request: Request, error: Exception) -> Response:
    refused = error if isinstance(error, Refused) else Refused("internal", detail=f"{type(error).__name__}: {error}")
    request.state.code, request.state.detail = refused.code, refused.detail
    return refusal(refused, request.state.id)


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return await _refused(request, Refused({404: "no_route", 405: "no_method"}.get(status, "invalid")))


async def _disk(request: Request, error: Exception) -> Response:
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return await _refused(request, Refused("disk_full" if full else "internal", detail=error))


async def _went(request: Request, error: Exception) -> Response:
    return await _refused(request, Refused("gone", detail=error))


async def _broken(request: Request, error: Exception) -> Response:
    return await _refused(request, error)
