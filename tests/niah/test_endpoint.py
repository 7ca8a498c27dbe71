"""Endpoints, good and bad: each failure is told in words, retried where that may help, and never scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystacks import Behaviour, Eyes, Request, Server, near, serving, slowly, small

from videochat_flash.journal import read_run
from videochat_flash.niah import endpoint
from videochat_flash.niah.endpoint import Endpoint, Line
from videochat_flash.niah.place import Part
from videochat_flash.niah.results import Shard, read_results
from videochat_flash.niah.run import Ran, run
from videochat_flash.niah.score import summary
from videochat_flash.niah.suite import Suite
from videochat_flash.remote import Unanswered

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return small(
        tmp_path_factory.mktemp("suites") / "little", lengths=(16,), depths=(0.0, 0.5, 1.0), items=2, controls=1
    )


def line(server: Server, **more: Any) -> Line:
    return Line(server.url, "m", wait=0.01, **more)


def ran(suite: Suite, folder: Path, behaviour: Behaviour, **more: Any) -> tuple[Ran, dict[str, Any], Server]:
    """A whole run against an endpoint, without the delivery check."""
    with serving(behaviour) as server:
        told = run(suite, folder, Endpoint(line(server, **more), suite), Shard(), lambda *_: None)
    return told, summary(suite, read_results(suite, folder), read_run(folder)), server


@pytest.mark.parametrize("form", ["video", "frames"])
def test_an_oracle_is_right_and_gets_every_frame(form: Any, suite: Suite, tmp_path: Path) -> None:
    told, facts, server = ran(suite, tmp_path, Eyes(suite), form=form, stamps=form == "frames")
    grid = [one for one in suite.trials if not one.control]
    assert told.failed == 0 and facts["accuracy"] == 1.0 and facts["controls"]["single"]["shares"]["C0"]["right"] == 0
    trial = grid[1]
    request = next(one for one in server.requests if one.words == trial.prompt and len(one.frames()) == 16)
    films = [one.film for one in grid if one.prompt == trial.prompt]
    sent = request.frames()
    assert any(
        all(near(a.astype(int), b.astype(int)) for a, b in zip(suite.scenery(0).frames(film), sent, strict=True))
        for film in films
    )
    body = request.body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 8)
    stamps = [part["text"] for part in body["messages"][0]["content"][:-1] if part["type"] == "text"]
    assert stamps == ([f"{i} s:" for i in range(16)] if form == "frames" else [])
    assert body.get("mm_processor_kwargs") == ({"fps": 1.0, "num_frames": 16} if form == "video" else None)


def test_the_same_trial_is_the_same_request(suite: Suite) -> None:
    bodies = []
    with serving(lambda _: "A") as server:
        for _ in range(2):
            Endpoint(line(server), suite)(suite.trials[0])
        bodies = [json.dumps(one.body) for one in server.requests]
    assert bodies[0] == bodies[1]


def test_a_key_is_sent_where_there_is_one(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = next(one for one in suite.trials if one.control == "C0")
    with serving(lambda _: "A") as server:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        Endpoint(line(server), suite)(blind)
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        Endpoint(line(server), suite)(blind)
    assert [one.key for one in server.requests] == ["", "Bearer secret"]
    assert "secret" not in str(Endpoint(line(server), suite).settings)


def test_one_that_fails_half_the_time_is_asked_again(suite: Suite, tmp_path: Path) -> None:
    eyes = Eyes(suite)

    def half(request: Request) -> str | tuple[int, bytes]:
        return (503, b'{"error": {"message": "busy"}}') if request.number % 2 == 0 else eyes(request)

    told, facts, server = ran(suite, tmp_path / "again", half, retries=1)
    assert told.failed == 0 and facts["accuracy"] == 1.0 and len(server.requests) == 2 * len(suite.trials)
    told, facts, _ = ran(suite, tmp_path / "once", half, retries=0)
    assert told.failed == (len(suite.trials) + 1) // 2 and facts["counts"]["errors"] == told.failed
    assert list(facts["counts"]["error_kinds"]) == ["HTTP 503: busy, 1 times"]
    assert facts["accuracy"] == 1.0  # of what was answered
    told, facts, _ = ran(suite, tmp_path / "other", eyes)
    assert told.failed == 0


def blind_of(suite: Suite) -> Any:
    return next(one for one in suite.trials if one.control == "C0")


@pytest.mark.parametrize(
    ("reply", "words", "requests"),
    [
        ((400, b'{"error": {"message": "context of 4096 exceeded"}}'), "HTTP 400: context of 4096 exceeded", 1),
        ((401, b'{"error": "who are you"}'), "HTTP 401: who are you", 1),
        ((404, b"<html>"), "HTTP 404: Not Found", 1),
        ((500, b""), "HTTP 500: Internal Server Error, 2 times", 2),
        ((429, b"{}"), "HTTP 429: Too Many Requests, 2 times", 2),
        ((200, b"<html>hello"), "no chat completion but b'<html>hello'", 1),
        ((200, b'{"choices": []}'), "no chat completion", 1),
        ((200, b'{"choices": [{"message": {"content": [1]}}]}'), "no text but '[1]'", 1),
    ],
)
def test_replies_that_are_no_answers(reply: tuple[int, bytes], words: str, requests: int, suite: Suite) -> None:
    with serving(lambda _: reply) as server, pytest.raises(Unanswered) as error:
        Endpoint(line(server, retries=1), suite)(blind_of(suite))
    assert words in str(error.value) and len(server.requests) == requests


def test_one_that_does_not_answer_in_time(suite: Suite) -> None:
    with serving(slowly(1.0, lambda _: "A")) as server, pytest.raises(Unanswered, match=r"within 0.2 s, 2 times"):
        Endpoint(line(server, timeout=0.2, retries=1), suite)(blind_of(suite))


def test_one_that_is_not_there(suite: Suite) -> None:
    with serving(lambda _: "A") as server:
        pass
    with pytest.raises(Unanswered, match="no connection: .*refused.*, 1 times"):
        Endpoint(line(server, retries=0), suite)(blind_of(suite))


def test_prose_and_silence_are_answers_that_are_wrong(suite: Suite, tmp_path: Path) -> None:
    prose = "It is hard to say, there are many shapes, but A red one comes to mind, or B perhaps."
    told, facts, _ = ran(suite, tmp_path / "prose", lambda _: prose)
    assert told.failed == 0 and facts["counts"]["unparsed"] == len(suite.trials) and facts["accuracy"] == 0
    told, facts, _ = ran(suite, tmp_path / "empty", lambda _: "")
    assert told.failed == 0 and facts["counts"]["empty"] == len(suite.trials)
    null = json.dumps({"choices": [{"message": {"content": None}}]}).encode()
    told, facts, _ = ran(suite, tmp_path / "null", lambda _: (200, null))
    assert facts["counts"]["empty"] == len(suite.trials)


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_what_ended_before_its_first_word_is_no_answer(finish: str, suite: Suite, tmp_path: Path) -> None:
    def choice(text: str | None) -> tuple[int, bytes]:
        return 200, json.dumps({"choices": [{"message": {"content": text}, "finish_reason": finish}]}).encode()

    told, facts, _ = ran(suite, tmp_path / "part", lambda one: choice(None if one.number < 3 else "A red"))
    assert told.failed == facts["counts"]["errors"] == 3 and facts["counts"]["empty"] == 0
    [kind] = facts["counts"]["error_kinds"]
    assert finish in kind and ("--max-new-tokens" in kind) == (finish == "length")
    assert facts["counts"]["cut"] == (told.answered if finish == "length" else 0)


def test_the_limit_of_tokens_is_sent_and_kept(suite: Suite) -> None:
    with serving(lambda _: "A") as server:
        asker = Endpoint(line(server), suite, 300)
        asker(blind_of(suite))
    assert server.requests[0].body["max_tokens"] == 300 and asker.settings["max_new_tokens"] == [300, 300]


# The delivery check.


@pytest.mark.parametrize("form", ["video", "frames"])
def test_who_sees_everything_passes_the_delivery_check(form: Any, suite: Suite) -> None:
    with serving(Eyes(suite)) as server:
        asker = Endpoint(line(server, form=form), suite)
        assert asker.facts["delivery"] is None
        asker.ready()
    assert asker.facts["delivery"] == "passed" and len(server.requests) == len(endpoint.CODE_PLACES)


@pytest.mark.parametrize("every", [2, 3, 4])
@pytest.mark.parametrize("first", [0, 1])
def test_who_drops_frames_is_refused(every: int, first: int, suite: Suite) -> None:
    drops = Eyes(suite, lambda i: i % every != (every - 1) * first)
    with serving(drops) as server, pytest.raises(ValueError, match="the delivery check failed: frame .* showed code"):
        Endpoint(line(server, form="frames"), suite).ready()


@pytest.mark.parametrize("first", [True, False])
def test_who_takes_so_many_frames_and_no_more_is_refused(first: bool, tmp_path: Path) -> None:
    long = small(tmp_path / "long", lengths=(16, 48), depths=(0.5,), items=1, controls=0)

    def capped(request: Request) -> str:
        count = len(request.frames())
        kept = range(24) if first else np.linspace(0, count - 1, min(count, 24)).round().astype(int).tolist()
        return Eyes(long, set(kept).__contains__)(request)

    with serving(Eyes(long)) as server:
        Endpoint(line(server, form="frames"), long).ready()
        assert [len(one.frames()) for one in server.requests] == [16] * 4 + [48] * 2
    with serving(capped) as server, pytest.raises(ValueError, match="frame .* of 48 showed code"):
        Endpoint(line(server, form="frames"), long).ready()


def test_who_sees_the_beginning_alone_is_refused(suite: Suite) -> None:
    with serving(Eyes(suite, lambda i: i < 8)) as server, pytest.raises(ValueError, match="drops or blurs frames"):
        Endpoint(line(server, form="frames"), suite).ready()


def test_who_does_not_answer_is_refused(suite: Suite) -> None:
    with serving(lambda _: (500, b"")) as server, pytest.raises(ValueError, match="was not answered: HTTP 500"):
        Endpoint(line(server, retries=0), suite).ready()


# What is refused before anything is sent.


@pytest.mark.parametrize("url", ["", "localhost:8000/v1", "ftp://host/v1", "http:///v1", "file:///etc/passwd"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="--endpoint"):
        Line(url, "m")


@pytest.mark.parametrize("more", [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}])
def test_patience_that_is_none(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="--timeout"):
        Line("http://host/v1", "m", **more)


def test_long_films_are_not_sent_as_pictures(suite: Suite) -> None:
    film = (Part("", 0, endpoint.MOST_PICTURES + 4),)
    longer = replace(suite, trials=(replace(suite.trials[0], film=film),))
    with pytest.raises(ValueError, match="1004 frames are too long to be sent as pictures, 1000 at most"):
        Endpoint(Line("http://host/v1", "m", "frames"), longer)
    assert Endpoint(Line("http://host/v1", "m"), longer).settings["transport"] == "openai-video"


def test_compat_needs_a_model_in_this_process(suite: Suite) -> None:
    compatible = replace(suite, setting=replace(suite.setting, mode="compat", needles="list.json"))
    with pytest.raises(ValueError, match="compat scores the likeliest token"):
        Endpoint(Line("http://host/v1", "m"), compatible)


def test_needle_frames_are_key_frames() -> None:
    film = (Part("", 0, 8), Part("a", 7, 2), Part("", 8, 4), Part("b", 0, 1))
    assert endpoint.keys_of(film) == [0, 8, 9, 10, 14]
