"""The needle suites of this project run against its own server as against any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from haystacks import small
from serving import Served

from videochat_flash.niah.endpoint import Endpoint, Line
from videochat_flash.niah.place import length_of

FRAMES = 'vcflash_frames_total{how="asked"}'
pytestmark = pytest.mark.usefixtures("unchecked")


def test_trials_are_answered_over_http(served: Served, tmp_path: Path) -> None:
    suite = small(tmp_path / "suite", lengths=(16,), depths=(0.5,), items=2, controls=0)
    ask = Endpoint(Line(served.url, served.model, retries=0, timeout=600), suite)
    before = served.told().get(FRAMES, 0)
    said = [ask(trial) for trial in suite.trials]
    assert said and all(one.text and one.rows > 0 for one in said)
    shown = sum(length_of(trial.film) for trial in suite.trials)
    assert served.told()[FRAMES] - before == shown  # every frame that was sent
