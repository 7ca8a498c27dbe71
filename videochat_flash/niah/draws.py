"""What makes a suite repeatable: one form of JSON, digests of it, and draws that depend on names alone."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from ..synth.world import Rng

VERSION = "niah 1"  # of suites: a change of what any draw means changes it


def canonical(value: object) -> str:
    """JSON in one form: keys in order, no spaces. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def rng_of(seed: int, *names: str | int | float) -> Rng:
    """A generator of its own for each seed and names; one draw more elsewhere changes nothing (specification, 3.7)."""
    key = hashlib.sha256(canonical([VERSION, seed, *names]).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
