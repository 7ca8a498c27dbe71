"""Every command and every line of Python in the README does what it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import ENTRY, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
LINES = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


def ran(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_commands_and_python_run_in_the_order_of_the_page_and_say_what_it_says(tmp_path: Path) -> None:
    commands = [line for line in LINES if line.startswith("vcflash ")]
    assert len(commands) >= 6 and len(PYTHON) == 1
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    for line in commands:
        said = ran(tmp_path, *ENTRY, *shlex.split(line, comments=True)[1:])
        assert said and said.strip().startswith(line.partition("  # ")[2])
    answers = re.findall(r"  # prints: (.*)", PYTHON[0])
    assert answers == ran(tmp_path, sys.executable, "-c", PYTHON[0]).splitlines()


def test_make_targets_are_there() -> None:
    targets = {line.split()[1] for line in LINES if line.startswith("make ")}
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert targets and targets <= there
