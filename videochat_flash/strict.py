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
        hints = hints_of(kind)
        checked: dict[str, Any] = {}
        for name, value in values.items():
            key = table + name
            if name not in hints:
                raise ValueError(f"{where}: unknown key {key!r}: did you mean {self._nearest(key)!r}?")
            checked[name] = self._value(hints[name], value, key, where)
            test, words = self.rules.get(key, (None, ""))
            if test is not None and not test(checked[name]):
                raise ValueError(f"{where}: {key} must be {words}, not {value!r}")
        return checked

    def _nearest(self, key: str) -> str:
        known = self.known()
        last = key.rpartition(".")[2]
        elsewhere = [one for one in known if one.rpartition(".")[2] == last]  # the right word in the wrong table
        return (elsewhere or difflib.get_close_matches(key, known, n=1, cutoff=0))[0]

    def _value(self, hint: Any, value: Any, key: str, where: str) -> Any:
        """A value of the type that the field names."""
        if is_dataclass(hint):
            if not isinstance(value, dict):
                raise ValueError(f"{where}: {key} must be a table, [{key}], not {value!r}")
            return self._checked(hint, value, where, f"{key}.")
        if get_origin(hint) is Literal:
            if value not in get_args(hint):
                raise ValueError(f"{where}: {key} must be {' or '.join(map(repr, get_args(hint)))}, not {value!r}")
            return value
        if get_origin(hint) is tuple:
            inner = get_args(hint)[0]
            if not isinstance(value, list):
                what = f"tables, [[{key}]]" if is_dataclass(inner) else LISTED[inner]
                raise ValueError(f"{where}: {key} must be a list of {what}, not {value!r}")
            return tuple(self._value(inner, one, key, where) for one in value)
        return _plain(hint, value, key, where)


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


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def hints_of(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields, looked up once."""
    return _hints(kind)


def _table(hint: Any) -> Any:
    """The dataclass behind a field that is a table or a list of tables; else None."""
    inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
    return inner if is_dataclass(inner) else None


def _keys(kind: Any) -> Iterator[str]:
    """Plain keys first, then those of every table."""
    hints = hints_of(kind)
    yield from (name for name, hint in hints.items() if _table(hint) is None)
    for name, hint in hints.items():
        yield from (f"{name}.{key}" for key in (hints_of(_table(hint)) if _table(hint) else ()))


def _plain(hint: Any, value: Any, key: str, where: str) -> Any:
    right = (int, float) if hint is float else hint
    if not isinstance(value, right) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where}: {key} must be {WORDS[hint]}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{where}: {key} must be a finite number, not {value!r}")
    return float(value) if hint is float else value


def _build(kind: Any, values: Mapping[str, Any], where: str, table: str) -> Any:
    hints = hints_of(kind)
    for one in fields(kind):
        if one.name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"{where}: {table}{one.name} is missing")
    built = {}
    for name, value in values.items():
        inner = _table(hints[name])
        if inner is not None and isinstance(value, tuple):
            value = tuple(_build(inner, one, where, f"{table}{name}.") for one in value)
        elif inner is not None:
            value = _build(inner, value, where, f"{table}{name}.")
        built[name] = value
    return kind(**built)
