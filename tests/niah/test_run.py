"""Runs: nothing is asked twice, nothing recorded is lost, and results of something else are refused."""

from __future__ import annotations

import json
import threading
import time
from itertools import groupby
from pathlib import Path

import pytest
from command import start
from haystacks import Eyes, Request, Told, serving, small, truth

from videochat_flash.journal import read_run
from videochat_flash.niah import results
from videochat_flash.niah.results import Shard, read_results
from videochat_flash.niah.run import IN_A_ROW, Ran, in_order, run
from videochat_flash.niah.suite import Suite, Trial
from videochat_flash.remote import Refused, Unanswered

pytestmark = pytest.mark.usefixtures("unchecked")
ALL = Shard()


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return small(tmp_path_factory.mktemp("suites") / "little")


def quiet(*_: object) -> None:
    pass


def test_every_trial_is_asked_once(suite: Suite, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    asker, count = Told(truth), len(suite.trials)
    assert run(suite, tmp_path, asker, ALL, lambda *how: told.append(how)) == Ran(count, 0, count, 0)
    assert len(set(asker.asked)) == len(asker.asked) == count and told[-1] == (count, count, "")
    records = read_results(suite, tmp_path)
    assert all(records[one.id].text == truth(one) for one in suite.trials)
    assert run(suite, tmp_path, asker, ALL, quiet) == Ran(count, count, 0, 0) and len(asker.asked) == count


def test_what_failed_is_tried_again_and_never_an_answer(suite: Suite, tmp_path: Path) -> None:
    odd = {one.id for i, one in enumerate(suite.trials) if i % 2}
    first = Told(lambda one: None if one.id in odd else truth(one))
    told = run(suite, tmp_path, first, ALL, quiet)
    assert (told.failed, told.answered) == (len(odd), len(suite.trials) - len(odd))
    records = read_results(suite, tmp_path)
    assert {one.id for one in records.values() if one.status == "error"} == odd
    assert {records[name].error for name in odd} == {"it would not say"}
    second = Told(truth)
    assert run(suite, tmp_path, second, ALL, quiet).failed == 0
    assert set(second.asked) == odd and all(one.status == "ok" for one in read_results(suite, tmp_path).values())


def test_many_failures_in_a_row_end_the_run_and_keep_what_there_is(suite: Suite, tmp_path: Path) -> None:
    asked: list[str] = []

    def says(trial: object) -> str | None:
        asked.append("")
        return "A" if len(asked) <= 3 else None

    with pytest.raises(ValueError, match=f"{IN_A_ROW} trials in a row failed.*it would not say; 3 answers"):
        run(suite, tmp_path, Told(says), ALL, quiet)
    assert sum(one.status == "ok" for one in read_results(suite, tmp_path).values()) == 3


def test_what_is_always_refused_keeps_nothing_else_from_being_asked(tmp_path: Path) -> None:
    suite = small(tmp_path / "suite", haystacks=(("procedural",), ("procedural",)), items=8)

    def refusing(long: type[Unanswered]) -> Told:
        def says(trial: Trial) -> str:
            if trial.length == 32:
                raise long("HTTP 400: too long")
            return truth(trial)

        return Told(says)

    long = {one.id for one in suite.trials if one.length == 32}
    assert len(long) > 2 * IN_A_ROW
    told = run(suite, tmp_path / "refused", refusing(Refused), ALL, quiet)
    assert (told.failed, told.answered) == (len(long), len(suite.trials) - len(long))
    starts = 0
    while len(read_results(suite, tmp_path / "may pass") if starts else ()) < len(suite.trials):  # no start is in vain
        with pytest.raises(ValueError, match="in a row"):
            run(suite, tmp_path / "may pass", refusing(Unanswered), ALL, quiet)
        starts += 1
        assert starts <= len(long) // IN_A_ROW + 1
    with pytest.raises(ValueError, match=f"{IN_A_ROW} trials in a row failed"):  # a wrong key, say: all are refused
        run(suite, tmp_path / "none", Told(lambda _: _refuse()), ALL, quiet)


def _refuse() -> str:
    raise Refused("HTTP 401")


def test_shards_are_merged_by_concatenation(suite: Suite, tmp_path: Path) -> None:
    askers = [Told(truth) for _ in range(3)]
    for number, asker in enumerate(askers, 1):
        run(suite, tmp_path / "parts", asker, Shard(number, 3), quiet)
    asked = [name for asker in askers for name in asker.asked]
    assert sorted(asked) == sorted(one.id for one in suite.trials) and all(asker.asked for asker in askers)
    (tmp_path / "one").mkdir()
    files = results.files_of(tmp_path / "parts")
    assert [path.name for path in files] == [f"results-{i}-of-3.jsonl" for i in (1, 2, 3)]
    (tmp_path / "one" / "results.jsonl").write_bytes(b"".join(path.read_bytes() for path in files))
    assert read_results(suite, tmp_path / "one") == read_results(suite, tmp_path / "parts")


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "a/b", "1/0", "-1/4", "1/2/3"])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="shard"):
        Shard.parse(text)


def test_a_half_written_line_is_a_trial_that_was_not_run(suite: Suite, tmp_path: Path) -> None:
    run(suite, tmp_path, Told(truth), ALL, quiet)
    path = tmp_path / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    assert len(read_results(suite, tmp_path)) == len(suite.trials) - 1
    asker = Told(truth)
    run(suite, tmp_path, asker, ALL, quiet)
    assert len(asker.asked) == 1 and sorted(path.read_bytes().splitlines()) == sorted(b"".join(lines).splitlines())
    path.write_bytes(lines[0] + b'{"id": "x\n' + lines[1])
    with pytest.raises(ValueError, match=r"results.jsonl, line 2 is damaged"):
        read_results(suite, tmp_path)


def test_results_of_another_manifest_are_refused(suite: Suite, tmp_path: Path) -> None:
    other = small(tmp_path / "other", items=1)
    run(other, tmp_path / "run", Told(truth), ALL, quiet)
    with pytest.raises(ValueError, match="line 1: this is a result of another manifest"):
        read_results(suite, tmp_path / "run")
    before = (tmp_path / "run" / "results.jsonl").read_bytes()
    with pytest.raises(ValueError, match="another manifest"):
        run(suite, tmp_path / "run", Told(truth), ALL, quiet)
    assert (tmp_path / "run" / "results.jsonl").read_bytes() == before


def test_runs_are_not_mixed(suite: Suite, tmp_path: Path) -> None:
    run(suite, tmp_path, Told(truth), ALL, quiet)
    with pytest.raises(ValueError, match=r"another run \(model 'told' there, 'other' now\): name this one with --name"):
        run(suite, tmp_path, Told(truth, "other"), ALL, quiet)
    text = (tmp_path / "results.jsonl").read_text()
    mixed = json.dumps({**json.loads(text.splitlines()[0]), "run": "x"})
    (tmp_path / "results-1-of-2.jsonl").write_text(mixed + "\n")
    with pytest.raises(ValueError, match="mixes results of 2 runs"):
        read_results(suite, tmp_path)


def test_results_of_another_run_are_not_this_ones(suite: Suite, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(suite, tmp_path / name, Told(truth, name), ALL, quiet)
    (tmp_path / "b" / "results.jsonl").write_bytes((tmp_path / "a" / "results.jsonl").read_bytes())
    with pytest.raises(ValueError, match=r"another run than .*run\.json"):
        read_results(suite, tmp_path / "b", read_run(tmp_path / "b")["run"])
    with pytest.raises(ValueError, match=r"another run than .*run\.json"):
        run(suite, tmp_path / "b", Told(truth, "b"), ALL, quiet)


def test_what_is_worth_knowing_is_renewed(suite: Suite, tmp_path: Path) -> None:
    def known(facts: dict[str, object]) -> dict[str, object]:
        run(suite, tmp_path, Told(truth, facts=facts), ALL, quiet)
        return {name: read_run(tmp_path)["facts"].get(name) for name in ("trained", "delivery")}

    assert known({"trained": None, "delivery": "passed"}) == {"trained": None, "delivery": "passed"}
    assert known({"trained": 256, "delivery": "passed"}) == {"trained": 256, "delivery": "passed"}
    assert known({"trained": None, "delivery": "not checked"}) == {"trained": 256, "delivery": "not checked"}
    assert known({"trained": None, "delivery": "passed"}) == {"trained": 256, "delivery": "not checked"}


def test_half_a_character_is_kept_as_none(suite: Suite, tmp_path: Path) -> None:
    said = "A\ud800"
    assert run(suite, tmp_path, Told(lambda _: said), ALL, quiet).failed == 0
    assert {one.text for one in read_results(suite, tmp_path).values()} == {"A?"}


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """With real processes, and kill -9."""
    suite = small(tmp_path / "suite", lengths=(16,), depths=(0.0, 1.0), items=6, controls=0)
    path = tmp_path / "suite" / "results.jsonl"
    killed, eyes = threading.Event(), Eyes(suite)

    def stalls(request: Request) -> str:
        if request.number == 5:
            killed.wait(300)
        return eyes(request)

    with serving(stalls) as server:
        asked = [
            "niah",
            "run",
            suite.folder,
            "--endpoint",
            server.url,
            "--model",
            "m",
            "--no-delivery-check",
            "--quiet",
        ]
        process = start(*asked)
        limit = time.monotonic() + 300
        while not (path.is_file() and path.read_bytes().count(b"\n") == 5) and time.monotonic() < limit:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        killed.set()
        kept = path.read_bytes()
        assert kept.count(b"\n") == 5 and len(suite.trials) == 12
        before = len(server.requests)
        second = start(*asked)
        _, told = second.communicate(timeout=300)
        assert (second.returncode, told) == (0, "")
        assert len(server.requests) - before in (7, 8)  # one may have been on its way when its run was killed
    assert path.read_bytes().startswith(kept)
    records = read_results(suite, suite.folder)
    assert len(records) == len(suite.trials) and all(records[one.id].text == truth(one) for one in suite.trials)


def test_trials_of_one_film_follow_each_other(tmp_path: Path) -> None:
    suite = small(tmp_path / "a", lengths=(48, 64), hops=(1,), rotations=2, items=2)
    shuffled = sorted(suite.trials, key=lambda one: one.id)
    ordered = [(one.film, one.item, one.control, one.length) for one in in_order(shuffled)]
    assert len(list(groupby(ordered))) == len(set(ordered)) < len(ordered) / 2
