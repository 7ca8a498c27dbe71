"""A server with more to do than it can: who waits, who is turned away, what is left when someone goes or is killed."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import PATIENCE, Reply, Served, alive, children, serving
from videos import make

LIMITS = [f"--limit={limit}" for limit in ("active=1", "queue=1", "frames=4096")]
PROGRESS = {"stream": True, "stream_options": {"include_progress": True}}


@pytest.fixture(scope="module")
def long(films: Path) -> Path:
    """A video that takes a while."""
    grey = np.full((48, 64, 3), 90, np.uint8)
    return make(films / "long.mp4", itertools.repeat(grey, 4096), 30, gop=64)


@pytest.fixture(scope="module")
def busy(model: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(model, tmp_path_factory.mktemp("busy") / "store", "--media-root", films, *LIMITS) as server:
        yield server


def about(url: str, **keys: object) -> list[dict[str, Any]]:
    return [{"type": "video_url", "video_url": {"url": url}, **keys}, {"type": "text", "text": "What?"}]


@contextmanager
def seeing(served: Served, start: int = 0) -> Iterator[http.client.HTTPResponse]:
    """A request whose video is being seen; hangs up at the end."""
    line = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    content = about("long.mp4", nframes=4096 - 4 * start)  # each start another video to the server
    body = {"model": served.model, "messages": [{"role": "user", "content": content}], **PROGRESS}
    line.request("POST", "/v1/chat/completions", json.dumps(body))
    reply = line.getresponse()
    while not reply.readline().startswith(b": seen"):
        pass
    try:
        yield reply
    finally:
        reply.close()
        line.close()


def in_background(served: Served, content: object) -> tuple[threading.Thread, list[Reply]]:
    said: list[Reply] = []
    thread = threading.Thread(target=lambda: said.append(served.ask(content)))
    thread.start()
    return thread, said


def readers(served: Served) -> list[int]:
    """Processes that read videos: the worker's children."""
    (worker, *others) = children(served.process.pid)
    return others


def at_rest(served: Served) -> None:
    served.waits_for("vcflash_active", 0)
    served.waits_for("vcflash_waiting", 0)
    end = time.monotonic() + PATIENCE
    while readers(served) or list((served.store / "scratch").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_one_is_served_one_waits_the_next_is_told_to_come_back(busy: Served, long: Path) -> None:
    with seeing(busy):
        thread, said = in_background(busy, "Hello?")
        busy.waits_for("vcflash_waiting", 1)
        turned = busy.ask("Hello?")
        assert (turned.status, turned.code, turned.headers["retry-after"]) == (429, "queue_full", "2")
        assert busy.request("POST", "/v1/files", b"x").code == "queue_full" and not said
        assert busy.request("GET", "/health").status == 200
    thread.join(PATIENCE)  # hanging up has made room
    assert [reply.status for reply in said] == [200]
    at_rest(busy)


@pytest.mark.slow
def test_who_hangs_up_while_waiting_or_before_an_answer_leaves_nothing(busy: Served, long: Path) -> None:
    with seeing(busy, 1):
        line = http.client.HTTPConnection("127.0.0.1", busy.port, timeout=PATIENCE)
        line.request(
            "POST",
            "/v1/chat/completions",
            json.dumps({"model": busy.model, "messages": [{"role": "user", "content": "Hi"}]}),
        )
        busy.waits_for("vcflash_waiting", 1)
        line.close()
        busy.waits_for("vcflash_waiting", 0)
    at_rest(busy)
    line.request(
        "POST",
        "/v1/chat/completions",
        json.dumps({"model": busy.model, "messages": [{"role": "user", "content": about("long.mp4")}]}),
    )
    busy.waits_for("vcflash_active", 1)
    line.close()
    at_rest(busy)
    assert busy.ask("Hello?").status == 200


@pytest.mark.slow
def test_a_killed_reader_fails_its_request_alone(busy: Served, long: Path) -> None:
    with seeing(busy, 2) as reply:
        (reader,) = readers(busy)
        os.kill(reader, signal.SIGKILL)
        assert b'"code": "undecodable"' in reply.read()
    at_rest(busy)
    assert busy.ask(about("a.mp4")).status == 200


@pytest.mark.slow
def test_a_killed_worker_fails_what_it_had_and_is_replaced(busy: Served, long: Path) -> None:
    known = busy.ask(about("a.mp4", nframes=8)).json
    with seeing(busy, 3) as reply:
        thread, said = in_background(busy, about("a.mp4", nframes=8))
        busy.waits_for("vcflash_waiting", 1)
        worker, reader = children(busy.process.pid)
        os.kill(worker, signal.SIGKILL)
        assert b'"code": "worker_lost"' in reply.read()
    thread.join(PATIENCE)  # what only waited is answered by the next one
    (answer,) = said
    assert answer.status == 200 and answer.json["usage"]["sights_reused"] == 1
    assert answer.json["choices"][0]["message"] == known["choices"][0]["message"]
    end = time.monotonic() + PATIENCE
    while alive(reader):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert busy.told()["vcflash_restarts_total"] == 1
    at_rest(busy)


@pytest.mark.slow
def test_a_request_that_takes_too_long_is_ended(model: Path, films: Path, long: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "store", "--media-root", films, *LIMITS, "--limit", "seconds=1") as server:
        late = server.ask(about("long.mp4", nframes=4096))
        assert (late.status, late.code) == (504, "too_slow")
        at_rest(server)


@pytest.mark.slow
def test_a_killed_server_leaves_no_process_and_a_store_that_is_whole(
    model: Path, films: Path, long: Path, tmp_path: Path
) -> None:
    with serving(model, tmp_path / "store", "--media-root", films, *LIMITS) as server:
        with (films / "a.mp4").open("rb") as file:
            upload = server.client.files.create(file=file, purpose="user_data").id
        known = server.ask(about(upload)).json
        with seeing(server):
            left = children(server.process.pid)
            server.stop(signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while any(map(alive, left)):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert list((server.store / "scratch").iterdir())
    (server.store / "sights" / ".half.written").write_bytes(b"x")
    with serving(model, tmp_path / "store", "--media-root", films, *LIMITS) as again:
        assert not list((again.store / "scratch").iterdir()) and not list((again.store / "sights").glob(".*"))
        answer = again.ask(about(upload)).json
        assert answer["usage"]["sights_reused"] == 1
        assert answer["choices"][0]["message"] == known["choices"][0]["message"]
        with seeing(again):
            assert again.stop() == 0  # SIGTERM: what runs is given up after a while
        assert not children(again.process.pid) and not (again.store / "scratch").exists()
