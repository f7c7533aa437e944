"""Every answer about data says where it comes from: model, its version, and the newest record that counts."""

from __future__ import annotations

from pathlib import Path

import httpx
from tests.small_service import account, event, item, served

from isthmus.service.core import Service

WHENCE = ("model", "model_version", "data_version")
READ = ("degraded", "degraded_by")


def test_every_answer_names_model_version_and_data(tmp_path: Path) -> None:
    person, place = f"north:{account()['user']}", "north:new"
    fresh = {"platform": "north", "item": "new", "domain": "source", "title": "The sea at night"}
    asked: list[tuple[str, str, object]] = [
        ("POST", "/v1/events", {"events": [event(1)]}),
        ("POST", "/v1/events", {"events": [event(1, id="once"), event(1, id="once")]}),
        ("PUT", "/v1/items", {"items": [fresh]}),
        ("PUT", "/v1/items", {"items": [fresh]}),
        ("GET", "/v1/items?q=sea", None),
        ("GET", f"/v1/items/{place}", None),
        ("DELETE", f"/v1/items/{place}", None),
        ("DELETE", f"/v1/items/{place}", None),
        ("POST", "/v1/recommend", {"persons": [account()], "k": 3}),
        ("POST", "/v1/similar", {**item(), "k": 3}),
        ("POST", "/v1/explain", {**account(), "item": item(3)}),
        ("POST", "/v1/compare", {"account": account()}),
        ("GET", "/v1/drift", None),
        ("GET", f"/v1/persons/{person}", None),
        ("GET", f"/v1/consents/{person}", None),
        (
            "PUT",
            f"/v1/consents/{person}",
            {"consents": [{"from_platform": "north", "to_platform": "south", "allowed": False}]},
        ),
        ("POST", "/v1/models/second/activate", None),
        ("POST", "/v1/events", {"events": [event(2)]}),
        ("DELETE", f"/v1/persons/{person}", None),
    ]

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
        named = [name for name, one in schemas.items() if "data_version" in one["properties"] and name != "Sizes"]
        assert len(named) == 13
        for name in named:
            assert set(WHENCE) <= set(schemas[name]["required"]), name
        for method, path, body in asked:
            answer = await client.request(method, path, json=body)
            said = answer.json()
            assert answer.status_code in (200, 202), (path, said)
            version = service.tenant().live.version
            assert (said["model"], said["model_version"]) == (version.name, version.digest), (method, path)
            if "activate" in path:
                continue
            assert said["data_version"] == service.tenant().live.seq > 0, (method, path)
            if method == "GET" or path in ("/v1/recommend", "/v1/similar", "/v1/explain", "/v1/compare"):
                assert [said[name] for name in READ] == [False, []], path

    served(tmp_path, test)
