"""Steps: what fails, what is lost, what is damaged on disk, and what workers cannot do."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from longvid_corpus import video

from videochat_flash.journal import canonical
from videochat_flash.longvid.cluster import Cluster, packed, part_of, unpacked
from videochat_flash.longvid.records import Film, line_of, read_asides
from videochat_flash.longvid.steps import Made, Ran, Step, check
from videochat_flash.longvid.steps import run as run_step
from videochat_flash.longvid.workers import Pool


def lines(count: int) -> Callable[[], Iterator[str]]:
    """Lines of so many films."""
    return lambda: (line_of(Film(video(key=f"{number:032x}"))) for number in range(count))


def failing(*numbers: int) -> Step:
    """A step on which some films fail."""

    def work(film: Film) -> Made:
        if int(film.video.key, 16) in numbers:
            raise ValueError("broken")
        return Made((film,))

    return Step("some", {}, lambda: work)


def test_a_single_failure_never_stops_a_step(tmp_path: Path) -> None:
    ran = run_step(failing(3), lines(200), tmp_path, 0.001)
    assert (ran.records, ran.films, ran.failed) == (200, 199, 1)
    check(ran, 0.001, tmp_path)


def test_failures_that_come_first_do_not_stop_what_the_limit_allows(tmp_path: Path) -> None:
    for _ in range(2):  # failed ones are tried again, first of all
        ran = run_step(failing(0, 1, 2), lines(60), tmp_path, 0.1)
        assert (ran.records, ran.films, ran.failed) == (60, 57, 3)
        check(ran, 0.1, tmp_path)


def test_a_step_ends_where_the_limit_is_passed_and_does_not_go_on_as_if_it_were_whole(tmp_path: Path) -> None:
    told: list[int] = []
    ran = run_step(failing(*range(60)), lines(60), tmp_path, 0.1, lambda done, _: told.append(done))
    assert isinstance(ran, Ran) and told[-1] == 20
    with pytest.raises(ValueError, match=r"some: 20 of 60 videos failed, more than the limit of 0.1"):
        check(ran, 0.1, tmp_path)


def test_a_damaged_line_of_a_journal_is_passed_over_and_its_record_done_anew(tmp_path: Path) -> None:
    run_step(failing(), lines(3), tmp_path, 0.1)
    whole = (tmp_path / "some.jsonl").read_bytes()
    journal = tmp_path / "journal" / "some.jsonl"
    first, second, third = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(first + b'{"key":"and more of a text: it is no key' + second[40:] + third)
    ran = run_step(failing(), lines(3), tmp_path, 0.1)
    assert (ran.before, ran.films) == (2, 3) and (tmp_path / "some.jsonl").read_bytes() == whole


def test_what_changes_while_a_step_works_is_told_of_and_done_by_the_next_run(tmp_path: Path) -> None:
    """Records are listed three times: to be counted, worked on, and written down."""
    listed = iter([(0, 1, 2), (0, 1, 2), (0, 7, 2), *[(0, 7)] * 3, (0, 7), (0, 7), (0,)])

    def some() -> Iterator[str]:
        return (line_of(Film(video(key=f"{number:032x}", path=f"{number}.mp4"))) for number in next(listed))

    def asides() -> list[tuple[str, str]]:
        return [(one.what, one.reason) for one in read_asides(tmp_path / "some.aside.jsonl")]

    ran = run_step(failing(), some, tmp_path, 0.1)
    assert (ran.records, ran.films, ran.failed, ran.kinds) == (3, 2, 1, {"failed": 1})
    assert asides() == [("7.mp4", "it was changed, or came, while the step was working: the same command works on it")]
    ran = run_step(failing(), some, tmp_path, 0.1)
    assert (ran.records, ran.films, ran.failed, asides()) == (2, 2, 0, [])
    ran = run_step(failing(), some, tmp_path, 0.1)
    assert (ran.records, ran.films, ran.failed) == (2, 1, 1)
    assert asides() == [("some.jsonl", "1 of 2 records were gone when the step had worked on them")]


def test_what_was_left_outside_of_the_journal_and_is_gone_is_done_anew(tmp_path: Path) -> None:
    gone = Step("some", {}, failing().worker, lost=lambda line: f'"{1:032x}"'.encode() in line)
    run_step(gone, lines(3), tmp_path, 0.1)
    ran = run_step(gone, lines(3), tmp_path, 0.1)
    assert (ran.before, ran.films, ran.failed) == (2, 3, 0)


@given(st.text())
def test_lines_come_to_a_cluster_as_they_are(text: str) -> None:
    line = canonical({"text": text})
    [one] = packed("0" * 32, line).splitlines()
    assert unpacked(one) == ("0" * 32, line)


def test_what_has_no_key_does_not_come_into_a_journal() -> None:
    with pytest.raises(ValueError, match="'and more of a text: it is no key' is no record's key"):
        unpacked('and more of a text: it is no key""')


def test_why_a_worker_cannot_begin_is_told_from_its_process() -> None:
    step = Step("some", {}, partial(int, "PySceneDetect"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="PySceneDetect"):
        list(Pool(2)(step, iter([("0" * 32, "{}")])))


def test_a_worker_that_ends_between_two_bunches_ends_the_run_in_one_line() -> None:
    """A pool that has lost its process takes nothing more."""

    def slow() -> Iterator[tuple[str, str]]:
        yield "0" * 32, "{}"
        deadline = time.monotonic() + 60
        while multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # until the pool knows it as well
        yield "1" * 32, "{}"

    step = Step("some", {}, partial(os._exit, 9))
    with pytest.raises(OSError, match="some: a worker process was ended: the same command goes on"):
        list(Pool(1)(step, slow()))


# A cluster, whose Ray is played by this process.


class RayError(Exception):
    """What Ray raises."""


class Data:
    """Ray's data: a block for each file, in one worker."""

    def __init__(self, breaks: bool) -> None:
        self.breaks, self.sizes = breaks, list[int]()

    def read_text(self, folder: str, override_num_blocks: int) -> Data:
        self.blocks = [path.read_text().splitlines() for path in sorted(Path(folder).iterdir())]
        assert len(self.blocks) == override_num_blocks
        return self

    def map_batches(self, kind: Any, fn_constructor_args: Sequence[Any], batch_size: None, concurrency: int) -> Data:
        self.worker = kind(*fn_constructor_args)
        return self

    def iter_rows(self) -> Iterator[dict[str, str]]:
        for block in self.blocks:
            if self.breaks:
                raise RayError("Traceback of Ray\n  and more of it\nSomeError: the actor died\n")
            self.sizes.append(len(block))
            made = self.worker({"text": np.array(block, dtype=object)})
            for line, why in zip(made["line"], made["why"], strict=True):
                yield {"line": line, "why": why}


def cluster(folder: Path, workers: int = 2, breaks: bool = False) -> Cluster:
    made = Cluster.__new__(Cluster)  # which joins no Ray
    ray = SimpleNamespace(data=Data(breaks), exceptions=SimpleNamespace(RayError=RayError))
    vars(made).update(ray=ray, workers=workers, folder=folder)
    return made


def test_a_cluster_gives_the_same_bytes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    run_step(failing(3), lines(60), tmp_path / "here", 0.1)
    where = cluster(tmp_path / "there")
    run_step(failing(3), lines(60), tmp_path / "there", 0.1, where=where)
    for name in ("some.jsonl", "some.aside.jsonl"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    sizes = where.ray.data.sizes
    assert sum(sizes) == 60 and sizes[:16] == [1] * 16 and max(sizes) <= 60 // 8
    assert not list((tmp_path / "there" / "journal").glob("*.todo"))


@given(st.integers(0, 10_000_000), st.integers(1, 1000))
def test_parts_of_a_cluster_are_small_beside_what_came_before(count: int, workers: int) -> None:
    size = part_of(count, workers)
    assert 1 <= size <= 256 and (size == 1 or 4 * workers * size <= count)


def test_why_a_cluster_fails_is_one_line(tmp_path: Path) -> None:
    step = Step("some", {}, partial(int, "PySceneDetect"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="PySceneDetect"):
        list(cluster(tmp_path)(step, iter([("0" * 32, "{}")])))
    words = r"some: a worker of the cluster failed \(SomeError: the actor died\): the same command goes on"
    with pytest.raises(OSError, match=words):
        list(cluster(tmp_path, breaks=True)(failing(), iter([("0" * 32, json.dumps({}))])))
    assert not list((tmp_path / "journal").glob("*.todo"))
