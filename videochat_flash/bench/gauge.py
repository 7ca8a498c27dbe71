"""Time and memory of stages, and the most that a machine reaches: a matrix product and a copy."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .. import __version__
from ..cost import GPUS, gpu_named
from ..show import peak_megabytes

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}  # sides of the matrices that are tried
COPIED = {"cpu": 2**28, "cuda": 2**30, "mps": 2**28}  # bytes
TRY = 0.4  # seconds that a peak is looked for at each size, and twice at least
BUSY = 0.3  # runnable processes for each core from which on a timing is not worth much
LOADAVG = Path("/proc/loadavg")  # Linux; in its fourth field: how many are runnable now, this one too, of how many
LOOKS, PAUSE = 8, 0.05  # at it, and seconds before each
REWIND = Path("/proc/self/clear_refs")  # Linux: 5 sets the peak of the program's memory to what it holds now


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of one number or more."""
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(low, median, high)


@dataclass
class Reading:
    """A stage: seconds in all its pieces, and the most bytes that were held during any of them.

    ``host``: of the whole program; ``device``: of PyTorch on the device. None where nothing tells it. ``before``: held
    when it began, on the device if that tells, else on the host.
    """

    seconds: float = 0.0
    host: int | None = None
    device: int | None = None
    before: int | None = None

    @property
    def added(self) -> int | None:
        """Bytes at the peak beyond those that were held before."""
        peak = self.host if self.device is None else self.device
        return None if peak is None or self.before is None else max(0, peak - self.before)


class Gauge:
    """Readings of named stages; a stage that comes in pieces adds up."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.readings: dict[str, Reading] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a block: nothing is left to do on the device when it begins and when it ends."""
        reading = self.readings.setdefault(name, Reading())
        cuda, rewound = self.device.type == "cuda", _rewind()
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        finish(self.device)
        before = torch.cuda.memory_allocated(self.device) if cuda else _peak() if rewound else None
        reading.before = before if reading.before is None else reading.before
        began = time.perf_counter()
        yield
        finish(self.device)
        reading.seconds += time.perf_counter() - began
        if rewound:
            reading.host = max(reading.host or 0, _peak())
        if cuda:
            reading.device = max(reading.device or 0, torch.cuda.max_memory_allocated(self.device))


def _peak() -> int:
    return round(peak_megabytes() * 2**20)


def finish(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _rewind() -> bool:
    """Forget the peak so far; False where the system does not let a program do that."""
    if not os.access(REWIND, os.W_OK):
        return False
    REWIND.write_text("5")
    return True


# -- peaks -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What stages are held against.

    Attributes:
        name: of the device.
        flops: matrix products, operations a second.
        bandwidth: bytes a second, read and written.
        memory: bytes; None where unknown.
        source: where the numbers come from.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float | None
    source: str


def measured(device: torch.device, dtype: torch.dtype) -> Machine:
    """The best of many square matrix products and of many copies, here and now."""
    flops = max(_best(device, _product(side, device, dtype), 2.0 * side**3) for side in SIZES[device.type])
    count = COPIED[device.type] // dtype.itemsize
    from_, to = torch.ones(count, dtype=dtype, device=device), torch.empty(count, dtype=dtype, device=device)
    bandwidth = _best(device, lambda: to.copy_(from_), 2.0 * from_.nbytes)
    return Machine(device_name(device), flops, bandwidth, memory_of(device), "measured in this run")


def by_data_sheet(name: str, dtype: torch.dtype) -> Machine:
    """A device of ``cost.GPUS``.

    Raises:
        ValueError: an unknown one.
    """
    name = gpu_named(name)
    gpu = GPUS[name]
    tera = gpu.float32 if dtype == torch.float32 else gpu.bfloat16
    return Machine(name, tera * 1e12, gpu.bandwidth * 1e9, gpu.gigabytes * 1e9, "its data sheet")


def _product(side: int, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    """Of random numbers: a GPU draws less power on even ones, and clocks higher than it ever does at work."""
    draw = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, dtype=dtype, device=device, generator=draw) for _ in range(2))
    return lambda: left @ right


def _best(device: torch.device, call: Callable[[], object], work: float) -> float:
    """The most work a second that a call does, after one that does not count."""
    call()
    finish(device)
    best, began, tries = 0.0, time.perf_counter(), 0
    while tries < 2 or time.perf_counter() - began < TRY:
        start = time.perf_counter()
        call()
        finish(device)
        best, tries = max(best, work / (time.perf_counter() - start)), tries + 1
    return best


# -- what was measured on ----------------------------------------------------------------------------------------------


def device_name(device: torch.device) -> str:
    """As people call it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{_processor()}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def memory_of(device: torch.device) -> float | None:
    """Bytes of a device, or of this machine."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return None


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def circumstances() -> dict[str, object]:
    """Machine and versions, without what would name its owner."""
    versions = {"videochat-flash": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "pillow", "av"):
        with suppress(PackageNotFoundError):  # drawn frames need no library that reads video
            versions[name] = version(name)
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round((memory_of(torch.device("cpu")) or 0) / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def busy() -> float | None:
    """Others that want to run for each core, where they are too many for timings; else None.

    On Linux those of this moment: an average over the last minute still has in it the command before this one.
    """
    if sys.platform == "win32":
        return None
    load = (_others() if LOADAVG.exists() else os.getloadavg()[0]) / (os.cpu_count() or 1)
    return load if load > BUSY else None


def _others() -> float:
    """Runnable processes beside this one, on average over a few looks: some want but a moment."""
    counts = []
    for _ in range(LOOKS):
        time.sleep(PAUSE)
        counts.append(int(LOADAVG.read_text(encoding="ascii").split()[3].partition("/")[0]) - 1)
    return max(0.0, statistics.fmean(counts))
