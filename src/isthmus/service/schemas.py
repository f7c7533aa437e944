"""What requests and answers look like; unknown fields are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from isthmus.types import EventName

#: Lists, events and items of one request, at most.
BATCH: Final = 1000
#: Places in all lists of one request, at most.
PLACES: Final = 100_000
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Platform = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^:]*$")]
Text = Annotated[str, StringConstraints(max_length=100_000)]


def _whole(value: object) -> object:
    """Let 4.0 be a whole number, as JSON has it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: object) -> object:
    """Refuse times that are no text, or a mere number."""
    if not isinstance(value, str) or value[4:5] != "-":
        raise ValueError("is no time as in RFC 3339")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
When = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_text)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Account(_Body):
    """A user of a platform."""

    platform: Platform = Field(examples=["shop"])
    user: Name = Field(examples=["u17"])


class ItemName(_Body):
    """An item of a platform."""

    platform: Platform = Field(examples=["shop"])
    item: Name = Field(examples=["b3"])


class EventIn(_Body):
    """Something that happened. With ``id`` or ``ts`` it can be sent again without being counted twice."""

    platform: Platform = Field(examples=["shop"])
    user: Name = Field(examples=["u17"])
    item: Name = Field(examples=["b3"])
    event: EventName = Field(default="click", examples=["purchase"])
    value: float | None = Field(default=None, description="Rating, seconds.")
    ts: When | None = Field(default=None, description="When; now if not given.")
    id: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        default=None, description="Unique in a tenant; made from the rest if not given.", examples=["order-5-1"]
    )

    @model_validator(mode="after")
    def _of_our_time(self) -> Self:
        if self.ts is not None and not _EARLIEST <= self.ts < _LATEST:
            raise ValueError("ts is not between 1970 and 2200")
        return self


class EventsIn(_Body):
    """Events, in any order."""

    events: list[EventIn] = Field(min_length=1, max_length=BATCH)


class _Answer(_Body):
    model: str
    model_version: str
    data_version: int = Field(description="Number of the newest record of the log that counts.")


class EventsOut(_Answer):
    """On disk, and counted in every list from now on."""

    accepted: int = Field(description="Events that are new.")
    ids: list[str] = Field(description="Id of each event of the request.")
    duplicates: list[str] = Field(description="Ids that were known already.")
    conflicts: list[str] = Field(description="Those of them that said something else then; that stays.")
    unknown: list[str] = Field(description="Ids of events on unknown items: they count once the item is put.")


class FiltersIn(_Body):
    """Which items may be listed; each list is one of these."""

    platforms: list[Platform] = Field(default=[], max_length=100)
    categories: list[Name] = Field(default=[], max_length=100)
    langs: list[Name] = Field(default=[], max_length=100)


class MetIn(ItemName):
    """An item a person met just now."""

    event: EventName = Field(default="click", examples=["click"])


class RecommendIn(_Body):
    """Lists for some accounts; accounts never seen get the list of somebody without history."""

    persons: list[Account] = Field(min_length=1, max_length=BATCH)
    target: Name | None = Field(default=None, description="One domain; all domains of the model if not given.")
    k: Whole = Field(default=10, ge=1, le=1000, description="Length of each list.")
    exclude_seen: bool = Field(default=True, description="Whether items of the history are left out.")
    exclude: list[ItemName] = Field(default=[], max_length=BATCH, description="Other items left out.")
    filters: FiltersIn | None = None
    context: list[MetIn] = Field(
        default=[],
        max_length=100,
        description="What the person met just now, the newest last: it counts in these lists as events would, and is"
        " not kept. Items that are not known are passed over. One person only.",
    )
    scores: bool = Field(default=False, description="Whether scores are shown, to four digits.")
    reasons: Whole = Field(default=0, ge=0, le=5, description="Items of the history named for each; one person only.")

    @model_validator(mode="after")
    def _not_too_much(self) -> Self:
        if len(self.persons) * self.k > PLACES:
            raise ValueError(f"more than {PLACES} places in all lists")
        if self.reasons and len(self.persons) > 1:
            raise ValueError("reasons are given for one person at a time")
        if self.context and len(self.persons) > 1:
            raise ValueError("context is of one person at a time")
        return self


class Evidence(_Body):
    """An item of the history, and what the score would lack without it."""

    platform: str
    item: str
    title: str | None
    domain: str
    contribution: float = Field(description="Score less the score without this item.")
    phrases: list[str] | None = Field(
        default=None, description="What its text and that of the item explained both say; in explanations only."
    )


class Listed(_Body):
    """One place of a list."""

    platform: str
    item: str
    title: str | None
    score: float | None = None
    reasons: list[Evidence] | None = Field(
        default=None, description="Where they were asked for, and there was time for them."
    )


class ListOut(_Body):
    """One list, best first."""

    platform: str
    user: str
    domain: str
    layer: Literal["model", "cached", "popular"] = Field(
        description="model: fresh; cached: an older list of this person; popular: the list of somebody unknown."
    )
    items: list[Listed]
    model: str | None = Field(default=None, description="Who made it, where it is not the model of the answer.")
    model_version: str | None = None


class _Read(_Answer):
    degraded: bool = Field(description="Whether the answer is less than it could be.")
    degraded_by: list[str] = Field(
        description="By what: lists of a cheaper layer; no time for reasons; the log is away, so that the newest events"
        " may lack, in the words of /readyz."
    )


class RecommendOut(_Read):
    """Lists in the order of the accounts, domain by domain."""

    lists: list[ListOut]


class SimilarIn(_Body):
    """What goes with an item."""

    platform: Platform = Field(examples=["shop"])
    item: Name = Field(examples=["b3"])
    target: Name | None = None
    k: Whole = Field(default=10, ge=1, le=1000)


class SimilarList(_Body):
    """Items of one domain, best first."""

    domain: str
    items: list[Listed]


class SimilarOut(_Read):
    """One list a domain."""

    lists: list[SimilarList]


class ExplainIn(_Body):
    """Why an item is, or would be, listed for somebody."""

    platform: Platform = Field(examples=["shop"])
    user: Name = Field(examples=["u17"])
    item: ItemName
    most: Whole = Field(default=10, ge=1, le=100, description="Items of the history named, at most.")


class Faithful(_Body):
    """How far the strongest evidence alone accounts for what the history does to the score."""

    of: int = Field(description="Pieces of evidence judged: the strongest, to three, that move the score as all do.")
    comprehensiveness: float = Field(description="Share of the history's effect that is gone without them.")
    sufficiency: float = Field(description="Share of the history's effect that they alone have.")


class ExplainOut(_Read):
    """The score, and what each item of the history gives to it (measured by leaving it out)."""

    item: Listed
    domain: str
    score: float
    score_without_history: float
    evidence: list[Evidence]
    faithfulness: Faithful | None = Field(description="Null without evidence, or where the history does nothing.")


class ItemIn(_Body):
    """An item; what is not said is empty."""

    platform: Platform = Field(examples=["shop"])
    item: Name = Field(examples=["b99"])
    domain: Name = Field(examples=["books"])
    title: Text | None = Field(default=None, examples=["The sea at night"])
    text: Text | None = None
    categories: list[Name] | None = Field(default=None, max_length=100)
    attributes: Text | None = Field(default=None, description="JSON text.")
    lang: Name | None = None
    available_from: When | None = None
    available_until: When | None = None


class ItemsIn(_Body):
    """Items to be known from now on."""

    items: list[ItemIn] = Field(min_length=1, max_length=BATCH)


class ItemsOut(_Answer):
    """Items that can be listed now."""

    written: int
    unchanged: int


class RemovedOut(_Answer):
    """An item that is off the lists; histories still hold it."""

    removed: bool = Field(description="False if it was off the lists already.")


class Deed(_Body):
    """An event as it was sent."""

    id: str
    platform: str
    user: str
    item: str
    event: str
    value: float | None
    ts: AwareDatetime


class ConsentOut(_Body):
    """Something a person said: to the service, or as the model knows it."""

    from_platform: str
    to_platform: str
    allowed: bool
    account: Account | None = Field(description="Who said it; null if the model knows it.")
    ts: AwareDatetime | None


class PersonOut(_Read):
    """All that is known of a person on the platforms the key may ask for."""

    accounts: list[Account]
    events: list[Deed] = Field(description="Events of the log; they can be sent to /v1/events as they are.")
    model_history: list[Deed] = Field(
        description="What only the model knows; it keeps no ids, so these have the id an event sent without one gets."
    )
    consents: list[ConsentOut] = Field(description="What was said about the use of events.")


class ErasedOut(_Answer):
    """A receipt."""

    receipt: str = Field(description="Digest of what was erased, when, and where in the log.")
    accounts: int
    events: int
    sealed: int = Field(description="Events taken out of sealed segments.")
    wiped: bool = Field(
        description="Whether no byte of them is left in the service's files. Nothing uses them any more if not, but a"
        " reader, a backup or a full disk held them; it is tried again, also after a restart, until it is done."
    )
    model_holds_history: bool = Field(
        description="Whether the model's folder still holds this history, unused: fit it again without."
    )


class Health(_Body):
    """How the service is."""

    status: Literal["ok", "draining", "unready"]
    reasons: list[str] = Field(default=[], description="Why requests should go elsewhere.")
    degraded: list[str] = Field(default=[], description="What is done in a simpler way just now.")


class LiveOut(_Body):
    """Whether the process runs, as KServe asks."""

    live: bool


class ReadyOut(_Body):
    """Whether requests should be sent here, as KServe asks."""

    ready: bool


class ProblemOut(_Body):
    """Every error of the service (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    where: str
    fix: str
    request_id: str
