"""What a recipe starts from: a whole model, another image size, parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import stage
import torch
from safetensors.torch import load_file, save_file
from stage import trained

from videochat_flash import VideoChatFlash
from videochat_flash.train.begin import begin, part_of


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage.make(tmp_path_factory.mktemp("stage"))


def test_a_model_goes_on_at_another_image_size_with_its_decoder_frozen(path: Path, tmp_path: Path) -> None:
    recipe = stage.recipe(path, f"out={tmp_path / 'high'}", "image_size=192", "rates.decoder=0", "steps=2")
    before = VideoChatFlash.from_pretrained(recipe.start).model
    begun, _ = begin(recipe)
    assert begun.config.vision.image_size == 192 != before.config.vision.image_size
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in begun.state_dict().items())
    trained(recipe)
    after = VideoChatFlash.from_pretrained(tmp_path / "high" / "model").model
    assert after.config.vision.image_size == 192
    moved = {
        part_of(name)
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name].bfloat16().float())
    }
    assert moved == {"tower", "connector"}


def test_a_size_that_leaves_a_patch_over_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="image_size 100 must be a multiple of patch 16"):
        begin(stage.recipe(path, "image_size=100"))


def test_parts_come_from_files_of_their_own(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = stage.recipe(path)
    whole, _ = begin(recipe)
    monkeypatch.setitem(
        __import__("videochat_flash.train.recipe", fromlist=["MODELS"]).MODELS, "flash-tiny", whole.config
    )
    held = load_file(Path(recipe.start) / "model.safetensors")
    save_file({key: value for key, value in held.items() if "mm_projector" in key}, tmp_path / "connector.safetensors")
    text = path.read_text().replace(f'start = "{recipe.start}"', 'model = "flash-tiny"')
    (tmp_path / "parts.toml").write_text(text)
    parts = stage.recipe(
        tmp_path / "parts.toml",
        f"tower={recipe.start}",
        f"connector={tmp_path / 'connector.safetensors'}",
        f"decoder={recipe.start}",
    )
    made, _ = begin(parts)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in made.state_dict().items())
    (tmp_path / "narrow.safetensors").write_bytes((tmp_path / "connector.safetensors").read_bytes())
    narrow = {key: value[:-1] for key, value in load_file(tmp_path / "narrow.safetensors").items()}
    save_file({key: value.contiguous() for key, value in narrow.items()}, tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match="does not fit the model"):
        begin(stage.recipe(tmp_path / "parts.toml", f"connector={tmp_path / 'narrow.safetensors'}"))
