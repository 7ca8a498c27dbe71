"""Videos and pictures of a request -> files in its own folder, and the keys that their Sights are known by.

Keys are made here, of what was sent and how it is looked at; nothing that a client writes becomes one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .refuse import Refused
from .shelf import Shelf
from .uploads import Uploads
from .wire import Media

SUFFIX = {"video": ".video", "image": ".png"}  # by which video.probe tells them; what they are is seen in their bytes
UPLOADED = re.compile(r"file-[0-9a-f]{24}")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
UUIDS = 4096 * 64  # bytes of the digests that uuids stand for
Fetch = Callable[[str, Path, float], Awaitable[str]]  # an address to a file, until when; the digest of what came


@dataclass(frozen=True)
class Found:
    """A video or picture: where it is, unless it is known only by what was seen of it; and its digest."""

    path: Path | None
    digest: str


class Finder:
    """Finds what requests refer to.

    Args:
        uploads: by id.
        uuids: digests by the names that clients gave.
        root: files below it may be named; None allows none.
        fetch: of https addresses; None allows none.
    """

    def __init__(self, uploads: Uploads, uuids: Shelf, root: Path | None, fetch: Fetch | None) -> None:
        self.uploads, self.uuids, self.fetch = uploads, uuids, fetch
        self.root = root.resolve(strict=True) if root else None

    async def find(
        self, media: Sequence[Media], folder: Path, tenant: str, made_by: str, sights: Path, deadline: float
    ) -> list[dict[str, object]]:
        """What the worker is told of each.

        Args:
            folder: of the request; whatever had to be made is in it.
            tenant: whose uploads and uuids are known, whose Sights are reused.
            made_by: fingerprint of the model.
            sights: folder in which they are kept.
            deadline: of fetching, on the event loop's clock.

        Raises:
            Refused: something is not there.
        """
        told: list[dict[str, object]] = []
        for number, one in enumerate(media):
            known = self._known(one.uuid, tenant)
            remote = one.url is None or one.url.startswith("https://")
            if known and remote and (sights / f"{key_of(one, known, tenant, made_by)}.safetensors").exists():
                found = Found(None, known)
            else:
                found = await self._found(one, folder / f"{number}{SUFFIX[one.kind]}", tenant, deadline)
                if one.uuid and found.digest != known:
                    with self.uuids.put(_mark(tenant, one.uuid)) as part:
                        part.write_text(found.digest)
            path, sampling = found.path and str(found.path), one.sampling and asdict(one.sampling)
            key = key_of(one, found.digest, tenant, made_by)
            told.append({"kind": one.kind, "path": path, "sampling": sampling, "key": key})
        return told

    def _known(self, uuid: str | None, tenant: str) -> str | None:
        held = self.uuids.use(_mark(tenant, uuid)) if uuid else None
        return held.read_text() if held else None

    async def _found(self, one: Media, target: Path, tenant: str, deadline: float) -> Found:
        url = one.url
        if url is None:
            raise Refused("unknown_uuid", f"{one.kind}_url")
        if url.startswith("data:"):
            return Found(target, await asyncio.to_thread(write_data, url, target))
        if UPLOADED.fullmatch(url):
            return self._uploaded(url, target, tenant)
        if SCHEME.match(url):
            if self.fetch is None:
                raise Refused("url_refused", f"{one.kind}_url")
            return Found(target, await self.fetch(url, target, deadline))
        return self._local(url, target)

    def _uploaded(self, name: str, target: Path, tenant: str) -> Found:
        upload = self.uploads.find(name, tenant)
        if upload is None:
            raise Refused("unknown_file")
        os.link(self.uploads.shelf.path(name), target)  # it may be deleted while it is seen
        return Found(target, upload.sha256)

    def _local(self, url: str, target: Path) -> Found:
        if self.root is None or "\0" in url:
            raise Refused("path_refused")
        try:
            path = (self.root / url).resolve(strict=True)
        except (OSError, RuntimeError) as error:  # missing, too long, or links in a circle
            raise Refused("path_refused", detail=error) from None
        if not path.is_relative_to(self.root) or not path.is_file():
            raise Refused("path_refused")
        target.symlink_to(path)
        state = path.stat()
        mark = f"{path}\n{state.st_size}\n{state.st_mtime_ns}"
        return Found(target, hashlib.sha256(mark.encode()).hexdigest())


def key_of(media: Media, digest: str, tenant: str, made_by: str) -> str:
    """By what a Sight is known: what is looked at, how, by which model, for whom."""
    sampling = media.sampling and asdict(media.sampling)
    form = json.dumps([tenant, made_by, digest, media.kind, sampling], sort_keys=True)
    return hashlib.sha256(form.encode()).hexdigest()


def write_data(url: str, target: Path) -> str:
    """The bytes of a data: URL to a file; returns their digest.

    Raises:
        Refused: it is none in base64.
    """
    head, comma, words = url.partition(",")
    if not comma or not head.endswith(";base64") or len(head) > 128:
        raise Refused("bad_data_url")
    try:
        data = base64.b64decode(words, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("bad_data_url", detail=error) from None
    if not data:
        raise Refused("bad_data_url")
    target.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _mark(tenant: str, uuid: str) -> str:
    return hashlib.sha256(f"{tenant}\n{uuid}".encode(errors="surrogatepass")).hexdigest()
