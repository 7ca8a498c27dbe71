"""Seconds, peaks of memory, and what a machine reaches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from videochat_flash.bench import gauge
from videochat_flash.bench.gauge import Gauge, Spread, by_data_sheet, circumstances, device_name, measured

CPU = torch.device("cpu")
MEGABYTE = 2**20


def test_a_spread_is_median_and_quartiles() -> None:
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(2.0, 3.0, 4.0)


def test_pieces_of_a_stage_add_up() -> None:
    made = Gauge(CPU)
    for name in ("a", "b", "a"):
        with made.stage(name):
            sum(range(1000))
    one = made.readings["a"].seconds
    with made.stage("a"):
        sum(range(1000))
    assert list(made.readings) == ["a", "b"] and 0 < one < made.readings["a"].seconds
    assert made.readings["a"].device is None


@pytest.mark.skipif(not gauge.REWIND.exists(), reason="the system does not let a peak be reset")
def test_the_peak_is_that_of_the_stage_alone() -> None:
    made = Gauge(CPU)
    with made.stage("large"):
        held = np.ones(200 * MEGABYTE, np.uint8)
        del held
    with made.stage("small"):
        np.ones(MEGABYTE, np.uint8)
    large, small = made.readings["large"], made.readings["small"]
    assert large.host and small.host and large.host - small.host > 150 * MEGABYTE
    assert (large.added or 0) > 190 * MEGABYTE and (small.added or 0) < 50 * MEGABYTE


def test_without_a_way_to_reset_it_no_peak_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gauge, "REWIND", tmp_path / "absent")
    made = Gauge(CPU)
    with made.stage("a"):
        pass
    assert made.readings["a"].host is None and made.readings["a"].added is None


def test_a_stage_that_fails_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="no"), Gauge(CPU).stage("a"):
        raise RuntimeError("no")


def test_peaks_are_measured_in_the_type_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge, "SIZES", {"cpu": (64,)})
    monkeypatch.setattr(gauge, "COPIED", {"cpu": 2**16})
    monkeypatch.setattr(gauge, "TRY", 0.0)
    for dtype in (torch.float32, torch.bfloat16):
        made = measured(CPU, dtype)
        assert made.flops > 0 and made.bandwidth > 0 and (made.memory or 0) > 1e8
        assert made.name == device_name(CPU) and made.source == "measured in this run"


def test_data_sheets_know_types() -> None:
    half, full = by_data_sheet("a100-80", torch.bfloat16), by_data_sheet("A100-80", torch.float32)
    assert (half.flops, full.flops, half.bandwidth, half.memory) == (312e12, 19.5e12, 2039e9, 80e9)
    with pytest.raises(ValueError, match="did you mean H200"):
        by_data_sheet("H2000", torch.bfloat16)


def test_circumstances_name_machine_and_versions() -> None:
    told = circumstances()
    versions = told["versions"]
    assert isinstance(versions, dict) and {"torch", "python", "videochat-flash", "av"} <= versions.keys()
    assert told["cores"] and told["processor"]


def others(monkeypatch: pytest.MonkeyPatch, load: Path, *lines: str) -> None:
    """What the system tells, one look after the other, on two cores, with an average of the last minute beside it."""
    told = iter(lines)
    monkeypatch.setattr(gauge.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(gauge, "LOADAVG", load)
    monkeypatch.setattr(gauge, "LOOKS", len(lines))
    monkeypatch.setattr(gauge.time, "sleep", lambda seconds: load.write_text(next(told)))


def test_others_at_work_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load = tmp_path / "loadavg"
    load.touch()
    others(monkeypatch, load, "0.00 0.00 0.00 5/211 77\n", "0.00 0.00 0.00 3/211 77\n")
    assert gauge.busy() == 1.5  # three, of which this one is none
    others(monkeypatch, load, "9.00 9.00 9.00 1/211 77\n", "9.00 9.00 9.00 2/211 77\n")
    assert gauge.busy() is None  # whatever ran before


def test_where_nothing_tells_of_this_moment_the_last_minute_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    others(monkeypatch, tmp_path / "absent")
    monkeypatch.setattr(gauge.os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert gauge.busy() == 1.5
    monkeypatch.setattr(gauge.os, "getloadavg", lambda: (0.1, 9.0, 9.0))
    assert gauge.busy() is None
