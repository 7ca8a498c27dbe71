"""Requests that fail are tried again when the endpoint wants them to be, and not all at once."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime

import pytest
from haystacks import Request, serving

from videochat_flash import remote
from videochat_flash.remote import Refused, Server, Unanswered, pause, post, read_reply, retry_after

BUSY = (429, b'{"error": {"message": "slow down"}}', "1")


def headers(told: str | None) -> Message:
    made = Message()
    if told is not None:
        made["Retry-After"] = told
    return made


def in_a_minute(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def test_what_an_endpoint_asks_for_is_read() -> None:
    assert retry_after(headers("7")) == 7 and retry_after(headers(" 0 ")) == 0
    assert 50 < retry_after(headers(in_a_minute(60))) <= 60 and retry_after(headers(in_a_minute(-60))) == 0
    for told in (None, "", "soon", "-3", "1.5e400", "Thu, 99 Foo"):
        assert retry_after(headers(told)) == 0


def test_waits_differ_and_have_an_end() -> None:
    drawn = {pause(8.0, 0.0) for _ in range(20)}
    assert len(drawn) > 10 and min(drawn) >= 4 and max(drawn) <= 8
    assert 30 < pause(1.0, 30.0) <= 31 and pause(1.0, 86_400.0) == remote.LONGEST == pause(2.0**20, 0.0)


@pytest.mark.parametrize("status", [429, 503])
def test_an_endpoint_is_left_alone_for_as_long_as_it_asks(status: int) -> None:
    times: list[float] = []

    def busy(request: Request) -> str | tuple[int, bytes, str]:
        times.append(time.monotonic())
        return (status, BUSY[1], "1") if request.number < 1 else "At last."

    with serving(busy) as server:
        data = post(Server(server.url, retries=1, wait=0.01), b"{}")
    assert read_reply(data).text == "At last." and times[1] - times[0] >= 1


def test_every_try_waits_for_its_turn() -> None:
    turns: list[int] = []
    with serving(lambda _: BUSY[:2]) as server, pytest.raises(Unanswered, match="HTTP 429: slow down, 3 times"):
        post(Server(server.url, retries=2, wait=0.01), b"{}", lambda: turns.append(len(server.requests)))
    assert turns == [0, 1, 2]


@pytest.mark.parametrize("body", [{"error": {"message": None}}, {"error": {"message": 7}}, {"error": None}, ["error"]])
def test_a_refusal_in_no_words_is_a_refusal(body: object) -> None:
    refusal = (429, json.dumps(body).encode(), "0")
    with serving(lambda _: refusal) as server, pytest.raises(Unanswered, match="HTTP 429: .+, 1 times"):
        post(Server(server.url, retries=0, wait=0.01), b"{}")


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def answer(request: Request) -> str:
        told.append(request.key)
        return "Yes."

    with serving(answer) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\r\n")
        assert read_reply(post(Server(server.url), b"{}")).text == "Yes." and told == ["Bearer sk-secret"]
        for key in ("sk-se\ncret", "sk-secr\u00e9t"):
            monkeypatch.setenv("OPENAI_API_KEY", key)
            with pytest.raises(ValueError, match="characters that no key has") as error:
                post(Server(server.url), b"{}")
            assert "sk-" not in str(error.value)


@pytest.mark.parametrize("usage", ["1e999", '"many"'])
def test_what_is_no_reply_is_told(usage: str) -> None:
    whole = f'{{"choices": [{{"message": {{"content": "cut \\ud83d"}}}}], "usage": {{"prompt_tokens": {usage}}}}}'
    with pytest.raises(Unanswered, match="no chat completion"):
        read_reply(whole.encode())
    assert read_reply(whole.replace(usage, "3").encode()).text == "cut ?"


@pytest.mark.parametrize(("status", "refused"), [(400, True), (422, True), (401, False), (403, False), (404, False)])
def test_what_is_refused_is_not_tried_again(status: int, refused: bool) -> None:
    """A wrong key or address is not the request's fault: with the right one it is answered."""
    with serving(lambda _: (status, b"", "1")) as server, pytest.raises(Unanswered, match=f"HTTP {status}") as told:
        post(Server(server.url, retries=2, wait=0.01), b"{}")
    assert len(server.requests) == 1 and isinstance(told.value, Refused) == refused
