"""Consents: what a person allows or forbids holds for every list at once, after restarts, and after part is erased."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import httpx
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.small_service import item, recommender, served, serving
from tests.tiers import count

from isthmus.client import Client, Consent
from isthmus.service.core import Service
from isthmus.service.lists.scoring import Ask
from isthmus.service.lock.key import SCOPES
from isthmus.service.lock.vault import Vault

Account = dict[str, str]
PLATFORMS = ("north", "south")
DOMAINS = {"source": "north", "target": "south"}
SIDES = st.sampled_from((*PLATFORMS, "*"))


def both(number: int = 0) -> dict[str, Account]:
    """Return the accounts of a person who has one on each platform."""
    people = recommender().content.people.accounts.filter(pl.len().over("person") == 2).sort("person")
    rows = people.slice(2 * number, 2).select("platform", "user").rows()
    return {platform: {"platform": platform, "user": user} for platform, user in rows}


def path(who: Account) -> str:
    return f"/v1/consents/{quote(who['platform'] + ':' + who['user'], safe='')}"


def said(start: str, end: str, allowed: bool) -> dict[str, object]:
    return {"consents": [{"from_platform": start, "to_platform": end, "allowed": allowed}]}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@dataclass
class Oracle:
    """What was said, kept simply: the last word on two platforms holds."""

    required: bool
    words: list[tuple[str, str, bool]] = field(default_factory=list)

    def say(self, start: str, end: str, allowed: bool) -> None:
        self.words = [one for one in self.words if one[:2] != (start, end)] + [(start, end, allowed)]

    def allows(self, start: str, end: str) -> bool:
        answer = start == end or not self.required
        for one_start, one_end, allowed in self.words:
            if (
                one_start in (start, "*")
                and one_end in (end, "*")
                and (start != end or (one_start, one_end) == (start, end))
            ):
                answer = allowed
        return answer


class Consenting(RuleBasedStateMachine):
    """A person says this and that; no list, reason or explanation may use what is not allowed."""

    required = True

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        vault = Vault(Path(self.folder.name))
        self.every = bearer(vault.create(tenant="default", scopes=SCOPES)[1])
        self.north = bearer(vault.create(tenant="default", scopes=SCOPES, platforms=["north"])[1])
        self.south = bearer(vault.create(tenant="default", scopes=SCOPES, platforms=["south"])[1])
        vault.close()
        self.loop = asyncio.Runner()
        self.oracle = Oracle(self.required)
        self.accounts = both()
        self.open()

    def open(self) -> None:
        rule_of_tenant = "required" if self.required else "assumed"
        self.serving = serving(Path(self.folder.name), consent=rule_of_tenant)
        self.client, self.service = self.loop.run(self.serving.__aenter__())

    def teardown(self) -> None:
        self.loop.run(self.serving.__aexit__(None, None, None))
        self.loop.close()
        self.folder.cleanup()

    def ask(self, method: str, where: str, body: object = None, key: dict[str, str] | None = None) -> httpx.Response:
        return self.loop.run(self.client.request(method, where, json=body, headers=key or self.every))

    @rule(platform=st.sampled_from(PLATFORMS), number=st.integers(0, 19))
    def act(self, platform: str, number: int) -> None:
        if platform in self.accounts:
            domain = "source" if platform == "north" else "target"
            deed = {**self.accounts[platform], "item": item(number, domain)["item"], "event": "purchase"}
            assert self.ask("POST", "/v1/events", {"events": [deed]}).status_code == 202

    @rule(by=st.sampled_from(PLATFORMS), start=SIDES, end=SIDES, allowed=st.booleans())
    def consent(self, by: str, start: str, end: str, allowed: bool) -> None:
        if by in self.accounts:
            assert self.ask("PUT", path(self.accounts[by]), said(start, end, allowed)).status_code == 200
            self.oracle.say(start, end, allowed)

    @rule()
    def restart(self) -> None:
        before = self.service.tenant().live.state.digest()
        self.loop.run(self.serving.__aexit__(None, None, None))
        self.open()
        assert self.service.tenant().live.state.digest() == before

    @precondition(lambda self: len(self.accounts) == 2)
    @rule()
    def erase_north(self) -> None:
        who = self.accounts.pop("north")
        answer = self.ask("DELETE", f"/v1/persons/north:{quote(who['user'], safe='')}", key=self.north)
        assert answer.json()["accounts"] == 1

    @invariant()
    def nothing_leaks(self) -> None:
        live = self.service.tenant().live
        who = self.accounts["south"]
        person = live.state.person(**who)
        whole = live.state.batch([person])
        body = {"persons": [who], "k": 10, "reasons": 5, "scores": True}
        lists = {one["domain"]: one for one in self.ask("POST", "/v1/recommend", body).json()["lists"]}
        for domain, platform in DOMAINS.items():
            allowed = {start for start in PLATFORMS if self.oracle.allows(start, platform)}
            places = [live.shelf.platforms[row] in allowed for row in whole.items]
            scores = live.scorer(domain).score(whole.keep(np.array(places, bool)))[0]
            live.scorer(domain).seen(whole, scores[None])
            told = lists[domain]["items"]
            by_name = {live.shelf.ids[row]: score for row, score in zip(live.scorer(domain).items, scores, strict=True)}
            assert [one["score"] for one in told] == pytest.approx([by_name[one["item"]] for one in told], abs=2e-4)
            assert {why["platform"] for one in told for why in one["reasons"]} <= allowed
            first = {"platform": told[0]["platform"], "item": told[0]["item"]}
            why = self.ask("POST", "/v1/explain", {**who, "item": first}).json()
            assert {one["platform"] for one in why["evidence"]} <= allowed

    @invariant()
    def a_key_of_one_platform_is_told_nothing_of_another(self) -> None:
        """Its lists are those of the events that may be used there; only what was seen there is left out."""
        live = self.service.tenant().live
        who = self.accounts["south"]
        whole = live.state.batch([live.state.person(**who)])
        sides = [live.shelf.platforms[row] for row in whole.items]
        own = whole.keep(np.array([side == "south" for side in sides], bool))
        for domain, platform in DOMAINS.items():
            ends = {platform, "south"}
            used = [all(self.oracle.allows(side, end) for end in ends) for side in sides]
            scorer, history = live.scorer(domain), whole.keep(np.array(used, bool))
            for unseen in (True, False):
                scores = scorer.score(history)
                if unseen:
                    scorer.seen(own, scores)
                best = np.sort(scores[0])[::-1][:10]
                how = {"target": domain, "k": 10, "exclude_seen": unseen, "scores": True}
                listed = self.ask("POST", "/v1/recommend", {"persons": [who], **how}, key=self.south).json()["lists"][0]
                beside = self.ask("POST", "/v1/compare", {"account": who, **how}, key=self.south).json()["sides"][0]
                for told in (listed["items"], beside["lists"][0]["items"]):
                    assert [one["score"] for one in told] == pytest.approx(best, abs=2e-4)
            first = {"platform": platform, "item": listed["items"][0]["item"]}
            why = self.ask("POST", "/v1/explain", {**who, "item": first}, key=self.south).json()
            assert why["score"] == pytest.approx(best[0], abs=2e-4)
            assert {one["platform"] for one in why["evidence"]} <= {"south"}

    @invariant()
    def told_as_said(self) -> None:
        told = self.ask("GET", path(self.accounts["south"])).json()
        uses = {(one["from_platform"], one["to_platform"]): one["allowed"] for one in told["uses"]}
        assert uses == {pair: self.oracle.allows(*pair) for pair in (PLATFORMS, PLATFORMS[::-1])}


class Forbidding(Consenting):
    """The same where everything is allowed that nobody forbade."""

    required = False


RUNS = settings(
    max_examples=count(4, 250),
    stateful_step_count=count(10, 50),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
TestRequired = Consenting.TestCase
TestRequired.settings = RUNS
TestForbidden = Forbidding.TestCase
TestForbidden.settings = RUNS


def test_a_list_that_was_being_made_is_not_kept_when_its_use_was_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = both()["south"]
    # Scored in the thread, so that something can happen meanwhile.
    monkeypatch.setattr("isthmus.service.lists.lister.QUICK", 0.0)

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        live, lister = service.tenant().live, service.tenant().lister
        person = live.state.person(**who)
        inside, asked = asyncio.Event(), {"persons": [who], "target": "target"}
        loop, held = asyncio.get_running_loop(), live.scorer("target").score

        def slow(*asked: object) -> object:
            loop.call_soon_threadsafe(inside.set)
            asyncio.run_coroutine_threadsafe(said_it.wait(), loop).result(10)
            return held(*asked)  # type: ignore[arg-type]

        said_it = asyncio.Event()
        live.scorer("target").score = slow  # type: ignore[assignment,method-assign]
        first = asyncio.create_task(client.post("/v1/recommend", json=asked))
        await inside.wait()
        done = await client.put(path(who), json=said("north", "*", False))
        assert done.status_code == 200
        said_it.set()
        await first
        del live.scorer("target").score
        assert (person, "target") not in lister._kept
        after = (await client.post("/v1/recommend", json={**asked, "reasons": 5})).json()["lists"][0]["items"]
        assert {why["platform"] for one in after for why in one["reasons"]} == {"south"}

    served(tmp_path, test)


def test_a_key_of_a_platform_cannot_open_another_one_to_itself(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    south = bearer(vault.create(tenant="default", scopes=["consents", "persons"], platforms=["south"])[1])
    every = bearer(vault.create(tenant="default", scopes=["consents", "persons"])[1])
    vault.close()
    who = both()

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        async def put(key: dict[str, str], start: str, end: str, allowed: bool, by: str = "south") -> int:
            return (await client.put(path(who[by]), json=said(start, end, allowed), headers=key)).status_code

        assert await put(south, "north", "south", True) == 403
        assert await put(south, "*", "south", True) == 403
        assert await put(south, "south", "north", True, by="north") == 403
        assert await put(south, "south", "north", True) == 200
        assert await put(south, "north", "south", False) == 200
        assert await put(every, "north", "south", True, by="north") == 200
        assert await put(every, "nort", "south", False) == 404, "a misspelt ban would protect nobody"
        told = (await client.get(path(who["south"]), headers=south)).json()
        assert [(one["from_platform"], one["allowed"]) for one in told["consents"]] == [
            ("south", True),
            ("north", True),
        ]
        assert [one["account"] for one in told["consents"]] == [who["south"], None], "not who said it elsewhere"
        export = f"/v1/persons/{quote('south:' + who['south']['user'], safe='')}"
        assert (await client.get(export, headers=every)).json()["consents"][1]["account"] == who["north"]
        assert (await client.get(path(who["north"]), headers=south)).status_code == 403
        log = service.vault.audit()
        assert sum(one["action"] == "consents recorded" for one in log) == 3
        assert not any(one["user"] in str(log) for one in who.values())

    served(tmp_path, test)


def test_the_erased_said_nothing_and_somebody_new_may_say_something_first(tmp_path: Path) -> None:
    new = {"platform": "north", "user": "新 / 1"}

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        assert (await client.get(path(new))).status_code == 404
        first = (await client.put(path(new), json=said("north", "south", True))).json()
        assert first["uses"][0] == {"from_platform": "north", "to_platform": "south", "allowed": True}
        assert (await client.get(path(new))).json()["consents"] == first["consents"]
        assert (await client.delete(f"/v1/persons/{quote('north:新 / 1', safe='')}")).json()["accounts"] == 1
        assert (await client.get(path(new))).status_code == 404
        kinds = [one.entry.kind for some in service.tenant().log.read() for one in some]
        assert kinds == ["erase"], "nothing is left of what was said"
        again = (await client.put(path(new), json=said("south", "north", True))).json()
        assert len(again["consents"]) == 1

    served(tmp_path, test, consent="required")


def test_the_client_speaks_for_a_person(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        def typed() -> None:
            answers = iter(recorded)
            transport = httpx.MockTransport(lambda _: next(answers))
            with Client("http://x", transport=transport) as mine:
                done = mine.consent(("north", "a/b"), [Consent("north", "*", False)])
                assert done.said == (Consent("north", "*", False),)
                assert Consent("north", "south", False) in done.uses
                assert mine.consents(("north", "a/b")) == done

        who = {"platform": "north", "user": "a/b"}
        put = await client.put(path(who), json=said("north", "*", False))
        recorded = [httpx.Response(200, content=one.content) for one in (put, await client.get(path(who)))]
        await asyncio.to_thread(typed)

    served(tmp_path, test)


def test_a_use_begins_with_its_consent_ends_with_its_withdrawal_and_a_ban_outlives_its_account(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    every = bearer(vault.create(tenant="default", scopes=SCOPES)[1])
    south = bearer(vault.create(tenant="default", scopes=SCOPES, platforms=["south"])[1])
    vault.close()
    who = both()

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        async def used(domain: str, by: str) -> set[str]:
            body = {"persons": [who[by]], "target": domain, "k": 50, "reasons": 5}
            lists = (await client.post("/v1/recommend", json=body, headers=every)).json()["lists"]
            return {why["platform"] for one in lists[0]["items"] for why in one["reasons"]}

        async def say(by: str, start: str, end: str, allowed: bool) -> None:
            done = await client.put(path(who[by]), json=said(start, end, allowed), headers=every)
            assert done.status_code == 200

        assert await used("target", "south") == {"south"}
        await say("south", "north", "south", True)
        assert await used("target", "south") == {"north", "south"}
        assert await used("source", "north") == {"north"}, "the other way nothing was said"
        await say("north", "*", "*", True)
        assert await used("source", "north") == {"north", "south"}
        await say("south", "north", "south", False)
        assert await used("target", "north") == {"south"}
        gone = await client.delete(f"/v1/persons/{quote('south:' + who['south']['user'], safe='')}", headers=south)
        assert gone.json()["accounts"] == 1
        told = (await client.get(path(who["north"]), headers=every)).json()["consents"]
        assert [(one["to_platform"], one["allowed"], one["account"]) for one in told] == [
            ("*", True, who["north"]),
            ("south", False, who["north"]),
        ]

    served(tmp_path, test, consent="required")


@pytest.mark.parametrize("consent", ["required", "assumed"])
def test_what_was_seen_elsewhere_cannot_be_found_out(tmp_path: Path, consent: str) -> None:
    vault = Vault(tmp_path)
    south = bearer(vault.create(tenant="default", scopes=SCOPES, platforms=["south"])[1])
    west = bearer(vault.create(tenant="default", scopes=SCOPES, platforms=["west"])[1])
    every = bearer(vault.create(tenant="default", scopes=SCOPES)[1])
    vault.close()
    who = both()["south"]

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        live, lister = service.tenant().live, service.tenant().lister
        seen = {live.shelf.ids[row] for row in live.state.met(live.state.person(**who)) if row < 40}

        async def listed(key: dict[str, str], unseen: bool, user: Account = who) -> list[str]:
            body = {"persons": [user], "target": "source", "k": 100, "exclude_seen": unseen}
            answer = (await client.post("/v1/recommend", json=body, headers=key)).json()["lists"][0]
            return [one["item"] for one in answer["items"]]

        assert seen & set(await listed(every, False))
        assert not seen & set(await listed(every, True))
        assert await listed(south, True) == await listed(south, False)
        body = {"account": who, "target": "source", "without": [{"platform": "north", "item": min(seen)}]}
        assert (await client.post("/v1/compare", json=body, headers=south)).status_code == 403
        assert (await client.post("/v1/compare", json=body, headers=every)).status_code == 200
        stranger = {"platform": "west", "user": "somebody"}
        popular = [live.shelf.ids[row] for row in live.popular("source").rows]
        assert await listed(west, True, stranger) == popular
        asked = Ask((who["platform"], who["user"]), "source", 100, shown=("south",))
        cheaper = [live.shelf.ids[row] for row in lister._cheaper(asked).top.rows]
        assert cheaper == popular, "the list kept for others leaves out what was seen there"

    served(tmp_path, test, consent=consent)


def test_what_somebody_new_met_just_now_needs_a_consent_too(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        new, met = {"platform": "south", "user": "new"}, [{**item(3), "event": "purchase"}]

        async def listed(domain: str, **more: object) -> list[str]:
            body = {"persons": [new], "target": domain, "k": 30, **more}
            answer = (await client.post("/v1/recommend", json=body)).json()["lists"][0]
            return [one["item"] for one in answer["items"]]

        assert await listed("target", context=met) == await listed("target"), "it was met on another platform"
        assert await listed("source", context=met) != await listed("source")
        assert (await client.put(path(new), json=said("north", "south", True))).status_code == 200
        assert await listed("target", context=met) != await listed("target")

    served(tmp_path, test)
