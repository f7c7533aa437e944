"""A typed client over httpx: tries again what may be tried again, and turns problems into one error."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Literal, Self, cast
from urllib.parse import quote

import httpx

from isthmus.client.answers import (
    Account,
    Consent,
    Consents,
    Event,
    Item,
    Listed,
    Lists,
    Place,
    Reason,
    Receipt,
    Wishes,
)
from isthmus.client.rollout import Rollout
from isthmus.errors import InputError, IsthmusError

Json = dict[str, object]
#: Answers after which the same request may be sent again.
AGAIN: Final = (429, 503)
#: Seconds that are waited at most before a request is sent again; who is to wait longer is told so at once.
PATIENCE: Final = 10.0


class ServiceError(IsthmusError):
    """The service refused, failed or could not be reached.

    Attributes
    ----------
    status : int
        HTTP status; 0 if there was no answer.
    request_id : str
        Id of the request, for the operator.
    """

    def __init__(self, what: str, *, status: int = 0, fix: str = "", where: str = "", request_id: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.status, self.request_id = status, request_id


class Client:
    """A connection to the service; close it, or use it in a ``with`` statement.

    Parameters
    ----------
    url : str
        Address, such as ``http://127.0.0.1:8080``.
    key : str, optional
        The key, if the service needs one.
    timeout : float
        Seconds for one answer.
    tries : int
        How often a request is sent, at most. Events carry ids, so that none counts twice; a change of the model that
        answers and an erasure are not sent again once they may have been taken.
    transport : httpx.BaseTransport, optional
        Another way to the service, for tests.

    Raises
    ------
    InputError
        ``url`` begins with neither ``http://`` nor ``https://``.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        tries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError("is no address of a service", where=url, fix="write http://127.0.0.1:8080")
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._tries = tries

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def send(self, events: Sequence[Event], *, traceparent: str = "") -> Receipt:
        """Return when the service has ``events`` on disk; the next list counts them.

        ``traceparent`` names the trace (W3C) that the request is part of, if any.

        Raises
        ------
        ServiceError
            They were refused, or there is no answer after all tries.
        """
        named = [event if event.id else replace(event, id=uuid.uuid4().hex) for event in events]
        body: Json = {"events": [_plain(asdict(event)) for event in named]}
        said = self._ask("POST", "/v1/events", body, {"traceparent": traceparent} if traceparent else None)
        names = ("ids", "duplicates", "conflicts", "unknown")
        ids, duplicates, conflicts, unknown = (tuple(cast("list[str]", said.get(name, []))) for name in names)
        version = _whole(said["data_version"])
        return Receipt(_whole(said["accepted"]), ids, duplicates, conflicts, version, unknown, *_model(said))

    def recommend(
        self,
        persons: Sequence[Account],
        *,
        target: str | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        scores: bool = False,
        wishes: Wishes | None = None,
    ) -> Lists:
        """Return lists for accounts (platform, user): one for each domain, or of ``target`` only.

        Raises
        ------
        InputError
            ``persons`` is no list of pairs.
        ServiceError
            The service refused, or there is no answer after all tries.
        """
        body: Json = {
            "persons": _accounts(persons),
            "target": target,
            "k": k,
            "exclude_seen": exclude_seen,
            "scores": scores,
            **({} if wishes is None else _wished(wishes)),
        }
        said = self._ask("POST", "/v1/recommend", body)
        lists = tuple(_listed(one) for one in cast("list[Json]", said["lists"]))
        why = tuple(cast("list[str]", said.get("degraded_by", [])))
        return Lists(lists, *_model(said), _whole(said["data_version"]), bool(said["degraded"]), why)

    def similar(self, platform: str, item: str, *, k: int = 10) -> dict[str, tuple[Place, ...]]:
        """Return what goes with an item, by domain."""
        said = self._ask("POST", "/v1/similar", {"platform": platform, "item": item, "k": k})
        lists = cast("list[Json]", said["lists"])
        return {str(one["domain"]): _places(one["items"]) for one in lists}

    def explain(self, account: Account, item: tuple[str, str]) -> Json:
        """Return what an account's history gives to the score of an item."""
        wanted = {"platform": item[0], "item": item[1]}
        return self._ask("POST", "/v1/explain", {"platform": account[0], "user": account[1], "item": wanted})

    def put_items(self, items: Sequence[Item]) -> int:
        """Make items known; return how many were written. They can be listed then."""
        said = self._ask("PUT", "/v1/items", {"items": [_plain(asdict(item)) for item in items]})
        return _whole(said["written"])

    def remove_item(self, platform: str, item: str) -> bool:
        """Take an item off all lists; return whether it was on them."""
        return bool(self._ask("DELETE", f"/v1/items/{quote(f'{platform}:{item}', safe='')}")["removed"])

    def export_person(self, account: Account) -> Json:
        """Return all that is known of a person."""
        return self._ask("GET", f"/v1/persons/{quote(':'.join(account), safe='')}")

    def erase_person(self, account: Account) -> Json:
        """Erase a person; return the receipt."""
        return self._ask("DELETE", f"/v1/persons/{quote(':'.join(account), safe='')}")

    def consents(self, account: Account) -> Consents:
        """Return what a person said about the use of events, and which use that leaves."""
        return _consents(self._ask("GET", f"/v1/consents/{quote(':'.join(account), safe='')}"))

    def consent(self, account: Account, said: Sequence[Consent]) -> Consents:
        """Record what a person says; return what holds now, which every list keeps to."""
        body: Json = {"consents": [asdict(one) for one in said]}
        return _consents(self._ask("PUT", f"/v1/consents/{quote(':'.join(account), safe='')}", body))

    def activate(self, model: str) -> str:
        """Let another model answer; return its version."""
        return self.rollout.activate(model)

    @property
    def rollout(self) -> Rollout:
        """Models tried beside the one that answers, and the gate they pass."""
        return Rollout(self._ask)

    def _ask(self, method: str, path: str, body: Json | None = None, headers: Mapping[str, str] | None = None) -> Json:
        failed = ServiceError("no answer")
        for left in reversed(range(self._tries)):
            wait = 0.1
            try:
                answer = self._http.request(method, path, json=body, headers=headers)
            except httpx.TransportError as error:
                fix = "see whether it runs: isthmus serve MODEL" if isinstance(error, httpx.ConnectError) else ""
                failed = ServiceError(f"no answer: {type(error).__name__}", where=str(self._http.base_url), fix=fix)
                if not (_repeatable(method, path) or isinstance(error, httpx.ConnectError)):
                    raise failed from error
            else:
                if answer.is_success:
                    return cast("Json", answer.json())
                failed = _problem(answer)
                wait = _seconds(answer.headers.get("retry-after", "0.1"))
                if answer.status_code not in AGAIN or wait > PATIENCE:
                    raise failed
            if left:
                time.sleep(wait)
        raise failed


def _repeatable(method: str, path: str) -> bool:
    """Return whether a request that may have been done does no more when it is done again.

    One more step back to an older model does, and the receipt of an erasure is given once.
    """
    return method == "GET" or not path.startswith(("/v1/models/", "/v1/persons/"))


def _seconds(said: str) -> float:
    """Return how long Retry-After says, which may be a date."""
    with suppress(ValueError):
        return float(said)
    try:
        return max(parsedate_to_datetime(said).timestamp() - time.time(), 0.0)
    except ValueError:
        return 1.0


def _accounts(persons: Sequence[Account]) -> list[Json]:
    """Return accounts as the service takes them."""
    if any(isinstance(one, str) or len(one) != 2 for one in persons):
        raise InputError("persons is no list of pairs", where="recommend", fix="write [('shop', 'u17')]")
    return [{"platform": platform, "user": user} for platform, user in persons]


def _wished(wishes: Wishes) -> Json:
    """Return wishes as the service takes them."""
    return {
        "filters": {name: list(getattr(wishes, name)) for name in ("platforms", "categories", "langs")},
        "exclude": [{"platform": platform, "item": item} for platform, item in wishes.exclude],
        "context": [{"platform": one[0], "item": one[1], "event": one[2]} for one in wishes.context],
        "reasons": wishes.reasons,
    }


def _problem(answer: httpx.Response) -> ServiceError:
    try:
        said = cast("Json", answer.json())
    except ValueError:
        said = {}
    texts = {name: str(said.get(name, "")) for name in ("fix", "where", "request_id")}
    return ServiceError(str(said.get("detail", "refused")), status=answer.status_code, **texts)


def _plain(said: Mapping[str, object]) -> Json:
    """Return what is said, without what is not; times as text."""
    kept = {name: value for name, value in said.items() if value is not None}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in kept.items()}


def _consents(said: Json) -> Consents:
    told, uses = (
        tuple(Consent(str(one["from_platform"]), str(one["to_platform"]), bool(one["allowed"])) for one in rows)
        for rows in (cast("list[Json]", said["consents"]), cast("list[Json]", said["uses"]))
    )
    return Consents(told, uses, bool(said["required"]), _whole(said["data_version"]), *_model(said))


def _model(said: Json) -> tuple[str, str]:
    """Return which model an answer is from; older services do not say it everywhere."""
    return str(said.get("model", "")), str(said.get("model_version", ""))


def _whole(number: object) -> int:
    return int(cast("int", number))


def _places(said: object) -> tuple[Place, ...]:
    rows = cast("list[dict[str, str]]", said)
    return tuple(
        Place(row["platform"], row["item"], row["title"], cast("float | None", row.get("score")), _reasons(row))
        for row in rows
    )


def _reasons(row: Mapping[str, object]) -> tuple[Reason, ...]:
    told = cast("list[dict[str, str]]", row.get("reasons") or [])
    return tuple(
        Reason(one["platform"], one["item"], one["title"], one["domain"], float(one["contribution"])) for one in told
    )


def _listed(said: Json) -> Listed:
    who = str(said["platform"]), str(said["user"]), str(said["domain"])
    layer = cast("Literal['model', 'cached', 'popular']", said["layer"])
    return Listed(*who, layer, _places(said["items"]), cast("str | None", said.get("model")))
