"""Every operation of the service, and what a key needs for it: what is not here cannot be called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked for.

    Parameters
    ----------
    name : str
        What logs and metrics call it.
    method, path : str
        As in the OpenAPI document.
    scope : str
        What a key needs; empty if no key is needed.
    open : bool
        Whether it is answered without a limit of number and rate.
    page : bool
        Whether it is a part of the console: a browser shows it.
    look : bool
        Whether it only looks at the service for the console: no traffic of clients.
    """

    name: str
    method: str
    path: str
    scope: str
    open: bool = False
    page: bool = False
    look: bool = False


OPERATIONS: Final = (
    Operation("livez", "GET", "/livez", "", open=True),
    Operation("readyz", "GET", "/readyz", "", open=True),
    Operation("v2_live", "GET", "/v2/health/live", "", open=True),
    Operation("v2_ready", "GET", "/v2/health/ready", "", open=True),
    Operation("metrics", "GET", "/metrics", "metrics", open=True),
    Operation("drift", "GET", "/v1/drift", "metrics", look=True),
    Operation("openapi", "GET", "/openapi.json", ""),
    Operation("events", "POST", "/v1/events", "events"),
    Operation("recommend", "POST", "/v1/recommend", "recommend"),
    Operation("similar", "POST", "/v1/similar", "recommend"),
    Operation("explain", "POST", "/v1/explain", "recommend"),
    Operation("items_put", "PUT", "/v1/items", "items"),
    Operation("items_delete", "DELETE", "/v1/items/{item}", "items"),
    Operation("persons_export", "GET", "/v1/persons/{person}", "persons"),
    Operation("persons_erase", "DELETE", "/v1/persons/{person}", "persons"),
    Operation("consents", "GET", "/v1/consents/{person}", "consents"),
    Operation("consents_put", "PUT", "/v1/consents/{person}", "consents"),
    Operation("models", "GET", "/v1/models", "models"),
    Operation("models_activate", "POST", "/v1/models/{name}/activate", "models"),
    Operation("models_rollback", "POST", "/v1/models/rollback", "models"),
    Operation("models_check", "POST", "/v1/models/{name}/check", "models"),
    Operation("models_promote", "POST", "/v1/models/{name}/promote", "models"),
    Operation("models_canary", "POST", "/v1/models/{name}/canary", "models"),
    Operation("models_canary_end", "DELETE", "/v1/models/{name}/canary", "models"),
    Operation("models_shadow", "POST", "/v1/models/{name}/shadow", "models"),
    Operation("models_shadow_end", "DELETE", "/v1/models/{name}/shadow", "models"),
    Operation("console", "GET", "/console", "", open=True, page=True),
    Operation("console_file", "GET", "/console/{file}", "", open=True, page=True),
    Operation("access", "GET", "/v1/access", ""),
    Operation("overview", "GET", "/v1/overview", "metrics", look=True),
    Operation("audit", "GET", "/v1/audit", "audit", look=True),
    Operation("compare", "POST", "/v1/compare", "console", look=True),
    Operation("items_find", "GET", "/v1/items", "items", look=True),
    Operation("items_get", "GET", "/v1/items/{item}", "items", look=True),
    Operation("models_report", "GET", "/v1/models/{name}/report", "models", look=True),
)
_EXACT: Final = {(one.method, one.path): one for one in OPERATIONS if "{" not in one.path}
_OPEN_ENDED: Final = [one for one in OPERATIONS if "{" in one.path]


def find(method: str, path: str) -> Operation | None:
    """Return the operation of a request, None if there is no such path or method.

    Examples
    --------
    >>> find("DELETE", "/v1/persons/shop:a/b").name, find("POST", "/v1/persons/shop:a")
    ('persons_erase', None)
    """
    found = _EXACT.get((method, path))
    if found is not None:
        return found
    for one in _OPEN_ENDED:
        start, _, end = one.path.partition("{")
        end = end.partition("}")[2]
        if one.method == method and path.startswith(start) and path.endswith(end) and len(path) > len(start + end):
            return one
    return None


def methods(path: str) -> list[str]:
    """Return the methods a path has.

    Examples
    --------
    >>> methods("/v1/persons/shop:a")
    ['DELETE', 'GET']
    """
    return sorted(method for method in {one.method for one in OPERATIONS} if find(method, path))
