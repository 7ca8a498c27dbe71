"""The page at /: three files, no build step, nothing from elsewhere; and videos for those who have none at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from .samples import Samples

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def add_page(app: FastAPI, samples: Samples) -> None:
    """Routes for its files, which are read once, and for its videos."""
    folder = resources.files(__package__) / "page"
    for path, (name, kind) in FILES.items():
        app.add_api_route(path, _giving((folder / name).read_bytes(), kind), include_in_schema=False)

    @app.get("/samples/{number:int}", include_in_schema=False)
    async def sample(number: int) -> dict[str, object]:
        _, questions = await samples.find(number)
        return {"questions": questions}

    @app.get("/samples/{number:int}.mp4", include_in_schema=False)
    async def film(number: int) -> Response:
        path, _ = await samples.find(number)
        return FileResponse(path, media_type="video/mp4")


def _giving(data: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def give() -> Response:
        return Response(data, media_type=kind)

    return give
