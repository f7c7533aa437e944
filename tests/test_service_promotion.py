"""The promotion gate: good models pass, bad ones are refused with the reason, and nothing else changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.small_models import accounts, ask, newest, save, serving, shuffled, with_weights, without_domain
from tests.tiers import count

from isthmus.recommender import Recommender
from isthmus.recommender.store import Content
from isthmus.service.rollout import trials
from isthmus.service.rollout.promotion import Check, Side
from isthmus.train.fit import Target


def collapsed(content: Content) -> Content:
    """Return a model that lists the same to everybody."""
    return with_weights(content, (1.0, 0.0, 0.0))


def upside_down(content: Content) -> Content:
    """Return a model whose neighbours are those least alike."""
    targets: dict[str, Target] = {}
    for name, target in content.targets.items():
        methods = list(target.methods)
        knn = methods[1].__class__()
        knn.__dict__.update(methods[1].__dict__)
        knn.weights = methods[1].weights.multiply(-1).tocsr()  # type: ignore[attr-defined]
        targets[name] = replace(target, methods=[methods[0], knn, methods[2]])
    return with_weights(replace(content, targets=targets), (0.0, 1.0, 0.0))


@pytest.mark.timeout(count(300, 3600))
def test_the_gate_lets_the_good_pass_and_refuses_the_bad(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    save(folder / "active")
    save(folder / "less", without_domain)
    good = {f"good-{n}": (0.1 + n / 100, 0.6, 0.3 - n / 100) for n in range(count(2, 5))}
    for name, weights in good.items():
        save(folder / name, lambda content, weights=weights: with_weights(content, weights))  # type: ignore[misc]
    bad: dict[str, str] = {"less": "domains", "collapsed": "variety", "upside-down": "ndcg"}
    save(folder / "collapsed", collapsed)
    save(folder / "upside-down", upside_down)
    for n in range(count(1, 16)):
        Recommender(shuffled(n)).save(folder / f"shuffled-{n}")
        bad[f"shuffled-{n}"] = "ndcg"
    save(
        folder / "forgot",
        lambda content: replace(content, targets={**content.targets, "target": upside_down(content).targets["target"]}),
    )
    bad["forgot"] = "ndcg of target"
    assert (len(bad), len(good)) == (count(5, 20), count(2, 5))

    asyncio.run(gate(folder, tmp_path / "data", bad, list(good)))


async def gate(folder: Path, data: Path, bad: dict[str, str], good: list[str]) -> None:
    """Ask for every model, send what happened since, ask again, promote."""
    async with serving(folder, data) as (client, service):
        early = (await client.post("/v1/models/upside-down/check")).json()
        assert next(one["said"] for one in early["checks"] if one["name"] == "ndcg").startswith("0 events newer")
        deeds = newest()
        for start in range(0, len(deeds), 500):
            sent = await client.post("/v1/events", json={"events": deeds[start : start + 500]})
            assert sent.json()["accepted"] > 0
        found = {name: (await client.post(f"/v1/models/{name}/check")).json() for name in [*bad, *good]}
        for name, reason in bad.items():
            assert not found[name]["passed"], name
            assert any(said.startswith(reason) for said in found[name]["reasons"]), (name, found[name]["reasons"])
        for name, reason in list(bad.items())[: count(2, 20)]:
            refused = await client.post(f"/v1/models/{name}/promote")
            assert refused.status_code == 409
            assert reason.split()[0] in refused.json()["detail"]
            assert (await client.get("/v1/models")).json()["active"] == "active"
        for name in good:
            done = await client.post(f"/v1/models/{name}/promote")
            assert (done.status_code, done.json().get("passed")) == (200, True), done.text
            assert (await ask(client, accounts(1)))["model"] == name
        forced = await client.post("/v1/models/collapsed/promote?force=true")
        assert (forced.status_code, forced.json()["passed"]) == (200, False)
        back = await client.post("/v1/models/rollback")
        assert back.json()["model"] == good[-1]
        assert service.tenant().rollout.arms == []


def test_of_two_promoted_at_once_the_second_is_judged_beside_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that lists the same to everybody is as good as one that does so, and worse than one that does not."""
    folder = tmp_path / "models"
    save(folder / "active", collapsed)
    save(folder / "again", lambda content: with_weights(content, (0.9, 0.0, 0.0)))
    save(folder / "good")
    judge, promoted = trials.judge, asyncio.Event()

    async def slow(active: Side, candidate: Side) -> list[Check]:
        found = await judge(active, candidate)
        if candidate.live.version.name == "again" and not promoted.is_set():
            await asyncio.wait_for(promoted.wait(), 60)
        return found

    async def run() -> None:
        async with serving(folder, tmp_path / "data") as (client, _):
            assert (await client.post("/v1/models/again/check")).json()["passed"], "beside the one that answers"
            for name, role in (("again", "canary"), ("good", "shadow")):
                assert (await client.post(f"/v1/models/{name}/{role}", json={"share": 0.1})).status_code == 200
            monkeypatch.setattr(trials, "judge", slow)
            second = asyncio.create_task(client.post("/v1/models/again/promote"))
            await asyncio.sleep(0.2)
            assert (await client.post("/v1/models/good/promote")).status_code == 200
            promoted.set()
            refused = await second
            assert refused.status_code == 409
            assert "variety" in refused.json()["detail"]
            assert (await client.get("/v1/models")).json()["active"] == "good"
            assert (await client.post("/v1/models/good/promote")).status_code == 409

    asyncio.run(run())
