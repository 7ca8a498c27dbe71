"""report.md: a summary for people, with what its figures do not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .compat import depth_label
from .score import CONTROLS

Facts = Mapping[str, Any]


def report(facts: Facts) -> str:
    """The report as Markdown."""
    parts = [_head(facts)]
    parts += [_single(facts["single"])] if facts["single"] else []
    parts += [_multi(facts["multi"])] if facts["multi"] else []
    parts += [_by_haystack(facts)] if facts["by_haystack"] else []
    parts += [_controls(facts["controls"])] if facts["controls"] else []
    parts += [_against(facts["against"])] if facts.get("against") else []
    parts += [_limits(facts)]
    return "\n\n".join(parts) + "\n"


def percent(share: float | None) -> str:
    """A share as people write it."""
    return "-" if share is None else f"{100 * share:.1f} %"


def _head(facts: Facts) -> str:
    run, counts = facts["run"], facts["counts"]
    settings = run["settings"]
    lines = [
        "# Needle in a video haystack",
        "",
        f"- model: {settings['model']}{' ' + settings['revision'] if settings.get('revision') else ''}, "
        f"by {settings['transport']}, {settings.get('dtype', 'as served')}",
        f"- mode: {facts['mode']}; flags: {', '.join(facts['flags']) or 'none'}",
        f"- trials: {_tally(counts['grid'])}",
        *([f"- of controls: {_tally(counts['controls'])}"] if counts["controls"]["trials"] else []),
        f"- seconds of answering: {counts['seconds']:g}",
    ]
    known = {"trained to": "trained", "rope window": "window", "haystack without repeats": "unique"}
    told = [f"{words} {facts['lines'][name]:,} frames" for words, name in known.items() if facts["lines"][name]]
    lines += [f"- {', '.join(told)}"] if told else []
    lines += [f"- deviation from the reference: {words}" for words in facts["deviations"]]
    for stack in facts["suite"]["haystacks"]:
        again = "frames are shown more than once" if stack["repeated"] else "no frame is shown twice"
        lines.append(
            f"- haystack {stack['name']}: {stack['unique']} different frames, {again}; "
            f"{stack['near_duplicates']} look like one before them"
        )
    lines += [f"- failed: {number} x {error}" for error, number in counts["error_kinds"].items()]
    return "\n".join(lines)


def _tally(counts: Facts) -> str:
    return (
        f"{counts['answered']} of {counts['trials']} answered, {counts['errors']} failed (not scored), "
        f"{counts['missing']} not run; of the answers {counts['unparsed']} could not be read and {counts['empty']} "
        f"were empty, both count as wrong; {counts['cut']} were cut off at their last token (--max-new-tokens)"
    )


def _single(one: Facts) -> str:
    lengths, depths = (sorted({cell[name] for cell in one["cells"]}) for name in ("length", "depth"))
    told = {(cell["length"], cell["depth"]): cell for cell in one["cells"]}
    rows = [[depth_label(depth), *(_cell(told[length, depth]) for length in lengths)] for depth in depths]
    rows.append(["all depths", *(_interval(row, "column") for row in one["by_length"])])
    reliable = f"{one['reliable_length']:,.0f} frames" if one["reliable_length"] else "none"
    lines = [
        "## Single-hop",
        "",
        f"Grid mean {_interval(one['mean'])}, chance {percent(one['chance'])}{_design(one['mean'])}.",
        f"Longest reliable length (every cell's lower bound at least 90 %): {reliable}; "
        f"a cell needs {one['reliable_needs']} items without a mistake for that.",
    ]
    if one["all_rotations"] is not None:
        lines.append(f"Right in all orders of the options: {percent(one['all_rotations'])}.")
    return "\n".join([*lines, "", *_table(["depth", *(f"{length:,.0f}" for length in lengths)], rows)])


def _design(mean: Facts) -> str:
    if mean["mean"] is None:
        return ""
    return f"; design effect {mean['design']:.1f}, as much as {mean['effective']:.0f} independent ones in films"


def _cell(cell: Facts) -> str:
    if not cell["asked"]:
        return "-"
    return f"{percent(cell['accuracy'])} ({100 * cell['low']:.0f} to {100 * cell['high']:.0f}, n {cell['asked']})"


def _interval(mean: Facts, whole: str = "grid") -> str:
    if mean["mean"] is None:
        return "-"
    told = f"{percent(mean['mean'])} ({100 * mean['low']:.1f} to {100 * mean['high']:.1f})"
    return f"{told} of an incomplete {whole}" if mean["incomplete"] else told


def _multi(one: Facts) -> str:
    columns = [*one["by_length"], one]
    rows = [
        [name, *(_cell(column[key]) for column in columns)]
        for name, key in (
            ("CAP: what the last frame shows", "cap"),
            ("QA, marginal: its detail, whatever CAP said", "qa"),
            ("QA, joint: both right (the paper's QA)", "qa_joint"),
            ("QA where CAP is right", "qa_given_cap"),
        )
    ]
    rows.append(["mean of CAP and QA (the reference's Score)", *(percent(c["mean_of_cap_and_qa"]) for c in columns)])
    rows += [[name, *(str(column["counts"][name]) for column in columns)] for name in one["counts"]]
    cells = [[f"{cell['length']:,.0f}", f"{cell['hops']:g}", _cell(cell)] for cell in one["cells"]]
    lengths = [f"{column['length']:,.0f}" for column in one["by_length"]]
    lines = [
        "## Multi-hop",
        "",
        f"{'Chains with pointers' if one['pointers'] else 'Cards that are named'}, everything right: "
        f"{_interval(one['joint'])}; who cannot tell which {'chain' if one['pointers'] else 'card'} is meant gets "
        f"{percent(one['chance'])} by chance{_design(one['joint'])}.",
        "",
        *(_table(["chains with pointers, by frames", *lengths, "all"], rows) if one["cap"]["asked"] else ()),
        "",
        *_table(["frames", "hops", "everything right"], cells),
    ]
    return "\n".join(lines)


def _by_haystack(facts: Facts) -> str:
    names = [stack["name"] for stack in facts["suite"]["haystacks"]]
    kinds = [kind for kind in ("single", "multi") if facts[kind]]
    rows = [
        [name, *(_interval(one[kind]) if one[kind] else "-" for kind in kinds)]
        for name, one in zip(names, facts["by_haystack"], strict=True)
    ]
    told = {"single": "single-hop", "multi": "multi-hop, everything right"}
    return "\n".join(["## By haystack", "", *_table(["haystack", *(told[kind] for kind in kinds)], rows)])


def _controls(told: Facts) -> str:
    lines = ["## Controls", "", "On the first items, at the shortest length; chains count as a whole."]
    for suite, one in told.items():
        rows = [[name, CONTROLS[name], _cell(share), _cell(share["whole"])] for name, share in one["shares"].items()]
        lines += ["", f"{suite}-hop:", "", *_table(["", "control", "right", "the same in the whole film"], rows), ""]
        lines.append(f"Between blind (0) and needle alone (1): {percent(one['blind_adjusted'])}.")
        if one["chain_necessity"] is not None:
            less = "whole film less broken chains, which leave a guess among last cards"
            lines.append(f"Chain necessity ({less}): {percent(one['chain_necessity'])}.")
    return "\n".join(lines)


def _against(told: Facts) -> str:
    rows = [
        [
            one["part"],
            f"{100 * one['difference']:+.1f} points",
            str(one["trials"]),
            str(one["clusters"]),
            "< 0.001" if one["p"] < 0.001 else f"{one['p']:.3f}",
        ]
        for one in told["parts"]
    ]
    lines = [
        f"## Against {told['name']}",
        "",
        "On what both runs have answered: an item counts once in a film, however often its letters were turned, and a "
        "chain as a whole. p is that of a permutation test which swaps the two runs for whole items.",
        "",
        *_table(["", "difference", "items in films", "items", "p"], rows),
    ]
    return "\n".join(lines)


def _limits(facts: Facts) -> str:
    rows = [[percent(one), percent(other), f"{number:,}"] for one, other, number in facts["power"]]
    lines = [
        "## What these figures do not show",
        "",
        "Cells have Wilson intervals, means those of a bootstrap over needles and haystacks: trials of one needle are "
        "not independent. The grid mean is no accuracy at any one length.",
        "",
        "Independent items for each of two runs, to tell two shares apart (80 % power, 5 % level):",
        "",
        *_table(["one", "other", "items"], rows),
    ]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
