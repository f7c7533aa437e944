"""Models that are tried: begun, ended, judged, promoted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from isthmus.errors import ArtefactError, NotFoundError
from isthmus.service.lists.live import Live, clock
from isthmus.service.problems import ConflictError
from isthmus.service.rollout.arm import Arm, Canary
from isthmus.service.rollout.pointer import Role, Trial
from isthmus.service.rollout.promotion import Side, judge, reasons
from isthmus.service.rollout.shadow import Shadow
from isthmus.service.schemas_models import CanaryIn, ShadowIn
from isthmus.service.tenant import Tenant


async def start_canary(tenant: Tenant, name: str, asked: CanaryIn) -> dict[str, object]:
    """Let a model answer a share of the persons; return what is tried."""
    seconds = tenant.settings.deadline if asked.seconds is None else asked.seconds
    return await _start(tenant, "canary", Trial(name, "", asked.share, asked.errors, seconds))


async def start_shadow(tenant: Tenant, name: str, asked: ShadowIn) -> dict[str, object]:
    """Let a model make a share of the lists too, for nobody; return what is tried."""
    return await _start(tenant, "shadow", Trial(name, "", asked.share))


async def _start(tenant: Tenant, role: Role, wanted: Trial) -> dict[str, object]:
    """Build a model beside the one that answers and try it; the same model goes on as it is, with other limits."""
    rollout = tenant.rollout
    async with tenant.changing:
        if wanted.model == tenant.models.pointer.active:
            raise ConflictError(f"'{wanted.model}' is the model that answers", fix="try another one")
        old = rollout.arm(role)
        live = await _live(tenant, wanted.model, old)
        trial = Trial(wanted.model, live.version.digest, wanted.share, wanted.errors, wanted.seconds)
        arm = tenant.arm(role, live, trial)
        rollout.put(arm)  # from here on it counts in what is written
        try:
            await asyncio.to_thread(tenant.models.point, tenant.models.pointer.tried(role, trial))
        except BaseException:
            await rollout.end(arm)
            if old is not None:
                rollout.put(old)
            raise
        rollout.start()
        if old is not None:
            await rollout.end(old)
    return {"model": trial.model, "model_version": trial.version, "share": trial.share}


async def _live(tenant: Tenant, name: str, *arms: Arm | None) -> Live:
    """Return a model as it is at work already, else built anew; :attr:`Tenant.changing` is held."""
    version = tenant.models.version(name)
    for arm in arms:
        if arm is not None and arm.live.version == version:
            return arm.live
    opened, version = await asyncio.to_thread(tenant.models.open, name)
    return await tenant.built(opened, version)


async def end(tenant: Tenant, name: str, role: Role) -> dict[str, object]:
    """Try a model no more."""
    async with tenant.changing:
        arm = tenant.rollout.arm(role)
        if arm is None or arm.trial.model != name:
            raise NotFoundError(f"'{name}' is no {role}", fix="GET /v1/models says which models are tried")
        pointer = tenant.models.pointer.over(role, "ended by request", clock())
        await asyncio.to_thread(tenant.models.point, pointer)
        await tenant.rollout.end(arm)
    return {"model": name, "model_version": arm.trial.version, "share": 0.0}


@asynccontextmanager
async def _at_work(tenant: Tenant, name: str) -> AsyncIterator[Arm]:
    """Yield a model that is kept up with the log, to be looked at."""
    rollout = tenant.rollout
    if rollout.judged is not None:
        raise ConflictError("another model is being judged", fix="try again in a minute")
    made = None
    async with tenant.changing:
        arm: Arm | None = next((one for one in rollout.arms if one.trial.model == name), None)
        if arm is None:
            if rollout.judged is not None:
                raise ConflictError("another model is being judged", fix="try again in a minute")
            live = await _live(tenant, name)
            quiet = tenant.settings.model_copy(update={"warm": False})
            arm = made = rollout.judged = Arm(live, quiet, Trial(name, live.version.digest, 0.0))
    try:
        yield arm
    finally:
        if made is not None:
            rollout.judged = None
            await made.lister.stop(wait=False)


async def check(tenant: Tenant, name: str) -> dict[str, object]:
    """Return what a model shows beside the one that answers; nothing changes."""
    async with _at_work(tenant, name) as arm:
        return await _judged(tenant, arm)


async def _judged(tenant: Tenant, arm: Arm) -> dict[str, object]:
    checks = await judge(Side(tenant.live, tenant.lister), Side(arm.live, arm.lister))
    against = reasons(checks)
    return {
        "model": arm.trial.model,
        "model_version": arm.trial.version,
        "passed": not against,
        "reasons": against,
        "checks": [asdict(one) for one in checks],
    }


async def promote(tenant: Tenant, name: str, *, force: bool) -> dict[str, object]:
    """Let a model answer everybody if it passes the gate.

    It is judged before its turn to change something comes, for that takes long and items would wait; if another model
    has come to answer by then, it is judged beside that one once more.

    Raises
    ------
    ConflictError
        It does not pass; ``force`` lets it answer all the same.
    """
    _refuse_active(tenant, name)
    async with _at_work(tenant, name) as arm:
        beside = tenant.live.version
        said = await _judged(tenant, arm)
        async with tenant.changing:
            _refuse_active(tenant, name)
            if tenant.live.version != beside:
                said = await _judged(tenant, arm)
            if not said["passed"] and not force:
                against = "; ".join(reasons_of(said))
                raise ConflictError(f"'{name}' does not pass: {against}", where="gate", fix="mend it, or ?force=true")
            if arm not in tenant.rollout.arms:
                raise ArtefactError("failed while it was judged", where=name, fix="look at the log of the service")
            live = arm.live
            await tenant.let_answer(live, tenant.models.activated(name))
    return said


def _refuse_active(tenant: Tenant, name: str) -> None:
    if name == tenant.models.pointer.active:
        raise ConflictError(f"'{name}' is the model that answers")


def reasons_of(said: dict[str, object]) -> list[str]:
    """Return what spoke against a model that was judged."""
    found = said["reasons"]
    return [str(one) for one in found] if isinstance(found, list) else []


def tried(tenant: Tenant) -> dict[str, object]:
    """Return the models that are tried, and how they do."""
    canary, shadow, ended = tenant.rollout.canary, tenant.rollout.shadow, tenant.models.pointer.ended
    return {
        "canary": None if canary is None else {**asdict(canary.trial), **_doing(canary)},
        "shadow": None if shadow is None else {**_trial(shadow.trial), **_compared(shadow)},
        "ended": None if ended is None else asdict(ended),
    }


def _trial(trial: Trial) -> dict[str, object]:
    return {"model": trial.model, "version": trial.version, "share": trial.share}


def _doing(canary: Canary) -> dict[str, object]:
    own, other = canary.own, canary.other
    return {
        "lists": len(own.lists),
        "failed": own.failed,
        "late": own.late,
        "lists_of_others": len(other.lists),
        "late_of_others": other.late,
    }


def _compared(shadow: Shadow) -> dict[str, object]:
    made = shadow.lists - shadow.failed
    return {"lists": shadow.lists, "failed": shadow.failed, "overlap": shadow.overlaps / made if made else None}
