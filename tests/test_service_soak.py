"""R15: everything at once for a while, models change meanwhile: no failure, and nothing grows.

``ISTHMUS_SOAK_SECONDS`` says for how long; some seconds in ``make test``, twelve minutes in ``make soak``.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import threading
import time
import weakref
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import psutil
import pytest
from tests.small_service import account, event, item, served, started
from tests.tiers import count

from isthmus.service.core import Service
from isthmus.service.lists.live import Live

SECONDS = float(os.environ.get("ISTHMUS_SOAK_SECONDS", "0")) or float(count(12, 720))
MB = 1 << 20
HOUR = 3600.0


class Traffic:
    """Four people who ask for everything there is, about persons who come and go, so that the state stays as large."""

    def __init__(self, url: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.asked: Counter[str] = Counter()
        self.slowest: dict[str, float] = {}
        self.lost: list[str] = []
        self.over = threading.Event()
        self._url = url
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()

    def slow(self) -> dict[str, float]:
        """Return the seconds of the slowest answer of each kind since the last call."""
        slowest, self.slowest = self.slowest, {}
        return {kind: round(seconds, 2) for kind, seconds in slowest.items()}

    def _run(self, sender: int) -> None:
        rng = random.Random(sender)
        with httpx.Client(base_url=self._url, timeout=30) as client:
            for number in itertools.count():
                if self.over.is_set():
                    return
                who = {"platform": "north", "user": f"soak-{sender}-{number % 50}"}
                name = quote(f"north:{who['user']}", safe="")
                deed = event(rng.randrange(20), who, id=f"{sender}-{number % 500}")
                calls = [
                    ("events", "POST", "/v1/events", {"events": [deed]}),
                    ("lists", "POST", "/v1/recommend", {"persons": [account(rng.randrange(20)), who], "k": 20}),
                    ("similar", "POST", "/v1/similar", {**item(rng.randrange(20)), "k": 10}),
                    ("explain", "POST", "/v1/explain", {**account(rng.randrange(20)), "item": item(3)}),
                    ("items", "PUT", "/v1/items", {"items": [thing(rng.randrange(5), number % 3)]}),
                    ("export", "GET", f"/v1/persons/{name}", None),
                    ("erase", "DELETE", f"/v1/persons/{name}", None),
                    ("figures", "GET", "/metrics", None),
                ]
                often = rng.choices(calls, weights=[30, 30, 10, 5, 1, 3, 1, 1])[0]
                kind, method, path, body = calls[number] if number < len(calls) else often
                began = time.monotonic()
                try:
                    answer = client.request(method, path, json=body)
                except httpx.TransportError as error:
                    self.lost.append(f"{kind}: {type(error).__name__} after {time.monotonic() - began:.1f} s")
                    continue
                self.statuses[answer.status_code] += 1
                self.asked[kind] += 1
                self.slowest[kind] = max(self.slowest.get(kind, 0.0), time.monotonic() - began)
                time.sleep(0.02)


def thing(number: int, version: int) -> dict[str, str]:
    return {"platform": "north", "item": f"soak-{number}", "domain": "source", "title": f"Soak {number} of {version}"}


@pytest.mark.timeout(SECONDS + 300)
def test_everything_at_once_for_a_while_fails_nothing_and_nothing_grows(tmp_path: Path) -> None:
    rss, seen = [], []
    reloads = 0
    with started(tmp_path, "--seal", 5) as (process, url), httpx.Client(base_url=url, timeout=60) as client:
        here = psutil.Process(process.pid)
        traffic = Traffic(url)
        began = time.monotonic()
        warm, between = SECONDS / 4, min(60.0, SECONDS / 8)
        due = told = began + between
        while (now := time.monotonic()) < began + SECONDS:
            if now >= due:
                name = ("second", "first")[reloads % 2]
                assert client.post(f"/v1/models/{name}/activate").status_code == 200
                reloads, due = reloads + 1, due + between
            if now >= told:
                told += 60
                said = f"{here.memory_info().rss / MB:.1f} MB, {traffic.statuses.total()} answers"
                print(f"{now - began:.0f} s: {said}, slowest {traffic.slow()}", flush=True)
            if now > began + warm:
                rss.append((now, here.memory_info().rss))
                seen.append((here.num_threads(), len(here.open_files()), len(here.net_connections())))
            time.sleep(min(1.0, SECONDS / 50))
        traffic.end()
        process.terminate()
        assert process.wait(20) == 0
    times, sizes = np.array(rss).T
    half = len(sizes) // 2
    grown = (np.median(sizes[half:]) - np.median(sizes[:half])) / MB
    slope = 100 * HOUR * np.polyfit(times - times[0], sizes, 1)[0] / sizes.mean()
    threads, files, sockets = (max(column) - min(column) for column in zip(*seen, strict=True))
    counted = [one[0] for one in seen]
    more = np.median(counted[half:]) - np.median(counted[:half])
    print(
        f"{SECONDS:.0f} s: {traffic.statuses.total()} requests {dict(traffic.asked)}, {reloads} reloads, "
        f"{dict(traffic.statuses)}, memory {sizes.mean() / MB:.0f} MB, {grown:+.1f} MB between halves, "
        f"{slope:+.2f} % an hour, threads vary by {threads} ({more:+.0f} between halves), "
        f"files by {files}, sockets by {sockets}; "
        f"MB in steps of a tenth: {[round(one / MB, 1) for one in sizes[:: max(len(sizes) // 10, 1)].tolist()]}"
    )
    assert not traffic.lost
    assert set(traffic.statuses) <= {200, 202, 404, 429, 503}
    assert traffic.statuses[503] == 0
    assert len(traffic.asked) == 8
    assert reloads >= 2
    assert grown <= (5 if SECONDS >= 300 else 50), "at first it fills what it keeps"
    assert slope <= 1 or SECONDS < HOUR, "over a shorter time one megabyte is many percent an hour"
    assert (files <= 12, sockets <= 12) == (True, True)
    assert (threads <= 32, more <= 2) == (True, True), "small segments are read side by side, and those threads end"


def test_a_model_that_no_longer_answers_leaves_memory(tmp_path: Path) -> None:
    """Without the garbage collector, from whose rounds loaded models are taken out."""

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        tenant = service.tenant()
        held: list[weakref.ref[Live]] = []
        gc.disable()
        try:
            for name in ("second", "first", "second"):
                assert (await client.post("/v1/recommend", json={"persons": [account()], "k": 5})).status_code == 200
                held.append(weakref.ref(tenant.live))
                assert (await client.post(f"/v1/models/{name}/activate")).status_code == 200
            assert (await client.post("/v1/models/first/canary", json={"share": 0.5})).status_code == 200
            arm = tenant.rollout.arm("canary")
            assert arm is not None
            held.append(weakref.ref(arm.live))
            del arm
            assert (await client.delete("/v1/models/first/canary")).status_code == 200
            until = time.monotonic() + 10
            while any(one() is not None for one in held) and time.monotonic() < until:
                await asyncio.sleep(0.05)
            assert [one() is None for one in held] == [True] * 4
        finally:
            gc.enable()

    served(tmp_path, test)


def test_garbage_of_requests_while_a_model_is_loaded_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Circle:
        def __init__(self) -> None:
            self.own = self

    held: list[weakref.ref[Circle]] = []

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        models = service.tenant().models
        opened = models.open

        def beside(name: str) -> object:
            held.append(weakref.ref(Circle()))
            return opened(name)

        monkeypatch.setattr(models, "open", beside)
        for name in ("second", "first", "second"):
            assert (await client.post(f"/v1/models/{name}/activate")).status_code == 200
        gc.collect()
        assert [one() for one in held] == [None] * 3

    served(tmp_path, test)
