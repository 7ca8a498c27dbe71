"""Frozen dataclasses out of TOML or JSON, read strictly: known keys, values of their types and within their rules."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

Read = TypeVar("Read")
Rule = tuple[Callable[[Any], bool], str]  # what a value must be beyond its type: a test, and words for it
WORDS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
LISTED: dict[Any, str] = {str: "texts", int: "whole numbers", float: "numbers", bool: "true or false"}


@dataclass(frozen=True)
class Schema(Generic[Read]):
    """What may stand in a file.

    Attributes:
        kind: a dataclass; its fields are texts, numbers, booleans, Literals, tuples of these, dataclasses (tables), or
            tuples of dataclasses (lists of tables).
        rules: by key, with its tables, as ``video.max_frames``.
    """

    kind: type[Read]
    rules: Mapping[str, Rule] = field(default_factory=dict)

    def checked(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Values as the fields hold them, tables still as tables; keys may be missing.

        Raises:
            ValueError: an unknown key, or a value that its field cannot hold; the message names ``where`` and key.
        """
        return self._checked(self.kind, values, where, "")

    def build(self, values: Mapping[str, Any], where: str) -> Read:
        """The dataclass of checked values.

        Raises:
            ValueError: a key without a default is missing.
        """
        built: Read = _build(self.kind, values, where, "")
        return built

    def read(self, values: Mapping[str, Any], where: str) -> Read:
        """Both at once."""
        return self.build(self.checked(values, where), where)

    def known(self) -> list[str]:
        """Every key, with its table."""
        return list(_keys(self.kind))

    def hint(self, key: str) -> Any:
        """The type of a key, with its table; None if there is no such key."""
        table, _, last = key.rpartition(".")
        owner = hints_of(self.kind).get(table) if table else self.kind
        return hints_of(owner).get(last) if is_dataclass(owner) else None

    def _checked(self, kind: Any, values: Mapping[str, Any], where: str, table: str) -> dict[str, Any]:
        known = _known(kind)
        checked: dict[str, Any] = {}
        for name, value in values.items():
            one = known.get(name)
            if one is None:
                key = table + name
                raise ValueError(f"{where}: unknown key {key!r}: did you mean {self._nearest(key)!r}?")
            if type(value) is one.exact:
                checked[name] = value
            else:
                checked[name] = self._value(one, value, table + name, where)
            if self.rules:
                test, words = self.rules.get(table + name, (None, ""))
                if test is not None and not test(checked[name]):
                    raise ValueError(f"{where}: {table}{name} must be {words}, not {value!r}")
        return checked

    def _nearest(self, key: str) -> str:
        known = self.known()
        last = key.rpartition(".")[2]
        elsewhere = [one for one in known if one.rpartition(".")[2] == last]  # the right word in the wrong table
        return (elsewhere or difflib.get_close_matches(key, known, n=1, cutoff=0))[0]

    def _value(self, one: _Field, value: Any, key: str, where: str) -> Any:
        """A value of the type that the field names."""
        if one.sort == "list":
            if not isinstance(value, list):
                what = f"tables, [[{key}]]" if one.table else LISTED[one.kind]
                raise ValueError(f"{where}: {key} must be a list of {what}, not {value!r}")
            if one.table:
                return tuple([self._table(one.kind, row, key, where) for row in value])
            return tuple([_plain(one.kind, row, key, where) for row in value])
        if one.sort == "choice":
            if value not in one.choices:
                raise ValueError(f"{where}: {key} must be {' or '.join(map(repr, one.choices))}, not {value!r}")
            return value
        return self._table(one.kind, value, key, where) if one.table else _plain(one.kind, value, key, where)

    def _table(self, kind: Any, value: Any, key: str, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: {key} must be a table, [{key}], not {value!r}")
        return self._checked(kind, value, where, f"{key}.")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: name a .toml file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None


@dataclass(frozen=True)
class _Field:
    """What a field may hold, looked up once: millions of records are read by it."""

    sort: Literal["one", "list", "choice"]
    kind: Any  # of the value, or of those of a list
    table: bool  # whether that is a dataclass
    choices: tuple[Any, ...]
    exact: type | None  # values of just this type are right as they are


@cache
def _known(kind: Any) -> dict[str, _Field]:
    """The fields of a dataclass."""
    return {name: _field(hint) for name, hint in hints_of(kind).items()}


def _field(hint: Any) -> _Field:
    if get_origin(hint) is Literal:
        return _Field("choice", None, False, get_args(hint), None)
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return _Field("list", inner, is_dataclass(inner), (), None)
    return _Field("one", hint, is_dataclass(hint), (), hint if hint in (str, int, bool) else None)


@cache
def _shape(kind: Any) -> tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]:
    """The fields that must be there, and those that are tables or lists of them, with the dataclasses behind them."""
    needed = (one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING)
    return tuple(needed), tuple((name, one.kind) for name, one in _known(kind).items() if one.table)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def hints_of(kind: Any) -> dict[str, Any]:  # types as they are known here are not hashable to a checker
    """The types of a dataclass's fields, looked up once."""
    return _hints(kind)


def _keys(kind: Any, table: str = "") -> Iterator[str]:
    """Plain keys first, then those of every table, and of tables in it."""
    known = _known(kind)
    yield from (f"{table}{name}" for name, one in known.items() if not one.table)
    for name, one in known.items():
        if one.table:
            yield from _keys(one.kind, f"{table}{name}.")


def _plain(hint: Any, value: Any, key: str, where: str) -> Any:
    right = (int, float) if hint is float else hint
    if not isinstance(value, right) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where}: {key} must be {WORDS[hint]}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{where}: {key} must be a finite number, not {value!r}")
    return float(value) if hint is float else value


def _build(kind: Any, values: Mapping[str, Any], where: str, table: str) -> Any:
    needed, tables = _shape(kind)
    for name in needed:
        if name not in values:
            raise ValueError(f"{where}: {table}{name} is missing")
    built = dict(values)
    for name, inner in tables:
        value = values.get(name)
        if isinstance(value, tuple):
            built[name] = tuple([_build(inner, row, where, f"{table}{name}.") for row in value])
        elif value is not None:
            built[name] = _build(inner, value, where, f"{table}{name}.")
    return kind(**built)
