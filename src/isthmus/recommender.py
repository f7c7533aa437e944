"""The recommender: fit, save, open, recommend, find similar items, add new ones; external ids in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.data.tables import conform
from isthmus.encode.store import encode_items
from isthmus.encode.template import Template
from isthmus.encode.text import TextEncoder
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.errors import DataError, InputError, NotFoundError, nearest
from isthmus.evaluate.ranks import top_k
from isthmus.files import Json
from isthmus.log import progress
from isthmus.model.base import Features
from isthmus.split.temporal import CONTEXT, TEST, VALID, Split
from isthmus.train.fit import FitSettings, Target, fit_target
from isthmus.types import EVENT_WEIGHTS, Floats, Ints

#: Persons scored at a time.
BLOCK = 512
#: Methods that say nothing about what an item is like.
NOT_ABOUT_ITEMS = ("popularity", "recent")


@dataclass(frozen=True)
class Readers:
    """What turns an item's text into features, kept with the model so that new items can be read.

    Parameters
    ----------
    tfidf : TfidfEncoder
        Vocabulary and weights, learned from items known in training.
    model : str or None
        Name or folder of the language model; None for the bundled one.
    vectors : bool
        Whether language-model vectors are used at all.
    """

    tfidf: TfidfEncoder
    model: str | None = None
    vectors: bool = True

    def read(self, items: pl.DataFrame) -> Features:
        """Return the features of ``items``, one row each; vectors come from the cache where they were made before."""
        text = self.tfidf.transform(Template().render(items).to_list())
        vectors = encode_items(items, TextEncoder(self.model)).matrix if self.vectors else None
        return Features(text, vectors)


class System:
    """A fitted target, or one of its methods, as something that can be judged."""

    def __init__(self, target: Target, *, name: str = "blend", method: str | None = None) -> None:
        self.name = name
        self._target = target
        self._method = None if method is None else next(m for m in target.methods if m.name == method)

    def score(self, histories: Histories) -> Floats:
        """Return the scores of the target items, (B, T)."""
        if self._method is not None:
            return self._method.score(histories)
        return self._target.blend.score(self._target.methods, histories, self._target.new)


class Recommender:
    """A fitted model for one or several target domains, with everybody's history.

    Attributes
    ----------
    targets : dict of str to Target
        What was learned for each domain.
    items : polars.DataFrame
        The items table; the row is the item's index.
    card : dict
        Data fingerprint, protocol, settings.
    """

    def __init__(
        self,
        targets: dict[str, Target],
        items: pl.DataFrame,
        people: People,
        readers: Readers,
        features: Features,
        card: Json,
    ) -> None:
        self.targets = targets
        self.items = items
        self.people = people
        self.readers = readers
        self.features = features
        self.card = card

    @classmethod
    def fit(
        cls,
        split: Split,
        *,
        targets: Sequence[str] | None = None,
        model: str | None = None,
        settings: FitSettings | None = None,
    ) -> Recommender:
        """Return the recommender learned from ``split``.

        Parameters
        ----------
        split : Split
            Train teaches, valid chooses; then both teach. Test is never looked at.
        targets : sequence of str, optional
            Target domains; all domains with validation events by default.
        model : str, optional
            Language model that reads the items; the bundled one by default.
        settings : FitSettings, optional
            Methods, budget, seed.

        Raises
        ------
        InputError
            An unknown domain or method, or nothing to learn from.
        """
        settings = settings or FitSettings()
        wanted = [split.corpus.require_domain(name) for name in targets] if targets else _with_validation(split)
        readers = Readers(_vocabulary(split), model, vectors="text" in settings.methods)
        features = readers.read(split.corpus.items)
        fitted = {domain: fit_target(split, domain, features, settings) for domain in wanted}
        card: Json = {
            "fingerprint": split.corpus.fingerprint,
            "corpus": split.corpus.name,
            "protocol": split.card,
            "seed": settings.seed,
            "refit": settings.refit,
            "budget": settings.budget,
        }
        return cls(fitted, split.corpus.items, People.of(split), readers, features, card)

    @classmethod
    def open(cls, path: str | Path) -> Recommender:
        """Return the recommender in folder ``path``; see :mod:`isthmus.model_store`."""
        from isthmus.model_store import read

        return read(Path(path))

    def save(self, path: str | Path) -> Recommender:
        """Write the recommender to folder ``path``, whole or not at all; return self."""
        from isthmus.model_store import write

        write(self, Path(path))
        return self

    def system(self, domain: str, method: str | None = None) -> System:
        """Return the blend of ``domain``, or one of its methods, for judging."""
        return System(self._target(domain), name=method or "blend", method=method)

    def recommend(
        self,
        users: pl.DataFrame | None = None,
        *,
        target: str | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        events: pl.DataFrame | None = None,
    ) -> pl.DataFrame:
        """Return a list of ``k`` items for each account and domain.

        Parameters
        ----------
        users : polars.DataFrame, optional
            Columns platform, user; everybody with any event by default. Accounts never seen before get the list of
            a person without history.
        target : str, optional
            One domain; all domains of the model by default.
        k : int
            Length of each list.
        exclude_seen : bool
            Whether items of the person's history are left out.
        events : polars.DataFrame, optional
            What happened since: columns platform, user, item and, optional, event and ts. Newer than all that is
            known, in the order given; of persons known or new. Nothing is learned again.

        Returns
        -------
        polars.DataFrame
            platform, user (as they came in), domain, item, rank (from 1), score; best first.
        """
        if k < 1:
            raise InputError(f"k = {k}", fix="ask for at least one item")
        people = self.people if events is None else self.people.after(events, self.items)
        accounts = people.accounts if users is None else people.find(users)
        persons = accounts["person"].unique().sort().to_numpy().astype(np.int64)
        domains = [self._target(target).domain] if target is not None else sorted(self.targets)
        lists = [self._lists(people, persons, domain, k, exclude_seen) for domain in domains]
        return (
            accounts.join(pl.concat(lists), on="person", how="inner", maintain_order="left_right")
            .sort("platform", "user", "domain", "rank", maintain_order=True)
            .select("platform", "user", "domain", "item", "rank", "score")
        )

    def similar(self, platform: str, item: str, *, k: int = 10) -> pl.DataFrame:
        """Return the ``k`` items of each target domain that go best with one item.

        The blend is asked for a person whose history is this item alone; what only says how popular an item is does
        not count.

        Returns
        -------
        polars.DataFrame
            domain, platform, item, title, score; best first.
        """
        index = self._find(platform, item)
        history = Histories.of([[index]])
        tables = []
        for domain in sorted(self.targets):
            target = self.targets[domain]
            blend = target.blend.without(NOT_ABOUT_ITEMS)
            scores = blend.score(target.methods, history, np.zeros_like(target.new))[0]
            scores[target.items == index] = -np.inf
            tables.append(self._named(target, top_k(scores[None], k), scores[None]))
        found = pl.concat(tables).sort("domain", "rank")
        return found.select("domain", "platform", "item", "title", "score")

    def add_items(self, items: pl.DataFrame) -> Recommender:
        """Return a recommender that also knows ``items`` (columns as the items table); nothing is learned again.

        New items are scored by their text from now on.

        Raises
        ------
        DataError
            An item is known already, or belongs to a domain that the model does not serve.
        """
        new = conform("items", items, where="new items")
        known = new.join(self.items, on=["platform", "item"], how="semi")
        if known.height:
            raise DataError(f"{known.height} item(s) are known already, first {known['item'][0]}", where="new items")
        read = self.readers.read(new)
        features = _stack(self.features, read)
        table = pl.concat([self.items, new])
        targets = {}
        for domain, target in self.targets.items():
            fresh = np.flatnonzero((new["domain"] == domain).to_numpy()) + self.items.height
            every = np.concatenate([target.items, fresh]).astype(np.int32)
            methods = [method.extended(features, every, table.height) for method in target.methods]
            flags = np.concatenate([target.new, np.ones(fresh.size, dtype=bool)])
            targets[domain] = replace(target, items=every, new=flags, methods=methods)
        return Recommender(targets, table, self.people, self.readers, features, self.card)

    def _target(self, domain: str) -> Target:
        if domain not in self.targets:
            known = sorted(self.targets)
            raise NotFoundError(
                f"the model has no target domain '{domain}'{nearest(domain, known)}", fix=f"domains: {', '.join(known)}"
            )
        return self.targets[domain]

    def _find(self, platform: str, item: str) -> int:
        found = np.flatnonzero(((self.items["platform"] == platform) & (self.items["item"] == item)).to_numpy())
        if found.size == 0:
            raise NotFoundError(f"no item '{platform}:{item}'", where="items", fix="write it as PLATFORM:ID")
        return int(found[0])

    def _lists(self, people: People, persons: Ints, domain: str, k: int, exclude_seen: bool) -> pl.DataFrame:
        """Return person, domain, item, rank, score for every person."""
        target = self.targets[domain]
        histories = Histories.from_frame(people.events, persons)
        tables = []
        with progress(f"recommend {domain}", persons.size) as advance:
            for start in range(0, persons.size, BLOCK):
                some = histories.take(np.arange(start, min(start + BLOCK, persons.size)))
                scores = target.blend.score(target.methods, some, target.new)
                if exclude_seen:
                    place = np.searchsorted(target.items, some.items)
                    place[place == target.items.size] = 0
                    seen = target.items[place] == some.items
                    scores[some.rows[seen], place[seen]] = -np.inf
                table = self._named(target, top_k(scores, min(k, target.items.size)), scores)
                tables.append(table.with_columns(person=pl.Series(persons).gather(table["row"] + start)))
                advance(len(some))
        return pl.concat(tables).select("person", "domain", "item", "rank", "score")

    def _named(self, target: Target, top: np.ndarray, scores: Floats) -> pl.DataFrame:
        """Return one row a listed item: row, rank, score, domain and the item's platform, id and title."""
        rows, places = np.nonzero(top >= 0)
        columns = top[rows, places]
        named = self.items.select("platform", "item", "title")[target.items[columns]]
        return named.with_columns(
            row=pl.Series(rows, dtype=pl.Int64),
            rank=pl.Series(places + 1, dtype=pl.Int32),
            score=pl.Series(scores[rows, columns], dtype=pl.Float32),
            domain=pl.lit(target.domain),
        )


@dataclass(frozen=True)
class People:
    """Accounts and histories.

    Parameters
    ----------
    accounts : polars.DataFrame
        platform, user, person (u32).
    events : polars.DataFrame
        person, item, weight, ts: the taste events known, sorted by person and time.
    """

    accounts: pl.DataFrame
    events: pl.DataFrame

    @classmethod
    def of(cls, split: Split) -> People:
        """Return everybody of a split, with all events but those of the test part."""
        corpus = split.corpus
        persons = pl.DataFrame({"person": corpus.persons}).with_row_index("index")
        accounts = corpus.identities.join(persons, on="person", maintain_order="left")
        return cls(
            accounts.select("platform", "user", person="index"),
            split.known(TEST).select("person", "item", "weight", "ts"),
        )

    def find(self, users: pl.DataFrame) -> pl.DataFrame:
        """Return platform, user, person of the accounts asked for; those never seen get persons without events."""
        lacking = {"platform", "user"} - set(users.columns)
        if lacking:
            raise DataError(f"lacks column(s) {', '.join(sorted(lacking))}", where="users", fix="give platform, user")
        asked = users.select(pl.col("platform", "user").cast(pl.String)).unique(maintain_order=True)
        found = asked.join(self.accounts, on=["platform", "user"], how="left", maintain_order="left")
        first = self._persons()
        unknown = found["person"].is_null()
        numbers = (unknown.cum_sum() - 1 + first).cast(pl.UInt32)
        return found.with_columns(person=pl.when(unknown).then(numbers).otherwise(pl.col("person")))

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
        given = events.select(names, event=kind).join(weights, on="event", how="left", maintain_order="left")
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
            weight=pl.col("weight").cast(pl.Float32),
            ts=pl.lit(latest).cast(self.events.schema["ts"]) + pl.duration(seconds=pl.int_range(1, pl.len() + 1)),
        )
        together = pl.concat([self.events, added]).sort("person", "ts", maintain_order=True)
        return People(grown, together)


def _with_validation(split: Split) -> list[str]:
    """Return the domains that have both training and validation events."""
    domain = split.corpus.items["domain"]
    parts = split.events.select("part", domain=domain.gather(split.events["item"])).unique()
    sets = [set(parts.filter(pl.col("part") == part)["domain"].to_list()) for part in (VALID, 0)]
    found = sorted(sets[0] & sets[1])
    if not found:
        raise InputError("no domain has training and validation events", where=split.corpus.name)
    return found


def _vocabulary(split: Split) -> TfidfEncoder:
    """Return the TF-IDF encoder of the texts of items with a training event."""
    met = split.events.filter((pl.col("part") < TEST) | (pl.col("part") == CONTEXT))["item"].unique().sort()
    texts = Template().render(split.corpus.items[met]).to_list()
    return TfidfEncoder.fit(texts if any(texts) else ["-"])


def _stack(old: Features, new: Features) -> Features:
    """Return the features of old items followed by those of new ones."""
    text = None if old.text is None or new.text is None else sparse.vstack([old.text, new.text], format="csr")
    vectors = None if old.vectors is None or new.vectors is None else np.concatenate([old.vectors, new.vectors])
    return Features(text, vectors)
