"""The annotation files of public benchmarks, in their own formats, as rows for ``vcflash eval``.

A row says what a data set says; what is wrong in it (a missing video, an answer that is none of the options) is for
``read_items`` to tell.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..grade import LETTERS
from .judges import ASPECTS
from .prompts import CAPTION
from .subtitles import read_lines, shown, white_lines

Record = Mapping[str, Any]
Row = dict[str, Any]
EMPTY = "N/A"  # LongVideoBench's filler


def _unlettered(options: Iterable[str]) -> list[str]:
    """Options without their own letters before them: "(A) ", "A. ", "A) "."""
    lettered = zip(LETTERS, options, strict=False)
    return [re.sub(rf"\A\s*(?:\({letter}\)|{letter}[.)])\s*", "", one) for letter, one in lettered]


@dataclass
class Media:
    """Where videos and subtitles are: a file is found by its name, in whatever folder below it lies.

    Attributes:
        videos: folder of videos and of folders of frames.
        subtitles: folder of subtitles; None leaves them out.
        home: folder of the file of rows, from which their paths lead.
    """

    videos: Path
    subtitles: Path | None
    home: Path
    known: dict[str, list[Path]] = field(default_factory=dict)

    def video(self, name: str, folder: str = "") -> str:
        """A row's path to a video; where there is none, the path at which it was looked for first.

        Raises:
            ValueError: several have this name, and none of them lies where it should.
        """
        wanted = (self.videos / folder / name, self.videos / name)
        place = next((one for one in wanted if one.exists()), None) or self._anywhere(name) or wanted[-1]
        return Path(os.path.relpath(place, self.home)).as_posix()

    def _anywhere(self, name: str) -> Path | None:
        if not self.known:
            for folder, folders, files in os.walk(self.videos):
                for one in (*folders, *files):
                    self.known.setdefault(one, []).append(Path(folder) / one)
        found = [one for one in self.known.get(Path(name).name, ()) if one.as_posix().endswith(f"/{name}")]
        if len(found) > 1:
            raise ValueError(f"several videos are named {name} below {self.videos}: {found[0]} and {found[1]}")
        return found[0] if found else None


def write_rows(benchmark: str, files: Iterable[Path], media: Media) -> Iterator[Row]:
    """Rows of a benchmark's annotation files, with ids in the order of the files.

    Raises:
        ValueError: a file that is not in the benchmark's format.
        FileNotFoundError: a file that is not there.
    """
    for path in files:
        for number, record in enumerate(read_records(path)):
            try:
                row = READERS[benchmark](record, path.stem, media)
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                text = f"{type(error).__name__}: {error}"
                raise ValueError(f"{path}, record {number}: not in the format of {benchmark} ({text})") from None
            yield {"id": f"{path.stem}-{number}", **row, "meta": {"benchmark": benchmark}}


def read_records(path: Path) -> list[Record]:
    """The records of a .json, .jsonl or .parquet file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is none of these, or no list of objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name the data set's annotation files")
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        records = [json.loads(line) for line in text.split("\n") if line.strip()] if path.suffix == ".jsonl" else None
        records = json.loads(text) if records is None else records
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise ValueError(f"{path} is not a list of objects")
    return records


def _parquet(path: Path) -> list[Record]:
    try:
        import pyarrow.parquet as arrow  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError:
        raise ValueError(f"{path}: pyarrow is not installed: pip install 'videochat-flash[eval]'") from None
    try:
        records: list[Record] = arrow.read_table(path).to_pylist()
    except ValueError as error:  # of Arrow, too
        raise ValueError(f"{path} is not a parquet file: {error}") from None
    return records


def _named(options: Iterable[str], answer: str) -> tuple[list[str], str]:
    """Options, and the letter of the first that is the answer; else the answer as it is, to be told."""
    listed = list(options)
    return listed, LETTERS[listed.index(answer)] if answer in listed else answer


def _mvbench(record: Record, file: str, media: Media) -> Row:
    options, answer = _named(record["candidates"], record["answer"])
    row = {**_choice(media.video(record["video"], file), record["question"], options, answer), "group": {"task": file}}
    pace = float(record.get("fps") or 1)  # of folders of frames, which count a second for each
    return row | {name: float(record[name]) * pace for name in ("start", "end") if record.get(name) is not None}


def _perception_test(record: Record, file: str, media: Media) -> Row:
    letter = LETTERS[int(record["answer_id"])]
    row = _choice(media.video(f"{record['video_name']}.mp4"), record["question"], record["options"], letter)
    return row | {"group": {name: record[name] for name in ("area", "reasoning") if record.get(name)}}


def _longvideobench(record: Record, file: str, media: Media) -> Row:
    options = record.get("candidates") or [record[f"option{i}"] for i in range(5)]
    options = [one for one in options if one and one != EMPTY]
    letter = LETTERS[int(record["correct_choice"])]
    row = _choice(media.video(record["video_path"]), record["question"], options, letter)
    row["group"] = {"duration_group": str(record["duration_group"]), "question_category": record["question_category"]}
    if media.subtitles is not None:
        said = read_lines(media.subtitles / record["subtitle_path"])
        begin = float(record.get("starting_timestamp_for_subtitles") or 0)
        row["subtitles"] = "\n".join(shown(said, float(record["duration"]), begin))
    return row


def _mlvu(record: Record, file: str, media: Media) -> Row:
    options, answer = _named(record["candidates"], record["answer"])
    row = _choice(media.video(record["video"], file), record["question"], options, answer)
    return row | {"group": {"task": str(record.get("question_type") or file)}}


def _video_mme(record: Record, file: str, media: Media) -> Row:
    name = record["videoID"]
    options = _unlettered(record["options"])
    row = _choice(media.video(f"{name}.mp4"), record["question"], options, record["answer"])
    row["group"] = {axis: record[axis] for axis in ("duration", "domain", "sub_category", "task_type")}
    path = None if media.subtitles is None else media.subtitles / f"{name}.srt"
    if path is not None and path.is_file():
        row["subtitles"] = "\n".join(white_lines(path.read_text(encoding="utf-8-sig")))
    return row


def _lvbench(record: Record, file: str, media: Media) -> Row:
    options, answer = _named(record["candidates"], record["answer"])
    options = _unlettered(options)
    row = _choice(media.video(record["video"]), record["question"], options, answer)
    return row | {"group": {"type": record["type"], "ability": list(record["question_type"])}}


def _charades(record: Record, file: str, media: Media) -> Row:
    start, end = record["timestamp"]
    seconds = [float(start), float(end)]
    return {"video": media.video(record["video"]), "question": record["caption"], "interval": seconds}


def _videoeval_pro(record: Record, file: str, media: Media) -> Row:
    options = _unlettered(record["options"])
    row = _choice(media.video(record["video"]), record["question"], options, record["answer"])
    return row | {"group": {"qa_type": record["qa_type"]}}


def _videoeval_pro_open(record: Record, file: str, media: Media) -> Row:
    pair = {"question": record["question"], "answer": record["answer_text"]}
    row = {"video": media.video(record["video"]), "question": record["question"], "judge": [pair]}
    return row | {"group": {"qa_type": record["qa_type"]}}


def _vdc(record: Record, file: str, media: Media) -> Row:
    [(name, asked)] = record.items()
    found = [aspect for aspect in ASPECTS if re.search(rf"(^|_){aspect}(_|$)", re.sub(r"\W", "_", file.lower()))]
    if len(found) != 1:
        raise ValueError(f"{file}: its name must tell which captions it is about, one of {', '.join(ASPECTS)}")
    pairs = [{"question": one["question"], "answer": one["answer"]} for one in asked]
    row = {"video": media.video(name if Path(name).suffix else f"{name}.mp4"), "question": CAPTION[found[0]]}
    return row | {"judge": pairs, "group": {"aspect": found[0]}}


def _choice(video: str, question: str, options: Iterable[str], answer: str) -> Row:
    return {"video": video, "question": question, "options": list(options), "answer": answer}


READERS: dict[str, Callable[[Record, str, Media], Row]] = {
    "mvbench": _mvbench,
    "perception-test": _perception_test,
    "longvideobench": _longvideobench,
    "mlvu": _mlvu,
    "video-mme": _video_mme,
    "lvbench": _lvbench,
    "charades-sta": _charades,
    "videoeval-pro": _videoeval_pro,
    "videoeval-pro-open": _videoeval_pro_open,
    "vdc": _vdc,
}
