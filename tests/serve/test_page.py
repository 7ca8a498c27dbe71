"""The page in a real browser: what people do with it, and what it tells them when something goes wrong."""

from __future__ import annotations

import base64
import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import KEY, Served, children, serving
from videos import make

pytest.importorskip("playwright", reason="no playwright here to drive a browser with")
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 300_000.0  # milliseconds: machines that test are busy
CANCEL_WHEN_SEEN = """() => new MutationObserver((_, watch) => {
  if (!words.textContent.includes("Seeing")) return;
  watch.disconnect();
  cancel.click();
}).observe(words, { childList: true })"""  # from within: one that looks in now and then finds the answer there
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    context = browser.new_context()
    made = context.new_page()
    made.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    wrong: list[str] = []
    elsewhere: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("request", lambda asked: elsewhere.append(asked.url))
    made.goto(f"http://127.0.0.1:{served.port}/")
    yield made
    context.close()
    own = (f"http://127.0.0.1:{served.port}/", f"blob:http://127.0.0.1:{served.port}/", "data:,")
    assert not wrong and [url for url in elsewhere if not url.startswith(own)] == []


COUNT_PIECES = """() => {
    window.pieces = new Set();
    const seen = () => window.pieces.add(document.querySelector("#talk .assistant")?.textContent);
    new MutationObserver(seen).observe(document.getElementById("talk"), {subtree: true, childList: true});
}"""
EVENT_BY_EVENT = """() => {
    const real = window.fetch;  // on a busy machine the browser may read several events as one
    const split = () => new TransformStream({async transform(chunk, out) {
        for (const event of chunk.split(/(?<=\\n\\n)/)) {
            out.enqueue(event);
            await new Promise((drawn) => setTimeout(drawn));
        }
    }});
    window.fetch = async (...told) => {
        const reply = await real(...told);
        if (!reply.headers.get("Content-Type")?.startsWith("text/event-stream")) return reply;
        const events = reply.body.pipeThrough(new TextDecoderStream()).pipeThrough(split());
        return new Response(events.pipeThrough(new TextEncoderStream()), reply);
    };
}"""
DROP = """(data) => {
    const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0)), held = new DataTransfer();
    held.items.add(new File([bytes], "dropped.mp4", {type: "video/mp4"}));
    document.dispatchEvent(new DragEvent("drop", {dataTransfer: held, bubbles: true, cancelable: true}));
}"""
DROP_WORDS = """() => ["dragover", "drop"].every((name) => {
    const held = new DataTransfer();
    held.setData("text/plain", "What is it?");
    const event = new DragEvent(name, {dataTransfer: held, bubbles: true, cancelable: true});
    return document.getElementById("question").dispatchEvent(event);  // whether the browser does what it does
})"""
CHOOSE_MEANWHILE = """async () => {
    const canvas = HTMLCanvasElement.prototype, own = canvas.getContext;
    canvas.getContext = function (kind) {
        canvas.getContext = own;
        choose(new File(["another"], "another.webm", {type: "video/webm"}));
        return own.call(this, kind);
    };
    await drawThumbs([[0, 6]]);
    return canvas.getContext === own;  // whether it came to that
}"""
TELL_TWICE = """() => {
    const told = {seconds: [[[0, 3], [3, 6]]], attention: [[.4, .6]], layer: 1, stages: []}, made = [];
    document.createElement = (name) => made.push(name) && Document.prototype.createElement.call(document, name);
    drawEvidence(told);
    drawEvidence(told);
    delete document.createElement;
    return made.filter((name) => name === "video").length;
}"""
FILL = """() => {
    while (turns.length < 64) turns.push({role: "user", content: "?"}, {role: "assistant", content: "!"});
}"""

CONTRAST = """(place) => {
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
            .map((one) => one / 255).map((one) => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    let at = document.querySelector(place), ground = at;
    while (/, 0\\)$/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
    const two = [getComputedStyle(at).color, getComputedStyle(ground).backgroundColor].map(light).sort((a, b) => b - a);
    return (two[0] + .05) / (two[1] + .05);
}"""


def bring(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)
    expect(page.locator("#words")).to_contain_text("is here")


def ask(page: Page, words: str) -> None:
    page.fill("#question", words)
    page.press("#question", "Enter")


def answered(page: Page, count: int) -> str:
    expect(page.locator("#talk .assistant")).to_have_count(count)
    expect(page.locator("#send")).to_be_enabled()
    return page.locator("#talk .assistant").last.inner_text()


def test_a_video_is_brought_asked_about_and_asked_about_again(page: Page, served: Served, tmp_path: Path) -> None:
    film = make(tmp_path / "film.webm", 48, 8, codec="libvpx")
    bring(page, film)
    page.evaluate(EVENT_BY_EVENT)
    page.evaluate(COUNT_PIECES)
    ask(page, "What is it?")
    first = answered(page, 1)
    assert page.evaluate("window.pieces.size") > 2  # it was there piece by piece
    assert page.locator("#talk .user").all_inner_texts() == ["What is it?"] and first
    expect(page.locator("#bars button")).to_have_count(12)
    expect(page.locator("#thumbs canvas")).to_have_count(12)
    expect(page.locator(".stage")).to_have_count(2)
    cost = page.locator("#cost")
    assert re.search(r"48 frames\s+768 visual tokens\s+192 kept", cost.inner_text())
    assert [name for name in ("Decode video", "Encode clips", "Read prompt") if name not in cost.inner_text()] == []
    ask(page, "And when?")
    answered(page, 2)
    assert "Encode" not in cost.inner_text() and "Read prompt" in cost.inner_text()  # seen once


def test_a_video_is_dropped_on_the_page(page: Page, films: Path) -> None:
    data = base64.b64encode((films / "b.mp4").read_bytes()).decode()
    page.evaluate(DROP, data)
    expect(page.locator("#words")).to_contain_text("dropped.mp4 is here")
    ask(page, "What is it?")
    assert answered(page, 1)


def test_words_can_be_dropped_into_the_question(page: Page) -> None:
    assert page.evaluate(DROP_WORDS)


def test_an_upload_shows_that_it_goes_on_and_can_be_cancelled(page: Page, films: Path) -> None:
    held: list[Route] = []
    page.route("**/v1/files", lambda route: held.append(route))
    page.set_input_files("#file", films / "b.mp4")
    expect(page.locator("#words")).to_have_text("Uploading …")
    expect(page.get_by_role("progressbar", name="Uploading")).to_be_visible()
    page.click("#cancel")
    expect(page.locator("#words")).to_have_text("The upload was cancelled.")
    page.unroute("**/v1/files")
    bring(page, films / "b.mp4")


def test_a_question_is_told_to_wait_for_the_upload(page: Page, films: Path) -> None:
    held: list[Route] = []
    page.route("**/v1/files", lambda route: held.append(route))
    with page.expect_request("**/v1/files"):
        page.set_input_files("#file", films / "b.mp4")
    ask(page, "What is it?")
    expect(page.locator("#words")).to_have_text("Wait for the upload …")
    expect(page.locator("#question")).to_have_value("What is it?")
    held[0].continue_()
    expect(page.locator("#words")).to_contain_text("is here")
    page.press("#question", "Enter")
    assert answered(page, 1)


def test_a_question_that_got_no_answer_stands_there_to_be_asked_again(page: Page, films: Path) -> None:
    bring(page, films / "b.mp4")
    busy = {"error": {"message": "The server is busy: try again in a moment."}}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=429, json=busy), times=1)
    ask(page, "What is it?")
    expect(page.locator("#talk .wrong")).to_have_text(busy["error"]["message"])
    expect(page.locator("#question")).to_have_value("What is it?")
    page.press("#question", "Enter")
    assert answered(page, 1)
    expect(page.locator("#question")).to_have_value("")


def test_a_conversation_that_is_too_long_is_begun_anew(page: Page, films: Path) -> None:
    bring(page, films / "b.mp4")
    expect(page.locator("#anew")).to_be_hidden()
    ask(page, "What is it?")
    answered(page, 1)
    page.evaluate(FILL)
    ask(page, "And when?")
    expect(page.locator("#talk .wrong")).to_contain_text("too many messages")
    expect(page.locator("#question")).to_have_value("And when?")
    page.click("#anew")
    expect(page.locator("#talk li")).to_have_count(0)
    expect(page.locator("#words")).to_contain_text("b.mp4 is here")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.press("#question", "Enter")
    (message,) = sent.value.post_data_json["messages"]
    assert [part["type"] for part in message["content"]] == ["video_url", "text"]  # the video as it was brought
    assert answered(page, 1)


def test_a_server_that_is_gone_is_told_in_a_sentence(page: Page, films: Path) -> None:
    bring(page, films / "b.mp4")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    ask(page, "What is it?")
    expect(page.locator("#talk .wrong")).to_have_text("The server cannot be reached.")
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("#question")).to_have_value("What is it?")


def test_the_model_is_asked_for_until_it_is_told(page: Page, served: Served) -> None:
    told = f"Ask {served.model} about a video."
    expect(page.locator("#model")).to_have_text(told)
    page.route("**/v1/models", lambda route: route.abort(), times=1)
    page.reload()
    expect(page.locator("#model")).to_have_text(told)


def test_the_keyboard_is_enough(page: Page, films: Path) -> None:
    places = []
    for _ in range(6):
        page.keyboard.press("Tab")
        places.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert [one for one in places if one in ("file", "sample", "question", "send")] == [
        *("file", "sample", "question", "send")
    ]
    bring(page, films / "b.mp4")
    expect(page.locator("#question")).to_be_focused()  # ready to be asked
    page.keyboard.type("What is it?")
    page.keyboard.press("Enter")
    assert answered(page, 1)


def test_who_has_no_video_takes_a_made_up_one(page: Page) -> None:
    page.click("#sample")
    expect(page.locator("#words")).to_contain_text("is here")
    hints = page.locator("#hints button")
    expect(hints).to_have_count(4)
    words = hints.first.inner_text()
    hints.first.click()
    answered(page, 1)
    assert page.locator("#talk .user").inner_text() == words
    expect(hints).to_have_count(3)  # what was asked is offered no more


def test_a_hint_is_offered_until_it_is_answered(page: Page, films: Path) -> None:
    questions = {"questions": ["What is it?", "And when?"]}
    page.route("**/samples/0", lambda route: route.fulfill(json=questions))
    page.route("**/samples/0.mp4", lambda route: route.fulfill(path=films / "b.mp4"))
    page.click("#sample")
    expect(page.locator("#words")).to_contain_text("is here")
    hints = page.locator("#hints button")
    page.route("**/v1/chat/completions", lambda route: route.abort(), times=1)
    hints.first.click()
    expect(page.locator("#talk .wrong")).to_have_text("The server cannot be reached.")
    expect(page.locator("#send")).to_be_enabled()
    expect(hints).to_have_count(2)
    hints.first.click()
    assert answered(page, 1)
    expect(hints).to_have_count(1)


def test_a_made_up_video_that_does_not_come_is_told_of(page: Page) -> None:
    wrong = {"error": {"message": "Something went wrong here."}}
    page.route("**/samples/0", lambda route: route.fulfill(json={"questions": []}))
    page.route("**/samples/0.mp4", lambda route: route.fulfill(status=500, json=wrong))
    page.click("#sample")
    expect(page.locator("#talk .wrong")).to_have_text(wrong["error"]["message"])
    expect(page.locator("#sample")).to_be_enabled()
    expect(page.locator("#video")).to_be_hidden()


def test_thumbnails_are_of_the_video_that_is_there_and_drawn_once(page: Page, tmp_path: Path) -> None:
    bring(page, make(tmp_path / "film.webm", 48, 8, codec="libvpx"))
    assert page.evaluate(TELL_TWICE) == 1  # players that look through it
    expect(page.locator("#thumbs canvas")).to_have_count(12)
    assert page.evaluate(CHOOSE_MEANWHILE)
    assert page.locator("#thumbs canvas").count() == 0


def test_a_bar_seeks_by_click_and_by_key(page: Page, tmp_path: Path) -> None:
    bring(page, make(tmp_path / "film.webm", 48, 8, codec="libvpx"))
    ask(page, "What is it?")
    answered(page, 1)
    bars = page.locator("#bars button")
    bars.nth(6).click()
    page.wait_for_function("document.getElementById('video').currentTime >= 3")
    page.evaluate("document.getElementById('video').pause()")
    bars.first.focus()
    page.keyboard.press("End")
    expect(bars.last).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('video').currentTime >= 5")
    assert "of the attention" in (bars.nth(2).get_attribute("aria-label") or "")


def test_times_in_answers_are_links_and_markup_is_text(page: Page) -> None:
    page.evaluate("linked(line('assistant', '<b>At</b> 0:02.5, then 4 seconds on and 1:02; 5 sheep.'))")
    item = page.locator("#talk .assistant")
    assert item.inner_text() == "<b>At</b> 0:02.5, then 4 seconds on and 1:02; 5 sheep."
    assert item.locator("button").all_inner_texts() == ["0:02.5", "4 seconds", "1:02"]


def test_a_text_file_is_refused_in_a_sentence(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video at all")
    bring(page, tmp_path / "notes.mp4")
    expect(page.locator("#unplayable")).to_be_visible()
    ask(page, "What is it?")
    expect(page.locator("#talk .wrong")).to_contain_text("cannot be decoded.")
    expect(page.locator("#send")).to_be_enabled()


def test_a_question_without_a_video_is_told_what_to_do(page: Page) -> None:
    expect(page.locator("#words")).to_have_text("Choose a video.")
    ask(page, "What is it?")
    expect(page.locator("#talk .wrong")).to_have_text("Choose a video first.")


def test_too_large_a_file_is_told_in_a_sentence(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.mp4").write_bytes(bytes(9 << 20))
    page.set_input_files("#file", tmp_path / "large.mp4")
    expect(page.locator("#talk .wrong")).to_contain_text("too large")


def test_a_question_can_be_cancelled_while_the_video_is_seen(browser: Browser, model: Path, tmp_path: Path) -> None:
    grey = np.full((48, 64, 3), 90, np.uint8)
    film = make(tmp_path / "long.webm", itertools.repeat(grey, 4096), 1, codec="libvpx", gop=64)
    with serving(model, tmp_path / "store", "--limit", "frames=4096") as server:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"http://127.0.0.1:{server.port}/")
        bring(page, film)
        page.evaluate(CANCEL_WHEN_SEEN)
        ask(page, "What is it?")
        expect(page.locator("#words")).to_have_text("Cancelled.")
        server.waits_for("vcflash_active", 0)
        assert len(children(server.process.pid)) == 1
        page.close()


def test_a_browser_is_asked_for_the_key(browser: Browser, model: Path, films: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "store", key=KEY) as server:
        address = f"http://127.0.0.1:{server.port}/"
        refused = browser.new_context(http_credentials={"username": "me", "password": "wrong"}).new_page().goto(address)
        assert refused is not None and refused.status == 401
        page = browser.new_context(http_credentials={"username": "me", "password": KEY}).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        bring(page, films / "b.mp4")
        ask(page, "What is it?")
        assert answered(page, 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_a_phone_and_by_a_screen_reader(
    browser: Browser, served: Served, films: Path, scheme: Any
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"http://127.0.0.1:{served.port}/")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    bring(page, films / "b.mp4")
    ask(page, "What is it? " + "x" * 100)
    answered(page, 1)
    expect(page.locator("#bars button").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360  # with all that an answer brings, too
    read = {"body": 7, "h2": 7, "#talk .user": 7, ".quiet": 4.5, "#send": 4.5, "header a": 4.5}  # WCAG: AAA, AA
    for place, least in read.items():
        assert page.evaluate(CONTRAST, place) >= least, place
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 382) == (scheme == "light")
    for role, name in (("textbox", "Question"), ("button", "Ask"), ("heading", "VideoChat-Flash")):
        expect(page.get_by_role(role, name=name)).to_be_visible()  # type: ignore[arg-type]
    expect(page.get_by_role("heading", name="When it looked")).to_be_visible()
    expect(page.get_by_role("list", name="Questions and answers")).to_be_visible()
    assert page.get_by_role("status").count() == 1
    context.close()
