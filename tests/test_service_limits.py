"""Limits of rate that several processes share in a real Redis, and what happens when it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import httpx
import pytest
from tests.servers import Proxy, proxied, redis_server
from tests.small_service import account, event, serving
from tests.test_cli import isthmus
from tests.tiers import count

from isthmus.service.lock.limits import Buckets
from isthmus.service.lock.shared_limits import PATIENCE, SharedBuckets

pytest.importorskip("redis")
ASK = {"persons": [account()], "k": 3}


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


def test_two_services_share_one_limit(redis_url: str, tmp_path: Path) -> None:
    seconds, rate, burst = count(3, 10), 10, 20

    async def ask(client: httpx.AsyncClient) -> list[int]:
        statuses: list[int] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            answer = await client.post("/v1/recommend", json=ASK)
            statuses.append(answer.status_code)
            assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
            await asyncio.sleep(0.002)
        return statuses

    async def run() -> tuple[list[int], float]:
        said = {"rate": rate, "burst": burst, "limits": redis_url}
        async with serving(tmp_path / "a", **said) as (one, _), serving(tmp_path / "b", **said) as (two, _):
            began = time.monotonic()
            both = await asyncio.gather(ask(one), ask(two))
            return list(chain.from_iterable(both)), time.monotonic() - began

    statuses, took = asyncio.run(run())
    wanted = burst + rate * took
    assert set(statuses) == {200, 429}
    assert 0.95 * wanted - 1 <= statuses.count(200) <= 1.05 * wanted
    assert len(statuses) > 1.5 * wanted


def test_the_shared_bucket_is_the_bucket(redis_url: str) -> None:
    async def run() -> None:
        shared = SharedBuckets(f"{redis_url[:-1]}1", Buckets(2.0, 3))
        await shared.start()
        assert [await shared.take("a") > 0 for _ in range(5)] == [False, False, False, True, True]
        assert 0.2 < await shared.take("a") <= 0.5
        assert await shared.take("b") == 0
        await asyncio.sleep(0.55)
        assert [await shared.take("a") > 0 for _ in range(2)] == [False, True]
        assert not shared.degraded
        await shared.close()

    asyncio.run(run())


@pytest.mark.parametrize(("base", "trouble"), [(2, "dark"), (3, "slow"), (4, "gone")])
def test_without_redis_every_process_keeps_its_own_limit(
    base: int, trouble: str, redis_url: str, tmp_path: Path
) -> None:
    def begin(proxy: Proxy) -> None:
        proxy.dark, proxy.delay = trouble == "dark", 2.0 if trouble == "slow" else 0.0
        if trouble == "gone":
            proxy.close()

    async def run(url: str, proxy: Proxy) -> None:
        async with serving(tmp_path, rate=100.0, burst=100, limits=url) as (client, _):
            assert (await client.post("/v1/recommend", json=ASK)).status_code == 200
            assert (await client.get("/readyz")).json()["degraded"] == []
            begin(proxy)
            for number in range(count(30, 200)):
                began = time.monotonic()
                answer = await client.post("/v1/recommend", json=ASK)
                assert answer.status_code == 200
                assert time.monotonic() - began < PATIENCE + 0.5
                if number % 10 == 0:
                    assert (await client.post("/v1/events", json={"events": [event(number)]})).status_code == 202
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["degraded"]) == (200, ["limits"])
            assert b"isthmus_limits_shared 0.0" in (await client.get("/metrics")).content
            statuses = {(await client.post("/v1/recommend", json=ASK)).status_code for _ in range(150)}
            assert statuses == {200, 429}
            if trouble != "gone":
                proxy.dark, proxy.delay = False, 0.0
                until = time.monotonic() + 5
                while (await client.get("/readyz")).json()["degraded"]:
                    assert time.monotonic() < until
                    await asyncio.sleep(0.2)

    with proxied(f"{redis_url[:-1]}{base}") as (url, proxy):
        asyncio.run(run(url, proxy))


def test_limits_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    done = isthmus("serve", tmp_path / "m", "--limits", "postgres://x/y", "--port", 0)
    assert done.code == 2, done.err
