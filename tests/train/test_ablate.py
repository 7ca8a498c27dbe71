"""Ablations: every arm is trained and asked the same once for each seed, and what is told follows from the marks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import stage
import tiny

from videochat_flash.train.ablate import Run, ablate, arms, behind, interval, run_arm, summary
from videochat_flash.train.exam import Mark
from videochat_flash.train.recipe import load_recipe

ABLATIONS = Path(__file__).parents[2] / "recipes" / "ablations"
WORLD = 'kind = "videos", count = 8, pieces = 60, pointers = 0.0, clips = [2, 3], cards = [1, 1], moving = [0, 0]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms of a small model: one stage, and two stages behind each other."""
    path = stage.make(tmp_path_factory.mktemp("stage"))
    text = path.read_text()
    place = path.parent / "ablation"
    (place / "two").mkdir(parents=True)
    (place / "base.toml").write_text(text[: text.index("[[data]]")].replace("tower = 1e-4", "tower = 0.0"))
    for name, base, more in (
        ("16.toml", "base.toml", ""),
        ("exam.toml", "base.toml", ""),
        ("two/1.toml", "../base.toml", ', by = "pool", tokens = 4'),
        ("two/2.toml", "../base.toml", ', by = "pool", tokens = 4'),
    ):
        world = f"[[data]]\nname = 'few'\nworld = {{ {WORLD}{more} }}\n"
        (place / name).write_text(f"base = '{base}'\nsteps = 1\nbatch = 2\n{world}")
    return place


def test_arms_are_recipes_or_folders_of_stages_in_their_order(folder: Path) -> None:
    assert {name: [path.name for path in stages] for name, stages in arms(folder).items()} == {
        "16": ["16.toml"],
        "two": ["1.toml", "2.toml"],
    }
    assert list(arms(ABLATIONS / "tokens")) == ["4", "16", "49", "196"]
    with pytest.raises(FileNotFoundError, match="is no ablation"):
        arms(folder / "two")


SHIPPED = sorted(path for path in ABLATIONS.rglob("*.toml") if path.stem != "base")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_arm_that_ships_is_a_recipe(path: Path) -> None:
    assert load_recipe(path).data
    if path.parent.parent != ABLATIONS:  # a stage that may follow another
        assert load_recipe(path, behind(Path("before"))).start == "before"


@pytest.mark.slow
def test_what_is_done_is_not_done_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tiny.seeded():
        ablate(folder, seeds=2, count=2, out=tmp_path, as_json=True)
    first = capsys.readouterr().out
    lines = json.loads(first)
    assert [line["arm"] for line in lines if line["question"] == "attributes"] == ["16", "two"]
    assert (tmp_path / "ablation" / "arms.png").read_bytes().startswith(b"\x89PNG")
    exams = [(path, path.stat().st_mtime_ns) for path in tmp_path.rglob("exam.json")]
    assert len(exams) == 4
    shared = {path.name for path in (tmp_path / "pieces").iterdir()}  # by every ablation
    assert {"60-1-0-merge-16", "60-1-0-pool-4"} < shared and not list(tmp_path.rglob("ablation/**/pieces"))
    with tiny.seeded():
        ablate(folder, seeds=2, count=2, out=tmp_path, as_json=True)
    assert capsys.readouterr().out == first
    assert all(path.stat().st_mtime_ns == when for path, when in exams)
    asked = [[mark["kind"] for mark in json.loads(path.read_text())["marks"]] for path, _ in exams]
    assert all(kinds == asked[0] for kinds in asked)  # the same questions for every arm and seed
    with tiny.seeded():
        ablate(folder, seeds=2, count=3, out=tmp_path, as_json=True)
    assert all(path.stat().st_mtime_ns > when for path, when in exams), "another exam is another question"
    (folder / "16.toml").write_text((folder / "16.toml").read_text().replace("steps = 1", "steps = 2"))
    with pytest.raises(ValueError, match="another recipe"), tiny.seeded():
        ablate(folder, seeds=2, count=3, out=tmp_path, as_json=True)


@pytest.mark.slow
def test_stages_of_an_arm_begin_where_the_one_before_ended(folder: Path, tmp_path: Path) -> None:
    with tiny.seeded():
        run = run_arm("two", arms(folder)["two"], folder / "exam.toml", (), 1, tmp_path / "two", 2)
    assert f'start = "{tmp_path / "two" / "1" / "model"}"' in (tmp_path / "two" / "2" / "recipe.toml").read_text()
    assert run.rows > 0 and run.petaflop > 0 and run.marks


def test_intervals_are_students() -> None:
    assert interval([0.5]) == (0.5, math.inf)
    middle, half = interval([0.8, 0.9, 1.0])
    assert middle == pytest.approx(0.9) and half == pytest.approx(4.303 * 0.1 / 3**0.5, abs=1e-3)


def test_the_table_tells_shares_chance_and_blind() -> None:
    def marks(right: int) -> tuple[Mark, ...]:
        return tuple(Mark("few", "colour", i < right, i < 1) for i in range(8))

    lines = summary([Run("a", 1, 2.0, 10, marks(8)), Run("a", 2, 2.0, 10, marks(6)), Run("b", 1, 1.0, 5, marks(4))])
    assert [(line["question"], line["arm"]) for line in lines] == [("attributes", "a"), ("attributes", "b")]
    first, second = lines
    assert first["right"].startswith("87.5 ± ") and (first["guess"], first["blind"]) == ("12", "12")
    assert second["right"] == "50.0" and second["PFLOP"] == "1"
