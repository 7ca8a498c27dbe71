"""Records as Parquet: the columns are the fields of the records, and what is read back are the same lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ..journal import canonical
from ..strict import hints_of

ROWS = 512  # of a group: what is held while a file is written or read
MISSING = "pyarrow is not installed: pip install 'videochat-flash[longvid]', or choose jsonl"


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # type: ignore[import-untyped, unused-ignore]
        from pyarrow import parquet  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError:
        raise ValueError(MISSING) from None
    return pyarrow, parquet


def kind_of(hint: Any) -> Any:
    """The Arrow type of a field: texts, numbers, lists of one kind (tuples), and structures (dataclasses).

    Args:
        hint: as dataclasses have them.

    Raises:
        ValueError: pyarrow is not installed.
    """
    arrow, _ = _arrow()
    plain = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
    if is_dataclass(hint):
        return arrow.struct([(name, kind_of(inner)) for name, inner in hints_of(hint).items()])
    if get_origin(hint) is tuple:
        return arrow.list_(kind_of(get_args(hint)[0]))
    return arrow.string() if get_origin(hint) is Literal else plain[hint]


class Columns:
    """A Parquet file that grows by rows.

    Args:
        path: of the file.
        kind: a dataclass whose fields are the columns. A field that a row lacks is null.

    Raises:
        ValueError: pyarrow is not installed.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, kind: Any) -> None:
        self.arrow, parquet = _arrow()
        self.schema = self.arrow.schema(list(kind_of(kind)))
        self.file = parquet.ParquetWriter(str(path), self.schema, compression="zstd")
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, as JSON holds it."""
        self.rows.append(row)
        if len(self.rows) >= ROWS:
            self._flush()

    def line(self, text: str) -> None:
        """Add a record that is a line."""
        self.add(json.loads(text))

    def _flush(self) -> None:
        self.file.write_table(self.arrow.Table.from_pylist(self.rows, schema=self.schema))
        self.rows = []

    def close(self) -> None:
        """Write what is left."""
        if self.rows:
            self._flush()
        self.file.close()


def lines(path: Path) -> Iterator[str]:
    """The rows of a file as lines of JSON; what is null is left out.

    Raises:
        ValueError: pyarrow is not installed, or the file is no Parquet.
    """
    arrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(str(path)) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                yield from (canonical(_told(row)) for row in batch.to_pylist())
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _told(one) for name, one in value.items() if one is not None}
    return [_told(one) for one in value] if isinstance(value, list) else value
