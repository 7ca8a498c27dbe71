"""Made-up annotations of public benchmarks in their own file formats, small, with real videos and folders of frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import videos
from PIL import Image

WHITE = '<font color="white" size=".72c">{}</font>'


@dataclass(frozen=True)
class Set:
    """A data set on disk.

    Attributes:
        files: its annotation files.
        videos: where its videos are.
        subtitles: where its subtitles are; None where it has none.
        gold: the right answer of each row, as the reference's prompt wants it; None where its own is no option.
        axes: what its rows are grouped by.
    """

    files: list[Path]
    videos: Path
    subtitles: Path | None
    gold: list[str | None]
    axes: set[str]


def film(path: Path) -> str:
    """Eight seconds of video; returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    videos.make(path, 16, 2)
    return path.name


def frames(folder: Path, count: int = 12) -> str:
    """A folder of numbered pictures; returns its name."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(videos.numbered(i)).save(folder / f"frame_{i:05}.png")
    return folder.name


def dump(path: Path, values: Any) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


def mvbench(at: Path) -> Set:
    """Two tasks in a file each: one cut by start and end, with a single option once, one of folders of frames."""
    name, folder = film(at / "video" / "sta" / "1.mp4"), frames(at / "video" / "tvqa" / "show_seg01_clip_00")
    both = {"video": name, "start": 1.0, "end": 5.5}
    sequence = [
        {**both, "question": "What came first?", "candidates": ["a", "b", "c"], "answer": "b"},
        {**both, "question": "What came last?", "candidates": ["a"], "answer": "a"},
    ]
    episode = {"video": folder, "question": "Who?", "candidates": ["x", "y"], "answer": "y", "subtitle": "", "fps": "3"}
    files = [
        dump(at / "json" / "action_sequence.json", sequence),
        dump(at / "json" / "episodic_reasoning.json", [{**episode, "start": "0", "end": "3.5", "show_name": "s"}]),
    ]
    return Set(files, at / "video", None, ["(B)", "A", "b"], {"task"})


def perception_test(at: Path) -> Set:
    """Answers as indices."""
    film(at / "videos" / "video_1.mp4")
    one = {"video_name": "video_1", "question": "Q?", "question_id": "0", "options": ["a", "b", "c"], "answer_id": "2"}
    made = dump(at / "mc_question_val.json", [{**one, "area": "physics", "reasoning": "descriptive", "tag": ["x"]}])
    return Set([made], at / "videos", None, ["C"], {"area", "reasoning"})


def longvideobench(at: Path) -> Set:
    """Fillers among the options, subtitles in both of their forms."""
    one = {
        **{"video_id": "a", "id": "a_0", "video_path": film(at / "videos" / "a.mp4"), "subtitle_path": "a_en.json"},
        **{"correct_choice": 1, "question": "Q?", "duration": 8.0, "duration_group": 15, "question_category": "T2E"},
        **{f"option{i}": words for i, words in enumerate(("one", "two", "three", "N/A", "N/A"))},
        **{"topic_category": "x", "starting_timestamp_for_subtitles": 10.0},
    }
    dump(at / "subtitles" / "a_en.json", [
        {"timestamp": [11.5, 13.5], "text": "Seen."}, {"timestamp": [40.0, 42.0], "text": "Behind the end."},
        {"start": "0:00:14.1", "end": "0:00:14.2", "line": "Short, and seen."},
    ])  # fmt: skip
    path = dump(at / "lvb_val.json", [one, {**one, "id": "a_1", "correct_choice": 0}])
    return Set([path], at / "videos", at / "subtitles", ["(B)", "A."], {"duration_group", "question_category"})


def mlvu(at: Path) -> Set:
    """A video in its task's folder, options twice, an answer that is none of them."""
    one = {"video": film(at / "video" / "2_needle" / "needle_1.mp4"), "duration": 8, "question": "Q?"}
    some = [
        {**one, "candidates": ["a", "b", "b", "d"], "answer": "b", "question_type": "findNeedle"},
        {**one, "candidates": ["a", "b", "c", "d"], "answer": "e", "question_type": "findNeedle"},
    ]
    count = [{**one, "candidates": ["0", "1", "2", "3"], "answer": "3", "question_type": "count"}]
    files = [dump(at / "json" / "2_needle.json", some), dump(at / "json" / "4_count.json", count)]
    return Set(files, at / "video", None, ["B", None, "D"], {"task"})


def video_mme(at: Path) -> Set:
    """Options with their letters, a tagged .srt, one without tags, and none."""
    rows = []
    for i, answer in enumerate("ACD"):
        film(at / "videos" / f"vid{i}.mp4")
        rows.append({
            "video_id": f"00{i}", "duration": ("short", "medium", "long")[i], "domain": "Knowledge",
            "sub_category": "Biology & Medicine", "url": "", "videoID": f"vid{i}", "question_id": f"00{i}-1",
            "task_type": "Counting Problem", "question": "Q?", "answer": answer,
            "options": ["A. one", "B. two", "C. three", "D. A. Four."],
        })  # fmt: skip
    (at / "subtitle").mkdir()
    timed = "{}\n00:00:0{} --> 00:00:0{}\n{}\n\n"
    tagged = "".join(timed.format(i, i, i + 1, WHITE.format(words)) for i, words in enumerate(("Hello.", "Bye.")))
    (at / "subtitle" / "vid0.srt").write_text(tagged)
    (at / "subtitle" / "vid1.srt").write_text(timed.format(0, 0, 1, "Plain."))
    axes = {"duration", "domain", "sub_category", "task_type"}
    return Set([dump(at / "test.json", rows)], at / "videos", at / "subtitle", ["A", "C", "D"], axes)


def lvbench(at: Path) -> Set:
    """Folders of frames, options with their letters, several abilities."""
    one = {
        "video": frames(at / "frames" / "00000001"),
        "type": "sport",
        "question": "Q?",
        "time_reference": "00:01-00:02",
    }
    options = ["(A) one", "(B) two", "(C) three", "(D) four"]
    one |= {"candidates": options, "answer": "(C) three", "question_type": ["reasoning", "entity recognition"]}
    one |= {"time_reference": "00:01-00:02"}
    return Set([dump(at / "lvbench_clean.json", [one])], at / "frames", None, ["C. (C) three"], {"type", "ability"})


def charades_sta(at: Path) -> Set:
    """Sentences with their intervals."""
    one = {"video": film(at / "videos" / "AO8RW.mp4"), "caption": "person turns on a lamp.", "timestamp": [2.0, 6.0]}
    path = dump(at / "temporal_grounding_charades.json", [one, {**one, "timestamp": [0.0, 8]}])
    gold: list[str | None] = ["The event happens in the 2.0 - 6.0 seconds.", "0 - 8"]
    return Set([path], at / "videos", None, gold, set())


def videoeval_pro(at: Path) -> Set:
    """A line each."""
    one = {"video": film(at / "videos" / "x.mp4"), "question": "Q?", "options": ["A. one", "B. two"], "answer": "B"}
    one |= {"answer_text": "two", "meta": "x", "source": "mlvu", "qa_subtype": "x", "qa_type": "Local Perception"}
    path = at / "test.jsonl"
    path.write_text(json.dumps(one) + "\n")
    return Set([path], at / "videos", None, ["B"], {"qa_type"})


def videoeval_pro_open(at: Path) -> Set:
    """The same, for answers in words."""
    some = videoeval_pro(at)
    return Set(some.files, some.videos, None, ["two"], some.axes)


def vdc(at: Path) -> Set:
    """A file for each aspect, a video in each line."""
    name = film(at / "videos" / "abc.mp4").removesuffix(".mp4")
    pairs = [{"question": f"Q{i}?", "answer": f"a{i}", "category": "x"} for i in range(2)]
    files = []
    for aspect in ("camera", "short", "background", "main_object", "detailed"):
        files.append(at / f"VDC_{aspect}.jsonl")
        files[-1].write_text(json.dumps({name: pairs}) + "\n")
    return Set(files, at / "videos", None, ["A caption."] * 5, {"aspect"})


SETS = {
    "mvbench": mvbench,
    "perception-test": perception_test,
    "longvideobench": longvideobench,
    "mlvu": mlvu,
    "video-mme": video_mme,
    "lvbench": lvbench,
    "charades-sta": charades_sta,
    "videoeval-pro": videoeval_pro,
}
JUDGED = {"videoeval-pro-open": videoeval_pro_open, "vdc": vdc}
