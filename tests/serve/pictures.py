"""Draws docs/images/page-*.png anew, with the built-in model: PYTHONPATH=.:tests python tests/serve/pictures.py"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from command import ROOT
from playwright.sync_api import Page, expect, sync_playwright
from serving import serving

WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
PATIENCE = 300_000.0  # milliseconds
QUESTIONS = 3


def talk(page: Page) -> None:
    """A made-up video, a few questions, and the clip that the model looked at most."""
    page.click("#sample")
    hints = page.locator("#hints button")
    for number in range(QUESTIONS):
        hints.first.click()
        expect(page.locator("#talk .assistant")).to_have_count(number + 1)
        expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("#thumbs canvas")).to_have_count(12)
    page.locator("#bars .most").click()
    page.wait_for_timeout(700)
    page.evaluate("document.getElementById('video').pause()")
    page.mouse.move(2, 2)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(4000)  # until the player's controls are gone


def main() -> None:
    """One conversation, seen in three ways."""
    images, folder = ROOT / "docs" / "images", Path(tempfile.mkdtemp())
    expect.set_options(timeout=PATIENCE)
    try:
        with serving(Path("flash-tiny"), folder / "store") as server, sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=WIDE)
            page.set_default_timeout(PATIENCE)
            page.goto(f"http://127.0.0.1:{server.port}/")
            talk(page)
            for name, scheme, size in (("light", "light", WIDE), ("dark", "dark", WIDE), ("phone", "light", PHONE)):
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                page.set_viewport_size(size)  # type: ignore[arg-type]
                page.wait_for_timeout(500)
                page.screenshot(path=images / f"page-{name}.png", full_page=True)
            browser.close()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
