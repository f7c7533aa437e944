"""Whether what comes now is still what the model was made for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from isthmus.service.core import Service
from isthmus.service.lists.answers import as_known
from isthmus.service.routes.base import Bodies, answer, caller_of, says
from isthmus.service.schemas import _Read
from isthmus.service.tenant import Tenant

#: Bodies the group reads.
BODIES: Final[Bodies] = ()


class DriftFeature(BaseModel):
    """One thing that is counted."""

    of: str = Field(examples=["event_domains"])
    about: str
    alarm: bool
    psi: float = Field(description="Distance of the newest full window from the reference (population stability).")
    evidence: float = Field(description="Power of ten of the evidence of change, over all windows since it was none.")
    at: datetime | None = Field(description="When the newest window was full.")
    waiting: int = Field(description="Counted since, in the window that is open.")
    window: int = Field(description="Counts of a window, at least.")
    reference: dict[str, float] = Field(description="Expected shares; empty until the first window is full.")
    seen: dict[str, float] = Field(description="Shares in the newest full window.")


class DriftOut(_Read):
    """What has changed since the model was made."""

    alarm: bool = Field(description="Whether any of them is an alarm.")
    features: list[DriftFeature]


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    @app.get("/v1/drift", response_model=DriftOut, tags=["health"], responses=says(404))
    async def drift(request: Request) -> Response:
        """Return how far events, new items and lists are from what the model was made for."""
        tenant, _ = caller_of(service, request)
        features = _features(tenant)
        return answer({**as_known(tenant), "alarm": any(one["alarm"] for one in features), "features": features})


def _features(tenant: Tenant) -> list[dict[str, object]]:
    return [
        {
            "of": name,
            "about": feature.about,
            "alarm": feature.finding.alarm,
            "psi": round(feature.finding.psi, 4),
            "evidence": round(feature.finding.evidence, 2),
            "at": datetime.fromtimestamp(feature.finding.at, UTC) if feature.finding.at else None,
            "waiting": feature.n,
            "window": feature.size,
            "reference": _shares(feature.reference or {}),
            "seen": _shares(feature.finding.seen or {}),
        }
        for name, feature in tenant.observer.features.items()
    ]


def _shares(counts: Mapping[str, float]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: round(n / total, 4) for name, n in sorted(counts.items())}
