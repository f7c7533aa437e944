"""An example of each body and of the answers that matter most, for the OpenAPI document: a shop and a video service."""

from __future__ import annotations

from typing import Final

_SAID: Final = {"model": "model-2", "model_version": "23115a24e786", "data_version": 1204}
_READ: Final = {**_SAID, "degraded": False, "degraded_by": []}
_SHOP: Final = {"platform": "shop", "user": "u17"}
_LIGHTHOUSE: Final = {"platform": "shop", "item": "b3", "title": "The Lighthouse"}
_NIGHT: Final = {"platform": "video", "item": "f8", "title": "The sea at night"}
_WHY: Final = {**_LIGHTHOUSE, "domain": "books", "contribution": 0.4127}
_USE: Final = {"from_platform": "shop", "to_platform": "video", "allowed": False}
_WHEN: Final = "2026-03-01T18:22:05Z"
_DEED: Final = {**_SHOP, "item": "b3", "event": "purchase", "value": None, "ts": _WHEN, "id": "order-5-1"}
_TOLD: Final = {**_USE, "account": _SHOP, "ts": _WHEN}

#: By the name of the schema.
EXAMPLES: Final[dict[str, object]] = {
    "RecommendIn": {"persons": [_SHOP], "target": "films", "k": 3, "reasons": 1},
    "RecommendOut": {
        **_READ,
        "lists": [{**_SHOP, "domain": "films", "layer": "model", "items": [{**_NIGHT, "reasons": [_WHY]}]}],
    },
    "SimilarIn": {"platform": "shop", "item": "b3", "k": 3},
    "SimilarOut": {**_READ, "lists": [{"domain": "films", "items": [_NIGHT]}]},
    "ExplainIn": {**_SHOP, "item": {"platform": "video", "item": "f8"}, "most": 3},
    "ExplainOut": {
        **_READ,
        "item": _NIGHT,
        "domain": "films",
        "score": 1.2044,
        "score_without_history": 0.3107,
        "evidence": [{**_WHY, "phrases": ["storm at sea"]}],
        "faithfulness": {"of": 1, "comprehensiveness": 0.462, "sufficiency": 0.518},
    },
    "EventsIn": {"events": [{**_SHOP, "item": "b3", "event": "purchase", "id": "order-5-1"}]},
    "EventsOut": {
        **_SAID,
        "accepted": 1,
        "ids": ["order-5-1"],
        "duplicates": [],
        "conflicts": [],
        "unknown": [],
        "data_version": 1205,
    },
    "ItemsIn": {
        "items": [
            {
                "platform": "shop",
                "item": "b99",
                "domain": "books",
                "title": "The sea at night",
                "text": "A keeper writes letters through the winter.",
                "categories": ["novel"],
                "lang": "en",
            }
        ]
    },
    "ItemsOut": {**_SAID, "written": 1, "unchanged": 0, "data_version": 1206},
    "PersonOut": {**_READ, "accounts": [_SHOP], "events": [_DEED], "model_history": [], "consents": [_TOLD]},
    "ErasedOut": {
        **_SAID,
        "receipt": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        "accounts": 1,
        "events": 12,
        "sealed": 9,
        "wiped": True,
        "model_holds_history": True,
        "data_version": 1207,
    },
    "ConsentsIn": {"consents": [_USE]},
    "ConsentsOut": {**_READ, "required": False, "consents": [_TOLD], "uses": [_USE]},
    "CanaryIn": {"share": 0.1, "errors": 0.02},
    "ShadowIn": {"share": 0.2},
    "ModelsOut": {
        "active": "model-2",
        "previous": ["model"],
        "models": [
            {"name": "model", "version": "0b5c1d0e9f21", "active": False},
            {"name": "model-2", "version": "23115a24e786", "active": True},
        ],
    },
    "CompareIn": {"account": _SHOP, "target": "films", "models": ["model-2", "model"], "k": 5},
    "Health": {"status": "unready", "reasons": ["the database cannot be reached"], "degraded": []},
    "ProblemOut": {
        "type": "urn:isthmus:problem:notfound",
        "title": "not found",
        "status": 404,
        "detail": "the model has no target domain 'flims' (did you mean 'films'?)",
        "where": "",
        "fix": "domains: books, films",
        "request_id": "8e2f87082aca5fe0498042bae6397bf1",
    },
}
