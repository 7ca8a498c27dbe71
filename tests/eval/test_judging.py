"""A judge at an endpoint: what it is asked, what is made of what it says, and that its failures are no scores."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from annotations import JUDGED
from command import run
from haystacks import Request, serving

from videochat_flash.eval import judging
from videochat_flash.eval.lmms import tasks
from videochat_flash.remote import Unanswered

pytestmark = pytest.mark.usefixtures("unchecked")


def words(request: Request) -> str:
    assert request.body["temperature"] == 0 and request.body["model"] == "some-judge"
    return str(request.body["messages"][0]["content"])


def judge(request: Request) -> str:
    """Answers what the caption says of a question, and tells whether that is the truth."""
    text = words(request)
    if text.startswith("Here is a description"):
        found = re.search(r"video:\n(.*?)\n\nAnswer.*Question: (Q\d)", text, re.DOTALL)
        assert found
        said = dict(part.split("=") for part in found[1].split(";") if "=" in part)
        return said.get(found[2], "It does not say.")
    truth, given = re.findall(r"(?:Right|Given) answer: (.*)\n", text)
    if "the letter alone" in text:
        return "A" if truth in given else "C" if given == "?" else "B. It differs."
    same = truth == given
    return "no idea" if given == "gibberish" else str({"pred": "yes" if same else "no", "score": 5 if same else 1})


def docs_of(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:

    some = JUDGED[name](tmp_path / "data")
    assert run(capsys, "rows", name, *some.files, "--videos", some.videos, "--out", tmp_path / "rows.jsonl").code == 0
    return [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(judging.MODEL, "some-judge")
    return monkeypatch


def test_captions_are_judged_by_questions_about_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: pytest.MonkeyPatch
) -> None:
    docs = docs_of("vdc", tmp_path, capsys)
    captions = ["Q0=a0;Q1=a1", "Q0=a0;Q1=wrong", "Q0=a0;Q1=gibberish", "nothing of it", "Q0=a0;Q1=a1"]
    with serving(judge) as server:
        named.setenv(judging.URL, server.url)
        found = [tasks.scores(doc, [said]) for doc, said in zip(docs, captions, strict=True)]
    assert len(server.requests) == 5 * 2 * 2
    some = [one["accuracy"] for one in found]
    assert [one["score"] for one in some] == [1, 0.5, 0.5, 0, 1]
    assert tasks.vdc_accuracy(some) == pytest.approx(3 / 5) and tasks.unjudged(some) == 1
    assert tasks.vdc_score(some) == pytest.approx((5 + 3 + 2.5 + 1 + 5) / 5)
    assert tasks.vdc_accuracy(some[:4]) is None  # without an aspect there is no headline
    assert found[3]["accuracy_aspect_main_object"]["score"] == 0
    assert some[2]["raw"][1] == ["gibberish", "no idea"] and some[0]["judge"] == "some-judge"


def test_answers_in_words_are_correct_or_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: pytest.MonkeyPatch
) -> None:
    (doc,) = docs_of("videoeval-pro-open", tmp_path, capsys)
    with serving(judge) as server:
        named.setenv(judging.URL, server.url)
        found = [tasks.scores(doc, [said])["accuracy"] for said in ("two", "three", "?")]
    assert [one["score"] for one in found] == [1, 0, 0] and found[1]["raw"] == "B. It differs."
    assert tasks.to_target(doc) == "two"


def test_a_failure_of_the_judge_is_no_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: pytest.MonkeyPatch
) -> None:
    (doc,) = docs_of("videoeval-pro-open", tmp_path, capsys)
    with serving(lambda _: (400, b"no")) as server:
        named.setenv(judging.URL, server.url)
        with pytest.raises(Unanswered, match="HTTP 400"):
            tasks.scores(doc, ["two"])


def test_without_a_judge_nothing_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (doc,) = docs_of("videoeval-pro-open", tmp_path, capsys)
    for name in (judging.URL, judging.MODEL):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="VCFLASH_JUDGE and VCFLASH_JUDGE_MODEL is not set"):
        tasks.to_text(doc, {"folder": str(tmp_path)})
    with pytest.raises(ValueError, match="is not as http"):
        judging.judge_of({judging.URL: "localhost", judging.MODEL: "x"})


def test_the_aspect_is_told_by_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = JUDGED["vdc"](tmp_path / "data")
    path = some.files[0].rename(tmp_path / "captions.jsonl")
    done = run(capsys, "rows", "vdc", path, "--videos", some.videos, "--out", tmp_path / "rows.jsonl")
    assert done.code == 1 and "its name must tell which captions" in done.err and len(done.lines) == 1
