"""Records -> samples: the conversation as tokens and labels, its media as pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..config import Config
from ..prompt import SYSTEM, Prompt, Turn, lay_out, plain_text, render, time_sentence
from ..sight import Sight
from ..video import CLIP, sample_indices
from .media import Pixels, Unusable, best_tiles, read_images, read_video, sampling_of
from .recipe import Recipe
from .records import PLACE, Record
from .splice import Bank
from .teach import Taught
from .worlds import Drawn, draw_pixels, turns_of

NOISE = "QA_GT_caption_based_noisy"  # a mark in some of the reference's texts that is no part of them
TYPICAL = (640, 480)  # pixels; of an image that was not opened
ASSUMED_FPS = 25.0  # of a video that was not opened
DRAWN_TEXT = 200  # tokens of a drawn conversation, about
BYTES = 4  # of a text for a token, about
SILENT = Prompt((), (), ())  # of what is only looked at


@dataclass(frozen=True, eq=False)
class Sample:
    """One conversation, ready for the model.

    Attributes:
        clips: of each slot of the prompt, uint8, F = 1 for images and their tiles; or merged tokens that are kept.
        lessons: of drawn pictures, what their patches show.
        kinds: of drawn conversations, those of the questions.
        grids: of each slot, rows and columns of an image's tiles; None where there are none.
        rows: text and visual rows in the decoder.
        skipped: of each slot of a drawn video, clips that are left out before it.
    """

    id: str
    source: str
    prompt: Prompt
    clips: tuple[UInt8[Tensor, "_ _ h w 3"] | Float[Tensor, "_ M D"], ...]
    grids: tuple[tuple[int, int] | None, ...]
    rows: int
    lessons: tuple[Taught, ...] = ()
    kinds: tuple[str, ...] = ()
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True)
class Bad:
    """A record that is left out, and why: a short category to count by, and what it was."""

    id: str
    source: str
    reason: str
    detail: str


class Samples(Dataset[Sample | Bad]):
    """Record -> Sample, or Bad: never an error, never another record in its place. Nothing random, nothing kept."""

    def __init__(
        self,
        recipe: Recipe,
        config: Config,
        tokenizer: Tokenizer,
        records: Sequence[Record | Drawn],
        banks: Mapping[str, Bank] | None = None,
    ) -> None:
        self.recipe, self.config, self.tokenizer, self.records = recipe, config, tokenizer, records
        self.banks = banks or {}
        self.size = recipe.image_size or config.vision.image_size

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample | Bad:
        record = self.records[index]
        if isinstance(record, Drawn):
            return self._drawn(record)
        try:
            if record.flaw:
                raise Unusable("malformed record", record.flaw)
            return self._sample(record)
        except Unusable as error:
            return Bad(record.id, record.source, error.reason, error.detail)

    def _sample(self, record: Record) -> Sample:
        if self.recipe.template == "chat":
            check_places(record.turns, len(record.media))
        elif len(record.turns) != 2 or len(record.media) != 1:
            text = f"{len(record.turns)} turns about {len(record.media)} media: the template needs 2 about 1"
            raise Unusable("no caption", text)
        seen = self._seen(record)
        if self.recipe.template == "chat":
            prompt = chat_prompt(self.tokenizer, record.turns, [time_behind(one) for one in seen], record.system)
        else:
            prompt = caption_prompt(self.tokenizer, record.turns[1].text)
        rows = len(prompt.ids) + sum(visual_rows(self.config, *one.clips.shape[:2]) for one in seen)
        if rows > self.recipe.max_rows:
            raise Unusable("too long", f"{rows} rows are more than max_rows, {self.recipe.max_rows}")
        clips, grids = tuple(one.clips for one in seen), tuple(one.grid for one in seen)
        return Sample(record.id, record.source, prompt, clips, grids, rows)

    def _drawn(self, one: Drawn) -> Sample:
        """Never bad: it is made here. Its prompt is that of answering, byte for byte."""
        lessons: tuple[Taught, ...] = ()
        if one.world.kind == "videos":
            parts, asked = self.banks[one.source].draw(one)
            frames = CLIP
        else:
            clips, lessons, asked = draw_pixels(one, self.size)
            parts, frames = [(0, clips)], clips.shape[1]
        skipped, shown = zip(*parts, strict=True)
        count = sum(skipped) + sum(map(len, shown))
        duration = 0.0 if frames == 1 else float(frames * count)
        seen = Sight(torch.empty(count, 0, 0), torch.empty(count, 2), duration, frames, "", "")
        prompt = render(self.tokenizer, turns_of(asked), [seen]) if asked else SILENT
        prompt = replace(prompt, slots=prompt.slots * len(parts))  # one video, whose parts stand in one place
        rows = len(prompt.ids) + sum(map(self._visual_rows, shown)) if asked else 0
        kinds = tuple(question.kind for question in asked)
        return Sample(one.id, one.source, prompt, shown, (None,) * len(parts), rows, lessons, kinds, skipped)

    def _visual_rows(self, clips: Tensor) -> int:
        """Of pixels that are still to be seen, or of tokens that are kept."""
        kept = (CLIP, clips.shape[1] // CLIP) if clips.ndim == 3 else (clips.shape[1],)
        return visual_rows(self.config, len(clips), *kept)

    def _seen(self, record: Record) -> list[Pixels]:
        if record.kind == "image":
            return read_images(record.media, self.size, self.recipe.tiles)
        window = record.start, record.end
        return [read_video(path, self.recipe.video, self.size, *window, record.frame_fps) for path in record.media]


# -- prompts -----------------------------------------------------------------------------------------------------------


def time_behind(seen: Pixels) -> str:
    """What stands behind a place: how long the video lasts and how many frames are seen; nothing for an image."""
    count, frames = seen.clips.shape[:2]
    sentence = time_sentence(Sight(torch.empty(count, 0, 0), torch.empty(count, 2), seen.duration, frames, "", ""))
    return f"\n{sentence}" if sentence else ""


def check_places(turns: Sequence[Turn], media: int) -> None:
    """Raises Unusable where the places in the questions are not as many as the media, or one is in an answer."""
    counts = {
        role: sum(turn.text.count(PLACE) for turn in turns if turn.role == role) for role in ("user", "assistant")
    }
    if counts["user"] != media or counts["assistant"]:
        text = f"{counts['user']} {PLACE} in questions and {counts['assistant']} in answers, for {media} media"
        raise Unusable("placeholder mismatch", text)


def arranged(text: str) -> str:
    """A single place goes to the front of its turn; several stay where they are."""
    if text.count(PLACE) == 1 and not text.startswith(PLACE):
        text = f"{PLACE}\n{text.replace(PLACE, '').strip()}".strip()
    return text.replace(NOISE, "")


def chat_prompt(tokenizer: Tokenizer, turns: Sequence[Turn], times: Sequence[str], system: str = SYSTEM) -> Prompt:
    """A conversation in the Qwen chat form, as the releases were trained: the question begins a line of its own.

    Learned are the answers and the tokens that close them, nothing else.

    Args:
        times: what stands behind each place, in order; as many as there are places.
    """
    plain_text(tokenizer)  # a copy in another process has forgotten it
    left = iter(times)
    laid: list[tuple[str, list[str]]] = []
    for turn in turns:
        if turn.role == "assistant":
            laid.append((turn.role, [turn.text.replace(NOISE, "")]))
        else:
            first, *others = arranged(turn.text).split(PLACE)
            laid.append((turn.role, [first, *(next(left) + words for words in others)]))
    return lay_out(tokenizer, laid, system)


def caption_prompt(tokenizer: Tokenizer, caption: str) -> Prompt:
    """The template ``plain`` of stage 1: what is seen, then its caption, all of it learned."""
    ids = tuple(plain_text(tokenizer).encode(f"{caption.replace(NOISE, '')}\n", add_special_tokens=False).ids)
    return Prompt(ids, ids, (0,))


# -- sizes -------------------------------------------------------------------------------------------------------------


def visual_rows(config: Config, clips: int, frames: int, tokens: int = 0) -> int:
    """Rows of the decoder for clips of ``frames`` frames, or for the tiles of an image (1).

    Args:
        tokens: of a frame, where it is not the model that says them.
    """
    tokens = tokens * frames or (config.image_tokens if frames == 1 else config.tokens_per_frame * frames)
    return clips * tokens + (config.newline == "one_token")


def estimated_rows(record: Record | Drawn, recipe: Recipe, config: Config) -> int:
    """About how many rows a record takes, without opening its media. A video of unknown length counts as a short one,
    and an image as a usual one."""
    if isinstance(record, Drawn):
        world = record.world
        if world.kind == "videos":
            return DRAWN_TEXT + visual_rows(config, world.length(record.rng), CLIP, world.tokens)
        return DRAWN_TEXT + visual_rows(config, *world.span)
    text = sum(len(turn.text.encode()) for turn in record.turns) // BYTES
    if record.kind == "image":
        cut = recipe.tiles > 1 and len(record.media) == 1
        rows, columns = best_tiles(*TYPICAL, recipe.image_size or config.vision.image_size, recipe.tiles)
        return text + len(record.media) * visual_rows(config, 1 + rows * columns if cut else 1, 1)
    seconds = record.duration
    if record.start is not None and record.end is not None:
        seconds = record.end - max(0.0, record.start)
    frames = recipe.video.min_frames if recipe.video.sampling == "dynamic" else recipe.video.max_frames
    if seconds is not None and seconds > 0:
        most = max(1, int(seconds * ASSUMED_FPS))
        frames = len(sample_indices(most, seconds, sampling_of(recipe.video), group=CLIP))
    return text + len(record.media) * visual_rows(config, frames // CLIP, CLIP)


# -- checking ----------------------------------------------------------------------------------------------------------


class _Checked(Dataset[Sample | Bad]):
    """Samples that leave their pixels behind: between processes only the verdict travels."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample | Bad:
        one = self.samples[index]
        return replace(one, clips=(), grids=()) if isinstance(one, Sample) else one


def check(samples: Samples, told: Callable[[Sample | Bad], None]) -> list[tuple[str, int, dict[str, int]]]:
    """Read every record with everything in it: source, its records, and how many are bad by reason.

    Args:
        told: called with each one in turn; a Sample comes without its pixels.
    """
    records: Counter[str] = Counter()
    bad: dict[str, Counter[str]] = {}
    loader = DataLoader(
        _Checked(samples), batch_size=None, num_workers=samples.recipe.workers, generator=torch.Generator()
    )
    for one in loader:
        records[one.source] += 1
        reasons = bad.setdefault(one.source, Counter())
        if isinstance(one, Bad):
            reasons[one.reason] += 1
        told(one)
    return [(source, count, dict(bad[source].most_common())) for source, count in records.items()]
