"""Sizes, ages and states of the service, read when Prometheus asks; none of them names a person or an item."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily

from isthmus.service.watch.health import reasons

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from isthmus.service.core import Service
    from isthmus.service.tenant import Tenant

_TENANT: Final[dict[str, tuple[str, Callable[[Tenant], float]]]] = {
    "isthmus_persons": ("Persons known.", lambda tenant: tenant.live.state.persons),
    "isthmus_items": ("Items known.", lambda tenant: len(tenant.live.shelf.ids)),
    "isthmus_log_sequence": ("Number of the newest record.", lambda tenant: tenant.live.seq),
    "isthmus_log_lag_records": (
        "Records on disk that no list counts yet.",
        lambda tenant: max(tenant.log.seq - tenant.live.seq, 0),
    ),
    "isthmus_log_waiting_events": ("Events that wait for the disk.", lambda tenant: tenant.log.waiting),
    "isthmus_log_unwiped_erasures": (
        "Erasures whose bytes are still in the files of the log.",
        lambda tenant: tenant.log.unwiped,
    ),
    "isthmus_event_lag_seconds": ("Age of the oldest event that no list counts yet.", lambda tenant: tenant.writes.lag),
    "isthmus_events_on_unknown_items": ("Events on unknown items.", lambda tenant: tenant.live.state.waiting),
    "isthmus_lists_waiting": ("Lists that wait to be scored.", lambda tenant: tenant.lister.waiting),
    "isthmus_explanations_waiting": (
        "Reasons, explanations and comparisons that wait to be scored.",
        lambda tenant: tenant.lister.beside.waiting,
    ),
    "isthmus_lists_cold": ("Persons whose lists will be made ready.", lambda tenant: tenant.lister.cold),
    "isthmus_lists_ready": ("Lists kept ready.", lambda tenant: tenant.lister.kept),
    "isthmus_reasons_cold": ("Lists whose reasons will be made ready.", lambda tenant: tenant.lister.reasons.waiting),
    "isthmus_reasons_ready": ("Lists whose reasons are ready.", lambda tenant: tenant.lister.reasons.ready),
    "isthmus_model_loaded_timestamp_seconds": ("When the model came.", lambda tenant: tenant.loaded / 1e6),
    "isthmus_model_written_timestamp_seconds": (
        "When the model's manifest was written.",
        lambda tenant: tenant.models.written(tenant.live.version.name),
    ),
}


def _service(service: Service) -> Iterator[tuple[str, str, float]]:
    """Yield name, help and figure of what the tenants share."""
    folder = service.vault.path.parent
    disk = shutil.disk_usage(folder)
    doors, settings, patrol = service.doors, service.settings, service.patrol
    yield "isthmus_ready", "Whether requests should be sent here: 1 or 0.", float(not reasons(service))
    yield "isthmus_requests_in_flight", "Requests being served.", doors.inside
    yield "isthmus_requests_in_flight_ratio", "Their share of the most allowed.", doors.inside / settings.in_flight
    yield "isthmus_data_free_bytes", "Free space where the data lies.", disk.free
    yield "isthmus_data_disk_bytes", "Size of the disk where the data lies.", disk.total
    if service.shared is not None:
        yield (
            "isthmus_limits_shared",
            "Whether limits hold for all processes: 1 or 0.",
            float(not service.shared.degraded),
        )
    sizes = (file.stat().st_size for file in list(folder.iterdir()) if file.is_file())
    yield "isthmus_data_size_bytes", "Size of the event logs, keys and audit log.", sum(sizes)
    yield "isthmus_audit_intact", "Whether the chain of the audit log holds: 1 or 0.", float(patrol.intact)
    yield "isthmus_audit_entries", "Entries of the audit log.", patrol.entries
    age = time.monotonic() - patrol.checked
    yield "isthmus_audit_check_age_seconds", "Seconds since the chain was last gone through.", age


class Gauges:
    """Figures of a service, for a registry of ``prometheus_client``.

    Parameters
    ----------
    service : Service
        What is looked at.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of the service and of every tenant."""
        for name, said, figure in _service(self._service):
            yield GaugeMetricFamily(name, said, value=figure)
        tenants = self._service.tenants
        for name, (said, read) in _TENANT.items():
            family = GaugeMetricFamily(name, said, labels=["tenant"])
            for label, tenant in tenants.items():
                family.add_metric([label], read(tenant))
            yield family
        yield from self._drift()
        recall = GaugeMetricFamily(
            "isthmus_index_recall_ratio",
            "Recall@10 of the indices of vectors of a large domain when last measured, the lowest; none if none was.",
            labels=["tenant", "domain"],
        )
        for label, tenant in tenants.items():
            for domain, shortlist in sorted(tenant.live.shortlists.items()):
                if shortlist.recall is not None:
                    recall.add_metric([label, domain], shortlist.recall)
        yield recall
        models = GaugeMetricFamily("isthmus_model", "The model that answers: 1.", labels=["tenant", "model", "version"])
        for label, tenant in tenants.items():
            models.add_metric([label, tenant.live.version.name, tenant.live.version.digest], 1.0)
        yield models

    def _drift(self) -> Iterator[Metric]:
        """Yield what the newest windows said."""
        labels = ["tenant", "of"]
        psi = GaugeMetricFamily("isthmus_drift_psi", "Distance of the newest window from the reference.", labels=labels)
        evidence = GaugeMetricFamily("isthmus_drift_evidence", "Power of ten of the evidence.", labels=labels)
        alarm = GaugeMetricFamily("isthmus_drift_alarm", "Whether both are too large: 1 or 0.", labels=labels)
        for label, tenant in self._service.tenants.items():
            for name, feature in tenant.observer.features.items():
                found = feature.finding
                psi.add_metric([label, name], found.psi)
                evidence.add_metric([label, name], found.evidence)
                alarm.add_metric([label, name], float(found.alarm))
        yield from (psi, evidence, alarm)
