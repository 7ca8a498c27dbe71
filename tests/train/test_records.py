"""Annotation records, strategies, mixtures and the order of an epoch."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash.prompt import SYSTEM, Turn
from videochat_flash.train.recipe import Source
from videochat_flash.train.records import Record, choose, epoch_order, read_mixture, read_source
from videochat_flash.train.worlds import World

TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
TURNS = (Turn("user", "<image>\nWhat?"), Turn("assistant", "A dog."))


def write(path: Path, entries: Sequence[Any]) -> Source:
    """A source of a JSON array, or of lines where the name says so."""
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, entries)) + "\n" if lines else json.dumps(entries, indent=1))
    return Source(str(path), media="/media")


def one(path: Path, **entry: Any) -> Record:
    return read_source(write(path / "one.json", [entry]))[0]


# -- records -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["notes.json", "notes.jsonl"])
def test_records_of_the_reference_are_read_unchanged(tmp_path: Path, name: str) -> None:
    entries = [
        {"id": 7, "image": "a.jpg", "conversations": TALK},
        {"image": ["a.jpg", "sub/b.jpg"], "conversations": TALK, "width": 3},
        {"video": "a.mp4", "conversations": TALK, "start": 1, "end": 2.5, "duration": 9, "video_read_type": "img"},
        {"video": "/else/a.mp4", "conversations": TALK, "start": None, "end": None, "duration": "?"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
    ]
    found = read_source(write(tmp_path / name, entries))
    assert found[:4] == (
        Record("7", "notes", TURNS, ("/media/a.jpg",), "image"),
        Record("1", "notes", TURNS, ("/media/a.jpg", "/media/sub/b.jpg"), "image"),
        Record("2", "notes", TURNS, ("/media/a.mp4",), "video", 1.0, 2.5, 9.0),
        Record("3", "notes", TURNS, ("/else/a.mp4",), "video"),
    )
    assert (found[4].kind, found[4].media, found[4].turns) == (
        "text",
        (),
        (Turn("user", "Hi"), Turn("assistant", "Ho")),
    )


def test_records_of_ms_swift_and_llama_factory_are_read_unchanged(tmp_path: Path) -> None:
    said = [("system", "Be brief."), ("user", "<video>What?"), ("assistant", "A dog.")]
    messages = [{"role": role, "content": text} for role, text in said]
    film = one(tmp_path, messages=messages, videos=["a.mp4"])
    assert film == Record(
        "0", "one", (Turn("user", "<image>What?"), TURNS[1]), ("/media/a.mp4",), "video", system="Be brief."
    )
    picture = one(tmp_path, messages=[{"role": "user", "content": "<image>What?"}, messages[2]], images=["a.png"])
    assert (picture.kind, picture.media, picture.system) == ("image", ("/media/a.png",), SYSTEM)
    assert one(tmp_path, messages=messages[1:], system="Be kind.", videos=["a"]).system == "Be kind."


def test_only_what_stands_for_a_video_is_rewritten(tmp_path: Path) -> None:
    both = [{"from": "human", "value": "<image> is there a <video> tag?"}, TALK[1]]
    assert one(tmp_path, conversations=both, video="a.mp4").turns[0].text == both[0]["value"]
    asked = [{"from": "human", "value": "Explain <video>"}, TALK[1]]
    assert one(tmp_path, conversations=asked).turns[0].text == "Explain <video>"


def test_an_answer_before_the_first_question_is_dropped(tmp_path: Path) -> None:
    assert one(tmp_path, conversations=[TALK[1], *TALK], image="a.png").turns == TURNS


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ([], "JSON object, not list"),
        ({}, "'conversations' or 'messages'"),
        ({"conversations": []}, "'conversations' or 'messages'"),
        ({"conversations": ["Hi"]}, "turn 1 is no object"),
        ({"conversations": [{"from": "robot", "value": "Hi"}]}, "turn 1 is from 'robot'"),
        ({"conversations": [TALK[0], {"from": "gpt", "value": 3}]}, "turn 2 says int"),
        ({"conversations": [TALK[0], {"from": "gpt", "value": "\ud800"}]}, "surrogates not allowed"),
        ({"conversations": TALK[:1]}, "without an answer"),
        ({"conversations": [TALK[0], TALK[0], TALK[1]]}, "turn 2 is of the user"),
        ({"conversations": TALK, "image": "a", "videos": ["b"]}, "image and videos"),
        ({"conversations": TALK, "video": {"path": "a"}}, "no path and no list"),
        ({"conversations": TALK, "video": "a", "start": 3}, "start 3 and end None"),
        ({"conversations": TALK, "video": "a", "start": "3", "end": 4}, "both be numbers"),
        ({"conversations": TALK, "video": "a", "start": 0, "end": math.nan}, "both be numbers"),
        ({"conversations": TALK, "video": "a", "video_read_type": "fake"}, "'fake' is not one of"),
        ({"conversations": TALK, "system": 3}, "'system' is no text"),
    ],
)
def test_a_malformed_record_is_told_with_its_place(tmp_path: Path, entry: Any, says: str) -> None:
    good = {"image": "a.png", "conversations": TALK}
    listed = read_source(write(tmp_path / "a.json", [good, entry]))
    assert "a.json record 1: " in listed[1].flaw and says in listed[1].flaw and not listed[0].flaw
    lines = read_source(write(tmp_path / "a.jsonl", [good, entry, good]))
    assert "a.jsonl line 2: " in lines[1].flaw and says in lines[1].flaw and not lines[2].flaw


def test_a_line_that_is_no_json_is_told_with_its_number(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"conversations": TALK, "image": "a"}])
    Path(source.annotation).write_text("\n" + Path(source.annotation).read_text() + "{oops\n")
    first, second = read_source(source)
    assert not first.flaw and "a.jsonl line 3: this is no JSON" in second.flaw


def test_files_that_hold_no_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match="no annotation at .*a.json"):
        read_source(Source(str(path)))
    for content, says in (
        (b"", "holds no record"),
        (b"[]", "holds no record"),
        (b"[\n{]", "line 2: this is no JSON"),
        (b"<html>\n</html>", r"line 1: this is no JSON.*nor any other of 2"),
        (b"\xff\xfe{}", "no text in UTF-8"),
        (b'{"conversations": []}', "line 1: it has no list of turns"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=says):
            read_source(Source(str(path)))


def test_annotations_and_media_may_be_elsewhere(tmp_path: Path) -> None:
    with fsspec.open("memory://notes/a.jsonl", "wb") as file:
        file.write(json.dumps({"video": "x/a.mp4", "conversations": TALK}).encode())
    found = read_source(Source("memory://notes/a.jsonl", media="memory://films/", name="far"))[0]
    assert (found.media, found.source) == (("memory://films/x/a.mp4",), "far")
    with pytest.raises(FileNotFoundError, match="no annotation at memory://notes/b.jsonl"):
        read_source(Source("memory://notes/b.jsonl"))


# -- strategies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "count", "taken"),
    [
        ("all", 5, [0, 1, 2, 3, 4]),
        ("first:2", 5, [0, 1]),
        ("first:25%", 5, [0, 1]),
        ("first:12.5%", 16, [0, 1]),
        ("first:9", 5, [0, 1, 2, 3, 4]),
        ("first2:2", 5, [2, 3]),
        ("first3:2", 5, [4]),
        ("first4:2", 5, []),
        ("first2:25%", 8, [2, 3]),
        ("end:2", 5, [3, 4]),
        ("end:10%", 11, [9, 10]),
        ("end:9", 2, [0, 1]),
    ],
)
def test_strategies(strategy: str, count: int, taken: list[int]) -> None:
    assert list(choose(strategy, count)) == taken


def test_a_share_is_rounded_up_exactly() -> None:
    assert len(choose("first:10%", 98675)) == 9868
    assert [len(choose(f"first:{share}%", 100)) for share in range(1, 101)] == list(range(1, 101))


@pytest.mark.parametrize("strategy", ["", "some", "first", "first5:3", "first:", "first:1.5", "end:-1", "first:101%"])
def test_other_strategies_are_errors(strategy: str) -> None:
    with pytest.raises(ValueError, match="strategy"):
        choose(strategy, 10)


def test_random_records_depend_on_the_seed_alone() -> None:
    some = choose("random:10", 1000, 3)
    assert list(some) == list(choose("random:10", 1000, 3)) == sorted(set(some)) and len(some) == 10
    assert list(some) != list(choose("random:10", 1000, 4))


def test_a_strategy_is_applied_to_the_file(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"image": "a", "conversations": TALK}] * 8)
    found = read_source(Source(source.annotation, strategy="end:25%"))
    assert [record.id for record in found] == ["6", "7"]
    with pytest.raises(ValueError, match="takes none of the 8 records"):
        read_source(Source(source.annotation, strategy="first:0"))


# -- mixtures ----------------------------------------------------------------------------------------------------------

MIXTURE = """
datasets:
  # a comment
  - json_path: notes/textcaps.json
    sampling_strategy: first:25%
    data_root: images
  - json_path: notes/frames.json
    data_root: tvqa/frames
    video_read_type: img
    sampling_strategy: all
  - json_path: notes/m4.json
    media_type: mix
    data_root: ignored
  - json_path: notes/k710.jsonl
    weight: 2.5
    frame_fps: 3
    name: kinetics
"""


def test_a_mixture_of_the_reference_is_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(MIXTURE)
    assert read_mixture(path) == (
        Source("notes/textcaps.json", "images", "first:25%"),
        Source("notes/frames.json", "tvqa/frames"),
        Source("notes/m4.json"),
        Source("notes/k710.jsonl", weight=2.5, frame_fps=3, name="kinetics"),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("datasets:\n- json_path: a\n  data_root: b\n  data_root: c", "line 4: 'data_root' is there twice"),
        ("datasets:\n- json_path: a\n  sampling_stratgy: all", "entry 1: key 'sampling_stratgy' .*'sampling_strategy'"),
        ("datasets:\n- json_path: a\n  data_root: https://x.org/y", "web page: download the media"),
        ("datasets:\n- json_path: a\n  sampling_strategy: some:3", "strategy 'some:3' is not known"),
        ("datasets:\n- json_path: a\n  video_read_type: rtsp", "'rtsp' is not one of"),
        ("datasets:\n- json_path: a\n  media_type: sound", "'sound' is not one of"),
        ("datasets:\n- json_path: a\n  weight: 0", "weight: .*above 0"),
        ("datasets:\n- json_path: [a]", "json_path: paths"),
        ("datasets:\n- data_root: a\n- data_root: a", r"json_path is missing.*\(1 more"),
        ("datasets:\n- a", "entry 1: a source is a table"),
        ("datasets: []", "one list under the key 'datasets'"),
        ("datasets: [{json_path: a}]\nmore: 1", "one list under the key 'datasets'"),
        ("a: [", "is no YAML"),
        ("", "one list under the key 'datasets'"),
    ],
)
def test_what_is_wrong_with_a_mixture_is_said(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        read_mixture(path)


def test_a_mixture_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no mixture at"):
        read_mixture(tmp_path / "mix.yaml")


# -- order -------------------------------------------------------------------------------------------------------------


def order(weights: Sequence[float], sizes: Sequence[int], seed: int = 1, epoch: int = 0) -> list[int]:
    return epoch_order([Source("a", weight=weight) for weight in weights], sizes, seed, epoch).tolist()


def test_an_epoch_holds_every_record_as_often_as_its_source_weighs() -> None:
    counts = Counter(order([1, 2.5, 0.25], [10, 8, 100]))
    assert all(counts[i] == 1 for i in range(10))
    assert sorted(counts[i] for i in range(10, 18)) == [2] * 4 + [3] * 4
    assert sum(counts[i] for i in range(18, 118)) == 25 and max(counts) < 118


def test_what_is_drawn_comes_in_its_own_order_among_the_rest() -> None:
    sources = [Source("a"), Source(world=World("clips"))]
    got = epoch_order(sources, [50, 50], 1, 0).tolist()
    read, drawn = ([i for i in got if (i < 50) == first] for first in (True, False))
    assert drawn == list(range(50, 100)) and read != sorted(read) == list(range(50))
    assert got[:50] != read and got[:50] != drawn


def test_fractions_come_round() -> None:
    counts = Counter(i for epoch in range(4) for i in order([0.25], [100], epoch=epoch))
    assert set(counts) == set(range(100)) and set(counts.values()) == {1}


@given(
    st.lists(st.tuples(st.floats(0.1, 4), st.integers(0, 30)), min_size=1, max_size=4),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_order_depends_on_seed_and_epoch_alone(parts: list[tuple[float, int]], seed: int, epoch: int) -> None:
    weights, sizes = [weight for weight, _ in parts], [size for _, size in parts]
    first = order(weights, sizes, seed, epoch)
    assert first == order(weights, sizes, seed, epoch) and all(0 <= i < sum(sizes) for i in first)


def test_every_epoch_and_seed_has_its_own_order() -> None:
    orders = [order([1], [50], seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(one) for one in orders}) == 4 and all(sorted(one) == list(range(50)) for one in orders)
