"""Made-up videos with questions, for those who have none at hand: each is drawn once, by a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from .refuse import Refused
from .sandbox import ROOT

COUNT, FRAMES, QUESTIONS = 4, 64, 4
START = (
    "import sys; sys.path[:0] = [] if sys.argv[1] in sys.path else [sys.argv[1]]\n"
    "from videochat_flash.cli import run; sys.exit(run(sys.argv[2:]))"
)


class Samples:
    """The videos of a folder, which is made when the first is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._one = asyncio.Lock()

    async def find(self, number: int) -> tuple[Path, list[str]]:
        """A video, and what may be asked about it.

        Raises:
            Refused: there are fewer.
        """
        if not 0 <= number < COUNT:
            raise Refused("no_route")
        film, truth = self.folder / f"{number}.mp4", self.folder / f"{number}.json"
        async with self._one:
            if not (film.exists() and truth.exists()):
                await self._draw(number, film, truth)
        return film, [one["question"] for one in json.loads(truth.read_text(encoding="utf-8"))]

    async def _draw(self, number: int, film: Path, truth: Path) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        wanted = {"frames": FRAMES, "questions": QUESTIONS, "seed": number, "out": film, "truth": truth}
        options = [str(word) for name, value in wanted.items() for word in (f"--{name}", value)]
        quiet = asyncio.subprocess.DEVNULL
        command = ["synth", "needle", "--haystack", "procedural", *options]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", START, ROOT, *command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        if code := await process.wait():
            raise Refused("internal", detail=f"vcflash synth needle ended with code {code}")
