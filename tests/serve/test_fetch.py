"""Addresses that are fetched, the many that are not, and servers that do not behave."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from hostile import GOOD, HOSTILE

from videochat_flash.serve.fetch import Fetcher, check_domain, is_public, read_url
from videochat_flash.serve.limits import Limits
from videochat_flash.serve.media import Finder
from videochat_flash.serve.refuse import Refused
from videochat_flash.serve.shelf import Shelf
from videochat_flash.serve.uploads import Uploads
from videochat_flash.serve.wire import Media

INSIDE = [
    *("0.0.0.0", "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
    *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::", "2001::1", "fe80::1", "fe80::1%eth0"),
    *("fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1", "fec0::1"),
]
OUTSIDE = ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::200e", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("url", HOSTILE)
def test_hostile_addresses_are_refused_before_anything_is_looked_up(url: str) -> None:
    with pytest.raises(Refused) as told:
        read_url(url, [GOOD, "127.0.0.1", "localhost", "[::1]"])
    assert told.value.code == "url_refused"


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("root", [True, False])
def test_no_part_of_a_message_gets_round_that(kind: Literal["video", "image"], root: bool, tmp_path: Path) -> None:
    def looked_up(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host} was looked up")

    (tmp_path / "uploads").mkdir()
    uploads, uuids = Uploads(tmp_path / "uploads", 1000, 1000), Shelf(tmp_path / "uuids", 1000)
    (tmp_path / "media").mkdir()
    fetcher = Fetcher([GOOD], Limits(), looked_up)
    finder = Finder(uploads, uuids, tmp_path / "media" if root else None, fetcher)
    for url in HOSTILE:
        for uuid in (None, "mine"):
            with pytest.raises(Refused) as told:
                asked = [Media(kind, url, uuid, None)]
                asyncio.run(finder.find(asked, tmp_path, "me", "it", tmp_path, 600.0))
            assert told.value.code in ("url_refused", "path_refused"), url
    assert not len(uuids)


def test_there_are_enough_of_them() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 40


@pytest.mark.parametrize(
    ("url", "target"),
    [
        (f"https://{GOOD}/a.mp4", "/a.mp4"),
        (f"https://{GOOD}", "/"),
        (f"https://{GOOD}:443/a.mp4?b=c&d=%20#t=5", "/a.mp4?b=c&d=%20"),
        (f"https://{GOOD.upper()}/A.mp4", "/A.mp4"),
        (f"https://{GOOD}/@evil.org/x", "/@evil.org/x"),
    ],
)
def test_plain_addresses_are_read(url: str, target: str) -> None:
    place = read_url(url, [GOOD])
    assert (place.host, place.target) == (GOOD, target)


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_outside_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "*.example.org", "https://example.org", "a b", "", "[::1]"])
def test_an_operator_names_hosts_only(name: str) -> None:
    with pytest.raises(ValueError, match="allow-media-domain"):
        check_domain(name)


# Against servers.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of GOOD, and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", "key", "-out", "cert", "-days", "2", "-subj", f"/CN={GOOD}"]
    command += ["-addext", f"subjectAltName=DNS:{GOOD}"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "both").write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return folder


Behave = Callable[[http.server.BaseHTTPRequestHandler], None]


class Web:
    """A TLS server on this machine, and a fetcher that takes it for GOOD."""

    def __init__(self, folder: Path) -> None:
        self.behave: Behave = lambda handler: None
        self.asked: list[tuple[str, str]] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append((self.headers["Host"], self.path))
                web.behave(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up here
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "both")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.trust = ssl.create_default_context(cafile=str(folder / "cert"))
        self.names: list[str] = []

    def resolve(self, host: str, port: int) -> list[str]:
        self.names.append(host)
        return ["127.0.0.1"]

    def fetch(
        self, target: Path, url: str = f"https://{GOOD}/a.mp4", hosts: tuple[str, ...] = (GOOD,), **limits: int
    ) -> str:
        fetcher = Fetcher(
            hosts, Limits(**limits), self.resolve, lambda _: True, self.trust, self.server.server_address[1]
        )

        async def run() -> str:
            return await fetcher(url, target, asyncio.get_running_loop().time() + 600)

        return asyncio.run(run())

    def refuses(self, target: Path, *how: str, **limits: int) -> str:
        with pytest.raises(Refused) as told:
            self.fetch(target, *how, **limits)
        return told.value.code


@pytest.fixture
def web(certificate: Path) -> Iterator[Web]:
    made = Web(certificate)
    yield made
    made.server.shutdown()
    made.server.server_close()


def gives(body: bytes, length: int | None = None, status: int = 200, **headers: str) -> Behave:
    def behave(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def test_a_video_is_fetched_by_one_look_up(web: Web, tmp_path: Path) -> None:
    web.behave = gives(b"video" * 100_000)
    digest = web.fetch(tmp_path / "0")
    assert (tmp_path / "0").read_bytes() == b"video" * 100_000
    assert digest == hashlib.sha256(b"video" * 100_000).hexdigest()
    assert web.asked == [(GOOD, "/a.mp4")] and web.names == [GOOD]


def test_redirects_are_addresses_like_any_other(web: Web, tmp_path: Path) -> None:
    def behave(handler: http.server.BaseHTTPRequestHandler) -> None:
        gives(b"there", status=302 if handler.path == "/a.mp4" else 200, Location="/b.mp4")(handler)

    web.behave = behave
    web.fetch(tmp_path / "0")
    assert (tmp_path / "0").read_bytes() == b"there"
    for bad in ("https://evil.org/", "http://media.example.org/b", "//evil.org/x", "file:///etc/passwd", "b.mp4", ""):
        web.behave = gives(b"", status=301, Location=bad)
        assert web.refuses(tmp_path / "1") == "url_refused"
    assert set(web.names) == {GOOD}
    web.behave = gives(b"", status=307, Location="/a.mp4")
    web.asked.clear()
    assert web.refuses(tmp_path / "1") == "url_failed" and len(web.asked) == 4


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:127.0.0.1"], []])
def test_a_name_that_leads_inside_is_not_connected_to(web: Web, tmp_path: Path, addresses: list[str]) -> None:
    fetcher = Fetcher([GOOD], Limits(), lambda *_: addresses, context=web.trust, port=web.server.server_address[1])

    async def run() -> None:
        await fetcher(f"https://{GOOD}/a.mp4", tmp_path / "0", asyncio.get_running_loop().time() + 60)

    with pytest.raises(Refused) as told:
        asyncio.run(run())
    assert told.value.code == "url_refused" and not web.asked


def test_a_redirect_to_a_name_that_leads_inside_is_not_followed(web: Web, tmp_path: Path) -> None:
    other = "inside.example.org"
    web.behave = gives(b"", status=302, Location=f"https://{other}/")
    fetcher = Fetcher(
        [GOOD, other],
        Limits(),
        lambda host, _: ["127.0.0.1" if host == GOOD else "10.0.0.1"],
        lambda address: address == "127.0.0.1",
        web.trust,
        web.server.server_address[1],
    )

    async def run() -> None:
        await fetcher(f"https://{GOOD}/a.mp4", tmp_path / "0", asyncio.get_running_loop().time() + 60)

    with pytest.raises(Refused) as told:
        asyncio.run(run())
    assert told.value.code == "url_refused" and len(web.asked) == 1


def test_only_a_host_with_its_own_certificate_is_believed(web: Web, tmp_path: Path) -> None:
    assert web.refuses(tmp_path / "0", "https://other.example.org/", ("other.example.org",)) == "url_failed"  # type: ignore[arg-type]
    web.trust = ssl.create_default_context()
    assert web.refuses(tmp_path / "0") == "url_failed" and not web.asked


def test_too_much_is_not_taken(web: Web, tmp_path: Path) -> None:
    web.behave = gives(b"x" * 2000)
    assert web.refuses(tmp_path / "0", upload_bytes=1999) == "upload_too_large" and not (tmp_path / "0").exists()

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 1000)

    web.behave = endless
    assert web.refuses(tmp_path / "0", upload_bytes=100_000) == "upload_too_large"
    assert (tmp_path / "0").stat().st_size <= 100_000 + (1 << 16)


def test_what_breaks_off_or_is_empty_or_an_error_is_no_video(web: Web, tmp_path: Path) -> None:
    for behave in (gives(b"half", 1000), gives(b""), gives(b"no", status=404), gives(b"no", status=500)):
        web.behave = behave
        assert web.refuses(tmp_path / "0") == "url_failed"


def test_a_server_that_drips_is_left_at_the_deadline(web: Web, tmp_path: Path) -> None:
    def drips(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.1)

    web.behave = drips
    assert web.refuses(tmp_path / "0", fetch_seconds=2) == "url_failed"
    web.behave = lambda handler: time.sleep(5)
    assert web.refuses(tmp_path / "0", fetch_wait=1) == "url_failed"


def test_a_server_that_never_speaks_tls_is_left_at_the_deadline(web: Web, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        fetcher = Fetcher([GOOD], Limits(fetch_wait=2), web.resolve, lambda _: True, web.trust, mute.getsockname()[1])

        async def run() -> None:
            await fetcher(f"https://{GOOD}/", tmp_path / "0", asyncio.get_running_loop().time() + 600)

        with pytest.raises(Refused) as told:
            asyncio.run(run())
    assert told.value.code == "url_failed"
