"""Annotations belong to the video beside them; where nobody can tell, nobody gets them, and that is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from longvid_corpus import captions, film

from videochat_flash.longvid import layouts
from videochat_flash.longvid.matches import Matches
from videochat_flash.longvid.pipeline import do
from videochat_flash.longvid.records import read_asides, read_films
from videochat_flash.longvid.settings import Shots, default

SRT = "1\n00:00:01,000 --> 00:00:05,000\n{}\n"


def put(folder: Path, *names: str) -> layouts.Annotations:
    """Subtitles that say what they are called."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SRT.format(name), encoding="utf-8")
    return layouts.read([str(folder)], "auto")


def matched(found: layouts.Annotations, folder: Path, *videos: str, gone: tuple[str, ...] = ()) -> Matches:
    matches = Matches(found)
    for name in videos:
        matches.meet(str(folder / name), Path(name).stem)
    for name in gone:
        matches.miss(str(folder / name))
    matches.settle()
    return matches


@pytest.mark.parametrize(
    ("files", "videos", "expected"),
    [
        (["s1/e01.srt", "s2/e01.srt"], {"s1/e01.mp4": ["s1/e01.srt"], "s2/e01.mp4": ["s2/e01.srt"]}, []),
        (["subs/s1/e01.srt", "subs/s2/e01.srt"], {"s1/e01.mp4": ["subs/s1/e01.srt"], "s3/e01.mp4": []}, ["missing"]),
        (["e01.srt"], {"s1/e01.mp4": [], "s2/e01.mp4": []}, ["missing"]),
        (["subs/e01.en.srt"], {"films/e01.mp4": ["subs/e01.en.srt"]}, []),
        (["talk.ted.srt"], {"talk.ted.mp4": ["talk.ted.srt"], "talk.mp4": []}, []),
        (["talk.ted.srt"], {"talk.mp4": ["talk.ted.srt"]}, []),
        (["film.de.srt", "film.en.srt"], {"film.mp4": ["film.en.srt"]}, ["duplicate"]),
        (["film.deu.srt", "film.eng.srt"], {"film.mp4": ["film.eng.srt"]}, ["duplicate"]),
        (["film.de_DE.srt", "film.EN_us.srt"], {"film.mp4": ["film.EN_us.srt"]}, ["duplicate"]),
        (["film.de.srt", "film.srt"], {"film.mp4": ["film.srt"]}, ["duplicate"]),
        (["walk.srt"], {"walk.mp4": ["walk.srt"], "v_walk.mp4": []}, []),
        (["v_walk.srt"], {"walk.mp4": ["v_walk.srt"]}, []),
        (["a/film.srt", "b/film.srt"], {"c/film.mp4": []}, ["missing", "missing"]),
    ],
)
def test_subtitles_belong_to_the_video_beside_them(
    files: list[str], videos: dict[str, list[str]], expected: list[str], tmp_path: Path
) -> None:
    matches = matched(put(tmp_path, *files), tmp_path, *videos)
    assert {name: [note.text for note in matches.of(str(tmp_path / name))] for name in videos} == videos
    assert [one.kind for one in matches.asides()] == expected
    origins = [note.origin for name in videos for note in matches.of(str(tmp_path / name))]
    assert origins == [f"{text}: line 2" for texts in videos.values() for text in texts]


def test_what_is_said_of_a_video_that_was_kept_aside_is_said_of_no_other_one(tmp_path: Path) -> None:
    matches = matched(put(tmp_path, "s2/e01.srt"), tmp_path, "s1/e01.mp4", gone=("s2/e01.mp4",))
    assert matches.of(str(tmp_path / "s1/e01.mp4")) == ()
    assert [one.reason for one in matches.asides()] == ["1 notes of a video that was kept aside"]


@pytest.mark.parametrize("name", ["e01", "s1/e01", "s1/e01.mp4", "e01.mp4"])
def test_a_file_may_name_a_video_with_its_folder_and_ending(name: str, tmp_path: Path) -> None:
    captions(tmp_path / "all.json", name)
    matches = matched(layouts.read([str(tmp_path)], "auto"), tmp_path, "s1/e01.mp4", "s1/e02.mp4")
    assert len(matches.of(str(tmp_path / "s1/e01.mp4"))) == 6 and list(matches.asides()) == []
    both = matched(layouts.read([str(tmp_path)], "auto"), tmp_path, "s1/e01.mp4", "s2/e01.mp4")
    assert len(both.of(str(tmp_path / "s1/e01.mp4"))) == (6 if "/" in name else 0)


def test_bad_entries_count_only_of_videos_that_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(2):
        film(folder / f"film{number}.mp4", number)
    times = [[10.0 * i, 10.0 * i + 10] for i in range(6)]
    good = {"timestamps": times, "sentences": [f"Thing {i} happens." for i in range(6)]}
    bad = {"timestamps": times, "sentences": [*good["sentences"][:5], ""]}
    values = {f"film{number}": bad if number % 2 else good for number in range(50)}
    (folder / "all.json").write_text(json.dumps(values), encoding="utf-8")
    setting = default(str(folder), str(tmp_path / "out"))
    setting = replace(setting, shots=Shots(fps=0))
    do("scan", setting)
    ran = do("shots", setting)
    assert (ran.bad_entries, ran.entries) == (1, 12)
    assert [len(one.notes) for one in read_films(tmp_path / "out" / "shots.jsonl")] == [6, 5]
    kinds = [one.kind for one in read_asides(tmp_path / "out" / "shots.aside.jsonl") if "has no text" in one.reason]
    assert sorted(kinds) == ["entry", *["missing"] * 24]
