"""A service whose model holds pseudonyms answers people by their own names, as one without them does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.small_service import account, event, item, recommender, served, started
from tests.test_pseudonyms import ENV, SECRET
from tests.test_service_consents import both, said
from tests.test_service_privacy import STRANGER, answers, found, path, questions, timeless
from tests.test_where_ids_stand import naming

from isthmus.data.pseudonyms import Pseudonyms
from isthmus.errors import InputError
from isthmus.recommender import Recommender
from isthmus.service.core import Service
from isthmus.service.rollout.arm import Canary
from isthmus.service.rollout.pointer import Trial

NAMES = Pseudonyms(ENV)
Account = dict[str, str]


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, SECRET)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small model, in which everybody has a pseudonym."""
    content = recommender().content
    accounts = content.people.accounts
    hidden = NAMES.hide(accounts).with_columns(NAMES.persons(accounts["name"]).alias("name"))
    people = replace(content.people, accounts=hidden, pseudonyms=NAMES)
    folder = tmp_path / "models" / "first"
    Recommender(replace(content, people=people)).save(folder)
    assert naming(folder, accounts["user"].to_list()) == set()
    return folder


def hidden(who: Account) -> Account:
    return {**who, "user": NAMES.user(who["platform"], who["user"])}


def unversioned(told: object) -> object:
    """Return an answer without what names the model's bytes."""
    if isinstance(told, dict):
        return {name: unversioned(one) for name, one in told.items() if name not in ("model_version", "models")}
    return [unversioned(one) for one in told] if isinstance(told, list) else told


async def asked(client: httpx.AsyncClient, who: Account) -> list[tuple[int, object]]:
    """Return the answers to all questions about somebody but the last, which erases."""
    told = []
    for method, where, body in questions(who)[:-1]:
        if where != "/v1/compare":
            answer = await client.request(method, where, json=body)
            told.append((answer.status_code, unversioned(timeless(answer.json()))))
    return told


def test_answers_are_those_of_a_model_with_names(tmp_path: Path, model: Path) -> None:
    """Lists, reasons, exports and consents, before and after events, a restart and a withdrawal."""
    pair = both()
    known, other, new = pair["north"], both(3)["south"], {"platform": "north", "user": "somebody-new"}
    told: dict[str, list[object]] = {"plain": [], "hidden": []}

    def asking(kind: str) -> list[object]:
        return told[kind]

    for kind in told:

        async def lived(client: httpx.AsyncClient, service: Service, kind: str = kind) -> None:
            for who in (known, other, new):
                asking(kind).append((await asked(client, who))[:3])
            for who in (*pair.values(), *both(3).values(), new):
                domain = {"north": "source", "south": "target"}[who["platform"]]
                told_of = {"event": "purchase", "ts": "2026-01-01T00:00:00Z"}
                deeds = [{**who, **item(n, domain), "id": f"{who}-{n}", **told_of} for n in range(3)]
                assert (await client.post("/v1/events", json={"events": deeds})).status_code == 202
            await client.put(path("consents", known), json=said("north", "*", allowed=True))
            for who in (known, other, new):
                asking(kind).append(await asked(client, who))
            await client.put(path("consents", pair["south"]), json=said("north", "south", allowed=False))

        async def again(client: httpx.AsyncClient, service: Service, kind: str = kind) -> None:
            for who in (*pair.values(), *both(3).values(), new):
                asking(kind).append(await asked(client, who))

        more: dict[str, object] = {"consent": "required", **({"model": model} if kind == "hidden" else {})}
        served(tmp_path / kind, lived, **more)
        served(tmp_path / kind, again, **more)
    text = json.dumps(told["plain"])
    assert "contribution" in text, "something was explained"
    plain, secret = (json.dumps(timely(told[kind]), sort_keys=True) for kind in ("plain", "hidden"))
    assert plain == secret


def timely(told: object) -> object:
    """Return answers without the times of consents, which were given at different moments."""
    if isinstance(told, dict):
        return {name: None if name == "ts" else timely(one) for name, one in told.items()}
    return [timely(one) for one in told] if isinstance(told, list | tuple) else told


def test_an_account_of_the_model_alone_has_its_pseudonym_in_an_export(tmp_path: Path, model: Path) -> None:
    pair = both(1)

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        told = (await client.get(path("persons", pair["north"]))).json()
        assert told["accounts"] == [pair["north"], hidden(pair["south"])]
        names = {(one["platform"], one["user"]) for one in told["model_history"]}
        assert names == {tuple(pair["north"].values()), tuple(hidden(pair["south"]).values())}
        by_pseudonym = (await client.get(path("persons", hidden(pair["north"])))).json()
        assert len(by_pseudonym["model_history"]) == len(told["model_history"]) > 0

    served(tmp_path / "data", test, model=model)


def test_the_erased_are_gone_under_either_name(tmp_path: Path, model: Path) -> None:
    """By name or by pseudonym, of the model, of the log or of both; also after a restart."""
    pair, data = both(2), tmp_path / "data"
    everybody = [pair["north"], account(9), account(11), {"platform": "north", "user": "leaving-1"}]
    stranger = {"platform": "north", "user": STRANGER}

    async def like_strangers(client: httpx.AsyncClient, service: Service) -> None:
        expected = await asked(client, stranger)
        for who in [*everybody, *map(hidden, everybody), pair["south"]]:
            same = json.dumps(await asked(client, who)).replace(who["user"], STRANGER)
            same = same.replace(f'"platform": "{who["platform"]}"', '"platform": "north"')
            if who["platform"] == "north":
                assert same == json.dumps(expected), who
            else:
                assert json.loads(same)[3][0] == 404
        users = [one for who in everybody for one in (who["user"], hidden(who)["user"])]
        assert found(data, users) == 0

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        for number, who in enumerate(everybody):
            if number != 1:
                sent = await client.post("/v1/events", json={"events": [event(number, who)]})
                assert sent.status_code == 202
        assert await answers(client, everybody[1]) != await answers(client, stranger)
        receipts = [(await client.delete(path("persons", who))).json() for who in everybody[:1] + everybody[2:3]]
        receipts.append((await client.delete(path("persons", hidden(everybody[3])))).json())
        assert [one["accounts"] for one in receipts] == [2, 2, 1]
        assert [one["events"] for one in receipts] == [1, 1, 1]
        assert [one["model_holds_history"] for one in receipts] == [True, True, False]
        await like_strangers(client, service)

    served(data, test, model=model)
    served(data, like_strangers, model=model)


def test_a_model_without_its_key_is_not_served(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, why in (("", "holds no secret"), (SECRET[::-1], "holds another secret")):
        monkeypatch.setenv(ENV, value)
        with pytest.raises(InputError, match=f"{ENV} {why}"):
            served(tmp_path / "data", not_reached, model=model)
    monkeypatch.delenv(ENV)
    with pytest.raises(AssertionError, match=f"{ENV} holds no secret"), started(tmp_path / "other", model=model):
        pass


async def not_reached(client: httpx.AsyncClient, service: Service) -> None:
    raise AssertionError(f"served {service}")


def test_a_canary_has_the_same_persons_before_and_after_they_are_known(tmp_path: Path, model: Path) -> None:
    new = [("north", f"newcomer-{number}") for number in range(60)]

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        live, settings = service.tenant().live, service.settings
        canary = Canary(live, settings, Trial("other", "v", 0.5), b"secret")
        before = [canary.chosen(who, live.state) for who in new]
        deeds = [event(0, {"platform": platform, "user": user}) for platform, user in new]
        assert (await client.post("/v1/events", json={"events": deeds})).status_code == 202
        assert all(live.state.person(*who) is not None for who in new)
        assert [canary.chosen(who, live.state) for who in new] == before
        assert 10 < sum(before) < 50

    served(tmp_path / "data", test, model=model)
