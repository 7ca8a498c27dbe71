"""The command line as tests use it: in this process where that is enough, in one of its own where it is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import rich.console  # noqa: F401  draws random numbers when it is loaded, which no test may be blamed for
from tiny import LLM, VISION, model, tokenizer

from videochat_flash import cli
from videochat_flash.config import Config, Drop
from videochat_flash.generate import Decoding
from videochat_flash.prompt import plain_text
from videochat_flash.weights import save_model

# Fast, but in the released layout: 324 patches of a clip -> 64 tokens, half of them dropped before layer 2.
SMALL = Config(
    vision=replace(VISION, image_size=144),
    llm=replace(LLM, vocab=512, max_positions=4096),
    keep=(Drop(2, 0.5), Drop(4, 0.25)),
)
ENTRY = (sys.executable, "-m", "videochat_flash.cli")
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it said on stderr."""
        return self.err.splitlines()


@cache
def small_model(folder: Path, seed: int = 0) -> Path:
    """A random model in a folder; what it answers is nonsense, and always the same."""
    made = folder / f"small-{seed}"
    ended = (tokenizer().token_to_id("<|im_end|>"),)
    save_model(made, model(SMALL, seed), plain_text(tokenizer()), Decoding(max_new_tokens=6, eos=ended))
    return made


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """A command in this process."""
    capsys.readouterr()
    code = cli.run([str(one) for one in arguments])
    told = capsys.readouterr()
    return Done(code, told.out, told.err)


def heeds_interrupts() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and so would everything that this starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object, entry: Sequence[str] = ENTRY, **how: object) -> subprocess.Popen[str]:
    """A command in its own process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    pipes |= {"preexec_fn": heeds_interrupts, **how}
    return subprocess.Popen([*entry, *map(str, arguments)], env=environment, text=True, **pipes)  # type: ignore[call-overload]


def finished(process: subprocess.Popen[str]) -> Done:
    """Wait for it."""
    out, err = process.communicate(timeout=600)  # machines that test are busy
    return Done(process.returncode, out or "", err or "")


def ray_began(said: str) -> None:
    """Skips where the machine is too busy for Ray, which has half a minute to begin, and no option for more."""
    if "timed out during startup" in said:
        pytest.skip("this machine is too busy for Ray to begin within its 30 s")
