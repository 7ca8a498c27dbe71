"""A contact sheet: what a model was shown, at a glance."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from .video import Frames


def contact_sheet(frames: Frames, columns: int = 8, width: int = 160, aspect: float = 16 / 9) -> Image.Image:
    """All frames as thumbnails ``width`` pixels wide, each over its time (minutes:seconds)."""
    height, gap, text = round(width / aspect), max(4, width // 20), max(10, width // 11)
    columns, line, font = max(1, min(columns, len(frames.pixels))), round(text * 1.5), ImageFont.load_default(text)
    size = (columns * (width + gap) + gap, math.ceil(len(frames.pixels) / columns) * (height + line + gap) + gap)
    sheet = Image.new("RGB", size, (24, 26, 30))
    for i, (pixels, second) in enumerate(zip(frames.pixels, frames.seconds, strict=True)):
        left, top = gap + i % columns * (width + gap), gap + i // columns * (height + line + gap)
        sheet.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS), (left, top))
        minutes, tenths = divmod(round(second * 10), 600)
        middle, label = (left + width / 2, top + height + line / 2), f"{minutes}:{tenths / 10:04.1f}"
        ImageDraw.Draw(sheet).text(middle, label, (214, 218, 224), font, anchor="mm")
    return sheet
