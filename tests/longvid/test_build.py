"""The whole pipeline as users run it: killed and gone on, in several processes, on bad input, read by the trainer."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tarfile
import time
import tomllib
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from command import ROOT, finished, ray_began, run, start
from longvid_corpus import ACTS, captions, corpus, film

from videochat_flash.longvid import commands, scan, shots
from videochat_flash.longvid.pipeline import STEPS, do
from videochat_flash.longvid.records import read_asides, read_films
from videochat_flash.longvid.settings import SCHEMA, Scan, Setting, default
from videochat_flash.longvid.steps import run as run_step
from videochat_flash.longvid.workers import Pool
from videochat_flash.longvid.write import validation, write

FILES = [f"{name}{kind}.jsonl" for name in STEPS[:-1] for kind in ("", ".aside")]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "films")


@pytest.fixture(scope="module")
def built(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "out"
    done = finished(start("longvid", "build", "--videos", films, "--out", out, "--license", "CC0", "--json"))
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["films"] == 3 and facts["questions"] == sum(facts["families"].values()) > 60
    return out


def contents(out: Path, names: list[str]) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in names}


def test_every_record_has_its_provenance_and_its_video_its_license(built: Path) -> None:
    lines = [json.loads(line) for line in (built / "dataset" / "train.jsonl").read_text().splitlines()]
    origin = re.compile(r"film\d\.json: film\d entry \d")
    for one in lines:
        assert one["license"] == "CC0" and one["maker"].startswith("template 3 ")
        assert one["origins"] and all(origin.fullmatch(place) for place in one["origins"])
        assert 0 <= one["evidence"][0] < one["evidence"][1] <= one["duration"] and Path(one["video"]).is_file()


def test_the_trainer_reads_what_was_written(built: Path) -> None:
    """The rooms know nothing of each other, but the one's output is the other's input."""
    from videochat_flash.train.recipe import Source
    from videochat_flash.train.records import PLACE, read_source

    told = {}
    for name in ("train.jsonl", "train.messages.jsonl"):
        records = read_source(Source(str(built / "dataset" / name)))
        assert not any(one.flaw for one in records) and all(one.kind == "video" for one in records)
        assert all(one.turns[0].text.startswith(PLACE) and one.start is None for one in records)
        told[name] = [(one.id, one.media, one.turns[1].text) for one in records]
    assert told["train.jsonl"] == told["train.messages.jsonl"]


def test_no_video_is_in_both_parts(built: Path) -> None:
    lines = {
        split: [json.loads(line) for line in (built / "dataset" / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "validation")
    }
    keys = {split: {one["video_key"] for one in some} for split, some in lines.items()}
    assert len(keys["train"]) == 2 and len(keys["validation"]) == 1 and not keys["train"] & keys["validation"]
    assert validation(0.0, built / "sieve.jsonl") == set()


def test_report_and_card_say_what_is_there(built: Path) -> None:
    report, card = ((built / name).read_text() for name in ("report.md", "dataset/README.md"))
    assert "3 films, 0.05 hours" in report and "whoever guesses is right on" in report
    assert "| films | CC0 | 3 |" in card and "`train.jsonl`" in card
    assert all((built / f"{name}.png").stat().st_size > 5000 for name in ("tasks", "lengths", "aside"))


def test_a_second_run_does_nothing_and_says_so(films: Path, built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(built, FILES)
    journals = {path: path.stat().st_size for path in (built / "journal").glob("*.jsonl")}
    ran = do("shots", default(str(films), str(built)))
    assert (ran.before, ran.records) == (3, 3)
    assert contents(built, FILES) == before
    assert {path: path.stat().st_size for path in (built / "journal").glob("*.jsonl")} == journals


def test_several_processes_give_the_same_bytes(films: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("scan", "shots"):
        done = finished(
            start("longvid", name, "--videos", films, "--out", out, "--license", "CC0", "--workers", 2, "--quiet")
        )
        assert done.code == 0, done.err
    some = [name for name in FILES if name.startswith(("scan", "shots"))]
    assert contents(out, some) == contents(built, some)


@pytest.mark.slow
def test_two_workers_of_a_ray_cluster_give_the_same_bytes(films: Path, built: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    where = ("--ray-address", "local", "--workers", 2)
    process = start("longvid", "build", "--videos", films, "--out", out, "--license", "CC0", "--no-plots", *where)
    told, complaints = process.communicate(timeout=300)
    ray_began(complaints)
    assert process.returncode == 0, complaints
    assert contents(out, FILES) == contents(built, FILES)
    assert not list((out / "journal").glob("*.todo"))


def test_killed_in_the_middle_it_goes_on_and_redoes_nothing(films: Path, tmp_path: Path) -> None:
    """A real process, really killed; what it had finished is still there, word for word, and is not done again."""
    more = tmp_path / "films"
    more.mkdir()
    for number in range(8):
        film(more / f"long{number}.mp4", number, seconds=200)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start("longvid", "scan", "--videos", more, "--out", killed)
    journal = killed / "journal" / "scan.jsonl"
    deadline = time.monotonic() + 50
    while not (journal.is_file() and journal.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = journal.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert 2 <= kept.count(b"\n") < 8, "it must be killed in the middle"
    journal.write_bytes(kept + b'{"key":"0123')  # half a line, as a kill may leave it
    done = finished(start("longvid", "scan", "--videos", more, "--out", killed, "--json"))
    assert done.code == 0, done.err
    assert json.loads(done.out)["before"] == kept.count(b"\n")
    after = journal.read_bytes()
    assert after.startswith(kept) and after.count(b"\n") == 8
    finished(start("longvid", "scan", "--videos", more, "--out", whole))
    assert (killed / "scan.jsonl").read_bytes() == (whole / "scan.jsonl").read_bytes()


def test_bad_input_is_counted_and_kept_aside_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = corpus(tmp_path / "films", 2)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    film(folder / "again.mp4", 0, crf=35)  # film0 with another codec's noise
    film(folder / "short.mp4", 9, seconds=3)
    captions(folder / "gone.json", "gone")
    (folder / "notes.json").write_text('{"a": 1}')
    bad = [[5, 3], [70, 80], [50, 75], [0, 10]]
    entry = {"timestamps": bad, "sentences": ["Reversed.", "Behind the end.", "Over the end.", "A man cuts wood."]}
    (folder / "film1.json").write_text(json.dumps({"film1": entry}))
    (folder / "film0.srt").write_bytes(
        "1\n00:00:01,000 --> 00:00:05,000\nUn café.\n\n2\n00:00:04,000 --> 00:00:06,000\nDeux.\n".encode("cp1252")
    )
    out = tmp_path / "out"
    done = run(capsys, "longvid", "build", "--videos", folder, "--out", out, "--max-failed", "0.6", "--no-plots")
    assert done.code == 0, done.err
    asides = [one for name in ("scan", "shots") for one in read_asides(out / f"{name}.aside.jsonl")]
    kept = {(one.kind, Path(one.what.split(" ")[0]).name): one for one in asides}
    reasons = {(one.kind, one.reason.split(":")[0]) for one in asides}
    assert ("failed", "broken.mp4") in kept and ("rejected", "short.mp4") in kept
    assert kept["duplicate", "film0.mp4"].reason.endswith("again.mp4")
    assert kept["missing", "gone"].reason == "6 notes of a video that is not there"
    assert ("missing", "notes.json") in kept and ("mended", "film0.srt") in kept
    assert ("entry", "it ends at 3 s, before it begins at 5 s") in reasons
    assert ("entry", "it begins at 70 s of a video of 60 s") in reasons
    assert ("mended", "it ends at 75 s of a video of 60 s") in reasons
    assert "Un café." not in (out / "sieve.jsonl").read_text()  # its video is a copy of another one
    report = (out / "report.md").read_text()
    assert "| scan: failed |" in report and "| shots: entry |" in report


def test_too_many_failures_stop_the_run_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = corpus(tmp_path / "films", 2)
    for number in range(2):
        (folder / f"broken{number}.mp4").write_bytes(b"nothing")
    done = run(capsys, "longvid", "build", "--videos", folder, "--out", tmp_path / "out")
    assert done.code == 1 and len(done.lines) == 1
    assert "scan: 2 of 4 videos failed, more than the limit of 0.1: see" in done.err
    assert not (tmp_path / "out" / "shots.jsonl").exists()
    assert len(list(read_films(tmp_path / "out" / "scan.jsonl"))) == 2


def test_a_failed_video_is_tried_again_and_a_changed_one_done_anew(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "films", 2)
    (folder / "film2.mp4").write_bytes(b"not yet")
    setting = default(str(folder), str(tmp_path / "out"))
    first = do("scan", setting)
    assert (first.films, first.failed) == (2, 1)
    film(folder / "film2.mp4", 7)
    film(folder / "film1.mp4", 8)
    second = do("scan", setting)
    assert (second.before, second.films, second.failed) == (1, 3, 0)


def test_settings_that_change_a_step_redo_it_and_no_other(films: Path, tmp_path: Path) -> None:

    setting = default(str(films), str(tmp_path / "out"))
    setting = replace(setting, shots=replace(setting.shots, fps=0))
    for name in STEPS[:-1]:
        do(name, setting)
    other = replace(setting, ask=replace(setting.ask, seed=1))
    assert do("weave", other).before == 3
    assert do("ask", other).before == 0


def test_a_step_that_lacks_the_one_before_says_so(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(capsys, "longvid", "weave", "--videos", films, "--out", tmp_path / "out")
    assert done.code == 1 and "describe.jsonl is missing" in done.err and len(done.lines) == 1


def test_a_step_does_not_take_half_a_file_for_the_whole(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a step that was stopped, or where too much failed, only the same step may go on."""

    def stopped(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    setting = default(str(films), str(out))
    setting = replace(setting, shots=replace(setting.shots, fps=0))
    for name in STEPS[:-1]:
        do(name, setting)
    for name, after in (("describe", "weave"), ("sieve", "write")):
        held = (out / f"{name}.jsonl").read_bytes()
        (out / "journal" / f"{name}.jsonl").unlink()
        with pytest.raises(KeyboardInterrupt):
            do(name, setting, stopped)
        assert (out / f"{name}.jsonl").read_bytes() == held  # whole, but of the run before
        done = run(capsys, "longvid", after, "--videos", films, "--out", out)
        assert done.code == 1 and len(done.lines) == 1
        assert f"{name} is not done" in done.err and f"run 'vcflash longvid {name}'" in done.err
        do(name, setting)
    do("weave", setting)
    assert run(capsys, "longvid", "write", "--videos", films, "--out", out).code == 0


def test_a_step_is_not_done_any_more_when_an_earlier_one_left_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = corpus(tmp_path / "films", 2)
    setting = default(str(folder), str(tmp_path / "out"))
    setting = replace(setting, shots=replace(setting.shots, fps=0))
    for name in STEPS[:-1]:
        do(name, setting)
    asked = ("--videos", folder, "--out", setting.out)
    do("scan", setting)  # the same again
    assert run(capsys, "longvid", "write", *asked).code == 0
    captions(film(folder / "film2.mp4", 2).with_suffix(".json"), "film2")
    do("scan", setting)
    for name, stale in (("describe", "shots"), ("write", "shots")):
        done = run(capsys, "longvid", name, *asked)
        assert done.code == 1 and len(done.lines) == 1 and f"{stale} is not done with what" in done.err
    for name in STEPS[1:-1]:
        do(name, setting)
    assert run(capsys, "longvid", "write", *asked).code == 0


def test_a_step_where_too_much_failed_is_not_gone_on_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = corpus(tmp_path / "films", 2)
    for number in (2, 3):
        (folder / f"film{number}.mp4").write_bytes(b"no video")
    asked = ("--videos", folder, "--out", tmp_path / "out")
    assert run(capsys, "longvid", "scan", *asked).code == 1
    done = run(capsys, "longvid", "shots", *asked)
    assert done.code == 1 and "scan is not done" in done.err and not (tmp_path / "out" / "shots.jsonl").exists()
    assert run(capsys, "longvid", "scan", *asked, "--max-failed", 0.6).code == 0
    assert run(capsys, "longvid", "shots", *asked).code == 0


def test_steps_are_plain_functions_of_iterators(films: Path) -> None:
    setting = default(str(films), "unused")
    from videochat_flash.longvid import ask, weave

    scanned = list(scan.step(setting)(scan.discover(setting)))
    assert [one.video.stem for one in scanned] == ["film0", "film1", "film2"]
    asked = list(ask.step(setting)(weave.step(setting)(iter(scanned))))
    assert [one.questions for one in asked] == [(), (), ()]  # without notes there is nothing to ask


def test_only_one_process_may_run_a_step(films: Path, tmp_path: Path) -> None:
    from videochat_flash.journal import appending

    setting = default(str(films), str(tmp_path))
    with (
        appending(tmp_path / "journal" / "scan.jsonl", "wait"),
        pytest.raises(ValueError, match=r"scan.jsonl is being written by another run: wait for it"),
    ):
        run_step(scan.step(setting), lambda: iter(()), tmp_path, 0.1)


def test_wrong_settings_are_told_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "build.toml"
    for text, words in (
        ('out = "o"\n[shots]\nlongets = 3', "unknown key 'shots.longets': did you mean 'shots.longest'?"),
        ('out = "o"', "no videos: add a [[source]] table"),
        ('out = "o"\n[[source]]\nvideos = "v"\n[sieve]\nblind = "endpoint"', "set endpoint.url"),
        ('out = "o"\n[[source]]\nvideos = "v"\nformat = "csv"', "source.format must be 'auto' or"),
        ('out = "o"\n[[source]]\nvideos = "v"\n[ask]\nfamilies = ["all"]', "ask.families must be some of caption"),
    ):
        path.write_text(text)
        done = run(capsys, "longvid", "build", path)
        assert done.code == 2 and words in done.err and len(done.lines) == 1, done
    within = ("--videos", tmp_path, "--out", tmp_path / "out")
    assert "out lies within the videos: move it" in run(capsys, "longvid", "build", *within).err
    for arguments in ((), ("--videos", tmp_path), (path, "--videos", tmp_path), (path, "--license", "CC0"), within):
        assert run(capsys, "longvid", "build", *arguments).code == 2


def test_the_same_corpus_gives_the_same_questions(built: Path) -> None:
    texts = [question.question for one in read_films(built / "ask.jsonl") for question in one.questions]
    assert len(set(texts)) > 40 and any(ACTS[2][:-1] in text for text in texts)


def test_every_layout_holds_the_same_questions(films: Path, built: Path, tmp_path: Path) -> None:
    setting = default(str(films), str(tmp_path))
    formats = ("reference", "reference-json", "messages", "webdataset")
    setting = replace(setting, write=replace(setting.write, formats=formats, validation=0.3, shard=1))
    told = write(setting, built / "sieve.jsonl")
    assert all(path.is_file() for path in told.files) and not list((tmp_path / "dataset").rglob(".*"))
    folder = tmp_path / "dataset"
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert json.loads((folder / "train.json").read_text()) == lines
    with tarfile.open(folder / "webdataset" / "train-000000.tar") as tar:
        names = tar.getnames()
        [*texts] = [name for name in names if name.endswith(".json")]
        held = [one for name in texts for one in json.load(tar.extractfile(name))]  # type: ignore[arg-type]
        videos = {name.removesuffix(".mp4") for name in names if name.endswith(".mp4")}
    assert {name.removesuffix(".json") for name in texts} == videos == {one["video_key"] for one in lines}
    assert [one["conversations"] for one in held] == [one["conversations"] for one in lines]
    before = {path: path.read_bytes() for path in told.files}
    again = write(setting, built / "sieve.jsonl")
    assert {path: path.read_bytes() for path in again.files} == before


def test_a_set_that_cannot_be_written_leaves_nothing_behind(films: Path, built: Path, tmp_path: Path) -> None:
    setting = default(str(films), str(tmp_path))
    sieved = tmp_path / "sieve.jsonl"
    sieved.write_bytes((built / "sieve.jsonl").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"sieve.jsonl line 3: this is no JSON"):
        write(setting, sieved)
    sieved.write_text("")
    with pytest.raises(ValueError, match="no question is left"):
        write(setting, sieved)
    assert list((tmp_path / "dataset").iterdir()) == []


def test_shards_of_before_stay_until_new_ones_are_whole_and_other_layouts_go(
    films: Path, built: Path, tmp_path: Path
) -> None:
    setting = default(str(films), str(tmp_path))
    rules = replace(setting.write, formats=("reference", "webdataset"), validation=0.3)
    told = write(replace(setting, write=rules), built / "sieve.jsonl")
    before = {path: path.read_bytes() for path in told.files}
    damaged = tmp_path / "sieve.jsonl"
    damaged.write_bytes((built / "sieve.jsonl").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"line 3: this is no JSON"):
        write(replace(setting, write=rules), damaged)
    there = {path for path in (tmp_path / "dataset").rglob("*") if path.is_file()}
    assert {path: path.read_bytes() for path in there} == before
    told = write(replace(setting, write=replace(rules, formats=("messages",))), built / "sieve.jsonl")
    assert {path for path in (tmp_path / "dataset").rglob("*") if path.is_file()} == set(told.files)


def test_what_a_killed_run_had_begun_to_write_goes(films: Path, built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    for name in (".webdataset.0123abcd", ".webdataset.old.part"):
        (folder / name).mkdir(parents=True)
        (folder / name / "train-000000.tar").write_bytes(b"half")
    (folder / ".train.jsonl.89abcdef").write_text("half")
    (folder / ".gitignore").write_text("*.tar")
    write(default(str(films), str(tmp_path)), built / "sieve.jsonl")
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [".gitignore"]


def test_the_documented_settings_are_the_defaults() -> None:
    text = (ROOT / "docs" / "longvid.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    told = tomllib.loads(block)
    made = SCHEMA.read(told, "docs")
    plain = Setting(made.out, made.source, workers=made.workers, scan=replace(Scan(), benchmarks=made.scan.benchmarks))
    assert made == plain
    keys = {key for key in SCHEMA.known() if not key.startswith("source")}
    shown = {f"{table}.{key}" for table, some in told.items() if isinstance(some, dict) for key in some}
    assert keys == shown | {key for key, value in told.items() if not isinstance(value, dict | list)}


def test_a_worker_that_dies_ends_the_run_in_one_line(films: Path, tmp_path: Path) -> None:
    step = replace(scan.step(default(str(films), str(tmp_path))), worker=partial(os._exit, 9))
    with pytest.raises(OSError, match="scan: a worker process was ended: the same command goes on"):
        list(Pool(1)(step, iter([("0" * 32, "{}")])))


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("matplotlib", (), "matplotlib is not installed: pip install 'videochat-flash[longvid]', or give --no-plots"),
        (
            "scenedetect",
            ("--no-plots",),
            "scenedetect is not installed: pip install 'videochat-flash[longvid]', or set",
        ),
        ("ray", ("--no-plots", "--ray-address", "local"), "ray is not installed: pip install 'videochat-flash[ray]'"),
    ],
)
def test_what_is_not_installed_is_named(
    name: str,
    arguments: tuple[str, ...],
    words: str,
    films: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not there: importing it fails, and nothing finds it
    for module in (commands, shots):
        monkeypatch.setattr(module, "find_spec", lambda asked: None if asked == name else find_spec(asked))
    done = run(capsys, "longvid", "build", "--videos", films, "--out", tmp_path / "out", *arguments)
    assert done.code == 1 and done.err.startswith(f"vcflash: {words}") and len(done.lines) == 1
