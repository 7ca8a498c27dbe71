"""A task of lmms-eval beside its rows: the benchmark's YAML, which rows it is about, and a metric for each label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..items import Item
from .tasks import labels

FOLDER = Path(__file__).parent / "yaml"
COMMON = "include: paper.yaml"
BY_LABEL = "  - {{metric: {kind}_{label}, aggregation: !function {home}.{how}, higher_is_better: true}}\n"


def name_of(benchmark: str, items: Sequence[Item]) -> str:
    """As ``mvbench_paper``; with subtitles it is another task, since its figures are others."""
    said = "_subtitles" if any(item.subtitles is not None for item in items) else ""
    return f"{benchmark.replace('-', '_')}{said}_paper"


def task_of(benchmark: str, items: Sequence[Item], rows: Path) -> str:
    """The YAML of a task.

    Args:
        benchmark: whose rows they are.
        items: the rows.
        rows: their file. The task goes beside it; videos are looked for in its folder.
    """
    kind, how = ("accuracy", "mean") if any(item.judged for item in items) else ("paper", "reference")
    found = dict.fromkeys(label for item in items for label in labels(item))
    lines = [
        BY_LABEL.format(kind=kind, label=label, home=labels.__module__, how=how)
        for label in sorted(found)
        if not all(item.interval for item in items)
    ]
    common = f"include: {json.dumps(str(FOLDER / 'paper.yaml'))}"
    return (
        f"task: {name_of(benchmark, items)}\n"
        f"dataset_kwargs: {{data_files: {{test: {json.dumps(rows.name)}}}}}\n"
        f"lmms_eval_specific_kwargs: {{default: {{folder: {json.dumps(str(rows.parent.absolute()))}}}}}\n"
        + (FOLDER / f"{benchmark}.yaml").read_text(encoding="utf-8").replace(COMMON, common)
        + "".join(lines)
    )
