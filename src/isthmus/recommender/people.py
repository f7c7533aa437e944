"""Who is known, and what each person did."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import polars as pl

from isthmus.data.pseudonyms import Pseudonyms, hide
from isthmus.errors import DataError, NotFoundError, nearest
from isthmus.recommender.consents import empty_consents
from isthmus.split.temporal import TEST, Split
from isthmus.types import EVENT_WEIGHTS, EVENTS


@dataclass(frozen=True)
class People:
    """Accounts and histories.

    Parameters
    ----------
    accounts : polars.DataFrame
        platform, user, person (u32), name: the person's external name. Without the column ``name`` (models of format
        1) a person is called like its first account, ``PLATFORM:USER``.
    events : polars.DataFrame
        person, item, event, weight, ts: the taste events known, sorted by person and time. Where there is something
        to say also value, as it was sent, and account: the row of ``accounts`` the event is of, for people with several
        on one platform.
    consents : polars.DataFrame
        What people said about the use of their events; see :mod:`isthmus.recommender.consents`.
    pseudonyms : Pseudonyms, optional
        What made the names of ``accounts``; whoever is asked for may be called by either name then.
    """

    accounts: pl.DataFrame
    events: pl.DataFrame
    consents: pl.DataFrame = field(default_factory=empty_consents)
    pseudonyms: Pseudonyms | None = None

    def __post_init__(self) -> None:
        """Name persons whose name is not known."""
        if "name" not in self.accounts.columns:
            named = self.accounts.with_columns(name=_account().min().over("person"))
            object.__setattr__(self, "accounts", named)

    @classmethod
    def of(cls, split: Split) -> People:
        """Return everybody of a split with any event, and all events but those of the test part."""
        corpus = split.corpus
        persons = pl.DataFrame({"person": corpus.persons}).with_row_index("index")  # the place is the number
        active = corpus.identities.join(corpus.events, on=["platform", "user"], how="semi")
        here = corpus.identities.join(active, on="person", how="semi", maintain_order="left")
        accounts = here.join(persons, on="person", maintain_order="left")
        accounts = accounts.select("platform", "user", person="index", name="person")
        known = split.known(TEST).select("person", "item", "event", "weight", "ts", "value")
        if known["value"].null_count() == known.height:
            known = known.drop("value")
        return cls(accounts, _with_account(known, accounts, split), pseudonyms=corpus.pseudonyms)

    def hidden(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return a table (platform, user) with its users called as in :attr:`accounts`."""
        return hide(table, self.pseudonyms)

    def find(self, users: pl.DataFrame) -> pl.DataFrame:
        """Return platform, user, person, name of the accounts asked for; those never seen are persons of their own."""
        lacking = {"platform", "user"} - set(users.columns)
        if lacking:
            raise DataError(f"lacks column(s) {', '.join(sorted(lacking))}", where="users", fix="give platform, user")
        asked = users.select(pl.col("platform", "user").cast(pl.String)).unique(maintain_order=True)
        known = asked.with_columns(as_known=self.hidden(asked)["user"])
        accounts = self.accounts.rename({"user": "as_known"})
        found = known.join(accounts, on=["platform", "as_known"], how="left", maintain_order="left").drop("as_known")
        first = self._persons()
        unknown = found["person"].is_null()
        numbers = (unknown.cum_sum() - 1 + first).cast(pl.UInt32)
        return found.with_columns(
            person=pl.when(unknown).then(numbers).otherwise(pl.col("person")), name=pl.col("name").fill_null(_account())
        )

    def person(self, name: str) -> pl.DataFrame:
        """Return the accounts of the person called ``name``: platform, user, person, name.

        Raises
        ------
        NotFoundError
            Nobody has that name.
        """
        known = name if self.pseudonyms is None else self.pseudonyms.person(name)
        found = self.accounts.filter(pl.col("name") == known)
        if found.is_empty():
            hint = nearest(name, self.accounts["name"].unique().sort().head(10_000).to_list())
            raise NotFoundError(f"no person '{name}'{hint}", where="accounts", fix="or name an account: PLATFORM:USER")
        return found

    def _persons(self) -> int:
        """Return the first person number that nobody has."""
        biggest = self.accounts["person"].max()
        return int(biggest) + 1 if isinstance(biggest, int) else 0

    def after(self, events: pl.DataFrame, items: pl.DataFrame) -> People:
        """Return everybody after some more events, given in order; events on unknown items are an error."""
        lacking = {"platform", "user", "item"} - set(events.columns)
        if lacking:
            raise DataError(f"lacks column(s) {', '.join(sorted(lacking))}", where="events")
        names = pl.col("platform", "user", "item").cast(pl.String)
        kind = pl.col("event") if "event" in events.columns else pl.lit("click")
        weights = pl.DataFrame({"event": list(EVENT_WEIGHTS), "weight": list(EVENT_WEIGHTS.values())})
        given = self.hidden(events.select(names, event=kind)).join(
            weights, on="event", how="left", maintain_order="left"
        )
        if given["weight"].null_count():
            raise DataError("an event word is unknown", where="events", fix=f"use {', '.join(EVENT_WEIGHTS)}")
        index = items.select("platform", "item").with_row_index("index")
        given = given.join(index, on=["platform", "item"], how="left", maintain_order="left")
        if given["index"].null_count():
            first = given.filter(pl.col("index").is_null()).row(0, named=True)
            raise NotFoundError(
                f"no item '{first['platform']}:{first['item']}'", where="events", fix="add the item first"
            )
        accounts = self.find(given)
        grown = pl.concat([self.accounts, accounts]).unique(["platform", "user"], keep="first", maintain_order=True)
        latest = self.events["ts"].max()
        rows = given.filter(pl.col("weight") > 0).join(accounts, on=["platform", "user"], maintain_order="left")
        added = rows.select(
            "person",
            item=pl.col("index").cast(self.events.schema["item"]),
            event=pl.col("event").replace_strict(EVENTS, range(len(EVENTS)), return_dtype=pl.UInt8),
            weight=pl.col("weight").cast(pl.Float32),
            ts=pl.lit(latest).cast(self.events.schema["ts"]) + pl.duration(seconds=pl.int_range(1, pl.len() + 1)),
        )
        together = pl.concat([self.events, added], how="diagonal").sort("person", "ts", maintain_order=True)
        return replace(self, accounts=grown, events=together)


def _with_account(known: pl.DataFrame, accounts: pl.DataFrame, split: Split) -> pl.DataFrame:
    """Return events with the account of those whose person has several on the platform."""
    several = accounts.with_row_index("account").filter(pl.len().over("person", "platform") > 1)
    if several.is_empty():
        return known
    codes = pl.DataFrame({"event": EVENTS, "code": range(len(EVENTS))}, schema_overrides={"code": pl.UInt8})
    items = split.corpus.items.select("platform", "item").with_row_index("index")
    key = ["person", "item", "event", "ts"]
    nth = pl.int_range(pl.len()).over(key).alias("nth")  # two accounts may do the same at the same time
    mine = (
        split.corpus.events.join(several, on=["platform", "user"], maintain_order="left")
        .join(items, on=["platform", "item"], maintain_order="left")
        .join(codes, on="event", maintain_order="left")
        .select("person", "ts", "account", item="index", event="code")
        .with_columns(nth)
    )
    return known.with_columns(nth).join(mine, on=[*key, "nth"], how="left", maintain_order="left").drop("nth")


def _account() -> pl.Expr:
    """Return ``PLATFORM:USER``."""
    return pl.concat_str("platform", "user", separator=":")
