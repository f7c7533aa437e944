"""What the operations of the console say: forms of requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from isthmus.service.schemas import Account, ItemName, Listed, Name, _Read

#: Why an item is on no list: taken off, not available yet or any more, of a domain that the model makes no lists of.
Hidden = Literal["removed", "early", "late", "domain"]
#: Models compared at a time.
SIDES: Final = 4
#: Items of a history that are shown or pasted, at most.
SHOWN: Final = 200


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True, protected_namespaces=())


class Call(_Form):
    """An operation this service has."""

    method: str
    path: str


class AccessOut(_Form):
    """What the key of the request opens. Without keys everything is open."""

    locked: bool = Field(description="Whether the service needs a key.")
    key: str | None = Field(description="Public beginning of the key; null if it opens nothing.")
    tenant: str | None
    scopes: list[str]
    platforms: list[str] = Field(description="Platforms whose people may be asked for.")
    domains: list[str] = Field(description="Domains that lists can be asked for.")
    operations: list[Call] = Field(description="Operations of this service that the key opens.")


class Minute(_Form):
    """What happened in a minute."""

    start: int = Field(description="Seconds since 1970.")
    requests: int
    refused: int = Field(description="Answers 4xx.")
    failed: int = Field(description="Answers 5xx.")
    lists: int
    degraded: int = Field(description="Lists from a cheaper layer.")
    events: int
    p50: float | None = Field(description="Seconds.")
    p95: float | None
    p99: float | None


class Calls(_Form):
    """An operation in the last hour; durations in seconds."""

    operation: str
    calls: int
    refused: int
    failed: int
    p50: float | None
    p95: float | None
    p99: float | None


class Percentiles(_Form):
    """Seconds."""

    p50: float | None
    p95: float | None
    p99: float | None


class Sizes(_Form):
    """What there is, and what waits."""

    persons: int
    items: int
    data_version: int
    events_waiting: int = Field(description="Events that wait for the disk.")
    events_on_unknown_items: int
    lists_waiting: int
    lists_ready: int
    in_flight: int


class AlertOut(_Form):
    """Something that needs somebody's attention now."""

    of: Literal["health", "drift", "models", "privacy"] = Field(description="Page of the console that says more.")
    said: str


class OverviewOut(_Form):
    """The last hour of the process, and the sizes of the tenant."""

    now: float = Field(description="Seconds since 1970.")
    began: float
    model: str
    model_version: str
    model_loaded: float = Field(description="Seconds since 1970.")
    model_written: float | None = Field(description="When the model's folder was written; seconds since 1970.")
    minutes: list[Minute]
    operations: list[Calls]
    lists: dict[str, int] = Field(description="By layer.")
    events: dict[str, int] = Field(description="By what became of them.")
    commit: Percentiles = Field(description="From the arrival of events to the disk.")
    sizes: Sizes
    index_recall: dict[str, float | None] = Field(
        description="By large domain: recall@10 of its indices of vectors when last measured, null if none was."
    )
    alerts: list[AlertOut] = Field(
        description="Why requests should go elsewhere, what is done in a simpler way, what has drifted, a trial of a"
        " model that ended by itself within a day, a changed audit log."
    )


class CompareIn(_Form):
    """Lists of several models for one person, or for somebody with just the history given."""

    account: Account | None = Field(default=None, description="Nobody known if not given.")
    history: list[ItemName] = Field(default=[], max_length=SHOWN, description="Items met besides, oldest first.")
    without: list[ItemName] = Field(default=[], max_length=SHOWN, description="Items of the history left out.")
    models: list[Name] = Field(default=[], max_length=SIDES, description="The model that answers if none is given.")
    target: Name | None = Field(default=None, description="One domain; all domains if not given.")
    k: int = Field(default=10, ge=1, le=100)
    exclude_seen: bool = True
    scores: bool = False


class Met(_Form):
    """An item of the history."""

    platform: str
    item: str
    title: str | None
    domain: str
    event: str
    ts: datetime


class Placed(Listed):
    """One place of a list, and how it differs from the first model's list."""

    seen: bool = Field(description="Whether the item is in the history.")
    moved: int | None = Field(description="Places up from the first model's list; null if it is not in that.")


class SideList(_Form):
    """A list of one model."""

    domain: str
    shared: float | None = Field(description="Share of the items that the first model lists too.")
    items: list[Placed]


class Side(_Form):
    """What one model lists."""

    model: str
    model_version: str
    active: bool
    seconds: float = Field(description="To score and rank, without loading.")
    problem: str | None = Field(description="Why it lists nothing.")
    lists: list[SideList]


class CompareOut(_Read):
    """Lists side by side, all from the same history."""

    known: bool = Field(description="Whether the account was ever seen.")
    history: list[Met] = Field(description="What the key may see of it, the newest first.")
    events: int = Field(description="Events of the history that the key may see.")
    sides: list[Side]


class Found(_Form):
    """An item that was looked for."""

    platform: str
    item: str
    title: str | None
    domain: str


class FoundOut(_Read):
    """Items whose title or id holds the words, the first ones."""

    items: list[Found]


class Span(_Form):
    """Some of the time in which lists were looked at."""

    start: float = Field(description="Seconds since 1970.")
    lists: int
    shown: int = Field(description="Those of them that hold the item.")


class Exposure(_Form):
    """How often an item was listed of late."""

    lists: int = Field(description="Lists looked at: the newest ones.")
    shown: int = Field(description="Those of them that hold the item.")
    mean_rank: float | None
    since: float | None = Field(description="When the oldest of them was given; seconds since 1970.")
    spans: list[Span] = Field(description="The time since then in equal parts, the last one ends now.")


class ItemOut(_Read, Found):
    """What is known of an item."""

    text: str | None
    categories: list[str] | None
    attributes: str | None
    lang: str | None
    available_from: datetime | None
    available_until: datetime | None
    added: bool = Field(description="Whether it came after the model was made.")
    removed: bool = Field(description="Whether it was taken off the lists.")
    listable: bool = Field(description="Whether it can be listed now.")
    hidden: list[Hidden] = Field(description="Why nobody is shown it now; empty if it can be listed.")
    met: int | None = Field(
        description="People who had met it when the model was made, and so are shown it only where they ask for what"
        " they met too; null for fewer than 10."
    )
    exposure: Exposure


class Noted(_Form):
    """An entry of the audit log."""

    number: int
    ts: int = Field(description="Seconds since 1970.")
    actor: str
    action: str
    said: dict[str, object]
    hash: str = Field(description="Beginning of the hash that holds the entry and all before it.")


class AuditOut(_Form):
    """Entries of the audit log, the newest first."""

    intact: bool = Field(description="Whether no entry was changed or taken out, as far as was looked.")
    problem: str | None
    whole: bool = Field(
        description="Whether the whole chain was gone through for this answer; else what is shown and what is new was."
    )
    entries: int
    newest: list[Noted]
    before: int | None = Field(description="What to ask with for the entries before these; null if these are the last.")


class Estimate(_Form):
    """A figure with its 95 % interval."""

    mean: float | None
    low: float | None
    high: float | None


class Cohort(_Form):
    """Some of the people or items, and what each system reached there."""

    name: str
    of: str
    n: int
    systems: dict[str, Estimate]


class Judged(_Form):
    """One domain of a report."""

    domain: str
    metric: str
    main: str
    persons: int
    items: int
    cohorts: list[Cohort]
    verdict: str | None


class ReportOut(_Form):
    """The report that was made of a model, as far as the console shows it."""

    model: str
    report: str | None = Field(description="Folder of the report; null if there is none.")
    title: str
    created: str
    domains: list[Judged]
    weights: dict[str, dict[str, dict[str, float]]] = Field(description="Domain to cohort to method: the blend.")
