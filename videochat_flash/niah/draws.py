"""What makes a suite repeatable: draws that depend on names alone."""

from __future__ import annotations

import hashlib

import numpy as np

from ..journal import canonical
from ..synth.world import Rng

VERSION = "niah 2"  # of suites: a change of what any draw means changes it, and a test pins what is drawn


def rng_of(seed: int, *names: str | int | float) -> Rng:
    """A generator of its own for each seed and names; one draw more elsewhere changes nothing."""
    key = hashlib.sha256(canonical([VERSION, seed, *names]).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
