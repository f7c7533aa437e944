"""New items in the lists of the service: as many as the share lets in, and less often the more they were shown."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.small_service import account, item, recommender, served

from isthmus.model.fresh import Exploration
from isthmus.recommender.items import with_items
from isthmus.service.core import Service
from isthmus.service.lists.items import items_frame
from isthmus.service.lists.tries import Tries


async def put(client: httpx.AsyncClient, number: int) -> None:
    """Put new items with the texts of known ones."""
    platform = item()["platform"]
    rows = [
        {"platform": platform, "item": f"new-{place}", "domain": "source", "title": "something new"}
        for place in range(number)
    ]
    answer = await client.put("/v1/items", json={"items": rows})
    assert answer.status_code < 300, answer.text


async def new_ones(client: httpx.AsyncClient, k: int, **more: object) -> int:
    """Return how many new items a list holds; it must be full."""
    asked = {"persons": [account()], "target": "source", "k": k, **more}
    answer = await client.post("/v1/recommend", json=asked)
    assert answer.status_code == 200, answer.text
    names = [one["item"] for one in answer.json()["lists"][0]["items"]]
    assert len(names) == k
    return sum(name.startswith("new-") for name in names)


@pytest.mark.parametrize(("share", "most"), [(0.2, (1, 2)), (0.0, (0, 0)), (1.0, (5, 10))])
def test_new_items_get_their_share_of_each_list(share: float, most: tuple[int, int], tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        await put(client, 12)
        for k, expected in zip((5, 10), most, strict=True):
            assert await new_ones(client, k) == expected
            assert await new_ones(client, k, exclude_seen=False) == expected
        counted = service.tenants["default"].live.tries("source").shown
        assert bool(counted[-12:].any()) == (share > 0)
        await client.put("/v1/items", json={"items": [{**item(), "item": "later", "domain": "source", "title": "x"}]})
        assert service.tenants["default"].live.tries("source").shown.sum() == counted.sum(), "counts outlive new items"

    served(tmp_path, test, explore=share, explore_bonus=50.0)


def test_the_bonus_of_an_item_fades_with_every_list_that_showed_it() -> None:
    names = [{"platform": "north", "item": f"new-{place}", "domain": "source"} for place in range(2)]
    rows = [((one["platform"], one["item"]), json.dumps(one)) for one in names]
    target = with_items(recommender().content, items_frame(rows)).targets["source"]
    tries = Tries(target)
    scores = np.zeros((1, target.items.size), np.float32)
    for _ in range(50):
        tries.count(target.items[-1:])
    lifted = tries.lifted(Exploration(bonus=2.0), scores, np.arange(target.items.size))
    assert lifted[0, -2:].tolist() == [2.0, 1.0]
    assert not lifted[0, :-2].any()
    assert tries.under(target.items[-2:], 1).tolist() == [True, False]
