"""An endpoint that captions, asks and answers blind; and one that fails, refuses and rambles."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import small_model
from haystacks import Request, serving
from longvid_corpus import corpus, film
from serving import PATIENCE
from serving import serving as served

from videochat_flash.longvid.answers import Answers, Pace
from videochat_flash.longvid.pipeline import do
from videochat_flash.longvid.records import read_asides, read_films
from videochat_flash.longvid.settings import Ask, Describe, Endpoint, Setting, Shots, Sieve, default

pytestmark = pytest.mark.usefixtures("unchecked")


def setting_of(videos: Path, out: Path, url: str, **more: Any) -> Setting:
    endpoint = Endpoint(url, "m", retries=0, timeout=20)
    return replace(default(str(videos), str(out)), endpoint=endpoint, **{"max_failed": 1.0, **more})


def through(setting: Setting, *names: str) -> None:
    for name in names:
        do(name, setting)


def responses(out: Path) -> list[dict[str, Any]]:
    files = sorted((out / "responses").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@pytest.mark.parametrize("send", ["frames", "video"])
def test_shots_are_captioned_from_their_frames_and_every_response_is_kept(send: Any, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    film(films / "silent.mp4", 1)
    describe = Describe("endpoint", send, frames=4, side=64)
    with serving(lambda request: f"A mosaic number {request.number}.") as server:
        setting = setting_of(films, tmp_path / "out", server.url, describe=describe, shots=Shots(fps=1))
        through(setting, "scan", "shots", "describe", "weave", "ask", "sieve")
        first = len(server.requests)
        through(replace(setting, describe=replace(describe, how="both")), "describe")
        assert len(server.requests) == first == 6  # what was said before is not asked again
    frames = [request.frames() for request in server.requests]
    assert all(len(some) == 4 and max(some[0].shape) == 64 for some in frames)
    assert any("0:10 to 0:20" in request.words for request in server.requests)
    [made] = read_films(tmp_path / "out" / "sieve.jsonl")
    captions = [note for note in made.notes if note.kind == "caption"]
    assert [(note.start, note.end) for note in captions] == [(10.0 * i, 10.0 * i + 10) for i in range(6)]
    assert all(note.origin.startswith("m caption@") and note.text.startswith("A mosaic") for note in captions)
    assert made.questions and len(responses(tmp_path / "out")) == 6
    assert all("choices" in json.loads(one["response"]) for one in responses(tmp_path / "out"))


@pytest.mark.slow
def test_our_own_server_is_an_endpoint(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    film(films / "silent.mp4", 1, seconds=20, scenes=2)
    with served(small_model(tmp_path), tmp_path / "store") as server:
        for send in ("frames", "video"):
            setting = setting_of(
                films,
                tmp_path / send,
                server.url,
                describe=Describe("endpoint", send, frames=4, side=64),  # type: ignore[arg-type]
                shots=Shots(fps=1),
            )
            setting = replace(setting, endpoint=Endpoint(server.url, server.model, timeout=PATIENCE))
            through(setting, "scan", "shots")
            ran = do("describe", setting)
            assert (ran.films, ran.failed, ran.entries) == (1, 0, 2)
            told = [json.loads(one["response"]) for one in responses(tmp_path / send)]
            assert len(told) == 2 and all(one["model"] == server.model and one["usage"] for one in told)


def test_annotations_are_captioned_only_where_they_are_silent(tmp_path: Path) -> None:
    films = corpus(tmp_path / "films", 1)
    path = films / "film0.json"
    value = json.loads(path.read_text())
    value["film0"] = {key: some[:4] if isinstance(some, list) else some for key, some in value["film0"].items()}
    path.write_text(json.dumps(value))
    with serving(lambda _: "Something new.") as server:
        setting = setting_of(films, tmp_path / "out", server.url, describe=Describe("both"), shots=Shots(fps=1))
        through(setting, "scan", "shots", "describe")
        assert len(server.requests) == 2
    [made] = read_films(tmp_path / "out" / "describe.jsonl")
    assert [note.start for note in made.notes if note.text == "Something new."] == [40.0, 50.0]


def test_what_fails_is_tried_again_and_what_was_answered_is_not(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for number in range(2):
        film(films / f"silent{number}.mp4", number)
    describe, out = Describe("endpoint"), tmp_path / "out"

    def broken(request: Request) -> str | tuple[int, bytes]:
        return (503, b"busy") if request.number >= 9 else "A thing."

    with serving(broken) as server:
        setting = setting_of(films, out, server.url, describe=describe, shots=Shots(fps=1))
        setting = replace(setting, endpoint=replace(setting.endpoint, parallel=1))
        through(setting, "scan", "shots")
        ran = do("describe", setting)
        assert (ran.films, ran.failed) == (1, 1)
    [failed] = read_asides(out / "describe.aside.jsonl")
    assert failed.kind == "failed" and "HTTP 503" in failed.reason
    assert [one["response"] for one in responses(out)].count("busy") >= 1
    with serving(lambda _: "A thing.") as server:
        ran = do("describe", replace(setting, endpoint=replace(setting.endpoint, url=server.url)))
        assert (ran.before, ran.films, ran.failed) == (1, 2, 0) and len(server.requests) == 3


def test_a_refusal_and_an_empty_caption_are_entries_and_the_film_goes_on(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    film(films / "silent.mp4", 1)

    def picky(request: Request) -> str | tuple[int, bytes]:
        return {0: (400, b'{"error": {"message": "not this one"}}'), 1: " "}.get(request.number, "A thing.")

    with serving(picky) as server:
        setting = setting_of(films, tmp_path / "out", server.url, describe=Describe("endpoint"), shots=Shots(fps=1))
        through(setting, "scan", "shots", "describe")
    reasons = sorted(one.reason for one in read_asides(tmp_path / "out" / "describe.aside.jsonl"))
    assert reasons == ["HTTP 400: not this one", "an empty caption"]
    kept = [one["response"] for one in responses(tmp_path / "out") if one["failed"]]
    assert kept == ['{"error": {"message": "not this one"}}']
    [made] = read_films(tmp_path / "out" / "describe.jsonl")
    assert sum(note.kind == "caption" for note in made.notes) == 4


GOOD = {"family": "summary", "question": "What is cut?", "answer": "The onion on a board", "events": [1, 4]}
MADE_UP = {"family": "summary", "question": "Who sings?", "answer": "An opera singer from Milan", "events": [2]}


def test_questions_of_an_endpoint_must_be_in_their_source(tmp_path: Path) -> None:
    films = corpus(tmp_path / "films", 1)
    written = [GOOD, MADE_UP, {"family": "summary", "question": "?", "answer": "x", "events": [99]}, "prose"]
    with serving(lambda _: json.dumps(written)) as server:
        ask = Ask(endpoint=4, families=("summary",))
        setting = setting_of(films, tmp_path / "out", server.url, ask=ask, shots=Shots(fps=0))
        through(setting, "scan", "shots", "describe", "weave", "ask", "sieve")
        assert "1. 10 to 20 s, seen: A man cuts the onion on a board." in server.requests[0].words
    out = tmp_path / "out"
    [made] = read_films(out / "sieve.jsonl")
    assert [(one.answer, one.maker.split("@")[0]) for one in made.questions] == [(GOOD["answer"], "m questions")]
    assert [one.reason for one in read_asides(out / "sieve.aside.jsonl")] == ["its answer is not in its source"]
    assert {one.kind for one in read_asides(out / "ask.aside.jsonl")} == {"entry"}
    assert len(list(read_asides(out / "ask.aside.jsonl"))) == 2


def test_questions_of_an_endpoint_have_options_and_keep_to_the_families(tmp_path: Path) -> None:
    films = corpus(tmp_path / "films", 1)
    written = [{**GOOD, "wrong": ["The bread", "The ball"]}, {**GOOD, "family": "count"}, {**GOOD, "wrong": "bread"}]
    with serving(lambda _: json.dumps(written)) as server:
        ask = Ask(endpoint=4, families=("summary",), choices=1.0)
        setting = setting_of(films, tmp_path / "out", server.url, ask=ask, shots=Shots(fps=0))
        through(setting, "scan", "shots", "describe", "weave", "ask", "sieve")
        assert '"family": one of summary;' in server.requests[0].words
        assert '"wrong": a list of 3 answers' in server.requests[0].words
    [made] = read_films(tmp_path / "out" / "sieve.jsonl")
    assert [sorted(one.options) for one in made.questions] == [["The ball", "The bread", GOOD["answer"]]]
    reasons = [one.reason for one in read_asides(tmp_path / "out" / "ask.aside.jsonl")]
    assert len(reasons) == 2 and "family is none of summary" in reasons[0] and "no list of answers" in reasons[1]


def test_a_question_that_holds_half_a_character_is_kept_aside(tmp_path: Path) -> None:
    """It could not be written down, and would end the build whenever it went on."""
    films = corpus(tmp_path / "films", 1)
    half = "cut \ud83d"
    written = [{**GOOD, "wrong": ["The bread", half]}, {**GOOD, "question": half}, {**GOOD, "answer": half}, GOOD]
    with serving(lambda _: json.dumps(written)) as server:
        ask = Ask(endpoint=4, families=("summary",), choices=1.0)
        setting = setting_of(films, tmp_path / "out", server.url, ask=ask, shots=Shots(fps=0))
        through(setting, "scan", "shots", "describe", "weave", "ask", "sieve")
    [made] = read_films(tmp_path / "out" / "sieve.jsonl")
    assert [one.answer for one in made.questions] == [GOOD["answer"]]
    reasons = [one.reason for one in read_asides(tmp_path / "out" / "ask.aside.jsonl")]
    assert reasons == ["it holds half a character"] * 3


def test_prose_is_kept_aside_whole(tmp_path: Path) -> None:
    films = corpus(tmp_path / "films", 1)
    with serving(lambda _: "Sure! Here are some questions.") as server:
        setting = setting_of(films, tmp_path / "out", server.url, ask=Ask(endpoint=4), shots=Shots(fps=0))
        through(setting, "scan", "shots", "describe", "weave", "ask")
    [one] = read_asides(tmp_path / "out" / "ask.aside.jsonl")
    assert (one.reason, one.raw) == ("the endpoint wrote prose, no JSON list", "Sure! Here are some questions.")
    [made] = read_films(tmp_path / "out" / "ask.jsonl")
    assert made.questions  # those of the templates


@pytest.mark.parametrize("fence", ["", "```json\n"])
def test_of_a_list_that_is_cut_off_the_whole_questions_are_read_and_it_is_said(fence: str, tmp_path: Path) -> None:
    films = corpus(tmp_path / "films", 1)
    text = f"{fence}{json.dumps([GOOD, {**GOOD, 'question': 'What is put on a board?'}, GOOD])[:-9]}"
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "length"}
    with serving(lambda _: (200, json.dumps({"choices": [choice]}).encode())) as server:
        ask = Ask(endpoint=4, families=("summary",))
        setting = setting_of(films, tmp_path / "out", server.url, ask=ask, shots=Shots(fps=0))
        through(setting, "scan", "shots", "describe", "weave", "ask")
        assert server.requests[0].body["max_tokens"] == 4 * (120 + 3 * 30)
        again = replace(setting, ask=replace(ask, options=5))
        do("ask", again)
        assert server.requests[1].body["max_tokens"] == 4 * (120 + 4 * 30)  # what was cut may be whole now
    [one] = read_asides(tmp_path / "out" / "ask.aside.jsonl")
    assert (one.reason, one.raw) == ("the reply was cut off at 960 tokens, behind 2 whole questions", text)
    [made] = read_films(tmp_path / "out" / "ask.jsonl")
    assert [question.question for question in made.questions] == ["What is cut?", "What is put on a board?"]


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("drop", [True, False])
def test_what_is_answered_blind_is_marked_or_goes(drop: bool, knows: bool, tmp_path: Path) -> None:
    """An endpoint that always says 1 is right about what happens once, and does not know it for that."""
    films = corpus(tmp_path / "films", 1)
    with serving(lambda request: "Two." if knows and "onion" in request.words else "1 time") as server:
        ask = Ask(families=("count", "relationship"), choices=0.0)
        rules = Sieve("endpoint", drop_guessed=drop)
        setting = setting_of(films, tmp_path / "out", server.url, ask=ask, sieve=rules, shots=Shots(fps=0))
        through(setting, "scan", "shots", "describe", "weave", "ask", "sieve")
        assert all(isinstance(request.body["messages"][0]["content"], list) for request in server.requests)
        assert all(len(request.body["messages"][0]["content"]) == 1 for request in server.requests)
    [made] = read_films(tmp_path / "out" / "sieve.jsonl")
    told = {one.answer: (one.blind, one.guessed) for one in made.questions if one.family == "count"}
    assert told == ({} if knows and drop else {"2": ("Two." if knows else "1 time", knows), "1": ("1 time", knows)})
    assert not any(one.guessed for one in made.questions if one.family != "count")
    reasons = [one.reason for one in read_asides(tmp_path / "out" / "sieve.aside.jsonl")]
    assert reasons.count("answered without the video") == (2 if knows and drop else 0)


@pytest.mark.slow
def test_flash_tiny_can_be_asked_blind(tmp_path: Path) -> None:
    films = corpus(tmp_path / "films", 1)
    setting = default(str(films), str(tmp_path / "out"))
    setting = replace(setting, shots=Shots(fps=0), ask=Ask(families=("count",)), sieve=Sieve("flash-tiny"))
    through(setting, "scan", "shots", "describe", "weave", "ask", "sieve")
    made = [one for film in read_films(tmp_path / "out" / "sieve.jsonl") for one in film.questions]
    gone = list(read_asides(tmp_path / "out" / "sieve.aside.jsonl"))
    assert len(made) + len(gone) == 2 and all(one.blind for one in made)


def test_requests_keep_to_their_pace() -> None:
    pace = Pace(600)
    began = time.monotonic()
    for _ in range(4):
        pace.wait()
    assert time.monotonic() - began >= 0.3
    Pace(0).wait()


def test_what_films_have_in_common_is_asked_once(tmp_path: Path) -> None:
    with serving(lambda request: f"answer {request.number}") as server:
        answers = Answers(setting_of(tmp_path / "films", tmp_path / "out", server.url))
        said = [answers.ask({"blind": True}, list, words, 9).text for words in ("What?", "Who?", "What?")]
        shown = [{"type": "text", "text": "a picture"}]
        seen = [answers.ask({"video": name}, lambda: shown, "What?", 9).text for name in "ab"]
        answers.close()
    assert said == ["answer 0", "answer 1", "answer 0"] and seen == ["answer 2", "answer 3"]
    assert len(responses(tmp_path / "out")) == 4


def test_two_processes_write_two_files(tmp_path: Path) -> None:
    setting = setting_of(tmp_path / "films", tmp_path / "out", "http://127.0.0.1:9/v1")
    first, second = Answers(setting), Answers(setting)
    assert Path(first.log.file.name).name == "000.jsonl" and Path(second.log.file.name).name == "001.jsonl"
    first.close()
    second.close()
    third = Answers(setting)
    assert Path(third.log.file.name).name == "000.jsonl"
    third.close()
