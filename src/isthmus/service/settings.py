"""How the service runs: one frozen object, every limit in it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from isthmus.config import Settings
from isthmus.errors import InputError

#: Name of the tenant where none is given.
DEFAULT_TENANT: Final = "default"
#: Items of a domain from which on its lists are made from a shortlist.
LARGE: Final = 100_000
_SCHEME: Final = "sqlite:///"
_FORMS: Final = "write it as sqlite:///DIR; a service's --data may be postgresql://USER@HOST/DATABASE too"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class TokenSettings(Settings):
    """Whose tokens are taken, and what they say.

    Parameters
    ----------
    issuer, audience : str
        As in the claims ``iss`` and ``aud``.
    jwks : str
        File or address of the issuer's keys; the issuer is asked for it if empty.
    tenant_claim : str
        Claim with the tenant's name; if empty every token is one of the default tenant.
    platforms_claim : str
        Claim with the platforms the token is bound to; if empty none is bound.
    events, lists : int, optional
        Events that each owner of tokens may send, and lists, explanations and comparisons to get, in a day (UTC).
    leeway : float
        Seconds by which clocks may differ.
    fresh : float
        Seconds after which the keys are read again.
    pause : float
        Seconds between two readings, at least.
    """

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    jwks: str = ""
    tenant_claim: str = ""
    platforms_claim: str = ""
    events: int | None = Field(default=None, ge=0)
    lists: int | None = Field(default=None, ge=0)
    leeway: float = Field(default=30.0, ge=0, le=300)
    fresh: float = Field(default=3600.0, gt=0)
    pause: float = Field(default=10.0, ge=0)


class ServiceSettings(Settings):
    """Address and limits of a service.

    Parameters
    ----------
    host, port : str, int
        Where it listens; port 0 takes a free one.
    deadline : float
        Seconds after which a list comes from a cheaper layer.
    drain : float
        Seconds that requests under way get after the signal to stop.
    waiting : int
        Lists that may wait to be scored; more are answered from a cheaper layer.
    in_flight : int
        Requests served at the same time; more are answered 503.
    pending : int
        Events that may wait for the disk; more are answered 503.
    cache : int
        Lists kept ready.
    warm : bool
        Whether lists are made ready in idle time.
    approximate_from : int
        Items from which on lists are made from a shortlist; 0 for never.
    explore : float, optional
        Share of the places of a list that new items get at most, with a bonus; 0 lists none, nothing said leaves lists
        as they are.
    explore_bonus : float
        That bonus, in standard deviations of a method's scores; it halves every 50 times an item was listed.
    body : int
        Bytes of a request, at most.
    body_seconds : float
        Seconds in which a request's body must arrive.
    header_seconds : float
        Seconds in which a request's headers must arrive.
    rate, burst : float
        Requests a second and at once of one key; rate 0 means no limit.
    guesses : int
        Requests without a valid key of one address in a minute, and at once; 0 means no limit.
    limits : str
        URL of a Redis in which several processes share that limit; empty for each its own.
    patrol : float
        Seconds between two checks of the audit log's chain.
    traces : str
        Where traces go: ``console``, or an address that takes OTLP over HTTP; empty for nowhere.
    trace_share : float
        Share of the requests traced that come without a trace of their own.
    drift_seconds : float
        Seconds that a window of events or lists is open at least before it is judged for drift.
    seal : float
        Seconds between two sealed segments; 0 for none.
    keep_days : float
        Days after which events end; 0 for never.
    console : bool
        Whether ``/console`` is there.
    consent : str
        ``required``: events of one platform serve lists of another only where the person allowed it; ``assumed``:
        unless the person forbade it.
    tokens : TokenSettings, optional
        Whose tokens are taken beside keys.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    deadline: float = Field(default=0.25, gt=0)
    drain: float = Field(default=8.0, gt=0)
    waiting: int = Field(default=256, ge=1)
    in_flight: int = Field(default=512, ge=1)
    pending: int = Field(default=50_000, ge=1)
    cache: int = Field(default=200_000, ge=1)
    warm: bool = True
    approximate_from: int = Field(default=LARGE, ge=0)
    explore: float | None = Field(default=None, ge=0, le=1)
    explore_bonus: float = Field(default=0.5, ge=0)
    body: int = Field(default=4 << 20, ge=1024)
    body_seconds: float = Field(default=10.0, gt=0)
    header_seconds: float = Field(default=10.0, gt=0)
    rate: float = Field(default=0.0, ge=0)
    burst: int = Field(default=20, ge=1)
    guesses: int = Field(default=60, ge=0)
    limits: str = ""
    patrol: float = Field(default=60.0, gt=0)
    traces: str = ""
    trace_share: float = Field(default=1.0, ge=0, le=1)
    drift_seconds: float = Field(default=3600.0, ge=0)
    seal: float = Field(default=3600.0, ge=0)
    keep_days: float = Field(default=0.0, ge=0)
    console: bool = True
    tokens: TokenSettings | None = None
    consent: Literal["assumed", "required"] = "required"

    @property
    def large(self) -> int | None:
        """Items from which on lists are made from a shortlist; None for never."""
        return self.approximate_from or None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return self.host in _LOOPBACK


def data_folder(url: str) -> Path:
    """Return the folder of a data URL: ``sqlite:///DIR``, with a fourth slash for a path from the root.

    Raises
    ------
    InputError
        Another scheme, or no folder.

    Examples
    --------
    >>> data_folder("sqlite:///var/isthmus").as_posix(), data_folder("sqlite:////var/isthmus").as_posix()
    ('var/isthmus', '/var/isthmus')
    """
    path = url.removeprefix(_SCHEME) if url.startswith(_SCHEME) else url
    if "://" in path or not path:
        raise InputError(f"'{url}' is no place for events", where="--data", fix=_FORMS)
    return Path(path)
