"""The line to the worker, with workers that misbehave as no real one should."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from videochat_flash.serve import line as room
from videochat_flash.serve.limits import Limits
from videochat_flash.serve.line import Line
from videochat_flash.serve.metrics import Metrics
from videochat_flash.serve.refuse import Refused

pytestmark = pytest.mark.usefixtures("unchecked")
BEGIN = """
import json, os, socket, sys
line = socket.socket(fileno=int(sys.argv[-1]))
heard = line.makefile("r")
settings = json.loads(heard.readline())
def say(**told): line.sendall(json.dumps(told).encode() + b"\\n")
say(ready={"made_by": "it", "kept": "all"})
"""


def tried(
    monkeypatch: pytest.MonkeyPatch,
    worker: str,
    test: Callable[[Line], Awaitable[None]],
    pause: float = 0.01,
    **limits: int,
) -> Line:
    """A test with a line to a worker that is this program."""
    monkeypatch.setattr(room, "START", worker)
    monkeypatch.setattr(room, "PAUSES", (pause,))

    async def run() -> Line:
        line = Line({}, Limits(**limits), Metrics())
        keeping = asyncio.ensure_future(line.keep())
        try:
            await asyncio.wait_for(
                asyncio.wait({asyncio.ensure_future(test(line)), keeping}, return_when="FIRST_COMPLETED"), 300
            )
        finally:
            await line.stop()
            await asyncio.wait_for(keeping, 300)
        return line

    return asyncio.run(run())


async def answer(line: Line, name: str, seconds: float = 200) -> str:
    """All pieces, or the refusal."""
    said = ""
    try:
        async for event in line.run(name, {}, asyncio.get_running_loop().time() + seconds):
            said += event.get("piece", "")
    except Refused as refused:
        return refused.code
    return said


ECHO = (
    BEGIN
    + """
for text in heard:
    told = json.loads(text)
    if told["do"] == "answer":
        say(id=told["id"], piece="yes ")
        say(id=told["id"], piece=told["id"])
        say(id=told["id"], done={})
    else:
        say(id=told["id"], refused="gone")
"""
)


def test_every_request_gets_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    async def test(line: Line) -> None:
        said.extend(await asyncio.gather(*(answer(line, str(i)) for i in range(30))))

    line = tried(monkeypatch, ECHO, test, active=2)
    assert said == [f"yes {i}" for i in range(30)] and line.admitted == 0


DIES = (
    BEGIN
    + """
heard.readline()
line.sendall(b'{"id": "a", "pie')
os._exit(1)
"""
)


def test_a_worker_that_dies_in_the_middle_of_a_word_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    async def test(line: Line) -> None:
        said.extend(await asyncio.gather(answer(line, "a"), answer(line, "b")))
        said.append(await answer(line, "c"))

    line = tried(monkeypatch, DIES, test, active=1)
    assert said == ["worker_lost"] * 3 and line.metrics.restarts._value.get() >= 2


MUTE = (
    BEGIN
    + """
for text in heard:
    pass
"""
)


def test_a_worker_that_says_nothing_costs_its_deadline_and_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    async def test(line: Line) -> None:
        await line.ready.wait()
        said.append(await answer(line, "a", 0.1))
        said.append(await answer(line, "b", 0.1))  # the first one's place is free when the worker says so, not before

    tried(monkeypatch, MUTE, test, active=1)
    assert said == ["too_slow", "too_slow"]


def test_a_model_that_cannot_be_loaded_ends_it_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = BEGIN.replace('say(ready={"made_by": "it", "kept": "all"})', 'say(failed="no such model")')

    async def test(line: Line) -> None:
        await asyncio.sleep(300)

    with pytest.raises(ValueError, match="no such model"):
        tried(monkeypatch, worker, test)


def test_stopping_waits_for_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(line: Line) -> None:
        while not line.metrics.restarts._value.get():
            await asyncio.sleep(0.01)

    tried(monkeypatch, "raise SystemExit(1)", test, pause=1e6)


def test_places_are_given_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        line = Line({}, Limits(active=1, queue=1), Metrics())
        with line.admit(), line.admit():
            with pytest.raises(Refused) as told, line.admit():
                pass
            assert told.value.status == 429
        with pytest.raises(KeyError), line.admit():
            raise KeyError
        assert line.admitted == 0

    asyncio.run(run())
