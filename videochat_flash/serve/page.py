"""The page at /: three files, no build step, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from fastapi import FastAPI
from fastapi.responses import Response

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def add_page(app: FastAPI) -> None:
    """Routes for its files, which are read once."""
    folder = resources.files(__package__) / "page"
    for path, (name, kind) in FILES.items():
        app.add_api_route(path, _giving((folder / name).read_bytes(), kind), include_in_schema=False)


def _giving(data: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def give() -> Response:
        return Response(data, media_type=kind)

    return give
