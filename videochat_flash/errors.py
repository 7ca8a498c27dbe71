"""The one place where errors, warnings and interruptions of a command end: in one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from .failures import out_of_memory
from .show import one_line

FULL = "too little memory: fewer frames (--max-frames) or a smaller form of the model (--quantization int8) take less"


class Misuse(typer.BadParameter):
    """Options that no command could follow."""

    def format_message(self) -> str:
        """The reason alone: it names the option."""
        return self.message


@contextmanager
def usage() -> Iterator[None]:
    """What the library refuses in here is the fault of the options."""
    try:
        yield
    except ValueError as error:
        raise Misuse(str(error)) from None


def check_target(path: Path) -> None:
    """Raises OSError now, for a file that could not be written after minutes of work."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it")
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file but a device or a pipe, whose place a file would take: name a file")
    if not path.parent.is_dir():
        raise NotADirectoryError(f"{path.parent} is not a folder: {path.name} cannot be written there")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} cannot be written to: choose another folder")


def ended(name: str, call: Callable[[list[str]], object], quiet: bool = False) -> int:
    """Call a command, which may look at the warnings told so far, and return its exit code.

    Wrong options end with 2, anything else with 1 and Ctrl-C with 130; an error says so in one line on stderr.
    """
    notes: list[str] = []

    def note(message: Warning | str, *_: object, **__: object) -> None:
        text = one_line(message)
        if text not in notes:
            notes.append(text)
            if not quiet:
                complain(name, f"note: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = note
        try:
            code = call(notes)
            sys.stdout.flush()
        except typer.TyperException as error:
            complain(name, error.format_message())
            code = error.exit_code
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: say no more
            code = 1
        except (ValueError, OSError) as error:
            complain(name, _reason(error))
            code = 1
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            complain(name, f"{FULL} ({error})" if str(error) else FULL)
            code = 1
        except KeyboardInterrupt:
            code = 130
    return code if isinstance(code, int) else 0


def complain(name: str, error: object) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{name}: {one_line(error)}\n")


def _reason(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
