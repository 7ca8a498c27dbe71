"""The same server with its workers on a local Ray cluster: nothing of what clients see differs."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import ray_began, start
from command import run as vcflash
from serving import KEY, PATIENCE, Served, alive, children, serving
from videos import make

from videochat_flash.chat import VideoChatFlash
from videochat_flash.video import Sampling

pytest.importorskip("ray.serve", reason="no Ray Serve here", exc_type=ImportError)
pytestmark = [pytest.mark.slow]
LIMITS = [f"--limit={limit}" for limit in ("active=1", "queue=1", "frames=512")]
REPLICAS = 2


def about(url: str, words: str = "What?", **keys: object) -> list[dict[str, Any]]:
    return [{"type": "video_url", "video_url": {"url": url}, **keys}, {"type": "text", "text": words}]


@pytest.fixture(scope="module")
def fleet(model: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two replicas behind one server with a key."""
    long = films / "fleet.mp4"
    if not long.exists():
        make(long, 1024, 8, gop=16)
    where = ("--ray", "--replicas", REPLICAS, "--media-root", films)
    with serving(model, tmp_path_factory.mktemp("fleet") / "store", *where, *LIMITS, key=KEY) as server:
        yield server


def named(server: Served, words: bytes) -> list[int]:
    """Processes of a server whose command line holds some words."""
    return [pid for pid in children(server.process.pid) if words in _told(pid, "cmdline")]


def _told(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def workers(server: Served) -> list[int]:
    return named(server, b"serve.owner")


def at_rest(server: Served) -> None:
    server.waits_for("vcflash_active", 0)
    server.waits_for("vcflash_waiting", 0)
    end = time.monotonic() + PATIENCE
    while named(server, b"serve.decoder") or list((server.store / "scratch").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_replicas_answer_as_the_model_does_and_share_what_was_seen(
    fleet: Served, vc: VideoChatFlash, films: Path
) -> None:
    assert len(workers(fleet)) == REPLICAS
    sight = vc.see(films / "a.mp4", Sampling(max_frames=64))
    with (films / "a.mp4").open("rb") as file:
        upload = fleet.client.files.create(file=file, purpose="user_data")
    said = [fleet.ask(about(upload.id, "What is it?", max_frames=64)).json for _ in range(8)]
    assert {one["choices"][0]["message"]["content"] for one in said} == {vc.answer(sight, "What is it?")}
    assert [one["usage"]["sights_reused"] for one in said] == [0] + [1] * 7
    found = [one["usage"]["prefix_reused"] for one in said]  # of each worker's own memory: so both have answered
    assert found.count(False) == REPLICAS
    assert len(list((fleet.store / "sights").iterdir())) == 1
    messages = [{"role": "user", "content": about(upload.id, "What is it?", max_frames=64)}]
    chunks = fleet.client.chat.completions.create(model=fleet.model, messages=messages, stream=True)  # type: ignore[call-overload]
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == vc.answer(sight, "What is it?")


def test_keys_limits_and_refusals_are_those_of_a_single_worker(fleet: Served) -> None:
    assert fleet.request("GET", "/v1/models", Authorization="Bearer wrong").code == "no_key"
    assert fleet.request("GET", "/-/routes").code == "no_route"  # nothing of Ray's answers
    assert fleet.ask(about("../a.mp4")).code == "path_refused"
    assert fleet.ask(about("a.mp4", nframes=513)).code == "too_many_frames"
    assert fleet.ask(about("a.mp4", video_start=1000)).code == "bad_window"
    assert fleet.ask("What?", keep="99:0.5").code == "invalid"
    for pid in children(fleet.process.pid):
        assert KEY.encode() not in _told(pid, "environ")
    token = next(one for one in _told(children(fleet.process.pid)[0], "environ").split(b"\0") if b"RAY_AUTH_T" in one)
    assert len(token) > 64
    for pid in (*workers(fleet), *named(fleet, b"serve.decoder")):
        assert token not in _told(pid, "environ")


def test_ray_lets_in_nobody_who_has_not_its_token(fleet: Served) -> None:
    told = [_told(pid, "cmdline") for pid in children(fleet.process.pid)]
    address = next(re.findall(rb"--gcs-address=([\d.:]+)", one)[0] for one in told if b"--gcs-address=" in one).decode()
    program = f"import ray; ray.init({address!r}, logging_level='ERROR'); print('in')"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for environment in (bare, bare | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode != 0 and "in" not in done.stdout.split() and "Unauthenticated" in done.stderr


def test_who_goes_makes_room_and_who_is_too_many_is_told(fleet: Served) -> None:
    def begun(number: int) -> http.client.HTTPConnection:
        line = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=PATIENCE)
        content = about("fleet.mp4", nframes=512 - 4 * number)
        body = {"model": fleet.model, "messages": [{"role": "user", "content": content}]}
        line.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {KEY}"})
        return line

    lines = [begun(number) for number in range(3)]  # one for each replica, one that waits
    fleet.waits_for("vcflash_active", 2)
    fleet.waits_for("vcflash_waiting", 1)
    turned = fleet.ask("Hello?")
    assert (turned.status, turned.code) == (429, "queue_full")
    for line in lines:
        line.close()
    at_rest(fleet)
    assert fleet.ask("Hello?").status == 200


def seeing(fleet: Served, number: int) -> http.client.HTTPResponse:
    """A stream that has begun to see a video nobody has seen."""
    content = about("fleet.mp4", nframes=256 - 4 * number)
    body = {"model": fleet.model, "messages": [{"role": "user", "content": content}], "stream": True}
    body["stream_options"] = {"include_progress": True}
    headers = {"Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"{fleet.url}/chat/completions", json.dumps(body).encode(), headers)
    reply: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=PATIENCE)
    while not reply.readline().startswith(b": seen"):
        pass
    return reply


@pytest.mark.parametrize("kind", ["worker", "replica"])
def test_what_is_killed_fails_what_it_had_and_is_started_again(fleet: Served, kind: str) -> None:
    with seeing(fleet, 1 + (kind == "worker")) as reply:
        (reader,) = named(fleet, b"serve.decoder")
        worker = _parent(reader)
        victim = worker if kind == "worker" else _parent(worker)
        os.kill(victim, signal.SIGKILL)
        assert b'"code": "worker_lost"' in reply.read()
    end = time.monotonic() + PATIENCE
    while alive(reader) or alive(worker) or len(workers(fleet)) < REPLICAS:
        assert time.monotonic() < end
        time.sleep(0.1)
    fleet.waits_for("vcflash_ready", REPLICAS)
    assert {fleet.ask(about("a.mp4")).status for _ in range(4)} == {200}
    at_rest(fleet)


def _parent(pid: int) -> int:
    return int(_told(pid, "stat").rpartition(b")")[2].split()[1])


def test_it_ends_with_all_that_it_has_started(model: Path, films: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "store", "--ray", "--media-root", films, *LIMITS) as server:
        left = children(server.process.pid)
        assert server.ask(about("a.mp4")).status == 200 and len(workers(server)) == 1
        assert server.stop() == 0
        end = time.monotonic() + PATIENCE
        while any(map(alive, left)):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert not (server.store / "scratch").exists() and "Traceback" not in server.log.read_text()


def test_a_model_that_is_not_there_ends_it_in_one_line(tmp_path: Path) -> None:
    process = start("serve", "--ray", "--model", tmp_path / "nothing", "--port", 0, "--store", tmp_path / "s")
    _, err = process.communicate(timeout=PATIENCE)
    ray_began(err)
    assert process.returncode == 1 and "nothing" in err.splitlines()[-1] and "Traceback" not in err, err


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--replicas", 2], "--ray"), (["--ray-address", "local"], "--ray"), (["--ray", "--device", "cuda:1"], "cuda")],
)
def test_options_that_make_no_sense_together(
    capsys: pytest.CaptureFixture[str], options: list[object], words: str
) -> None:
    done = vcflash(capsys, "serve", *options)
    assert done.code == 2 and words in done.err and len(done.lines) == 1


def test_ray_that_is_not_installed_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = vcflash(capsys, "serve", "--ray", "--port", 0, "--store", tmp_path / "s")
    assert done.code == 1 and "pip install 'videochat-flash[ray]'" in done.lines[-1]
