"""People who leave: in no byte of any file, answered like somebody never seen; what they take with them is complete."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import quote

import httpx
from tests.small_service import account, event, item, recommender, served
from tests.tiers import count

from isthmus.service.core import Service

STRANGER = "never-seen-before"
Account = dict[str, str]


def path(kind: str, who: Account) -> str:
    return f"/v1/{kind}/{quote(':'.join(who.values()), safe='')}"


def people(n: int) -> list[Account]:
    """Return accounts that the model knows and ones it does not, with names that are found nowhere else."""
    known = [account(number) for number in range(n // 5)]
    return known + [{"platform": "north", "user": f"leaving-{number:03d}-é-新"} for number in range(n - len(known))]


async def lived(client: httpx.AsyncClient, service: Service, everybody: list[Account]) -> dict[str, list[dict]]:
    """Let everybody do something, half before and half after sealing; return the events of each."""
    sent: dict[str, list[dict]] = {who["user"]: [] for who in everybody}
    tenant = service.tenant()
    for part in range(2):
        for number, who in enumerate(everybody):
            deeds = [
                event(
                    (number + k) % 20,
                    who,
                    id=f"{part}-{number}-{k}",
                    event=("purchase", "rate", "view")[k],
                    value=(None, 4.5, 1e-3)[k],
                    ts=f"2026-0{1 + k}-0{1 + part}T10:00:00.123456+00:00",
                )
                for k in range(3)
            ]
            answer = await client.post("/v1/events", json={"events": deeds})
            assert answer.status_code == 202, answer.text
            sent[who["user"]] += deeds
            said = {"consents": [{"from_platform": "north", "to_platform": "*", "allowed": bool(number % 2)}]}
            assert (await client.put(path("consents", who), json=said)).status_code == 200
        await client.post("/v1/recommend", json={"persons": everybody, "k": 10, "scores": True})
        tenant.upkeep.segments.seal(tenant.log)
    return sent


def questions(who: Account) -> list[tuple[str, str, object]]:
    """Return every operation that a person can be asked for in."""
    thing = item(3)
    return [
        ("POST", "/v1/recommend", {"persons": [who], "k": 20, "scores": True, "reasons": 3}),
        ("POST", "/v1/recommend", {"persons": [who], "k": 20, "exclude_seen": False, "target": "source"}),
        ("POST", "/v1/explain", {**who, "item": thing}),
        ("POST", "/v1/compare", {"account": who, "models": ["first", "second"], "k": 5}),
        ("GET", path("persons", who), None),
        ("GET", path("consents", who), None),
        ("DELETE", path("persons", who), None),
    ]


async def answers(client: httpx.AsyncClient, who: Account) -> list[tuple[int, object]]:
    """Return what is answered about an account, without its name, the request's and times."""
    told = []
    for method, where, body in questions(who):
        answer = await client.request(method, where, json=body)
        said = json.loads(answer.text.replace(json.dumps(who["user"], ensure_ascii=False), '"X"'))
        told.append((answer.status_code, timeless(said)))
    return told


def timeless(said: object) -> object:
    """Return an answer without the request's name and how long it took."""
    if isinstance(said, dict):
        return {name: timeless(one) for name, one in said.items() if name not in ("request_id", "seconds")}
    return [timeless(one) for one in said] if isinstance(said, list) else said


def found(folder: Path, names: list[str]) -> int:
    """Return how often names are in the bytes of all files, as text and as JSON may write it."""
    held = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return sum(one.count(form) for one in held for name in names for form in {name.encode(), json.dumps(name).encode()})


def test_the_erased_are_in_no_byte_and_answered_like_strangers(tmp_path: Path) -> None:
    """P1 and P2, for people the model knows and people only the log knew; also after a restart."""
    everybody = people(count(20, 100))
    unique = [who["user"] for who in everybody if who["user"].startswith("leaving")]
    stranger = {"platform": "north", "user": STRANGER}

    async def before(client: httpx.AsyncClient, service: Service) -> None:
        await lived(client, service, everybody)
        assert found(tmp_path, unique) > 6 * len(unique), "the search finds what is there"
        assert await answers(client, everybody[0]) != await answers(client, stranger)
        await lived(client, service, everybody[:1])
        began = time.monotonic()
        for who in everybody:
            receipt = (await client.delete(path("persons", who))).json()
            assert len(receipt["receipt"]) == 64
            assert (receipt["events"], receipt["sealed"]) == (6, 6)
        took = time.monotonic() - began
        hits = found(tmp_path, unique)
        print(f"{len(everybody)} erased in {took:.1f} s; {hits} hits of {len(unique)} names in all files")
        assert (hits, took < 60) == (0, True)
        await like_strangers(client)

    async def like_strangers(client: httpx.AsyncClient, service: Service | None = None) -> None:
        expected = await answers(client, stranger)
        assert [status for status, _ in expected] == [200, 200, 200, 200, 404, 404, 404]
        same = [await answers(client, who) == expected for who in everybody].count(True)
        print(f"{same} of {len(everybody)} answered like a stranger in {len(expected)} ways")
        assert same == len(everybody)
        assert found(tmp_path, unique) == 0

    served(tmp_path, before)
    assert found(tmp_path, unique) == 0
    served(tmp_path, like_strangers)


def test_an_export_is_all_there_is_and_can_be_sent_to_another_service(tmp_path: Path) -> None:
    """P4: every event with every field; what the new service then exports is the same."""
    everybody = people(count(15, 100))
    exports: dict[str, dict] = {}
    complete = 0

    async def old(client: httpx.AsyncClient, service: Service) -> None:
        nonlocal complete
        sent = await lived(client, service, everybody)
        for who in everybody:
            told = exports[who["user"]] = (await client.get(path("persons", who))).json()
            complete += told["events"] == sent[who["user"]]
            learned = [one for one in told["model_history"] if one["user"] == who["user"]]
            assert bool(learned) == (who["user"] in set(recommender().content.people.accounts["user"]))
            assert [one["from_platform"] for one in told["consents"]][-1] == "north"

    async def new(client: httpx.AsyncClient, service: Service) -> None:
        for who in everybody:
            told = exports[who["user"]]
            answer = (await client.post("/v1/events", json={"events": told["events"]})).json()
            assert (answer["accepted"], answer["duplicates"]) == (6, [])
            pairs = [{k: one[k] for k in ("from_platform", "to_platform", "allowed")} for one in told["consents"]]
            assert (await client.put(path("consents", who), json={"consents": pairs})).status_code == 200
            again = (await client.get(path("persons", who))).json()
            assert again["events"] == told["events"]
            kept = [{k: one[k] for k in ("from_platform", "to_platform", "allowed")} for one in again["consents"]]
            assert kept[-len(pairs) :] == pairs

    served(tmp_path / "old", old)
    print(f"{complete} of {len(everybody)} exports complete")
    assert complete == len(everybody)
    served(tmp_path / "new", new)
