"""What may fail with one video or question and not with the next: what cannot be read, and too little memory."""

from __future__ import annotations

FAILURES = (ValueError, OSError, RuntimeError, MemoryError)  # to be caught, and told by ``reason``
FULL = (
    "out of memory",  # a GPU, or NCCL on one
    "can't allocate memory",  # a CPU
    "ALLOC_FAILED",  # cuBLAS and its like
)


def out_of_memory(error: BaseException) -> bool:
    """Whether there was too little, on a GPU or for a CPU: PyTorch has a class for the first alone."""
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and any(words in str(error) for words in FULL))


def reason(error: Exception) -> str:
    """Why it failed, for people. Raises the error itself where it is a fault of the program."""
    if isinstance(error, RuntimeError) and not out_of_memory(error):
        raise error
    return str(error) or "out of memory"
