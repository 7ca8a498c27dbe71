"""Results files: appended to by one process, whole lines only, and never those of another run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from command import ROOT
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash import journal

SETTINGS = {"model": "m", "keep": (1, 2)}


def test_digests_are_the_same_in_another_process_and_order() -> None:
    asked = "from videochat_flash.journal import *; print(digest({'b': [1, 0.5], 'a': 'é'}))"
    told = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert told.stdout.split() == [journal.digest({"a": "é", "b": [1, 0.5]})]
    assert journal.digest({"a": 1}) != journal.digest({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        journal.digest(float("nan"))


def test_records_are_read_back_and_half_a_line_is_none(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    for number in range(2):
        with journal.appending(path) as log:
            log.add({"id": number})
    assert list(journal.read_lines(path)) == [(1, {"id": 0}), (2, {"id": 1})]
    with path.open("a") as file:
        file.write('{"id": 2')
    assert [values["id"] for _, values in journal.read_lines(path)] == [0, 1]
    with journal.appending(path) as log:  # the half line goes
        log.add({"id": 3})
    assert [values["id"] for _, values in journal.read_lines(path)] == [0, 1, 3]


@pytest.mark.parametrize("line", ['{"id": ', "[1]", "7"])
def test_a_damaged_line_is_told(line: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"id": 0}\n' + line + '\n{"id": 1}\n')
    with pytest.raises(ValueError, match=r"results.jsonl, line 2 is damaged: remove that line"):
        list(journal.read_lines(path))


def test_a_file_is_written_by_one_process_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with (
        journal.appending(path),
        pytest.raises(ValueError, match=r"being written by another run: take a nap"),
        journal.appending(path, "take a nap"),
    ):
        pass
    with journal.appending(path) as log:
        log.add({"id": "a"})
    assert path.read_text().count("\n") == 1


def test_some_lines_can_go_while_the_lock_is_held(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(f'{{"id":{number}}}\n' for number in range(6)))
    with journal.appending(path) as log:
        log.keep(lambda line: int(json.loads(line)["id"]) % 2 == 0)
        with pytest.raises(ValueError, match="being written"), journal.appending(path):
            pass
        log.add({"id": 6})
    assert [values["id"] for _, values in journal.read_lines(path)] == [0, 2, 4, 6]
    with pytest.raises(ZeroDivisionError), journal.appending(path) as log:
        log.keep(lambda line: 1 // 0 > 0)
    assert len(list(journal.read_lines(path))) == 4 and list(tmp_path.iterdir()) == [path]


def test_a_file_whose_place_was_taken_before_it_was_locked_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("")
    lock = journal.fcntl.flock

    def late(file: Any, how: int) -> None:
        (tmp_path / "new").write_text('{"id":0}\n')
        (tmp_path / "new").replace(path)  # what another run does in ``keep``
        lock(file, how)

    monkeypatch.setattr(journal.fcntl, "flock", late)
    with pytest.raises(ValueError, match="start again"), journal.appending(path):
        pass
    assert path.read_text() == '{"id":0}\n'


def test_what_a_killed_process_had_added_stays_and_its_lock_goes(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    asked = f"""
import os, signal
from pathlib import Path
from videochat_flash.journal import appending
with appending(Path({str(path)!r})) as log:
    log.add({{"id": 0}})
    log.file.write('{{"id": 1')
    log.file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", asked], check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    with journal.appending(path) as log:
        log.add({"id": 1})
    assert [values["id"] for _, values in journal.read_lines(path)] == [0, 1]


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    mark = journal.begin_run(tmp_path / "run", SETTINGS, {"threads": 1}, "choose another --out", data="d")
    again = journal.begin_run(tmp_path / "run", SETTINGS, {"threads": 8}, "choose another --out", data="d")
    assert mark == again == journal.digest(SETTINGS)
    told = journal.read_run(tmp_path / "run")
    assert told == {"run": mark, "data": "d", "settings": {"model": "m", "keep": [1, 2]}, "facts": {"threads": 1}}
    words = r"another run \(fps None there, 2 now; keep \[1, 2\] there, \[\] now\): choose another --out"
    with pytest.raises(ValueError, match=words):
        journal.begin_run(tmp_path / "run", {**SETTINGS, "keep": [], "fps": 2}, {}, "choose another --out")


def test_a_run_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run.json is missing: run it first"):
        journal.read_run(tmp_path, "run it first")
    for text in ("{}", "[", '{"run": "x", "settings": {}}'):
        (tmp_path / "run.json").write_text(json.dumps([]) if text == "[" else text)
        with pytest.raises(ValueError, match="damaged"):
            journal.read_run(tmp_path)


@given(st.lists(st.text(st.characters(exclude_characters="\n\r"), max_size=30)), st.text(max_size=9))
def test_whole_lines_stay_and_half_a_line_goes(lines: list[str], half: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.jsonl"
        whole = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
        path.write_bytes(whole + half.replace("\n", "").encode("utf-8", "surrogatepass"))
        with journal.appending(path) as log:
            log.line("next")
        assert path.read_bytes() == whole + b"next\n"


def test_a_half_line_may_be_longer_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    for whole in (b"", b"one\n"):
        path.write_bytes(whole + b"x" * 200_000)
        with journal.appending(path):
            assert path.read_bytes() == whole
