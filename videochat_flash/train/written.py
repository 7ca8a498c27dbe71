"""A recipe as TOML again, every key said."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from .recipe import Recipe
from .worlds import World


def resolved(recipe: Recipe) -> str:
    """The whole recipe as TOML, every key said; ``load_recipe`` reads it back to an equal one."""
    plain, tables = [], []
    for one in fields(recipe):
        value = vars(recipe)[one.name]
        if one.name == "data" and value:
            tables += ["\n[[data]]\n" + _lines(source) for source in value]
        elif is_dataclass(value):
            tables.append(f"\n[{one.name}]\n" + _lines(value))
        else:
            plain.append(f"{one.name} = {_toml(value)}\n")
    return "".join([*plain, *tables])


def _lines(table: Any) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in vars(table).items() if value != World())


def _toml(value: Any) -> str:
    if is_dataclass(value):
        return f"{{ {', '.join(f'{key} = {_toml(one)}' for key, one in vars(value).items())} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
