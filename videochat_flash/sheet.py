"""Pictures of what a model was shown, and of when it looked: to be taken in at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .video import Frames

GROUND, WORDS, BAR, GONE = (24, 26, 30), (214, 218, 224), (236, 170, 72), (52, 56, 64)
WIDTH, MARGIN, HIGH, STRIP, LINE, TICKS = 1280, 16, 150, 18, 24, 8  # pixels of a timeline, and times below it
LARGEST = 2.0  # a picture above a timeline grows to


def contact_sheet(frames: Frames, columns: int = 8, width: int = 160, aspect: float = 16 / 9) -> Image.Image:
    """All frames as thumbnails ``width`` pixels wide, each over its time (minutes:seconds)."""
    height, gap, text = round(width / aspect), max(4, width // 20), max(10, width // 11)
    columns, line, font = max(1, min(columns, len(frames.pixels))), round(text * 1.5), ImageFont.load_default(text)
    size = (columns * (width + gap) + gap, math.ceil(len(frames.pixels) / columns) * (height + line + gap) + gap)
    sheet = Image.new("RGB", size, GROUND)
    for i, (pixels, second) in enumerate(zip(frames.pixels, frames.seconds, strict=True)):
        left, top = gap + i % columns * (width + gap), gap + i // columns * (height + line + gap)
        sheet.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS), (left, top))
        middle = (left + width / 2, top + height + line / 2)
        ImageDraw.Draw(sheet).text(middle, clock(second), WORDS, font, anchor="mm")
    return sheet


def clock(second: float) -> str:
    """Minutes and seconds."""
    minutes, tenths = divmod(round(second * 10), 600)
    return f"{minutes}:{tenths / 10:04.1f}"


def timeline(
    begins: Sequence[float],
    end: float,
    shares: tuple[str, Sequence[float]],
    strips: Sequence[tuple[str, Sequence[float]]],
    shown: Image.Image | None = None,
) -> Image.Image:
    """A bar for each clip over its time, and strips below that fade where less is left.

    Args:
        begins: second at which each clip begins.
        end: second at which the last one ends.
        shares: what the bars are, and how high, of any unit.
        strips: what each strip is, and how much of each clip is left, 0 to 1.
        shown: a picture to stand above, as wide as all of it, but no more than twice as large as it is.
    """
    scale = 0.0 if shown is None else min(LARGEST, WIDTH / shown.width)
    wide, top = (0, 0) if shown is None else (round(shown.width * scale), round(shown.height * scale))
    sheet = Image.new("RGB", (WIDTH, top + HIGH + 3 * LINE + len(strips) * (LINE + STRIP)), GROUND)
    if shown is not None:
        sheet.paste(shown.resize((wide, top), Image.Resampling.LANCZOS), ((WIDTH - wide) // 2, 0))
    draw, font, span = ImageDraw.Draw(sheet), ImageFont.load_default(14), end - begins[0]
    if span > 0:
        places = [MARGIN + (second - begins[0]) / span * (WIDTH - 2 * MARGIN) for second in (*begins, end)]
    else:  # a picture
        places = [MARGIN + i / len(begins) * (WIDTH - 2 * MARGIN) for i in range(len(begins) + 1)]

    def bars(name: str, values: Sequence[float], height: int, faded: bool) -> None:
        nonlocal top
        draw.text((MARGIN, top + LINE / 2), name, WORDS, font, anchor="lm")
        top += LINE + height
        for left, right, value in zip(places, places[1:], values, strict=False):
            box = (left, top - (height if faded else value * height), max(left + 1, right - 1), top)
            draw.rectangle(box, _between(value) if faded else BAR)

    highest = max(*shares[1], 1e-12)
    bars(shares[0], [share / highest for share in shares[1]], HIGH, False)
    for name, left in strips:
        bars(name, left, STRIP, True)
    for tick in range(TICKS + 1 if span > 0 else 0):
        place = MARGIN + tick / TICKS * (WIDTH - 2 * MARGIN)
        anchor = "lm" if not tick else "rm" if tick == TICKS else "mm"
        draw.text((place, top + LINE), clock(begins[0] + tick / TICKS * span), WORDS, font, anchor=anchor)
    return sheet


def _between(value: float) -> tuple[int, int, int]:
    red, green, blue = (round(gone + (full - gone) * value) for gone, full in zip(GONE, BAR, strict=True))
    return red, green, blue
