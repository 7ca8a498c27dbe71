"""Too little memory, in whichever words PyTorch says so: one line that names what helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..failures import out_of_memory

FEWER = "train fewer parts or adapters ([lora]), or use more processes"  # what helps against most of it


@contextmanager
def enough_memory(where: str, advice: str) -> Iterator[None]:
    """Says where it was too little in here, and what to do.

    Raises:
        ValueError: it was too little.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        if not out_of_memory(error):
            raise
        raise ValueError(f"out of memory {where}: {advice} ({text})") from None
