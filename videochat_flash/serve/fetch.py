"""Fetches videos from hosts that the operator named, and from nowhere else.

An address is read once, by one strict pattern, and what was read is what is connected to: no second parser can see
another host in it. The host's name is resolved once; each of its addresses must be public, and the first is connected
to. A redirect is an address like the first.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .limits import Limits
from .refuse import Refused

LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(
    rf"(?:{LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?"
)  # the last label is no number: no address is a host
URL = re.compile(r"https://(?P<host>[A-Za-z0-9.-]{1,253})(?::443)?(?P<target>/[!-\[\]-~]*)?")  # no backslash, no space
MOST_URL, REDIRECTS, PORT, PART = 2048, 3, 443, 1 << 16
MOVED = (301, 302, 303, 307, 308)
HIDDEN = tuple(  # that stand for others or are private, besides those that ipaddress knows to be
    ipaddress.ip_network(net)
    for net in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10", "192.88.99.0/24")
)
Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True)
class Place:
    """Where a video is."""

    host: str
    target: str


def read_url(url: str, domains: Sequence[str]) -> Place:
    """The place that an address names.

    Raises:
        Refused: it is not plain https to one of these hosts.
    """
    found = URL.fullmatch(url.partition("#")[0]) if len(url) <= MOST_URL else None
    if found is None:
        raise Refused("url_refused")
    host = found["host"].lower()
    if not HOST.fullmatch(host) or host not in domains:
        raise Refused("url_refused")
    return Place(host, found["target"] or "/")


def check_domain(name: str) -> str:
    """A host's name as it is compared.

    Raises:
        ValueError: it is none.
    """
    if not HOST.fullmatch(name.lower()):
        raise ValueError(f"--allow-media-domain {name!r} is not a host's name such as media.example.org")
    return name.lower()


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, and not one that leads back inside."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip.version == net.version and ip in net for net in HIDDEN):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def resolved(host: str, port: int) -> list[str]:
    """All addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


class Flow:
    """One fetch, which can be stopped from outside while it waits for the network."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._stopped = threading.Event()

    def watch(self, connection: socket.socket) -> None:
        """From now on stopping ends this connection; raises OSError if it was stopped already."""
        self._socket = connection
        self.check()

    def check(self) -> None:
        """Raises OSError if it was stopped: to a reader that looks like the end of what is read."""
        if self._stopped.is_set():
            raise TimeoutError("stopped")

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class Fetcher:
    """Fetches to files.

    Args:
        domains: hosts that may be asked.
        limits: bytes and seconds.
        resolve: addresses of a host.
        public: whether an address may be connected to.
        context: whom TLS trusts.
        port: that is connected to.
    """

    def __init__(
        self,
        domains: Sequence[str],
        limits: Limits,
        resolve: Resolve = resolved,
        public: Callable[[str], bool] = is_public,
        context: ssl.SSLContext | None = None,
        port: int = PORT,
    ) -> None:
        self.domains, self.limits, self.resolve, self.public, self.port = domains, limits, resolve, public, port
        self.context = context or ssl.create_default_context()

    async def __call__(self, url: str, target: Path, deadline: float) -> str:
        """Fetch to a file; returns the digest of what came.

        Raises:
            Refused: an address that is not allowed, or that gives nothing in time, or too much.
        """
        place, flow, loop = read_url(url, self.domains), Flow(), asyncio.get_running_loop()
        end = loop.call_at(min(deadline, loop.time() + self.limits.fetch_seconds), flow.stop)
        try:
            return await asyncio.to_thread(self._fetch, place, target, flow)
        finally:
            end.cancel()
            flow.stop()

    def _fetch(self, place: Place, target: Path, flow: Flow) -> str:
        try:
            for _ in range(REDIRECTS + 1):
                moved = self._try(place, target, flow)
                if isinstance(moved, str):
                    return moved
                place = moved
        except (OSError, http.client.HTTPException) as error:
            raise Refused("url_failed", detail=f"{type(error).__name__}: {error}") from None
        raise Refused("url_failed", detail="too many redirects")

    def _try(self, place: Place, target: Path, flow: Flow) -> Place | str:
        """The digest of what came, or where it went."""
        addresses = self.resolve(place.host, self.port)
        if not addresses or not all(self.public(address) for address in addresses):
            raise Refused("url_refused", detail="not a public address")
        connection = http.client.HTTPConnection(place.host, PORT)
        with socket.create_connection((addresses[0], self.port), self.limits.fetch_wait / 2) as plain:
            flow.watch(plain)
            plain.settimeout(self.limits.fetch_wait)
            with self.context.wrap_socket(plain, server_hostname=place.host) as secure:
                flow.watch(secure)
                connection.sock = secure
                wanted = {"Host": place.host, "Accept-Encoding": "identity", "Connection": "close"}
                connection.request("GET", place.target, headers=wanted)
                with connection.getresponse() as reply:
                    if reply.status in MOVED:
                        return self._moved(place, reply.headers.get("Location", ""))
                    if reply.status != 200:
                        raise Refused("url_failed", detail=f"status {reply.status}")
                    digest = self._read(reply, target)
                    flow.check()
                    return digest

    def _moved(self, place: Place, location: str) -> Place:
        if location.startswith("/") and not location.startswith("//"):
            location = f"https://{place.host}{location}"
        return read_url(location, self.domains)

    def _read(self, reply: http.client.HTTPResponse, target: Path) -> str:
        length, got, digest = reply.length, 0, hashlib.sha256()
        if (length or 0) > self.limits.upload_bytes:
            raise Refused("upload_too_large")
        with target.open("wb") as out:
            while part := reply.read(PART):
                got += len(part)
                if got > self.limits.upload_bytes:
                    raise Refused("upload_too_large")
                digest.update(part)
                out.write(part)
        if not got or (length is not None and got != length):
            raise Refused("url_failed", detail=f"{got} of {length} bytes came")
        return digest.hexdigest()
