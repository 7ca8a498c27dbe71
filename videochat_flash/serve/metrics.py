"""What /metrics tells Prometheus. No name, id or text of a request is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        new = self.registry
        self.requests = Counter("vcflash_requests", "Requests answered.", ["route", "status"], registry=new)
        self.refused = Counter("vcflash_refused", "Requests refused, by reason.", ["code"], registry=new)
        self.waiting = Gauge("vcflash_waiting", "Requests that wait for their turn.", registry=new)
        self.active = Gauge("vcflash_active", "Requests that are seen or answered.", registry=new)
        self.ready = Gauge("vcflash_ready", "Whether the model is loaded.", registry=new)
        self.restarts = Counter("vcflash_restarts", "Times that the model's process had to be restarted.", registry=new)
        self.stages = Histogram("vcflash_stage_seconds", "Of a request.", ["stage"], buckets=SECONDS, registry=new)
        self.frames = Counter("vcflash_frames", "Frames asked about, and of these newly seen.", ["how"], registry=new)
        self.tokens = Counter(
            "vcflash_tokens", "Rows of prompts, visual ones, and generated tokens.", ["kind"], registry=new
        )
        self.cache = Counter("vcflash_cache", "Sights and prefixes found, or made.", ["what", "found"], registry=new)

    def finished(self, told: Mapping[str, Any], media: int) -> None:
        """Count an answered request: what the worker told at its end, and how many videos and pictures it had."""
        for stage, seconds in told["seconds"].items():
            self.stages.labels(stage.replace(" ", "_")).observe(seconds)
        self.frames.labels("asked").inc(told["frames"])
        self.frames.labels("seen").inc(told["frames_seen"])
        for kind, count in (
            ("prompt", told["prompt_tokens"]),
            ("visual", told["visual_tokens"]),
            ("generated", told["completion_tokens"]),
        ):
            self.tokens.labels(kind).inc(count)
        found = told.get("sights_reused", 0)
        self.cache.labels("sight", "yes").inc(found)
        self.cache.labels("sight", "no").inc(media - found)
        if "prefix_reused" in told:
            self.cache.labels("prefix", "yes" if told["prefix_reused"] else "no").inc()

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
