"""Figures of models that are tried, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from isthmus.service.monitor import SECONDS

_TENTHS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Figures:
    """Counters and timers of canaries and shadows, by tenant.

    Parameters
    ----------
    registry : CollectorRegistry
        Where they are read.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.canary_lists = Counter(
            "isthmus_canary_lists",
            "Lists made while a canary runs, by who made them.",
            ("tenant", "arm", "outcome"),
            registry=registry,
        )
        self.canary_seconds = Histogram(
            "isthmus_canary_duration_seconds",
            "Seconds of a list while a canary runs.",
            ("tenant", "arm"),
            buckets=SECONDS,
            registry=registry,
        )
        self.rollbacks = Counter(
            "isthmus_canary_rollbacks", "Canaries ended because they did worse.", ("tenant",), registry=registry
        )
        self.shadow_lists = Counter(
            "isthmus_shadow_lists", "Lists a shadow was to make too.", ("tenant", "outcome"), registry=registry
        )
        self.shadow_seconds = Histogram(
            "isthmus_shadow_duration_seconds",
            "Seconds of a shadow's list.",
            ("tenant",),
            buckets=SECONDS,
            registry=registry,
        )
        self.overlap = Histogram(
            "isthmus_shadow_overlap_ratio",
            "Share of the items of a list that the shadow lists too.",
            ("tenant",),
            buckets=_TENTHS,
            registry=registry,
        )
