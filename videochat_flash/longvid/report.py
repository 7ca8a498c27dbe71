"""What a build came to: report.md, from the steps' files, each read once."""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..files import beside
from ..grade import LETTERS
from .pipeline import STEPS
from .records import Aside, Film, Question, read_asides, read_films, stored
from .settings import Setting, Sieve
from .sieve import length_of
from .write import SPLITS, Written

FAILURES = ("failed", "entry")
ASKED, CHANCE = "questions", "chance"
NUMBER = re.compile(r"\d+(?:\.\d+)?")
SHOWN = 12  # reasons that are listed
Steps = Mapping[str, Mapping[str, Any]]


@dataclass
class Facts:
    """Counts of a build.

    Attributes:
        kept: films, copies of them with hidden cards, hours, questions and words of the set, by source.
        licenses: films by license.
        tasks: questions by family, then kind.
        makers: questions by what made them.
        durations: seconds of each film, not of its copy.
        reasons: by step and kind of aside, how often each reason was given.
        options: by family and kind, the questions with options, the sum of their chances to be guessed, and how many
            each rule that reads the options alone has right.
    """

    kept: dict[str, Counter[str]] = field(default_factory=dict)
    licenses: Counter[str] = field(default_factory=Counter)
    tasks: dict[str, Counter[str]] = field(default_factory=dict)
    makers: Counter[str] = field(default_factory=Counter)
    durations: array[float] = field(default_factory=lambda: array("d"))
    answers: array[int] = field(default_factory=lambda: array("l"))
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    options: dict[str, dict[str, float]] = field(default_factory=dict)
    blind: Counter[str] = field(default_factory=Counter)


def facts_of(out: Path) -> Facts:
    """Count what the steps left.

    Raises:
        FileNotFoundError: the sieve has not run.
        ValueError: a damaged file.
    """
    facts = Facts()
    for film in read_films(stored(out, "sieve")):
        count(facts, film)
    for name in STEPS[:-1]:
        path = out / f"{name}.aside.jsonl"
        for one in read_asides(path) if path.is_file() else ():
            if one.kind == "rejected" and one.reason == "answered without the video":
                facts.blind["guessed"] += 1
            told = _kind_of_reason(one)
            facts.reasons.setdefault(f"{name}: {one.kind}", Counter())[told] += 1
    return facts


def _kind_of_reason(one: Aside) -> str:
    """A reason without the names and numbers that differ from case to case, so that it can be counted.

    The paths that an aside names itself are left out as they are: they may hold spaces.
    """
    reason = one.reason
    for path in (one.about, one.what):
        name = PurePosixPath(path).name  # of a copy of what lies in a bucket, the folder is another one
        if "/" in path and name:
            reason = re.sub(rf"\S*/{re.escape(name)}", "FILE", reason.replace(path, "FILE"))
    return re.sub(r"\b\d+(\.\d+)?\b", "N", re.sub(r"\S*/\S*", "FILE", reason))


def count(facts: Facts, film: Film) -> None:
    """Add a film of the set."""
    one = facts.kept.setdefault(film.video.source, Counter())
    if film.video.parent:  # a copy shows no more than its video
        one["copies"] += 1
    else:
        one["films"] += 1
        one["seconds"] += round(film.video.duration)
        facts.licenses[film.video.license] += 1
        facts.durations.append(film.video.duration)
    one["questions"] += len(film.questions)
    for question in film.questions:
        words = len(question.answer.split())
        one["words"] += words + len(question.question.split())
        facts.answers.append(words)
        facts.tasks.setdefault(question.family, Counter())[question.kind] += 1
        facts.makers[question.maker.split(" ")[0] if question.maker.startswith("template") else question.maker] += 1
        if question.options:
            _add(facts.options.setdefault(f"{question.family}.{question.kind}", {}), _tricks(question))
        if question.blind:
            facts.blind["asked and kept"] += 1
            facts.blind["guessed"] += question.guessed


def _add(told: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        told[name] = told.get(name, 0.0) + value


def _tricks(question: Question) -> dict[str, float]:
    """What of a question's answer can be had from its options alone: chance, and which rules are right."""
    options = question.options
    told = {ASKED: 1.0, CHANCE: 1 / len(options)}
    told[f"always ({LETTERS[options.index(question.answer)]})"] = 1.0
    rules: list[tuple[str, Callable[[str], float]]] = [("longest", len), ("shortest", lambda text: -len(text))]
    numbers = {option: float(found[0]) for option in options if (found := NUMBER.search(option))}
    if len(numbers) == len(options):
        rules += [("largest number", lambda text: numbers[text]), ("smallest number", lambda text: -numbers[text])]
    for name, size in rules:
        best = [option for option in options if size(option) == max(map(size, options))]
        told[name] = (question.answer in best) / len(best)  # of several, one is drawn
    return told


def totals(facts: Facts) -> dict[str, Any]:
    """The main figures, as JSON."""
    whole = sum(facts.kept.values(), Counter())
    return {
        "films": whole["films"],
        "copies": whole["copies"],
        "hours": round(whole["seconds"] / 3600, 3),
        "questions": whole["questions"],
        "words": whole["words"],
        "families": {name: sum(kinds.values()) for name, kinds in sorted(facts.tasks.items())},
        "kept_aside": {name: sum(reasons.values()) for name, reasons in facts.reasons.items()},
    }


# -- in words ----------------------------------------------------------------------------------------------------------


def report(facts: Facts, steps: Steps, written: Written | None, rules: Sieve | None = None) -> str:
    """The report as Markdown; ``rules`` are what the set was to be balanced by."""
    told = totals(facts)
    lines = ["# What was built", ""]
    lines += [f"- {told['films']:,} films{copies(told['copies'])}, {told['hours']:,.2f} hours, "]
    lines[-1] += f"{told['questions']:,} questions, {told['words']:,} words"
    if written:
        lines += [
            f"- {split}: {written.records[split]:,} records of {written.videos[split]:,} films"
            + copies(written.copied[split])
            for split in SPLITS
        ]
    lines += list(_chance(facts))
    lines += list(_unbalanced(facts, rules or Sieve()))
    lines += ["", *table(("source", "films", "copies", "hours", "questions", "words"), list(_sources(facts)))]
    lines += ["", "## Tasks", "", "![Questions by family and kind](tasks.png)", ""]
    lines += table(("family", "kind", "questions", "with options", "guessing", "best rule"), list(_tasks(facts)))
    lines += ["", "## Durations", "", "![Films and answers by length](lengths.png)", ""]
    lines += list(_lengths(facts))
    lines += ["", "## What was kept aside", "", "![Reasons](aside.png)", ""]
    rows = [
        (name, reason, f"{number:,}")
        for name, reasons in facts.reasons.items()
        for reason, number in reasons.most_common(SHOWN)
    ]
    lines += table(("step: kind", "reason", "times"), rows) if rows else ["Nothing."]
    lines += ["", "Every one with its text: `*.aside.jsonl` beside this file.", "", "## Steps", ""]
    told_of = [
        (name, *(f"{one[key]:,}" for key in ("records", "before", "failed", "entries", "bad_entries", "films")))
        for name, one in steps.items()
    ]
    lines += table(("step", "records", "there before", "failed", "entries", "bad entries", "films out"), told_of)
    return "\n".join(lines) + "\n"


def copies(number: int) -> str:
    """How many copies there are beside films, where there are any."""
    return f", {number:,} copies of films with hidden cards" if number else ""


def _chance(facts: Facts) -> Iterator[str]:
    """What guessing is worth."""
    whole: dict[str, float] = {}
    for one in facts.options.values():
        _add(whole, one)
    if whole:
        yield f"- {whole[ASKED]:,.0f} questions have options: whoever guesses is right on {_share(whole, CHANCE)}; " + (
            f"the best rule that reads nothing but the options ({_best(whole)}) on {_share(whole, _best(whole))}"
        )
    if facts.blind:
        counts = ", ".join(f"{number:,} {words}" for words, number in sorted(facts.blind.items()))
        yield f"- asked without the video: {counts}"


def _unbalanced(facts: Facts, rules: Sieve) -> Iterator[str]:
    """Which family or length of answers is more of the set than it was to be."""
    families = Counter({name: sum(kinds.values()) for name, kinds in facts.tasks.items()})
    lengths = Counter(map(length_of, facts.answers))
    for key, most, counts in (
        ("family_share", rules.family_share, families),
        ("length_share", rules.length_share, lengths),
    ):
        for name, number in counts.items():
            if number > most * counts.total():
                yield (
                    f"- {100 * number / counts.total():.0f} % of the questions are of {name}, more than sieve.{key} "
                    f"{most:g}: the rest of them is too few (sieve.balance_leaves {rules.balance_leaves:g})"
                )


def _tasks(facts: Facts) -> Iterator[tuple[str, ...]]:
    for family, kinds in sorted(facts.tasks.items()):
        for kind, number in sorted(kinds.items()):
            yield family, kind, f"{number:,}", *_guesses(facts, f"{family}.{kind}")


def _best(told: Mapping[str, float]) -> str:
    """The rule that is right most often."""
    return max((name for name in told if name not in (ASKED, CHANCE)), key=lambda name: (told[name], name))


def _share(told: Mapping[str, float], name: str) -> str:
    return f"{100 * told[name] / told[ASKED]:.1f} %"


def _guesses(facts: Facts, name: str) -> tuple[str, ...]:
    """Of a family and kind: questions with options, what guessing is worth, and the best rule."""
    told = facts.options.get(name)
    if told is None:
        return ("", "", "")
    return f"{told[ASKED]:,.0f}", _share(told, CHANCE), f"{_share(told, _best(told))} ({_best(told)})"


def _sources(facts: Facts) -> Iterator[tuple[str, ...]]:
    for name, one in sorted(facts.kept.items()):
        hours = f"{one['seconds'] / 3600:,.2f}"
        yield name, f"{one['films']:,}", f"{one['copies']:,}", hours, f"{one['questions']:,}", f"{one['words']:,}"


def _lengths(facts: Facts) -> Iterator[str]:
    for what, values, unit in (("films", facts.durations, "s"), ("answers", facts.answers, "words")):
        if len(values):
            low, middle, high = np.percentile(np.array(values), [5, 50, 95])
            yield f"- {what}: median {middle:,.0f} {unit}, from {low:,.0f} to {high:,.0f} (5 % and 95 %)"
    counts = Counter(map(length_of, sorted(facts.answers)))
    if counts:
        yield f"- answers of {', '.join(f'{name}: {number:,}' for name, number in counts.items())}"


def table(head: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a Markdown table."""
    marks = "|".join("---" for _ in head)
    body = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", f"|{marks}|", *body]


def texts(setting: Setting, facts: Facts, steps: Steps, written: Written | None) -> list[Path]:
    """Write report.md and report.json; returns them.

    Raises:
        OSError: they cannot be written.
    """
    out = Path(setting.out)
    told = json.dumps({**totals(facts), "steps": steps}, indent=1, ensure_ascii=False) + "\n"
    made = {out / "report.md": report(facts, steps, written, setting.sieve), out / "report.json": told}
    for path, text in made.items():
        with beside(path) as part:
            part.write_text(text, encoding="utf-8")
    return list(made)
