"""Figures as people read them, and a file that grows section by section."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash.bench.document import HEAD, put, section
from videochat_flash.bench.report import Table, scaled, seconds, share


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0.0, "0.00 B"), (999.0, "999 B"), (1234.0, "1.23 kB"), (45.67e9, "45.7 GB"), (5.142e15, "5.14 PB")],
)
def test_numbers_have_three_digits(value: float | None, said: str) -> None:
    assert scaled(value, "B") == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(12.34, "12.3 s"), (1.0, "1.00 s"), (0.01234, "12.3 ms"), (3.4e-5, "34.0 µs"), (1234.5, "1,234 s")],
)
def test_seconds_have_a_unit_that_reads_well(value: float, said: str) -> None:
    assert seconds(value) == said


def test_a_range_has_the_unit_of_its_beginning() -> None:
    assert seconds(0.0123, 1.5) == "12.3 to 1,500 ms" and seconds(2.0, 3.0) == "2.00 to 3.00 s"


def test_shares_are_in_per_cent() -> None:
    assert [share(n) for n in (None, 0.5, 0.0123, 0.0001, 0.0)] == ["–", "50%", "1.2%", "< 0.1%", "0.0%"]


@given(st.floats(1e-9, 1e18))
def test_what_is_written_is_near_what_is_meant(value: float) -> None:
    number, unit = scaled(value, "B").split(" ")
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}[unit]
    assert (
        abs(float(number.replace(",", "")) * scale - value) <= max(0.005 * value, 0.005) + 1e-12
    )  # halves are rounded either way


def test_tables_become_markdown() -> None:
    table = Table("what", ("stage", "s"), (("tower", "1"), ("prefill", "2")), ("note",))
    assert table.markdown() == ("**what**\n\n| stage | s |\n| --- | ---: |\n| tower | 1 |\n| prefill | 2 |\n\nnote")


def test_a_section_takes_the_place_of_the_same_commands_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    put(path, section("vcflash bench", ["one"]))
    put(path, section("vcflash bench --plan", ["two"]))
    before = path.read_text()
    assert before == HEAD + "\n## `vcflash bench`\n\none\n\n## `vcflash bench --plan`\n\ntwo\n"
    put(path, section("vcflash bench", ["three"]))
    assert path.read_text() == before.replace("one", "three")
    put(path, section("vcflash bench", ["one"]))
    assert path.read_text() == before


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Mine\n")
    with pytest.raises(ValueError, match="was not written by vcflash bench"):
        put(path, section("vcflash bench", ["one"]))
    assert path.read_text() == "# Mine\n" and [one.name for one in tmp_path.iterdir()] == ["README.md"]
