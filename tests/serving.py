"""A server in a process of its own, and what tests ask it with."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from command import ROOT, ray_began
from openai import OpenAI

PATIENCE = 600.0  # seconds: machines that test are busy
KEY = "0123456789abcdef0123456789abcdef"


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a refusal, whose form is checked here: constant words, the request's id, nothing else."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code", "id"} and error["id"] in error["message"]
        assert error["id"] == self.headers["x-request-id"]
        return str(error["code"])


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    port: int
    model: str
    store: Path
    log: Path
    key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @cached_property
    def client(self) -> OpenAI:
        """Closed when the server ends."""
        return OpenAI(base_url=self.url, api_key=self.key or "none", max_retries=0, timeout=PATIENCE)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request; words in names of headers are joined by _."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key and "Authorization" not in told:
            told["Authorization"] = f"Bearer {self.key}"
        try:
            line.request(method, path, body, told)
            reply = line.getresponse()
            names = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, names, reply.read())
        finally:
            line.close()

    def ask(self, content: object, **more: object) -> Reply:
        """A question as it goes over the wire."""
        body = {"model": self.model, "messages": [{"role": "user", "content": content}], **more}
        return self.request("POST", "/v1/chat/completions", json.dumps(body).encode())

    def ready(self) -> None:
        """Wait until the model is loaded."""
        end = time.monotonic() + PATIENCE
        while self._status() != 200:
            ray_began(self.log.read_text())
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.2)

    def _status(self) -> int:
        """Of /ready; 0 where nobody answers."""
        try:
            return self.request("GET", "/ready").status
        except OSError:
            return 0

    def told(self) -> dict[str, float]:
        """What /metrics tells."""
        lines = self.request("GET", "/metrics").body.decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def waits_for(self, name: str, value: float) -> None:
        """Until a metric has a value."""
        end = time.monotonic() + PATIENCE
        while self.told()[name] != value:
            assert time.monotonic() < end, self.told()
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Processes that a process has started and that still run, theirs included."""
    try:
        own = [
            int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [one for child in own for one in (child, *children(child)) if alive(one)]


@contextmanager
def serving(model: Path, store: Path, *options: object, key: str = "") -> Iterator[Served]:
    """A server with a model, on a port of its own, ready."""
    store.parent.mkdir(parents=True, exist_ok=True)
    log = store.with_suffix(".log")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("VCF_API_KEY", None)
    environment |= {"VCF_API_KEY": key} if key else {}
    command = [sys.executable, "-m", "videochat_flash.cli", "serve", "--model", model, "--port", 0, "--store", store]
    with log.open("a") as out:
        process = subprocess.Popen(
            [str(word) for word in [*command, *options]], stdout=subprocess.PIPE, stderr=out, env=environment, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http"), log.read_text()
        port = int(line.split("/v1")[0].rpartition(":")[2])
        served = Served(process, port, str(model), store, log, key)
        with contextlib.closing(served.client):
            served.ready()
            yield served
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
