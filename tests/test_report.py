"""The report: quotas are met, arithmetic is right, and what is written is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videochat_flash import VideoChatFlash
from videochat_flash.config import parse_plan
from videochat_flash.stats import wilson
from videochat_flash.synth import HOPS, KINDS, Question
from videochat_flash.train import report
from videochat_flash.train.report import Quota, Record, Setting, measure, rows_of, wanted_of

pytestmark = pytest.mark.usefixtures("unchecked")


def test_how_many_are_asked_of_each_kind() -> None:
    wanted = wanted_of(500, 100, 60)
    assert (wanted["character"], wanted["colour"], wanted["shape"], wanted["motion"]) == (167, 167, 166, 100)
    assert wanted["presence"] == wanted["order"] == wanted["speed"] == wanted["description"] == 60
    assert wanted.keys() == set(KINDS)
    assert wanted_of(2, 0, 0) == {"character": 1, "colour": 1}
    assert wanted_of(0, 0, 0, hops=5, grounding=7) == {**dict.fromkeys(HOPS, 5), "grounding": 7}


def test_a_quota_takes_a_share_of_every_video() -> None:
    quota = Quota.of({"colour": 5, "motion": 1})
    questions = [Question(str(i), "a", "colour" if i % 2 else "motion", (0, 1)) for i in range(40)]
    assert [one.kind for one in quota.take(questions)].count("colour") == 5 and quota.met
    assert quota.take(questions) == []
    shares = Quota.of({"colour": 500, "motion": 100})
    assert len(shares.take(questions)) == shares.share["colour"] + shares.share["motion"] < 40 and not shares.met


def record(kind: str, truth: str, answers: dict[str, str], blind: str = "") -> Record:
    return Record(64, "procedural", 1, kind, "?", truth, answers, blind)


def test_rows_count_exact_matches() -> None:
    records = [
        record("colour", "red", {"off": "red", "own": "blue"}, "red"),
        record("colour", "blue", {"off": "Blue", "own": "blue"}, "red"),
        record("shape", "star", {"off": "star", "own": "the red star: star"}, "x"),
        *(record("presence", truth, {"off": "yes", "own": "no"}, "yes") for truth in ("yes", "yes", "no")),
    ]
    rows = {(row.kind, row.keep): row for row in rows_of(records)}
    counts = {
        "attribute": [(2, 3), (2, 3)],
        "colour": [(1, 2)] * 2,
        "shape": [(1, 1)] * 2,
        "presence": [(2, 3), (1, 3)],
    }
    for kind, (off, own) in counts.items():
        assert [(rows[kind, keep].right, rows[kind, keep].asked) for keep in ("off", "own")] == [off, own]
    assert len(rows) == 8
    assert rows["attribute", "off"].chance == pytest.approx((2 / 8 + 1 / 6) / 3)
    assert rows["attribute", "off"].blind == pytest.approx(1 / 3)
    assert rows["presence", "off"].chance == rows["presence", "off"].blind == pytest.approx(2 / 3)
    assert rows["colour", "off"].interval == wilson(1, 2)


def hop(chain: str, hops: int, answers: str, blind: str = "x") -> list[Record]:
    """What was answered to the three questions about a chain whose truths are abc."""
    return [
        Record(64, "procedural", 1, kind, "?", truth, {"off": said}, blind, chain, hops)
        for kind, truth, said in zip(HOPS, "abc", answers, strict=True)
    ]


def test_a_chain_counts_when_all_of_it_is_right() -> None:
    records = [*hop("red star", 1, "abc"), *hop("blue star", 1, "abx"), *hop("red cross", 3, "abc", "a")]
    rows = {row.kind: row for row in rows_of(records)}
    assert list(rows) == [*HOPS, *(f"multi-hop, joint{hops}" for hops in ("", ", 1", ", 3"))]
    assert [(row.right, row.asked) for row in rows.values()] == [(3, 3), (3, 3), (2, 3), (2, 3), (1, 2), (1, 1)]
    assert all(row.chance == 1 / 2 for row in rows.values())
    assert rows["multi-hop, joint"].interval == wilson(2, 3) and rows["multi-hop, joint"].blind == 0
    assert rows["hop_character"].blind == pytest.approx(1 / 3)


def test_when_something_is_shown_is_scored_by_overlap() -> None:
    first, second = "From 2 to 4 seconds.", "From 3 to 5 seconds."
    records = [
        record("grounding", first, {"off": first}, "From 0 to 4 seconds."),
        record("grounding", second, {"off": "From 4 to 5 seconds."}, "no"),
    ]
    exact, overlap = rows_of(records)
    assert (exact.kind, exact.right, exact.accuracy) == ("grounding", 1, 0.5)
    assert (overlap.kind, overlap.right, overlap.asked) == ("grounding, mIoU", 1.5, 2)
    assert overlap.accuracy == pytest.approx(0.75) and overlap.blind == pytest.approx(0.25)
    assert overlap.chance == pytest.approx(1 / 3) and overlap.interval == wilson(1.5, 2)


def test_what_descriptions_name_is_counted_on_request() -> None:
    truth = "A red star with the digit 7."
    records = [record("description", truth, {"off": "A red cross with the digit 7."}, "A blue star.")]
    assert [row.kind for row in rows_of(records)] == ["description"]
    exact, named = rows_of(records, named=True)
    assert (exact.right, named.right, named.asked) == (0, 1, 2) and named.kind == "description, named"
    assert named.blind == 1 / 2 and named.chance == pytest.approx((1 / 8 + 1 / 6) / 2)


def test_records_are_saved_as_before_but_for_chains() -> None:
    plain = record("colour", "red", {"off": "red"}).plain()
    assert list(plain) == ["frames", "haystack", "seed", "kind", "question", "truth", "answers", "blind"]
    assert list(hop("red star", 1, "abc")[0].plain()) == [*plain, "chain", "hops"]


def test_what_else_is_measured_changes_no_video_and_chains_are_taken_whole(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vc = VideoChatFlash.from_pretrained(model)
    monkeypatch.setattr(vc, "answer", lambda *_, **__: "a")

    def asked(**wanted: int) -> list[Record]:
        setting = Setting((24,), ("procedural",), {"off": ()}, wanted_of(3, 1, 0, **wanted), 1)
        return list(measure(vc, setting, lambda done, total: None))

    plain, more = asked(), asked(hops=3, grounding=2)
    assert more[: len(plain)] == plain and len(plain) == 4
    chains = {(one.seed, one.chain) for one in more if one.kind in HOPS}
    assert len(chains) == 3
    assert [(one.seed, one.chain) in chains for one in more].count(True) == 9
    for kind in HOPS:
        assert {(one.seed, one.chain) for one in more if one.kind == kind} == chains
    assert [one.kind for one in more[-2:]] == ["grounding"] * 2
    assert {one.hops for one in more} == {0, *(1 + one.seed % 10_000 % 3 for one in more if one.chain)}


def test_equal_plans_are_asked_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vc, asked = VideoChatFlash.from_pretrained(model), []

    def answer(sight: object, question: str, **more: object) -> str:
        asked.append((sight is None, question, more.get("keep")))
        return "  a "

    monkeypatch.setattr(vc, "answer", answer)
    plan = parse_plan("2:0.5")
    setting = Setting((16,), ("procedural",), {"own": plan, "same": plan, "off": ()}, {"colour": 3}, 1)
    told: list[tuple[int, int]] = []
    records = list(measure(vc, setting, lambda done, total: told.append((done, total))))
    assert len(records) == 3 and told[-1] == (3, 3)
    assert [one.answers for one in records] == [{"own": "a", "same": "a", "off": "a"}] * 3
    assert len(asked) == 3 * 3 and sum(blind for blind, *_ in asked) == 3


def test_kinds_that_a_length_cannot_show_end_in_an_error(model: Path) -> None:
    vc = VideoChatFlash.from_pretrained(model)
    setting = Setting((4,), ("procedural",), {"off": ()}, {"motion": 1}, 1)
    with pytest.raises(ValueError, match="4 frames show no motion"):
        list(measure(vc, setting, lambda done, total: None))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["report", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        report.main()
    return int(ended.value.code or 0)


def test_the_command_measures_and_writes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.json"
    few = ["--questions", 4, "--motion", 1, "--others", 1, "--frames", "16,24", "--model", model, "--out", out]
    assert run(monkeypatch, *few, "--keep", "default", "--keep", "off") == 0
    told = capsys.readouterr()
    assert told.err == "" and str(out) in told.out
    facts = json.loads(out.read_text())
    assert len(facts["records"]) == 2 * (4 + 1 + 4)
    assert {(row["frames"], row["keep"]) for row in facts["rows"]} == {
        (n, k) for n in (16, 24) for k in ("default", "off")
    }
    assert {row["kind"] for row in facts["rows"]} == {"attribute", *KINDS}
    assert all(row["right"] == 0 for row in facts["rows"] if row["kind"] != "presence")
    assert facts["setting"]["seed"] == 1000 and facts["made_by"] and facts["seconds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_stopped_command_goes_on_and_ends_as_if_it_had_not_been_stopped(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--questions", 20, "--motion", 0, "--others", 2, "--frames", "16,24", "--model", model, "--keep", "off"]
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    assert run(monkeypatch, *few, "--out", whole) == 0
    see, seen = VideoChatFlash.see, list[object]()

    def failing(self: VideoChatFlash, *asked: object) -> object:
        seen.append(asked)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return see(self, *asked)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoChatFlash, "see", failing)
    assert run(monkeypatch, *few, "--out", parts) == 130 and not parts.exists()
    capsys.readouterr()
    assert run(monkeypatch, *few, "--seed", 7, "--out", parts) == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and "results of another run (seed 1000 there, 7 now)" in told
    assert run(monkeypatch, *few, "--out", parts) == 0
    one, other = (json.loads(path.read_text()) for path in (whole, parts))
    assert one["records"] == other["records"] and one["rows"] == other["rows"] and other["seconds"] > 0
    assert len(seen) == 1 + len({video["seed"] for video in one["records"]})  # the stopped one twice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.json", "whole.json"]


def test_the_command_measures_more_on_request(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.json"
    few = ["--questions", 0, "--motion", 0, "--others", 1, "--frames", "24", "--model", model, "--out", out]
    assert run(monkeypatch, *few, "--keep", "off", "--hops", 2, "--grounding", 2, "--named") == 0
    told = capsys.readouterr()
    assert told.err == "" and "multi-hop, joint" in told.out and "grounding, mIoU" in told.out
    facts = json.loads(out.read_text())
    rows = {row["kind"]: row for row in facts["rows"]}
    assert {"description, named", "multi-hop, joint", "grounding", *HOPS} <= set(rows)
    assert len(facts["records"]) == 4 + 3 * 2 + 2
    assert rows["multi-hop, joint"]["asked"] == 2 and rows["grounding, mIoU"]["asked"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--frames", "10"], 2, "'10'"),
        (["--frames", "64,,"], 2, "64,,"),
        (["--keep", "much"], 2, "much"),
        (["--model", "flash-tinny"], 1, "flash-tinny"),
    ],
)
def test_the_command_refuses(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert run(monkeypatch, *arguments, "--out", tmp_path / "report.json") == code
    told = capsys.readouterr()
    assert words in told.err and len(told.err.splitlines()) == 1 and not any(tmp_path.iterdir())
