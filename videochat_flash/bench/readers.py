"""Frames of a file by the libraries themselves, used plainly: what our reader is held against. Never read otherwise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

Reader = Callable[[Path, list[int]], Iterator[np.ndarray]]


@contextmanager
def _unreadable(*errors: type[Exception]) -> Iterator[None]:
    """Errors that a library has for files it cannot read are ValueErrors, as ours are."""
    try:
        yield
    except errors as error:
        raise ValueError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def pyav_through(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
    """PyAV: decode the file to the last wanted frame, keep the wanted ones."""
    import av

    left = iter(wanted)
    number = next(left)
    with _unreadable(av.FFmpegError), av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for at, frame in enumerate(islice(container.decode(video=0), wanted[-1] + 1)):
            while at == number:
                yield frame.to_ndarray(format="rgb24")
                number = next(left, -1)


def pyav_seeking(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
    """PyAV: for every wanted frame, seek to the key frame before it and decode from there."""
    import av

    with _unreadable(av.FFmpegError), av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate, tick, first = stream.average_rate, stream.time_base, stream.start_time or 0
        if rate is None or tick is None:
            raise ValueError(f"{path} tells no rate of frames to seek by")
        for number in wanted:
            stamp = first + round(number / rate / tick)
            container.seek(stamp, stream=stream)
            early = stamp - 1 / rate / tick / 2
            decoded = container.decode(stream)
            frame = next((one for one in decoded if one.pts is not None and one.pts >= early), None)
            if frame is not None:  # at the end of a file whose rate is uneven
                yield frame.to_ndarray(format="rgb24")


def torchcodec(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
    """torchcodec: a batch of frames by number."""
    with _unreadable(IndexError):  # of a file that holds fewer than it tells; its other errors are known ones
        decoder: Any = import_module("torchcodec.decoders").VideoDecoder(str(path), dimension_order="NHWC")
        for at in range(0, len(wanted), 64):
            yield from decoder.get_frames_at(wanted[at : at + 64]).data.numpy()


def decord(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
    """decord: a batch of frames by number."""
    with _unreadable(import_module("decord.base").DECORDError, IndexError):
        reader: Any = import_module("decord").VideoReader(str(path))
        for at in range(0, len(wanted), 64):
            yield from reader.get_batch(wanted[at : at + 64]).asnumpy()


def readers() -> dict[str, Reader]:
    """Those whose library is installed and can be loaded."""
    found: dict[str, Reader] = {"PyAV, decoding through": pyav_through, "PyAV, seeking": pyav_seeking}
    for name, reader in (("torchcodec", torchcodec), ("decord", decord)):
        if find_spec(name) is None:
            continue
        try:
            import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # as where it was built for another PyTorch
            warnings.warn(f"{name} is installed but cannot be loaded, so it is left out: {error}", stacklevel=2)
        else:
            found[name] = reader
    return found
