"""Steps: what fails, what is lost, what is damaged on disk, and what workers cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longvid_corpus import video

from videochat_flash.journal import canonical
from videochat_flash.longvid.cluster import packed, unpacked
from videochat_flash.longvid.records import Film, line_of
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
