"""Figures for Prometheus and one JSON line a request; neither names a person or an item."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from isthmus.service.looking.trend import Trend

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

#: Upper ends of the buckets of durations, in seconds.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Monitor:
    """Counters and timers of one service, in a registry of their own.

    Parameters
    ----------
    tenants : iterable of str
        Names of the tenants, each of which has a last hour of its own.
    """

    def __init__(self, tenants: Iterable[str] = ()) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "isthmus_requests", "Requests by operation and status.", ("operation", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "isthmus_request_duration_seconds",
            "Seconds from the first byte of a request to the last of its answer, whatever the status.",
            ("operation",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._events = Counter(
            "isthmus_events", "Events taken in, by what became of them.", ("outcome",), registry=self.registry
        )
        self._lists = Counter("isthmus_lists", "Lists by the layer they came from.", ("layer",), registry=self.registry)
        self._commit = Histogram(
            "isthmus_event_commit_duration_seconds",
            "Seconds until the events of a request were on disk.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._trends = {name: Trend() for name in tenants}
        self._nobody = Trend() if len(self._trends) != 1 else next(iter(self._trends.values()))
        self._layers: dict[str, Counter] = {}
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def trend(self, tenant: str) -> Trend:
        """Return the last hour of a tenant; what was refused before it was known whose it is counts for a sole one."""
        return self._trends.get(tenant, self._nobody)

    def request(self, tenant: str, operation: str, status: int, seconds: float) -> None:
        """Count a request."""
        found = self._children.get((operation, status))
        if found is None:
            found = self._requests.labels(operation, str(status)), self._seconds.labels(operation)
            self._children[operation, status] = found
        found[0].inc()
        found[1].observe(seconds)
        self.trend(tenant).request(operation, status, seconds)

    def committed(self, tenant: str, seconds: float) -> None:
        """Note how long it took until the events of a request were on disk."""
        self._commit.observe(seconds)
        self.trend(tenant).commit(seconds)

    def events(self, tenant: str, outcome: str, n: int) -> None:
        """Count events."""
        self._events.labels(outcome).inc(n)
        self.trend(tenant).events(outcome, n)

    def lists(self, tenant: str, layer: str, n: int = 1) -> None:
        """Count lists."""
        child = self._layers.get(layer)
        if child is None:
            child = self._layers[layer] = self._lists.labels(layer)
        child.inc(n)
        self.trend(tenant).lists(layer, n)

    def watch(self, gauges: Collector, version: str) -> None:
        """Report ``gauges``, and memory and files of the process, whenever asked."""
        Info("isthmus_build", "Version of the package.", registry=self.registry).info({"version": version})
        ProcessCollector(registry=self.registry)
        self.registry.register(gauges)

    def text(self, tenant: str | None = None) -> bytes:
        """Return figures in Prometheus' text format: all, or only those that name ``tenant``."""
        return generate_latest(self.registry if tenant is None else _Part(self.registry, tenant))


class _Part:
    """The figures of a registry that name a tenant."""

    def __init__(self, registry: CollectorRegistry, tenant: str) -> None:
        self._registry, self._tenant = registry, tenant

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        for family in self._registry.collect():
            family.samples = [one for one in family.samples if one.labels.get("tenant") == self._tenant]
            if family.samples:
                yield family


class JsonLines(logging.Formatter):
    """One JSON object a line. Of an error: its type and where, not its message, which may quote a request."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said: dict[str, object] = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "said": record.getMessage(),
        }
        said.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            frames, trace = [], record.exc_info[2]
            while trace is not None:
                frames.append(f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
                trace = trace.tb_next
            said["error"], said["trace"] = record.exc_info[0].__name__, frames[-12:]
        return json.dumps(said, ensure_ascii=False)
