"""Tenants of one process know nothing of each other: no figure, no model, no event, no person."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.small_service import account, event, served
from tests.test_cli import isthmus

from isthmus.errors import InputError
from isthmus.service.core import Service
from isthmus.service.lock.key import EVERY, SCOPES
from isthmus.service.lock.operations import OPERATIONS
from isthmus.service.lock.vault import Vault

Client = httpx.AsyncClient


def keys_of(folder: Path, *tenants: str) -> dict[str, dict[str, str]]:
    """Return headers with a key of each tenant that opens everything, and one for the figures of all."""
    vault = Vault(folder)
    texts = {name: vault.create(tenant=name, scopes=SCOPES)[1] for name in tenants}
    texts[EVERY] = vault.create(tenant=EVERY, scopes=["metrics"])[1]
    vault.close()
    return {name: {"authorization": f"Bearer {text}"} for name, text in texts.items()}


def test_figures_tell_a_tenant_nothing_of_another(tmp_path: Path) -> None:
    keys = keys_of(tmp_path, "a", "b", "gone")

    async def test(client: Client, service: Service) -> None:
        async def told() -> tuple[str, dict[str, object]]:
            """What a is told: figures without what its own question changed, and the last hour."""
            text = (await client.get("/metrics", headers=keys["a"])).text
            hour = (await client.get("/v1/overview", headers=keys["a"])).json()
            drop = ("now", "began", "minutes", "operations")
            return text, {name: value for name, value in hour.items() if name not in drop}

        before = await told()
        body = {"events": [event(n) for n in range(30)]}
        assert (await client.post("/v1/events", json=body, headers=keys["b"])).status_code == 202
        asked = {"persons": [account()], "k": 3}
        assert (await client.post("/v1/recommend", json=asked, headers=keys["b"])).status_code == 200
        assert await told() == before
        hour = (await client.get("/v1/overview", headers=keys["a"])).json()
        assert not re.search(r"recommend|popular|stored", str(hour["minutes"])), "what b did is in a's hour"
        own = (await client.get("/v1/overview", headers=keys["b"])).json()
        assert sum(minute["events"] for minute in own["minutes"]) == 30
        assert set(re.findall(r'tenant="(\w+)"', before[0])) == {"a"}
        assert "isthmus_requests_total" not in before[0], "requests of all tenants together"
        every = (await client.get("/metrics", headers=keys[EVERY])).text
        assert set(re.findall(r'tenant="(\w+)"', every)) == {"a", "b"}
        assert "isthmus_requests_total" in every
        assert (await client.get("/metrics", headers=keys["gone"])).status_code == 404

    served(tmp_path, test, tenants=("a", "b"))


def test_the_key_for_all_figures_opens_nothing_else(tmp_path: Path) -> None:
    keys = keys_of(tmp_path, "a")

    async def test(client: Client, service: Service) -> None:
        for one in OPERATIONS:
            if one.scope and one.path != "/metrics":
                path = re.sub(r"\{[^}]*\}", "north:x", one.path)
                answer = await client.request(one.method, path, headers=keys[EVERY], json={})
                assert answer.status_code in (403, 404), one.name

    served(tmp_path, test, tenants=("a", "b"))
    with pytest.raises(InputError, match="figures only"):
        Vault(tmp_path).create(tenant=EVERY, scopes=["metrics", "persons"])
    done = isthmus("keys", "create", "--data", tmp_path, "--scope", "audit", "--tenant", "*")
    assert done.code == 2
    assert "take --scope metrics alone" in done.err


def test_a_tenant_neither_sees_nor_activates_models_that_lie_beside_its_own(tmp_path: Path) -> None:
    keys = keys_of(tmp_path, "a", "b")

    async def test(client: Client, service: Service) -> None:
        several = len(service.tenants) > 1
        known = (await client.get("/v1/models", headers=keys["a"])).json()
        names = {one["name"] for one in known["models"]}
        assert names == {"first"} if several else names >= {"first", "second"}

        async def asked(model: str, what: str) -> tuple[int, str]:
            method = "GET" if what == "report" else "POST"
            path = f"/v1/models/{model}/{what}"
            answer = await client.request(method, path, json={"share": 0.1}, headers=keys["a"])
            return answer.status_code, str(answer.json().get("detail")).replace(model, "MODEL")

        for what in ("check", "shadow", "canary", "report", "activate"):
            got = await asked("second", what)
            if several:
                assert got[0] == 404
                assert got == await asked("third", what), "a model of another is like none at all"
            else:
                assert got[0] < 300, (what, got)

    served(tmp_path, test, tenants=("a", "b"))
    served(tmp_path, test, tenants=("a",))


def share_slower(some: list[float], other: list[float]) -> float:
    """Return how often one of ``some`` took longer than one of ``other``: 0.5 where neither can be told by its time."""
    return float((np.array(some)[:, None] > np.array(other)[None, :]).mean())


def test_a_name_of_another_tenant_answers_like_one_that_nobody_has_also_in_time(tmp_path: Path) -> None:
    """S1: no oracle; what is one's own is told apart, by the answer and by its time."""
    keys = keys_of(tmp_path, "a", "b")
    names = {"own": "person-of-a", "foreign": "person-of-b", "absent": "person-of-0"}
    asks = {
        "export": lambda name: ("GET", f"/v1/persons/north:{name}", None),
        "erase": lambda name: ("DELETE", f"/v1/persons/north:{name}-x", None),
        "item": lambda name: ("GET", f"/v1/items/north:{name}", None),
        "withdraw": lambda name: ("DELETE", f"/v1/items/north:{name}", None),
        "list": lambda name: ("POST", "/v1/recommend", {"persons": [{"platform": "north", "user": name}], "k": 5}),
        "similar": lambda name: ("POST", "/v1/similar", {"platform": "north", "item": name, "k": 5}),
        "explain": lambda name: (
            "POST",
            "/v1/explain",
            {"platform": "north", "user": name, "item": {"platform": "north", "item": name}},
        ),
    }

    async def test(client: Client, service: Service) -> None:
        for tenant, name in (("a", names["own"]), ("b", names["foreign"])):
            who = {"platform": "north", "user": name}
            some = {"events": [event(n % 20, who, id=f"{tenant}{n}") for n in range(400)]}
            assert (await client.post("/v1/events", json=some, headers=keys[tenant])).status_code == 202
            new = {"platform": "north", "item": name, "domain": "source", "title": name}
            assert (await client.put("/v1/items", json={"items": [new]}, headers=keys[tenant])).status_code == 200

        async def answered(ask: str, kind: str) -> tuple[float, int, str]:
            method, path, body = asks[ask](names[kind])
            began = time.perf_counter()
            answer = await client.request(method, path, json=body, headers=keys["a"])
            took = time.perf_counter() - began
            said = re.sub(r'"request_id":"[^"]*"|"request_id": "[^"]*"', "", answer.text)
            return took, answer.status_code, said.replace(names[kind], "NAME")

        for ask in asks:
            times: dict[str, list[float]] = {kind: [] for kind in names}
            said: dict[str, set[tuple[int, str]]] = {kind: set() for kind in names}
            for turn in range(160):
                for kind in ("foreign", "absent") if turn % 2 else ("absent", "foreign"):
                    took, *rest = await answered(ask, kind)
                    if turn >= 10:
                        times[kind].append(took)
                    said[kind].add((int(str(rest[0])), str(rest[1])))
                if ask == "export":
                    times["own"].append((await answered(ask, "own"))[0])
            assert said["foreign"] == said["absent"], ask
            share = share_slower(times["foreign"], times["absent"])
            print(f"{ask}: {share:.3f}")
            assert 0.35 < share < 0.65, f"{ask}: more than four standard errors from one half"
            if ask == "export":
                assert share_slower(times["own"], times["absent"]) > 0.9, "what is there does take longer"

    served(tmp_path, test, tenants=("a", "b"))
