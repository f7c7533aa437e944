"""What a key or a token opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: What a key may be allowed to do.
SCOPES: Final = ("recommend", "events", "items", "persons", "consents", "models", "metrics", "console", "audit")
#: The tenant of a key that reads the figures of all tenants, and nothing else.
EVERY: Final = "*"


@dataclass(frozen=True)
class Key:
    """What a key may do; the secret itself is kept nowhere.

    Parameters
    ----------
    prefix : str
        Public beginning of the key.
    tenant : str
        Whose; :data:`EVERY` for all.
    scopes : tuple of str
        Some of :data:`SCOPES`.
    platforms : tuple of str
        Platforms whose people it may ask for; empty for all.
    label : str
        What it is for.
    created : int
        Seconds since 1970.
    expires, revoked : int, optional
        Seconds since 1970.
    events, lists : int, optional
        Events it may send, and lists, explanations and comparisons it may get, in a day (UTC).
    """

    prefix: str
    tenant: str
    scopes: tuple[str, ...]
    platforms: tuple[str, ...] = ()
    label: str = ""
    created: int = 0
    expires: int | None = None
    revoked: int | None = None
    events: int | None = None
    lists: int | None = None

    def valid(self, now: float) -> bool:
        """Return whether the key opens anything at the time ``now``."""
        return self.revoked is None and (self.expires is None or now < self.expires)
