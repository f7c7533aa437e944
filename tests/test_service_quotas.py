"""What a key may use up in a day holds over restarts and in all processes."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.issuer import AUDIENCE, ISSUER, claims, key_file, signed
from tests.small_service import account, event, item, served
from tests.test_cli import isthmus

from isthmus.service.core import Service
from isthmus.service.lists import lister
from isthmus.service.lock.limits import Quotas
from isthmus.service.lock.vault import Vault

DAY = 86400


def test_a_quota_of_events_and_of_lists_holds_over_a_restart(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    text = vault.create(tenant="default", scopes=["events", "recommend"], quota=(5, 4))[1]
    free = vault.create(tenant="default", scopes=["events", "recommend"])[1]
    vault.close()
    mine, other = ({"authorization": f"Bearer {key}"} for key in (text, free))

    async def status(client: httpx.AsyncClient, kind: str, n: int, headers: dict[str, str]) -> httpx.Response:
        if kind == "events":
            return await client.post("/v1/events", json={"events": [event(1)] * n}, headers=headers)
        return await client.post(
            "/v1/recommend", json={"persons": [account()] * n, "target": "source"}, headers=headers
        )

    async def first(client: httpx.AsyncClient, service: Service) -> None:
        assert (await status(client, "events", 3, mine)).status_code == 202
        refused = await status(client, "events", 3, mine)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= DAY
        assert "no more events today" in refused.json()["detail"]
        assert service.tenant().live.seq == 3, "nothing of what was refused"
        assert (await status(client, "recommend", 4, mine)).status_code == 200
        assert (await status(client, "recommend", 1, mine)).status_code == 429
        assert (await status(client, "events", 20, other)).status_code == 202

    async def second(client: httpx.AsyncClient, service: Service) -> None:
        assert (await status(client, "recommend", 1, mine)).status_code == 429
        assert (await status(client, "events", 3, mine)).status_code == 429
        assert (await status(client, "recommend", 20, other)).status_code == 200

    served(tmp_path, first)
    served(tmp_path, second)


def test_a_quota_holds_for_the_owner_of_tokens_whichever_token_comes(tmp_path: Path) -> None:
    tokens = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(key_file(tmp_path, "ed")), "events": 5, "lists": 2}

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        async def status(path: str, body: object, sub: str) -> int:
            token = signed("ed", claims(sub=sub, jti=uuid4().hex))
            headers = {"authorization": f"Bearer {token}"}
            return (await client.post(path, json=body, headers=headers)).status_code

        ask = {"persons": [account()], "target": "source"}
        send = {"events": [event(1)] * 2}
        assert [await status("/v1/recommend", ask, "ann") for _ in range(3)] == [200, 200, 429]
        assert [await status("/v1/events", send, "ann") for _ in range(3)] == [202, 202, 429]
        assert [await status("/v1/recommend", ask, "bob") for _ in range(3)] == [200, 200, 429]

    served(tmp_path / "data", test, tokens=tokens)
    for words in (("--issuer", ISSUER, "--audience", "x", "--token-quota", 5, -1), ("--token-quota", 5, 2)):
        assert isthmus("serve", tmp_path, "--port", 0, *words).code == 2


def test_every_piece_of_work_counts_and_what_is_refused_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault(tmp_path)
    text = vault.create(tenant="default", scopes=["events", "recommend", "console"], platforms=["north"], quota=(5, 6))
    vault.close()
    mine = {"authorization": f"Bearer {text[1]}"}
    lists = {"persons": [account()]}

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        async def status(path: str, body: object) -> int:
            return (await client.post(f"/v1/{path}", json=body, headers=mine)).status_code

        for _ in range(10):  # each for a reason of its own
            assert await status("recommend", {**lists, "target": "nothing"}) == 404
            assert await status("recommend", {"persons": [account(0, "south")] * 3}) == 403
            assert await status("recommend", {"persons": 1}) == 422
            assert await status("similar", {"platform": "north", "item": "none"}) == 404
            assert await status("explain", {**account(), "item": {"platform": "north", "item": "none"}}) == 404
            assert await status("compare", {"account": account(), "models": ["none"]}) == 404
            assert await status("events", {"events": [{**event(1), "platform": "south"}] * 4}) == 403
        slow = lister.without_each
        with monkeypatch.context() as patch:
            patch.setattr(lister, "without_each", lambda *some: (time.sleep(1.0), slow(*some))[1])
            assert await status("explain", {**account(), "item": item(3)}) == 503
        assert await status("recommend", {"persons": [account()] * 4}) == 429, "eight lists"
        assert await status("recommend", lists) == 200, "two lists"
        assert await status("similar", {**item(), "k": 3}) == 200
        assert await status("explain", {**account(), "item": item(3)}) == 200
        assert await status("compare", {"account": account()}) == 200
        assert await status("recommend", lists) == 429, "one is left"
        assert await status("recommend", {**lists, "target": "source"}) == 200
        for path, body in (
            ("recommend", {**lists, "target": "source"}),
            ("similar", {**item(), "k": 3}),
            ("explain", {**account(), "item": item(3)}),
            ("compare", {"account": account()}),
        ):
            assert await status(path, body) == 429, path
        assert await status("events", {"events": [event(1)] * 5}) == 202
        assert await status("events", {"events": [event(1)]}) == 429

    served(tmp_path, test, deadline=0.1)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 400), st.booleans(), st.booleans()), max_size=60))
def test_no_more_is_used_in_a_day_than_was_said(tmp_path_factory: pytest.TempPathFactory, asked: list[object]) -> None:
    most, used, now = 1000, 0, [0.0]
    shared: dict[int, int] = {}

    def lease(name: str, kind: str, day: int, wanted: int, limit: int) -> int:
        granted = min(wanted, limit - shared.get(day, 0))
        shared[day] = shared.get(day, 0) + granted
        return granted

    def process() -> Quotas:
        return Quotas(lease, clock=lambda: now[0])

    both = [process(), process()]
    for which, n, tomorrow, refused in asked:  # type: ignore[misc]
        day = both[which].day
        taken = not both[which].take("a", "events", n, most)
        used += n if taken else 0
        if tomorrow:
            now[0] += DAY
            used = 0
        if taken and refused:
            both[which].give_back("a", "events", n, day)
            used -= 0 if tomorrow else n
        assert used <= most


def test_two_processes_share_a_quota_on_disk(tmp_path: Path) -> None:
    one, two = Vault(tmp_path), Vault(tmp_path)
    quotas = [Quotas(vault.lease, clock=lambda: 10.0) for vault in (one, two)]
    taken = sum(not quotas[n % 2].take("k", "lists", 1, 300) for n in range(1000))
    assert 297 <= taken <= 300
    one.close()
    two.close()


def test_files_of_the_first_version_open_and_the_command_line_sets_a_quota(
    tmp_path: Path,
) -> None:
    Vault(tmp_path).close()
    db = sqlite3.connect(tmp_path / "system.db")
    db.execute("ALTER TABLE keys DROP COLUMN events")
    db.execute("ALTER TABLE keys DROP COLUMN lists")
    db.commit()
    db.close()
    made = isthmus("keys", "create", "--data", tmp_path, "--scope", "events", "--quota-events", 7)
    assert made.code == 0, made.err
    vault = Vault(tmp_path)
    (key,) = vault.known()
    assert (key.events, key.lists) == (7, None)
    vault.close()
