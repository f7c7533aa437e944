"""Lists in time: quick ones are scored at once, late ones are not begun, a new model comes with lists ready."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import httpx
import pytest

from isthmus.service import changes
from isthmus.service.core import Service
from isthmus.service.lists import lister as lists
from isthmus.service.lists import reading, scoring
from isthmus.service.lists.live import Live
from isthmus.service.lists.scoring import Ask
from small_service import account, models, served

Client = httpx.AsyncClient


async def ask(client: Client, number: int) -> dict[str, object]:
    said = await client.post("/v1/recommend", json={"persons": [account(number)], "target": "source", "k": 5})
    assert said.status_code == 200, said.text
    answer: dict[str, object] = said.json()
    return answer


def test_a_new_model_has_the_lists_of_those_who_asked_last_ready(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        lister, before = service.tenant().lister, service.tenant().live.state.accounts
        assert before
        for number in range(5):
            await ask(client, number)
        assert (await client.post("/v1/models/second/activate")).status_code == 200
        live = service.tenant().live
        for _ in range(500):
            if not before:
                break
            await asyncio.sleep(0.02)
        assert not before, "what the model before knew of accounts is freed"
        asks = [Ask((who["platform"], who["user"]), live.domains[0]) for who in map(account, range(6))]
        ready = [lister.ready(one) for one in asks]
        assert [top is not None for top in ready] == [True] * 5 + [False]
        assert all(top.live is live for top in ready if top is not None)

    assert models()
    served(tmp_path, test)


def slowed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[int]:
    """Let each list take its time; return how many were made together each time."""
    made: list[int] = []

    def slow(live: object, domain: str, asked: scoring.Asked, *more: object) -> object:
        made.append(len(asked.persons))
        time.sleep(seconds * len(asked.persons))
        return scoring.wide(live, domain, asked, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(lists, "wide", slow)
    return made


def test_what_would_be_late_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = slowed(monkeypatch, 0.06)

    async def test(client: Client, service: Service) -> None:
        lister = service.tenant().lister
        await ask(client, 0)
        asks = [Ask((who["platform"], who["user"]), "source") for who in (account(1 + n) for n in range(40))]
        found = await asyncio.gather(*map(lister.answer, asks))
        good = sum(listed.layer == "model" for listed in found)
        assert good >= 4, "what is begun is there in time"
        assert sum(made) <= 1 + good + 8, "hardly anything is scored in vain"

    served(tmp_path, test, deadline=2.0)


def test_slow_lists_leave_the_event_loop_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slowed(monkeypatch, 0.5)

    async def test(client: Client, _: Service) -> None:
        await ask(client, 0)
        asked = asyncio.create_task(ask(client, 1))
        gaps = []
        while not asked.done():
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            gaps.append(time.perf_counter() - began)
        assert max(gaps) < 0.4

    served(tmp_path, test)


def test_quick_lists_are_scored_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(client: Client, service: Service) -> None:
        lister = service.tenant().lister
        monkeypatch.setattr(lists, "QUICK", 1.0)
        await ask(client, 0)
        lister._pool.shutdown()
        assert not (await ask(client, 1))["degraded"]

    served(tmp_path, test)


def test_of_many_quick_lists_few_are_scored_in_one_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they would go to a thread, which a busy loop lets hardly get on."""
    made = slowed(monkeypatch, 0.03)
    monkeypatch.setattr(lists, "QUICK", 0.3)

    async def test(client: Client, service: Service) -> None:
        lister = service.tenant().lister
        await ask(client, 0)
        lister._pool.shutdown()
        asks = [Ask((who["platform"], who["user"]), "source") for who in (account(1 + n) for n in range(40))]
        found = await asyncio.gather(*map(lister.answer, asks))
        assert {listed.layer for listed in found} == {"model"}
        assert max(made) <= 10
        assert len(made) >= 4

    served(tmp_path, test, deadline=20.0)


def test_what_is_slow_once_is_thought_quick_and_what_is_slow_twice_is_not() -> None:
    pace = lists.Pace()
    for seconds, slow in ((0.002, False), (0.1, False), (0.002, False), (0.1, False), (0.1, True)):
        pace.timed(1, lambda seconds=seconds: time.sleep(seconds))  # type: ignore[misc]
        assert (pace.alone > 0.09) == slow


def test_work_that_others_wait_for_began_when_the_last_one_ended() -> None:
    pace = lists.Pace()
    with pace.of(1):
        pass
    pace.goes_on, quick = True, pace.seconds
    time.sleep(0.05)
    with pace.of(1):
        pass
    assert pace.seconds >= quick + 0.2 * 0.04
    pace.goes_on, slow = False, pace.seconds
    time.sleep(0.05)
    with pace.of(1):
        pass
    assert pace.seconds < slow


def test_the_first_lists_of_a_service_are_as_good_as_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process does for the first time takes long, and texts are read only when lists are ready."""
    seen, left, listers = set(), [], []
    start = lists.Lister.start

    def started(lister: lists.Lister) -> None:
        listers.append(lister)
        start(lister)

    def slow_at_first(live: Live, domain: str, *more: object) -> object:
        time.sleep(0.0 if domain in seen else 0.4)
        seen.add(domain)
        return scoring.wide(live, domain, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(lists, "wide", slow_at_first)
    monkeypatch.setattr(lists.Lister, "start", started)
    monkeypatch.setattr(reading, "_read", lambda _: left.append(listers[0].cold))

    async def test(client: Client, _: Service) -> None:
        said = (await client.post("/v1/recommend", json={"persons": [account()], "k": 5})).json()
        assert (said["degraded"], len(said["lists"])) == (False, 2)
        for _ in range(200):
            if left:
                break
            await asyncio.sleep(0.05)
        assert left == [0]

    served(tmp_path, test, deadline=0.25, warm=True)


def test_an_older_list_less_what_may_not_be_listed_is_the_same_whether_its_beginning_is_enough_or_not(
    tmp_path: Path,
) -> None:
    async def test(client: Client, service: Service) -> None:
        live = service.tenant().live
        top = live.popular("source")
        gone = [live.shelf.ids[row] for row in top.rows[1:12].tolist()]
        for name in gone:
            assert (await client.delete(f"/v1/items/north:{name}")).status_code == 200
        looked = 0
        for number in (*range(12), None):
            who = {"platform": "north", "user": "nobody"} if number is None else account(number)
            person = live.state.person(**who)
            seen = set(live.state.batch([person]).items.tolist())
            for k, left_out in ((1, 0), (5, 2), (30, 0), (200, 3)):
                names = [(live.shelf.platforms[row], live.shelf.ids[row]) for row in top.rows[:left_out].tolist()]
                ask = Ask((who["platform"], who["user"]), "source", k, left_out=frozenset(names))
                barred = {live.shelf.names["north", name] for name in gone} | seen
                wanted = [row for row in top.rows.tolist() if row not in barred]
                found = ask.cut(scoring.unmet(live, ask, top)).rows.tolist()
                assert found == [row for row in wanted if row not in ask.rows(live)][:k]
                looked += 1
            met = Ask((who["platform"], who["user"]), "source", 200, exclude_seen=False)
            assert len(scoring.unmet(live, met, top).rows) == top.rows.size - len(gone)
        assert looked == 52

    served(tmp_path, test)


@pytest.mark.parametrize(("number", "seconds"), [(40, 0.2), (60, 100.0)])
def test_events_that_would_wait_long_for_the_disk_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, seconds: float
) -> None:
    """Where the oldest of some has waited long, and where there are very many."""
    monkeypatch.setattr(changes, "LONG", seconds)

    async def test(client: Client, service: Service) -> None:
        log, go = service.tenant().log, threading.Event()
        commit = log._commit  # type: ignore[attr-defined]
        monkeypatch.setattr(log, "_commit", lambda jobs: (go.wait(20), commit(jobs))[1])
        events = [{**account(), "item": "i", "event": "click", "id": str(n)} for n in range(number)]
        few = asyncio.create_task(client.post("/v1/events", json={"events": events[:5]}))
        await asyncio.sleep(0.3)
        unread = {"content": b"{", "headers": {"content-type": "application/json"}}
        assert (await client.post("/v1/events", **unread)).status_code == 400, "few wait: it is read"
        many = asyncio.create_task(client.post("/v1/events", json={"events": events[5:]}))
        await asyncio.sleep(0.1)
        refused = await client.post("/v1/events", **unread)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        go.set()
        assert [(await one).status_code for one in (few, many)] == [202, 202]
        assert (await client.post("/v1/events", **unread)).status_code == 400

    served(tmp_path, test, pending=100)


def test_a_shadow_rests_so_long_that_hardly_anybody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: Client, service: Service) -> None:
        await ask(client, 0)
        assert (await client.post("/v1/models/second/shadow", json={"share": 1})).status_code == 200
        shadow = service.tenant().rollout.shadow
        assert shadow is not None
        slowed(monkeypatch, 0.02)
        for _ in range(20):
            await ask(client, 0)
        await asyncio.sleep(1.0)
        assert shadow.lists == 1, "of 20 ms twenty seconds follow"

    served(tmp_path, test)
