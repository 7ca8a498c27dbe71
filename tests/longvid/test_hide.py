"""Cards in copies of videos: the copies stay as long as something tells of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from longvid_corpus import ACTS, told, video
from longvid_corpus import film as filmed
from PIL import Image

from videochat_flash.longvid import ask, scan, sieve
from videochat_flash.longvid.hide import lost
from videochat_flash.longvid.pipeline import STEPS, do
from videochat_flash.longvid.records import Film, Note, read_films
from videochat_flash.longvid.rendered import Shown
from videochat_flash.longvid.settings import Ask, Setting, Shots, Sieve, Source, default
from videochat_flash.longvid.steps import Made, journal_line
from videochat_flash.longvid.truth import CARD, SIGN, right
from videochat_flash.mp4 import write
from videochat_flash.synth import ATTRIBUTES, HOPS
from videochat_flash.video import SamplePlan, Sampling, decode, plan, probe

SIX = tuple((10.0 * i, 10.0 * i + 10, text) for i, text in enumerate(ACTS))


def test_cards_are_hidden_in_a_copy_and_what_has_no_room_keeps_its_other_questions(tmp_path: Path) -> None:
    path = filmed(tmp_path / "some.mp4", 1, seconds=30)
    setting = Setting(str(tmp_path / "out"), (Source(str(tmp_path)),), ask=Ask(needles=1))
    [scanned] = scan.step(setting)(scan.discover(setting))
    film = replace(told(*SIX[:3], duration=30.0), video=scanned.video)
    work = ask.worker(setting)
    first, hidden = work(film).films
    assert first.questions and {one.family for one in hidden.questions} == {"needle", "hops"}
    assert (hidden.video.parent, hidden.video.group) == (film.video.key, film.video.group)
    assert hidden.video.duration == 30.0 and Path(hidden.video.path).parent == tmp_path / "out" / "needles"
    assert all(sieve.fault(hidden, one, Sieve()) == "" and one.events for one in hidden.questions)
    path.unlink()
    made = work(film)
    assert made.films == (first,)
    assert [(one.kind, one.reason.split(":")[0]) for one in made.asides] == [("rejected", "no cards are hidden in it")]


@pytest.mark.parametrize(("seconds", "fps"), [(31, 1.03), (40, 0.9995), (31, 2.5)])
def test_videos_of_any_length_get_cards(seconds: int, fps: float, tmp_path: Path) -> None:
    """Real ones last no whole number of seconds."""
    frames = (np.full((96, 128, 3), 5 * (i % 40), np.uint8) for i in range(seconds))
    write(tmp_path / "some.mp4", frames, fps)
    setting = Setting(str(tmp_path / "out"), (Source(str(tmp_path)),), ask=Ask(needles=1))
    [scanned] = scan.step(setting)(scan.discover(setting))
    film = replace(told(*SIX[:1], duration=scanned.video.duration), video=scanned.video)
    made = ask.worker(setting)(film)
    assert made.asides == ()
    _, hidden = made.films
    kinds = {one.kind for one in hidden.questions}
    assert {"character", "hop_character"} <= kinds and ("grounding" in kinds) == (scanned.video.duration >= 16)
    assert all(sieve.fault(hidden, one, Sieve()) == "" and one.events for one in hidden.questions)


def test_every_card_of_a_long_copy_is_in_a_frame_that_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "long.mp4", (np.full((96, 128, 3), 5 * (i % 40), np.uint8) for i in range(600)), 0.125)
    setting = Setting(str(tmp_path / "out"), (Source(str(tmp_path)),), ask=Ask(needles=1))
    [scanned] = scan.step(setting)(scan.discover(setting))
    hidden = ask.hidden(scanned, setting.ask, tmp_path / "out")
    info = probe(hidden.video.path)
    for policy in ("paper", "reference"):  # of asking, of training
        seen = plan(info, Sampling(policy)).seconds
        assert all(np.any((seen >= one.start) & (seen < one.end)) for one in hidden.events), policy


def test_copies_of_other_seeds_stay_and_a_copy_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    filmed(tmp_path / "films" / "some.mp4", 1, seconds=30)
    setting = default(str(tmp_path / "films"), str(tmp_path / "out"))
    setting = replace(setting, shots=Shots(fps=0), ask=Ask(("needle",), needles=1))
    for name in STEPS[:4]:
        do(name, setting)
    for seed in (0, 1, 0):
        do("ask", replace(setting, ask=replace(setting.ask, seed=seed)))
    [_, hidden] = read_films(tmp_path / "out" / "ask.jsonl")
    assert len(hidden.questions) > 4 and all(right(hidden, one, []) for one in hidden.questions)
    assert len(list((tmp_path / "out" / "needles").glob("*.mp4"))) == 2
    told = (tmp_path / "out" / "ask.jsonl").read_bytes()
    Path(hidden.video.path).unlink()
    assert do("ask", setting).before == 0 and Path(hidden.video.path).is_file()
    assert do("ask", setting).before == 1 and (tmp_path / "out" / "ask.jsonl").read_bytes() == told


def test_copies_that_a_line_of_the_journal_tells_of(tmp_path: Path) -> None:
    """Whatever their names and the texts around them are: \"parent\" in a text is no video's."""
    path = tmp_path / 'a "copy" \\ of ü.mp4'
    path.touch()
    note = Note(0.0, 1.0, "caption", '"parent":"00","path":"/nowhere"', "made: 1")
    plain, copy = Film(video(), (note,)), Film(video(path=str(path), parent="0" * 32))
    lines = [journal_line("0" * 32, Made(films)).encode() for films in ((plain,), (plain, copy))]
    assert [lost(line) for line in lines] == [False, False]
    path.unlink()
    assert [lost(line) for line in lines] == [False, True]


def test_a_folder_of_frames_is_copied_at_its_own_rate(tmp_path: Path) -> None:
    """What is seen at a second of the copy was shown at that second."""
    folder = tmp_path / "films" / "frames"
    folder.mkdir(parents=True)
    for i in range(120):
        Image.fromarray(np.full((144, 256, 3), 2 * i, np.uint8)).save(folder / f"{i:03d}.png")
    source = Source(str(tmp_path / "films"), frame_fps=4.0)
    setting = Setting(str(tmp_path / "out"), (source,), ask=Ask(needles=1))
    [scanned] = scan.step(setting)(scan.discover(setting))
    hidden = ask.hidden(scanned, setting.ask, tmp_path / "out")
    assert scanned.video.duration == hidden.video.duration == 30.0 and hidden.video.fps == 1.0
    info = probe(hidden.video.path)
    plan = SamplePlan(np.arange(30), info.seconds, (0.0, 30.0), 30.0)
    shown = [np.median(frame) for chunk in decode(info, plan, None) for frame in chunk.pixels]
    was = [2 * (4 * second + 2) for second in range(30)]
    assert np.median(np.abs(np.subtract(shown, was))) < 4  # a card changes some frames


def test_answers_about_cards_follow_from_what_was_drawn(tmp_path: Path) -> None:
    path = filmed(tmp_path / "some.mp4", 1, seconds=60)
    setting = Setting(str(tmp_path / "out"), (Source(str(tmp_path)),), ask=Ask(needles=1, each=9))
    [scanned] = scan.step(setting)(scan.discover(setting))
    hidden = ask.hidden(replace(scanned, video=replace(scanned.video, path=str(path))), setting.ask, tmp_path / "out")
    assert {one.kind for one in hidden.questions} == {"grounding", *ATTRIBUTES, *HOPS}
    for one in hidden.questions:
        assert right(hidden, one, []), one
        for other in hidden.questions:
            if other.answer != one.answer:
                assert not right(hidden, replace(one, answer=other.answer), []), (one, other)
    assert not right(replace(hidden, events=()), hidden.questions[0], [])
    cards = [card for event in hidden.events if (card := CARD.fullmatch(event.text))]
    for one in hidden.questions:  # what the video shows itself makes what is asked of it wrong, and nothing else
        below = {
            card["thing"]: right(hidden, one, [Shown(0, 1, "A star is shown.", thing=card["thing"])]) for card in cards
        }
        signs = {card["sign"]: right(hidden, one, [Shown(0, 1, "It is shown.", sign=card["sign"])]) for card in cards}
        if one.kind in ("colour", "shape"):
            assert all(below.values()) and [sign for sign, held in signs.items() if not held] == SIGN.findall(
                one.question
            )
        else:
            chain = [thing for thing, held in below.items() if not held]
            assert all(signs.values()) and any(thing in one.question for thing in chain)
            assert len(chain) > 1 if one.family == "hops" else len(chain) == 1


def test_no_cards_are_hidden_where_a_source_shows_some(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    filmed(tmp_path / "films" / "some.mp4", 1, seconds=30)
    source = Source(str(tmp_path / "films"))
    setting = Setting(str(tmp_path / "out"), (source,), shots=Shots(fps=0), ask=Ask(("needle",), needles=1))
    for name in STEPS[:4]:
        do(name, setting)
    for needles in (True, False):  # the step is done anew
        ran = do("ask", replace(setting, source=(replace(source, needles=needles),)))
        assert (ran.before, ran.films) == (0, 1 + needles)
