"""Many clients at once: none is lost, none gets another's answer, memory stays as it is."""

from __future__ import annotations

import base64
import concurrent.futures
import time
from pathlib import Path

import numpy as np
import pytest
from serving import PATIENCE, Reply, Served, children, serving
from videos import make

from videochat_flash.chat import VideoChatFlash
from videochat_flash.sight import Sight

pytestmark = [pytest.mark.long]
CLIENTS, REQUESTS, VIDEOS = 16, 200, 10
LIMITS = ["--limit", "active=4", "--limit", "queue=6", "--limit", "sight_store_bytes=100K"]
GROWTH = 64  # megabytes that memory may differ from the 50th answer to the last


def films(folder: Path) -> list[Path]:
    """Of one colour each, so that a random model tells them apart."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(VIDEOS):
        noise = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        made.append(make(folder / f"{number}.mp4", [noise] * (8 + 4 * number), 8))
    return made


def megabytes(server: Served) -> float:
    """Of server and worker."""
    pids = [server.process.pid, *children(server.process.pid)[:1]]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * 4096 / 2**20


def patiently(server: Served, path: Path, words: str, inline: bool) -> tuple[Reply, int]:
    """Ask until there is room; how often there was none."""
    data = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
    content = [
        {"type": "video_url", "video_url": {"url": data if inline else path.name}},
        {"type": "text", "text": words},
    ]
    for turn in range(10_000):
        reply = server.ask(content)
        if reply.status != 429:
            return reply, turn
        time.sleep(0.05 * int(reply.headers["retry-after"]))
    raise AssertionError("never served")


def test_two_hundred_requests_of_sixteen_clients(model: Path, vc: VideoChatFlash, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    paths = films(tmp_path / "films")
    words = ["What is it?", "And when?"]
    sights: list[Sight] = [vc.see(path) for path in paths]
    truth = {(path, word): vc.answer(sight, word) for path, sight in zip(paths, sights, strict=True) for word in words}
    assert len(set(truth.values())) > VIDEOS // 2  # else nobody would notice another's answer
    memory: list[float] = []
    with serving(model, tmp_path / "store", "--media-root", tmp_path / "films", *LIMITS) as server:

        def ask(number: int) -> tuple[tuple[Path, str], Reply, int]:
            path, word = paths[number % VIDEOS], words[number // VIDEOS % 2]
            reply, turned = patiently(server, path, word, inline=number % 3 == 0)
            memory.append(megabytes(server))
            return (path, word), reply, turned

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            said = list(pool.map(ask, range(REQUESTS)))
        told = server.told()
    turned, grown = sum(turned for _, _, turned in said), memory[-1] - memory[49]
    print(f"{len(said)} of {REQUESTS} answered, turned away {turned} times, from the 50th to the last {grown:+.1f} MB")
    assert [reply.status for _, reply, _ in said] == [200] * REQUESTS
    wrong = [asked for asked, reply, _ in said if reply.json["choices"][0]["message"]["content"] != truth[asked]]
    assert wrong == []
    assert told['vcflash_requests_total{route="/v1/chat/completions",status="200"}'] == REQUESTS
    assert turned == told.get('vcflash_refused_total{code="queue_full"}', 0)
    assert told["vcflash_active"] == told["vcflash_waiting"] == 0 and PATIENCE
    assert max(memory[50:]) - memory[49] < GROWTH, memory
