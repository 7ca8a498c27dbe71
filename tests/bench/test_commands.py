"""vcflash bench: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import videos
from command import run

from videochat_flash.bench import commands, gauge, tasks
from videochat_flash.bench.stages import Setting

pytestmark = pytest.mark.usefixtures("unchecked", "calm")
FEW = ("--repeats", "1", "--warmup", "0", "--max-new-tokens", "2", "--size", "64x48")
RELEASED = "VideoChat-Flash-Qwen2-7B_res224"


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks of small products, on a machine that does nothing else."""
    monkeypatch.setattr(gauge, "SIZES", {"cpu": (64,)})
    monkeypatch.setattr(gauge, "COPIED", {"cpu": 2**16})
    monkeypatch.setattr(gauge, "TRY", 0.0)
    monkeypatch.setattr(gauge.os, "getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.make(tmp_path_factory.mktemp("films") / "film.mp4", 24)


def test_a_file_is_measured_for_people_machines_and_eyes(
    model: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, document = tmp_path / "made" / "out", tmp_path / "benchmarks.md"
    line = ("bench", "--video", film, "--frames", "8,16", "--model", model, *FEW)
    done = run(capsys, *line, "--out", out, "--write", document)
    assert done.code == 0 and done.err == ""
    for word in ("decode per token", "merging+connector", "8 frames", "16 frames", "to the first token"):
        assert word in done.out
    assert done.out.split()[-4:] == [str(out / f"bench.{form}") for form in ("json", "md", "png")] + [str(document)]
    told = json.loads((out / "bench.json").read_text())
    assert told["command"] == (
        f"vcflash bench --video film.mp4 --frames 8,16 --size 64x48 --model {model.name} "
        "--max-new-tokens 2 --repeats 1 --warmup 0"
    )
    assert [one["frames"] for one in told["runs"]] == [8, 16] and told["warnings"] == []
    stage = told["runs"][0]["stages"]["tower"]
    assert stage["flop_per_second"] == pytest.approx(stage["flop"] / stage["seconds"]["median"])
    assert stage["share_of_matmul"] == pytest.approx(stage["flop_per_second"] / told["machine"]["flop_per_second"])
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    written = document.read_text()
    assert f"## `{told['command']}`" in written and "![stages](made/out/bench.png)" in written
    assert str(tmp_path) not in written
    again = run(capsys, *line, "--write", document, "--json")
    assert json.loads(again.out)["command"] == told["command"]
    assert document.read_text().count("## ") == 1


def test_full_sizes_are_drawn_without_a_download(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    line = ("bench", "--model", model, "--random-weights", "--dtype", "bfloat16", "--image-size", "160")
    done = run(capsys, *line, "--frames", "4", "--keep", "off", *FEW, "--json")
    told = json.loads(done.out)
    assert (told["dtype"], told["image_size"], told["dropout"], told["random_weights"]) == (
        "bfloat16",
        160,
        "off",
        True,
    )
    assert "decode" not in told["runs"][0]["stages"] and set(told["runs"][0]["visual_rows_per_layer"]) == {64}


@pytest.mark.parametrize("device", ["H200", "h100", "A100-80", "L4", "rtx 4090", "4090", "cpu"])
def test_a_plan_is_computed_for_every_device(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("bench", "--plan", "--device", device, "--model", RELEASED, "--frames", "2048,10000", "--dtype", "bfloat16")
    told = json.loads(run(capsys, *line, "--json").out)
    first, last = told["forecasts"]
    assert first["rows"] == 2048 * 16 + 60 and last["rows"] == 160_060
    assert last["stages"]["prefill"]["flop"] == pytest.approx(7.23e15, rel=0.01)
    assert last["fits"] == (last["needed_bytes"] + 1e9 <= last["device_bytes"]) == (last["most_frames"] >= 10_000)
    assert first["left_out"] == ["decode", "resize"]
    if device == "L4":
        shown = run(capsys, *line)
        assert "Decoding and resizing are not in it" in shown.out and "Does not fit: " in shown.out and shown.code == 0


@pytest.mark.filterwarnings("ignore:.* is installed but cannot be loaded")
def test_one_way_is_held_against_another(model: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("bench", "--compare", "prefill,reading", "--video", film, "--frames", "8", "--model", model, *FEW)
    told = json.loads(run(capsys, *line, "--json").out)
    assert [one["name"] for one in told["comparisons"]] == ["prefill", "reading 8 frames", "reading a frame a second"]
    arms = told["comparisons"][0]["arms"]
    assert arms["no dropout"]["times_as_fast"]["median"] == 1.0 and len(arms) == 2
    shown = run(capsys, *line)
    assert "as fast" in shown.out and "1.00x" in shown.out and "as vcflash does it" in shown.out


def test_nothing_to_compare_is_no_success(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "bench", "--compare", "reading", "--model", model, "--frames", "4")
    assert done.code == 1 and done.out == "" and done.lines[-1] == "vcflash: nothing could be compared"


def test_a_smaller_decoder_is_held_against_what_it_was(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("bench", "--model", model, "--frames", "8", *FEW, "--keep", "off")
    done = run(capsys, *line, "--quantization", "int8", "--kv-cache-dtype", "fp8", "--max-new-tokens", "5", "--json")
    told = json.loads(done.out)
    cost = told["smaller"]
    assert told["quantised"] == "int8 weights and fp8 keys and values"
    assert cost["cache_bytes"][1] / cost["cache_bytes"][0] == 10 / 32 and cost["rows"] > 128 == cost["frames"] * 16
    assert 0.5 < cost["weight_bytes"][1] / cost["weight_bytes"][0] < 1  # a tower and a table that stay
    assert 0 < cost["typical_error_in_spreads"] < cost["worst_error_in_spreads"] < 1
    assert cost["tokens_agreed"] <= cost["tokens"] == 5
    plain = json.loads(run(capsys, *line, "--json").out)
    assert plain["smaller"] is None and plain["quantised"] is None
    moved = [one["runs"][0]["stages"]["decode per token"]["bytes"] for one in (told, plain)]
    assert moved[0] < moved[1]
    shown = run(capsys, *line, "--kv-cache-dtype", "fp8")
    assert "fp8 keys and values: " in shown.out and "stay the likeliest" in shown.out
    for more in (("--plan",), ("--compare", "asking")):
        other = run(capsys, *line, "--quantization", "int8", *more)
        assert other.code == 0 and "int8 weights" in other.out
        assert ("written out where they are used" in other.out) == ("--plan" in more)


def test_a_busy_machine_is_told(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauge.os, "getloadavg", lambda: (100.0, 0.0, 0.0))
    done = run(capsys, "bench", "--model", model, "--frames", "4", *FEW, "--json")
    assert "were running before this began" in done.lines[0] and len(json.loads(done.out)["warnings"]) == 1


def test_a_full_device_loses_nothing_that_was_measured(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tasks.run

    def full(vc: object, setting: Setting, told: object) -> object:
        if setting.frames > 4:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate much. More advice")
        return real(vc, setting, told)  # type: ignore[arg-type]

    monkeypatch.setattr(tasks, "run", full)
    line = ("bench", "--model", model, *FEW, "--json", "--frames")
    done = run(capsys, *line, "4,8")
    assert done.code == 0 and [one["frames"] for one in json.loads(done.out)["runs"]] == [4]
    assert done.lines == ["vcflash: note: 8 frames: out of memory: take fewer frames; --plan tells how many fit"]
    none = run(capsys, *line, "8")
    assert none.code == 1 and none.lines == ["vcflash: out of memory: take fewer frames; --plan tells how many fit"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("--frames 10", 2, "--frames 10 is not whole clips of 4 frames: use 8 or 12"),
        ("--frames 0", 2, "use 4"),
        ("--frames many", 2, "--frames 'many' is not a number, nor several as 256,1024"),
        ("--keep 9:0.5", 2, "dropout before layer 9, but the decoder's layers are 0 to 5"),
        ("--keep half", 2, "is not layer:ratio pairs"),
        ("--image-size 100", 2, "image_size 100 must be a multiple of patch 16"),
        ("--size big", 2, "size 'big' is not as 640x360"),
        ("--max-new-tokens 1", 2, "--max-new-tokens must be at least 2"),
        ("--repeats 0", 2, "--repeats must be at least 1"),
        ("--device cuda:7", 1, "device cuda:7 is not there"),
        ("--device gpu0", 1, "device 'gpu0' is not known: use cpu, cuda"),
        ("--device h200", 1, "h200 is not a device of PyTorch: add --plan"),
        ("--plan --device H2000", 1, "GPU 'H2000' is not known: did you mean H200?"),
        ("--plan --device cuda:7", 1, "device cuda:7 is not there"),
        ("--plan --video film.mp4", 2, "--plan runs nothing: leave out --video"),
        ("--plan --compare all", 2, "--plan runs nothing: leave out --compare"),
        ("--plan --share 2", 2, "--share must be above 0 and at most 1, not 2"),
        ("--compare speed", 2, "--compare 'speed' is not known: use all, or some of seeing, prefill"),
        ("--compare prefill --frames 4,8", 2, "--compare takes one number of --frames"),
        ("--video absent.mp4", 1, "absent.mp4"),
        ("--video absent.mp4 --compare reading", 1, "absent.mp4"),
        ("--model umt-qwen-eighth", 1, "umt-qwen-eighth has no trained weights: add --random-weights"),
        ("--model flash-tin", 1, "did you mean flash-tiny?"),
        ("--write absent/benchmarks.md", 1, "is not a folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    options: str,
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(capsys, "bench", *options.split(), "--frames" if "--frames" not in options else "--quiet", *(
        ["4"] if "--frames" not in options else []
    ))  # fmt: skip
    assert done.code == code and len(done.lines) == 1 and said in done.err and done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_another_document_is_left_alone(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "README.md"
    mine.write_text("# Mine\n")
    done = run(capsys, "bench", "--model", model, "--frames", "4", *FEW, "--write", mine)
    assert done.code == 1 and "was not written by vcflash bench" in done.err and mine.read_text() == "# Mine\n"


def test_a_picture_needs_matplotlib(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    line = ("bench", "--model", model, "--frames", "4", *FEW, "--out", tmp_path / "out")
    done = run(capsys, *line)
    assert done.code == 1 and "pip install 'videochat-flash[bench]'" in done.err and not (tmp_path / "out").exists()
    held = run(
        capsys, "bench", "--model", model, "--frames", "4", *FEW, "--compare", "prefill", "--out", tmp_path / "out"
    )
    assert held.code == 0 and sorted(one.name for one in (tmp_path / "out").iterdir()) == ["bench.json", "bench.md"]
