"""Models tried beside the one that answers: canary, shadow, the gate before everybody, and the way back by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.small_models import GOOD, accounts, active, ask, save, serving, with_weights, without_domain
from tests.tiers import count

from isthmus.data.sequences import Histories
from isthmus.recommender.serving import Scorer
from isthmus.service.core import Service
from isthmus.service.lists.live import Live, LiveRules, Version
from isthmus.service.rollout import shadow as shadow_of
from isthmus.service.rollout.arm import Canary
from isthmus.service.rollout.pointer import Trial
from isthmus.service.settings import ServiceSettings
from isthmus.types import Floats

Client = httpx.AsyncClient
Test = Callable[[Client, Service], Awaitable[None]]
OTHER = (0.0, 0.1, 0.9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model that answers, one that lists otherwise, a copy, and one that lacks a domain."""
    path = tmp_path_factory.mktemp("models")
    save(path / "active")
    save(path / "copy")
    save(path / "other", lambda content: with_weights(content, OTHER))
    save(path / "less", without_domain)
    return path


def run(folder: Path, data: Path, test: Test, **settings: object) -> None:
    async def whole() -> None:
        async with serving(folder, data, **settings) as (client, service):
            await test(client, service)

    asyncio.run(whole())


def live(version: str = "v") -> Live:
    return Live.build(active(), Version("other", version), [], b"", rules=LiveRules())


def test_a_canary_takes_its_share_of_persons_and_always_the_same() -> None:
    settings, one = ServiceSettings(), live()

    def chosen(share: float, secret: bytes = b"s", model: str = "other", n: int = 100_000) -> set[int]:
        canary = Canary(one, settings, Trial(model, "v", share), secret)
        return {n for n in range(n) if canary.chosen(("shop", f"u{n}"), one.state)}

    tenth = chosen(0.1)
    print(f"share 0.1: {len(tenth)} of 100,000 persons")
    assert abs(len(tenth) / 100_000 - 0.1) <= 0.003
    assert chosen(0.1) == tenth, "another process, the same persons"
    few = {n for n in tenth if n < 20_000}
    assert few < chosen(0.2, n=20_000), "a larger share keeps those of a smaller one"
    for others in (chosen(0.1, b"t", n=20_000), chosen(0.1, model="third", n=20_000)):
        assert 0.07 < len(few & others) / len(few) < 0.13, "other persons for another model, or at another service"
    canary = Canary(one, settings, Trial("other", "v", 0.5), b"s")
    both = [linked for linked in one.state.linked.values() if len(linked) > 1]
    assert len(both) > 50
    assert all(len({canary.chosen(account, one.state) for account in linked}) == 1 for linked in both)


def test_answers_name_the_model_that_made_them_and_a_restart_goes_on(folder: Path, tmp_path: Path) -> None:
    persons = accounts(60)
    made: list[list[str]] = []

    async def test(client: Client, service: Service) -> None:
        before = await ask(client, persons)
        for wrong, status in (({"share": 0}, 422), ({"share": 0.5, "x": 1}, 422), ({"share": 1.5}, 422)):
            assert (await client.post("/v1/models/other/canary", json=wrong)).status_code == status
        assert (await client.post("/v1/models/active/canary", json={"share": 0.5})).status_code == 409
        assert (await client.delete("/v1/models/other/canary")).status_code == 404
        done = await client.post("/v1/models/other/canary", json={"share": 0.5})
        assert done.json()["share"] == 0.5, done.text
        after = await ask(client, persons)
        assert after["model"] == "active"
        made.append([one.get("model", "active") for one in after["lists"]])  # type: ignore[attr-defined]
        mine = [n for n, name in enumerate(made[0]) if name == "other"]
        assert 15 < len(mine) < 45
        other = service.tenant().rollout.canary
        assert other is not None
        for n, (old, new) in enumerate(zip(before["lists"], after["lists"], strict=True)):  # type: ignore[call-overload]
            if n not in mine:
                assert new == old, "the others see nothing of it"
        assert any(before["lists"][n]["items"] != after["lists"][n]["items"] for n in mine)  # type: ignore[index]
        alone = await ask(client, [persons[mine[0]]], reasons=1)
        assert (alone["model"], "model" in alone["lists"][0]) == ("other", False)  # type: ignore[index]
        reasons = alone["lists"][0]["items"][0]["reasons"]  # type: ignore[index]
        assert reasons
        first = alone["lists"][0]["items"][0]  # type: ignore[index]
        wanted = {**persons[mine[0]], "item": {"platform": first["platform"], "item": first["item"]}}
        told = (await client.post("/v1/explain", json=wanted)).json()
        assert told["model"] == "other"
        deed = {**persons[mine[0]], "item": first["item"], "event": "purchase"}
        assert (await client.post("/v1/events", json={"events": [deed]})).status_code == 202
        again = await ask(client, [persons[mine[0]]])
        assert first["item"] not in [one["item"] for one in again["lists"][0]["items"]], "it counts in"  # type: ignore[index]
        said = (await client.get("/v1/models")).json()
        assert said["canary"]["lists"] >= len(mine)
        assert said["canary"]["failed"] == 0

    run(folder, tmp_path, test)

    async def later(client: Client, service: Service) -> None:
        after = await ask(client, persons)
        assert [one.get("model", "active") for one in after["lists"]] == made[0]  # type: ignore[attr-defined]
        assert (await client.post("/v1/models/other/canary", json={"share": 1})).status_code == 200
        assert (await ask(client, persons))["model"] == "other"
        assert (await client.delete("/v1/models/other/canary")).status_code == 200
        assert (await ask(client, persons))["model"] == "active"
        assert (await client.get("/v1/models")).json()["ended"]["reason"] == "ended by request"

    run(folder, tmp_path, later)


def test_a_canary_knows_new_items_and_erased_persons(folder: Path, tmp_path: Path) -> None:
    table = active().items.filter(domain="source")
    new = {"platform": "north", "item": "new-1", "domain": "source", "title": table["title"][0]}

    async def test(client: Client, service: Service) -> None:
        await client.post("/v1/models/less/canary", json={"share": 1})
        who = accounts(1)
        assert (await ask(client, who, target="target"))["model"] == "active", "it does not know the domain"
        for title in (new["title"], "Other words"):
            done = await client.put("/v1/items", json={"items": [{**new, "title": title}]})
            assert done.status_code == 200, done.text
            canary = service.tenant().rollout.canary
            assert canary is not None
            assert canary.live.shelf.title(canary.live.row("north", "new-1")) == title
        said = await ask(client, who, k=1000)
        assert "new-1" in [one["item"] for one in said["lists"][0]["items"]]  # type: ignore[index]
        assert (await client.delete("/v1/items/north:new-1")).json()["removed"]
        said = await ask(client, who, k=1000)
        assert "new-1" not in [one["item"] for one in said["lists"][0]["items"]]  # type: ignore[index]
        nobody = (await ask(client, [{"platform": "north", "user": "nobody"}]))["lists"]
        path = f"/v1/persons/{who[0]['platform']}:{who[0]['user']}"
        assert (await client.delete(path)).status_code == 200
        left = (await ask(client, who))["lists"]
        assert left[0]["items"] == nobody[0]["items"]  # type: ignore[index]
        assert canary.live.state.digest() == service.tenant().live.state.digest()

    run(folder, tmp_path, test)


def break_it(service: Service, how: str) -> None:
    """Let the canary fail, hang or list nothing from now on."""
    canary = service.tenant().rollout.canary
    assert canary is not None

    def broken(scorer: Scorer) -> Callable[..., Floats]:
        sound = scorer.score

        def score(histories: Histories, *asked: object) -> Floats:
            if how == "slow":
                time.sleep(0.3)
                return sound(histories, *asked)
            if how == "fails":
                raise MemoryError
            return np.full((len(histories), scorer.items.size), -np.inf, np.float32)

        return score

    for scorer in canary.live.scorers.values():
        scorer.score = broken(scorer)  # type: ignore[method-assign]
    canary.lister.replaced()


@pytest.mark.parametrize("how", ["fails", "slow", "empty"])
def test_a_canary_that_does_worse_goes_by_itself_and_no_request_fails(folder: Path, tmp_path: Path, how: str) -> None:
    persons = accounts(40)

    async def test(client: Client, service: Service) -> None:
        await client.post("/v1/models/other/canary", json={"share": 0.5, "seconds": 0.15})
        for who in persons:
            await ask(client, [who])
        assert service.tenant().rollout.canary is not None, "nothing was wrong yet"
        break_it(service, how)
        began, asked, over = time.monotonic(), 0, 0.0

        async def keep_asking(n: int) -> None:
            nonlocal asked, over
            while time.monotonic() < began + 30 and not over:
                said = await ask(client, [persons[(asked * 7 + n) % len(persons)]])
                assert said["lists"][0]["items"]  # type: ignore[index]
                asked += 1
                if service.tenant().rollout.canary is None:
                    over = time.monotonic() - began

        await asyncio.gather(*(keep_asking(n) for n in range(4)))
        assert 0 < over < 30, asked
        print(f"{how}: over after {over:.2f} s and {asked} requests")
        for _ in range(200):
            if service.tenant().models.pointer.canary is None:
                break
            await asyncio.sleep(0.02)
        said = (await client.get("/v1/models")).json()
        assert (said["active"], said["canary"]) == ("active", None)
        assert said["ended"]["model"] == "other"
        assert ("took more than" if how == "slow" else "failed") in said["ended"]["reason"]
        assert (await ask(client, persons))["model"] == "active"
        for _ in range(100):
            if [one for one in service.vault.audit() if one["action"] == "canary rolled back"]:
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("the audit log does not know")
        text = (await client.get("/metrics")).text
        assert 'isthmus_canary_rollbacks_total{tenant="default"} 1.0' in text

    run(folder, tmp_path, test, deadline=0.2 if how == "slow" else 20.0)

    async def later(client: Client, service: Service) -> None:
        assert service.tenant().rollout.canary is None, "nor after a restart"

    run(folder, tmp_path, later)


def test_answers_are_the_same_bytes_with_a_shadow_whatever_it_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_of, "REST", 1.0)
    bodies = [{"persons": [who], "k": 7, "scores": True} for who in accounts(count(40, 200))]

    async def test(client: Client, service: Service) -> None:
        async def answers() -> list[bytes]:
            return [(await client.post("/v1/recommend", json=body)).content for body in bodies]

        async def figure(name: str) -> float:
            lines = (await client.get("/metrics")).text.splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

        alone = await answers()
        assert (await client.post("/v1/models/copy/shadow", json={"share": 1})).status_code == 200
        assert await answers() == alone
        lists = 2 * len(bodies)
        for _ in range(1000):
            if await figure("isthmus_shadow_lists_total") >= lists:
                break
            await asyncio.sleep(0.02)
        assert await figure("isthmus_shadow_lists_total") == lists
        made = await figure('isthmus_shadow_lists_total{outcome="made"')
        assert made >= min(lists, 100), "it drops what it cannot take"
        assert await figure("isthmus_shadow_overlap_ratio_sum") == pytest.approx(made), "a copy lists the same"
        assert (await client.get("/v1/models")).json()["shadow"]["overlap"] == pytest.approx(1)
        assert (await client.post("/v1/models/other/shadow", json={"share": 1})).status_code == 200
        shadow = service.tenant().rollout.shadow
        assert shadow is not None
        assert await answers() == alone
        for _ in range(500):
            if shadow.lists >= 20:
                break
            await asyncio.sleep(0.02)
        assert 0 < shadow.overlaps / shadow.lists < 1, "another model lists otherwise"

        def crash(histories: object, *_: object) -> np.ndarray:
            raise MemoryError

        for scorer in shadow.live.scorers.values():
            scorer.score = crash  # type: ignore[method-assign]
        shadow.lister.replaced()
        assert await answers() == alone
        for _ in range(500):
            if shadow.failed:
                break
            await asyncio.sleep(0.02)
        assert await figure('isthmus_shadow_lists_total{outcome="failed"') >= 1

        def burst(entry: object) -> None:
            raise RuntimeError

        shadow.live.state.apply = burst  # type: ignore[method-assign,assignment]
        deed = {**accounts(1)[0], "item": active().items["item"][0], "event": "click"}
        assert (await client.post("/v1/events", json={"events": [deed]})).status_code == 202
        assert service.tenant().rollout.shadow is None, "it cannot follow, so it goes"

    run(folder, tmp_path, test)


def test_a_promoted_canary_answers_everybody_with_all_that_happened(folder: Path, tmp_path: Path) -> None:
    who = accounts(30)
    sent = 0

    async def test(client: Client, service: Service) -> None:
        going = True

        async def keep_sending() -> None:
            nonlocal sent
            while going:
                item = active().items["item"][sent % 40]
                deed = {**who[sent % 30], "item": item, "event": "like"}
                assert (await client.post("/v1/events", json={"events": [deed]})).status_code == 202
                sent += 1

        sender = asyncio.create_task(keep_sending())
        for name in ("other", "active", "copy", "active"):
            await client.post(f"/v1/models/{name}/canary", json={"share": 0.3})
            await client.post(f"/v1/models/{name}/shadow", json={"share": 0.3})
            done = await client.post(f"/v1/models/{name}/promote?force=true")
            assert done.status_code == 200, done.text
            assert service.tenant().rollout.arms == []
        for name in ("other", "active"):
            assert (await client.post(f"/v1/models/{name}/activate")).status_code == 200
        going = False
        await sender
        digests.append(service.tenant().live.state.digest())

    digests: list[str] = []
    run(folder, tmp_path, test)
    assert sent > 10

    async def later(client: Client, service: Service) -> None:
        assert service.tenant().live.state.digest() == digests[0], "nothing was missed, nothing counted twice"

    run(folder, tmp_path, later)


@pytest.mark.timeout(count(300, 3600))
def test_reloads_under_load_fail_no_request(folder: Path, tmp_path: Path) -> None:
    rounds, persons = count(10, 100), accounts(16)
    assert GOOD != OTHER

    async def test(client: Client, service: Service) -> None:
        expected = {}
        for name in ("other", "active"):
            await client.post(f"/v1/models/{name}/activate")
            expected[name] = [(await ask(client, [who]))["lists"] for who in persons]
        seen: set[str] = set()
        going = True
        waits: list[float] = []

        async def keep_asking(n: int) -> None:
            while going:
                began = time.perf_counter()
                said = await ask(client, [persons[n]])
                waits.append(time.perf_counter() - began)
                assert said["lists"] == expected[str(said["model"])][n], "the items are those of the model it names"
                seen.add(str(said["model"]))
                await asyncio.sleep(0.02)

        askers = [asyncio.create_task(keep_asking(n)) for n in range(16)]
        await asyncio.sleep(1)
        idle = float(np.quantile(waits, 0.99))
        waits.clear()
        for n in range(rounds):
            done = await client.post(f"/v1/models/{('other', 'active')[n % 2]}/activate")
            assert done.status_code == 200
        going = False
        await asyncio.gather(*askers)
        assert seen == {"other", "active"}
        print(f"{len(waits)} requests, p99 {np.quantile(waits, 0.99) * 1e3:.1f} ms, idle {idle * 1e3:.1f} ms")

    run(folder, tmp_path, test)
