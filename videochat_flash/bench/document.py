"""A Markdown file of what commands found: a section for each command line and its files, instead of the earlier one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..files import beside

HEAD = """# Benchmarks

Written by `vcflash bench`: a section for each command line, with the machine and the versions that it ran on. Marks
behind it are of its model and its video where these are a folder and a file: others may have the same names. Seconds
are medians, with quartiles beside them. Looking into a file and resizing its frames are parts of decoding it. FLOP are
those of matrix products, two for each multiply-add, in causal attention only those that are needed; bytes are the
fewest that a stage must read and write. *Of peak* is held against a matrix product, *of copy* against a copy, both
measured in the same run and in the type that the stage computes in. Memory is the peak while the stage ran: of the
whole program on the host, of PyTorch on a device; *added* is what a comparison's arm held beyond what was there before
(model, library), and *as much* holds that against the first arm's.
"""


def section(command: str, paragraphs: Sequence[str], marks: Sequence[str] = ()) -> str:
    """What one command found, as Markdown; ``marks`` are of what it names by a file, as ``model 1a2b3c4d``."""
    return "\n\n".join([", ".join([f"## `{command}`", *marks]), *paragraphs]) + "\n"


def sections_of(path: Path) -> list[str]:
    """The head of a file and its sections; the head alone where there is no file yet.

    Raises:
        ValueError: a file that was not written by this command.
    """
    whole = path.read_text(encoding="utf-8") if path.exists() else HEAD
    if not whole.startswith(HEAD.partition("\n")[0] + "\n"):
        raise ValueError(f"{path} was not written by vcflash bench: name another file")
    return re.split(r"^(?=## )", whole, flags=re.MULTILINE)


def put(path: Path, text: str) -> None:
    """Write a section into a file: in place of the one with the same heading, or at the end.

    Raises:
        ValueError: a file that was not written by this command.
        OSError: it cannot be written there.
    """
    sections = sections_of(path)
    heading = text.partition("\n")[0]
    places = [i for i, one in enumerate(sections) if one.partition("\n")[0] == heading]
    if places:
        sections[places[0]] = text
    else:
        sections.append(text)
    with beside(path) as part:
        part.write_text("\n".join(one.rstrip() + "\n" for one in sections), encoding="utf-8")
