"""What a terminal shows: progress bars, tables of facts, one-line messages. Knows nothing of models and videos."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

WIDE = 120  # columns where there is no terminal to ask


@runtime_checkable
class Told(Protocol):
    """Is told how much is done, of how much, and maybe how it goes."""

    def __call__(self, done: int, total: int, words: str = "") -> None: ...


def one_line(words: object) -> str:
    """A message on a single line, whatever stands in the names that it quotes."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(words)).split())


@contextmanager
def progress(what: str, wanted: bool) -> Iterator[Told]:
    """A bar on stderr, gone when all is done; none where it is not wanted or stderr is no terminal."""
    if not wanted or not sys.stderr.isatty():
        yield lambda done, total, words="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=None)

        def told(done: int, total: int, words: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{what} {words}".strip())
            if done >= total:
                bar.stop()  # before anything else is written: an answer must not run into the bar

        yield told


def print_facts(facts: Mapping[str, object]) -> None:
    """A table of two columns on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), words(value))
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE).print(table)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: the first column names, the others are numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(
            name, justify="right" if number else "left", style=None if number else "cyan", no_wrap=not number
        )
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE).print(table)


def words(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {words(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return " to ".join(words(one) for one in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.10g}" if abs(value) >= 1e5 or value == 0 or abs(value) < 1e-2 else f"{value:,.2f}"
    return str(value)


def peak_megabytes() -> float:
    """The most memory that this program has held.

    Linux tells it of the program alone; what getrusage tells there begins with the size of whoever started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):  # some systems that look like Linux have none
                return round(int(line.split()[1]) / 2**10, 1)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(held / (2**20 if sys.platform == "darwin" else 2**10), 1)
