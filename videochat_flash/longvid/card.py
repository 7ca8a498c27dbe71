"""The data set's card, as model hubs read it: what is in it, where it comes from, under which licenses."""

from __future__ import annotations

from pathlib import Path

from ..files import beside
from .report import Facts, copies, table, totals
from .settings import Setting
from .write import FOLDER, Written

CARD = """---
task_categories:
- video-text-to-text
language:
- en
---

# Long-video instructions: {sources}

{questions:,} questions with answers about {films:,} videos of {hours:,.2f} hours{beside}, made by `vcflash longvid`.
The videos are not part of this folder, except where there are WebDataset shards.

{licenses}

A question falls under the license of what its answer was taken from.

## Where every sentence comes from

Each record names what made its question (`maker`), the entries that its answer was taken from (`origins`: file and
entry of an annotation, the endpoint's model and prompt, or the renderer of hidden cards), the seconds that have to be
seen (`evidence`), its source and license.

{makers}

## Limits

Answers are as right as the annotations. A count or an order holds for what annotations tell, which may not be all that
is to be seen. What an endpoint wrote was not read by a person.

## Files

{files}
"""


def card(facts: Facts, setting: Setting, written: Written) -> str:
    """The card as Markdown."""
    licenses = [
        (source.label, source.license, f"{facts.kept[source.label]['films']:,}")
        for source in setting.source
        if source.label in facts.kept
    ]
    makers = [(name, f"{number:,}") for name, number in facts.makers.most_common()]
    folder = Path(setting.out) / FOLDER
    told = totals(facts)
    return CARD.format(
        **told,
        beside=copies(told["copies"]),
        sources=", ".join(sorted(facts.kept)),
        licenses="\n".join(table(("source", "license", "films"), licenses)),
        makers="\n".join(table(("maker", "questions"), makers)),
        files="\n".join(f"- `{path.relative_to(folder)}`" for path in written.files),
    )


def save(setting: Setting, facts: Facts, written: Written) -> Path:
    """Write the card; returns its file.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(setting.out) / FOLDER / "README.md"
    with beside(path) as part:
        part.write_text(card(facts, setting, written), encoding="utf-8")
    return path
