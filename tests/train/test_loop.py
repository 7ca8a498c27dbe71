"""One stage of training as its user would run it: stopped, killed, resumed, sharded, and refused."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stage
import tiny
import torch
from command import finished, start
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from stage import shared_run, trained
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from videochat_flash import VideoChatFlash
from videochat_flash.config import Plan
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.train.adapters import merge_adapters
from videochat_flash.train.begin import begin
from videochat_flash.train.checkpoint import Keeper
from videochat_flash.train.learner import Learner, objective, pack, weight
from videochat_flash.train.loop import METRICS, Schedule, Step, Trainer, forget, operations, peak_of
from videochat_flash.train.optimize import factor, listed, make_optimizers
from videochat_flash.train.parallel import Place, prepare
from videochat_flash.train.recipe import Lora, Recipe, load_recipe
from videochat_flash.train.samples import Sample, Samples
from videochat_flash.train.stage import _bound, claim, history, losses, read_data, train
from videochat_flash.train.worlds import Drawn, World, draw_pixels
from videochat_flash.train.written import resolved

HERE = Place(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage.make(tmp_path_factory.mktemp("stage"))


def samples_of(recipe: Recipe) -> list[Sample]:
    model, tokenizer = begin(recipe)
    data = Samples(recipe, model.config, tokenizer, read_data(recipe).records)
    read = [data[i] for i in range(len(data))]
    assert all(isinstance(one, Sample) for one in read), read
    return [one for one in read if isinstance(one, Sample)]


# -- what is optimised -------------------------------------------------------------------------------------------------


def step_sizes(recipe: Recipe) -> dict[str, float]:
    """How far the first step moves the weights of each part that moves at all."""
    with tiny.seeded():
        model, _ = begin(recipe)
        net = prepare(Learner(model), HERE, recipe)
        optimizers = make_optimizers(net, recipe)
        before = {name: value.clone() for name, value in net.named_parameters()}
        sums, counts, zero = net(samples_of(recipe))
        (objective(sums, counts, recipe.loss) + zero).backward()
        for optimizer in optimizers:
            optimizer.step()
    moved: dict[str, float] = {}
    for name, value in net.named_parameters():
        far = (value.detach() - before[name]).abs().max().item()
        part = name.split(".")[1]
        moved[part] = max(far, moved.get(part, 0.0))
    return moved


def test_every_part_learns_at_its_own_rate(path: Path) -> None:
    moved = step_sizes(stage.recipe(path))
    assert moved["vision"] == pytest.approx(1e-4, rel=1e-2)  # a first step of Adam is as large as the rate
    assert moved["connector"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["decoder"] == pytest.approx(5e-4, rel=1e-2)


def test_a_part_without_a_rate_is_frozen(path: Path) -> None:
    moved = step_sizes(stage.recipe(path, "rates.tower=0", "rates.decoder=0"))
    assert moved["vision"] == moved["decoder"] == 0 < moved["connector"]


def test_norms_and_biases_never_decay(path: Path) -> None:
    recipe = stage.recipe(path, "optimizer.weight_decay=0.1")
    model, _ = begin(recipe)
    (optimizer,) = make_optimizers(Learner(model), recipe)
    for group in optimizer.param_groups:
        assert all((value.ndim > 1) == (group["weight_decay"] > 0) for value in group["params"])


def test_what_learns_is_listed_as_the_optimizers_hold_it(path: Path) -> None:
    recipe = stage.recipe(path, "optimizer.weight_decay=0.1", "optimizer.kind=muon", "rates.decoder=0")
    net = Learner(begin(recipe)[0])
    found = {
        (one.part, one.optimizer, one.decay): (one.parameters, one.rate) for one in listed(make_optimizers(net, recipe))
    }
    assert set(found) == {
        *(("tower", kind, decay) for kind, decay in (("AdamW", 0.0), ("AdamW", 0.1), ("Muon", 0.1))),
        *(("connector", "AdamW", decay) for decay in (0.0, 0.1)),
    }
    assert {rate for (part, *_), (_, rate) in found.items() if part == "tower"} == {1e-4}
    assert sum(n for n, _ in found.values()) == sum(p.numel() for p in net.parameters() if p.requires_grad)


def test_muon_takes_the_matrices_inside_blocks_and_goes_on_where_it_was(path: Path, tmp_path: Path) -> None:
    recipe = stage.recipe(path, "optimizer.kind=muon", f"out={tmp_path / 'run'}")
    with tiny.seeded():
        model, _ = begin(recipe)
    rest, inside = make_optimizers(Learner(model), recipe)
    names = {id(value): name for name, value in model.named_parameters()}
    held = {names[id(value)] for group in inside.param_groups for value in group["params"]}
    assert held == {
        name for name, value in model.named_parameters() if value.ndim == 2 and ("blocks." in name or "layers." in name)
    }
    assert {names[id(value)] for group in rest.param_groups for value in group["params"]} == set(names.values()) - held
    expected = trained(recipe)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    shutil.rmtree(tmp_path / "run" / "model")
    assert trained(recipe) == expected


def test_the_rate_rises_and_sinks_as_a_cosine() -> None:
    assert [round(factor(i, 100, 0.03, 1.0), 4) for i in (0, 1, 2, 3)] == [0.3333, 0.6667, 1.0, 1.0]
    assert factor(99, 100, 0.03, 1.0) < 1e-3 and factor(51, 100, 0.03, 1.0) == pytest.approx(0.5, abs=0.02)
    assert factor(0, 1, 0.0, 1.0) == 1.0


def test_the_rate_may_stay_before_it_sinks() -> None:
    assert [factor(i, 100, 0.03, 0.2) for i in (3, 50, 80)] == [1.0, 1.0, 1.0]
    assert factor(90, 100, 0.03, 0.2) == pytest.approx(0.5) and factor(99, 100, 0.03, 0.2) < 0.01
    assert {factor(i, 10, 0.0, 0.0) for i in range(10)} == {1.0}


@pytest.mark.parametrize("by", ["sample", "token"])
def test_many_small_packs_equal_one_large(path: Path, tmp_path: Path, by: str) -> None:
    large, small = (
        stage.recipe(path, f"loss={by}", f"out={tmp_path / name}", f"pack={rows}", f"max_rows={rows}", "steps=2")
        for name, rows in (("large", 4000), ("small", 200))
    )
    assert len(pack(samples_of(large), 4000)) == 1 and len(pack(samples_of(small), 200)) > 3
    first, second = trained(large), trained(small)
    np.testing.assert_allclose([loss for _, loss in first], [loss for _, loss in second], rtol=1e-5)
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("large", "small"))
    assert all(torch.allclose(one[key].float(), other[key].float(), atol=1e-2) for key in one)


def test_by_sample_every_answer_weighs_the_same() -> None:
    sums, counts = torch.tensor([2.0, 30.0]), torch.tensor([1, 10])
    blank = Sample("", "", Prompt((), (), ()), (), (), 0)
    said = [replace(blank, prompt=Prompt((0,) * n, (IGNORE, *range(n)), ())) for n in counts.tolist()]
    some = [*said, blank]  # what is only looked at has no weight
    assert objective(sums, counts, "sample") / weight(some, "sample") == 2.5
    assert objective(sums, counts, "token") / weight(some, "token") == pytest.approx(32 / 11)


def test_packed_conversations_lose_what_each_alone_would(path: Path) -> None:
    recipe = stage.recipe(path)
    model, _ = begin(recipe)
    samples = samples_of(recipe)
    net = Learner(model)
    with torch.no_grad():
        together = net(samples)[0]
        alone = torch.cat([net([one])[0] for one in samples])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_recomputation_changes_no_gradient(path: Path) -> None:
    grads = []
    for recompute in ("false", "true"):
        recipe = stage.recipe(path, f"recompute={recompute}")
        model, _ = begin(recipe)
        net = prepare(Learner(model), HERE, recipe)
        net(samples_of(recipe))[0].sum().backward()
        grads.append([value.grad for value in net.parameters()])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(plain, again)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_packs_hold_everything_once_within_the_budget(rows: list[int], budget: int) -> None:
    blank = Sample("", "", Prompt((), (), ()), (), (), 0)
    packs = pack([replace(blank, id=str(i), rows=n) for i, n in enumerate(rows)], budget)
    assert sorted(int(one.id) for part in packs for one in part) == list(range(len(rows)))
    assert all(len(part) == 1 or sum(one.rows for one in part) <= budget for part in packs)
    seen = draw_pixels(Drawn("", "", World("clips", talk=0), 1, 0), 32)[1][0].some(np.random.default_rng(0), 5)
    silent = [replace(blank, id=str(i), lessons=(seen,)) for i in range(7)]
    assert [len(part) for part in pack(silent, 10)] == [2, 2, 2, 1], "what is only looked at counts by its patches"


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 4))
def test_steps_share_out_whole_epochs(length: int, batch: int, world: int) -> None:
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng(epoch).permutation(length)

    schedule = Schedule(order, length, np.arange(length) % 5 + 1, batch)
    drawn = [record for number in range(length) for record in schedule.step(number)]
    assert sorted(drawn) == sorted(list(range(length)) * batch)
    places = [Place(rank, world, HERE.device) for rank in range(world)]
    assert sorted(sum((schedule.share(3, place) for place in places), [])) == sorted(schedule.step(3))


# -- stopping and going on ---------------------------------------------------------------------------------------------


def killed(path: Path, out: Path, when: int) -> None:
    """Start a run in a process of its own and kill it when it has told of so many steps."""
    process = start("train", path, "--set", f"out={out}", "--set", "save_every=1", "--set", "steps=6", "-q")
    deadline = time.monotonic() + 120
    while not (out / METRICS).is_file() or len((out / METRICS).read_text().splitlines()) < when:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.communicate()


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_been(path: Path, tmp_path: Path) -> None:
    expected = trained(stage.recipe(path, f"out={tmp_path / 'whole'}", "save_every=1", "steps=6"))
    killed(path, tmp_path / "killed", int(np.random.default_rng().integers(1, 6)))
    assert trained(stage.recipe(path, f"out={tmp_path / 'killed'}", "save_every=1", "steps=6")) == expected
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()
    assert [p.name for p in sorted((tmp_path / "killed" / "checkpoints").iterdir())] == [
        "step-00000005",
        "step-00000006",
    ]


def test_any_number_of_readers_gives_the_same(path: Path, tmp_path: Path) -> None:
    runs = [trained(stage.recipe(path, f"out={tmp_path / str(n)}", f"workers={n}", "steps=2")) for n in (0, 2)]
    assert runs[0] == runs[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_two_processes_learn_what_one_does_and_each_goes_on_from_the_other(
    path: Path, tmp_path: Path, kind: str
) -> None:
    more = ("train_with_dropout=2:0.5", "loss=token", "save_every=2", f"optimizer.kind={kind}")
    expected = trained(stage.recipe(path, f"out={tmp_path / 'one'}", *more))
    shared_run(path, 2, f"out={tmp_path / 'two'}", *more)
    np.testing.assert_allclose(losses(tmp_path / "two"), expected, rtol=1e-5)
    for begun, resumed in ((2, 1), (1, 2)):
        out = tmp_path / f"{begun}-{resumed}"
        shutil.copytree(tmp_path / ("two" if begun == 2 else "one"), out)
        shutil.rmtree(out / "checkpoints" / "step-00000004")
        shutil.rmtree(out / "model")
        shared_run(path, resumed, f"out={out}", *more)
        np.testing.assert_allclose(losses(out), expected, rtol=1e-5)


def test_dropout_holds_in_as_many_steps_as_wanted(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    plain = Learner.forward

    def forward(self: Learner, samples: Any, plan: Plan = (), shared: Any = None) -> Any:
        plans.append(plan)
        return plain(self, samples, plan, shared)

    monkeypatch.setattr(Learner, "forward", forward)
    recipe = stage.recipe(path, f"out={tmp_path}", "train_with_dropout=2:0.5", "dropout_every=2", "pack=100000")
    trained(recipe)
    assert plans == [recipe.plan if step % 2 == 0 else () for step in range(recipe.steps)] and recipe.plan


def test_the_dropout_that_a_model_learned_with_is_what_it_answers_with(path: Path, tmp_path: Path) -> None:
    plain, dropped = (
        stage.recipe(
            path, f"out={tmp_path / (plan or 'off')}", f"train_with_dropout={plan}", "dropout_by=uniform", "steps=1"
        )
        for plan in ("", "1:0.5")
    )
    begun = VideoChatFlash.from_pretrained(plain.start).model.config.keep
    for recipe, keep in ((plain, begun), (dropped, dropped.plan)):
        trained(recipe)
        assert VideoChatFlash.from_pretrained(Path(recipe.out) / "model").model.config.keep == keep
    assert begun != dropped.plan


def test_what_comes_out_may_lie_between_what_was_begun_with_and_what_was_learned(path: Path, tmp_path: Path) -> None:
    """A quarter of the way, with adapters or without."""
    lora = ("lora.parts=['decoder']", "rates.tower=0", "rates.connector=0", "lora.rank=2")
    for number, more in enumerate(((), lora)):
        whole, part = (
            stage.recipe(path, f"out={tmp_path / f'{number} {blend}'}", f"blend={blend}", "rates.decoder=1e-2", *more)
            for blend in (1.0, 0.25)
        )
        assert trained(whole) == trained(part)
        begun = dict(begin(replace(whole, lora=Lora()))[0].named_parameters())
        ends = (replace(one, start=f"{one.out}/model", lora=Lora()) for one in (whole, part))
        far, near = (dict(begin(end)[0].named_parameters()) for end in ends)
        for name, old in begun.items():
            torch.testing.assert_close(near[name], old.lerp(far[name], 0.25), rtol=0.01, atol=1e-4)
        assert any((near[name] - old).abs().max() > 1e-3 for name, old in begun.items())


def worlds(talk: float) -> str:
    kinds = [f'{{world = {{kind = "{kind}", count = 20, talk = {talk}}}}}' for kind in ("frames", "clips")]
    return f"data=[{', '.join(kinds)}]"


def assert_alike(out: Path, other: Path, rtol: float = 1e-5) -> None:
    """Two runs answered, were taught and moved alike."""
    for key in ("loss", "taught", "norm"):
        one, two = ([row[key] for row in history(run)] for run in (out, other))
        np.testing.assert_allclose(np.array(one, float), np.array(two, float), rtol=rtol)  # nan where nothing talked


TAUGHT = ("teach=1.0", "rates.tower=1e-3", "batch=6", "seed=2", worlds(0.4))


def test_lessons_weigh_the_same_however_they_are_packed(path: Path, tmp_path: Path) -> None:
    for name, rows in (("one", 4000), ("many", 100)):
        trained(stage.recipe(path, f"out={tmp_path / name}", f"pack={rows}", *TAUGHT))
    assert_alike(tmp_path / "one", tmp_path / "many")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "steps", "rtol"), [("adamw", 4, 1e-5), ("muon", 2, 1e-4)])
def test_two_processes_teach_a_tower_what_one_does(
    path: Path, tmp_path: Path, kind: str, steps: int, rtol: float
) -> None:
    """Muon lifts the weakest directions of a gradient, and with them its rounding, some 300 times in every step."""
    more = (*TAUGHT, f"optimizer.kind={kind}", f"steps={steps}")
    trained(stage.recipe(path, f"out={tmp_path / 'one'}", *more))
    shared_run(path, 2, f"out={tmp_path / 'two'}", *more)  # of which one has nothing that talks, now and then
    assert_alike(tmp_path / "one", tmp_path / "two", rtol)


def test_a_step_in_which_nothing_talks_teaches_all_the_same(path: Path, tmp_path: Path) -> None:
    assert trained(stage.recipe(path, f"out={tmp_path / 'run'}", *TAUGHT, worlds(0.0))) == []
    for row in history(tmp_path / "run"):
        assert row["loss"] is None and row["taught"] > 0 and row["norm"] > 0 and row["samples"] == 6


def test_heads_go_along_to_the_next_stage(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "one"
    trained(stage.recipe(path, f"out={out}", *TAUGHT))
    still = (*TAUGHT, f"start={out / 'model'}", "rates.tower=1e-9", "seed=3")
    for name, more in (("new", ()), ("same", (f"heads={out / 'heads.safetensors'}",))):
        trained(stage.recipe(path, f"out={tmp_path / name}", *still, *more))
    before, new, same = (load_file(tmp_path / name / "heads.safetensors") for name in ("one", "new", "same"))
    assert {key.partition(".")[0] for key in before} == {"what", "where"}
    for key, value in before.items():
        torch.testing.assert_close(same[key], value)
        assert (new[key] - value).abs().max() > 0.01
    larger = (*still, "image_size=64", f"heads={out / 'heads.safetensors'}")
    with pytest.raises(ValueError, match="images of another size: drop the key"):
        trained(stage.recipe(path, f"out={tmp_path / 'larger'}", *larger))


def test_heads_that_cannot_be_read_are_told_in_one_line(path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    for name in ("bad.safetensors", "none.safetensors"):
        line = told(path, tmp_path, f"out={tmp_path / name}-run", *TAUGHT, f"heads={tmp_path / name}")
        assert str(tmp_path / name) in line


# -- adapters ----------------------------------------------------------------------------------------------------------


def test_a_merged_model_answers_as_its_adapters_did(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "lora"
    changes = (f"out={out}", 'lora.parts=["decoder", "tower"]', "lora.rank=4", "lora.dropout=0.1", "steps=3")
    recipe = stage.recipe(path, *changes, "rates.decoder=0.01")
    trained(recipe)
    with tiny.seeded():
        model, _ = begin(recipe)
        net = Learner(model)
        Keeper(out / "checkpoints", 2, "", {}).restore(net, make_optimizers(net, recipe), HERE)
        samples = samples_of(recipe)
        with torch.no_grad():
            before, adapted = (one.eval()(samples)[0] for one in (Learner(begin(recipe)[0]), net))
            merged = Learner(merge_adapters(net.model))(samples)[0]
    assert (adapted - before).abs().max() > 0.1
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-4)
    written = VideoChatFlash.from_pretrained(out / "model").model.state_dict()
    assert all(torch.equal(value.bfloat16().float(), written[name]) for name, value in net.model.state_dict().items())
    assert set(load_file(out / "model" / "model.safetensors")) == set(
        load_file(Path(recipe.start) / "model.safetensors")
    )


# -- what is refused ---------------------------------------------------------------------------------------------------


def told(path: Path, tmp_path: Path, *changes: str) -> str:
    """The one line that a refused command says."""
    sets = [word for change in (f"out={tmp_path / 'run'}", *changes) for word in ("--set", change)]
    done = finished(start("train", path, *sets, "-q"))
    assert done.code == 1 and done.out == ""
    (line,) = [line for line in done.lines if not line.startswith("vcflash: note: ")]
    return line


@pytest.mark.slow
def test_too_many_bad_records_stop_the_run(path: Path, tmp_path: Path) -> None:
    rows = json.loads((path.parent / "records.json").read_text())
    broken = [{**one, "video": "missing.mp4"} if "video" in one else one for one in rows]
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    text = path.read_text().replace(str(path.parent / "records.json"), str(tmp_path / "broken.json"))
    (tmp_path / "broken.toml").write_text(text)
    line = told(tmp_path / "broken.toml", tmp_path)
    assert "missing file" in line and "max_bad_share" in line and "--check-data" in line
    done = finished(start("train", tmp_path / "broken.toml", "--check-data", "--json"))
    table = json.loads(done.out)
    assert done.code == 1 and table["sources"][0]["bad"] == {"missing file": 4} and not table["accepted"]


def with_bad(path: Path, folder: Path, only: bool = False) -> Path:
    """The recipe with a record whose video is not there; or with nothing else."""
    rows = [] if only else json.loads((path.parent / "records.json").read_text())
    (folder / "some.json").write_text(json.dumps([*rows, stage.record(9, "What?", "it", video="none.mp4")]))
    made = folder / "some.toml"
    made.write_text(path.read_text().replace(str(path.parent / "records.json"), str(folder / "some.json")))
    return made


def test_bad_records_within_the_share_are_left_out_and_told_once(path: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    steps: list[Step] = []
    with tiny.seeded():
        recipe = stage.recipe(with_bad(path, tmp_path), f"out={tmp_path / 'run'}", "max_bad_share=0.5", "batch=7")
        train(recipe, lambda step, _: steps.append(step), heard.append)
    assert [step.samples for step in steps] == [6] * 4 and [step.bad for step in steps] == [1, 2, 3, 4]
    assert len(heard) == 1 and "r9" in heard[0] and "missing file" in heard[0]
    assert [step.reasons for step in steps] == [{"missing file": n} for n in (1, 2, 3, 4)]


def test_what_was_left_out_before_a_stop_still_counts(path: Path, tmp_path: Path) -> None:
    recipe = stage.recipe(with_bad(path, tmp_path), f"out={tmp_path / 'run'}", "max_bad_share=0.5", "batch=7")
    with tiny.seeded():
        train(recipe, lambda step, _: None, lambda text: None)
        for again in ("checkpoints/step-00000004", "model"):
            shutil.rmtree(tmp_path / "run" / again)
        steps: list[Step] = []
        train(recipe, lambda step, _: steps.append(step), lambda text: None)
    assert [(step.step, step.bad, step.reasons) for step in steps] == [
        (3, 3, {"missing file": 3}),
        (4, 4, {"missing file": 4}),
    ]
    (tmp_path / "run" / "checkpoints" / "step-00000004" / "records.json").unlink()  # as older versions wrote them
    assert Keeper(tmp_path / "run" / "checkpoints", 2, "", {}).records(4) == {}


def test_a_step_of_bad_records_alone_moves_nothing_and_the_next_one_does(path: Path, tmp_path: Path) -> None:
    recipe = stage.recipe(
        with_bad(path, tmp_path), f"out={tmp_path / 'run'}", "max_bad_share=0.2", "batch=1", "steps=7"
    )
    with tiny.seeded():
        train(recipe, lambda step, _: None, lambda text: None)
    rows = history(tmp_path / "run")
    (still,) = [row for row in rows if row["loss"] is None]
    assert len(rows) == 7 and len(losses(tmp_path / "run")) == 6
    assert (still["samples"], still["norm"], still["bad"]) == (0, 0, 1)


def test_where_all_is_bad_and_that_is_allowed_nothing_moves(path: Path, tmp_path: Path) -> None:
    bad = with_bad(path, tmp_path, only=True)
    more = ("max_bad_share=1.0", "batch=1", "optimizer.weight_decay=0.1")
    one, data = trainer(stage.recipe(bad, f"out={tmp_path / 'run'}", *more))
    before = {name: value.clone() for name, value in one.net.state_dict().items()}
    with tiny.seeded():
        one.run(data)
    assert all(torch.equal(value, before[name]) for name, value in one.net.state_dict().items())
    done = finished(start("train", bad, *sum((["--set", change] for change in (f"out={tmp_path / 'all'}", *more)), [])))
    assert done.code == 0 and "none of them with an answer to learn" in done.out and "missing file" in done.out


def trainer(recipe: Recipe) -> tuple[Trainer, Samples]:
    with tiny.seeded():
        model, tokenizer = begin(recipe)
    net = Learner(model)
    data = Samples(recipe, model.config, tokenizer, read_data(recipe).records)
    keeper = Keeper(Path(recipe.out) / "checkpoints", 2, "", {})
    schedule = Schedule(lambda _: np.arange(len(data)), len(data), np.ones(len(data)), recipe.batch)
    keeper.folder.mkdir(parents=True)
    made = make_optimizers(net, recipe)
    return Trainer(recipe, HERE, net, made, keeper, schedule, lambda _: None, lambda _: None), data


def test_one_bad_record_of_the_first_few_is_no_share_of_all(path: Path, tmp_path: Path) -> None:
    one, _ = trainer(stage.recipe(path, f"out={tmp_path / 'run'}", "steps=500", "max_bad_share=0.01"))
    one.schedule = replace(one.schedule, length=5000)
    assert one._judged(4) == 1000 and one._judged(3000) == 3000
    one._check(1 / one._judged(4))
    with pytest.raises(ValueError, match="1.1% of the records are bad"):
        one._check(11 / one._judged(40))


def test_weights_that_leave_no_record_are_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "light.toml").write_text(path.read_text() + "\n        weight = 0.05\n")
    with pytest.raises(ValueError, match="weights in .* are too small"):
        trained(stage.recipe(tmp_path / "light.toml", f"out={tmp_path / 'run'}"))


def test_a_loss_that_is_no_number_names_its_records(path: Path, tmp_path: Path) -> None:
    one, data = trainer(stage.recipe(path, f"out={tmp_path / 'run'}"))
    with torch.no_grad():
        one.net.model.decoder.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"loss of step 1 is nan.*r2"), tiny.seeded():
        one.run(data)


def test_out_of_memory_says_which_knob_helps(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, data = trainer(stage.recipe(path, f"out={tmp_path / 'run'}"))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    monkeypatch.setattr(one.net, "forward", full)
    with pytest.raises(ValueError, match=r"rows in one forward: lower pack or video.max_frames.*lora"), tiny.seeded():
        one.run(data)


@pytest.mark.parametrize("where", ["step", "state_dict"])
def test_too_little_memory_outside_of_the_forward_is_told_as_well(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, where, lambda *_, **__: torch.empty(1 << 50, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"out of memory outside of the forward.*\[lora\].*--dry-run"):
        trained(stage.recipe(path, f"out={tmp_path / 'run'}"))


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_good(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained(stage.recipe(path, f"out={out}", "steps=4", "save_every=2"))
    shutil.rmtree(out / "checkpoints" / "step-00000004")
    shutil.rmtree(out / "model")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a disk with so much room

    done = finished(start("train", path, "--set", f"out={out}", "-q", preexec_fn=small_files))
    assert done.code == 1 and "no checkpoint of step 4" in done.err and "earlier ones stay" in done.err
    assert [one.name for one in (out / "checkpoints").iterdir()] == ["step-00000002"]
    assert [step for step, _ in trained(stage.recipe(path, f"out={out}"))] == [1, 2, 3, 4]


def test_a_step_tells_what_it_computes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = stage.recipe(path)
    samples, config = samples_of(recipe), begin(recipe)[0].config
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):  # the others are not counted on a CPU
        Learner(begin(recipe)[0])(samples)[0].sum().backward()
    assert operations(recipe, config, samples) == pytest.approx(counted.get_total_flops(), rel=0.25)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    assert peak_of(torch.device("cuda"), "bfloat16") == 989 and peak_of(torch.device("cpu"), "bfloat16") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA GeForce RTX 4090")
    assert peak_of(torch.device("cuda"), "float32") == 82.6
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100-SXM4-80GB")
    assert peak_of(torch.device("cuda"), "bfloat16") == 312


def test_a_folder_belongs_to_one_recipe(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    claim(out, stage.recipe(path, f"out={out}"))
    now = stage.recipe(path, f"out={out}", "workers=3", "save_every=1", "max_bad_share=0.5")
    claim(out, now)
    assert load_recipe(out / "recipe.toml") == now
    (out / "recipe.toml").write_text(resolved(_bound(now)))  # as older versions wrote it
    claim(out, now)
    with pytest.raises(ValueError, match=r"another recipe \(different: steps\)"):
        claim(out, stage.recipe(path, f"out={out}", "steps=9"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="not empty and holds no run"):
        claim(tmp_path / "other", stage.recipe(path, f"out={out}"))


def test_metrics_forget_steps_that_will_be_done_again(tmp_path: Path) -> None:
    file = tmp_path / METRICS
    forget(file, 3)
    file.write_text("".join(f'{{"step": {i}}}\n' for i in range(1, 6)) + '{"ste')
    forget(file, 3)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3]
