"""Asks any OpenAI-compatible endpoint, with a film as one mp4 or as pictures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..remote import Server, Unanswered, picture, post, read_reply
from ..remote import film as mp4_part
from ..synth.world import Image8
from .ask import Said, limits
from .draws import rng_of
from .film import FPS, SENT, Scenery, as_mp4
from .items import Needle
from .place import Film, Part, length_of, with_needles
from .suite import Suite, Trial

MOST_PICTURES = 1_000  # frames that are sent one by one: 1,000 of 448 pixels are some 40 MB
CODE_SIGNS = "ACDEFHJKLMNPRTUVWXY3479"  # none looks like another one
CODE_LENGTH, CODE_STACK = 6, 15
CODE_PLACES = (2, 5, 7, 12)  # every remainder of 2, 3 and 4: whoever drops each second to fourth frame drops a code
CODE_TOKENS = 32
ASK_CODE = "A code of six characters is shown in the video. Answer with the code only."
PROMPTS = "endpoint 1"


@dataclass(frozen=True)
class Line:
    """How an endpoint is reached.

    Attributes:
        url: up to and with ``/v1``.
        model: as the endpoint calls it.
        form: ``video`` sends an mp4, ``frames`` pictures.
        timeout: seconds without a word from it.
        retries: further tries after a failure that may pass.
        wait: seconds before the first of them; each next one waits twice as long.
        stamps: whether each picture is preceded by its second.
    """

    url: str
    model: str
    form: Literal["video", "frames"] = "video"
    timeout: float = 120.0
    retries: int = 3
    wait: float = 1.0
    stamps: bool = False

    def __post_init__(self) -> None:
        _ = self.server  # raises ValueError for what no endpoint could be reached by

    @property
    def server(self) -> Server:
        """The part that knows nothing of films."""
        return Server(self.url, self.timeout, self.retries, self.wait)


class Endpoint:
    """An endpoint that answers trials.

    Args:
        line: how it is reached.
        suite: whose films it is shown.
        tokens: new ones at most; None is what ``ask`` says.
        unchecked: ask without looking first whether all frames arrive.

    Raises:
        ValueError: films that are too long to be sent as pictures, or a compat suite.
    """

    def __init__(self, line: Line, suite: Suite, tokens: int | None = None, unchecked: bool = False) -> None:
        longest = max((length_of(trial.film) for trial in suite.trials), default=0)
        if line.form == "frames" and longest > MOST_PICTURES:
            raise ValueError(
                f"films of {longest} frames are too long to be sent as pictures, {MOST_PICTURES} at most: "
                "use --send video, or build shorter ones"
            )
        if suite.setting.mode == "compat":
            raise ValueError("compat scores the likeliest token of a model in this process: an endpoint tells none")
        self.line, self.suite, self.limits = line, suite, limits(tokens)
        self.settings: dict[str, object] = {
            "transport": f"openai-{line.form}",
            "model": line.model,
            "endpoint": line.url,
            "prompt": PROMPTS,
            "max_new_tokens": list(self.limits),
            "stamps": line.stamps,
        }
        self.facts: dict[str, object] = {"delivery": "not checked" if unchecked else None}
        self.held: tuple[int, Scenery] | None = None
        self.last: tuple[tuple[int, Film], list[dict[str, Any]]] | None = None

    def __call__(self, trial: Trial) -> Said:
        """Raises Unanswered after the last retry, or where the endpoint refuses."""
        shown = self._shown(trial) if trial.film else []
        return self._asked(shown, trial.prompt, self.limits[trial.lettered], length_of(trial.film))

    def ready(self) -> None:
        """The delivery check (C4): codes must be read back that are shown for one frame each, at several places of a
        short film and, far behind, of one that is as long as the suite's longest.

        Raises:
            ValueError: one is not, so frames are lost or blurred on the way, or the model does not read.
        """
        stack = self.suite.haystack(0)
        for cut, film in code_films(self.suite):
            code = code_at(self.suite.setting.seed, cut)
            shown = self._content(Scenery(stack, {"code": Needle(code=code)}), film)
            try:
                said = self._asked(shown, ASK_CODE, CODE_TOKENS, length_of(film))
            except Unanswered as error:
                raise ValueError(f"the delivery check was not answered: {error}") from None
            if code not in said.text.upper().replace(" ", "").replace("-", ""):
                raise ValueError(
                    f"the delivery check failed: frame {cut} of {length_of(film)} showed code {code}, the answer was "
                    f"{said.text[:80]!r}. The endpoint drops or blurs frames, or its model cannot read; "
                    "--no-delivery-check runs anyway"
                )
        self.facts["delivery"] = "passed"

    def _shown(self, trial: Trial) -> list[dict[str, Any]]:
        """The parts of a message that show a film; the last one is remembered."""
        place = trial.haystack, trial.film
        if self.last is None or self.last[0] != place:
            if self.held is None or self.held[0] != trial.haystack:
                self.held = trial.haystack, self.suite.scenery(trial.haystack)
            self.last = place, self._content(self.held[1], trial.film)
        return self.last[1]

    def _content(self, scenery: Scenery, film: Film) -> list[dict[str, Any]]:
        frames = scenery.frames(film)
        if self.line.form == "frames":
            return list(pictures(frames, self.line.stamps))
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "film.mp4"
            as_mp4(frames, path, SENT, keys_of(film))
            return [mp4_part(path.read_bytes())]

    def _asked(self, shown: list[dict[str, Any]], words: str, tokens: int, frames: int) -> Said:
        body: dict[str, Any] = {
            "model": self.line.model,
            "messages": [{"role": "user", "content": [*shown, {"type": "text", "text": words}]}],
            "max_tokens": tokens,
            "temperature": 0,
        }
        if shown and self.line.form == "video":  # else the server would choose frames of its own
            body["mm_processor_kwargs"] = {"fps": FPS, "num_frames": frames}
        reply = read_reply(post(self.line.server, json.dumps(body).encode()))
        return Said(reply.text, reply.finish, reply.prompt_tokens)


def code_films(suite: Suite) -> Iterator[tuple[int, Film]]:
    """The films of the delivery check, each behind the frame that shows its code."""
    for cut in CODE_PLACES:
        yield cut, with_needles(CODE_STACK, [cut], ["code"], 1)
    longest, stack = max(length_of(trial.film) for trial in suite.trials), suite.needed(0)
    if longest > CODE_STACK + 1:
        for cut in (stack * 5 // 8 | 1, stack * 7 // 8 & ~1):  # one odd, one even, however many are dropped regularly
            # Needles are longer than a code, and haystacks no longer than need be: the beginning fills what is left.
            rest = min(stack, longest - stack - 1)
            yield cut, (*with_needles(stack, [cut], ["code"], 1), *((Part("", 0, rest),) if rest else ()))


def code_at(seed: int, cut: int) -> str:
    """The code that the delivery check shows at a place."""
    drawn = rng_of(seed, "code", cut).integers(0, len(CODE_SIGNS), CODE_LENGTH).tolist()
    return "".join(CODE_SIGNS[i] for i in drawn)


def pictures(frames: Iterable[Image8], stamps: bool) -> Iterator[dict[str, Any]]:
    """Frames as parts of a message, each behind its second if ``stamps``."""
    for second, frame in enumerate(frames):
        if stamps:
            yield {"type": "text", "text": f"{second} s:"}
        yield picture(frame)


def keys_of(film: Film) -> list[int]:
    """The frames at which something else begins: needles, and the haystack behind them, borrow nothing from others."""
    keys: list[int] = []
    at = 0
    for part in film:
        keys += range(at, at + part.count) if part.needle else [at]
        at += part.count
    return keys
