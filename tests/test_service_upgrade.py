"""R12: folders written by earlier versions open, and answer as they did."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import httpx
import polars as pl
import pytest
from tests.small_service import account, served
from tests.written.make import HERE, NOW, deed

from isthmus import __version__
from isthmus.data.sources.segments import read_manifest, verified
from isthmus.service.changes import when
from isthmus.service.core import Service
from isthmus.service.lock.vault import Vault
from isthmus.service.log.upkeep import FOLDER
from isthmus.service.rollout.pointer import read_pointer

VERSIONS = ("first", "0.1.0")
LEFT = [deed(number) for number in range(24) if number % 4 != 3]  # old-3 was erased


def told(user: str) -> list[dict[str, object]]:
    """Return the events of a person as an export says them."""
    names = ("id", "platform", "user", "item", "event", "value")
    return [{**{name: getattr(one, name) for name in names}, "ts": when(one.ts)} for one in LEFT if one.user == user]


def test_there_is_a_folder_of_every_version() -> None:
    assert {path.parent.name for path in HERE.glob("*/key.txt")} == set(VERSIONS)
    assert __version__ in VERSIONS, "write one: python -m tests.written.make VERSION"


@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_earlier_version_wrote_opens_and_answers_the_same(version: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(HERE / version / "data", data)
    key = (HERE / version / "key.txt").read_text()
    ask = {"persons": [{"platform": "north", "user": f"old-{n}"} for n in range(4)], "k": 10, "scores": True}

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        client.headers["authorization"] = f"Bearer {key}"
        for n in range(3):
            export = (await client.get(f"/v1/persons/north:old-{n}")).json()
            assert export["events"] == told(f"old-{n}")
            assert len(export["consents"]) == int(version != "first" and n == 1)
        assert (await client.get("/v1/persons/north:old-3")).status_code == 404
        assert ("north", "new-1") in {(one.platform, one.item) for one in everything(service) if one.kind == "item"}
        asked = {"platform": "north", "item": "new-1", "k": 3}
        assert (await client.post("/v1/similar", json=asked)).status_code == 200, "the item it was told of is known"
        again = await client.post("/v1/events", json={"events": [{**told("old-0")[0]}, {**account(), "item": "i1"}]})
        assert (again.json()["accepted"], again.json()["duplicates"]) == (1, ["e0"])
        assert (await client.post("/v1/recommend", json=ask)).status_code == 200

    served(data, test)
    with closing(Vault(data)) as vault:
        created = [one for one in vault.audit() if one["action"] == "key created"]
        assert (len(created), len(vault.known())) == (2, 2)
        assert sum(one.revoked is not None for one in vault.known()) == 1
    if version != "first":
        folder = data / FOLDER / "default"
        frame = pl.concat([pl.read_parquet(verified(folder, one)) for one in read_manifest(folder).segments])
        assert sorted(frame["id"]) == sorted(one.id for one in LEFT)
        assert frame["ts"].min().timestamp() * 1e6 == NOW  # type: ignore[union-attr]
        pointer = read_pointer(HERE / version / "data" / "default.model.json")
        assert pointer is not None
        assert (pointer.previous, pointer.ended and pointer.ended.at) == (("second",), NOW)


def everything(service: Service) -> list:
    return [record.entry for some in service.tenant().log.read() for record in some]
