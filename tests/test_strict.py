"""Dataclasses out of tables: what fits is read as it stands, and what does not is told by file and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from videochat_flash.strict import Schema, read_toml


@dataclass(frozen=True)
class Deep:
    hops: int = 0


@dataclass(frozen=True)
class Inner:
    size: int = 1
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row(Inner):
    world: Deep = Deep()


@dataclass(frozen=True)
class Outer:
    title: str
    share: float = 0.5
    on: bool = False
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    rows: tuple[Row, ...] = field(default=())


SCHEMA = Schema(Outer, {"inner.size": (lambda n: n >= 1, "at least 1"), "rows.size": (lambda n: n < 9, "below 9")})


def test_what_fits_is_read() -> None:
    values = {"title": "t", "share": 1, "inner": {"size": 2}, "rows": [{"names": ["x"]}, {}]}
    assert SCHEMA.read(values, "here") == Outer("t", 1.0, inner=Inner(2), rows=(Row(names=("x",)), Row()))
    assert SCHEMA.known() == ["title", "share", "on", "kind", *_tables("inner", "rows"), "rows.world.hops"]
    assert (SCHEMA.hint("inner.size"), SCHEMA.hint("share"), SCHEMA.hint("none.size")) == (int, float, None)


def _tables(*names: str) -> list[str]:
    return [f"{name}.{key}" for name in names for key in ("size", "names")]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "here: title is missing"),
        ({"title": 3}, "here: title must be text, not 3"),
        ({"title": "t", "share": True}, "here: share must be a number, not True"),
        ({"title": "t", "share": float("inf")}, "here: share must be a finite number"),
        ({"title": "t", "on": 1}, "here: on must be true or false, not 1"),
        ({"title": "t", "kind": "c"}, "here: kind must be 'a' or 'b', not 'c'"),
        ({"title": "t", "inner": 3}, r"here: inner must be a table, \[inner\], not 3"),
        ({"title": "t", "inner": {"size": 0}}, "here: inner.size must be at least 1, not 0"),
        ({"title": "t", "inner": {"size": 1.5}}, "here: inner.size must be a whole number, not 1.5"),
        ({"title": "t", "inner": {"names": "x"}}, "here: inner.names must be a list of texts, not 'x'"),
        ({"title": "t", "rows": {}}, r"here: rows must be a list of tables, \[\[rows\]\], not {}"),
        ({"title": "t", "rows": [{"size": 9}]}, "here: rows.size must be below 9, not 9"),
        ({"titel": "t"}, "here: unknown key 'titel': did you mean 'title'?"),
        ({"title": "t", "size": 1}, "here: unknown key 'size': did you mean 'inner.size'?"),
        (
            {"title": "t", "rows": [{"world": {"hop": 1}}]},
            "'rows.world.hop': did you mean 'rows.world.hops'?",
        ),
        ({"title": "t", "inner": {"hops": 1}}, "unknown key 'inner.hops': did you mean 'rows.world.hops'?"),
    ],
)
def test_what_does_not_fit_is_told(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        SCHEMA.read(values, "here")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*none.toml"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ValueError, match="bad.toml is not TOML"):
        read_toml(tmp_path / "bad.toml")
