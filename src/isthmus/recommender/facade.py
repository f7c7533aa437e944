"""The recommender: fit, save, open, recommend, find similar items, add new ones; external ids in and out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.encode.modalities import Knowledge
from isthmus.errors import InputError, NotFoundError, nearest
from isthmus.evaluate.ranks import top_k
from isthmus.files import Json
from isthmus.model.base import Features
from isthmus.recommender import store
from isthmus.recommender.declared import Declared, declare
from isthmus.recommender.items import with_items
from isthmus.recommender.listing import Lister, Rules
from isthmus.recommender.newcomers import Told
from isthmus.recommender.people import People
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.recommender.store import Content
from isthmus.split.temporal import TRAIN, VALID, Split
from isthmus.train.fit import FitSettings, Target, fit_target
from isthmus.transfer.zero import fit_unseen, is_unseen
from isthmus.types import Floats

#: Methods that say nothing about what an item is like.
NOT_ABOUT_ITEMS = ("popularity", "recent")


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
    content : Content
        What was learned, the items, everybody's history.
    """

    def __init__(self, content: Content) -> None:
        self.content = content

    @property
    def targets(self) -> dict[str, Target]:
        """What was learned for each domain."""
        return self.content.targets

    @property
    def items(self) -> pl.DataFrame:
        """The items table; the row is the item's index."""
        return self.content.items

    @property
    def features(self) -> Features:
        """What the items' texts say."""
        return self.content.features

    @property
    def card(self) -> Json:
        """Data fingerprint, protocol, settings."""
        return self.content.card

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

        The rules of the corpus are kept by every list, and change nothing that is learned.

        Raises
        ------
        InputError
            An unknown domain or method, or nothing to learn from.
        """
        settings = settings or FitSettings()
        wanted = [split.corpus.require_domain(name) for name in targets] if targets else _with_validation(split)
        readers = Readers(
            vocabulary(split),
            model,
            vectors=bool({"text", "sequence", "fused"} & set(settings.methods)),
            texts="language" in settings.methods,
            knowledge=Knowledge.of(split.corpus, settings.methods),
        )
        features = readers.read(split.corpus.items)
        fitted = {
            domain: (fit_unseen if settings.settings and is_unseen(split, domain) else fit_target)(
                split, domain, features, settings
            )
            for domain in wanted
        }
        card: Json = {
            "fingerprint": split.corpus.fingerprint,
            "corpus": split.corpus.name,
            "protocol": split.card,
            "seed": settings.seed,
            "refit": settings.refit,
            "budget": settings.budget,
        }
        content = Content(fitted, split.corpus.items, People.of(split), readers, features, card)
        corpus = split.corpus
        return cls(declare(content, Declared.of(corpus.rules, corpus.links)) if corpus.rules.height else content)

    @classmethod
    def open(cls, path: str | Path) -> Recommender:
        """Return the recommender in folder ``path``.

        Raises
        ------
        ArtefactError
            No model there, a file is missing or was changed, or it has another format version.
        """
        return cls(store.read(Path(path)))

    def save(self, path: str | Path) -> Recommender:
        """Write the recommender to folder ``path``, whole or not at all; return self."""
        store.write(self.content, Path(path))
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
        rules: Rules | None = None,
    ) -> pl.DataFrame:
        """Return a list of ``k`` items for each account and domain.

        Parameters
        ----------
        users : polars.DataFrame, optional
            Columns platform, user; everybody with any event by default. Accounts never seen before get the list of
            a person without history. Further columns tell attributes and the moment to
            :func:`~isthmus.recommender.newcomers.with_segments`.
        target : str, optional
            One domain; all domains of the model by default.
        k : int
            Length of each list.
        exclude_seen : bool
            Whether items of the person's history are left out.
        events : polars.DataFrame, optional
            What happened since: columns platform, user, item and, optional, event and ts. Newer than all that is
            known, in the order given; of persons known or new. Nothing is learned again.
        rules : Rules, optional
            Consents, one edition of a work, lists by platform, calibration, exploring. What people forbade in the
            model's consents holds in any case.

        Returns
        -------
        polars.DataFrame
            platform, user (as they came in), domain, item, rank (from 1), score, item_platform (where the item is);
            best first.
        """
        if k < 1:
            raise InputError(f"k = {k}", fix="ask for at least one item")
        people = self.content.people if events is None else self.content.people.after(events, self.items)
        accounts = people.accounts if users is None else people.find(users)
        persons = accounts["person"].unique().sort().to_numpy().astype(np.int64)
        domains = [self._target(target).domain] if target is not None else sorted(self.targets)
        lister = Lister(self.content, people, rules or Rules(), k=k, exclude_seen=exclude_seen, domains=domains)
        mine = people.accounts.join(accounts, on="person", how="semi")
        lister.told = Told.of(self.content.newcomers, pl.concat([accounts, mine]), users)
        lists = lister.lists(persons)
        where = self.items.select("item", item_platform="platform")[lists["index"]]
        order = ["platform", "user", "domain", *(["item_platform"] if lister.rules.by_platform else []), "rank"]
        return (
            accounts.join(lists.hstack(where), on="person", how="inner", maintain_order="left_right")
            .sort(order, maintain_order=True)
            .select("platform", "user", "domain", "item", "rank", "score", "item_platform")
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
            An item is known already, or given twice.
        NotFoundError
            No known item is in the domain of a new one.
        """
        return Recommender(with_items(self.content, items))

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

    def _named(self, target: Target, top: np.ndarray, scores: Floats) -> pl.DataFrame:
        """Return one row a listed item: row, rank, score, domain and the item's platform, id and title."""
        rows, places = np.nonzero(top >= 0)
        columns = top[rows, places]
        named: pl.DataFrame = self.items.select("platform", "item", "title")[target.items[columns]]
        return named.with_columns(
            row=pl.Series(rows, dtype=pl.Int64),
            rank=pl.Series(places + 1, dtype=pl.Int32),
            score=pl.Series(scores[rows, columns], dtype=pl.Float32),
            domain=pl.lit(target.domain),
        )


def _with_validation(split: Split) -> list[str]:
    """Return the domains that have both training and validation events."""
    domain = split.corpus.items["domain"]
    parts = split.events.select("part", domain=domain.gather(split.events["item"])).unique()
    sets = [set(parts.filter(pl.col("part") == part)["domain"].to_list()) for part in (VALID, TRAIN)]
    found = sorted(sets[0] & sets[1])
    if not found:
        raise InputError("no domain has training and validation events", where=split.corpus.name)
    return found
