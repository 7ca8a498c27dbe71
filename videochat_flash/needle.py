"""Needle videos as real files: cards and movers hidden in a haystack, with questions whose answers are known.

``synth`` draws them, ``video`` reads the haystack and writes the mp4. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .files import beside
from .mp4 import write
from .synth import (
    ALL_KINDS,
    ATTRIBUTES,
    CARD_KINDS,
    CHARACTERS,
    COLOURS,
    HOPS,
    SHAPES,
    Card,
    Question,
    Scene,
    ask,
    draw_card,
    make_chains,
    make_scene,
    procedural,
    random_style,
    random_what,
    whole_seconds,
)
from .synth.draw import jpeg
from .synth.world import Image8, Rng
from .video import SamplePlan, VideoInfo, decode, probe

PROCEDURAL = "procedural"
KINDS = (*ATTRIBUTES, "motion")  # asked unless others are named
SIZE = (640, 360)  # of a procedural haystack
SMALLEST = 64  # pixels; nothing can be read on less
ALL = 1_000_000  # more questions than any scene has
MOVER_SECONDS = 6.0  # a mover's least time on screen
CHAINS = 2  # one to follow and one decoy
MOST_HOPS = 3
FULL = 0.7  # of a video at most is needed by cards and movers that nobody asked for


@dataclass(frozen=True)
class Made:
    """A needle video that was written.

    Attributes:
        video: the mp4.
        truth: the JSON list of questions with their answers.
        scene: what is shown when.
        questions: as in ``truth``.
        size: width and height.
        repeated: frames that the haystack had to show again, being shorter.
    """

    video: Path
    truth: Path
    scene: Scene
    questions: tuple[Question, ...]
    size: tuple[int, int]
    repeated: int


def make_needle(
    haystack: str | Path,
    frames: int,
    questions: int | None,
    seed: int,
    out: Path,
    truth: Path,
    *,
    kinds: Sequence[str] = KINDS,
    fps: float = 1.0,
    cards: int | None = None,
    movers: int | None = None,
    size: tuple[int, int] | None = None,
    hops: int | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """Write a needle video and its truth; both or, after an error, neither.

    Where kinds of ``HOPS`` or pointers are asked, two chains of indicator cards are shown: each is the other's decoy.
    Where grounding is asked, everything comes and goes at whole seconds.

    Args:
        haystack: ``procedural``, or a video (or folder of pictures) of which ``frames`` frames are taken evenly.
        frames: how many the video has.
        questions: how many to ask; fewer, with a warning, where the scene has no more to ask. None is all there are.
        seed: of everything that is random.
        out: the mp4.
        truth: the JSON list of {question, answer, kind, seconds}; where there are chains, of {chain, hops} as well.
        kinds: of questions, taken in turn.
        fps: frames a second; at 1 every frame is sampled from videos of a minute and more.
        cards: how many; None lets them grow from 4 with the length of the video. Beside chains: 0 to 2 more.
        movers: how many; None is 1 or 2, or none in a few seconds.
        size: width and height; None is the haystack's own, or 640 x 360.
        hops: indicator cards in each chain; None is 1 to 3, where there is room for them.
        told: frames written, of how many.

    Raises:
        ValueError: a video too short or too small for what is to be shown or asked.
        VideoError: a haystack that cannot be read.
    """
    info = None if haystack == PROCEDURAL else probe(haystack)
    size = size or (SIZE if info is None else (info.width, info.height))
    if min(size) < SMALLEST:
        raise ValueError(f"{size[0]}x{size[1]} pixels are too few to read a card: use at least {SMALLEST}x{SMALLEST}")
    scene = _scene(np.random.default_rng((seed, 0)), frames, fps, kinds, cards, movers, hops)
    asked = ask(np.random.default_rng((seed, 1)), scene, kinds, ALL if questions is None else questions)
    if not asked:
        raise ValueError(f"nothing of kind {', '.join(kinds)} can be asked in {frames / fps:g} s: ask for more frames")
    if questions is not None and len(asked) < questions:
        warnings.warn(f"only {len(asked)} of {questions} questions: the scene has no more to ask", stacklevel=2)
    repeated = 0 if info is None else max(0, frames - info.frames)
    if repeated:
        warnings.warn(f"{haystack} has {info.frames if info else 0} frames, {repeated} are shown again", stacklevel=2)
    stack = _procedural((seed, 2), frames, size) if info is None else evenly(info, frames, size)
    with beside(out) as film, beside(truth) as text:
        write(film, _drawn(scene, stack, frames, told), fps)
        text.write_text(truth_json(asked), encoding="utf-8")
    whole = size[0] + size[0] % 2, size[1] + size[1] % 2  # as a film has it
    return Made(out, truth, scene, tuple(asked), whole, repeated)


def _drawn(scene: Scene, stack: Iterable[Image8], frames: int, told: Callable[[int, int], None]) -> Iterator[Image8]:
    for number, frame in enumerate(stack):
        yield scene.frame(number, frame)[0]
        told(number + 1, frames)


def evenly(info: VideoInfo, frames: int, size: tuple[int, int]) -> Iterator[Image8]:
    """Evenly spaced frames of a real video, each as often as need be, a few in memory at a time."""
    numbers = ((np.arange(frames) + 0.5) / frames * info.frames).astype(np.int64)
    plan = SamplePlan(numbers, info.seconds[numbers], (0.0, info.duration), info.duration)
    for chunk in decode(info, plan, None, chunk=8):
        for pixels in chunk.pixels:
            if (pixels.shape[1], pixels.shape[0]) == size:
                yield pixels
            else:
                yield np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def truth_json(questions: Sequence[Question]) -> str:
    """The questions as a JSON list of {question, answer, kind, seconds}, of those about chains with {chain, hops}."""
    values = [
        {"question": one.question, "answer": one.answer, "kind": one.kind, "seconds": list(one.seconds)}
        | ({"chain": one.chain, "hops": one.hops} if one.chain else {})
        for one in questions
    ]
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def make_card(
    colour: str | None, shape: str | None, character: str | None, seed: int, size: int
) -> tuple[Card, Image8]:
    """One card on a procedural frame, ``size size 3``; what is not named is random.

    Raises:
        ValueError: a colour, shape or character that there is not, or a frame too small.
    """
    for name, value, known in (
        ("colour", colour, COLOURS),
        ("shape", shape, SHAPES),
        ("character", character, CHARACTERS),
    ):
        if value is not None and value not in known:
            raise ValueError(f"there is no {name} {value!r}: use one of {', '.join(known)}")
    if size < SMALLEST:
        raise ValueError(f"{size} pixels are too few to read a card: use at least {SMALLEST}")
    rng = np.random.default_rng(seed)
    random = random_what(rng, moving=False)
    assert isinstance(random, Card)
    card = Card(colour or random.colour, shape or random.shape, character or random.character)
    style = random_style(rng, card)
    image, _ = draw_card(procedural(rng, size, size).frame(0), card, style)
    return card, jpeg(image, style.quality)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds of questions from the command line: ``character,motion``.

    Raises:
        ValueError: an unknown kind.
    """
    kinds = tuple(text.split(","))
    unknown = [kind for kind in kinds if kind not in ALL_KINDS]
    if unknown:
        raise ValueError(f"there are no questions of kind {', '.join(unknown)!r}: use some of {','.join(ALL_KINDS)}")
    return kinds


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from the command line: ``640x360``.

    Raises:
        ValueError: anything else.
    """
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise ValueError(f"size {text!r} is not as 640x360") from None
    return width, height


def save_png(image: Image8, path: Path) -> None:
    """Write a picture, whole or not at all."""
    with beside(path) as part:
        Image.fromarray(image).save(part, "PNG")


def _scene(
    rng: Rng,
    frames: int,
    fps: float,
    kinds: Sequence[str],
    cards: int | None,
    movers: int | None,
    hops: int | None = None,
) -> Scene:
    """A scene with as much in it as its length suggests: never a card without another one to be taken for it."""
    if frames < 1 or not fps > 0:
        raise ValueError(f"a video needs at least one frame and a positive fps, not {frames} frames at {fps:g}")
    seconds, shortest = frames / fps, max(1.0, 1 / fps)
    if movers is None:
        most = 2 if seconds >= 8 * MOVER_SECONDS else 1 if seconds >= MOVER_SECONDS + 2 * shortest else 0
        movers = int(rng.integers(1, most + 1)) if most else 0
    if "grounding" in kinds and (fps % 1 or frames % fps):
        raise ValueError(f"grounding asks for whole seconds, which {frames} frames at {fps:g} a second are not")
    if set(kinds) & {*HOPS, "pointer"}:
        scene = _chains(rng, frames, fps, cards, movers, hops)
        return whole_seconds(scene) if "grounding" in kinds else scene
    if cards is None:
        wanted = int(rng.integers(4, min(8, 5 + int(seconds // 64)) + 1))
        room = int((FULL * seconds - MOVER_SECONDS * movers) / shortest)
        cards = max(2, min(wanted, room))
    if cards < 2 and set(kinds) & set(CARD_KINDS):
        warnings.warn(f"{cards} card has no other one to be taken for it: the questions are easy", stacklevel=3)
    scene = make_scene(rng, frames, fps, cards, movers)
    return whole_seconds(scene) if "grounding" in kinds else scene


def _chains(rng: Rng, frames: int, fps: float, cards: int | None, movers: int, hops: int | None) -> Scene:
    """A scene with two chains, and a few other cards where there is room."""
    shortest = max(1.0, 1 / fps)
    room = int((frames / fps - MOVER_SECONDS * movers) / shortest)
    if hops is None:
        hops = int(rng.integers(1, max(1, min(MOST_HOPS, room // CHAINS - 1)) + 1))
    if cards is None:
        cards = min(int(rng.integers(3)), max(0, room - CHAINS * (hops + 1)))
    return make_chains(rng, frames, fps, hops, CHAINS, cards, movers)


def _procedural(seed: tuple[int, ...], frames: int, size: tuple[int, int]) -> Iterator[Image8]:
    stack = procedural(np.random.default_rng(seed), size[1], size[0])
    return (stack.frame(i) for i in range(frames))
