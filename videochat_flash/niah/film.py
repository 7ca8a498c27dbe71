"""Films: a haystack with needles in it, as frames, as a real mp4, or as a Sight spliced from clips seen before.

Every pixel that a tower sees has been through an mp4 whose codec loses nothing, alone or among others alike: so what is
spliced from a cached haystack and needle clips equals what a film of them all would have shown.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..chat import VideoChatFlash
from ..config import PIXEL_MEAN
from ..journal import digest
from ..mp4 import write
from ..sight import Sight
from ..synth import Event, Scene
from ..synth.world import Image8
from ..video import CLIP, Frames, Sampling
from .compat import ROW_TOKENS
from .draws import VERSION
from .haystack import Haystack
from .items import SECONDS, Needle
from .place import Film, Part, Ref, length_of, refs, shown

FPS = 1.0  # of every film: a frame is a second
LOSSLESS = 0  # the codec's quality where a tower of ours looks
SENT = 10  # and where a film is sent away
CHUNK = 512  # frames of a haystack that are seen and kept at once
MEMO = 64  # needle clips that are kept in memory
CODE_HEIGHT = 0.16  # of a code's letters, over the frame's height


@dataclass(frozen=True)
class Scenery:
    """What films are made of.

    Attributes:
        stack: the haystack.
        needles: by name.
        square: pad every picture to a square of the mean colour, as the reference does.
    """

    stack: Haystack
    needles: Mapping[str, Needle]
    square: bool = False

    def frames(self, film: Film) -> Iterator[Image8]:
        """All frames of a film, uint8 ``h w 3``."""
        for part in film:
            if part.needle:
                yield from (self.frame((part.needle, i, part.first)) for i in range(part.count))
            else:
                yield from map(self._padded, self.stack.read(part.first, part.count))

    def frame(self, ref: Ref) -> Image8:
        """One frame, uint8 ``h w 3``."""
        name, index, behind = ref
        if not name:
            return self._padded(next(self.stack.read(index, 1)))
        needle = self.needles[name]
        if needle.picture:
            return self._padded(picture(needle, None if self.square else self.stack.size))
        back = next(self.stack.read(behind, 1))
        if needle.code:
            return _coded(back, needle.code)
        scene = Scene(SECONDS, FPS, (Event(0.0, SECONDS, *needle.drawn()),))
        return scene.frame(index % int(SECONDS), back)[0]

    def _padded(self, image: Image8) -> Image8:
        return squared(image) if self.square else image


def squared(image: Image8) -> Image8:
    """A square with the picture in its middle and the mean colour around it."""
    side = max(image.shape[:2])
    colour = tuple(int(255 * mean) for mean in PIXEL_MEAN)
    return np.asarray(ImageOps.pad(Image.fromarray(image), (side, side), color=colour))


def picture(needle: Needle, size: tuple[int, int] | None) -> Image8:
    """A picture as it is, or cut to a haystack's aspect and brought to its size.

    Raises:
        ValueError: it cannot be read any more, or is another one than when the suite was built.
    """
    path = Path(needle.picture)
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != needle.sha256:
            raise ValueError(f"image {path} is another one than when the suite was built: build it anew")
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {path} cannot be read: {error}") from None
    return np.asarray(upright if size is None else ImageOps.fit(upright, size, Image.Resampling.BICUBIC))


def _coded(back: Image8, code: str) -> Image8:
    """A code in black on a white field."""
    image = Image.fromarray(back)
    font = ImageFont.load_default(max(12, int(CODE_HEIGHT * image.height)))
    draw, middle = ImageDraw.Draw(image), (image.width // 2, image.height // 2)
    left, top, right, bottom = draw.textbbox(middle, code, font=font, anchor="mm")
    edge = (bottom - top) // 2
    draw.rectangle((left - edge, top - edge, right + edge, bottom + edge), fill="white")
    draw.text(middle, code, font=font, anchor="mm", fill="black")
    return np.asarray(image)


def as_mp4(frames: Iterable[Image8], path: Path, crf: int, keys: Sequence[int] = ()) -> int:
    """Write a film of one frame a second; ``keys`` are frames that stand alone in it. Returns the number of frames."""
    return write(path, frames, FPS, crf=crf, keys=keys)


def seen(
    vc: VideoChatFlash, frames: Iterable[Image8], count: int, on_frames: Callable[[int, int], None] | None = None
) -> Sight:
    """What a model sees of ``count`` frames, in whole clips, of a lossless mp4."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "film.mp4"
        as_mp4(frames, path, LOSSLESS)
        return vc.see(path, Sampling("count", max_frames=count, num_frames=count), on_frames=on_frames)


def timed(sight: Sight, source: str) -> Sight:
    """The sight with the times of a film of its own, one frame a second."""
    first = torch.arange(len(sight), dtype=torch.float64) * CLIP / FPS
    seconds = torch.stack([first, first + (CLIP - 1) / FPS], dim=1)
    return replace(sight, seconds=seconds, duration=len(sight) * CLIP / FPS, source=source)


class Splicer:
    """Sights of films out of a haystack that is seen once and kept on disk, and needle clips.

    Args:
        vc: whose Sights.
        scenery: what films are made of.
        folder: where the haystack's Sight is kept, in chunks.
        told: frames of the haystack that were seen, of how many.
    """

    def __init__(
        self, vc: VideoChatFlash, scenery: Scenery, folder: Path, told: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self.vc, self.scenery, self.folder, self.told = vc, scenery, folder, told
        self.clips: OrderedDict[tuple[Ref, ...], Sight] = OrderedDict()
        self.stacks: dict[int, Sight] = {}  # by the frame that clips are counted from, 0 to 3

    def film(self, film: Film) -> Sight:
        """What the model sees of a film of whole clips.

        Raises:
            ValueError: frames that are no whole clips.
        """
        if length_of(film) % CLIP:
            raise ValueError(f"{length_of(film)} frames are not whole clips of {CLIP}")
        clips = clips_of(film)
        for phase in range(CLIP):
            if ends := [place + CLIP for place, _ in clips if place is not None and place % CLIP == phase]:
                self.haystack(max(ends) - phase, phase)
        pieces: list[Sight] = []
        first = last = -1  # frames of the haystack that follow each other
        for place, clip in clips:
            if place is not None and place == last:
                last += CLIP
                continue
            pieces += self._whole(first, last)
            first, last = (-1, -1) if place is None else (place, place + CLIP)
            pieces += [self._clip(clip)] if place is None else []
        pieces += self._whole(first, last)
        return timed(Sight.join(pieces), digest([self.scenery.stack.digest, [vars(part) for part in film]]))

    def _whole(self, first: int, last: int) -> list[Sight]:
        """Clips of nothing but haystack, frames ``first`` to ``last``; below 0 there are none."""
        phase = first % CLIP
        return [self.stacks[phase][(first - phase) // CLIP : (last - phase) // CLIP]] if first >= 0 else []

    def rows(self, film: Film) -> torch.Tensor:
        """Token rows of a film as the reference splices it, "R 16 E": sixteen tokens count as a frame, and cuts go
        through clips."""
        stack = self.haystack(shown(film)).tokens
        whole = stack.reshape(-1, ROW_TOKENS, stack.shape[-1])
        pieces = []
        for part in film:
            if not part.needle:
                pieces.append(whole[part.first : part.first + part.count])
            else:
                tokens = self._clip(tuple(refs((part,)))).tokens
                pieces.append(tokens.reshape(-1, ROW_TOKENS, stack.shape[-1]))
        return torch.cat(pieces)

    def haystack(self, frames: int, phase: int = 0) -> Sight:
        """Frames of the haystack from ``phase`` on, in whole clips, as many or more: from memory, from disk, or seen
        now and kept."""
        frames = max(CLIP, -(-frames // CLIP) * CLIP)
        if phase in self.stacks and self.stacks[phase].frames >= frames:
            return self.stacks[phase]
        parts = []
        for first in range(0, frames, CHUNK):
            parts.append(self._chunk(phase + first, min(CHUNK, frames - first)))
            self.told(min(frames, first + CHUNK), frames)
        self.stacks[phase] = Sight.join(parts)
        return self.stacks[phase]

    def _chunk(self, first: int, count: int) -> Sight:
        key = digest(
            [VERSION, self.scenery.stack.digest, self.scenery.square, self.vc.made_by, str(self.vc.model.dtype)]
        )
        path = self.folder / f"{key[:16]}-{first:06d}-{count}.safetensors"
        if path.is_file():
            return Sight.load(path)
        self.folder.mkdir(parents=True, exist_ok=True)
        sight = self._see(self.scenery.frames((Part("", first, count),)), count)
        sight.save(path)
        return sight

    def _clip(self, clip: tuple[Ref, ...]) -> Sight:
        """A clip that is not all haystack; a few are remembered, since a film is asked about more than once."""
        if clip not in self.clips:
            self.clips[clip] = self._see(map(self.scenery.frame, clip), len(clip))
            if len(self.clips) > MEMO:
                self.clips.popitem(last=False)
        self.clips.move_to_end(clip)
        return self.clips[clip]

    def _see(self, frames: Iterable[Image8], count: int) -> Sight:
        if not self.scenery.square:
            return seen(self.vc, frames, count)
        pixels = np.stack(
            [np.asarray(Image.fromarray(one).resize((self._side,) * 2, Image.Resampling.BICUBIC)) for one in frames]
        )
        return self.vc.see(Frames(pixels, np.arange(count, dtype=np.float64), float(count)))

    @property
    def _side(self) -> int:
        return self.vc.model.config.vision.image_size


def clips_of(film: Film) -> list[tuple[int | None, tuple[Ref, ...]]]:
    """A film's clips; before each the frame of the haystack that it begins at, or None where it shows anything else."""
    frames, clips = refs(film), []
    while clip := tuple(islice(frames, CLIP)):
        first = clip[0][1]
        whole = all(not name and index == first + i for i, (name, index, _) in enumerate(clip))
        clips.append((first if whole else None, clip))
    return clips
