"""Whether requests should be sent to a service, and if not, why; what is said names no tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.service.core import Service


def reasons(service: Service) -> list[str]:
    """Return why requests should go elsewhere; empty if they should come.

    Returns
    -------
    list of str
        ``draining``: the process ends; ``starting``: it has not begun to score; ``events cannot be written``: the last
        write failed less than ten seconds ago; ``the database cannot be reached``; ``lists are not scored``: the
        scorer has ended.
    """
    found = ["draining"] if service.doors.draining else []
    for tenant in service.tenants.values():
        found.extend(reason for reason in tenant.troubles() if reason not in found)
    return found


def simpler(service: Service) -> list[str]:
    """Return what is done in a simpler way just now: ``limits``, each process keeps its own limits of rate."""
    return ["limits"] if service.shared is not None and service.shared.degraded else []
