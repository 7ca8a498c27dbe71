"""report.md: a run for people, with what its figures do not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..show import one_line

Facts = Mapping[str, Any]
TITLES = {"answers": "Answers", "intervals": "Intervals"}


def report(facts: Facts) -> str:
    """The report as Markdown."""
    parts = [_head(facts)]
    parts += [_section(name, facts[name]) for name in TITLES if facts[name]]
    parts += [_against(facts["against"])] if facts.get("against") else []
    parts += [_left_out(facts)] if not facts["complete"] or facts["counts"]["others"] else []
    return "\n\n".join([*parts, _meaning(facts)]) + "\n"


def percent(share: float | None) -> str:
    """A share as people write it."""
    return "-" if share is None else f"{100 * share:.1f} %"


def spread(bounds: Sequence[float] | None) -> str:
    """An interval of shares."""
    return "-" if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"


def _head(facts: Facts) -> str:
    run, counts = facts["run"], facts["counts"]
    settings = run["settings"]
    frames = ", ".join(f"{name} {value}" for name, value in settings["frames"].items())
    lines = [
        "# Evaluation",
        "",
        f"- model: {settings['model']}, {settings['dtype']}, dropout {settings['keep']}",
        f"- frames: {frames}; prompt: {settings['prompt']}",
        f"- rows: {counts['rows']} about {counts['videos']} videos, {counts['answered']} answered; "
        f"of the answers {counts['unparsed']} could not be read and {counts['empty']} were empty, both count as wrong",
        f"- seconds of seeing and answering: {counts['seconds']:g}",
    ]
    if not facts["complete"]:
        lines.insert(2, f"**Incomplete**: {counts['rows'] - counts['answered']} rows are not in these scores.\n")
    return "\n".join(lines)


def _section(name: str, section: Facts) -> str:
    total = section["all"]
    lines = [f"## {TITLES[name]}", "", *_table(["", *_columns(name)], [["all", *_cells(name, total)]])]
    if section["at_least"] != total["score"]:
        lines += ["", f"With all that was left out counted as wrong: {percent(section['at_least'])}."]
    for axis, labels in section["axes"].items():
        rows = [[label, *_cells(name, row)] for label, row in labels.items()]
        lines += ["", f"### By {axis.replace('_', ' ')}", "", *_table([axis, *_columns(name)], rows)]
        if len(rows) > 1:
            lines += ["", f"Mean of these {len(rows)}, each weighing the same: {percent(section['means'][axis])}."]
    return "\n".join(lines)


def _columns(name: str) -> list[str]:
    if name == "intervals":
        return ["n", "mIoU", "95 % by video", "R@0.3", "R@0.5", "R@0.7", "blind", "constant", "unparsed", "reference"]
    return ["n", "right", "95 % (Wilson)", "95 % by video", "blind", "chance", "constant", "unparsed", "reference"]


def _cells(name: str, row: Facts) -> list[str]:
    count, lost = f"{row['asked']:,}", str(row["unparsed"] + row["empty"])
    baselines = [percent(row["blind"])] + ([] if name == "intervals" else [percent(row["chance"])])
    ends = [*baselines, percent(row["constant"]), lost, percent(row["reference"])]
    if name == "intervals":
        recalls = [percent(one) for one in row["recall"].values()]
        return [count, percent(row["score"]), spread(row["clustered"]), *recalls, *ends]
    return [count, percent(row["score"]), spread(row["wilson"]), spread(row["clustered"]), *ends]


def _against(told: Facts) -> str:
    lines = [f"## Against {told['name']}", ""]
    for name, title in TITLES.items():
        if name in told["sections"]:
            one = told["sections"][name]
            lines.append(
                f"- {title}: {100 * one['difference']:+.1f} points (there {percent(one['against'])}) on "
                f"{one['trials']:,} common questions about {one['clusters']} videos, p = {one['p']:.4f}"
            )
    return "\n".join([*lines, "", "Paired permutation test that swaps the two runs for whole videos, two-sided."])


def _left_out(facts: Facts) -> str:
    counts = facts["counts"]
    lines = ["## Left out", ""]
    told = {
        "unasked": f"rows that cannot be asked ({facts['flaw_kinds']})",
        "failed": "questions that failed",
        "missing": "questions that were not asked",
        "others": "results of rows that are not in the file, or were changed since",
    }
    lines += [f"- {counts[name]} {words}" for name, words in told.items() if counts[name]]
    lines += [f"- {one_line(words)}" for words in facts["flaws"]]
    lines += [f"- {number} x {one_line(error)}" for error, number in facts["errors"].items()]
    return "\n".join(lines)


def _meaning(facts: Facts) -> str:
    return "\n".join(
        [
            "## How to read it",
            "",
            "- Answers are read strictly: what has to be guessed counts as wrong, and is counted under *unparsed*. "
            f"*Reference* is the reference's own reading ({facts['reference']}), which guesses; compare it with "
            "published numbers only.",
            "- Wilson's interval takes questions as independent; *by video* resamples whole videos, and is the one to "
            "trust where several questions are about one.",
            "- *Blind* is the same model without the video, *chance* a guess among the options, *constant* the one "
            "answer that is best for all: only what is above them comes from seeing.",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(one_line(cell).replace('|', '/') for cell in row)} |"
