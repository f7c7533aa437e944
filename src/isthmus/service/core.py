"""The service without HTTP: tenants, keys, limits and figures of one process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from isthmus import __version__
from isthmus.errors import InputError, NotFoundError
from isthmus.log import logger
from isthmus.service.lock.gate import Caller, Doors, Guard
from isthmus.service.lock.guesses import Guesses
from isthmus.service.lock.limits import Buckets, Quotas
from isthmus.service.lock.notes import Notes
from isthmus.service.lock.shared_limits import SharedBuckets
from isthmus.service.lock.vault import Vault
from isthmus.service.log.base import Place
from isthmus.service.monitor import Monitor
from isthmus.service.problems import RequestError
from isthmus.service.rollout.figures import Figures
from isthmus.service.rollout.models import Models, require_model
from isthmus.service.rollout.signing import Trust
from isthmus.service.settings import DEFAULT_TENANT, ServiceSettings
from isthmus.service.tenant import Tenant
from isthmus.service.watch.gauges import Gauges
from isthmus.service.watch.patrol import Patrol
from isthmus.service.watch.traces import Tracing


@dataclass(frozen=True)
class Places:
    """What a service is made of.

    Parameters
    ----------
    data : Path
        Folder of keys, audit log, pointers, segments, and of the event logs.
    models : mapping of str to Path
        The model of each tenant.
    folder : Path, optional
        Where models that can be activated lie; the folder of each tenant's model by default.
    trust : sequence of Path
        Public keys, one of which must have signed a model; without one models need no signature.
    database : str
        ``postgresql://`` URL of the event logs; empty where they are SQLite files in ``data``.
    """

    data: Path
    models: Mapping[str, Path]
    folder: Path | None = None
    trust: Sequence[Path] = ()
    database: str = ""


@dataclass
class Service:
    """Everything of one process.

    Attributes
    ----------
    settings : ServiceSettings
        Limits.
    vault : Vault
        Keys and audit log.
    tenants : dict of str to Tenant
        By name.
    monitor : Monitor
        Figures.
    doors : Doors
        Whether requests are taken.
    patrol : Patrol
        Goes through the audit log now and then.
    tracing : Tracing, optional
        Where traces go.
    notes : Notes
        Writes to the audit log what was done already.
    shared : SharedBuckets or None
        Limits of rate that other processes share.
    """

    settings: ServiceSettings
    vault: Vault
    tenants: dict[str, Tenant]
    doors: Doors = field(default_factory=Doors)
    tracing: Tracing | None = None
    monitor: Monitor = field(init=False)
    patrol: Patrol = field(init=False)
    quotas: Quotas = field(init=False)
    guesses: Guesses = field(init=False)
    notes: Notes = field(init=False)
    shared: SharedBuckets | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Make what counts, and what looks after the audit log."""
        self.monitor = Monitor(self.tenants)
        self.quotas = Quotas(self.vault.lease)
        self.guesses = Guesses(self.vault.find, self.settings.guesses)
        self.notes = Notes(self.vault)
        self.patrol = Patrol(self.vault, self.settings.patrol)
        if self.settings.limits:
            own = Buckets(self.settings.rate, self.settings.burst)
            self.shared = SharedBuckets(self.settings.limits, own)

    @classmethod
    def open(cls, places: Places, settings: ServiceSettings) -> Service:
        """Return the service with every model loaded and every log replayed.

        Raises
        ------
        InputError
            An address others can reach and no key; a log in use; no model.
        """
        traces = settings.traces
        tracing = Tracing(traces, __version__, share=settings.trace_share) if traces else None
        for name, given in places.models.items():
            if not _pointer(places, name).exists():
                require_model(given)
        vault = Vault(places.data)
        place = Place(places.data, places.database)
        tenants: dict[str, Tenant] = {}
        try:
            if settings.tokens is not None:
                vault.trust(settings.tokens)
            if not settings.loopback and not vault.tokens and not any(key.revoked is None for key in vault.known()):
                fix = "make one with: isthmus keys create --data " + str(places.data)
                raise InputError(f"others can reach {settings.host}, and there is no key", where="--host", fix=fix)
            trust = Trust(places.trust) if places.trust else None
            folders = Counter(_folder(places, given).resolve() for given in places.models.values())
            for name, given in places.models.items():
                folder = _folder(places, given)
                models = Models(given, folder, _pointer(places, name), trust, shared=folders[folder.resolve()] > 1)
                tenants[name] = Tenant(name, models, place, settings)
        except BaseException:
            for tenant in tenants.values():
                tenant.log.close()
            vault.close()
            raise
        service = cls(settings, vault, tenants, tracing=tracing)
        service.monitor.watch(Gauges(service), __version__)
        return service

    @property
    def guard(self) -> Guard:
        """What every request is checked with."""
        buckets = Buckets(self.settings.rate, self.settings.burst)
        return Guard(self.vault, buckets, self.monitor, self.settings, self.doors, self.guesses, self.shared)

    def tenant(self, name: str = DEFAULT_TENANT) -> Tenant:
        """Return a tenant."""
        found = self.tenants.get(name)
        if found is None:
            raise NotFoundError("this service has nothing for the key", fix="serve its tenant, or take another key")
        return found

    async def start(self) -> None:
        """Begin to score."""
        if self.shared is not None:
            await self.shared.start()
        figures = Figures(self.monitor.registry)
        for tenant in self.tenants.values():
            tenant.rollout.figures = figures
            tenant.noted = partial(self.notes.add, tenant.name, "service")
            await tenant.start()
            logger.info("tenant %s: model %s (%s)", tenant.name, *vars(tenant.live.version).values())
        self.patrol.start()

    async def stop(self) -> None:
        """End: what was accepted is on disk already."""
        self.doors.draining = True
        await self.patrol.stop()
        if self.shared is not None:
            await self.shared.close()
        await asyncio.gather(*(tenant.stop() for tenant in self.tenants.values()))
        await self.notes.stop()
        self.vault.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    @asynccontextmanager
    async def spending(self, caller: Caller, kind: str, n: int) -> AsyncIterator[None]:
        """Count ``n`` events or lists against what a key may use up in a day, unless the request is refused inside.

        Raises
        ------
        RequestError
            There is not so much left today.
        """
        most = caller.quota.get(kind)
        if most is None:
            yield
            return
        day = self.quotas.day
        wait = await asyncio.to_thread(self.quotas.take, caller.name, kind, n, most)
        if wait:
            raise RequestError(429, f"no more {kind} today", headers={"retry-after": str(int(wait) + 1)})
        try:
            yield
        except Exception:
            await asyncio.to_thread(self.quotas.give_back, caller.name, kind, n, day)
            raise

    async def note(self, tenant: str, actor: str, action: str, said: dict[str, object]) -> None:
        """Add to the audit log."""
        await asyncio.to_thread(self.vault.note, tenant, actor, action, said)

    @asynccontextmanager
    async def noting(
        self, tenant: str, actor: str, action: str, said: Mapping[str, object]
    ) -> AsyncIterator[dict[str, object]]:
        """Change something between two entries of the audit log: that it is begun, and what became of it.

        Without the first nothing is done. The second says what was put into the mapping, and comes later where it
        cannot be written now: what was done is answered.

        Raises
        ------
        BusyError, StorageError
            Nothing can be noted, and nothing was done.
        """
        await self.note(tenant, actor, f"{action}: begun", {**said})
        done: dict[str, object] = {}
        try:
            yield done
        except BaseException as error:
            await self.notes.add(tenant, actor, f"{action}: failed", {**said, "error": type(error).__name__})
            raise
        await self.notes.add(tenant, actor, action, {**said, **done})


def _folder(places: Places, given: Path) -> Path:
    """Return where the models of a tenant lie."""
    return places.folder or given.resolve().parent


def _pointer(places: Places, tenant: str) -> Path:
    """Return the file that remembers which model of a tenant answers."""
    return places.data / f"{tenant}.model.json"
