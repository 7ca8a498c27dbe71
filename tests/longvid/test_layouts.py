"""Annotations as others write them: every layout is read, and what is wrong in one is told, not lost."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longvid_corpus import video

from videochat_flash.longvid import layouts
from videochat_flash.longvid.matches import Matches
from videochat_flash.longvid.records import Film, Note, line_of
from videochat_flash.longvid.shots import bounded, fitted
from videochat_flash.longvid.subtitles import chapters, cues


def read(folder: Path, name: str, text: str | bytes, layout: Any = "auto") -> layouts.Annotations:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return layouts.read([str(path)], layout)


def told(found: layouts.Annotations, *paths: str, gone: tuple[str, ...] = ()) -> Matches:
    """The annotations by these videos."""
    matches = Matches(found)
    for path in paths:
        matches.meet(path, Path(path).stem)
    for path in gone:
        matches.miss(path)
    matches.settle()
    return matches


def of(found: layouts.Annotations, stem: str) -> tuple[Note, ...]:
    """What is said of the only video."""
    return told(found, f"/films/{stem}.mp4").of(f"/films/{stem}.mp4")


KEYS = (
    *("walk", "videos", "narration_pass_1", "narrations", "summaries", "timestamp_sec", "narration_text"),
    *("start", "end", "text", "timestamps", "sentences", "steps", "step", "segment", "chapters", "title", "video"),
)
WORDS = st.sampled_from(KEYS)


def brief(notes: tuple[Note, ...]) -> list[tuple[float, float, str, str]]:
    return [(note.start, note.end, note.kind, note.text) for note in notes]


LAYOUTS: dict[str, tuple[str, object, list[tuple[float, float, str, str]]]] = {
    "narrations": (
        "ego.json",
        {
            "videos": {
                "walk": {
                    "narration_pass_1": {
                        "narrations": [
                            {"timestamp_sec": 2.5, "narration_text": "#C C opens a drawer"},
                            {"timestamp_sec": 4, "narration_text": "#O man X waves"},
                            {"timestamp_sec": 5, "narration_text": "#C C takes #unsure"},
                        ],
                        "summaries": [{"start_sec": 0, "end_sec": 60, "summary_text": "#Summary C was in a kitchen"}],
                    }
                }
            }
        },
        [
            (0.0, 60.0, "summary", "The camera wearer was in a kitchen"),
            (2.5, 2.5, "narration", "The camera wearer opens a drawer"),
            (4.0, 4.0, "narration", "A man waves"),
        ],
    ),
    "speech": (
        "asr.json",
        {"walk": {"start": [0.5, 3], "end": [3.5, 6], "text": ["so first", "we cut  it"]}},
        [(0.5, 3.5, "speech", "so first"), (3.0, 6.0, "speech", "we cut it")],
    ),
    "steps": (
        "steps.json",
        {"walk": [{"step": "Peel the onion", "segment": [3, 9]}, {"headline": "Fry it", "start": 9, "end": 20}]},
        [(3.0, 9.0, "step", "Peel the onion"), (9.0, 20.0, "step", "Fry it")],
    ),
    "captions": (
        "dense.json",
        {"v_walk": {"duration": 60, "timestamps": [[0, 5.25]], "sentences": [" A man walks. "]}},
        [(0.0, 5.25, "caption", "A man walks.")],
    ),
    "chapters": (
        "chapters.json",
        {"walk": {"chapters": [{"title": "Start", "start_time": 0, "end_time": 30}]}},
        [(0.0, 30.0, "chapter", "Start")],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("named", [True, False])
def test_a_layout_is_read_named_or_recognised(layout: str, named: bool, tmp_path: Path) -> None:
    name, value, expected = LAYOUTS[layout]
    found = read(tmp_path, name, json.dumps(value), layout if named else "auto")
    assert brief(of(found, "walk")) == expected and found.asides == []
    assert all(note.origin.startswith(f"{name}: ") for note in of(found, "walk"))
    assert [note.open for note in of(found, "walk")] == [note.kind == "narration" for note in of(found, "walk")]


def test_subtitles_and_chapter_lines(tmp_path: Path) -> None:
    srt = "1\r\n00:00:01,500 --> 00:00:03,000\r\n<i>Hello</i>\r\nthere.\r\n\r\n"
    srt += "2\r\n0:00:03.5 --> 0:00:04.0\r\nFish &amp; chips\r\n"
    assert brief(of(read(tmp_path, "walk.en.srt", srt), "walk")) == [
        (1.5, 3.0, "speech", "Hello there."),
        (3.5, 4.0, "speech", "Fish & chips"),
    ]
    vtt = "WEBVTT\n\nNOTE made up\n\nintro\n01:02.000 --> 01:03.500 align:start\n<v Ann>Hi<00:01:03> you\n"
    assert brief(of(read(tmp_path, "talk.vtt", vtt), "talk")) == [(62.0, 63.5, "speech", "Hi you")]
    marks = "My film\n0:00 Intro\n[1:05] - The bridge\n1:02:03 The end\n"
    assert brief(of(read(tmp_path, "walk.txt", marks), "walk")) == [
        (0.0, 0.0, "chapter", "Intro"),
        (65.0, 65.0, "chapter", "The bridge"),
        (3723.0, 3723.0, "chapter", "The end"),
    ]


def test_cues_without_an_empty_line_between() -> None:
    found = list(cues("1\n00:00:01,000 --> 00:00:02,000\nOne\n2\n00:00:02,000 --> 00:00:03,000\nTwo\n"))
    assert [(cue.start, cue.text) for cue in found] == [(1.0, "One"), (2.0, "Two")]
    assert list(chapters("no marks at all")) == []


def test_our_own_lines(tmp_path: Path) -> None:
    lines = [{"video": "walk", "start": 1, "end": 2, "kind": "step", "text": "Go"}, {"video": "walk"}, "prose"]
    found = read(tmp_path, "notes.jsonl", "\n".join(map(json.dumps, lines)) + "\n{half")
    assert brief(of(found, "walk")) == [(1.0, 2.0, "step", "Go")]
    asides = {one.what[-6:]: one.kind for one in told(found, "/walk.mp4").asides()}
    assert asides == {"line 2": "entry", "line 3": "missing", "line 4": "missing"}  # the last two name no video


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nUn café à Zürich\n"
    found = read(tmp_path, "walk.srt", text.encode(encoding))
    assert [note.text for note in of(found, "walk")] == ["Un café à Zürich"]
    assert [one.kind for one in found.asides] == (["mended"] if encoding == "cp1252" else [])


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1251", "Привет, мир. Как дела?"),
        ("cp1250", "Gdzie ona była wczoraj?"),
        ("iso8859-7", "Καλημέρα κόσμε"),
        ("gbk", "你好，世界"),
        ("shift_jis", "こんにちは世界"),
    ],
)
def test_what_is_in_another_encoding_is_kept_aside(encoding: str, words: str, tmp_path: Path) -> None:
    text = f"1\n00:00:01,000 --> 00:00:02,000\n{words}\n"
    found = read(tmp_path, "walk.srt", text.encode(encoding))
    assert of(found, "walk") == () and [one.kind for one in found.asides] == ["entry"]
    assert "save it as UTF-8" in found.asides[0].reason


def test_a_damaged_letter_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    words = "Как дела? Хорошо, спасибо."
    text = f"1\n00:00:01,000 --> 00:00:02,000\n{words}\n".encode().replace("п".encode(), b"\xd0")
    found = read(tmp_path, "walk.srt", text)
    assert [note.text for note in of(found, "walk")] == [words.replace("п", "\ufffd")]
    assert [(one.kind, one.reason) for one in found.asides] == [("mended", "1 letters of it are damaged: no UTF-8")]


def test_a_file_that_may_not_be_read_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Path.read_bytes

    def kept(self: Path) -> bytes:
        if self.name == "kept.srt":
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self)

    monkeypatch.setattr(Path, "read_bytes", kept)
    for name in ("kept.srt", "walk.srt"):
        (tmp_path / name).write_text("1\n00:00:01,000 --> 00:00:02,000\nA walk.\n")
    found = layouts.read([str(tmp_path)], "auto")
    assert [one.text for one in of(found, "walk")] == ["A walk."]
    [aside] = found.asides
    assert (aside.kind, aside.reason) == ("missing", "it cannot be read: Permission denied")
    with pytest.raises(PermissionError):
        layouts.read([str(tmp_path / "kept.srt")], "auto")


def test_one_pass_of_narrations_is_read_and_nothing_is_dropped_without_a_word(tmp_path: Path) -> None:
    says = ("#C C opens a drawer", None, "#C C takes #unsure", "#C C closes a drawer")
    passes = {
        "narration_pass_1": {"narrations": [{"timestamp_sec": 2, "narration_text": "#C C pulls a drawer"}]},
        "narration_pass_2": {
            "narrations": [{"timestamp_sec": 2 * i, "narration_text": one} for i, one in enumerate(says)],
            "summaries": [{"start_sec": 0, "end_sec": 60, "summary_text": "#unsure"}],
        },
    }
    found = read(tmp_path, "ego.json", json.dumps({"videos": {"walk": passes}}))
    assert [note.text for note in of(found, "walk")] == [
        "The camera wearer opens a drawer",
        "The camera wearer closes a drawer",
    ]
    asides = [(one.kind, one.reason) for one in told(found, "/walk.mp4").asides()]
    assert asides == [
        ("duplicate", "narration_pass_2 is read: it tells the same in other words"),
        ("entry", "it has no text"),
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"walk": {"timestamps": [[0, "x"]], "sentences": ["A."]}}, "its times are no numbers of seconds"),
        ({"walk": {"timestamps": [[0, 1]], "sentences": [""]}}, "it has no text"),
        ({"walk": {"timestamps": [[0, 1]], "sentences": ["cut \ud83d"]}}, "its text holds half a character"),
        ({"walk": {"timestamps": [[0, 10**400]], "sentences": ["A."]}}, "its times are no numbers of seconds"),
        ({"walk": {"timestamps": [[0, 1], [1, 2]], "sentences": ["A."]}}, "it has no text"),
        ({"walk": {"timestamps": [3], "sentences": ["A."]}}, "its times are no numbers of seconds"),
        ({"walk": {"timestamps": [[0, float("nan")]], "sentences": ["A."]}}, "its times are no numbers of seconds"),
    ],
)
def test_an_entry_that_is_none_is_kept_aside(value: object, reason: str, tmp_path: Path) -> None:
    found = read(tmp_path, "dense.json", json.dumps(value), "captions")
    assert [(one.kind, one.reason) for one in told(found, "/walk.mp4").asides()] == [("entry", reason)]
    assert [one.kind for one in told(found).asides() if one.reason == reason] == ["missing"]  # it is nobody's here


HALF = "cut \ud83d"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({HALF: {"timestamps": [[0, 1]], "sentences": ["A."]}}, "the name of its video holds half a character"),
        ({"walk": {"timestamps": [[HALF, 1]], "sentences": ["A."]}}, "its times are no numbers of seconds"),
        ({"walk": {"narration_pass_1": {}, f"narration_pass_{HALF}": {"narrations": [{"narration_text": "A."}]}}},
         "its times are no numbers of seconds"),
    ],
)  # fmt: skip
def test_half_a_character_ends_nothing(value: object, reason: str, tmp_path: Path) -> None:
    """What is kept aside of it can be written down."""
    found = read(tmp_path, "some.json", json.dumps(value))
    asides = list(told(found, "/walk.mp4").asides())
    assert reason in [one.reason for one in asides]
    for one in asides:
        assert HALF not in line_of(one) and line_of(one).encode()


def test_notes_of_an_entry_whose_name_holds_half_a_character_can_be_written_down(tmp_path: Path) -> None:
    told_of = {"narrations": [{"timestamp_sec": 2, "narration_text": "#C C opens a drawer"}]}
    found = read(tmp_path, "ego.json", json.dumps({"walk": {f"narration_pass_{HALF}": told_of}}))
    [one] = of(found, "walk")
    assert one.text == "The camera wearer opens a drawer" and r"cut \ud83d" in one.origin and line_of(one).encode()


def test_a_file_whose_name_is_no_utf8_is_told_of(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nA walk.\n"
    (tmp_path / "caf\udce9.srt").write_text(text)
    (tmp_path / "walk.srt").write_text(text)
    found = layouts.read([str(tmp_path)], "auto")
    assert [one.text for one in of(found, "walk")] == ["A walk."]
    [aside] = found.asides
    assert (aside.what, aside.reason) == (f"{tmp_path}/caf\\udce9.srt", "its name is no UTF-8: rename it")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, JSON, max_size=4), st.sampled_from(["auto", *LAYOUTS, "notes"]))
def test_whatever_stands_in_a_file_it_is_read_or_kept_aside(value: object, layout: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = read(Path(folder), "some.json", json.dumps(value), layout)
    for track in found.tracks.values():
        assert all(note.text.strip() and math.isfinite(note.start + note.end) for note in track.notes)
        fitted(Film(video(), tuple(track.notes)))


def test_a_file_that_was_named_must_be_one_and_others_may_not(tmp_path: Path) -> None:
    found = read(tmp_path, "x.json", '{"a": ')
    assert [(one.kind, one.reason) for one in found.asides] == [("entry", "line 1: this is no JSON (Expecting value)")]
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    assert [one.kind for one in layouts.read([str(tmp_path)], "auto").asides] == ["missing", "missing"]
    with pytest.raises(FileNotFoundError, match="no annotations at"):
        layouts.read([str(tmp_path / "none")], "auto")


def note(start: float, end: float, text: str, kind: Any = "speech", *, open: bool = False) -> Note:
    return Note(start, end, kind, text, "made.srt: line 1", open)


def test_overlapping_subtitles_end_where_the_next_begins_and_rolling_ones_are_one() -> None:
    some = (note(0, 4, "One"), note(3, 6, "Two"), note(6, 8, "Two"), note(20, 22, "Three"))
    kept, asides = fitted(Film(video(), some))
    assert brief(tuple(kept)) == [(0, 3, "speech", "One"), (3, 8, "speech", "Two"), (20, 22, "speech", "Three")]
    assert [(one.kind, "overlaps" in one.reason) for one in asides] == [("mended", True)]


def test_rolling_subtitles_say_everything_once(tmp_path: Path) -> None:
    rows = [
        ("00:00.000", "00:02.000", " \nhello<00:00:00.500><c> everyone</c>"),
        ("00:02.000", "00:02.010", "hello everyone\n "),
        ("00:02.010", "00:04.000", "hello everyone\nand<00:00:02.500><c> welcome</c><00:00:03.000><c> to my</c>"),
        ("00:04.000", "00:04.010", "and welcome to my\n "),
        ("00:04.010", "00:06.000", "and welcome to my\nchannel"),
        ("00:06.000", "00:08.000", "my channel is new"),  # two words only may be said twice
    ]
    vtt = "WEBVTT\nKind: captions\n\n" + "\n\n".join(f"{a} --> {b} align:start\n{text}" for a, b, text in rows)
    found = read(tmp_path, "walk.vtt", vtt)
    kept, asides = fitted(Film(video(), of(found, "walk")))
    assert asides == [] and list(told(found, "/walk.mp4").asides()) == []
    assert brief(tuple(kept)) == [
        (0, 2.01, "speech", "hello everyone"),
        (2.01, 4.01, "speech", "and welcome to my"),
        (4.01, 6, "speech", "channel"),
        (6, 8, "speech", "my channel is new"),
    ]


def test_subtitles_that_begin_together_are_one(tmp_path: Path) -> None:
    kept, asides = fitted(Film(video(), (note(0, 4, "One"), note(0, 6, "Two"))))
    assert brief(tuple(kept)) == [(0, 6, "speech", "One Two")]
    assert kept[0].origin == "made.srt: line 1, made.srt: line 1"
    assert [(one.kind, "begins together" in one.reason) for one in asides] == [("mended", True)]


def test_marks_last_until_the_next_one() -> None:
    some = (
        *(note(start, start, f"N{start}", "narration", open=True) for start in (0, 4, 50)),
        *(note(start, start, f"C{start}", "chapter") for start in (0, 40)),
    )
    kept, asides = fitted(Film(video(), some))
    ends = {(one.kind, one.start): (one.end, one.open) for one in kept}
    assert ends["narration", 0] == (4, True) and ends["narration", 4] == (14, True)
    assert ends["narration", 50] == (60, True)
    assert ends["chapter", 0] == (40, False) and ends["chapter", 40] == (60, False) and asides == []


TIMES = st.floats(-5, 80)
KINDS = st.sampled_from(["speech", "caption", "chapter"])


@given(st.lists(st.tuples(TIMES, TIMES, KINDS), max_size=12))
def test_whatever_stands_there_the_notes_lie_within_the_video(rows: list[tuple[float, float, str]]) -> None:
    some = tuple(note(start, end, f"N{i}", kind) for i, (start, end, kind) in enumerate(rows))
    kept, asides = fitted(Film(video(), some))
    assert all(0 <= one.start < one.end <= 60 for one in kept)
    joined = sum("begins together" in one.reason for one in asides)
    assert len(kept) + sum(one.kind == "entry" for one in asides) + joined == len(some)


@given(st.lists(st.floats(0.1, 599), max_size=30), st.floats(0, 20), st.floats(20, 100))
def test_shots_cover_the_video_and_are_neither_too_short_nor_too_long(
    at: list[float], shortest: float, longest: float
) -> None:
    spans = bounded(sorted(at), 600.0, shortest, longest)
    assert spans[0][0] == 0 and spans[-1][1] == 600
    assert all(one[1] == other[0] for one, other in zip(spans, spans[1:], strict=False))
    assert all(end - start <= longest + 2e-3 for start, end in spans)
    assert all(end - start >= min(shortest, 10.0) - 2e-3 for start, end in spans)
