"""A Ray cluster: one that is there, or one of this machine for as long as a command runs."""

from __future__ import annotations

import logging
import os
import secrets
import warnings
from importlib.util import find_spec
from types import ModuleType
from typing import Any

LOCAL = "local"  # address: a new cluster of this machine


def share(address: str, workers: int) -> int:
    """CPUs of each worker: what this machine has, shared by all; one where others may work, too."""
    return max(1, (os.cpu_count() or 1) // workers) if address == LOCAL else 1


def join(address: str, cpus: int, gpus: int = 0, loud: bool = False) -> ModuleType:
    """Ray, connected to a cluster until its ``shutdown``.

    A cluster of this machine lets in only who knows its token, which is drawn here: Ray listens on all addresses of
    the machine, and whoever gets in can run anything.

    Args:
        address: as ``ray.init`` takes it, or ``local``.
        cpus: of a cluster of this machine.
        gpus: that this machine must have for that.
        loud: whether what its processes write is shown.

    Raises:
        ValueError: Ray is not installed, or there are fewer GPUs.
        ConnectionError: there is no cluster at the address.
    """
    if find_spec("ray") is None:
        raise ValueError("ray is not installed: pip install 'videochat-flash[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray  # not before: it reads its token when it is loaded

    own: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if address == LOCAL else {}
    ray.init(address, **own, ignore_reinit_error=True, log_to_driver=loud, logging_level=logging.ERROR)
    there = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if address == LOCAL and there < gpus:
        ray.shutdown()
        raise ValueError(f"this machine has {there} GPUs, and {gpus} are needed")
    if there < gpus:
        warnings.warn(f"the cluster has {there} GPUs and {gpus} are needed: what lacks one waits", stacklevel=2)
    return ray
