"""What must not get out does not: secrets, people in logs, scores nobody asked for, formulas in tables."""

from __future__ import annotations

import csv
import json
import signal
import time
from pathlib import Path
from urllib.parse import quote

import httpx
import polars as pl
import pytest
from tests.issuer import AUDIENCE, ISSUER, claims, key_file, signed
from tests.small_service import account, item, served, started
from tests.tiers import count

from isthmus.pipeline.frames import write_table
from isthmus.service.core import Service
from isthmus.service.lock.key import SCOPES
from isthmus.service.lock.operations import OPERATIONS
from isthmus.service.lock.vault import Vault

BIRDY = {"platform": "north", "user": "birdy.user@example.org"}
TITLE, VALUE = "birdy title 5511 2233", "birdy-value-77"


def birds(folder: Path) -> tuple[str, str, list[str]]:
    """Return a key, a token, and what must be in no log."""
    vault = Vault(folder)
    key = vault.create(tenant="default", scopes=SCOPES)[1]
    vault.close()
    token = signed("ed", claims(sub="birdy.subject@example.org", scope=" ".join(SCOPES)))
    parts = [key.split("_", 2)[2], *token.split(".")[1:], "birdy", "example.org", "%40example"]
    return key, token, parts


def test_no_secret_person_or_text_is_in_logs_figures_or_the_audit_log(tmp_path: Path) -> None:
    key, token, hidden = birds(tmp_path / "data")
    keys = key_file(tmp_path, "ed")
    words = ("--issuer", ISSUER, "--audience", AUDIENCE, "--jwks", keys, "--verbose")
    who = quote(":".join(BIRDY.values()), safe="")
    deed = {**BIRDY, "item": item(1)["item"]}
    new = {"platform": "north", "item": "birdy item", "domain": "source", "title": TITLE, "text": VALUE}
    said = {"consents": [{"from_platform": "north", "to_platform": "*", "allowed": True}]}
    calls: list[tuple[str, str, object]] = [
        ("POST", "/v1/events", {"events": [deed, {**deed, "id": "birdy-id"}]}),
        ("POST", "/v1/events", {"events": [{**deed, "event": VALUE}]}),
        ("POST", "/v1/events", {"events": [{**deed, VALUE: VALUE}]}),
        ("PUT", "/v1/items", {"items": [new]}),
        ("PUT", "/v1/items", {"items": [{**new, "domain": VALUE}]}),
        ("POST", "/v1/recommend", {"persons": [BIRDY], "reasons": 2, "scores": True}),
        ("POST", "/v1/recommend", {"persons": [BIRDY], "target": VALUE}),
        ("POST", "/v1/similar", {"platform": "north", "item": "birdy item"}),
        ("POST", "/v1/explain", {**BIRDY, "item": {"platform": "north", "item": "birdy item"}}),
        ("POST", "/v1/explain", {**BIRDY, "item": {"platform": "north", "item": VALUE}}),
        ("GET", f"/v1/persons/{who}", None),
        ("PUT", f"/v1/consents/{who}", said),
        ("PUT", f"/v1/consents/{who}", {"consents": [{**said["consents"][0], "from_platform": VALUE}]}),
        ("POST", f"/v1/models/{VALUE}/activate", None),
        ("GET", f"/{VALUE}?token={VALUE}", None),
        ("DELETE", f"/v1/items/{quote('north:birdy item')}", None),
        ("DELETE", f"/v1/persons/{who}", None),
        ("DELETE", f"/v1/persons/{who}", None),
    ]
    with started(tmp_path / "data", *words) as (process, url), httpx.Client(base_url=url, timeout=30) as client:
        for headers in ({"authorization": f"Bearer {key}"}, {"authorization": f"Bearer {token}"}, {"x-api-key": key}):
            for method, path, body in calls:
                odd = {**headers, "x-request-id": "birdy/1"}
                status = client.request(method, path, json=body, headers=odd).status_code
                assert status < 500, path
                assert status != 401, path
        for wrong in (key[:-1], token[:-2], "birdy", "a.birdy.c"):
            assert client.get("/v1/models", headers={"authorization": f"Bearer {wrong}"}).status_code == 401
        client.post("/v1/events", content=b'{"events": "birdy', headers={"x-api-key": key})
        figures = client.get("/metrics", headers={"x-api-key": key}).text
        audit = client.get("/v1/audit", headers={"x-api-key": key}).text
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=30)
    assert log.count("\n") > 3 * len(calls), "every request was logged"
    for name, text in {"log": log, "output": out, "figures": figures, "audit log": audit}.items():
        for one in hidden:
            assert one not in text, (name, one)
    vault = Vault(tmp_path / "data")
    told = [one for one in vault.audit() if str(one["action"]).startswith(("person", "consents"))]
    vault.close()
    assert len({one["said"]["person"] for one in told}) == 1 < len(told), "one keyed name for one person"
    left = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and b"birdy.user" in path.read_bytes()]
    assert not left, "and after the erasure in no file"


def test_scores_are_hidden_unless_asked_for_and_rounded(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        async def lists(**more: object) -> str:
            return (await client.post("/v1/recommend", json={"persons": [account()], "k": 50, **more})).text

        assert "score" not in await lists()
        told = json.loads(await lists(scores=True))["lists"]
        scores = [place["score"] for one in told for place in one["items"]]
        assert len(scores) > 50
        assert all(round(score, 4) == score for score in scores)
        for field in ("tenant", "role", "model_version", "score", "platforms", "scopes"):
            body = {"persons": [{**account(), field: "x"}]}
            assert (await client.post("/v1/recommend", json=body)).status_code == 422, field
            body = {"persons": [account()], field: "x"}
            assert (await client.post("/v1/recommend", json=body)).status_code == 422, field

    served(tmp_path, test)


def test_every_answer_carries_its_guards_and_no_other_site_may_read_it(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        paths = {one.path.replace("{", "").replace("}", "") for one in OPERATIONS} | {
            "/docs",
            "/redoc",
            "/",
            "/nothing",
        }
        for path in sorted(paths):
            for method in ("GET", "POST", "OPTIONS", "HEAD", "TRACE"):
                answer = await client.request(method, path, headers=headers)
                assert answer.headers["x-content-type-options"] == "nosniff", path
                assert answer.headers["x-frame-options"] == "DENY", path
                assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
                assert "unsafe" not in answer.headers["content-security-policy"]
                assert not [name for name in answer.headers if name.startswith("access-control")], path
                assert "server" not in answer.headers
                assert "Traceback" not in answer.text
        for page in ("/docs", "/redoc"):
            assert (await client.get(page)).status_code == 404

    served(tmp_path, test)


def test_a_rate_and_a_burst_hold_for_one_tenant_and_leave_the_other_alone(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    texts = [vault.create(tenant=name, scopes=["models"])[1] for name in ("default", "other")]
    vault.close()
    seconds = count(2, 10)

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        mine, other = ({"authorization": f"Bearer {text}"} for text in texts)
        began, statuses, theirs = time.monotonic(), [], []
        for n in range(100 * seconds):
            pause = began + n / 100 - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            statuses.append((await client.get("/v1/models", headers=mine)).status_code)
            if n % 20 == 0:
                theirs.append((await client.get("/v1/models", headers=other)).status_code)
        took = time.monotonic() - began
        passed = statuses.count(200)
        print(f"{len(statuses)} requests in {took:.1f} s: {passed} accepted, {statuses.count(429)} refused")
        assert set(statuses) == {200, 429}
        assert abs(passed - (20 + 10 * took)) <= 2
        assert set(theirs) == {200}

    served(tmp_path, test, rate=10.0, burst=20, tenants=("default", "other"))


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "x\n", "default", "a b", "-x", "x;y"])
def test_a_tenant_cannot_be_named_after_another_path(tmp_path: Path, name: str) -> None:
    from tests.test_cli import isthmus

    done = isthmus("serve", tmp_path, "--tenant", f"{name}={tmp_path}")
    assert done.code == 2
    assert "names no tenant" in done.err


def test_tables_for_spreadsheets_hold_no_formula(tmp_path: Path) -> None:
    texts = ["=HYPERLINK(1)", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "+(1)", "-A1*2"]
    plain = ["+8613800138000", "-17", "u-5", "a=b", "1+1", "", "é", "-", "u:1", "-1.5"]
    frame = pl.DataFrame({"item": texts + plain, "score": [1.0] * 20})
    write_table(frame, tmp_path / "lists.csv")
    with (tmp_path / "lists.csv").open(newline="", encoding="utf-8") as file:
        told = [row["item"] for row in csv.DictReader(file)]
    assert told == [f"'{text}" for text in texts] + plain
    for ending in ("parquet", "jsonl"):
        write_table(frame, tmp_path / f"lists.{ending}")
    assert pl.read_parquet(tmp_path / "lists.parquet").equals(frame)
    assert pl.read_ndjson(tmp_path / "lists.jsonl").equals(frame)
