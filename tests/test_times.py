"""Intervals of time in every form that answers have them in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash.times import interval

FORMS = {
    "2.5 - 7": (2.5, 7),
    "2.5-7": (2.5, 7),
    "2.5 to 7": (2.5, 7),
    "From 12 to 15 seconds.": (12, 15),
    "It is shown from 12 to 15 seconds": (12, 15),
    "From 0 seconds to 1 second.": (0, 1),
    "from 2.5 s until 7 s": (2.5, 7),
    "2.5s – 7s": (2.5, 7),
    "2.5—7 sec": (2.5, 7),
    "2.5 \u2212 7 secs": (2.5, 7),
    "２.５ ～ ７": (2.5, 7),
    "The event happens in the 24.3 - 30.4 seonds.": (24.3, 30.4),
    "The event 'person turn a light on' happens in the 24.3 - 30.4": (24.3, 30.4),
    "It happens between 2 and 7 s of the video": (2, 7),
    "[2.5, 7]": (2.5, 7),
    "(2.5; 7.0)": (2.5, 7),
    "1:02 - 1:20.5": (62, 80.5),
    "from 00:02 to 00:07, roughly": (2, 7),
    "0:01:02 to 1:00:20": (62, 3620),
    "1 min 2 s to 1 min 20 s": (62, 80),
    "1m2s - 1m20s": (62, 80),
    "from 1 minute 5 to 1 minute 20 seconds": (65, 80),
    "from 1 minute and 5 to 1 minute and 20 seconds": (65, 80),
    "1 minute, 5 to 1 minute, 20 seconds": (65, 80),
    "between 1 minute 5 and 1 minute 20 seconds": (65, 80),
    "1m5 - 1m20": (65, 80),
    "It is shown from 1 minute 5 to 1 minute 20.": (65, 80),
    "[1 minute 5, 1 minute 20]": (65, 80),
    "starts at 1 minute 5 and ends at 1 minute 20 seconds": (65, 80),
    "from 1 hour 5 to 1 hour 20 minutes": (3900, 4800),
    "from 1 hour 2 minutes 5 to 1 hour 2 minutes 20 seconds": (3725, 3740),
    "from 1 minute to 2 minutes 5 people walk": (60, 120),
    "between 1 minute and 2 minutes and 30": (60, 150),
    "From 1 minute 2.5 seconds to 2 minutes, 3 and 4 are shown": (62.5, 120),
    "1 to 2 minutes": (60, 120),
    "1.5 minutes to 2 minutes": (90, 120),
    "1 h 2 min 3 s to 1 h 3 min 3 s": (3723, 3783),
    "From 1 hour 30 minutes to 1 hour 30 minutes 20 seconds.": (5400, 5420),
    "from 1 hour 2 minutes to 1 hour 5 minutes": (3720, 3900),
    "from 1 hour and 2 minutes to 1 hour, 5 minutes and 3 seconds": (3720, 3903),
    "between 1 hour and 2 hours": (3600, 7200),
    "between 2 minutes and 2 minutes and 30 seconds": (120, 150),
    "1 to 2 hours": (3600, 7200),
    "1 second to 2 hours": (1, 7200),
    "It is shown at **1 - 2** minutes.": (60, 120),
    "(1 - 2) minutes": (60, 120),
    "The red star is shown in [12, 15] seconds.": (12, 15),
    "starts at 2.5 s and ends at 7 s": (2.5, 7),
    "Start time: 2.5, end time: 7": (2.5, 7),
    "The person begins at 3.5 seconds. He finishes at 9 seconds.": (3.5, 9),
    "start: 00:03\nend: 00:09": (3, 9),
    '{"start": 2.5, "end": 7}': (2.5, 7),
    "**2 - 3**": (2, 3),
    "From 3 to 5 seconds. Yes, from 3 to 5 seconds (0:03 - 0:05).": (3, 5),
    "2-3 people walk in from 5 to 7 seconds": (5, 7),
    "The photo is taken to the store at 3 to 5": (3, 5),
    "0 - 15": (0, 15),
}
NONE = [
    "",
    " ",
    "12",
    "at 12 seconds",
    "There is no such event.",
    "2-3 people walk in",
    "between 2 and 3 people walk in",
    "starts with 2 people and ends with 5 people",
    "from twelve to 15 seconds",
    "From 1 to 2 sections",
    "From 12 to 12 seconds.",
    "7 to 3 s",  # ends before it starts
    "5 - 5",  # as it starts
    "from 1 minute 5 to 20 seconds",  # of which minute?
    "after 1 minute, 5 to 10 seconds",
    "1 hour 5 to 1 hour 20 seconds",
    "3 to 5 s or 7 to 9 s",  # which?
    "from 3 to 4 and from 5 to 6 seconds",
    "12,5 - 15,3",
    "1e9 - 2e9",
    "-5 - 3",
    "1-2-3",
    "nan - inf",
    "tomorrow, into the 3rd store",
    "1:75 - 2:80",
    "v1.2.3 - 1.2.4",
]


@pytest.mark.parametrize("text", FORMS)
def test_an_interval_is_read_in_any_form(text: str) -> None:
    assert interval(text) == pytest.approx(FORMS[text])


@pytest.mark.parametrize("text", NONE)
def test_and_nothing_is_guessed(text: str) -> None:
    assert interval(text) is None


TIMES = st.decimals(0, 9999, places=1, allow_nan=False).map(float)


@given(TIMES, TIMES, st.sampled_from(["{:.1f} - {:.1f}", "From {:.1f} to {:.1f} seconds.", "[{:.1f}, {:.1f}]"]))
def test_what_is_written_is_read_back(start: float, end: float, form: str) -> None:
    assert interval(form.format(start, end)) == ((start, end) if start < end else None)


@given(st.integers(0, 20_000), st.integers(1, 20_000))
def test_clocks_are_read_back(start: int, length: int) -> None:
    def clock(seconds: int) -> str:
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    assert interval(f"{clock(start)} to {clock(start + length)}") == (start, start + length)


@given(st.text(max_size=60))
def test_any_text_is_taken(text: str) -> None:
    said = interval(text)
    assert said is None or said[0] < said[1]


@given(st.integers(0, 500), st.integers(1, 500))
def test_what_flash_tiny_is_taught_to_say_is_one_of_the_forms(start: int, length: int) -> None:
    assert interval(f"From {start} to {start + length} seconds.") == (start, start + length)
