"""Files of lines: one writer, and what a kill left half written is cut off, no more and no less."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash.journal import add, appending, canonical, digest

ADVICE = "wait"


@given(st.lists(st.text(st.characters(exclude_characters="\n\r"), max_size=30)), st.text(max_size=9))
def test_whole_lines_stay_and_half_a_line_goes(lines: list[str], half: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.jsonl"
        whole = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
        path.write_bytes(whole + half.replace("\n", "").encode("utf-8", "surrogatepass"))
        with appending(path, ADVICE) as file:
            add(file, "next")
        assert path.read_bytes() == whole + b"next\n"


def test_a_half_line_may_be_longer_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    for whole in (b"", b"one\n"):
        path.write_bytes(whole + b"x" * 200_000)
        with appending(path, ADVICE):
            assert path.read_bytes() == whole


def test_a_second_writer_is_refused_and_a_later_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "some.jsonl"
    with appending(path, ADVICE) as file:
        add(file, "one")
        assert path.read_text() == "one\n"  # there as soon as it is added
        with (
            pytest.raises(ValueError, match="some.jsonl is being written by another run: wait"),
            appending(path, ADVICE),
        ):
            pass
    with appending(path, ADVICE) as file:
        add(file, "two")
    assert path.read_text() == "one\ntwo\n"


def test_one_form_of_json() -> None:
    assert canonical({"b": [1, 0.5], "a": "é"}) == '{"a":"é","b":[1,0.5]}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1})
