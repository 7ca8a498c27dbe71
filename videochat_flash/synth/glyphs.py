"""Stencils of the twenty characters in six fonts, from one 5x7 bitmap table and Pillow's built-in scalable font."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

HEIGHTS = (32, 64, 128)  # of the stencils that are kept: the nearest larger one is scaled down by less than two
MARGIN = 2  # empty pixels around a stencil, for its edge to fade into

# Five columns by seven rows, rows separated by a slash.
BITMAPS = {
    "0": ".###./#...#/#...#/#...#/#...#/#...#/.###.",
    "1": "..#../.##../..#../..#../..#../..#../.###.",
    "2": ".###./#...#/....#/...#./..#../.#.../#####",
    "3": ".###./#...#/....#/..##./....#/#...#/.###.",
    "4": "...#./..##./.#.#./#..#./#####/...#./...#.",
    "5": "#####/#..../####./....#/....#/#...#/.###.",
    "6": ".###./#..../#..../####./#...#/#...#/.###.",
    "7": "#####/....#/...#./..#../..#../..#../..#..",
    "8": ".###./#...#/#...#/.###./#...#/#...#/.###.",
    "9": ".###./#...#/#...#/.####/....#/....#/.###.",
    "A": "..#../.#.#./#...#/#...#/#####/#...#/#...#",
    "C": ".###./#...#/#..../#..../#..../#...#/.###.",
    "E": "#####/#..../#..../####./#..../#..../#####",
    "F": "#####/#..../#..../####./#..../#..../#....",
    "H": "#...#/#...#/#...#/#####/#...#/#...#/#...#",
    "K": "#...#/#..#./#.#../##.../#.#../#..#./#...#",
    "L": "#..../#..../#..../#..../#..../#..../#####",
    "M": "#...#/##.##/#.#.#/#.#.#/#...#/#...#/#...#",
    "P": "####./#...#/#...#/####./#..../#..../#....",
    "T": "#####/..#../..#../..#../..#../..#../..#..",
}


def stencil(character: str, font: str, height: float) -> Image.Image:
    """The character in white on black, tight but for ``MARGIN``, at least about ``height`` pixels high."""
    kept = next((one for one in HEIGHTS if one >= height), HEIGHTS[-1])
    return _stencil(character, font, kept)


@lru_cache(maxsize=512)  # only a memo: the drawing is the same each time, and is never written to
def _stencil(character: str, font: str, height: int) -> Image.Image:
    large = _bitmap(character, font) if font in ("pixel", "round", "thin") else _scalable(character, font)
    large = large.crop(large.getbbox())
    # Even a narrow 1 keeps a third of its height, so that squashing the frame leaves it readable.
    width = max(1, round(height * min(large.width / large.height, 0.95)))
    tight = large.resize((width, height), Image.Resampling.LANCZOS)
    framed = Image.new("L", (width + 2 * MARGIN, height + 2 * MARGIN))
    framed.paste(tight, (MARGIN, MARGIN))
    return framed


def _bitmap(character: str, font: str) -> Image.Image:
    """The 5x7 table drawn as squares, or as strokes that join neighbouring pixels."""
    cell = 40
    image = Image.new("L", (7 * cell, 9 * cell))
    draw = ImageDraw.Draw(image)
    rows = BITMAPS[character].split("/")
    on = {(x, y) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark == "#"}
    if font == "pixel":
        for x, y in on:
            draw.rectangle(((x + 1) * cell, (y + 1) * cell, (x + 2) * cell - 1, (y + 2) * cell - 1), fill=255)
        return image
    width = round(cell * (1.05 if font == "round" else 0.6))
    for x, y in on:
        cx, cy = round((x + 1.5) * cell), round((y + 1.5) * cell)
        draw.ellipse((cx - width / 2, cy - width / 2, cx + width / 2, cy + width / 2), fill=255)
        for dx, dy in ((1, 0), (0, 1), (1, 1), (-1, 1)):
            # A diagonal is drawn only where no corner joins the two already.
            corner = dx and dy and ((x + dx, y) in on or (x, y + dy) in on)
            if (x + dx, y + dy) in on and not corner:
                draw.line((cx, cy, cx + dx * cell, cy + dy * cell), fill=255, width=width)
    return image


def _scalable(character: str, font: str) -> Image.Image:
    """Pillow's own font: regular, bold (a wide stroke) or slanted (sheared)."""
    image = Image.new("L", (480, 480))
    thick = {"regular": 3, "bold": 12, "slanted": 5}[font]
    ImageDraw.Draw(image).text(
        (120, 40), character, fill=255, font=ImageFont.load_default(300), stroke_width=thick, stroke_fill=255
    )
    if font == "slanted":
        return image.transform(image.size, Image.Transform.AFFINE, (1, 0.22, -50, 0, 1, 0), Image.Resampling.BILINEAR)
    return image
