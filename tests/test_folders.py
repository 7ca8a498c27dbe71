"""Folders that take the place of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from videochat_flash import folders
from videochat_flash.folders import take_place


def made(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
    return folder


def held(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_a_folder_takes_the_place_of_another_with_all_that_was_in_it(tmp_path: Path) -> None:
    for names in (["a"], ["b", "c"], ["d"]):
        take_place(made(tmp_path / ".new.part", *names), tmp_path / "set")
        assert held(tmp_path) == ["set"] and held(tmp_path / "set") == names


def test_killed_while_the_old_one_goes_the_new_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing a large folder takes a while, and half of it must not stand under its name."""
    made(tmp_path / "set", "old")

    def killed(path: Path, **_: object) -> None:
        if path.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(folders.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        take_place(made(tmp_path / ".new.part", "new"), tmp_path / "set")
    assert held(tmp_path / "set") == ["new"] and held(tmp_path) == [".set.old.part", "set"]
    monkeypatch.undo()
    take_place(made(tmp_path / ".new.part", "newer"), tmp_path / "set")
    assert held(tmp_path / "set") == ["newer"] and held(tmp_path) == ["set"]
