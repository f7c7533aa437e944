"""Whether requests should be sent to a service, and if not, why; what is said names no tenant."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from isthmus.service.core import Service
    from isthmus.service.tenant import Tenant

#: Seconds for which a failed write makes the service not ready, unless one succeeds.
SICK: Final = 10.0


class Writes:
    """Writes to the log that are under way, and whether the last one failed.

    Attributes
    ----------
    failed : float
        When the last one failed or was waited for in vain, seconds of the monotonic clock; long ago if one succeeded
        since.
    """

    def __init__(self) -> None:
        self._begun: dict[int, float] = {}
        self.failed = -SICK

    def begin(self, name: int) -> None:
        """Note that a write begins."""
        self._begun[name] = time.monotonic()

    def end(self, name: int) -> None:
        """Note that nobody waits for a write any more."""
        self._begun.pop(name, None)

    @property
    def lag(self) -> float:
        """Age in seconds of the oldest write that is not counted in yet; 0 if there is none."""
        oldest = next(iter(self._begun.values()), None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    @property
    def failing(self) -> bool:
        """Whether a write failed just now and none succeeded since."""
        return time.monotonic() - self.failed < SICK


def log_troubles(tenant: Tenant) -> list[str]:
    """Return why nothing can be written just now; what is read may lack the newest events then."""
    found = ["events cannot be written"] if tenant.writes.failing else []
    return [*found, tenant.log.away] if tenant.log.away else found


def reasons(service: Service) -> list[str]:
    """Return why requests should go elsewhere; empty if they should come.

    Returns
    -------
    list of str
        ``draining``: the process ends; ``starting``: it has not begun to score; ``events cannot be written``: the last
        write failed, or was waited for in vain, less than ten seconds ago; ``the database cannot be reached``;
        ``lists are not scored``: the scorer has ended.
    """
    found = ["draining"] if service.doors.draining else []
    for tenant in service.tenants.values():
        found.extend(reason for reason in tenant.troubles() if reason not in found)
    return found


def simpler(service: Service) -> list[str]:
    """Return what is done in a simpler way just now: ``limits``, each process keeps its own limits of rate."""
    return ["limits"] if service.shared is not None and service.shared.degraded else []
