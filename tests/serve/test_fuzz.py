"""Broken videos and malformed requests by the hundred: each gets an answer or a refusal, and nothing is left behind."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import Served, children, serving
from videos import make, numbered

pytestmark = [pytest.mark.long]
FILMS = Path(os.environ.get("VCF_VIDEOS") or Path(__file__).resolve().parents[3] / "shared" / "videos")  # real ones
FILES, REQUESTS, SEED = 500, 200, 6
REAL = 4 << 20  # bytes of a real video that is mutated: more would be slow, and no other
FRAMES = 16
LIMITS = ["--limit", "decode_bytes=1G", "--limit", "decode_seconds=30", "--limit", f"frames={FRAMES}"]


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "media").mkdir()
    with serving(model, folder / "store", "--media-root", folder / "media", *LIMITS) as server:
        yield server


def whole_files(folder: Path) -> list[bytes]:
    """Made in every container that is read, pictures, and real ones where there are some."""
    made = [
        make(folder / "a.mp4", 24),
        make(folder / "a.mkv", 24),
        make(folder / "a.avi", 24),
        make(folder / "a.ts", 24),
    ]
    made.append(make(folder / "b.webm", 12, codec="libvpx"))
    made.append(make(folder / "c.mp4", 24, options={"bf": "2"}, container={"movflags": "frag_keyframe+empty_moov"}))
    made.append(make(folder / "d.gif", 8, 10, codec="gif", pix_fmt="rgb8"))
    for kind in ("png", "jpeg", "webp"):
        Image.fromarray(numbered(77, 4)).save(folder / f"e.{kind}")
        made.append(folder / f"e.{kind}")
    real = sorted(file for file in FILMS.glob("*") if file.suffix in (".mp4", ".mkv", ".webm", ".avi", ".gif"))[:6]
    print(f"mutations of {len(made)} made files and {len(real)} real ones{'' if real else ' (set VCF_VIDEOS)'}")
    return [file.read_bytes()[:REAL] for file in [*made, *real]]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, bits flipped, the header edited, a piece moved, or zeros in it."""
    changed = bytearray(data)
    way = rng.integers(0, 5)
    if way == 0:
        return bytes(changed[: rng.integers(0, len(changed))])
    if way == 1:
        for at in rng.integers(0, len(changed), rng.integers(1, 64)):
            changed[at] ^= 1 << rng.integers(0, 8)
    elif way == 2:  # sizes, counts and times of containers stand there
        for at in rng.integers(0, min(len(changed) - 4, 1024), rng.integers(1, 8)):
            changed[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", rng.bytes(4)])
    elif way == 3:
        first, second = sorted(rng.integers(0, len(changed), 2))
        changed = changed[second:] + changed[first:second] + changed[:first]
    else:
        first = rng.integers(0, len(changed))
        changed[first : first + 4096] = bytes(min(4096, len(changed) - first))
    return bytes(changed)


def held(server: Served) -> dict[str, Any]:
    """What must not grow: processes, open files of server and worker, temporary files."""
    pids = [server.process.pid, *children(server.process.pid)]
    return {
        "processes": len(pids),
        "files": [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids],
        "scratch": [file.name for file in (server.store / "scratch").iterdir()],
        "parts": [file.name for file in server.store.rglob(".*")],
    }


def at_rest(server: Served) -> dict[str, Any]:
    """The same once nothing is under way and connections that clients have closed are gone."""
    server.waits_for("vcflash_active", 0)
    last, now = None, held(server)
    while now != last:
        time.sleep(1)
        last, now = now, held(server)
    return now


def megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def test_no_video_does_harm(server: Served, tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    whole, root = whole_files(tmp_path), server.store.parent / "media"
    cases = [mutated(whole[i % len(whole)], rng) for i in range(FILES)]

    def ask(number: int) -> tuple[int, str]:
        kind = "image_url" if number % 10 in (7, 8) else "video_url"
        path = root / f"{number}.bin"
        path.write_bytes(cases[number])
        part = {"type": kind, kind: {"url": path.name}}
        reply = server.ask([part, {"type": "text", "text": "What?"}])
        path.unlink()
        return reply.status, "" if reply.status == 200 else reply.code

    for number in range(20):
        ask(number)  # everything that is kept for good is there after these
    before, size = at_rest(server), [megabytes(pid) for pid in children(server.process.pid)][0]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        said = list(pool.map(ask, range(FILES)))
    grown = [megabytes(pid) for pid in children(server.process.pid)][0] - size
    print(f"{FILES} files: {dict(Counter(said))}; the worker grew by {grown:.0f} MB")
    assert {status for status, _ in said} <= {200, 400, 413}, said
    assert (
        sum(status == 200 for status, _ in said) > FILES // 20
        and sum(status == 400 for status, _ in said) > FILES // 20
    )
    assert at_rest(server) == before and grown < 256
    assert server.told()["vcflash_restarts_total"] == 0
    assert "Traceback" not in server.log.read_text()


VALUES: list[Any] = [
    *(None, True, 0, -1, 1 << 70, 1.5, 1e308, "", "x", "\0", "\ud800", "x" * 5000, [], [[]], {}, {"a": None}),
    *([None], "file-" + "0" * 24, "data:video/mp4;base64,AAAA", "../a", "https://example.org/", "data:,"),
]
PATHS: list[tuple[str | int, ...]] = [
    *(("model",), ("messages",), ("messages", 0), ("messages", 0, "role"), ("messages", 0, "content"), ("stream",)),
    *(("messages", 0, "content", 0), ("messages", 0, "content", 0, "type"), ("messages", 0, "content", 1, "text")),
    *(("messages", 0, "content", 0, "video_url"), ("messages", 0, "content", 0, "video_url", "url"), ("keep",)),
    *(
        ("messages", 0, "content", 0, key)
        for key in ("fps", "nframes", "max_frames", "video_start", "video_end", "uuid")
    ),
    *((key,) for key in ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "n", "mm_processor_kwargs")),
    *(("stream_options",), ("logprobs",), ("tools",), ("user",), ("response_format",), ("something",)),
]


def malformed(model: str, rng: np.random.Generator) -> bytes:
    """A good request with one value that is not, or with broken bytes."""
    video = {"type": "video_url", "video_url": {"url": "a.mp4"}}
    content = [video, {"type": "text", "text": "What?"}]
    body: dict[str, Any] = {"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": content}]}
    path, value = PATHS[rng.integers(len(PATHS))], VALUES[rng.integers(len(VALUES))]
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    data = bytearray(json.dumps(body).encode())
    if rng.random() < 0.3:
        data = bytearray(mutated(bytes(data), rng))
    return bytes(data)


def test_no_request_does_harm(server: Served) -> None:
    rng = np.random.default_rng(SEED)
    make(server.store.parent / "media" / "a.mp4", 24)
    for _ in range(5):
        server.request("POST", "/v1/chat/completions", malformed(server.model, rng))
    before = at_rest(server)
    statuses = []
    for _ in range(REQUESTS):
        reply = server.request("POST", "/v1/chat/completions", malformed(server.model, rng))
        statuses.append(reply.status)
        assert reply.status == 200 or reply.code, reply
    assert set(statuses) <= {200, 400, 404, 413, 422} and statuses.count(422) > REQUESTS // 4
    for _ in range(REQUESTS // 4):  # and what is not even HTTP
        with socket.create_connection(("127.0.0.1", server.port), 60) as line:
            good = b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=B\r\n"
            line.sendall(mutated(good + b"Content-Length: 30\r\n\r\n--B\r\nContent-Disposition: form", rng))
            line.shutdown(socket.SHUT_WR)
            said = line.recv(1 << 16)
        assert not said or (said.startswith(b"HTTP/1.1 ") and said[9:10] in b"2345" and b" 500 " not in said[:15])
    print(f"{REQUESTS} requests: {dict(Counter(statuses))}")
    assert at_rest(server) == before and server.told()["vcflash_restarts_total"] == 0


def test_data_that_is_broken_is_refused_in_a_message_too(server: Served, tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    data = make(tmp_path / "a.mp4", 8).read_bytes()
    for _ in range(20):
        url = "data:video/mp4;base64," + base64.b64encode(mutated(data, rng)).decode()
        reply = server.ask([{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What?"}])
        assert reply.status == 200 or reply.code in ("undecodable", "video_too_long", "video_too_large", "bad_data_url")
