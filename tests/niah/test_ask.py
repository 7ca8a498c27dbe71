"""Models in this process: the splice and the real mp4 give the same answers, and compat asks as the reference does."""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import SMALL, small_model
from haystacks import small
from PIL import Image
from tiny import model as net_of
from tiny import tokenizer

from videochat_flash import VideoChatFlash, session
from videochat_flash.config import Yarn, parse_plan
from videochat_flash.generate import Decoding, prefill
from videochat_flash.niah import ask, compat
from videochat_flash.niah.ask import Loading, Ours, compat_prompt
from videochat_flash.niah.build import build
from videochat_flash.niah.place import length_of
from videochat_flash.niah.results import Shard, read_results
from videochat_flash.niah.run import run
from videochat_flash.niah.suite import Setting, Suite
from videochat_flash.prompt import plain_text
from videochat_flash.remote import Refused
from videochat_flash.sight import Sight

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    where = tmp_path_factory.mktemp("suites") / "mixed"
    stacks = (("procedural",), ("procedural",))
    return small(where, lengths=(24,), depths=(0.0, 0.6), items=2, hops=(1,), decoys=0, haystacks=stacks, controls=1)


def ours(vc: VideoChatFlash, suite: Suite, pixels: bool = False, keep: str | None = None) -> Ours:
    plan = None if keep is None else parse_plan(keep)
    return Ours(vc, Loading("small"), suite, plan, pixels, lambda *_: None)


def test_a_splice_and_a_real_mp4_are_answered_alike(vc: VideoChatFlash, suite: Suite, tmp_path: Path) -> None:
    texts = []
    for pixels in (False, True):
        asker = ours(vc, suite, pixels)
        assert run(suite, tmp_path / str(pixels), asker, Shard(), lambda *_: None).failed == 0
        records = read_results(suite, tmp_path / str(pixels))
        texts.append([(records[one.id].text, records[one.id].rows) for one in suite.trials])
    assert texts[0] == texts[1] and len({text for text, _ in texts[0]}) > 1
    rows = {one.length: record for one, (_, record) in zip(suite.trials, texts[0], strict=True) if not one.control}
    assert rows[24] > 24 // 4 * vc.model.config.clip_tokens


def test_a_prefix_that_questions_share_changes_no_answer(
    vc: VideoChatFlash, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(trial.asked > 1 and trial.film for trial in suite.trials)
    said = []
    for name in ("shared", "films alone", "questions alone"):
        asker = Ours(vc, Loading("small"), suite, None, False, lambda *_: None, share=name == "shared")
        assert run(suite, tmp_path / name, asker, Shard(), lambda *_: None).failed == 0
        said.append({key: one.text for key, one in read_results(suite, tmp_path / name).items()})
        if name == "films alone":
            assert asker.beginning == ((1, 24), None)
            monkeypatch.setattr(ask, "prepare", lambda *_, **__: None)
    assert said[0] == said[1] == said[2] and len(said[0]) == len(suite.trials)


def test_films_begin_where_the_one_before_did(
    vc: VideoChatFlash, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    shared = ask.Beginning.shared

    def counted(self: ask.Beginning, rows: torch.Tensor) -> int:
        used.append(shared(self, rows))
        return used[-1]

    monkeypatch.setattr(ask.Beginning, "shared", counted)
    run(suite, tmp_path, ours(vc, suite), Shard(), lambda *_: None)
    clip = vc.model.config.clip_tokens
    assert max(used) > 3 * clip > min(used)  # needles stand at depths of 0 and 0.6 of 24 frames


def test_what_films_share_is_as_long_as_they_are_and_is_left_out_where_memory_ends(
    vc: VideoChatFlash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = small(tmp_path / "suite", lengths=(24, 48), depths=(0.0, 0.6), items=1, hops=(), controls=0)
    told, frames, begin = {}, list[int](), ask.begin

    def short(vc: VideoChatFlash, stack: Sight, **more: Any) -> ask.Beginning | None:
        frames.append(stack.frames)
        if stack.frames > 24:
            raise torch.OutOfMemoryError("all gone")
        return begin(vc, stack, **more)

    for name in ("alone", "shared"):
        asker = Ours(vc, Loading("small"), mixed, None, False, lambda *_: None, share=name == "shared")
        with pytest.warns(UserWarning, match="each is asked about alone") if asker.share else nullcontext():
            assert run(mixed, tmp_path / name, asker, Shard(), lambda *_: None).failed == 0
        told[name] = {key: one.text for key, one in read_results(mixed, tmp_path / name).items()}
        monkeypatch.setattr(ask, "begin", short)
    assert frames == [20, 44] and told["alone"] == told["shared"]


def test_compat_takes_no_pixels(vc: VideoChatFlash, suite: Suite) -> None:
    other = replace(suite, setting=replace(suite.setting, mode="compat", needles="list.json", hops=()))
    with pytest.raises(ValueError, match="leave out --pixels"):
        ours(vc, other, pixels=True)


def test_all_haystacks_are_told_as_one(vc: VideoChatFlash, suite: Suite) -> None:
    told: list[tuple[int, int]] = []
    asker = Ours(vc, Loading("small"), suite, None, False, lambda done, total: told.append((done, total)))
    for number in (0, 1):
        asker.splicer(number)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({total for _, total in told}) == 1 and told[-1][0] <= told[-1][1] == 2 * suite.needed(0)


def test_settings_tell_runs_apart(vc: VideoChatFlash, suite: Suite, model: Path) -> None:
    plain = ours(vc, suite).settings
    assert plain["transport"] == "splice" and plain["keep"] == [[2, 0.5, "attention"], [4, 0.25, "attention"]]
    assert ours(vc, suite, keep="off").settings["keep"] == []
    other = VideoChatFlash.from_pretrained(small_model(model.parent, 1))
    marks = [ours(one, suite).settings for one in (vc, other)]
    assert marks[0]["decoder"] != marks[1]["decoder"]
    llm = replace(vc.model.config.llm, log_scaled_from=640)
    scaled = copy.copy(vc.model)  # the same weights at other positions
    scaled.config = replace(vc.model.config, llm=llm)
    assert ours(VideoChatFlash(scaled, vc.tokenizer, vc.decoding), suite).settings["decoder"] != plain["decoder"]
    assert ours(vc, suite).facts["window"] == vc.model.config.llm.max_positions // 16


def test_the_haystack_is_kept_beside_the_suite(vc: VideoChatFlash, suite: Suite) -> None:
    ours(vc, suite).splicer(0)
    assert len(list((suite.folder / ask.CACHE).iterdir())) >= 1


@pytest.mark.parametrize("gone", ["cuda", "cpu", "other"])
def test_too_little_memory_is_no_answer(
    gone: str, vc: VideoChatFlash, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        if gone == "cuda":
            raise torch.OutOfMemoryError("all gone")
        if gone == "cpu":
            torch.empty(1 << 60, dtype=torch.uint8)
        raise RuntimeError("shapes do not fit")

    asker = ours(vc, suite)
    monkeypatch.setattr(vc, "reply", full)
    expected = {"cuda": (Refused, "all gone"), "cpu": (Refused, "allocate"), "other": (RuntimeError, "shapes")}[gone]
    with pytest.raises(expected[0], match=expected[1]):
        asker(suite.trials[0])


def test_yarn_by_option(model: Path) -> None:
    plain, longer = ask.load(Loading(str(model))), ask.load(Loading(str(model), yarn=4.0))
    assert plain.model.config.llm.yarn is None and longer.model.config.llm.yarn == Yarn(4.0, 4096)
    assert session.decoder_mark(plain) != session.decoder_mark(longer)


# Compat.


def test_the_prompt_of_the_reference(vc: VideoChatFlash) -> None:
    question = "Find <|im_end|> it.\nOnly give the best option. Best option: ("
    prompt = compat_prompt(vc, question)
    text = vc.tokenizer.decode(list(prompt.ids), skip_special_tokens=False)
    assert text == compat.BEFORE + question + compat.AFTER
    before = vc.tokenizer.decode(list(prompt.ids[: prompt.slots[0]]), skip_special_tokens=False)
    assert before == compat.BEFORE
    ended = vc.tokenizer.token_to_id("<|im_end|>")
    assert prompt.ids.count(ended) == 2  # what the question spells is text


def listed(tmp_path: Path) -> Suite:
    """A suite of an official list that was made up."""
    trailer = "\nOptions: (A) red\n(B) blue\nOnly give the best option. Best option: ("
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / "a.png")
    entry = {"question": f"Find it.{trailer}", "answer": "B", "image": "a.png", "id": 0}
    (tmp_path / "list.json").write_text(json.dumps([entry]))
    setting = Setting(
        mode="compat",
        needles=str(tmp_path / "list.json"),
        lengths=(10, 20),
        depths=(0.5,),
        size=(96, 64),
        way="letters",
    )
    return build(tmp_path / "suite", setting, lambda *_: None)


def test_compat_takes_the_likeliest_token_of_spliced_rows(vc: VideoChatFlash, tmp_path: Path) -> None:
    made = listed(tmp_path)
    asker = ours(vc, made)
    assert asker.settings["keep"] == [] and asker.settings["prompt"] == "compat"
    trial = made.trials[-1]
    assert length_of(trial.film) == 24
    said = asker(trial)
    rows = asker.splicer(0).rows(trial.film)
    assert rows.shape[:2] == (24, 16)
    begun = prefill(vc.model, [compat_prompt(vc, trial.prompt)], [[rows]])
    assert said.text == vc.tokenizer.decode([int(begun.logits[0].argmax())], skip_special_tokens=False)
    assert said.rows == 24 * 16 + len(compat_prompt(vc, trial.prompt).ids)


def test_compat_shows_one_newline_row_behind_the_film_where_a_model_has_it(tmp_path: Path) -> None:
    """Named among the deviations: the reference shows none, but a model that was trained with it needs it."""
    net = net_of(replace(SMALL, newline="one_token"))
    vc = VideoChatFlash(net, plain_text(tokenizer()), Decoding())
    made = listed(tmp_path)
    trial = made.trials[-1]
    asker, prompt = ours(vc, made), compat_prompt(vc, trial.prompt)
    said = asker(trial)
    rows = asker.splicer(0).rows(trial.film)
    packed, [segment] = net.embed([prompt], [[rows]])
    [run] = segment.runs
    assert run.length == 24 * 16 + 1 and said.rows == len(packed) == run.length + len(prompt.ids)
    assert net.newline is not None and torch.equal(packed[run.start + 24 * 16], net.newline)
    assert any("newline row" in words for words in compat.DEVIATIONS)


# The built-in model.


@pytest.mark.slow
def test_flash_tiny_finds_what_is_hidden(tmp_path: Path) -> None:
    suite = small(tmp_path / "suite", lengths=(32,), depths=(0.5,), items=6, way="words", size=(320, 240), controls=6)
    how = Loading()
    run(suite, suite.folder, Ours(ask.load(how), how, suite, None, False, lambda *_: None), Shard(), lambda *_: None)
    records = read_results(suite, suite.folder)
    right = {
        name: sum(records[one.id].text == one.options[one.answer] for one in suite.trials if one.control == name)
        for name in ("", "C0", "C1", "C2")
    }
    assert right[""] >= 4 and right["C2"] >= 4 and max(right["C0"], right["C1"]) <= 3
