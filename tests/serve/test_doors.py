"""Who gets in, with how much; what is told to those who do not, and what is logged of all."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import finished, start
from command import run as vcflash
from hostile import GOOD, HOSTILE
from serving import KEY, PATIENCE, Served, serving

from videochat_flash.serve import guard
from videochat_flash.serve.guard import Keys, Measured, read_keys
from videochat_flash.serve.refuse import REASONS, Refused

OTHER = "f" * 32
FORM = "multipart/form-data; boundary=B"
HEAD = b'--B\r\nContent-Disposition: form-data; name="file"; filename="secret-name.mp4"\r\n\r\n'


@pytest.fixture(scope="module")
def locked(model: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with two keys."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text(f"{OTHER}\n")
    options = ("--api-key-file", folder / "keys", "--media-root", films, "--allow-media-domain", GOOD)
    with serving(model, folder / "store", *options, key=KEY) as server:
        yield server


def about(url: str, words: str = "What?") -> list[dict[str, Any]]:
    return [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": words}]


# Keys.


def test_every_route_but_health_wants_a_key(locked: Served) -> None:
    routes = locked.request("GET", "/openapi.json").json["paths"]
    walked = [(method.upper(), path) for path, methods in routes.items() for method in methods]
    assert {path for _, path in walked} >= {"/v1/chat/completions", "/v1/models", "/v1/files", "/ready", "/metrics"}
    walked += [("GET", "/openapi.json"), ("GET", "/nowhere"), ("POST", "/health/"), ("GET", "//health"), ("GET", "/")]
    walked += [("GET", "/page.js"), ("GET", "/samples/0"), ("GET", "/samples/0.mp4")]
    for method, path in walked:
        for wrong in ("", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Bearer {KEY.upper()}x", "Basic AAAA", KEY):
            reply = locked.request(method, path.replace("{name}", "x"), Authorization=wrong)
            if path == "/health":
                assert reply.status == 200
            else:
                assert (reply.status, reply.code) == (401, "no_key"), (method, path)
                assert reply.headers["www-authenticate"].startswith("Basic")
    assert locked.request("GET", "/ready").status == 200


def test_who_comes_with_another_key_sees_nothing_of_the_first(locked: Served, films: Path) -> None:
    with (films / "a.mp4").open("rb") as file:
        made = locked.client.files.create(file=file, purpose="user_data")
    first = locked.ask(about(made.id)).json
    assert locked.ask(about(made.id)).json["usage"]["sights_reused"] == 1
    other = Served(locked.process, locked.port, locked.model, locked.store, locked.log, OTHER)
    assert other.ask(about(made.id)).code == "unknown_file" and other.client.files.list().data == []
    assert other.request("GET", f"/v1/files/{made.id}").code == "no_file"
    assert other.request("DELETE", f"/v1/files/{made.id}").code == "no_file"
    with (films / "a.mp4").open("rb") as file:
        own = other.client.files.create(file=file, purpose="user_data")
    again = other.ask(about(own.id)).json
    assert again["usage"]["sights_reused"] == 0  # not even the time that it takes tells of the first's videos
    assert again["choices"][0]["message"]["content"] == first["choices"][0]["message"]["content"]
    other.client.close()


def test_the_key_is_in_no_process_but_the_server_s(locked: Served) -> None:
    worker = int(Path(f"/proc/{locked.process.pid}/task/{locked.process.pid}/children").read_text().split()[0])
    assert KEY.encode() not in Path(f"/proc/{worker}/environ").read_bytes()


def test_every_key_is_compared_whichever_it_is_and_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("".join(f"{letter * 20}\n" for letter in "abc"))
    keys: Keys = read_keys(KEY, tmp_path / "keys")
    compared: list[tuple[bytes, bytes]] = []

    def constant(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(guard.hmac, "compare_digest", constant)
    for said in ("a" * 20, "b" * 20, "c" * 20, KEY, "d" * 20, "", "a"):
        compared.clear()
        with contextlib.suppress(Refused):
            keys.tenant(f"Bearer {said}")
        assert len(compared) == len(keys.digests) == 4
        assert {len(one) for pair in compared for one in pair} == {32}  # digests: not even lengths tell anything


def test_off_loopback_without_a_key_only_for_those_who_say_so(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "store", "--host", "0.0.0.0", "--no-auth") as server:
        assert server.request("GET", "/v1/models", Host="a.name.of.this.machine").status == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "VCF_API_KEY"),
        (["--host", "::"], "VCF_API_KEY"),
        (["--limit", "frames=x"], "whole number"),
        (["--limit", "frame=4"], "no such limit"),
        (["--media-root", "nowhere"], "not a folder"),
        (["--allow-media-domain", "127.0.0.1"], "host's name"),
        (["--port", "70000"], "65535"),
    ],
)
def test_wrong_options_are_told_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.delenv("VCF_API_KEY", raising=False)
    done = vcflash(capsys, "serve", *options)
    assert done.code == 2 and words in done.err and len(done.lines) == 1


def test_a_key_that_can_be_guessed_is_not_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCF_API_KEY", "short")
    done = vcflash(capsys, "serve")
    assert done.code == 2 and "16 or more" in done.err


def test_a_model_a_port_or_a_store_that_cannot_be_had_ends_it_in_one_line(served: Served, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / ".draft").touch()
    for options, words in (
        (["--port", 0, "--store", tmp_path / "thesis"], "holds other things"),
        (["--model", tmp_path / "nothing", "--port", 0, "--store", tmp_path / "s"], "nothing"),
        (["--port", served.port, "--store", tmp_path / "s"], "choose another --port"),
        (["--port", 0, "--store", served.store], "another server uses"),
    ):
        done = finished(start("serve", *options))
        assert done.code == 1 and words in done.lines[-1] and "Traceback" not in done.err


# Pages of others.


@pytest.mark.parametrize(
    "host", ["evil.example.org", "127.0.0.1.evil.org", "localhost.evil.org:80", "", "[::2]", "@127.0.0.1"]
)
def test_a_server_without_a_key_answers_to_its_own_name_only(served: Served, host: str) -> None:
    assert served.request("GET", "/v1/models", Host=host).code == "foreign_host"
    assert served.request("GET", "/v1/models", Host=f"localhost:{served.port}").status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.org", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.org", "http://[", ""]
)
def test_pages_of_others_are_not_answered(served: Served, origin: str) -> None:
    assert served.request("POST", "/v1/files", b"", Origin=origin).code == "foreign_origin"
    assert served.request("GET", "/v1/models", Origin=f"http://127.0.0.1:{served.port}").status == 200


# Sizes.


def raw(served: Served, *parts: bytes) -> bytes:
    """What a server says to bytes, of which the last may go on for ever."""
    with socket.create_connection(("127.0.0.1", served.port), 60) as line:
        try:
            for part in parts[:-1]:
                line.sendall(part)
            for _ in range(10_000):
                line.sendall(parts[-1])
        except ConnectionError:
            pass
        try:
            return line.recv(1 << 16)
        except ConnectionError:
            return b""


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()


def test_a_body_that_says_it_is_too_large_is_not_read(served: Served) -> None:
    for path, size in (("/v1/chat/completions", 1 << 30), ("/v1/files", 1 << 40)):
        with socket.create_connection(("127.0.0.1", served.port), 60) as line:
            line.sendall(head(path, f"Content-Length: {size}"))
            said = b"".join(iter(lambda line=line: line.recv(1 << 16), b""))
        assert said.startswith(b"HTTP/1.1 413") and b"body_too_large" in said


def test_a_body_that_never_ends_is_cut_off(served: Served) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    said = raw(served, head("/v1/chat/completions", "Transfer-Encoding: chunked"), chunk)
    assert said == b"" or said.startswith(b"HTTP/1.1 413")
    begin = f"{len(HEAD):x}\r\n".encode() + HEAD + b"\r\n"
    said = raw(served, head("/v1/files", f"Content-Type: {FORM}", "Transfer-Encoding: chunked"), begin, chunk)
    assert said == b"" or said.startswith(b"HTTP/1.1 413")
    assert served.told()['vcflash_refused_total{code="body_too_large"}'] >= 1
    assert not list((served.store / "uploads").rglob(".*")) and not list((served.store / "scratch").iterdir())


def test_just_over_the_limit_is_over_it(served: Served) -> None:
    body = {"model": served.model, "messages": [{"role": "user", "content": "x"}]}
    filled = json.dumps(body).encode()
    assert served.request("POST", "/v1/chat/completions", filled + b" " * ((256 << 10) - len(filled))).status == 200
    assert (
        served.request("POST", "/v1/chat/completions", filled + b" " * ((256 << 10) - len(filled) + 1)).code
        == "body_too_large"
    )
    file = HEAD + b"x" * ((8 << 20) + 1) + b"\r\n--B--\r\n"
    assert served.request("POST", "/v1/files", file, Content_Type=FORM).code == "upload_too_large"
    assert served.request("POST", "/v1/files", file[:300], Content_Type=FORM).code == "bad_multipart"


def test_a_body_that_stops_coming_is_left() -> None:
    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    async def drips() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read(receive: Any, wait: float, seconds: float) -> None:
        body = Measured(receive, 1000, wait, asyncio.get_running_loop().time() + seconds)
        for _ in range(100):
            await body()

    for receive, wait, seconds in ((never, 0.01, 60.0), (drips, 60.0, 0.1)):
        with pytest.raises(Refused) as told:
            asyncio.run(read(receive, wait, seconds))
        assert told.value.status == 408


# Whatever is not as it should be.


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/nowhere", None, "no_route"),
        ("GET", "/samples/4", None, "no_route"),
        ("GET", "/samples/-1.mp4", None, "no_route"),
        ("GET", "/v1/chat/completions", None, "no_method"),
        ("PUT", "/v1/files", b"", "no_method"),
        ("GET", "/v1/models/other", None, "no_model"),
        ("GET", "/v1/files/file-1", None, "no_file"),
        ("DELETE", "/v1/files/..%2f..%2fetc", None, "no_route"),
        ("POST", "/v1/chat/completions", b"", "not_json"),
        ("POST", "/v1/chat/completions", b"{", "not_json"),
        ("POST", "/v1/chat/completions", b"\xff\xfe", "not_json"),
        ("POST", "/v1/chat/completions", b"[" * 100_000, "not_json"),
        ("POST", "/v1/chat/completions", gzip.compress(b"{}", mtime=0), "not_json"),
        ("POST", "/v1/chat/completions", b"[]", "invalid"),
        ("POST", "/v1/chat/completions", b"{}", "invalid"),
        ("POST", "/v1/files", b"x", "bad_multipart"),
    ],
)
def test_malformed_requests_get_their_constant_sentence(
    served: Served, method: str, path: str, body: bytes | None, code: str
) -> None:
    reply = served.request(method, path, body)
    assert (reply.code, reply.status) == (code, REASONS[code].status)
    words = re.sub(r" \(request req-[0-9a-f]{16}\)$", "", reply.json["error"]["message"])
    assert words == REASONS[code].sentence


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../secret.mp4", "..", "", ".", "a.mp4/../../secret.mp4", "link.mp4", "folder"),
        *("nothing.mp4", "a.mp4\0", "a" * 5000, "~/a.mp4", "./../films/../secret.mp4", "fifo"),
    ],
)
def test_only_files_below_the_root_are_there(served: Served, films: Path, path: str) -> None:
    secret = films.parent / "secret.mp4"
    if not secret.exists():
        secret.write_bytes((films / "a.mp4").read_bytes())
        (films / "link.mp4").symlink_to(secret)
        (films / "folder").mkdir()
        os.mkfifo(films / "fifo")
    assert served.ask(about(path)).code == "path_refused"
    assert served.ask(about("./folder/../a.mp4")).status == 200


@pytest.mark.parametrize(
    "url", ["https://example.org/a.mp4", "http://127.0.0.1/", "file:///etc/passwd", "FILE:a", "concat:a"]
)
def test_no_address_is_fetched_unless_the_operator_says_so(served: Served, url: str) -> None:
    assert served.ask(about(url)).code == "url_refused"


@pytest.mark.parametrize("kind", ["video_url", "image_url"])
def test_hostile_addresses_are_refused_where_one_host_is_allowed(locked: Served, kind: str) -> None:
    for url in HOSTILE:
        reply = locked.ask([{"type": kind, kind: {"url": url}}, {"type": "text", "text": "What?"}])
        assert reply.status == 400 and reply.code in ("url_refused", "path_refused"), url


def test_what_is_kept_is_for_the_server_s_user_alone(served: Served) -> None:
    served.ask(about("a.mp4"))
    folders = [served.store, *(one for one in served.store.rglob("*") if one.is_dir())]
    assert {one.name for one in folders} >= {"scratch", "sights", "uploads", "data", "notes", "uuids"}
    assert [one for one in folders if one.stat().st_mode & 0o077] == []


def test_the_log_tells_what_happened_and_nothing_of_what_was_said(served: Served, films: Path) -> None:
    served.ask(about("a.mp4", "Where is my-secret-word?"))
    served.ask(about("../my-secret-path.mp4"))
    served.request("GET", "/my-secret-route?key=my-secret-query")
    served.request("POST", "/v1/files", HEAD + b"x\r\n--B--\r\n", Content_Type=FORM)
    reply = served.ask([{"my-secret-field": 1}])
    end = time.monotonic() + PATIENCE
    while reply.json["error"]["id"] not in (log := served.log.read_text()):  # written when the answer is on its way
        assert time.monotonic() < end
        time.sleep(0.02)
    for word in ("secret", str(films), str(served.store), "Traceback", "a.mp4", "Errno"):
        assert word not in log


def test_pages_get_headers_that_keep_others_out(served: Served) -> None:
    headers = served.request("GET", "/health").headers
    assert (
        headers["x-content-type-options"] == "nosniff"
        and "frame-ancestors 'none'" in headers["content-security-policy"]
    )
    assert "server" not in headers and headers["cache-control"] == "no-store"
