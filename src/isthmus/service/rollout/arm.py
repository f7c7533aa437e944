"""A model and its lists, kept up with the log beside the one that answers."""

from __future__ import annotations

import hmac
import json
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from isthmus.log import logger
from isthmus.service.lists.items import Account
from isthmus.service.lists.lister import Listed, Lister
from isthmus.service.lists.live import Live
from isthmus.service.lists.scoring import Ask
from isthmus.service.lists.state import State
from isthmus.service.log.records import CONSENT, ERASE, REMOVE, Entry, Receipt
from isthmus.service.rollout.pointer import Trial
from isthmus.service.settings import ServiceSettings

#: Newest lists that a breach is judged by.
NEWEST: Final = 1000
#: Lists that must have failed, or come late, before a share of them says anything.
LEAST: Final = 5
#: How many times the share of the model that answers a canary's share must be.
WORSE: Final = 2.0
_HOUSE: Final = 1 << 64


class Arm:
    """A model tried beside the one that answers.

    Parameters
    ----------
    live : Live
        The model.
    settings : ServiceSettings
        Deadline and sizes of its lists.
    trial : Trial
        What is tried.
    """

    def __init__(self, live: Live, settings: ServiceSettings, trial: Trial) -> None:
        self.live, self.trial = live, trial
        own: Arm = weakref.proxy(self)  # in a circle with its lister a model would outlive its use: see Tenant.take
        self.lister = Lister(lambda: own.live, settings)

    def count_in(self, receipt: Receipt) -> None:
        """Take in what the log took in."""
        count_in(self.live, self.lister, receipt)

    def replace(self, live: Live, *, grown: bool = False) -> None:
        """Go on with another state of the model, which has more items if it has ``grown``."""
        self.live = live
        self.lister.replaced(grown=grown)


@dataclass
class Newest:
    """What became of the newest lists of a model: each of them failed, late."""

    lists: deque[tuple[bool, bool]] = field(default_factory=deque)
    failed: int = 0
    late: int = 0

    def add(self, failed: bool, late: bool) -> None:
        """Count a list, and forget the oldest one."""
        self.lists.append((failed, late))
        self.failed += failed
        self.late += late
        if len(self.lists) > NEWEST:
            old = self.lists.popleft()
            self.failed -= old[0]
            self.late -= old[1]

    def share(self, n: int) -> float:
        """Return ``n`` as a share of the lists."""
        return n / max(len(self.lists), 1)


class Canary(Arm):
    """A model that answers a share of the persons, always the same ones.

    Parameters
    ----------
    live, settings, trial
        As of :class:`Arm`.
    secret : bytes
        Key of the choice of persons.
    """

    def __init__(self, live: Live, settings: ServiceSettings, trial: Trial, secret: bytes) -> None:
        super().__init__(live, settings, trial)
        own: Canary = weakref.proxy(self)
        self.lister.wants = lambda person: own._chosen(min(own.live.state.linked[person]))
        self._key = hmac.digest(secret, f"canary\n{trial.model}".encode(), "sha256")
        self._below = int(trial.share * _HOUSE)
        self.own, self.other = Newest(), Newest()

    def chosen(self, account: Account, state: State) -> bool:
        """Return whether a person is answered by the canary: all accounts of a person are, or none."""
        person = state.person(*account)
        return self._chosen(state.hidden(account) if person is None else min(state.linked[person]))

    def _chosen(self, account: Account) -> bool:
        said = "\0".join(account).encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(said, digest_size=8, key=self._key).digest()) < self._below

    def takes(self, ask: Ask, state: State) -> bool:
        """Return whether a list is the canary's to make; a domain it does not know is not."""
        return ask.domain in self.live.scorers and self.chosen(ask.account, state)

    def lists(self, item: Account) -> bool:
        """Return whether an item is on the canary's lists."""
        shelf = self.live.shelf
        return item in shelf.names and shelf.table["domain"][shelf.names[item]] in self.live.scorers

    async def attempt(self, ask: Ask) -> tuple[Listed | None, float]:
        """Return a list and the seconds it took; None where the canary failed, so that another model answers."""
        began = time.perf_counter()
        listed = None
        try:
            found = await self.lister.answer(ask)
            listed = found if found.top.rows.size or not ask.plain else None
        except Exception as error:
            logger.warning("canary %s failed: %s", self.trial.model, type(error).__name__)
        seconds = time.perf_counter() - began
        self.own.add(listed is None, self.late(listed, seconds))
        return listed, seconds

    def late(self, listed: Listed | None, seconds: float) -> bool:
        """Return whether a list came too late, or was a cheaper one."""
        return seconds > self.trial.seconds or (listed is not None and listed.layer != "model")

    def breach(self) -> str:
        """Return what the canary does worse than it may, empty if nothing."""
        own, other = self.own, self.other
        for failed, limit, usual, said in (
            (own.failed, self.trial.errors, other.failed, "failed"),
            (own.late, 0.01, other.late, f"took more than {self.trial.seconds:g} s"),
        ):
            share = own.share(failed)
            if failed >= LEAST and share > limit and share > WORSE * other.share(usual):
                return f"{failed} of the newest {len(own.lists)} lists {said}"
        return ""


def count_in(live: Live, lister: Lister, receipt: Receipt) -> None:
    """Let a model know what is on disk now; the lists it concerns are made anew."""
    grown: dict[int, None] = {}
    for record in receipt.records:
        entry = record.entry
        if entry.kind == ERASE:
            persons = [live.state.person(*account) for account in _accounts(entry)]
            lister.forget([person for person in persons if person is not None])
        person = live.state.apply(entry)
        if person is not None and entry.kind == CONSENT:
            lister.forget([person])
        if person is not None:
            grown[person] = None
        if entry.kind == REMOVE:
            live.show((entry.platform, entry.item), shown=False)
    live.seq = receipt.seq
    lister.warm(grown)


def _accounts(entry: Entry) -> Sequence[Account]:
    return [(platform, user) for platform, user in json.loads(entry.body)["accounts"]]
