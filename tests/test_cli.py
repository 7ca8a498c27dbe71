"""vcflash: what each command prints, and that it is what the library says."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import typer
import videos
from command import ENTRY, ROOT, SMALL, Done, finished, run, start
from PIL import Image
from safetensors.torch import load_file

from videochat_flash import Sampling, Sight, VideoChatFlash, cli
from videochat_flash.config import RELEASES, parse_plan
from videochat_flash.evidence import look
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.mp4 import write
from videochat_flash.prompt import Turn

pytestmark = pytest.mark.usefixtures("unchecked")  # typer hands over another Context than it tells to annotate


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    write(path, (videos.numbered(i) for i in range(16)), 2)
    return path


# -- fast, and frozen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["--version"]])
def test_help_and_version_load_nothing_that_takes_its_time(arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"}  # tells of every import
    done = subprocess.run([*ENTRY, *arguments], env=environment, capture_output=True, text=True, check=True)
    told = done.stderr.splitlines()
    assert "vcflash" in done.stdout and all(line.startswith("import time:") for line in told), "nothing else on stderr"
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told}
    assert "typer" in loaded
    assert loaded.isdisjoint(["torch", "numpy", "av", "PIL", "tokenizers", "huggingface_hub", "matplotlib", "fastapi"])


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Usage: vcflash" in run(capsys).out


SIZE = "quantization kv-cache-dtype"
VIDEO = "max-frames fps num-frames start end policy"
COMMON = f"model revision device dtype {VIDEO}"
SMALLER = f"model revision device dtype {SIZE} {VIDEO}"
SAY = "keep keep-by seed temperature top-p top-k repetition-penalty max-new-tokens stop"
BUILD = "videos out license"
OPTIONS = {
    "ask": f"{SMALLER} sampling {SAY} evidence json quiet",
    "chat": f"{SMALLER} sampling {SAY} quiet",
    "see": f"out {COMMON} sampling json quiet",
    "info": "revision json",
    "convert": "",
    "demo": "video out seed model",
    "train": "set dry-run check-data exam gpu gpus json quiet",
    "eval": "out model revision device dtype max-frames fps num-frames policy keep keep-by prompt benchmark "
    "max-new-tokens no-blind limit allow-missing score-only against json quiet",
    "rows": "videos out subtitles task",
    "ground": f"out {COMMON} keep keep-by prompt json quiet",
    "niah build": "out haystack join fps size allow-repeat lengths depths items hops decoys hold align needles images "
    "ask rotations controls compat no-duplicate seed quiet",
    "niah run": "model revision device dtype keep keep-by yarn max-new-tokens pixels no-share endpoint send "
    "stamps timeout retries no-delivery-check trained shard name json quiet",
    "niah score": "name against json",
    "niah plot": "name",
    "niah verify": "name json",
    "bench": f"video frames size model random-weights image-size device dtype {SIZE} keep keep-by max-new-tokens "
    "repeats warmup whole plan share compare out write json quiet",
    "longvid build": f"{BUILD} workers max-failed ray-address no-plots json quiet",
    **{
        f"longvid {name}": f"{BUILD} workers max-failed ray-address json quiet"
        for name in ("scan", "shots", "describe", "weave", "ask", "sieve")
    },
    "longvid write": f"{BUILD} quiet",
    "longvid report": "videos out no-plots json",
    "longvid proof": "out videos minutes haystack fps needles seed json quiet",
    "longvid exam": "model revision device dtype max-frames most json quiet",
    "longvid simulate": "out records workers seed json quiet",
    "longvid plan": "hours cores machine tokens-per-frame json",
    "batch": f"root {COMMON} {SAY} retry ray-address workers quiet",
    "serve": f"model revision device dtype {SIZE} host port api-key-file no-auth media-root allow-media-domain limit "
    "store ray replicas ray-address log-level",
    "synth needle": "out haystack frames questions seed truth kinds fps size quiet",
    "synth suite": "out haystack videos frames seed quiet",
    "synth card": "out colour shape character seed size",
}


def test_an_option_more_or_less_is_a_decision() -> None:
    group = typer.main.get_command(cli.app)
    found = dict(group.commands)
    for room in ("synth", "niah", "longvid"):
        found |= {f"{room} {name}": one for name, one in found.pop(room).commands.items()}
    assert {name: [p.opts[0] for p in one.params if p.opts[0].startswith("--")] for name, one in found.items()} == {
        name: [f"--{option}" for option in options.split()] for name, options in OPTIONS.items()
    }


# -- ask ---------------------------------------------------------------------------------------------------------------


def test_ask_prints_the_answer_and_nothing_else(
    film: Path, model: Path, vc: VideoChatFlash, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(capsys, "ask", film, "What?", "--model", model)
    assert done == Done(0, vc.ask(film, "What?") + "\n", "")


def test_ask_json_tells_everything(
    film: Path, model: Path, vc: VideoChatFlash, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(capsys, "ask", film, "What?", "--model", model, "--max-frames", 9, "--json")
    told = json.loads(done.out)
    clip_tokens = SMALL.clip_tokens
    assert told["answer"] == vc.answer(vc.see(film, Sampling(max_frames=8)), "What?")
    assert (told["question"], told["model"], told["video"]) == ("What?", str(model), str(film))
    assert (told["frames"], told["duration"], told["visual_tokens"]) == (8, 8.0, 2 * clip_tokens)
    assert told["seconds_sampled"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert told["clips"] == [[0.0, 3.0], [4.0, 7.0]]
    assert told["tokens_per_layer"] == [clip_tokens * n // 2 for n in (4, 4, 2, 2, 1, 1)]
    assert [(d["layer"], d["ratio"], d["by"]) for d in told["keep"]] == [(2, 0.5, "attention"), (4, 0.25, "attention")]
    assert told["generated_tokens"] > 0 and told["rows"] > told["visual_tokens"]
    stages = told["seconds"]
    assert list(stages) == ["load", "decode", "encode", "prefill", "decode_tokens", "total"]
    assert sum(spent for name, spent in stages.items() if name != "total") <= stages["total"] + 0.01
    assert 50 < told["peak_memory_mb"] < 8000
    assert told["warnings"] and done.err == f"vcflash: note: {told['warnings'][0]}\n"


def test_evidence_is_a_picture_and_json(
    film: Path, model: Path, vc: VideoChatFlash, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "evidence.png"
    done = run(capsys, "ask", film, "What?", "--model", model, "--evidence", picture)
    assert done.code == 0 and done.out == vc.ask(film, "What?") + "\n"
    with Image.open(picture) as drawn:
        high = drawn.height
    sight = tmp_path / "film.safetensors"
    vc.see(film).save(sight)
    told = json.loads(
        run(capsys, "ask", sight, "What?", "--model", model, "--evidence", picture, "--keep", "off", "--json").out
    )
    assert told["evidence"] == look(vc, vc.see(film), "What?", keep=()).told()
    with Image.open(picture) as drawn:
        assert drawn.height < high  # neither thumbnails nor stages
    assert run(capsys, "ask", film, "What?", "--model", model, "--evidence", "a.jpg").code == 2


@pytest.mark.parametrize(
    ("options", "frames", "first"),
    [
        (["--fps", "1"], 8, 0.5),
        (["--num-frames", "4"], 4, 0.5),
        (["--start", "4", "--end", "6"], 4, 4.0),
        (["--policy", "reference"], 16, 0.0),
    ],
)
def test_options_choose_the_frames(
    options: list[str], frames: int, first: float, film: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(run(capsys, "ask", film, "What?", "--model", model, "--json", *options).out)
    assert (told["frames"], told["seconds_sampled"][0]) == (frames, first)


@pytest.mark.parametrize(
    ("options", "keep"),
    [
        (["--keep", "off"], ()),
        (["--keep", "1:0.5,3:0.1"], parse_plan("1:0.5,3:0.1")),
        (["--keep", "1:0.5,3:0.1", "--keep-by", "uniform0_attention"], parse_plan("1:0.5,3:0.1", "uniform0_attention")),
    ],
)
def test_options_choose_the_dropout(
    options: list[str],
    keep: tuple[object, ...],
    film: Path,
    model: Path,
    vc: VideoChatFlash,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = json.loads(run(capsys, "ask", film, "What?", "--model", model, "--json", *options).out)
    assert told["keep"] == [vars(drop) for drop in keep]
    assert told["answer"] == vc.answer(vc.see(film), "What?", keep=keep)


def test_options_choose_the_tokens(
    film: Path, model: Path, vc: VideoChatFlash, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = ["--temperature", "2", "--top-k", "50", "--top-p", "0.9", "--max-new-tokens", "12", "--seed"]
    texts = [json.loads(run(capsys, "ask", film, "Hm?", "--model", model, "--json", *drawn, s).out) for s in (1, 1, 2)]
    assert texts[0]["answer"] == texts[1]["answer"] != texts[2]["answer"]
    assert texts[0]["generated_tokens"] == 12
    whole = vc.ask(film, "What?")
    stopped = run(capsys, "ask", film, "What?", "--model", model, "--stop", whole[2:4]).out.removesuffix("\n")
    assert stopped == whole[: whole.index(whole[2:4])]


def test_a_seed_that_draws_nothing_is_told(film: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "ask", film, "What?", "--model", model, "--seed", 3)
    assert done.code == 0 and done.lines == ["vcflash: note: no token is drawn without --temperature: --seed not used"]
    assert run(capsys, "ask", film, "What?", "--model", model, "--seed", 3, "--quiet").err == ""


# -- see, chat, info, convert ------------------------------------------------------------------------------------------


def test_a_sight_is_asked_as_its_video_is(
    film: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "film.safetensors"
    seen = run(capsys, "see", film, "-o", path, "--model", model)
    assert (seen.code, seen.err) == (0, "") and str(path) in seen.out and os.listdir(tmp_path) == [path.name]
    assert Sight.load(path).frames == 16
    both = [run(capsys, "ask", one, "What?", "--model", model).out for one in (film, path)]
    assert both[0] == both[1]
    told = json.loads(run(capsys, "ask", path, "What?", "--model", model, "--json").out)
    assert told["seconds_sampled"] is None and len(told["clips"]) == 4 and "encode" not in told["seconds"]
    again = json.loads(run(capsys, "see", film, "-o", path, "--model", model, "--json").out)
    assert (again["sight"], again["visual_tokens"]) == (str(path), 4 * SMALL.clip_tokens)


def test_chat_remembers_and_goes_on_after_a_bad_question(
    film: Path, model: Path, vc: VideoChatFlash, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What?\n" + "x" * 60_000 + "\nAnd?\n\nnever asked\n"))
    entered: list[int] = []
    embed = VideoChatFlashModel.embed
    monkeypatch.setattr(VideoChatFlashModel, "embed", lambda *given: (entered.append(1), embed(*given))[1])
    done = run(capsys, "chat", film, "--model", model)
    assert len(entered) == 1  # the video passes the decoder once, before any question
    sight = vc.see(film)
    first = vc.answer(sight, "What?")
    second = vc.answer(sight, "And?", history=[Turn("user", "What?"), Turn("assistant", first)])
    assert done.out == f"{first}\n{second}\n"
    (line,) = done.lines
    assert line.startswith("vcflash: the question has 60000 characters")


@pytest.mark.parametrize("end", ["", "/quit\nWhat?\n", "\n"])
def test_chat_ends(
    end: str, film: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(end))
    assert run(capsys, "chat", film, "--model", model) == Done(0, "", "")


def test_info_of_a_folder(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(run(capsys, "info", model, "--json").out)
    stored = load_file(model / "model.safetensors")
    assert (told["tensors"], told["parameters"]) == (len(stored), sum(tensor.numel() for tensor in stored.values()))
    assert sum(told["parameters_by_part"].values()) == told["parameters"]
    assert (told["dtype"], told["max_rows"], told["decoder"]["layers"]) == ("float32", 4096, 6)
    text = run(capsys, "info", model).out
    assert "2:0.5 by attention, 4:0.25 by attention" in text and "of patches 81" in text


def test_info_tells_the_rows_that_yarn_makes_room_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
    values = json.loads((model / "config.json").read_text()) | {"rope_scaling": scaling}
    (tmp_path / "config.json").write_text(json.dumps(values))
    told = json.loads(run(capsys, "info", tmp_path, "--json").out)
    assert (told["max_rows"], told["max_frames"]) == (16_384, 16_384 // SMALL.tokens_per_frame)


@pytest.mark.parametrize("name", RELEASES)
def test_info_of_a_release_needs_no_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(run(capsys, "info", f"OpenGVLab/{name}", "--json").out)
    assert told["dtype"] == "bfloat16" and 1.5e9 < told["parameters"] < 9e9
    assert told["tower"]["kind"] == RELEASES[name].vision.kind


def test_info_of_a_video_and_of_a_sight(
    film: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(run(capsys, "info", film, "--json").out)
    assert (told["kind"], told["frames"], told["duration"], told["fps"]) == ("video", 16, 8.0, 2.0)
    assert "48" in run(capsys, "info", film).out
    run(capsys, "see", film, "-o", tmp_path / "a.safetensors", "--model", model)
    seen = json.loads(run(capsys, "info", tmp_path / "a.safetensors", "--json").out)
    assert (seen["clips"], seen["source"], seen["seconds"]) == (4, told["fingerprint"], [0.0, 7.5])


def test_info_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "info", "flash-tinny")
    assert done.code == 1 and "flash-tiny?" in done.err and len(done.lines) == 1


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model.a": torch.arange(3.0)}, tmp_path / "old.bin")
    done = run(capsys, "convert", tmp_path / "old.bin", tmp_path / "new.safetensors")
    assert (done.code, done.err) == (0, "") and "1 tensors" in done.out
    assert torch.equal(load_file(tmp_path / "new.safetensors")["model.a"], torch.arange(3.0))


# -- as a process ------------------------------------------------------------------------------------------------------


def test_the_module_is_the_command(film: Path, model: Path, vc: VideoChatFlash) -> None:
    assert finished(start("ask", film, "What?", "--model", model)) == Done(0, vc.ask(film, "What?") + "\n", "")


def test_nobody_reading_is_no_drama(film: Path, model: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("ask", film, "What?", "--model", model, stdout=writing)
    os.close(writing)
    done = finished(process)
    assert (done.code, done.err) == (1, "")


@pytest.mark.parametrize("quiet", [False, True])
def test_bars_are_for_terminals(quiet: bool, film: Path, model: Path, vc: VideoChatFlash) -> None:
    ours, theirs = pty.openpty()
    options = ["--quiet"] if quiet else []
    process = start("ask", film, "What?", "--model", model, *options, stderr=theirs)
    os.close(theirs)
    told = _everything(ours)
    assert process.wait(10) == 0 and process.stdout and process.stdout.read() == vc.ask(film, "What?") + "\n"
    process.stdout.close()
    assert ("seeing" in told, "16/16" in told, "reading" in told) == ((not quiet,) * 3)


def test_ctrl_c_at_a_prompt(film: Path, model: Path) -> None:
    ours, theirs = pty.openpty()
    process = start("chat", film, "--model", model, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    told = ""
    while "> " not in told:
        told += os.read(ours, 1024).decode()
    os.write(ours, b"What?\n")
    time.sleep(0.2)
    process.send_signal(2)
    assert process.wait(20) == 130
    assert "Traceback" not in _everything(ours)


def _everything(terminal: int) -> str:
    """What a process writes to a terminal until it ends."""
    told = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # how Linux says that nobody is left at the other end
            piece = b""
        if not piece:
            os.close(terminal)
            return told.decode(errors="replace")
        told += piece


def test_see_by_key_frames_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = videos.make(tmp_path / "a.mp4", 100, gop=20)
    done = run(capsys, "see", film, "--out", tmp_path / "a.safetensors", "--sampling", "keyframes", "--json")
    facts = json.loads(done.out)
    assert facts["seconds_sampled"] == [0.0, 0.8, 1.6, 2.4, 3.2, 3.2, 3.2, 3.2]
    assert [note for note in facts["warnings"] if "only its 5 key frames of 100" in note]
