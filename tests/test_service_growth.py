"""Items that come to a model at work: each extension is what a model built anew would be, and costs no copy of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.small_service import account, recommender, served

from isthmus.errors import StorageError
from isthmus.recommender import Recommender
from isthmus.recommender.items import lengthened
from isthmus.service.core import Service
from isthmus.service.lists import loading
from isthmus.service.lists.items import Account, Filters, Names, items_frame
from isthmus.service.lists.live import Live, LiveRules, Top, Version
from isthmus.service.lists.scoring import Ask, listable, one
from isthmus.service.log.records import Entry, Record

NOW = 1_800_000_000_000_000
FILTERS = (Filters(platforms=("north",)), Filters(langs=("zh",)), Filters(categories=("a",)))


def body(number: int) -> str:
    """Return an item: each third is there no longer, each second says its language."""
    said: dict[str, object] = {"domain": "source", "title": f"{recommender().items['title'][number] or ''} 新 {number}"}
    said |= {"lang": "zh"} if number % 2 else {}
    said |= {"available_until": 5} if number % 3 == 2 else {"categories": ["a", str(number)]}
    return json.dumps(said)


def items(start: int, stop: int) -> dict[Account, str]:
    return {("north", f"late {number:02}"): body(number) for number in range(start, stop)}


def built(new: dict[Account, str], large: int | None) -> Live:
    entries = [
        Entry(str(n), "item", *name[:1], "", name[1], ts=NOW, body=said) for n, (name, said) in enumerate(new.items())
    ]
    records = [Record(n, entry) for n, entry in enumerate(entries, start=1)]
    rules = LiveRules(large=large)
    return Live.build(recommender(), Version("m", "v"), [records], b"s" * 32, rules=rules)


def grown(live: Live, new: dict[Account, str]) -> Live:
    longer = live.extended(new)
    longer.adopt(live)
    return longer


def said(live: Live) -> list[object]:
    """Return what can be seen of a model at work."""
    shelf, persons = live.shelf, [live.state.person("north", account(n)["user"]) for n in range(4)]
    rows = np.arange(shelf.table.height, dtype=np.int32)
    lists = [live.rank("source", live.ask([person]), 50, sieve=listable(live))[0] for person in [None, *persons]]
    asks = [Ask(("north", account(0)["user"]), "source", 30, filters=filters) for filters in FILTERS]
    lists += [one(live, ask, live.ask([ask.person(live)])) for ask in asks] + [live.popular("source")]
    return [
        [_named(live, top) for top in lists],
        [shelf.json(row) for row in rows.tolist()],
        [shelf.filtered(filters).tolist() for filters in FILTERS],
        np.asarray(shelf.listable(rows, NOW)).tolist(),
        shelf.table.to_dicts(),
        list(shelf.names.items()),
        sorted(live.added),
        live.state.digest(),
    ]


def _named(live: Live, top: Top) -> list[tuple[str, float]]:
    return [(live.shelf.ids[row], round(float(score), 5)) for row, score in zip(top.rows, top.scores, strict=True)]


@pytest.mark.parametrize("large", [None, 1])
def test_item_after_item_is_what_a_model_built_with_all_of_them_is(large: int | None) -> None:
    live = built({}, large)
    for start, stop in ((0, 1), (1, 2), (2, 9), (9, 10)):
        live = grown(live, items(start, stop))
        live.shelf.filtered(FILTERS[1])
        live.popular("source")
    assert said(live) == said(built(items(0, 10), large))
    assert live.shelf.table.n_chunks() < 5


def test_the_model_before_stays_as_it_was() -> None:
    live = built(items(0, 1), None)
    before = said(live)
    longer = grown(grown(live, items(1, 4)), items(4, 5))
    live.state.names = live.shelf.names
    live.added.clear()
    live.added.update(items(0, 1))
    assert said(live) == before
    assert ("north", "late 01") not in live.shelf.names
    assert live.shelf.names.get(("north", "late 01")) is None
    with pytest.raises(KeyError):
        live.shelf.names["north", "late 01"]
    assert longer.shelf.names["north", "late 04"] == len(longer.shelf.names) - 1
    assert isinstance(longer.shelf.names, Names)


def test_items_that_came_to_nothing_leave_no_trace() -> None:
    live = built(items(0, 2), None)
    lost = live.extended(items(2, 4))
    lost.shelf.json(lost.shelf.names["north", "late 02"])
    after = grown(live, items(4, 5))
    assert said(after) == said(built({**items(0, 2), **items(4, 5)}, None))


def test_what_is_off_the_lists_stays_off_while_items_come() -> None:
    live = built(items(0, 2), None)
    longer = live.extended(items(3, 4))
    live.show(("north", "late 00"), shown=False)
    longer.adopt(live)
    row = np.array([longer.shelf.names["north", "late 00"]], np.int32)
    assert np.asarray(longer.shelf.listable(row, NOW)).tolist() == [False]
    longer.show(("north", "late 00"), shown=True)
    assert np.asarray(longer.shelf.listable(row, NOW)).tolist() == [True]


def test_what_is_known_is_not_copied_when_an_item_comes() -> None:
    """Else the second item of a catalogue of a million would take a second."""
    first = Recommender(lengthened(recommender().content, items_frame(list(items(0, 1).items()))))
    second = Recommender(lengthened(first.content, items_frame(list(items(1, 2).items()))))
    assert first.features.text is not None
    assert second.features.text is not None
    for name in ("data", "indices", "indptr"):
        assert np.shares_memory(getattr(first.features.text, name), getattr(second.features.text, name))
    assert np.shares_memory(first.targets["source"].items, second.targets["source"].items)
    live = grown(built({}, 1), items(0, 1))
    again = live.extended(items(1, 2))
    assert again.shelf.names.rows is live.shelf.names.rows
    assert again.shelf.ids is live.shelf.ids
    parts = [shortlisted.shortlists["source"]._sketches[0]._part._known for shortlisted in (live, again)]  # type: ignore[attr-defined]
    assert parts[0] is parts[1]


def test_an_item_the_log_could_not_take_is_unknown_and_the_next_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        tenant = service.tenant("default")
        write = tenant.write

        async def full(*_: object, **__: object) -> None:
            raise StorageError("the disk is full")

        monkeypatch.setattr(tenant, "write", full)
        new = {"platform": "north", "domain": "source", "title": "新"}
        answer = await client.put("/v1/items", json={"items": [{**new, "item": "lost"}]})
        assert answer.status_code == 507
        monkeypatch.setattr(tenant, "write", write)
        assert (await client.put("/v1/items", json={"items": [{**new, "item": "kept"}]})).status_code == 200
        found = [
            (await client.post("/v1/similar", json={"platform": "north", "item": name})).status_code
            for name in ("lost", "kept")
        ]
        assert found == [404, 200]
        answer = await client.post("/v1/recommend", json={"persons": [account()], "target": "source", "k": 100})
        listed = [one["item"] for one in answer.json()["lists"][0]["items"]]
        assert "kept" in listed
        assert "lost" not in listed

    served(tmp_path, test)


def test_what_models_of_one_line_share_is_freed_when_none_of_them_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LOOK", 0.01)
    first = built(items(0, 1), None)
    longer = grown(first, items(1, 2))
    ids, rows = longer.shelf.ids, longer.shelf.names.rows
    loading.free_model(longer)
    del longer
    time.sleep(0.1)
    assert first.shelf.json(len(first.shelf.names) - 1), "the one before is still in use"
    del first
    until = time.monotonic() + 20
    while (ids or rows) and time.monotonic() < until:
        time.sleep(0.02)
    assert not ids
    assert not rows
