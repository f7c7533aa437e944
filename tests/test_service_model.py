"""R6: whatever is asked of two tenants, in whatever order, they answer as two dicts would."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import ClassVar

import httpx
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from tests.small_service import account, item, models
from tests.tiers import count

from isthmus.service.app import create_app
from isthmus.service.core import Places, Service
from isthmus.service.lock.key import SCOPES
from isthmus.service.log.segments import Segments
from isthmus.service.settings import ServiceSettings

TENANTS = ("default", "other")
WHO = [account(0), account(1), {"platform": "north", "user": "new 新"}, {"platform": "north", "user": "new-2"}]
PEOPLE = st.sampled_from(range(len(WHO)))
PLACES = st.sampled_from(TENANTS)


@cache
def own(tenant: str) -> Path:
    """Return a tenant's own folder with both models: of a folder that tenants share each may use but the one given."""
    return Path(shutil.copytree(models(), Path(tempfile.mkdtemp(prefix=f"isthmus-{tenant}-")) / "models"))


class Machine(RuleBasedStateMachine):
    """The service in this process, and what it should know."""

    ran: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="isthmus-model-"))
        self.events: dict[str, dict[str, tuple[int, str]]] = {tenant: {} for tenant in TENANTS}
        self.number = 0
        self.keys: dict[str, str] = {}
        self.open()
        for tenant in TENANTS:
            self.keys[tenant] = self.service.vault.create(tenant=tenant, scopes=SCOPES)[1]

    def open(self) -> None:
        said = ServiceSettings(deadline=20.0, warm=False, seal=0)
        self.service = Service.open(Places(self.folder, {tenant: own(tenant) / "first" for tenant in TENANTS}), said)
        self.loop.run_until_complete(self.service.start())
        transport = httpx.ASGITransport(create_app(self.service))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def ask(self, tenant: str, method: str, path: str, body: object = None) -> httpx.Response:
        self.ran[f"{method} {path.split('/')[2]}"] += 1
        headers = {"authorization": f"Bearer {self.keys[tenant]}"}
        return self.loop.run_until_complete(self.client.request(method, path, json=body, headers=headers))

    def known(self, tenant: str, n: int) -> dict[str, tuple[int, str]]:
        return {name: one for name, one in self.events[tenant].items() if one[0] == n}

    @rule(tenant=PLACES, some=st.lists(st.tuples(PEOPLE, st.integers(0, 9)), min_size=1, max_size=4))
    def ingest(self, tenant: str, some: list[tuple[int, int]]) -> None:
        body, fresh = [], {}
        for who, what in some:
            self.number += 1
            body.append({**WHO[who], **item(what), "event": "purchase", "id": f"e{self.number}"})
            fresh[f"e{self.number}"] = (who, body[-1]["item"])
        answer = self.ask(tenant, "POST", "/v1/events", {"events": body})
        assert (answer.status_code, answer.json()["accepted"]) == (202, len(some)), answer.text
        self.events[tenant].update(fresh)

    @rule(tenant=PLACES, pick=st.integers(0, 1000), lie=st.booleans())
    def duplicate(self, tenant: str, pick: int, lie: bool) -> None:
        names = sorted(self.events[tenant])
        if not names:
            return
        name = names[pick % len(names)]
        who, what = self.events[tenant][name]
        event = "like" if lie else "purchase"
        body = {**WHO[who], "item": what, "event": event, "id": name}
        answer = self.ask(tenant, "POST", "/v1/events", {"events": [body]}).json()
        assert (answer["accepted"], answer["duplicates"]) == (0, [name])
        assert answer["conflicts"] == ([name] if lie else [])

    @rule(tenant=PLACES, n=PEOPLE)
    def erase(self, tenant: str, n: int) -> None:
        who = WHO[n]
        known = self.service.tenants[tenant].live.state.person(**who) is not None
        answer = self.ask(tenant, "DELETE", f"/v1/persons/{who['platform']}:{who['user']}")
        assert answer.status_code == (200 if known else 404)
        if known:
            assert answer.json()["events"] == len(self.known(tenant, n))
        for name in self.known(tenant, n):
            del self.events[tenant][name]

    @rule(tenant=PLACES, n=PEOPLE)
    def export(self, tenant: str, n: int) -> None:
        who = WHO[n]
        answer = self.ask(tenant, "GET", f"/v1/persons/{who['platform']}:{who['user']}")
        told = answer.json()["events"] if answer.status_code == 200 else []
        assert {one["id"]: one["item"] for one in told} == {k: one[1] for k, one in self.known(tenant, n).items()}

    @rule(tenant=PLACES, n=PEOPLE)
    def recommend(self, tenant: str, n: int) -> None:
        answer = self.ask(tenant, "POST", "/v1/recommend", {"persons": [WHO[n]], "target": "source", "k": 40})
        assert answer.status_code == 200
        listed = {one["item"] for one in answer.json()["lists"][0]["items"]}
        assert not listed & {one[1] for one in self.known(tenant, n).values()}, "what they bought is not listed again"
        assert listed

    @rule(tenant=PLACES, name=st.sampled_from(["first", "second"]))
    def reload(self, tenant: str, name: str) -> None:
        answer = self.ask(tenant, "POST", f"/v1/models/{name}/activate")
        assert answer.status_code == 200, answer.text

    @rule(tenant=PLACES)
    def seal(self, tenant: str) -> None:
        self.ran["seal"] += 1
        one = self.service.tenants[tenant]
        segments: Segments = one.upkeep.segments
        self.loop.run_until_complete(asyncio.to_thread(segments.seal, one.log))
        assert segments.manifest.rows == len(self.events[tenant])

    @rule()
    def restart(self) -> None:
        self.ran["restart"] += 1
        digests = [self.service.tenants[tenant].live.state.digest() for tenant in TENANTS]
        self.close()
        self.open()
        assert digests == [self.service.tenants[tenant].live.state.digest() for tenant in TENANTS]

    def close(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.run_until_complete(self.service.stop())

    def teardown(self) -> None:
        for one in self.service.tenants.values():
            live = one.live
            replayed = one._built(live.base, live.version, one.log.read())
            assert replayed.state.digest() == live.state.digest()
        self.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)


ASKED = {"POST events", "DELETE persons", "GET persons", "POST recommend", "POST models", "seal", "restart"}


def test_two_tenants_answer_as_two_dicts_would() -> None:
    """Each step asserts; at the end every kind of step was taken, and enough of them."""
    Machine.ran.clear()
    chosen = settings(
        max_examples=count(12, 500),
        stateful_step_count=count(15, 50),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        derandomize=True,
        database=None,
    )
    run_state_machine_as_test(Machine, settings=chosen)
    print(dict(Machine.ran))
    assert set(Machine.ran) == ASKED, Machine.ran
    assert Machine.ran.total() >= count(30, 5_000)
