"""vcflash bench: measure stages, compute them, or hold one way against another. Heavy imports stand inside."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import errors, show
from ..files import beside
from ..options import TINY, Dtype, Json, Keep, KeepBy, KvCacheDtype, Quantization, Quiet, known_device, typed
from . import options

if TYPE_CHECKING:
    from .tasks import Found

NOT_TOLD = ("out", "write", "as_json", "quiet")  # options that change nothing in what is found
# Options that change nothing beside another one, by the names of their parameters.
IDLE = {
    "plan": ("size", "tokens", "repeats", "warmup", "whole"),
    "compare": ("size", "tokens", "whole"),
    "video": ("size",),
}


def bench(
    context: typer.Context,
    video: options.Video = None,
    frames: options.Frames = None,
    size: options.Size = "640x360",
    model: options.Model = TINY,
    random: options.Random = False,
    image_size: options.ImageSize = None,
    device: options.Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    kv_cache_dtype: KvCacheDtype = "auto",
    keep: Keep = None,
    keep_by: KeepBy = None,
    tokens: options.Tokens = 16,
    repeats: options.Repeats = 3,
    warmup: options.Warmup = 1,
    whole: options.Whole = True,
    plan: options.Plan = False,
    share: options.Share = 0.5,
    compare: options.Compare = None,
    out: options.Out = None,
    write: options.Write = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure every stage from pixels to tokens: time, operations, bytes, memory, and how near the machine's peaks."""
    from ..needle import parse_size
    from ..quantise import Packing
    from ..session import DTYPES, plan_of
    from . import tasks
    from .stages import Setting

    with errors.usage():
        if plan and (compare is not None or video):
            raise ValueError(f"--plan runs nothing: leave out {'--video' if video else '--compare'}")
        _check_idle(typed(context))
        _check_device(device, plan)
        counts, bars = _frames(frames), not (quiet or as_json)
        compared = tasks.comparisons(compare) if compare is not None else ()
        packing, drops = Packing.of(quantization, kv_cache_dtype), plan_of(keep, keep_by)
        asked = tasks.Asked(model, random, image_size, device, DTYPES[dtype], packing, drops, counts, bars)
        settings = [
            Setting(n, video, parse_size(size), asked.keep, tokens, repeats, warmup, whole, packing)
            for n in counts or tasks.FEW
        ]
        asked.check(share, compared)
        if video and compared and "reading" not in compared:
            raise ValueError(f"--compare {compare} draws its frames: leave out --video, or compare reading")
    _check_targets(out, write, drawn=not compared)
    if plan:
        found = tasks.compute(asked, share)
    elif compared:
        found = tasks.hold(asked, compared, settings[0])
    else:
        found = tasks.measure(asked, settings)
    _tell(found, _command(context), context.obj, out, write, as_json, quiet)


def _frames(text: str | None) -> tuple[int, ...] | None:
    """A list such as 256,1024."""
    if text is None:
        return None
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"--frames {text!r} is not a number, nor several as 256,1024") from None


def _check_device(device: str, plan: bool) -> None:
    """Raises ValueError or BadParameter for a name that no device has; whether it is there is seen later."""
    from ..cost import GPUS, gpu_named

    if device.lower() in {name.lower() for name in GPUS} and not plan:
        raise ValueError(f"{device} is not a device of PyTorch: add --plan to compute for it, or name cuda")
    if plan and device.partition(":")[0] not in ("cpu", "cuda", "mps"):
        gpu_named(device)
    else:
        known_device(device)


def _check_targets(out: Path | None, write: Path | None, drawn: bool) -> None:
    """Now, not after minutes of work."""
    from .document import sections_of

    if write is not None:
        errors.check_target(write)
        sections_of(write)
    if out is not None:
        if drawn and find_spec("matplotlib") is None:
            raise ValueError("matplotlib is not installed: pip install 'videochat-flash[bench]', or leave out --out")
        out.mkdir(parents=True, exist_ok=True)
        errors.check_target(out / "bench.json")


def _check_idle(given: Mapping[str, str]) -> None:
    """Raises ValueError for an option that would change nothing."""
    for name, idle in IDLE.items():
        for other in idle:
            if name in given and other in given:
                raise ValueError(f"{given[other]} changes nothing with {given[name]}: leave it out")
    if "share" in given and "plan" not in given:
        raise ValueError("--share changes nothing without --plan: leave it out, or add --plan")


def _command(context: typer.Context) -> str:
    """What was typed, as far as it matters; of a file or folder its name alone."""
    words = ["vcflash", "bench"]
    for name, option in typed(context).items():
        if name in NOT_TOLD:
            continue
        value = context.params[name]
        for one in value if isinstance(value, list | tuple) else [value]:
            words.append(option)
            words += [] if isinstance(one, bool) else [Path(str(one)).name if Path(str(one)).exists() else str(one)]
    return shlex.join(words)


def _tell(
    found: Found, command: str, notes: Sequence[str], out: Path | None, write: Path | None, as_json: bool, quiet: bool
) -> None:
    """Print, and then write what is to be written: no full disk and no reader who left may lose what was found."""
    from .gauge import circumstances
    from .report import machine_facts, subject, surroundings

    about = circumstances()
    facts = {"command": command, **about, "machine": machine_facts(found.peaks), **found.facts, "warnings": notes}
    told = [surroundings(about, found.peaks), subject(found.facts)]
    try:
        if as_json:
            typer.echo(json.dumps(facts, ensure_ascii=False))
        else:
            _print(told, found)
    finally:
        made = _written(found, facts, [*told, *(table.markdown() for table in found.tables)], out, write)
    for path in made:
        if not (as_json and quiet):
            typer.echo(path, err=as_json)


def _print(told: Sequence[str], found: Found) -> None:
    """For people."""
    for line in told:
        typer.echo(line)
    for table in found.tables:
        show.print_table(table.title, table.header, table.rows)
        for note in table.notes:
            typer.echo(note)


def _written(
    found: Found, facts: Mapping[str, Any], paragraphs: Sequence[str], out: Path | None, write: Path | None
) -> list[Path]:
    """The files that were asked for."""
    from .document import put, section

    command, notes = facts["command"], [f"Note: {note}." for note in facts["warnings"]]
    made: list[Path] = []
    picture = out / "bench.png" if out is not None and found.bars else None
    if picture is not None:
        from .plot import draw

        draw(found.bars, command, picture)

    def page(folder: Path) -> str:
        seen = [f"![stages]({Path(relpath(picture, folder)).as_posix()})"] if picture is not None else []
        marks = [f"{name} {mark}" for name, mark in facts["marks"].items()]
        return section(command, [*paragraphs, *notes, *seen], marks)

    if out is not None:
        texts = {"bench.json": json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "bench.md": page(out)}
        for name, text in texts.items():
            with beside(out / name) as part:
                part.write_text(text, encoding="utf-8")
        made = [*(out / name for name in texts), *([picture] if picture is not None else [])]
    if write is not None:
        put(write, page(write.parent))
        made.append(write)
    return made
