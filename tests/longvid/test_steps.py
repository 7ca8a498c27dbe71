"""Steps: what fails, what is lost, what is damaged on disk, and what workers cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from longvid_corpus import video

from videochat_flash.longvid.records import Film, line_of
from videochat_flash.longvid.steps import Made, Ran, Step, check
from videochat_flash.longvid.steps import run as run_step


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
