"""Drift: silent while nothing changes, heard within one window when a fifth does, and told over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.small_service import account, event, item, recommender, served

from isthmus.service.core import Service
from isthmus.service.watch import observer as watched
from isthmus.service.watch.drift import Feature
from isthmus.service.watch.reference import Reference
from isthmus.service.watch.texts import Meaning, length, script

Client = httpx.AsyncClient
Draw = Callable[[np.random.Generator], str]
DOMAINS = ("books", "films", "games")
WORDS = [
    "sea",
    "night",
    "river",
    "stone",
    "garden",
    "winter",
    "letter",
    "house",
    "silver",
    "road",
    "quiet",
    "island",
    "harbour",
    "light",
]
CENTRES = np.random.default_rng(5).normal(size=(6, 16))


def of_shares(*shares: float) -> Draw:
    return lambda rng: DOMAINS[int(rng.choice(3, p=shares))]


def text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, max(1, int(rng.lognormal(3, 0.6)))))


def other(usual: Callable[[np.random.Generator], object], odd: Callable[[np.random.Generator], object]) -> Callable:
    """Return what draws ``odd`` one time in five."""
    return lambda rng: odd(rng) if rng.random() < 0.2 else usual(rng)


def vector(rng: np.random.Generator, centres: int = 5, first: int = 0) -> np.ndarray:
    return (CENTRES[first + int(rng.integers(centres))] + 0.5 * rng.normal(size=16)).astype(np.float32)


MEANING = Meaning.of(np.stack([vector(np.random.default_rng(n)) for n in range(3000)]))
assert MEANING is not None
CASES: dict[str, tuple[int, Draw, Draw]] = {
    "domain mix": (watched.WINDOW, of_shares(0.5, 0.3, 0.2), of_shares(0.3, 0.3, 0.4)),
    "another language": (watched.ITEMS, lambda r: script(text(r)), other(lambda r: script(text(r)), lambda r: "han")),
    "longer texts": (
        watched.ITEMS,
        lambda r: length(text(r)),
        other(lambda r: length(text(r)), lambda r: length(text(r) * 5)),
    ),
    "another meaning": (
        watched.ITEMS,
        lambda r: MEANING.bucket(vector(r)),
        other(lambda r: MEANING.bucket(vector(r)), lambda r: MEANING.bucket(vector(r, 1, 5))),
    ),
}


def pooled(draw: Draw, rng: np.random.Generator) -> Draw:
    """Return what draws as ``draw`` does, from 4,000 draws made before."""
    pool = np.array([draw(rng) for _ in range(4000)])
    return lambda rng: str(pool[int(rng.random() * 4000)])


def windows(feature: Feature, draw: Draw, rng: np.random.Generator, n: int) -> int:
    """Return how many of ``n`` windows end with an alarm."""
    alarms = 0
    for _ in range(n):
        for _ in range(feature.size):
            feature.add(draw(rng))
        assert feature.due(1.0, 0.0)
        feature.close(1.0)
        alarms += feature.finding.alarm
    return alarms


@pytest.mark.parametrize("name", CASES)
def test_hundred_windows_alike_are_silent_and_hundred_with_a_fifth_changed_are_heard(name: str) -> None:
    size, usual, odd = CASES[name]
    rng = np.random.default_rng(11)
    usual, odd = pooled(usual, rng), pooled(odd, rng)
    reference: dict[str, float] = {}
    for _ in range(5000):
        bucket = usual(rng)
        reference[bucket] = reference.get(bucket, 0.0) + 1.0
    alike = windows(Feature("", size, reference), usual, rng, 100)
    heard = sum(windows(Feature("", size, reference), odd, rng, 1) for _ in range(100))
    print(f"{name}: {alike} false alarms of 100 windows, {heard} of 100 changes heard in their first window")
    assert alike <= 5
    assert heard >= 95


def test_a_small_change_adds_up_and_an_alarm_ends_with_its_cause() -> None:
    rng = np.random.default_rng(1)
    feature = Feature("", 300, {"books": 2500.0, "films": 1500.0, "games": 1000.0})
    slight = of_shares(0.38, 0.34, 0.28)
    said = [windows(feature, slight, rng, 1) for _ in range(10)]
    assert said[0] == 0
    assert sum(said[5:]) >= 3
    windows(feature, of_shares(0, 0, 1), rng, 50)
    assert feature.finding.alarm
    assert windows(feature, of_shares(0.5, 0.3, 0.2), rng, 5) == 0


def test_what_the_model_was_made_for_is_read_from_it() -> None:
    model = recommender()
    reference = Reference.of(model, "v")
    events = model.content.people.events
    assert sum(reference.domains.values()) == sum(reference.kinds.values()) == events.height
    assert set(reference.domains) == {"source", "target"}
    counts = np.bincount(events["item"].to_numpy(), minlength=model.items.height)
    assert reference.rank(int(counts.argmax())) == "first 1%" or counts.size < 100
    assert {reference.rank(row) for row in np.flatnonzero(counts == 0)} <= {"no events"}
    assert reference.rank(model.items.height) == "new"


def test_the_service_tells_drift_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "WINDOW", 200)
    monkeypatch.setattr(watched, "ITEMS", 30)
    known = recommender().content.people.events
    items = recommender().items.select("platform", "item").rows()
    usual = known["item"].to_list()
    rng = np.random.default_rng(3)

    def deeds(rows: list[int], persons: int) -> list[dict[str, object]]:
        from isthmus.types import EVENTS

        kinds = known["event"].to_list()
        some = rng.integers(len(usual), size=len(rows))
        return [
            {
                "platform": items[row][0],
                "item": items[row][1],
                "user": f"u{n % persons}",
                "event": EVENTS[kinds[some[n]]],
            }
            for n, row in enumerate(rows)
        ]

    async def test(client: Client, service: Service) -> None:
        async def send(rows: list[int], persons: int = 100) -> None:
            answer = await client.post("/v1/events", json={"events": deeds(rows, persons)})
            assert answer.status_code == 202

        async def told() -> dict[str, dict]:
            return {one["of"]: one for one in (await client.get("/v1/drift")).json()["features"]}

        first = await told()
        assert not any(one["alarm"] or one["at"] for one in first.values())
        assert sum(first["event_domains"]["reference"].values()) == pytest.approx(1, abs=1e-3)
        for _ in range(3):
            await send([usual[n] for n in rng.integers(len(usual), size=200)])
        calm = await told()
        assert calm["event_domains"]["at"]
        assert not any(one["alarm"] for one in calm.values()), calm
        source = [row for row in usual if recommender().items["domain"][row] == "source"]
        await send([source[n] for n in rng.integers(len(source), size=600)])
        loud = await told()
        assert [name for name, one in loud.items() if one["alarm"]] == ["event_domains"]
        assert loud["event_domains"]["seen"] == {"source": 1.0}
        assert 'isthmus_drift_alarm{of="event_domains",tenant="default"} 1.0' in (await client.get("/metrics")).text
        await send([usual[n] for n in rng.integers(len(usual), size=600)])
        assert not any(one["alarm"] for one in (await told()).values())
        before = (await told())["event_domains"]
        await send([source[0]] * 900, persons=1)
        after = (await told())["event_domains"]
        assert after["at"] == before["at"], "one person alone fills no window"
        assert after["waiting"] <= before["waiting"] + watched.EACH
        new = [{"platform": "north", "item": f"n{n}", "domain": "source", "title": "夜晚的海与石头"} for n in range(30)]
        assert (await client.put("/v1/items", json={"items": new})).status_code == 200
        assert (await told())["item_scripts"]["alarm"]
        for _ in range(100):
            body = {"persons": [{**account(n % 20)} for n in range(10)], "target": "source"}
            assert (await client.post("/v1/recommend", json=body)).status_code == 200
            if (await told())["list_layers"]["reference"]:
                break
        assert (await told())["list_layers"]["reference"] == {"model": 1.0}
        assert sum((await told())["list_ranks"]["reference"].values()) == pytest.approx(1, abs=1e-3)

    served(tmp_path, test, drift_seconds=0.0)

    async def again(client: Client, service: Service) -> None:
        told = {one["of"]: one for one in (await client.get("/v1/drift")).json()["features"]}
        assert told["list_layers"]["reference"] == {"model": 1.0}, "the reference of lists stays over a restart"
        assert (await client.post("/v1/models/second/activate")).status_code == 200
        told = {one["of"]: one for one in (await client.get("/v1/drift")).json()["features"]}
        assert told["list_layers"]["reference"] == {}, "another model has another reference"
        assert (await client.post("/v1/events", json={"events": [event(1)]})).status_code == 202
        assert (await client.get("/v1/drift")).json()["model"] == "second"

    served(tmp_path, again, drift_seconds=0.0)
    assert not [name for name in ("u1", item()["item"]) if name in (tmp_path / "default.drift.json").read_text()]
