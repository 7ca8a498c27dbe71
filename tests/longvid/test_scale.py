"""Many records, other hours, and a model's exam: what the figures are made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import run, small_model
from haystacks import serving
from longvid_corpus import corpus, video

from videochat_flash.chat import VideoChatFlash
from videochat_flash.longvid import exam, plan
from videochat_flash.longvid import simulate as simulation
from videochat_flash.longvid.pipeline import STATE, STEPS, do
from videochat_flash.longvid.records import Film, Note, Question, line_of
from videochat_flash.longvid.scan import settle
from videochat_flash.longvid.settings import Ask, Describe, Endpoint, Setting, Shots, Sieve, Source
from videochat_flash.longvid.simulate import films, resident, simulate
from videochat_flash.longvid.steps import Made, Step
from videochat_flash.longvid.steps import run as run_step
from videochat_flash.longvid.write import write
from videochat_flash.video import Sampling


def quiet(_: str) -> Any:
    return nullcontext(lambda *_: None)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    source = Source(str(corpus(folder / "films", 2)), "films", annotations=(str(folder / "films"),))
    setting = Setting(str(folder / "out"), (source,), shots=Shots(fps=1), ask=Ask(each=1))
    for name in STEPS[:-1]:
        do(name, setting)
    write(setting, folder / "out" / "sieve.jsonl")
    return folder / "out"


def test_made_up_films_go_through_all_steps_and_copies_are_found(tmp_path: Path) -> None:
    facts = simulate(tmp_path / "out", 60, 0, 1, quiet)
    assert list(facts) == list(STEPS)
    assert (facts["scan"]["records"], facts["scan"]["films"]) == (60, 59)  # one is a copy
    assert all(facts[name]["records"] == 59 for name in STEPS[1:-1]) and facts["write"]["films"] > 59
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == [
        *(f"{name}.aside.jsonl" for name in sorted(STEPS[:-1])[:4]),
        "sieve.aside.jsonl",
        "sieve.jsonl",
        "weave.aside.jsonl",
    ]


def test_a_simulation_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def measured(step: Step, *more: Any) -> Any:
        if step.name == "ask" and "ask" not in done:
            done.append("ask")
            raise KeyboardInterrupt
        done.append(step.name)
        return plainly(step, *more)

    plainly = simulation._measured
    monkeypatch.setattr(simulation, "_measured", measured)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, 60, 0, 1, quiet)
    assert simulate(tmp_path, 60, 0, 1, quiet)["sieve"]["films"] == 59
    assert simulate(tmp_path, 60, 0, 1, quiet)["weave"]["records"] == 59  # told of once more, not done
    assert done == [*STEPS[:4], "ask", *STEPS[4:6]]
    with pytest.raises(ValueError, match="choose another folder"):
        simulate(tmp_path, 61, 0, 1, quiet)


def test_made_up_films_are_the_same_each_time() -> None:
    assert list(films(60, 3)) == list(films(60, 3)) != list(films(60, 4))


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    """Held all at once, the texts alone would be 14 MB, more than may be held in the end, or ever."""

    def lines(count: int) -> Iterator[str]:
        for number in range(count):
            note = Note(0, 1, "caption", f"{number} " * 1000, "made: 1")
            yield line_of(Film(video(key=f"{number:016x}" * 2), (note,)))

    def at_most(count: int, name: str) -> float:
        held = [resident()]
        step = Step(name, {}, lambda: lambda film: Made((film,)), settle=partial(settle, 0.5))
        ran = run_step(step, partial(lines, count), tmp_path, 0.1, lambda *_: held.append(resident()))
        assert ran.films == count
        return max(held) - held[0]

    at_most(200, "warm")
    assert at_most(2500, "cold") < 6


def test_what_a_step_holds_for_a_moment_is_seen(tmp_path: Path) -> None:
    def heavy(films: Any) -> Iterator[Film]:
        held = b"x" * 200_000_000
        yield from films()
        assert held

    def at_most(step: Step) -> float:
        facts = simulation._measured(step, lambda: iter([line_of(Film(video()))]), tmp_path, 1, lambda *_: None)
        return float(facts["most_mb"] - facts["begin_mb"])

    plain = Step("plain", {}, lambda: lambda film: Made((film,)))
    assert at_most(Step("heavy", {}, plain.worker, settle=heavy)) > 190
    assert at_most(plain) < 50  # each step by itself


def test_a_plan_grows_with_the_hours(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "longvid", "plan", built, "--hours", 1000, "--cores", 10, "--json")
    one = json.loads(done.out)
    ten = json.loads(run(capsys, "longvid", "plan", built, "--hours", 10_000, "--cores", 100, "--json").out)
    assert set(one["steps"]) == set(STEPS[:-1]) and one["captions"]["measured"] == 0
    for name, cost in one["steps"].items():
        assert ten["steps"][name]["gigabytes"] == pytest.approx(10 * cost["gigabytes"], abs=0.1)
        assert ten["steps"][name]["core_hours"] == pytest.approx(10 * cost["core_hours"], abs=1)
        assert ten["steps"][name]["days"] == pytest.approx(cost["days"], abs=0.02)
    assert ten["captions"]["shots"] == pytest.approx(10 * one["captions"]["shots"], abs=10)
    size = sum(path.stat().st_size for path in (built / "dataset").rglob("*") if path.is_file())
    many = 1000 / one["measured_hours"]
    assert one["storage"]["dataset"] == pytest.approx(size * many / 1e9, rel=0.05, abs=0.02)
    assert one["storage"]["videos"] > 0 and one["storage"]["needles"] == one["storage"]["responses"] == 0
    assert one["captions"]["prompt_tokens"] == pytest.approx(one["captions"]["shots"] * (8 * 256 + 100))
    told = run(capsys, "longvid", "plan", built, "--cores", 100, "--machine", 64).out
    assert "| scan |" in told and "100 cores are 2 machines." in told


def test_a_plan_takes_the_tokens_that_an_endpoint_counted(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 700, "completion_tokens": 30}
    choice = {"message": {"role": "assistant", "content": "A thing."}, "finish_reason": "stop"}
    with serving(lambda _: (200, json.dumps({"choices": [choice], "usage": usage}).encode())) as server:
        source = Source(str(corpus(tmp_path / "films", 1)), "films")
        setting = Setting(str(tmp_path / "out"), (source,), shots=Shots(fps=1), describe=Describe("endpoint"))
        setting = Setting(**{**vars(setting), "endpoint": Endpoint(server.url, "m")})
        for name in STEPS[:3]:
            do(name, setting)
        setting = Setting(**{**vars(setting), "sieve": Sieve("endpoint"), "ask": Ask(endpoint=2)})
        for name in STEPS[3:6]:
            do(name, setting)
    with (tmp_path / "out" / "responses" / "000.jsonl").open("a") as file:
        file.write('{"key":"0123')  # of a run that was killed
    whole = plan.plan(tmp_path / "out", plan.Assumed(10.0, 1, 1, 256, 8, 128))
    told = whole["captions"]
    assert whole["other_tokens"]["questions"] == [700 * 600, 30 * 600] and whole["other_tokens"]["blind"][0] > 0
    assert "Questions: 420,000 tokens in, 18,000 out" in plan.words(whole)
    assert told["measured"] == 6 and told["prompt_tokens"] == 700 * told["shots"] == 700 * 6 * 600


def test_a_plan_without_a_whole_run_says_what_to_do(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "longvid", "plan", built.parent)
    assert done.code == 1 and "scan.jsonl is missing" in done.err


@pytest.mark.parametrize("changes", [{"before": 1}, None])
def test_a_plan_of_a_build_that_was_interrupted_names_the_steps_without_a_cost(
    changes: dict[str, int] | None, built: Path, tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "out")
    state = json.loads((tmp_path / "out" / STATE).read_text())
    for name in ("shots", "ask"):
        state[name] = {**state[name], **changes} if changes else None
    told = {name: one for name, one in state.items() if one}
    (tmp_path / "out" / STATE).write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"out: shots, ask did not run from beginning to end in one run"):
        plan.plan(tmp_path / "out", plan.Assumed(10.0, 1, 1, 256, 8, 128))


def test_the_exam_reads_what_was_written_and_asks_with_and_without_the_video(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = list(exam.held_out(built))
    assert asked and len({place for place, _ in asked}) == 1
    for _, question in asked:
        assert exam.points(question.reply, question) == 1.0, question
        assert question.question and not (question.options and question.options[0] in question.question.split("\n"))
    vc = VideoChatFlash.from_pretrained(str(small_model(tmp_path)))
    told: list[int] = []
    scores = exam.exam(vc, asked[:3], Sampling(max_frames=8), told.append)
    assert told == [1, 2, 3] and sum(one.asked for one in scores.values()) == 3
    done = run(
        capsys, "longvid", "exam", built, "--model", small_model(tmp_path), "--max-frames", 8, "--most", 2, "--json"
    )
    assert done.code == 0, done.err
    assert sum(one["asked"] for one in json.loads(done.out)["families"].values()) == 2


def test_captions_are_scored_by_shared_words() -> None:
    question = Question("0" * 16, "caption", "whole", "What?", "A red dog runs.", 0, 1, "template 1")
    assert exam.points("a red dog", question) == pytest.approx(2 / 3)


def test_of_two_things_one_came_first_whether_or_not_they_are_options() -> None:
    order = Question("0" * 16, "relationship", "order", "Which?", "A dog", 0, 1, "template 1")
    assert exam.chance(order) == exam.chance(replace(order, options=("A dog", "A cup"))) == 0.5
    other = replace(order, kind="after")
    assert exam.chance(other) == 0 and exam.chance(replace(other, options=("A dog", "a", "b", "c"))) == 0.25


def test_an_exam_without_the_layout_that_it_reads_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the steps before"):
        next(exam.held_out(tmp_path))
    (tmp_path / "dataset").mkdir()
    with pytest.raises(FileNotFoundError, match=r"validation.jsonl is missing: name reference in write.formats"):
        next(exam.held_out(tmp_path))
