"""The exam asks what was never seen, and marks an answer right when all of it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import stage
import tiny
import torch
from command import run, small_model
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import IGNORE, Prompt
from videochat_flash.train import losses
from videochat_flash.train.begin import begin
from videochat_flash.train.exam import UNSEEN, answers, examine, rows_of, table_of, unseen
from videochat_flash.train.parallel import join
from videochat_flash.train.recipe import Recipe, Source, load_recipe
from videochat_flash.train.worlds import World


def drawing(folder: Path) -> Path:
    """A recipe of a small model that draws clips."""
    path = stage.make(folder)
    text = path.read_text()
    world = '{ kind = "clips", count = 3 }'
    path.write_text(f'{text[: text.index("[[data]]")]}[[data]]\nname = "clips"\nworld = {world}\n')
    return path


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), max_size=6))
def test_every_answer_has_its_tokens(turns: list[tuple[int, int]]) -> None:
    labels = [label for asked, said in turns for label in [IGNORE] * asked + [7] * said]
    assert answers(Prompt((0,) * len(labels), tuple(labels), ())) == [said for _, said in turns]


def test_other_things_are_asked_than_were_trained() -> None:
    recipe = Recipe("out", seed=5, teach=1.0, data=(Source(world=World("frames", count=9, talk=0.1)),))
    asked = unseen(recipe, 3, Path("elsewhere"))
    assert asked.seed == 5 + UNSEEN and asked.data[0].world == replace(
        recipe.data[0].world, count=3, talk=1.0, pieces=2000, seed=1 + UNSEEN
    )
    with pytest.raises(ValueError, match="needs a recipe that draws"):
        unseen(replace(recipe, data=(Source("records.json"),)), 3, Path("elsewhere"))


@pytest.mark.parametrize("knows", [True, False])
def test_whoever_knows_all_is_right_and_whoever_errs_once_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    path = drawing(tmp_path)
    recipe = unseen(load_recipe(path), 4, tmp_path / "exam")

    def learned(model: VideoChatFlashModel, *given: object) -> tuple[torch.Tensor, torch.Tensor]:
        scores, labels = losses.learned(model, *given)  # type: ignore[arg-type]
        said = labels if knows else torch.where(torch.arange(len(labels)) % 2 == 0, labels, labels + 1)
        return torch.nn.functional.one_hot(said, scores.shape[1] + 1)[:, :-1].float(), labels

    monkeypatch.setattr("videochat_flash.train.exam.learned", learned)
    with tiny.seeded():
        asked = examine(*begin(recipe), recipe, (), join("cpu"))
        marks = [mark for _, some in asked for mark in some]
    assert len(marks) >= 4 and all(mark.right == mark.blind == knows for mark in marks)
    assert table_of(rows_of(marks)).row_count == len({mark.kind for mark in marks})


def test_the_command_tells_every_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = drawing(tmp_path)
    (tmp_path / "model").symlink_to(small_model(tmp_path))
    done = run(capsys, "train", path, "--set", f"out={tmp_path}", "--exam", 2, "--json")
    told = json.loads(done.out)
    marks, rows = told["marks"], told["rows"]
    assert sum(row["asked"] for row in rows) == len(marks) and all(0 <= row["right"] <= 1 for row in rows)
    assert {mark["source"] for mark in marks} == {"clips"} and {"kind", "right", "blind"} < marks[0].keys()
