"""What every request passes before any route sees it: its host, its origin, its key, its size. And what is logged."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits
from .metrics import Metrics
from .refuse import Refused
from .uploads import FORM_BYTES

OPEN = ("/health",)  # routes that need no key
PROBES = ("/health", "/ready", "/metrics")  # asked over and over by machines: not logged
UPLOADS = "/v1/files"
ANYONE = "anyone"
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::\d+)?")
SHORTEST_KEY = 16  # characters
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
}
log = logging.getLogger("vcflash.serve")


@dataclass(frozen=True)
class Keys:
    """API keys, as digests. Whoever comes with one is told from those who come with another."""

    digests: tuple[bytes, ...]

    def tenant(self, authorization: str) -> str:
        """Who sends this header.

        Raises:
            Refused: nobody that is known here.
        """
        if not self.digests:
            return ANYONE
        digest = _digest(_key_of(authorization))
        found = [hmac.compare_digest(digest, one) for one in self.digests]  # all of them, whichever it is
        if not any(found):
            raise Refused("no_key")
        return digest.hex()[:32]


def read_keys(environment: str | None, file: Path | None) -> Keys:
    """One key from the environment, or those of a file, one a line.

    Raises:
        OSError: no such file.
        ValueError: a key that can be guessed, or none in the file.
    """
    words = [] if environment is None else [environment]
    if file is not None:
        words += [line.strip() for line in file.read_text().splitlines() if line.strip()]
        if not words:
            raise ValueError(f"{file} holds no API key: write one a line")
    for word in words:
        if len(word) < SHORTEST_KEY or not word.isascii() or not word.isprintable() or " " in word:
            raise ValueError(
                f"an API key must have {SHORTEST_KEY} or more ASCII characters and no spaces: "
                "make one with 'openssl rand -hex 32'"
            )
    return Keys(tuple(_digest(word) for word in words))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _key_of(authorization: str) -> str:
    """Of 'Bearer KEY', or of the Basic that browsers send, whatever the user's name."""
    kind, _, words = authorization.partition(" ")
    if kind.lower() == "bearer":
        return words.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(words, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address of this name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI around the application.

    Args:
        app: the application.
        keys: API keys; none lets everybody in.
        limits: sizes and waits.
        metrics: where requests are counted.
        hosts: names by which the server may be called; none allows all. Where there is no key they keep web pages away
            whose name was made to point at this machine.
    """

    def __init__(self, app: ASGIApp, keys: Keys, limits: Limits, metrics: Metrics, hosts: Sequence[str] = ()) -> None:
        self.app, self.keys, self.limits, self.metrics, self.hosts = app, keys, limits, metrics, tuple(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name, began, status = f"req-{secrets.token_hex(8)}", asyncio.get_running_loop().time(), 500
        scope.setdefault("state", {})["id"] = name
        scope["state"]["began"] = began

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for key, value in HEADERS.items():
                    headers.setdefault(key, value)
                headers["X-Request-Id"] = name
            await send(message)

        try:
            scope["state"]["tenant"] = self.check(scope)
            most, seconds = self._most(scope)
            measured = Measured(receive, most, self.limits.body_wait, began + seconds)
            measured.check(Headers(scope=scope))
            await self.app(scope, measured, answer)
        except Refused as refused:
            scope["state"]["code"] = refused.code
            await refusal(refused, name)(scope, receive, answer)
        finally:
            self._note(scope, name, status, asyncio.get_running_loop().time() - began)

    def check(self, scope: Scope) -> str:
        """Who asks.

        Raises:
            Refused: someone who may not.
        """
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts and _name_of(host) not in self.hosts:
            raise Refused("foreign_host")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused("foreign_origin")
        if scope["path"] in OPEN:
            return ANYONE
        return self.keys.tenant(headers.get("authorization", ""))

    def _most(self, scope: Scope) -> tuple[int, int]:
        """Bytes of the body, and seconds until it is there."""
        if scope["path"] == UPLOADS and scope["method"] == "POST":
            return self.limits.upload_bytes + FORM_BYTES, self.limits.upload_seconds
        return self.limits.body_bytes, self.limits.seconds

    def _note(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        state, found = scope["state"], scope.get("route")
        route = getattr(found, "path", "other")
        code = state.get("code")
        self.metrics.requests.labels(route, status).inc()
        if code:
            self.metrics.refused.labels(code).inc()
        level = logging.DEBUG if route in PROBES else logging.INFO
        log.log(level, "%s %s %s %d %.3fs %s", name, scope["method"], route, status, seconds, code or "ok")
        if state.get("detail"):
            log.debug("%s %s", name, state["detail"])


class Measured:
    """The body of a request, as long as it is small enough and keeps coming."""

    def __init__(self, receive: Receive, most: int, wait: float, deadline: float) -> None:
        self.receive, self.most, self.wait, self.deadline = receive, most, wait, deadline
        self.got, self.whole = 0, False

    def check(self, headers: Headers) -> None:
        """By what the header says.

        Raises:
            Refused: too large.
        """
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self.most:
            raise Refused("body_too_large")

    async def __call__(self) -> dict[str, Any]:
        """The next message.

        Raises:
            Refused: too large, or too slow.
        """
        if self.whole:  # the only one left is that the client went away
            return dict(await self.receive())
        try:
            async with asyncio.timeout_at(min(self.deadline, asyncio.get_running_loop().time() + self.wait)):
                message = dict(await self.receive())
        except TimeoutError:
            raise Refused("slow_body") from None
        if message["type"] == "http.request":
            self.got += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self.got > self.most:
                raise Refused("body_too_large")
        return message


def refusal(refused: Refused, name: str) -> JSONResponse:
    """As it goes to the client."""
    return JSONResponse(refused.body(name), refused.status, refused.headers)


def _name_of(host: str) -> str:
    """A Host header without its port; nothing for one that is not plain."""
    found = HOST.fullmatch(host)
    return found[1].strip("[]") if found else ""
