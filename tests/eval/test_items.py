"""Rows: what they are read as, and everything that can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from questionnaires import rows, write

from videochat_flash.eval.items import Item, counted, read_items

GOOD = {"id": "a", "video": "v.mp4", "question": "Who?", "options": ["x", "y"], "answer": "B"}
TIME = {"id": "a", "video": "v.mp4", "question": "When?", "interval": [1, 2.5]}
BARE = {key: TIME[key] for key in ("id", "video", "question")}


def read(folder: Path, *some: Any) -> tuple[list[Item], list[Any]]:
    (folder / "v.mp4").touch()
    path = folder / "rows.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in some))
    return read_items(path)


def test_rows_of_all_kinds(tmp_path: Path) -> None:
    found, flaws = read_items(write(tmp_path))
    assert len(found) == 12 and flaws == []
    first, words, time = found[1], found[2], found[3]
    assert first.kind == "choice" and first.options[first.answer] == "blue" and first.video.is_file()
    assert dict(first.groups) == {"task": ("colour",), "ability": ("seeing", "reading")}
    assert words.kind == "reference" and words.references == ("left", "West") and words.groups == ()
    assert time.kind == "interval" and time.interval == (0.0, 2.0) and dict(time.groups) == {"group": ("t",)}
    assert [one.id for one in found] == [row["id"] for row in rows()]


def test_windows_subtitles_and_further_facts(tmp_path: Path) -> None:
    [one], flaws = read(tmp_path, {**TIME, "start": 1, "end": 9.5, "subtitles": "Hello.", "meta": {"any": ["thing"]}})
    assert flaws == [] and (one.start, one.end, one.subtitles) == (1.0, 9.5, "Hello.")
    assert one.look == (tmp_path / "v.mp4", 1.0, 9.5)


def test_a_mark_is_of_what_is_asked_not_of_what_is_right(tmp_path: Path) -> None:
    [one], _ = read(tmp_path, GOOD)
    [corrected], _ = read(tmp_path, {**GOOD, "answer": "A", "group": "g"})
    assert one.mark == corrected.mark
    for name, value in (("question", "What?"), ("options", ["x", "z"]), ("start", 2), ("subtitles", "s")):
        [other], _ = read(tmp_path, {**GOOD, name: value})
        assert other.mark != one.mark


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("{", "not JSON", "it is not JSON"),
        ("[1]", "not JSON", "not a JSON object"),
        ({**GOOD, "anwser": "A"}, "wrong field", "field 'anwser' is not known: is 'answer' meant?"),
        ({**GOOD, "question": "What \ud83d?"}, "wrong field", "half a character"),
        ({**GOOD, "colour": "A"}, "wrong field", "further facts go into 'meta'"),
        ({**GOOD, "id": 7}, "wrong field", "'id' must be a text, not 7"),
        ({**GOOD, "id": " "}, "wrong field", "'id'"),
        ({**GOOD, "question": ""}, "wrong field", "'question'"),
        ({**GOOD, "question": "x" * 50_001}, "wrong field", "50001 characters"),
        ({**GOOD, "video": None}, "wrong field", "'video'"),
        ({**GOOD, "video": "w.mp4"}, "missing video", "w.mp4 is missing"),
        ({**GOOD, "answer": "C"}, "answer not among options", "give a letter from A to B"),
        ({**GOOD, "answer": "y"}, "answer not among options", "answer 'y'"),
        ({**GOOD, "answer": "AB"}, "answer not among options", "answer 'AB'"),
        ({**GOOD, "answer": 1}, "answer not among options", "answer 1"),
        ({key: GOOD[key] for key in GOOD if key != "answer"}, "answer not among options", "answer None"),
        ({**GOOD, "options": []}, "wrong field", "1 to 26 options, not 0"),
        ({**GOOD, "options": ["x"] * 27}, "wrong field", "not 27"),
        ({**GOOD, "options": "xy"}, "wrong field", "list of texts"),
        ({**GOOD, "options": ["x", ""]}, "wrong field", "list of texts"),
        ({**GOOD, "reference": "x"}, "wrong field", "there is options and reference"),
        ({key: TIME[key] for key in ("id", "video", "question")}, "wrong field", "there is none"),
        ({**TIME, "answer": "A"}, "wrong field", "none beside 'interval'"),
        *(
            ({**BARE, "judge": judge}, "wrong field", "'judge' must be a list of questions with their answers")
            for judge in ([], "x", [1], [{"question": "Q?"}], [{"question": "Q?", "answer": " "}])
        ),
        ({**BARE, "judge": [{"question": "Q?", "answer": "a"}]}, "no judge", "its task of lmms-eval asks one"),
        ({**TIME, "interval": [2, 1]}, "wrong interval", "does not end after it starts"),
        ({**TIME, "interval": [1, 1]}, "wrong interval", "[1, 1]"),
        ({**TIME, "interval": [-1, 1]}, "wrong interval", "at 0 or later"),
        ({**TIME, "interval": ["1", 2]}, "wrong interval", "[start, end] in seconds"),
        ({**TIME, "interval": [1]}, "wrong interval", "[start, end] in seconds"),
        ('{"id": "a", "video": "v.mp4", "question": "q", "interval": [1, NaN]}', "wrong interval", "[start, end]"),
        ({**GOOD, "options": None, "answer": None, "reference": "x"}, "wrong field", "'answer' is the letter"),
        ({**TIME, "interval": None, "reference": []}, "wrong field", "empty list"),
        ({**TIME, "interval": None, "reference": [1]}, "wrong field", "'reference' must be a text"),
        ({**GOOD, "start": "2"}, "wrong field", "must be seconds"),
        ({**GOOD, "start": 3, "end": 2}, "wrong field", "must come after"),
        ({**GOOD, "start": -3}, "wrong field", "at 0 or later"),
        ({**GOOD, "subtitles": ["a"]}, "wrong field", "'subtitles'"),
        ({**GOOD, "group": 3}, "wrong field", "'group'"),
        ({**GOOD, "group": {"a": []}}, "wrong field", "'group' 'a'"),
        ({**GOOD, "group": {"a": [3]}}, "wrong field", "'group' 'a'"),
    ],
)
def test_what_is_wrong_with_a_row_is_told(row: Any, kind: str, words: str, tmp_path: Path) -> None:
    found, [flaw] = read(tmp_path, row)
    assert found == [] and flaw.kind == kind and words in str(flaw) and str(flaw).startswith("line 1")


def test_good_rows_are_read_beside_bad_ones_which_are_counted(tmp_path: Path) -> None:
    other = {**GOOD, "id": "b"}
    found, flaws = read(tmp_path, GOOD, "", {**GOOD, "answer": "A"}, other, {**GOOD, "id": "c", "video": "no.mp4"}, "{")
    assert [one.id for one in found] == ["a", "b"]
    assert [(one.line, one.id) for one in flaws] == [(3, "a"), (5, "c"), (6, "")]
    assert str(flaws[0]) == "line 3 (id 'a'): its id is that of line 1, too"
    assert counted(flaws) == "1 duplicated id, 1 missing video, 1 not JSON"


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.jsonl is missing"):
        read_items(tmp_path / "none.jsonl")
    for data, words in ((b"\n\n", "has no rows"), (b"\xff\xfe{}", "not UTF-8")):
        (tmp_path / "rows.jsonl").write_bytes(data)
        with pytest.raises(ValueError, match=words):
            read_items(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(TIME).encode())
    (tmp_path / "v.mp4").touch()
    assert len(read_items(tmp_path / "rows.jsonl")[0]) == 1  # a byte order mark is no flaw
