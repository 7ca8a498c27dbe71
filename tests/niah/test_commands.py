"""vcflash niah: what each command prints, writes and refuses."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import videos
from command import Done, run
from haystacks import Eyes, serving
from PIL import Image

from videochat_flash.niah.suite import load_suite

pytestmark = pytest.mark.usefixtures("unchecked")
SHORT = ("--lengths", "16", "--depths", "0,1", "--controls", "0", "--size", "96x64")
FEW = (*SHORT, "--items", "2")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("suites") / "suite"


def test_from_nothing_to_a_report(built: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "niah", "build", "--out", built, *FEW) == Done(0, f"{built}: 4 trials and 0 of controls\n", "")
    assert run(capsys, "niah", "verify", built).code == 0
    done = run(capsys, "niah", "run", built, "--model", model, "--trained", 12)
    assert done == Done(0, f"{built}: 4 answers, 0 were there, 0 of 4 failed\n", "")
    again = run(capsys, "niah", "run", built, "--model", model, "--json")
    assert json.loads(again.out) == {"trials": 4, "before": 4, "answered": 0, "failed": 0}
    told = json.loads(run(capsys, "niah", "score", built, "--json").out)
    assert 0 <= told["accuracy"] <= 1 and told["lines"]["trained"] == 12 and told["counts"]["answered"] == 4
    assert json.loads((built / "summary.json").read_text()) == told
    assert (built / "report.md").read_text().startswith("# Needle in a video haystack\n")
    shown = run(capsys, "niah", "score", built)
    assert shown.code == 0 and "accuracy" in shown.out and shown.err == ""
    drawn = run(capsys, "niah", "plot", built)
    assert drawn.out.split() == [str(built / f"heatmap.{form}") for form in ("png", "svg")]
    checked = json.loads(run(capsys, "niah", "verify", built, "--json").out)
    assert checked == {"trials": 4, "answered": 4, "failed": 0, "wrong": []}
    other = run(capsys, "niah", "run", built, "--model", model, "--keep", "off")
    assert other.code == 1 and "another run (keep [[2, 0.5, 'attention']" in other.err and "--name" in other.err
    named = run(capsys, "niah", "run", built, "--model", model, "--keep", "off", "--name", "all", "--shard", "1/2")
    assert named.code == 0 and (built / "all" / "results-1-of-2.jsonl").is_file()
    compared = run(capsys, "niah", "score", built, "--name", "all", "--against", "", "--json")
    [against] = json.loads(compared.out)["against"]["parts"]
    assert compared.code == 0 and against["part"] == "single-hop" and 0 < against["trials"] < 4
    assert compared.lines[0].startswith("vcflash: note: 0 trials failed and")


def test_an_endpoint_is_checked_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "suite"
    run(capsys, "niah", "build", "--out", where, *FEW, "--ask", "letters")
    suite = load_suite(where)
    with serving(Eyes(suite)) as server:
        done = run(capsys, "niah", "run", where, "--endpoint", server.url, "--model", "m", "--send", "frames")
        assert done == Done(0, f"{where}: 4 answers, 0 were there, 0 of 4 failed\n", "")
    assert json.loads(run(capsys, "niah", "score", where, "--json").out)["accuracy"] == 1.0
    with serving(Eyes(suite, lambda i: i < 4)) as server:
        asked = ["niah", "run", where, "--endpoint", server.url, "--model", "m", "--send", "frames", "--name", "blind"]
        refused = run(capsys, *asked)
        assert refused.code == 1 and "delivery check failed" in refused.err and len(refused.lines) == 1
        assert not (where / "blind").exists()
        assert run(capsys, *asked, "--no-delivery-check").code == 0
    assert (
        "delivery=not checked"
        in json.loads(run(capsys, "niah", "score", where, "--name", "blind", "--json").out)["flags"]
    )
    with serving(lambda _: (500, b"")) as server:
        lost = run(
            capsys, "niah", "run", where, "--endpoint", server.url, "--model", "m", "--name", "lost",
            "--no-delivery-check", "--retries", 0,
        )  # fmt: skip
    assert lost.code == 1 and lost.lines == [
        "vcflash: 4 trials failed and are not scored: the same command tries them again"
    ]
    nothing = run(capsys, "niah", "score", where, "--name", "lost")
    assert nothing.code == 1 and "the last error: HTTP 500" in nothing.err


def test_what_is_of_a_model_here_is_refused_of_an_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "suite"
    run(capsys, "niah", "build", "--out", where, *FEW)
    for option in (["--keep", "off"], ["--pixels"], ["--device", "cuda"], ["--yarn", 2.0, "--dtype", "float32"]):
        done = run(capsys, "niah", "run", where, "--endpoint", "http://localhost:1/v1", "--model", "m", *option)
        assert done.code == 2 and option[0] in done.err and "--endpoint is not" in done.err and len(done.lines) == 1


def test_what_is_of_an_endpoint_is_refused_without_one(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--send", "frames"], ["--stamps"], ["--timeout", "9"], ["--retries", "1"], ["--no-delivery-check"]):
        done = run(capsys, "niah", "run", built, *option)
        assert done.code == 2 and f"{option[0]}: of an endpoint" in done.err and len(done.lines) == 1


def test_another_run_is_told_of_before_anything_is_seen(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "suite"
    run(capsys, "niah", "build", "--out", where, *FEW)
    assert run(capsys, "niah", "run", where, "--model", model).code == 0
    shutil.rmtree(where / "cache")
    assert run(capsys, "niah", "run", where, "--model", model, "--keep", "off").code == 1
    again = run(capsys, "niah", "run", where, "--model", model)
    assert again.code == 0 and "4 were there" in again.out
    assert not (where / "cache").exists()


def test_lists_are_asked_for_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / "a.png")
    entry = {"image": "a.png", "question": "What?", "options": ["kite", "boat"], "answer": "boat"}
    (tmp_path / "list.json").write_text(json.dumps([entry]))
    listed = ("--needles", tmp_path / "list.json")
    drawn = ("--items", "2")
    for number, (more, lettered) in enumerate(((drawn, False), (listed, True), ((*listed, "--ask", "words"), False))):
        assert run(capsys, "niah", "build", "--out", tmp_path / str(number), *SHORT, *more).code == 0
        assert load_suite(tmp_path / str(number)).trials[0].lettered == lettered


BAD = {
    "out": (["build"], 2, "--out"),
    "lengths": (["build", "--out", "{}/x", "--lengths", "64,many"], 2, "'64,many'"),
    "odd": (["build", "--out", "{}/x", "--lengths", "66"], 2, "whole clips"),
    "depths": (["build", "--out", "{}/x", "--depths", "2"], 2, "--depths"),
    "size": (["build", "--out", "{}/x", "--size", "6x4"], 2, "6x4"),
    "list": (["build", "--out", "{}/x", "--needles", "{}/none.json"], 1, "none.json is missing"),
    "compat": (["build", "--out", "{}/x", "--compat"], 2, "--needles"),
    "haystack": (["build", "--out", "{}/x", "--haystack", "{}/none.mp4"], 1, "none.mp4 is missing"),
    "short": (["build", "--out", "{}/x", "--haystack", "{}/film.mp4", "--lengths", "64"], 1, "has 10 frames"),
    "fps": (["build", "--out", "{}/x", "--haystack", "{}/film.mp4", "--fps", "50"], 1, "--fps 50"),
    "suite": (["run", "{}/x"], 1, "suite.json is missing"),
    "score": (["score", "{}/x"], 1, "suite.json is missing"),
    "plot": (["plot", "{}/x"], 1, "suite.json is missing"),
    "verify": (["verify", "{}/x"], 1, "suite.json is missing"),
    "images": (["build", "--out", "{}/x", "--images", "{}"], 2, "--needles"),
    "items": (["build", "--out", "{}/x", "--needles", "a.json", "--items", "20"], 2, "leave out --items"),
    "decoys": (["build", "--out", "{}/x", "--needles", "a.json", "--decoys", "1"], 2, "leave out --decoys"),
    "name": (["run", "{}/x", "--name", "../y"], 2, "plain name"),
    "score name": (["score", "{}/x", "--name", "../y"], 2, "plain name"),
    "shard": (["run", "{}/x", "--shard", "3/2"], 2, "3/2"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_said_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos.make(tmp_path / "film.mp4", 20, 2)
    arguments, code, words = BAD[name]
    done = run(capsys, "niah", *(one.format(tmp_path) for one in arguments))
    assert (done.code, done.out, len(done.lines)) == (code, "", 1) and words in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_bad_options_of_a_run(built: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "niah", "build", "--out", tmp_path / "s", *FEW)
    for options, words in (
        (["--endpoint", "nowhere", "--model", "m"], "--endpoint 'nowhere'"),
        (["--endpoint", "http://host/v1", "--timeout", "0"], "--timeout"),
        (["--keep", "much"], "much"),
        (["--max-new-tokens", "0"], "--max-new-tokens"),
    ):
        done = run(capsys, "niah", "run", tmp_path / "s", *options)
        assert done.code == 2 and words in done.err and len(done.lines) == 1
    assert run(capsys, "niah", "run", tmp_path / "s", "--model", "flash-tinny").code == 1
    assert run(capsys, "niah", "score", tmp_path / "s").lines[0].endswith("'vcflash niah run'")


def test_without_matplotlib(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "videochat_flash.niah.plot", raising=False)
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.colors"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run(capsys, "niah", "plot", tmp_path)
    assert done.code == 1 and "matplotlib" in done.err and "pip install 'videochat-flash[niah]'" in done.err


def test_what_is_wrong_with_a_suite_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = videos.make(tmp_path / "film.mp4", 60, 2)
    where = tmp_path / "s"
    run(
        capsys,
        "niah",
        "build",
        "--out",
        where,
        "--haystack",
        film,
        "--lengths",
        "16",
        "--depths",
        "0,1",
        "--items",
        "1",
        "--controls",
        "0",
    )
    film.unlink()
    done = run(capsys, "niah", "verify", where)
    assert done.code == 1 and "film.mp4 is missing" in done.out
