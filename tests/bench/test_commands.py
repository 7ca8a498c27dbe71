"""vcflash bench: what it prints, writes and refuses."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
import videos
from command import SMALL, run, small_model

from videochat_flash.bench import commands, gauge, stages, tasks
from videochat_flash.bench.stages import Setting
from videochat_flash.bench.work import memory, sample_of
from videochat_flash.chat import CLIP_BATCH
from videochat_flash.config import RELEASES
from videochat_flash.generate import Decoding
from videochat_flash.prompt import plain_text
from videochat_flash.video import probe
from videochat_flash.weights import save_model

pytestmark = pytest.mark.usefixtures("unchecked", "calm")
ROUNDS = ("--repeats", "1", "--warmup", "0")
SHORT = (*ROUNDS, "--max-new-tokens", "2")
FEW = (*SHORT, "--size", "64x48")
RELEASED = "VideoChat-Flash-Qwen2-7B_res224"


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Peaks of small products, on a machine that does nothing else."""
    monkeypatch.setattr(gauge, "SIZES", {"cpu": (64,)})
    monkeypatch.setattr(gauge, "COPIED", {"cpu": 2**16})
    monkeypatch.setattr(gauge, "TRY", 0.0)
    monkeypatch.setattr(gauge, "LOADAVG", tmp_path / "absent")
    monkeypatch.setattr(gauge.os, "getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.make(tmp_path_factory.mktemp("films") / "film.mp4", 24)


def test_a_file_is_measured_for_people_machines_and_eyes(
    model: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, document = tmp_path / "made" / "out", tmp_path / "benchmarks.md"
    line = ("bench", "--video", film, "--frames", "8,16", "--model", model, *SHORT)
    done = run(capsys, *line, "--out", out, "--write", document)
    assert done.code == 0 and done.err == ""
    for word in ("decode per token", "merging+connector", "8 frames", "16 frames", "to the first token"):
        assert word in done.out
    assert done.out.split()[-4:] == [str(out / f"bench.{form}") for form in ("json", "md", "png")] + [str(document)]
    told = json.loads((out / "bench.json").read_text())
    assert told["command"] == (
        f"vcflash bench --video film.mp4 --frames 8,16 --model {model.name} --max-new-tokens 2 --repeats 1 --warmup 0"
    )
    assert [one["frames"] for one in told["runs"]] == [8, 16] and told["warnings"] == []
    stage = told["runs"][0]["stages"]["tower"]
    assert stage["flop_per_second"] == pytest.approx(stage["flop"] / stage["seconds"]["median"])
    assert stage["share_of_matmul"] == pytest.approx(stage["flop_per_second"] / told["machine"]["flop_per_second"])
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    written = document.read_text()
    assert f"## `{told['command']}`, model " in written and "![stages](made/out/bench.png)" in written
    assert str(tmp_path) not in written
    again = run(capsys, *line, "--write", document, "--json")
    assert json.loads(again.out)["command"] == told["command"] and again.lines == [str(document)]
    assert document.read_text().count("## ") == 1


def test_models_and_files_of_one_name_stay_apart(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, told = tmp_path / "benchmarks.md", []
    places = [tmp_path / name for name in ("a", "b", "c")]
    for place, frames, seed in zip(places, (24, 24, 25), (0, 1, 1), strict=True):
        place.mkdir()
        videos.make(place / "film.mp4", frames)
        small_model(place, seed).rename(place / "model")
    for place in (*places, places[0]):
        line = ("--video", place / "film.mp4", "--model", place / "model", "--frames", "4", *SHORT, "--json")
        told.append(json.loads(run(capsys, "bench", *line, "--write", document).out))
    assert len({one["command"] for one in told}) == 1 and {one["model"] for one in told} == {"model"}
    models, films = ([one["marks"][name] for one in told] for name in ("model", "video"))
    assert models[0] == models[3] != models[1] == models[2] and films[0] == films[1] == films[3] != films[2]
    assert probe(film).fingerprint.startswith(films[0])
    headings = [text for text in document.read_text().splitlines() if text.startswith("## ")]
    wanted = [f"model {model}, video {video}" for model, video in zip(models[:3], films[:3], strict=True)]
    assert headings == [f"## `{told[0]['command']}`, {words}" for words in wanted]


def test_a_mark_is_of_all_weights_and_of_sizes_where_none_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def marks(*line: object) -> dict[str, str]:
        done = run(capsys, "bench", "--frames", "4", "--json", *line)
        return dict(json.loads(done.out)["marks"])

    first, told = tiny.model(SMALL), {}
    deep = tiny.model(replace(SMALL, llm=replace(SMALL.llm, layers=7)))
    for name, made in (("a", first), ("b", deep)):
        save_model(tmp_path / name / "model", made, plain_text(tiny.tokenizer()), Decoding(eos=(1,)))
    first.decoder.norm.weight.data += 1  # as a stage that trains the decoder alone
    save_model(tmp_path / "c" / "model", first, plain_text(tiny.tokenizer()), Decoding(eos=(1,)))
    for name in "abc":
        told[name] = [marks("--model", tmp_path / name / "model", *more)["model"] for more in (FEW, ("--plan",))]
    assert len({measured for measured, _ in told.values()}) == 3
    assert told["a"][1] == told["c"][1] != told["b"][1]
    assert marks("--model", RELEASED, "--plan") == {}  # its name tells


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
    line = ("bench", "--compare", "prefill,reading", "--video", film, "--frames", "8", "--model", model, *ROUNDS)
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
    plain = ("bench", "--model", model, "--frames", "8", "--keep", "off")
    line = (*plain, *FEW)
    done = run(capsys, *line, "--quantization", "int8", "--kv-cache-dtype", "fp8", "--max-new-tokens", "5", "--json")
    told = json.loads(done.out)
    cost = told["smaller"]
    assert told["quantised"] == "int8 weights and fp8 keys and values"
    assert cost["cache_bytes"][1] / cost["cache_bytes"][0] == 10 / 32 and cost["rows"] > 128 == cost["frames"] * 16
    assert 0.5 < cost["weight_bytes"][1] / cost["weight_bytes"][0] < 1  # a tower and a table that stay
    assert 0 < cost["typical_error_in_spreads"] < cost["worst_error_in_spreads"] < 1
    assert cost["tokens_agreed"] <= cost["tokens"] == 5
    large = json.loads(run(capsys, *line, "--json").out)
    assert large["smaller"] is None and large["quantised"] is None
    moved = [one["runs"][0]["stages"]["decode per token"]["bytes"] for one in (told, large)]
    assert moved[0] < moved[1]
    shown = run(capsys, *line, "--kv-cache-dtype", "fp8")
    assert "fp8 keys and values: " in shown.out and "stay the likeliest" in shown.out
    for more in (("--plan",), ("--compare", "asking", *ROUNDS)):
        other = run(capsys, *plain, "--quantization", "int8", *more)
        assert other.code == 0 and "int8 weights" in other.out
        assert ("written out where they are used" in other.out) == ("--plan" in more)


def test_a_busy_machine_is_told(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauge.os, "getloadavg", lambda: (100.0, 0.0, 0.0))
    done = run(capsys, "bench", "--model", model, "--frames", "4", *FEW, "--json")
    assert "were running before this began" in done.lines[0] and len(json.loads(done.out)["warnings"]) == 1


CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried. Error code 12"
)
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("out of memory. Tried to allocate much. More advice"), "out of memory"),
        (RuntimeError(CPU), "DefaultCPUAllocator: can't allocate memory: you tried"),
        (RuntimeError(CUBLAS), CUBLAS),
        (MemoryError(), "out of memory"),
    ],
)
def test_too_little_memory_loses_nothing_that_was_measured(
    error: Exception, said: str, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tasks.run

    def full(vc: object, setting: Setting, *rest: object) -> object:
        if setting.frames > 4:
            raise error
        return real(vc, setting, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tasks, "run", full)
    line = ("bench", "--model", model, *FEW, "--json", "--frames")
    done, few = run(capsys, *line, "4,8"), "take fewer frames; --plan tells how many fit"
    assert done.code == 0 and [one["frames"] for one in json.loads(done.out)["runs"]] == [4]
    assert done.lines == [f"vcflash: note: 8 frames: {said}: {few}"]
    none = run(capsys, *line, "8")
    assert none.code == 1 and none.lines == [f"vcflash: {said}: {few}"]


def test_too_little_memory_for_a_model_or_for_peaks_is_said(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError(CPU)

    for name, line, said in (
        ("measured", ("--plan",), "end what else holds memory there"),
        ("load", (), "take a smaller model"),
        ("load", ("--compare", "asking"), "take a smaller model"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(tasks, name, full)
            done = run(capsys, "bench", "--model", model, "--frames", "4", *line)
        assert done.code == 1 and len(done.lines) == 1
        assert f"can't allocate memory: you tried: {said}" in done.err


def test_a_fault_of_the_program_is_not_taken_for_too_little_memory(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(tasks, "run", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(capsys, "bench", "--model", model, "--frames", "4", *FEW)


def test_a_file_is_looked_into_once_before_anything_is_timed(
    model: Path, film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = list[Path]()
    monkeypatch.setattr(stages, "probe", lambda path: looked.append(path) or probe(path))
    done = run(
        capsys, "bench", "--video", film, "--frames", "8,16", "--model", model, *SHORT, "--kv-cache-dtype", "fp8"
    )
    assert done.code == 0 and looked == [film] * (1 + 2)  # the other two are timed


def test_a_full_disk_loses_nothing_that_was_measured(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "benchmarks.md"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(document))

    monkeypatch.setattr("videochat_flash.bench.document.put", full)
    line = ("bench", "--model", model, "--frames", "4", *FEW, "--write", document)
    shown, told = run(capsys, *line), run(capsys, *line, "--json")
    assert "decode per token" in shown.out and json.loads(told.out)["runs"]
    for done in (shown, told):
        assert done.code == 1 and done.lines == [f"vcflash: {document}: No space left on device"]


def test_whoever_stops_reading_still_finds_the_files(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise OSError("nobody reads on")

    monkeypatch.setattr(commands, "_print", gone)
    document = tmp_path / "benchmarks.md"
    done = run(capsys, "bench", "--model", model, "--frames", "4", *FEW, "--write", document)
    assert done.code == 1 and done.lines == ["vcflash: nobody reads on"]
    assert "decode per token" in document.read_text()


def test_the_dropout_that_is_told_is_the_one_that_was_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model without a plan of its own, as the released ones are, takes that of their card where arms have one."""
    config = replace(SMALL, llm=replace(SMALL.llm, layers=20), keep=())
    save_model(tmp_path / "deep", tiny.model(config), plain_text(tiny.tokenizer()), Decoding(eos=(1,)))
    line = ("bench", "--model", tmp_path / "deep", "--frames", "4", *ROUNDS, "--json", "--compare")
    for names, dropout in (("seeing", "off"), ("prefill,asking", "4:0.75 by attention, 18:0.25 by attention")):
        told = json.loads(run(capsys, *line, names).out)
        assert told["dropout"] == dropout
        assert names == "seeing" or dropout in told["comparisons"][0]["arms"]


def test_a_plan_has_heads_written_out_for_a_gpu_in_float32(capsys: pytest.CaptureFixture[str]) -> None:
    config = RELEASES[RELEASED]
    for device, dtype, width in (("H100", "float32", 4), ("H100", "bfloat16", 2), ("cpu", "float32", 4)):
        line = ("bench", "--plan", "--device", device, "--dtype", dtype, "--model", RELEASED, "--frames", "2048")
        told = json.loads(run(capsys, *line, "--json").out)
        batch, repeated = CLIP_BATCH["cpu" if device == "cpu" else "cuda"], (device, dtype) == ("H100", "float32")
        held = memory(config, sample_of(config, 2048), (), width, batch, repeated=repeated)
        assert told["forecasts"][0]["needed_bytes"] == max(held.values())


def test_a_plan_refuses_what_a_run_would(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videochat_flash.quantise.check_device", lambda device: None)  # as where there is one
    line = ("bench", "--plan", "--device", "mps", "--kv-cache-dtype", "fp8", "--model", RELEASED, "--frames", "4")
    done = run(capsys, *line)
    assert done.code == 1 and done.lines == [
        "vcflash: --kv-cache-dtype fp8 does not work on mps, which has no such numbers"
    ]


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
        ("--device gpu0", 2, "device 'gpu0' is not known: use cpu, cuda"),
        ("--device h200", 2, "h200 is not a device of PyTorch: add --plan"),
        ("--plan --device H2000", 2, "GPU 'H2000' is not known: did you mean H200?"),
        ("--plan --device cuda:7", 1, "device cuda:7 is not there"),
        ("--plan --video film.mp4", 2, "--plan runs nothing: leave out --video"),
        ("--plan --compare all", 2, "--plan runs nothing: leave out --compare"),
        ("--plan --share 2", 2, "--share must be above 0 and at most 1, not 2"),
        ("--compare speed", 2, "--compare 'speed' is not known: use all, or some of seeing, prefill"),
        ("--compare prefill --keep off", 2, "holds dropout against none, but there is none: give it by --keep"),
        ("--share 0.7", 2, "--share changes nothing without --plan: leave it out, or add --plan"),
        ("--plan --size 64x48", 2, "--size changes nothing with --plan: leave it out"),
        ("--plan --max-new-tokens 2", 2, "--max-new-tokens changes nothing with --plan"),
        ("--plan --repeats 1", 2, "--repeats changes nothing with --plan"),
        ("--plan --warmup 0", 2, "--warmup changes nothing with --plan"),
        ("--plan --no-whole", 2, "--no-whole changes nothing with --plan"),
        ("--compare all --size 64x48", 2, "--size changes nothing with --compare"),
        ("--compare all --max-new-tokens 2", 2, "--max-new-tokens changes nothing with --compare"),
        ("--compare all --no-whole", 2, "--no-whole changes nothing with --compare"),
        ("--video absent.mp4 --size 64x48", 2, "--size changes nothing with --video"),
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
    line = ("bench", "--model", model, "--frames", "4", *ROUNDS, "--compare", "prefill", "--out", tmp_path / "out")
    held = run(capsys, *line)
    assert held.code == 0 and sorted(one.name for one in (tmp_path / "out").iterdir()) == ["bench.json", "bench.md"]
