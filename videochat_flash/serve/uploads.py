"""Files that were uploaded: streamed to the disk as they come, known by ids that nobody can guess.

What a client calls its file is kept to be told back, and never becomes part of a path.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..files import beside
from .refuse import Refused
from .shelf import Shelf

MOST_FIELD = 256  # bytes of a form field that is no file, and characters of a name
FORM_BYTES = 1 << 16  # that a form may have around its file


@dataclass(frozen=True)
class Upload:
    """A file on the shelf."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    sha256: str
    tenant: str

    def told(self) -> dict[str, object]:
        """As OpenAI's clients read it."""
        shown = {name: value for name, value in asdict(self).items() if name not in ("sha256", "tenant")}
        return {**shown, "object": "file", "status": "processed"}


class Uploads:
    """All uploads of a server.

    Args:
        folder: where they are; nothing else may be in it.
        limit: bytes of all; the least recently used goes first.
        most: bytes of one.
    """

    def __init__(self, folder: Path, limit: int, most: int) -> None:
        self.shelf = Shelf(folder / "data", limit)
        self.notes = folder / "notes"
        self.most = min(limit, most)
        self.notes.mkdir(mode=0o700, exist_ok=True)
        self._tidy()

    def _tidy(self) -> None:
        """Forget what was told of files that are gone."""
        for note in self.notes.glob("[!.]*"):
            if note.stem not in self.shelf:
                note.unlink(missing_ok=True)

    async def receive(self, chunks: AsyncIterator[bytes], content_type: str, tenant: str) -> Upload:
        """Read a multipart form with one file.

        Raises:
            Refused: another form, or too large a file.
            OSError: the disk.
        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise Refused("bad_multipart")
        name = f"file-{secrets.token_hex(12)}"
        with self.shelf.put(name) as part:
            with part.open("wb") as out:
                form = Form(out, self.most)
                try:
                    parser = form.parser(boundary)
                    async for chunk in chunks:
                        parser.write(chunk)
                    parser.finalize()
                except FormParserError as error:
                    raise Refused("bad_multipart", detail=error) from None
            if not form.complete or not form.size:
                raise Refused("bad_multipart")
            words = form.fields
            made = Upload(
                name, form.size, int(time.time()), form.filename, words.get("purpose", ""), form.digest, tenant
            )
            with beside(self._note(name)) as note:
                note.write_text(json.dumps(asdict(made)))
        self._tidy()
        return made

    def find(self, name: str, tenant: str) -> Upload | None:
        """An upload of this tenant, which is now the most recently used."""
        found = self._read(name)
        if found is None or found.tenant != tenant or self.shelf.use(name) is None:
            return None
        return found

    def of(self, tenant: str) -> Iterator[Upload]:
        """All of a tenant's, the least recently used first."""
        for name in self.shelf:
            found = self._read(name)
            if found is not None and found.tenant == tenant:
                yield found

    def drop(self, name: str, tenant: str) -> bool:
        """Remove one; whether it was there."""
        if self.find(name, tenant) is None:
            return False
        with suppress(FileNotFoundError):
            self._note(name).unlink()
        return self.shelf.drop(name)

    def _note(self, name: str) -> Path:
        return self.notes / f"{name}.json"

    def _read(self, name: str) -> Upload | None:
        if name not in self.shelf:  # so a name is only ever one that was made here
            return None
        try:
            return Upload(**json.loads(self._note(name).read_text()))
        except FileNotFoundError:
            return None


@dataclass
class Form:
    """A multipart form as it comes in: one file, to ``out``, and short fields."""

    out: BinaryIO
    most: int
    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    size: int = 0
    complete: bool = False
    _headers: list[tuple[bytearray, bytearray]] = field(default_factory=list)
    _name: str = ""
    _value: bytearray | None = None  # of a field; None inside the file
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    _files: int = 0

    def parser(self, boundary: bytes) -> MultipartParser:
        """That calls the methods below."""
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_begin": lambda: self._headers.append((bytearray(), bytearray())),
                "on_header_field": lambda data, start, end: self._headers[-1][0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._headers[-1][1].extend(data[start:end]),
                "on_headers_finished": self._begin,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._done,
            },
        )

    @property
    def digest(self) -> str:
        """Of the file."""
        return self._hash.hexdigest()

    def _begin(self) -> None:
        named = {bytes(name).lower(): bytes(value) for name, value in self._headers}
        _, options = parse_options_header(named.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode(errors="replace")
        if b"filename" not in options:
            self._value = bytearray()
            return
        self._files += 1
        self._value = None
        if self._files > 1 or self._name != "file":
            raise Refused("bad_multipart")
        words = options[b"filename"].decode(errors="replace").replace("\\", "/").rpartition("/")[2]
        self.filename = "".join(c for c in words if c.isprintable())[:MOST_FIELD]

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._value is None:
            self.size += end - start
            if self.size > self.most:
                raise Refused("upload_too_large")
            part = memoryview(data)[start:end]
            self._hash.update(part)
            self.out.write(part)
        else:
            self._value += data[start:end]
            if len(self._value) > MOST_FIELD:
                raise Refused("bad_multipart")

    def _end(self) -> None:
        if self._value is not None and len(self.fields) < 16:
            self.fields[self._name[:MOST_FIELD]] = self._value.decode(errors="replace")

    def _done(self) -> None:
        self.complete = self._files == 1
