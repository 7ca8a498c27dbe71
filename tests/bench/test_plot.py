"""The picture of stages."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg

from videochat_flash.bench.plot import picture
from videochat_flash.bench.work import PREFILL, TOWER


def test_a_long_command_stays_in_the_picture() -> None:
    figure = picture([(10_000, {TOWER: 2.7, PREFILL: 13.2})], "vcflash bench " + "--frames 10000 " * 12)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    title = next(text for text in figure.texts if "vcflash" in text.get_text())
    box = title.get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
