"""Keys: shown once, kept as hashes, good for what they say and for nothing else; the audit log shows every change."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import apsw
import httpx
import pytest
from tests.small_service import account, event, item, served
from tests.test_cli import isthmus

from isthmus.errors import InputError, NotFoundError
from isthmus.service.core import Service
from isthmus.service.lock.key import SCOPES
from isthmus.service.lock.operations import OPERATIONS
from isthmus.service.lock.vault import FRESH, Vault

Client = httpx.AsyncClient
SOUTH = {"platform": "south", "user": account(0, "south")["user"]}
CALLS: dict[str, tuple[str, object]] = {
    "livez": ("/livez", None),
    "readyz": ("/readyz", None),
    "drift": ("/v1/drift", None),
    "v2_live": ("/v2/health/live", None),
    "v2_ready": ("/v2/health/ready", None),
    "metrics": ("/metrics", None),
    "openapi": ("/openapi.json", None),
    "events": ("/v1/events", {"events": [event(1)]}),
    "recommend": ("/v1/recommend", {"persons": [account()]}),
    "similar": ("/v1/similar", item()),
    "explain": ("/v1/explain", {**account(), "item": item()}),
    "items_put": ("/v1/items", {"items": [{**item(), "domain": "none"}]}),
    "items_delete": ("/v1/items/north:none", None),
    "persons_export": ("/v1/persons/north:none", None),
    "persons_erase": ("/v1/persons/north:none", None),
    "consents": ("/v1/consents/north:none", None),
    "consents_put": (
        "/v1/consents/north:none",
        {"consents": [{"from_platform": "north", "to_platform": "*", "allowed": True}]},
    ),
    "models": ("/v1/models", None),
    "models_activate": ("/v1/models/none/activate", None),
    "models_rollback": ("/v1/models/rollback", None),
    "models_check": ("/v1/models/none/check", None),
    "models_promote": ("/v1/models/none/promote", None),
    "models_canary": ("/v1/models/none/canary", {"share": 0.1}),
    "models_canary_end": ("/v1/models/none/canary", None),
    "models_shadow": ("/v1/models/none/shadow", {"share": 0.1}),
    "models_shadow_end": ("/v1/models/none/shadow", None),
    "console": ("/console", None),
    "console_file": ("/console/app.js", None),
    "access": ("/v1/access", None),
    "overview": ("/v1/overview", None),
    "audit": ("/v1/audit", None),
    "compare": ("/v1/compare", {}),
    "items_find": ("/v1/items?q=a", None),
    "items_get": ("/v1/items/north:none", None),
    "models_report": ("/v1/models/none/report", None),
}


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_every_operation_opens_to_its_scope_and_to_no_other_key(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    keys = {scope: vault.create(tenant="default", scopes=[scope])[1] for scope in SCOPES}
    every = vault.create(tenant="default", scopes=SCOPES)[1]
    expired = vault.create(tenant="default", scopes=SCOPES, days=-1)[1]
    closed, closed_text = vault.create(tenant="default", scopes=SCOPES)
    vault.revoke(closed.prefix)
    lost = vault.create(tenant="elsewhere", scopes=SCOPES)[1]
    vault.close()
    wrong = {
        "none": {},
        "expired": bearer(expired),
        "revoked": bearer(closed_text),
        "another secret": bearer(every[:-1] + ("a" if every[-1] != "a" else "b")),
        "prefix only": bearer(every[:12]),
        "empty": bearer(""),
        "other kind": {"authorization": f"Basic {every}"},
        "odd bytes": {"authorization": b"Bearer \xff\xfe_x_y"},
    }

    async def test(client: Client, service: Service) -> None:
        assert {one.name for one in OPERATIONS} == set(CALLS)
        for one in OPERATIONS:
            path, body = CALLS[one.name]

            async def status(headers: object, method: str = one.method, path: str = path, body: object = body) -> int:
                answer = await client.request(method, path, json=body, headers=headers)  # type: ignore[arg-type]
                return answer.status_code

            for name, headers in wrong.items():
                got = await status(headers)
                assert got == 401 if one.scope else got < 300, (one.name, name, got)
            where, _, query = path.partition("?")
            for tail in ("%0A", "%0D%0A", "/", "%00", "%20", "//", "%0A/"):
                got = await status({}, path=f"{where}{tail}?{query}")
                assert got in (401, 404, 405) or not one.scope, (one.name, tail, got)
            for scope, key in keys.items():
                got = await status(bearer(key))
                assert (got == 403) == (bool(one.scope) and scope != one.scope), (one.name, scope, got)
                assert got != 401
            assert await status({"x-api-key": every}) not in (401, 403)
            if one.scope:
                assert await status(bearer(lost)) == 404, "a tenant that is not served"

    served(tmp_path, test, guesses=0)


def test_the_first_key_locks_a_service_at_work(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        assert (await client.get("/v1/models")).status_code == 200
        line = Vault(tmp_path)
        text = line.create(tenant="default", scopes=SCOPES)[1]
        line.close()
        await asyncio.sleep(FRESH + 0.1)
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/v1/models", headers=bearer(text))).status_code == 200

    served(tmp_path, test)


def test_the_page_of_another_site_changes_nothing_where_no_key_is_needed(tmp_path: Path) -> None:
    evil = {"origin": "https://evil.example"}

    async def test(client: Client, service: Service) -> None:
        for headers in (evil, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site", **evil}):
            for one in OPERATIONS:
                path, body = CALLS[one.name]
                if one.method != "GET":
                    got = await client.request(one.method, path, json=body, headers=headers)
                    assert got.status_code == 403, (one.name, got.text)
        own = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
        said = await client.post("/v1/recommend", json={"persons": [account()]}, headers=own)
        assert said.status_code == 200, said.text
        del own["sec-fetch-site"]  # browsers that do not say it
        assert (await client.post("/v1/recommend", json={"persons": [account()]}, headers=own)).status_code == 200

    served(tmp_path, test)


def test_a_key_for_a_platform_sees_nothing_of_another(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    north = vault.create(tenant="default", scopes=SCOPES, platforms=["north"])[1]
    every = vault.create(tenant="default", scopes=SCOPES)[1]
    vault.close()
    who = account(0)

    async def test(client: Client, service: Service) -> None:
        linked = service.tenant().live.state.linked[service.tenant().live.state.person(**who)]
        south = next({"platform": p, "user": u} for p, u in linked if p == "south")
        deed = {**south, "item": item(2, "target")["item"], "event": "like"}

        async def call(key: str, method: str, path: str, body: object = None) -> httpx.Response:
            return await client.request(method, path, json=body, headers=bearer(key))

        assert (await call(every, "POST", "/v1/events", {"events": [deed, event(3, who)]})).status_code == 202
        calls = [
            ("POST", "/v1/recommend", {"persons": [who, south]}),
            ("POST", "/v1/recommend", {"persons": [who], "context": [item(2, "target")]}),
            ("POST", "/v1/events", {"events": [deed]}),
            ("POST", "/v1/explain", {**south, "item": item()}),
            ("GET", f"/v1/persons/south:{south['user']}", None),
            ("DELETE", f"/v1/persons/south:{south['user']}", None),
            ("PUT", "/v1/items", {"items": [{**item(), "domain": "none"}, {**item(2, "target"), "domain": "none"}]}),
            ("DELETE", f"/v1/items/south:{item(2, 'target')['item']}", None),
        ]
        for method, path, body in calls:
            assert (await call(north, method, path, body)).status_code == 403, path
        told = (await call(north, "GET", f"/v1/persons/north:{who['user']}")).json()
        assert {one["platform"] for one in (*told["accounts"], *told["events"], *told["model_history"])} == {"north"}
        body = {"persons": [who], "k": 5, "reasons": 5}
        for key, platforms in ((north, {"north"}), (every, {"north", "south"})):
            lists = (await call(key, "POST", "/v1/recommend", body)).json()["lists"]
            assert {why["platform"] for one in lists for at in one["items"] for why in at["reasons"]} == platforms
        erased = (await call(north, "DELETE", f"/v1/persons/north:{who['user']}")).json()
        assert (erased["accounts"], erased["events"]) == (1, 1)
        left = (await call(every, "GET", f"/v1/persons/south:{south['user']}")).json()
        assert {one["platform"] for one in (*left["accounts"], *left["events"], *left["model_history"])} == {"south"}
        assert left["events"]

    served(tmp_path, test)


def test_tenants_share_nothing(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    mine = vault.create(tenant="default", scopes=SCOPES)[1]
    other = vault.create(tenant="other", scopes=SCOPES)[1]
    vault.close()
    new = {"platform": "north", "user": "new"}

    async def test(client: Client, service: Service) -> None:
        body = {"events": [event(3, new, id="the same id")]}
        for key in (mine, other):
            said = (await client.post("/v1/events", json=body, headers=bearer(key))).json()
            assert (said["accepted"], said["data_version"]) == (1, 1)
        gone = await client.delete("/v1/persons/north:new", headers=bearer(mine))
        assert gone.json()["events"] == 1
        assert (await client.get("/v1/persons/north:new", headers=bearer(mine))).status_code == 404
        assert (await client.get("/v1/persons/north:new", headers=bearer(other))).status_code == 200
        await client.delete(f"/v1/items/north:{item(1)['item']}", headers=bearer(mine))
        shown = []
        for key in (mine, other):
            asked = {"persons": [new], "k": 1000, "target": "source"}
            lists = (await client.post("/v1/recommend", json=asked, headers=bearer(key))).json()["lists"]
            shown.append(item(1)["item"] in [place["item"] for place in lists[0]["items"]])
        assert shown == [False, True]

    served(tmp_path, test, tenants=("default", "other"))


def test_a_key_made_or_closed_by_another_process_counts_soon(tmp_path: Path) -> None:
    service, line = Vault(tmp_path), Vault(tmp_path)
    assert not service.locked
    key, text = line.create(tenant="default", scopes=["events"], label="shop")
    service._looked = -1.0
    assert service.locked, "nothing but the question itself makes it look"
    assert service.find(text) == key
    assert service.find(text + "x") is None
    line.revoke(key.prefix)
    service._looked = -1.0
    assert service.find(text) is None
    assert service.locked, "closing the last key opens nothing"
    secret = text.split("_", 2)[2].encode()
    assert not [path for path in tmp_path.iterdir() if secret in path.read_bytes()]
    with pytest.raises(NotFoundError):
        line.revoke("nothing")
    with pytest.raises(InputError, match="did you mean 'events'"):
        line.create(tenant="default", scopes=["event"])
    line.close()
    service.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET said = '{}' WHERE number = 2",
        "UPDATE audit SET ts = ts + 1 WHERE number = 1",
        "DELETE FROM audit WHERE number = 2",
        "DELETE FROM audit WHERE number = 3",
    ],
)
def test_the_audit_log_shows_when_it_was_changed(tmp_path: Path, change: str) -> None:
    vault = Vault(tmp_path)
    for action in ("one", "two", "three"):
        vault.note("default", "me", action, {"a": action})
    assert [one["action"] for one in vault.audit()] == ["one", "two", "three"]
    db = apsw.Connection(str(tmp_path / "system.db"))
    db.execute(change)
    db.close()
    with pytest.raises(InputError, match="audit log"):
        vault.audit()
    vault.close()


def test_the_audit_log_names_changes_and_no_person(tmp_path: Path) -> None:
    who = account(2)

    async def test(client: Client, service: Service) -> None:
        await client.post("/v1/events", json={"events": [event(3, who)]})
        await client.get(f"/v1/persons/north:{who['user']}")
        await client.delete(f"/v1/persons/north:{who['user']}")
        await client.delete(f"/v1/items/north:{item(1)['item']}")
        log = service.vault.audit()
        assert [one["action"] for one in log] == [
            "person exported",
            "person erased: begun",
            "person erased",
            "item removed",
        ]
        assert who["user"] not in json.dumps(log)

    served(tmp_path, test)


def test_keys_on_the_command_line(tmp_path: Path) -> None:
    data = ("--data", f"sqlite:///{tmp_path}")
    made = isthmus(
        "keys", "create", *data, "--scope", "events", "--scope", "recommend", "--platform", "north", "--json"
    )
    said = json.loads(made.out)
    assert said["key"].startswith(f"isk_{said['prefix']}_")
    listed = isthmus("keys", "list", *data)
    assert said["prefix"] in listed.out
    assert said["key"] not in listed.out
    assert isthmus("keys", "revoke", said["prefix"], *data).code == 0
    assert json.loads(isthmus("keys", "list", *data, "--json").out)[0]["revoked"]
    audit = json.loads(isthmus("keys", "audit", *data, "--json").out)
    assert [one["action"] for one in audit] == ["key created", "key revoked"]
    for words, fix in (
        (("keys", "create", *data, "--scope", "evnts"), "did you mean 'events'"),
        (("keys", "revoke", "nothing", *data), "no key"),
        (("keys", "list", "--data", "redis://x"), "sqlite:///DIR"),
    ):
        done = isthmus(*words)
        assert (done.code, done.out) == (2, ""), done.err
        assert fix in done.err
    assert os.stat(tmp_path / "system.db").st_size > 0
