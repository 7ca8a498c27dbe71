"""Figures as tables for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from .compare import Comparison
from .gauge import Machine, Spread
from .plan import RESERVED, Forecast
from .smaller import Cost
from .stages import WHOLE, Run, Stage
from .work import CONNECTOR, DECODE, PREFILL, RESIZE, TOKEN, TOWER, Work

Facts = dict[str, object]
Peaks = Mapping[torch.dtype, Machine]  # what the machine reaches in each type that is computed in, the tower's first
NO_READING = (
    "Decoding and resizing are not in it: they are the host's work, depend on the file, and run beside the rest. "
    "Measure them with --video."
)
WRITTEN_OUT = (
    "Weights and rows that are held smaller are written out where they are used, on a GPU for every token: "
    "the seconds of a token do not have that in them."
)
COLD = (TOWER, CONNECTOR, PREFILL, WHOLE)  # stages that may pay for more when they run for the first time
STAGED = ("stage", "median", "quartiles", "per second", "FLOP", "FLOP/s", "of peak", "bytes", "of copy")


@dataclass(frozen=True)
class Table:
    """Rows of words under a title; ``notes`` stand below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """As GitHub shows it."""
        lines = [self.header, ("---",) + ("---:",) * (len(self.header) - 1), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([f"**{self.title}**", table, *self.notes])


# -- words -------------------------------------------------------------------------------------------------------------


def scaled(value: float | None, unit: str) -> str:
    """A number with three digits and a prefix: 1.23 TFLOP."""
    if value is None:
        return "–"
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{digits(value / size)} {prefix}{unit}"
    return f"{digits(value)} {unit}"


def seconds(*values: float) -> str:
    """In whatever unit reads best for the first; several from one to the other."""
    size, unit = next((one for one in ((1.0, "s"), (1e-3, "ms")) if values[0] >= one[0]), (1e-6, "µs"))
    return f"{' to '.join(digits(value / size) for value in values)} {unit}"


def digits(value: float) -> str:
    """A number to three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def _pace(work: Work, each: float) -> str:
    """Frames or tokens a second."""
    return scaled(work.units / each, "tokens" if work.units == 1 else "frames")


def share(value: float | None) -> str:
    """In per cent."""
    if value is None or 0 < value < 0.0005:
        return "–" if value is None else "< 0.1%"
    return f"{value:.0%}" if value >= 0.0995 else f"{value:.1%}"


# -- measured ----------------------------------------------------------------------------------------------------------


def rates(stage: Stage, peaks: Peaks) -> tuple[float | None, float | None, float | None, float | None]:
    """Operations a second and their share of the peak, bytes a second and theirs; None where none count, and no share
    of what is computed in several types."""
    median, machine = Spread.of(stage.seconds).median, None if stage.dtype is None else peaks[stage.dtype]
    flops, moved = (None if work is None else work / median for work in (stage.work.flops, stage.work.bytes))
    return (
        flops,
        None if flops is None or machine is None else flops / machine.flops,
        moved,
        None if moved is None or machine is None else moved / machine.bandwidth,
    )


def stage_facts(stage: Stage, peaks: Peaks) -> Facts:
    """Everything that is told of a stage, in SI units."""
    spread, work = Spread.of(stage.seconds), stage.work
    flops, of_peak, moved, of_copy = rates(stage, peaks)
    return {
        "seconds": asdict(spread),
        "all_seconds": stage.seconds,
        "units_per_second": work.units / spread.median,
        "flop": work.flops,
        "flop_per_second": flops,
        "share_of_matmul": of_peak,
        "bytes": work.bytes,
        "bytes_per_second": moved,
        "share_of_copy": of_copy,
        "peak_host_bytes": stage.host,
        "peak_device_bytes": stage.device,
    }


def run_facts(run: Run, peaks: Peaks) -> Facts:
    """One number of frames."""
    stages = {name: stage_facts(stage, peaks) for name, stage in run.stages.items()}
    return {
        "frames": run.frames,
        "rows": run.rows,
        "visual_rows_per_layer": list(run.visual),
        "stages": stages,
        "sum_of_stages": _sum(run),
        "to_first_token": None if run.whole is None else stage_facts(run.whole, peaks),
        "waited_for_frames": None if run.whole is None else asdict(Spread.of(run.waited)),
        "first_round": dict(run.cold),
    }


def _sum(run: Run) -> float:
    """Seconds of all stages up to the first token, one after the other."""
    return sum(Spread.of(stage.seconds).median for name, stage in run.stages.items() if name != TOKEN)


def run_table(run: Run, peaks: Peaks) -> Table:
    """One number of frames."""
    staged = dict(run.stages) if run.whole is None else {**run.stages, WHOLE: run.whole}
    on_device = any(stage.device is not None for stage in staged.values())
    rows = [_run_row(name, stage, peaks, on_device) for name, stage in staged.items()]
    note = f"The stages, one after the other, take {seconds(_sum(run))}."
    if run.whole is not None:
        note = (
            f"The last row is `see` and `answer` as users call them; the stages before it, one after the other, "
            f"take {seconds(_sum(run))}. In it the tower waited {seconds(Spread.of(run.waited).median)} for frames."
        )
    if DECODE in run.stages:
        note += " Looking into the file and resizing its frames are parts of decoding it: that is one stage."
    began = ", ".join(f"{name} {seconds(run.cold[name])}" for name in COLD if name in run.cold)
    note += f" In the first round: {began}."
    left = f"{run.visual[0]:,} visual in the first layer, {run.visual[-1]:,} in the last"
    title = f"{run.frames:,} frames, {run.rows:,} rows: {left}"
    return Table(title, (*STAGED, "host", *(["device"] if on_device else [])), tuple(rows), (note,))


def _run_row(name: str, stage: Stage, peaks: Peaks, on_device: bool) -> tuple[str, ...]:
    spread, work = Spread.of(stage.seconds), stage.work
    flops, of_peak, _, of_copy = rates(stage, peaks)
    row = (
        name,
        seconds(spread.median),
        "–" if len(stage.seconds) == 1 else seconds(spread.low, spread.high),
        _pace(work, spread.median),
        scaled(work.flops, ""),
        scaled(flops, ""),
        share(of_peak),
        scaled(work.bytes, "B"),
        share(of_copy),
        scaled(stage.host, "B"),
    )
    return (*row, scaled(stage.device, "B")) if on_device else row


# -- held smaller ------------------------------------------------------------------------------------------------------


def cost_facts(made: Cost) -> Facts:
    """What is saved, and what it costs."""
    return {
        "frames": made.frames,
        "rows": made.rows,
        "weight_bytes": list(made.weights),
        "cache_bytes": list(made.cache),
        "worst_error": made.worst * made.spread,
        "worst_error_in_spreads": made.worst,
        "typical_error_in_spreads": made.typical,
        "spread": made.spread,
        "tokens": made.tokens,
        "tokens_agreed": made.agreed,
    }


def cost_table(made: Cost) -> Table:
    """What is saved, and what it costs."""
    rows = [
        (name, scaled(before, "B"), scaled(after, "B"), f"{after / before:.2f}x")
        for name, (before, after) in (("all weights", made.weights), ("keys and values", made.cache))
    ]
    most = made.worst * made.spread
    note = (
        f"Against the decoder as loaded, scores of {made.tokens} greedy tokens about {made.frames} frames are off by "
        f"{most:.2g} at most, {share(made.worst)} of their spread, and typically (root of the mean square) by "
        f"{share(made.typical)} of it; {made.agreed} of the {made.tokens} stay the likeliest."
    )
    title = f"{made.packing}: {made.rows:,} rows"
    return Table(title, ("what", "as loaded", "now", "of that"), tuple(rows), (note,))


# -- computed ----------------------------------------------------------------------------------------------------------


def forecast_facts(made: Forecast) -> Facts:
    """One number of frames on one device."""
    return {
        "frames": made.frames,
        "rows": made.rows,
        "share": made.share,
        "stages": {
            name: {
                "floor_seconds": one.floor,
                "seconds": one.seconds,
                "flop": one.work.flops,
                "bytes": one.work.bytes,
                "held_bytes": one.memory,
            }
            for name, one in made.stages.items()
        },
        "left_out": [DECODE, RESIZE],
        "floor_to_first_token": made.floor,
        "seconds_to_first_token": made.seconds,
        "needed_bytes": made.needed,
        "device_bytes": made.machine.memory,
        "fits": made.fits,
        "most_frames": made.most,
    }


def forecast_table(made: Forecast) -> Table:
    """One number of frames on one device."""
    header = ("stage", "FLOP", "bytes", "floor", f"at {made.share:.0%}", "per second", "memory")
    rows = [
        (
            name,
            scaled(one.work.flops, ""),
            scaled(one.work.bytes, "B"),
            seconds(one.floor),
            seconds(one.seconds),
            _pace(one.work, one.seconds),
            scaled(one.memory, "B"),
        )
        for name, one in made.stages.items()
    ]
    notes = (NO_READING, *([WRITTEN_OUT] if made.packing else []), _verdict(made))
    rows.append(("to the first token, frames at hand", "", "", seconds(made.floor), seconds(made.seconds), "", ""))
    title = f"{made.frames:,} frames, {made.rows:,} rows, on {made.machine.name}"
    return Table(title, header, tuple(rows), notes)


def _verdict(made: Forecast) -> str:
    needed = f"{scaled(made.needed, 'B')} and {scaled(RESERVED, 'B')} for driver and kernels"
    if made.fits is None:
        return f"Needs {needed}; how much memory the device has is not known."
    most = f"up to {made.most:,} frames would" if made.most else "not even one clip would"
    return f"{'Fits' if made.fits else 'Does not fit'}: {needed}, of {scaled(made.machine.memory, 'B')}; {most}."


# -- compared ----------------------------------------------------------------------------------------------------------


def comparison_facts(made: Comparison) -> Facts:
    """All arms."""
    return {
        "name": made.name,
        "about": made.about,
        "base": made.base,
        "arms": {
            arm: {
                "seconds": asdict(made.seconds(arm)),
                "all_seconds": [one.seconds for one in readings],
                "times_as_fast": None if (times := made.times(arm)) is None else asdict(times),
                "peak_bytes": made.peak(arm),
                "added_bytes": made.memory[arm].added,
                "times_the_added": made.times_the_added(arm),
            }
            for arm, readings in made.arms.items()
        },
        "failed": dict(made.failed),
    }


def comparison_table(made: Comparison) -> Table:
    """All arms; the base comes first, what failed last."""
    header = ("arm", "median", "quartiles", "as fast", "quartiles", "peak", "added", "as much")
    arms = sorted(made.arms, key=lambda arm: arm != made.base)
    rows = [_compared(made, arm) for arm in arms] + [(arm, "failed", *[""] * 6) for arm in made.failed]
    notes = tuple(f"{arm}: {why}" for arm, why in made.failed.items())
    return Table(f"{made.name}: {made.about}", header, tuple(rows), notes)


def _compared(made: Comparison, arm: str) -> tuple[str, ...]:
    spread, times, more = made.seconds(arm), made.times(arm), made.times_the_added(arm)
    return (
        arm,
        seconds(spread.median),
        seconds(spread.low, spread.high),
        "–" if times is None else f"{times.median:.2f}x",
        "" if times is None or arm == made.base else f"{times.low:.2f} to {times.high:.2f}x",
        scaled(made.peak(arm), "B"),
        scaled(made.memory[arm].added, "B"),
        "–" if more is None else f"{more:.2f}x",
    )


# -- what it is of -----------------------------------------------------------------------------------------------------


def subject(facts: Facts) -> str:
    """Which model, in which type, as a line."""
    weights = ", weights drawn" if facts["random_weights"] else ""
    held = f", {facts['quantised']}" if facts["quantised"] else ""
    model = f"{facts['model']}{weights}: {facts['dtype']}{held}"
    return f"{model}, {facts['image_size']} pixels, dropout {facts['dropout']}."


def surroundings(about: Mapping[str, object], peaks: Peaks) -> str:
    """Machine and versions as a paragraph."""
    versions = about["versions"]
    assert isinstance(versions, Mapping)
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    there = f"{about['system']}, {about['processor']}, {about['cores']} cores, {about['memory_gb']} GB"
    reached = (
        f"{name_of(dtype)} {scaled(one.flops, 'FLOP/s')}, {scaled(one.bandwidth, 'B/s')}"
        for dtype, one in peaks.items()
    )
    machine = next(iter(peaks.values()))
    return f"{about['date']}, {there}; {told}. Peaks of {machine.name} ({machine.source}): {'; '.join(reached)}."


def machine_facts(peaks: Peaks) -> Facts:
    """What stages are held against: in the tower's type, and in each."""
    machine = next(iter(peaks.values()))
    reached = {dtype: {"flop_per_second": one.flops, "bytes_per_second": one.bandwidth} for dtype, one in peaks.items()}
    return {
        "name": machine.name,
        "flop_per_second": machine.flops,
        "bytes_per_second": machine.bandwidth,
        "by_dtype": {name_of(dtype): one for dtype, one in reached.items()},
        "memory_bytes": machine.memory,
        "source": machine.source,
    }


def name_of(dtype: torch.dtype) -> str:
    """As people write it."""
    return str(dtype).removeprefix("torch.")
