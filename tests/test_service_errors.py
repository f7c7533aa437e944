"""What is wrong is said in one form and changes nothing; the document is complete; limits hold."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from tests.small_service import account, event, models, served, serving

from isthmus.errors import IsthmusError
from isthmus.service import schemas as plain
from isthmus.service import schemas_consents, schemas_models
from isthmus.service.app import GROUPS
from isthmus.service.core import Places, Service
from isthmus.service.examples import EXAMPLES
from isthmus.service.lock.operations import OPERATIONS
from isthmus.service.looking import forms
from isthmus.service.problems import BusyError, problem, status_of
from isthmus.service.settings import ServiceSettings

Client = httpx.AsyncClient
BAD = {
    "no JSON": (b'{"persons": [', 400, "no JSON: EOF while parsing a list at line 1 column 13"),
    "nothing": (b"", 400, "no JSON"),
    "too deep": (b'{"persons":' + b"[" * 100_000, 400, ""),
    "no object": (b"[]", 422, ""),
    "nobody": (b'{"persons": []}', 422, "at least 1"),
    "an unknown field": (b'{"persons": [{"platform": "a", "user": "b"}], "tenant": "x"}', 422, "not permitted"),
    "too long a list": (b'{"persons": [{"platform": "a", "user": "b"}], "k": 1001}', 422, "1000"),
    "an unknown domain": (b'{"persons": [{"platform": "a", "user": "b"}], "target": "sorce"}', 404, "did you mean"),
    "a platform with a colon": (b'{"persons": [{"platform": "a:b", "user": "b"}]}', 422, "pattern"),
    "a lone surrogate": (b'{"persons": [{"platform": "a", "user": "\\ud800"}]}', 400, "JSON"),
    "too much": (json.dumps({"persons": [{"platform": "a", "user": "b"}] * 1000, "k": 1000}).encode(), 422, "places"),
    "too many": (json.dumps({"persons": [{"platform": "a", "user": "b"}] * 1001}).encode(), 422, "1000"),
}


def test_what_is_wrong_is_said_in_one_form(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        kind = {"content-type": "application/json"}
        for name, (body, status, said) in BAD.items():
            answer = await client.post("/v1/recommend", content=body, headers=kind)
            told = answer.json()
            assert answer.status_code == status == told["status"], (name, answer.text)
            assert answer.headers["content-type"] == "application/problem+json", name
            assert set(told) == {"type", "title", "status", "detail", "where", "fix", "request_id"}
            assert said in told["detail"], (name, told)
            assert told["request_id"] == answer.headers["x-request-id"]
        for value in ("NaN", "Infinity", "1e999"):
            body = '{"events": [{"platform": "a", "user": "b", "item": "c", "value": V}]}'.replace("V", value)
            answer = await client.post("/v1/events", content=body.encode(), headers=kind)
            assert answer.status_code in (400, 422), value
        late = await client.post("/v1/events", json={"events": [event(1, ts="2350-01-01T00:00:00Z")]})
        assert (late.status_code, late.json()["where"]) == (422, "events.0")
        long = await client.post("/v1/recommend", content=b" " * (5 << 20), headers=kind)
        assert long.status_code == 413

        async def endless() -> object:
            for _ in range(100):
                yield b" " * (1 << 20)

        assert (await client.post("/v1/recommend", content=endless(), headers=kind)).status_code == 413
        zipped = await client.post("/v1/recommend", content=b"x", headers={**kind, "content-encoding": "gzip"})
        assert zipped.status_code == 415
        wrong = await client.get("/v1/recommend")
        assert (wrong.status_code, wrong.json()["fix"], wrong.headers["allow"]) == (405, "take POST", "POST")
        for path in ("/", "/docs", "/v1/nothing"):
            nothing = await client.get(path)
            assert nothing.status_code == 404
            assert "/openapi.json" in nothing.json()["fix"], "where the operations are told"
        unnamed = await client.get("/v1/persons/u17")
        assert (unnamed.status_code, unnamed.json()["fix"]) == (422, "write PLATFORM:ID")
        assert (await client.get("/livez", headers={"host": "evil.example:80"})).status_code == 421
        kept = await client.get("/livez", headers={"x-request-id": "abcdefgh-1"})
        assert kept.headers["x-request-id"] == "abcdefgh-1"
        assert kept.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in kept.headers
        assert service.doors.inside == 0
        log = service.tenant().log
        assert log.seq == 0, "nothing wrong was written"

    served(tmp_path, test)


def test_a_failure_of_ours_is_said_without_its_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(client: Client, service: Service) -> None:
        def broken(*_: object) -> None:
            raise ValueError("the secret of u17")

        monkeypatch.setattr(service.tenant().lister, "ready", broken)
        answer = await client.post("/v1/recommend", json={"persons": [account()]})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.headers["content-type"] == "application/problem+json"

    served(tmp_path, test)


def test_every_error_of_the_tree_has_a_status_and_a_form() -> None:
    def below(kind: type[IsthmusError]) -> list[type[IsthmusError]]:
        return [kind, *(found for child in kind.__subclasses__() for found in below(child))]

    kinds = [kind for kind in below(IsthmusError) if kind.__name__ != "RequestError"]
    assert len(kinds) >= 9
    for kind in kinds:
        said = json.loads(problem(kind("what", fix="do"), "r").body)
        assert said["status"] == status_of(kind("x")) in range(400, 600)
        assert said["title"] != "failed" or said["status"] == 500, kind
    assert problem(BusyError("later")).headers["retry-after"] == "1"


def test_the_document_has_every_operation_its_errors_and_examples(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        document = (await client.get("/openapi.json")).json()
        declared = {(one.method, one.path) for one in OPERATIONS if one.name != "openapi"}
        found = {(method.upper(), path) for path, ways in document["paths"].items() for method in ways}
        assert found == declared, "an operation that is not declared cannot be called"
        for path, ways in document["paths"].items():
            for method, said in ways.items():
                assert said["description"], path
                errors = {int(status) for status in said["responses"]} - {200, 202}
                assert errors, path
                if path.startswith("/v1/"):
                    assert {400, 401, 403, 429, 500, 503} <= errors, path
                    for status in errors:
                        (kind,) = said["responses"][str(status)]["content"]
                        assert kind == "application/problem+json", (path, method, status)
        schemas = document["components"]["schemas"]
        assert "HTTPValidationError" not in schemas
        assert schemas["Account"]["properties"]["user"]["examples"]
        for group in GROUPS:
            for body in group.BODIES:
                assert schemas[body.__name__]["examples"], body
        for name, example in EXAMPLES.items():
            rooms = (schemas_consents, schemas_models, forms, plain)
            form = next(getattr(room, name) for room in rooms if hasattr(room, name))
            form.model_validate_json(json.dumps(example))
            assert schemas[name]["examples"] == [example]
        referred = set(json.dumps(document).split('"#/components/schemas/')[1:])
        assert {one.split('"')[0] for one in referred} <= set(schemas)

    served(tmp_path, test)


def test_too_many_at_a_time_and_too_often_are_told_when_to_come_back(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        answers = [await client.post("/v1/recommend", json={"persons": [account()]}) for _ in range(30)]
        statuses = [answer.status_code for answer in answers]
        assert 5 <= statuses.count(200) <= 8
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/readyz")).status_code == 200, "health has no limit"
        await asyncio.sleep(1.1)
        object.__setattr__(service.settings, "in_flight", 0)
        full = await client.post("/v1/recommend", json={"persons": [account()]})
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        assert (await client.get("/readyz")).status_code == 200
        object.__setattr__(service.settings, "in_flight", 10)
        service.doors.draining = True
        ending = await client.post("/v1/recommend", json={"persons": [account()]})
        assert (ending.status_code, ending.headers["connection"]) == (200, "close")
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200

    served(tmp_path, test, rate=1.0, burst=5)


def test_two_services_cannot_share_a_folder_and_others_need_a_key(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path):
            with pytest.raises(IsthmusError, match="another service"):
                Service.open(Places(tmp_path, {"default": models() / "first"}), ServiceSettings())

    asyncio.run(run())
    with pytest.raises(IsthmusError, match="there is no key"):
        Service.open(Places(tmp_path, {"default": models() / "first"}), ServiceSettings(host="0.0.0.0"))
    with pytest.raises(IsthmusError, match="nothing: no such folder"):
        Service.open(Places(tmp_path, {"default": models() / "nothing"}), ServiceSettings())
