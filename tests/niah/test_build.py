"""Suites: the right trials with the right films, the same in every process, and nothing wrong goes unseen."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import videos
from command import ENTRY, ROOT
from haystacks import LITTLE, small
from PIL import Image

from videochat_flash.journal import digest
from videochat_flash.looks import hash_of
from videochat_flash.niah import build
from videochat_flash.niah.draws import VERSION
from videochat_flash.niah.film import Scenery
from videochat_flash.niah.place import Part, length_of
from videochat_flash.niah.suite import Setting, Suite, Trial, load_suite, open_stack, verify

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return small(tmp_path_factory.mktemp("suites") / "both", lengths=(48, 64), hops=(0, 1), rotations=2)


def test_the_grid_is_whole(suite: Suite) -> None:
    grid = [one for one in suite.trials if not one.control]
    single = Counter((one.length, one.depth, one.rotation) for one in grid if one.suite == "single")
    assert single == {(n, d, r): 3 for n in (48, 64) for d in (0.0, 0.5, 1.0) for r in (0, 1)}
    multi = Counter((one.length, one.hops, one.kind, one.asked) for one in grid if one.suite == "multi")
    kinds = {(0, "character", 1), (1, "caption", 2), (1, "character", 2)}
    assert multi == {(n, *kind): 6 for n in (48, 64) for kind in kinds}


def test_films_are_as_long_as_they_are_said_to_be(suite: Suite) -> None:
    assert {length_of(one.film) for one in suite.trials if not one.control and one.length == 64} == {64}
    [first] = [one for one in suite.trials if one.item == "single-0000" and one.length == 48 and one.depth == 0.5][:1]
    assert first.film == (Part("", 0, 20), Part("single-0000/0", 19, 4), Part("", 20, 24))
    assert all(length_of(one.film) % 4 == 0 for one in suite.trials)


def test_controls_change_what_they_are_to_change(suite: Suite) -> None:
    def shown(control: str, item: str) -> list[str]:
        one = next(one for one in suite.trials if one.control == control and one.item == item)
        return [part.needle for part in one.film if part.needle]

    controls = Counter((one.suite, one.hops, one.control) for one in suite.trials if one.control and not one.rotation)
    assert {key: count for key, count in controls.items() if key[0] == "single"} == {
        ("single", 0, name): 2 for name in ("C0", "C1", "C2", "C3")
    }
    assert {name for _, hops, name in controls if hops == 1} == {"C0", "C1", "C2", "C3", "C5", "C6", "C7"}
    assert {one.length for one in suite.trials if one.control} == {48}
    whole = shown("C7", "multi-1-0000")
    assert len(whole) == 4 and shown("C1", "multi-1-0000") == [] and shown("C0", "multi-1-0000") == []
    assert sorted(shown("C2", "multi-1-0000")) == sorted(whole)
    assert [name.replace("0001", "0000") for name in shown("C3", "multi-1-0000")] == whole
    broken, last = shown("C5", "multi-1-0000"), shown("C6", "multi-1-0000")
    assert len(broken) == 2 and len(last) == 1 and last[0] in broken  # the last cards of the chain and of its decoy
    assert {len(suite.needles[cut].card) for cut in set(whole) - set(broken)} == {5}
    assert {len(suite.needles[kept].card) for kept in broken} == {3}
    truths = {
        name: next(
            one for one in suite.trials if (one.item, one.control, one.kind) == ("multi-1-0000", name, "character")
        )
        for name in ("", "C7")
    }
    assert truths[""].prompt.split("\n")[0] != truths["C7"].prompt.split("\n")[0]
    assert truths[""].options[truths[""].answer] != truths["C7"].options[truths["C7"].answer]


def test_no_two_trials_share_an_id_and_ids_follow_from_everything(suite: Suite) -> None:
    assert len({one.id for one in suite.trials}) == len(suite.trials)
    one = suite.trials[0]
    for change in ({"length": 52}, {"prompt": "?"}, {"stack": "x"}, {"rotation": 3}, {"film": one.film[:1]}):
        assert replace(one, **change).named().id != one.id
    assert Trial.read(json.loads(json.dumps({**one.plain(), "id": one.id}))) == one


def test_what_is_read_is_what_was_built(suite: Suite) -> None:
    again = load_suite(suite.folder)
    assert (again.setting, again.needles, again.trials, again.manifest) == (
        suite.setting,
        suite.needles,
        suite.trials,
        suite.manifest,
    )
    assert list(verify(again)) == []


def test_every_process_builds_the_same_bytes(tmp_path: Path) -> None:
    asked = ["--lengths=32", "--items=2", "--depths=0.5", "--hops=1", "--hold=2", "--size=96x64", "--seed=3"]
    made = []
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": number}
        where = tmp_path / number
        subprocess.run([*ENTRY, "niah", "build", "--out", str(where), *asked], env=environment, check=True, timeout=60)
        made.append((where / "manifest.jsonl").read_bytes())
    assert made[0] == made[1] and made[0].count(b"\n") > 10


def test_a_folder_holds_one_suite(tmp_path: Path) -> None:
    small(tmp_path / "a", lengths=(16,), items=1)
    small(tmp_path / "a", lengths=(16,), items=1)  # the same again
    with pytest.raises(ValueError, match="holds another suite"):
        small(tmp_path / "a", lengths=(16,), items=2)


def test_haystacks_are_dealt_out_and_told_of(tmp_path: Path) -> None:
    film = str(videos.make(tmp_path / "film.mp4", 60, 2))
    made = small(tmp_path / "a", haystacks=((film,), ("procedural",)), size=(64, 48), lengths=(16,))
    assert {(one.item, one.haystack) for one in made.trials} == {(f"single-000{i}", i % 2) for i in range(3)}
    assert [one["unique"] for one in made.stacks] == [12, 12] and not made.stacks[0]["repeated"]
    assert made.unique is None and made.needed(0) == 12


def test_a_haystack_that_is_too_short(tmp_path: Path) -> None:
    film = str(videos.make(tmp_path / "film.mp4", 40, 2))
    with pytest.raises(ValueError, match=r"film.mp4 has 20 frames, 28 are needed.*--allow-repeat"):
        small(tmp_path / "a", haystacks=((film,),), lengths=(32,), controls=0)
    assert not (tmp_path / "a").exists()
    made = small(tmp_path / "a", haystacks=((film,),), lengths=(32,), controls=0, allow_repeat=True)
    assert (
        made.stacks[0]["repeated"]
        and made.unique == 20
        and made.setting.flags == ("way=letters", "allow_repeat=True", "size=(96, 64)")
    )
    twice = ((film, film),)
    with pytest.raises(ValueError, match=r"film.mp4 is there twice.*--allow-repeat"):
        small(tmp_path / "b", haystacks=twice, lengths=(32,), controls=0)
    both = small(tmp_path / "b", haystacks=twice, lengths=(32,), controls=0, allow_repeat=True)
    assert both.stacks[0]["repeated"] and both.unique == 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lengths": (18,)}, "whole clips"),
        ({"lengths": ()}, "--lengths"),
        ({"depths": (1.5,)}, "--depths"),
        ({"depths": ()}, "neither"),
        ({"hops": (5,)}, "--hops"),
        ({"decoys": 3}, "--decoys"),
        ({"items": 0}, "--items"),
        ({"controls": -1}, "--controls"),
        ({"hops": (0,), "decoys": 0, "way": "letters"}, "one option alone"),
        ({"hold": 0}, "--hold"),
        ({"rotations": 5}, "--rotations"),
        ({"rotations": 2, "way": "words"}, "--ask letters"),
        ({"mode": "compat"}, "--needles"),
        ({"mode": "compat", "needles": "a.json", "hold": 8}, "the reference's --fps, --hold and --align"),
        ({"mode": "compat", "needles": "a.json", "fps": 2.0}, "the reference's --fps, --hold and --align"),
        ({"mode": "compat", "needles": "a.json", "align": "frame"}, "the reference's --fps, --hold and --align"),
        ({"needles": "a.json", "hops": (1,)}, "--hops"),
        ({"mode": "compat", "needles": "a.json", "rotations": 2}, "--rotations are not the reference's"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        replace(LITTLE, **change)


def test_what_makes_figures_incomparable_is_flagged() -> None:
    assert Setting().flags == () and Setting(mode="compat", needles="a.json").flags == ()
    assert Setting(decoys=2).flags == () and Setting(decoys=2, hops=(1,)).flags == ("decoys=2",)
    assert Setting(needles="lists/own.json", way="letters").flags == ("needles=own.json", "way=letters")
    assert Setting(mode="compat", needles="a.json", size=(96, 64)).flags == ("size=(96, 64)",)


def test_films_without_room(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no room for 1 needles"):
        small(tmp_path / "a", lengths=(4,))
    with pytest.raises(ValueError, match="no room for 10 cards"):
        small(tmp_path / "a", lengths=(64,), depths=(), hops=(4,))


def drawn(setting: Setting) -> build.Builder:
    """Of its trials, without a look at its haystacks."""
    stacks = [open_stack(setting, number) for number in range(len(setting.haystacks))]
    return build.Builder(setting, stacks, build._drawn(setting))


def test_depths_that_are_one_place_are_refused(tmp_path: Path) -> None:
    usual = Setting().depths
    with pytest.raises(ValueError, match=r"--depths 0 and 0\.2 .* in 16 frames: .*, or --align frame$"):
        small(tmp_path / "a", lengths=(16, 64), depths=usual)
    with pytest.raises(ValueError, match=r"--depths 0\.5 and 0\.51 .* in 32 frames: .* fewer --depths$"):
        small(tmp_path / "a", lengths=(32,), depths=(0.5, 0.51), align="frame")
    with pytest.raises(ValueError, match=r"--depths 0\.5 and 0\.51 .* in 20 frames: .* fewer --depths$"):
        setting = official(tmp_path, mode="compat", lengths=(20,))
        build.build(tmp_path / "a", replace(setting, depths=(0.5, 0.51)), lambda *_: None)
    assert not (tmp_path / "a").exists()
    for more in ({"lengths": (24,)}, {"lengths": (16,), "align": "frame"}):
        made = list(drawn(replace(LITTLE, depths=usual, items=1, controls=0, **more)).trials())
        assert len({one.film for one in made}) == len({one.depth for one in made}) == 6
    chains = replace(LITTLE, lengths=(20,), depths=(0.5, 0.51), mode="compat", needles="a.json")
    assert list(build.Builder(chains, [], []).trials()) == []  # a list without single needles asks at no depth


# What the draws of small suites come to; of frames what they look like.
PINNED = {"niah 2": "4436f431dae5e83bcf3c96409075157d9bbf6be6a55e47f776e7f47a47fd93dd"}
FRAMES = {"niah 2": (14793283601123482064, 14359521859454114904, 2595813013208012936)}
DRAWN = Setting(lengths=(96, 128), depths=(0.0, 0.5, 1.0), items=3, hops=(0, 1, 2), controls=2, size=(96, 64), seed=5)


def test_a_draw_that_means_something_else_needs_another_version() -> None:
    """Rows of manifests, and how cards look, to six digits: alike on any machine."""
    told: list[object] = []
    for setting in (DRAWN, replace(DRAWN, way="letters", rotations=2, align="frame", hold=3)):
        made = drawn(setting)
        told += [one.plain() for one in made.trials()]
        told += [[name, *rounded(asdict(one.drawn()[1]))] for name, one in made.needles.items()]
    assert {VERSION: digest(told)} == PINNED, "raise VERSION in niah/draws.py, and pin what is drawn now"


def rounded(values: object) -> list[object]:
    """Values in order, floats to six digits."""
    if isinstance(values, dict | list | tuple):
        inner = values.values() if isinstance(values, dict) else values
        return [value for one in inner for value in rounded(one)]
    return [f"{values:.6f}" if isinstance(values, float) else values]


def test_frames_that_look_otherwise_need_another_version() -> None:
    """Within some bits of 64: processors and codecs round otherwise."""
    made = drawn(DRAWN)
    scenery = Scenery(made.stacks[0], made.needles)
    seen = [hash_of(scenery.frame(ref)) for ref in (("", 0, 0), ("", 40, 0), ("single-0000/0", 0, 8))]
    off = [(one ^ other).bit_count() for one, other in zip(seen, FRAMES[VERSION], strict=True)]
    assert max(off) <= 6, f"{seen}: raise VERSION in niah/draws.py, and pin what is drawn now"


# Lists.


def listed(folder: Path, **more: object) -> Setting:
    """A setting with a list of two pictures."""
    entries = []
    for i in range(2):
        noise = np.random.default_rng(i).integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(noise).resize((80, 60)).save(folder / f"{i}.png")
        entries.append({"image": f"{i}.png", "question": f"What {i}?", "options": ["kite", "boat"], "answer": "boat"})
    (folder / "list.json").write_text(json.dumps(entries))
    return replace(LITTLE, lengths=(16,), needles=str(folder / "list.json"), **more)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"question": None}, "question None is no text"),
        ({"question": " "}, "question ' ' is no text"),
        ({"options": ["kite", "Kite", "boat"]}, "different texts"),
        ({"options": ["boat", ""]}, "different texts"),
        ({"options": ["boat", 3]}, "different texts"),
    ],
)
def test_needles_that_nobody_could_be_asked_about(changed: dict[str, object], words: str, tmp_path: Path) -> None:
    setting = listed(tmp_path)
    path = Path(setting.needles)
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([{**entries[0], **changed}, *entries[1:]]))
    with pytest.raises(ValueError, match=words):
        build.build(tmp_path / "suite", setting, lambda *_: None)


def test_a_question_may_hold_any_kind_of_line_end(tmp_path: Path) -> None:
    setting = listed(tmp_path)
    path = Path(setting.needles)
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([{**entries[0], "question": "What\u2028is\u0085it?"}, *entries[1:]]))
    made = build.build(tmp_path / "suite", setting, lambda *_: None)
    assert load_suite(tmp_path / "suite").trials == made.trials and "\u2028" in made.trials[0].prompt


def test_needles_of_ones_own(tmp_path: Path) -> None:
    made = build.build(tmp_path / "a", listed(tmp_path), lambda *_: None)
    assert {one.item for one in made.trials} == {"own-0000", "own-0001"} and list(verify(made)) == []
    assert made.trials[0].prompt.startswith("What 0?\nOptions:\n(A) ")
    (tmp_path / "0.png").unlink()
    assert list(verify(made)) == [f"needle own-0000/0: image {tmp_path / '0.png'} is missing"]
    shutil.copy(tmp_path / "1.png", tmp_path / "0.png")
    [told] = verify(made)
    assert "another one than when" in told


def test_a_needle_that_is_in_the_haystack(tmp_path: Path) -> None:
    setting = listed(tmp_path, haystacks=((str(videos.make(tmp_path / "film.mp4", 60, 2)),),), size=None)
    Image.fromarray(videos.numbered(8)).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"1\.png looks like a frame"):
        build.build(tmp_path / "a", setting, lambda *_: None)
    sideways = Image.fromarray(np.rot90(videos.numbered(8)))  # a camera's: films show it upright
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "1.png", exif=exif)
    with pytest.raises(ValueError, match=r"1\.png looks like a frame"):
        build.build(tmp_path / "a", setting, lambda *_: None)


def official(folder: Path, **more: object) -> Setting:
    """A setting with a made-up official single-hop list."""
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(folder / "a.png")
    question = "Find it.\nOptions: (A) red\n(B) blue\nOnly give the best option. Best option: ("
    entries = [{"question": question, "answer": "B", "image": "a.png", "id": 0}]
    (folder / "list.json").write_text(json.dumps(entries))
    return replace(LITTLE, needles=str(folder / "list.json"), depths=(0.5,), **more)


def test_compat_always_encodes_as_many_rows_as_the_reference(tmp_path: Path) -> None:
    setting = official(tmp_path, mode="compat", lengths=(20, 6000))
    shown = [list(build.Builder(one, [], []).rows) for one in (setting, replace(setting, duplicate=False))]
    assert shown[0][:6000] == [*range(5016), *range(984)] and shown[1][:6000] == [*range(6000)]


def test_lists_that_cannot_be_asked_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list.json choose among options: ask with --ask letters"):
        build.build(tmp_path / "a", official(tmp_path, way="words"), lambda *_: None)
    own = listed(tmp_path)
    with pytest.raises(ValueError, match="no official list"):
        build.build(tmp_path / "a", replace(own, mode="compat"), lambda *_: None)
    assert not build.build(tmp_path / "b", replace(own, way="words"), lambda *_: None).trials[0].lettered


def test_compat_lays_films_out_as_the_reference(tmp_path: Path) -> None:
    trailer = "\nOptions: (A) red\n(B) blue\nOnly give the best option. Best option: ("
    names = ["niah_1_3_a.png", "bare.png", "niah_1_1_b.png"]
    for name in names:
        Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / name)
    entry = {"images": names, "question1": f"cap{trailer}", "answer1": "A", "question2": f"qa{trailer}", "answer2": "B"}
    (tmp_path / "list.json").write_text(json.dumps([entry]))
    setting = Setting(
        mode="compat", needles=str(tmp_path / "list.json"), lengths=(20, 30), size=(96, 64), way="letters"
    )
    made = build.build(tmp_path / "a", setting, lambda *_: None)
    assert [(one.kind, one.length, one.prompt, one.answer) for one in made.trials[:2]] == [
        ("cap", 20, f"cap{trailer}", 0),
        ("qa", 20, f"qa{trailer}", 1),
    ]
    needles = [f"chain-0000/{i}" for i in range(3)]
    assert made.trials[-1].film == (
        Part(needles[0], 0, 4),
        Part("", 0, 15),
        Part(needles[1], 0, 4),
        Part("", 15, 15),
        Part(needles[2], 0, 4),
    )
    assert made.trials[0].hops == 1 and not any(one.control for one in made.trials) and list(verify(made)) == []


# Damage.


def test_suites_that_are_damaged(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_suite(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(suite.folder, copy)
    text = (copy / "manifest.jsonl").read_text()
    (copy / "manifest.jsonl").write_text(text.replace('"length":48', '"length":52', 1))
    with pytest.raises(ValueError, match="was changed after it was built"):
        load_suite(copy)
    (copy / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="not a trial"):
        load_suite(copy)
    (copy / "suite.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        load_suite(copy)
    other = replace(suite, trials=(replace(suite.trials[0], length=52), *suite.trials[1:], suite.trials[1]))
    assert [told.partition(": ")[2] for told in verify(other)] == [
        "the id is not that of the trial",
        "the trial is there twice",
    ]


def test_a_haystack_that_was_changed(tmp_path: Path) -> None:
    film = videos.make(tmp_path / "film.mp4", 60, 2)
    made = small(tmp_path / "a", haystacks=((str(film),),), lengths=(16,), size=None, items=1)
    videos.make(film, 62, 2)
    assert "is not the one" in next(iter(verify(made)))
    film.unlink()
    assert "missing" in next(iter(verify(made)))
