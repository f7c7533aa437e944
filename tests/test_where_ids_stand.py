"""Where ids of users stand in what is written: the files that the security page names, and no other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import polars as pl
import pytest
from tests.small_service import started
from tests.test_cli import isthmus

from isthmus.data.simulate import write_town
from isthmus.pipeline import RunSettings, run

QUICK = RunSettings(methods=("popularity", "knn", "tfidf"), budget=1.0, k=4)
NEW = "somebody-new-5521"


def texts(file: Path) -> str:
    """Return all that a file says, whatever packs it."""
    if file.suffix == ".parquet":
        return pl.read_parquet(file).write_ndjson()
    if file.suffix == ".db":
        with closing(sqlite3.connect(file)) as db:
            return "\n".join(db.iterdump())
    return file.read_bytes().decode(errors="replace")


def naming(folder: Path, names: list[str]) -> set[str]:
    """Return the files under a folder in which one of ``names`` stands."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(("-wal", "-shm"))]
    return {str(file.relative_to(folder)) for file in files if any(name in texts(file) for name in names)}


def test_ids_of_users_stand_where_the_security_page_says_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISTHMUS_TOWN_SECRET", "sixteen characters or more")
    out = tmp_path / "out"
    run(write_town(tmp_path / "logs", seed=2, persons=120), out, QUICK)
    accounts = pl.read_parquet(out / "model" / "accounts.parquet")
    kept = {"corpus/events.parquet", "corpus/identities.parquet", "corpus/rejects.parquet", "recs.parquet"}
    assert naming(out, accounts["user"].unique().to_list()) == {*kept, "model/accounts.parquet"}
    assert (out / "report" / "report.json").is_file(), "the report was looked at"
    data, who = tmp_path / "data", {"platform": accounts["platform"][0], "user": NEW}
    with started(data, model=out / "model") as (process, url), httpx.Client(base_url=url, timeout=30) as client:
        sent = client.post("/v1/events", json={"events": [{**who, "item": "a", "event": "like"}]})
        assert sent.status_code == 202, sent.text
        name = f"{who['platform']}:{NEW}"
        said = {"consents": [{"from_platform": who["platform"], "to_platform": "*", "allowed": True}]}
        assert client.put(f"/v1/consents/{name}", json=said).status_code == 200
        assert client.get(f"/v1/persons/{name}").status_code == 200
        assert client.post("/v1/recommend", json={"persons": [who]}).status_code == 200
        process.terminate()
        process.wait()
    assert isthmus("events", "seal", "--data", data).code == 0
    (segment,) = (str(one.relative_to(data)) for one in (data / "segments").rglob("events-*.parquet"))
    assert (data / "system.db").is_file(), "the audit log was looked at"
    assert naming(data, [NEW]) == {"default.db", segment}
