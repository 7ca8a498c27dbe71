"""Pickles become safetensors with released key names, and nothing in them runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from videochat_flash.convert import convert

TOWER = "model.vision_tower.vision_tower."
KEYS = [f"model.mm_projector.mlp.{i}.{part}" for i in (0, 2) for part in ("weight", "bias")]


def test_convert_names_a_raw_umt_tower_as_released(tmp_path: Path) -> None:
    raw = {
        "encoder.patch_embed.proj.weight": torch.ones(2),
        "encoder.norm.weight": torch.ones(3),
        "decoder.x": torch.ones(1),
    }
    torch.save(raw, tmp_path / "UMT-L_f4_vision.pt")
    done = convert(tmp_path / "UMT-L_f4_vision.pt", tmp_path / "out.safetensors")
    with safe_open(done.path, "pt") as file:
        assert set(file.keys()) == {
            f"{TOWER}encoder.patch_embed.proj.weight",
            f"{TOWER}encoder.vision_layernorm.weight",
        }
    assert done.dropped == ("decoder.x",)
    (tmp_path / "new").touch()
    assert done.path.stat().st_mode == (tmp_path / "new").stat().st_mode


def test_convert_names_a_raw_internvideo2_tower_as_released(tmp_path: Path) -> None:
    raw = {"cls_token": torch.ones(1), "blocks.0.ls1.gamma": torch.ones(2), "clip_projector.x": torch.ones(1)}
    torch.save({"module": raw}, tmp_path / "InternVideo2-1B_f4_vision.pt")
    done = convert(tmp_path / "InternVideo2-1B_f4_vision.pt", tmp_path / "out.safetensors")
    with safe_open(done.path, "pt") as file:
        assert set(file.keys()) == {f"{TOWER}cls_token", f"{TOWER}blocks.0.ls1.weight"}


def test_convert_keeps_a_stage_one_connector(tmp_path: Path) -> None:
    torch.save(dict.fromkeys(KEYS, torch.ones(1)), tmp_path / "mm_projector.bin")
    done = convert(tmp_path / "mm_projector.bin", tmp_path / "out.safetensors")
    with safe_open(done.path, "pt") as file:
        assert set(file.keys()) == set(KEYS)


class Evil:
    """A pickle that would run something."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be printed",)


def test_convert_never_runs_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Evil()}, tmp_path / "evil.bin")
    with pytest.raises(ValueError, match="cannot be read as plain tensors"):
        convert(tmp_path / "evil.bin", tmp_path / "out.safetensors")
    assert "never" not in capsys.readouterr().out and not (tmp_path / "out.safetensors").exists()


def test_convert_reads_what_older_versions_of_torch_wrote(tmp_path: Path) -> None:
    torch.save({"model.a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    done = convert(tmp_path / "old.pth", tmp_path / "out.safetensors")
    with safe_open(done.path, "pt") as file:
        assert torch.equal(file.get_tensor("model.a"), torch.ones(3))
    torch.save({0: torch.ones(3)}, tmp_path / "numbered.pth")
    with pytest.raises(ValueError, match="holds no dictionary of tensors"):
        convert(tmp_path / "numbered.pth", tmp_path / "other")


def test_convert_of_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pt"):
        convert(tmp_path / "text.pt", tmp_path / "out.safetensors")
