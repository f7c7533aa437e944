"""Which model makes a list: the one that answers, or a canary; and what a shadow gets to see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from isthmus.log import logger
from isthmus.service.lists.items import Account, domain_of
from isthmus.service.lists.lister import Listed, Lister
from isthmus.service.lists.live import Live
from isthmus.service.lists.scoring import Ask
from isthmus.service.log.records import Receipt
from isthmus.service.rollout.arm import Arm, Canary
from isthmus.service.rollout.figures import Figures
from isthmus.service.rollout.pointer import Role
from isthmus.service.rollout.shadow import Shadow

#: Told of a trial that ends by itself: which, and why.
Over = Callable[[Arm, Role, str], None]


class Rollout:
    """The models of a tenant that are tried; belongs to its event loop.

    Parameters
    ----------
    tenant : str
        Whose.
    over : callable
        Told of a trial that ends by itself.

    Attributes
    ----------
    canary, shadow, judged, coming : Arm, optional
        The models; the last two are one that the promotion gate looks at, and one that is about to answer.
    figures : Figures
        Where it is counted.
    """

    def __init__(self, tenant: str, over: Over) -> None:
        self._tenant, self._over = tenant, over
        self.canary: Canary | None = None
        self.shadow: Shadow | None = None
        self.judged: Arm | None = None
        self.coming: Arm | None = None
        self.figures = Figures(CollectorRegistry())

    @property
    def arms(self) -> list[Arm]:
        """All models besides the one that answers."""
        return [arm for arm in (self.canary, self.shadow, self.judged, self.coming) if arm is not None]

    def arm(self, role: Role) -> Canary | Shadow | None:
        """Return the model that is tried as canary or as shadow."""
        return self.canary if role == "canary" else self.shadow

    def put(self, arm: Canary | Shadow) -> None:
        """Try a model; :meth:`start` lets it score."""
        if isinstance(arm, Shadow):
            self.shadow = arm
        else:
            self.canary = arm

    def start(self) -> None:
        """Begin to score with all that do not yet."""
        for arm in (self.canary, self.shadow):
            if arm is not None and not arm.lister.started:
                arm.lister.start()
                if isinstance(arm, Shadow):
                    arm.start(self._tenant, self.figures)

    def let_go(self, arm: Arm) -> None:
        """Count in no more with one: it is over, or it is the model that answers now."""
        if arm is self.canary:
            self.canary = None
        if arm is self.shadow:
            self.shadow = None
        if arm is self.judged:
            self.judged = None
        if arm is self.coming:
            self.coming = None

    async def end(self, arm: Arm) -> None:
        """End scoring with one, without waiting for what it does just now."""
        self.let_go(arm)
        if isinstance(arm, Shadow):
            arm.stop()
        await arm.lister.stop(wait=False)

    async def stop(self) -> None:
        """End scoring with all of them."""
        for arm in self.arms:
            await self.end(arm)

    def count_in(self, receipt: Receipt) -> None:
        """Let every model know what is on disk now; one that cannot take it in is tried no more."""
        for arm in self.arms:
            try:
                arm.count_in(receipt)
            except Exception as error:
                logger.exception("model %s cannot count in", arm.trial.model)
                self._fail(arm, f"cannot count in an event: {type(error).__name__}")

    def _fail(self, arm: Arm, reason: str) -> None:
        """Take a model out at once; whatever remembers it follows."""
        role: Role | None = "canary" if arm is self.canary else "shadow" if arm is self.shadow else None
        self.let_go(arm)
        if role is not None:
            self._over(arm, role, reason)
        if role == "canary":
            self.figures.rollbacks.labels(self._tenant).inc()

    async def put_items(self, items: Mapping[Account, str]) -> list[Arm]:
        """Make items known to every model; return those that must be built anew, for an item they know has changed."""
        changed = []
        for arm in self.arms:
            live = arm.live
            if any(live.added.get(name, body) != body for name, body in items.items()):
                changed.append(arm)
                continue
            new = {name: body for name, body in items.items() if name not in live.shelf.names}
            fresh = {name: body for name, body in new.items() if domain_of(body) in live.shelf.domains}
            if fresh:
                longer = await asyncio.to_thread(live.extended, fresh)
                longer.adopt(live)
                arm.replace(longer, grown=True)
            for name in items:
                if name in arm.live.shelf.removed:
                    arm.live.show(name, shown=True)
        return changed

    def of(self, account: Account, item: Account, live: Live, lister: Lister) -> tuple[Live, Lister]:
        """Return the model a person is answered by, if it lists the item, and its lists."""
        canary = self.canary
        if canary is not None and canary.lists(item) and canary.chosen(account, live.state):
            return canary.live, canary.lister
        return live, lister

    async def answered(self, asks: Sequence[Ask], live: Live, lister: Lister) -> list[Listed]:
        """Return lists made by the canary for its persons, by the model that answers for all others."""
        canary = self.canary
        if canary is None:
            return await _made(lister, asks)
        found = await asyncio.gather(*(self._one(canary, ask, live, lister) for ask in asks))
        self._look_at(canary)
        return found

    def failed(self) -> None:
        """Count a failure of the canary that no list says."""
        if self.canary is not None:
            self.canary.own.add(True, False)
            self._look_at(self.canary)

    def _look_at(self, canary: Canary) -> None:
        reason = canary.breach()
        if reason and canary is self.canary:
            self._fail(canary, reason)

    async def _one(self, canary: Canary, ask: Ask, live: Live, lister: Lister) -> Listed:
        if canary.takes(ask, live.state):
            listed, seconds = await canary.attempt(ask)
            self._count("canary", listed, seconds)
            if listed is not None:
                return listed
        began = time.perf_counter()
        listed = await lister.answer(ask)
        seconds = time.perf_counter() - began
        canary.other.add(False, canary.late(listed, seconds))
        self._count("active", listed, seconds)
        return listed

    def _count(self, arm: str, listed: Listed | None, seconds: float) -> None:
        outcome = "failed" if listed is None else listed.layer
        self.figures.canary_lists.labels(self._tenant, arm, outcome).inc()
        self.figures.canary_seconds.labels(self._tenant, arm).observe(seconds)

    def offer(self, asks: Sequence[Ask], answered: Sequence[Listed]) -> None:
        """Let the shadow make the same lists, later."""
        if self.shadow is not None:
            self.shadow.offer(asks, answered, self._dropped)

    def _dropped(self, n: int) -> None:
        self.figures.shadow_lists.labels(self._tenant, "dropped").inc(n)


def made_by(rollout: Rollout, listed: Live, else_by: tuple[Live, Lister]) -> tuple[Live, Lister]:
    """Return the model a list was made by, and its lists."""
    canary = rollout.canary
    return (canary.live, canary.lister) if canary is not None and canary.live is listed else else_by


async def _made(lister: Lister, asks: Sequence[Ask]) -> list[Listed]:
    """Return lists; those that are there at once cost no task."""
    found = [lister.at_once(ask) for ask in asks]
    lacking = [ask for ask, listed in zip(asks, found, strict=True) if listed is None]
    made = iter(await asyncio.gather(*(lister.answer(ask) for ask in lacking)) if lacking else ())
    return [next(made) if listed is None else listed for listed in found]
