"""What predicts ratings once it is learned: for any account and item, now or from a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias, cast

import numpy as np
import polars as pl

from isthmus.data.pseudonyms import Pseudonyms, hide
from isthmus.errors import DataError, InputError
from isthmus.files import Json
from isthmus.model.base import Doubles, State
from isthmus.model.bias import Bias, Constant
from isthmus.model.rating_base import RatingModel, Ratings, inner, outer
from isthmus.model.rating_blend import RatingBlend, rating_cohorts
from isthmus.model.rating_content import ContentRatings, FactorRatings
from isthmus.model.rating_knn import ResidualKnn
from isthmus.pipeline.kept import Parts, read_parts, whole_or_damaged, write_parts
from isthmus.types import Bools, Ints

KIND: Final = "ratings"
#: From persons and items (n,) to ratings (n,).
Head: TypeAlias = Callable[[Ints, Ints], Doubles]


@dataclass(frozen=True)
class Rater:
    """Fitted rating models, their blend, and what is known of people.

    Parameters
    ----------
    domain : str
        Whose items are rated.
    models : sequence of RatingModel
        Fitted, in the order of the blend.
    blend : RatingBlend
        Its weights.
    known, taught : Ratings
        What is known of people, and what was learned from.
    accounts : polars.DataFrame
        platform, user, who: the number of the person.
    items : polars.DataFrame
        platform, item, domain of every item, in the order of the numbers.
    head : callable, optional
        A trained rating head, last in the blend.
    pseudonyms : Pseudonyms, optional
        What made the names of ``accounts``.
    """

    domain: str
    models: list[RatingModel]
    blend: RatingBlend
    known: Ratings
    taught: Ratings
    accounts: pl.DataFrame
    items: pl.DataFrame
    head: Head | None = None
    pseudonyms: Pseudonyms | None = None

    def at_home(self, ratings: Ratings) -> Ratings:
        """Return the ratings of items of the domain."""
        home: Bools = (self.items["domain"] == self.domain).to_numpy()
        return ratings.keep(home[ratings.items])

    def tell(self, known: Ratings, persons: Ints, items: Ints) -> dict[str, Doubles]:
        """Return the ratings of each pair by the blend, first, and by each model, (n,) each."""
        each = [model.predict(known, persons, items) for model in self.models]
        if self.head is not None:
            each.append(self.head(persons, items))
        cohorts = rating_cohorts(self.at_home(known), self.taught, persons, items)
        table = np.column_stack(each)
        blended = self.blend.predict(table, cohorts)
        clipped = np.clip(table, *self.blend.scale)
        return {"blend": blended, **{name: clipped[:, place] for place, name in enumerate(self.blend.models)}}

    def predict(self, persons: Ints, items: Ints) -> Doubles:
        """Return the blended rating of each pair, (n,).

        Parameters
        ----------
        persons, items : int64 arrays (n,)
            Numbers of persons and items. A person beyond those known is one of whom nothing is known; an item of -1 is
            unknown, and gets what the person gives on the whole.
        """
        known = self.known
        if persons.size and persons.max() >= known.shape[0]:
            known = replace(known, shape=(int(persons.max()) + 1, known.shape[1]))
        here = items >= 0
        found = np.zeros(items.size)
        if here.any():
            found[here] = self.tell(known, persons[here], items[here])["blend"]
        bias = next(model for model in self.models if isinstance(model, Bias))
        whole = bias.mean + bias.persons(known)[persons[~here]]
        found[~here] = np.clip(whole, *self.blend.scale)
        return found

    def save(self, path: Path) -> None:
        """Write it to folder ``path``, whole or not at all.

        Raises
        ------
        InputError
            It has a rating head.
        """
        if self.head is not None:
            raise InputError("a trained rating head cannot be kept", where="--save", fix="learn without --from")
        arrays: State = {}
        entries: list[Json] = []
        for place, model in enumerate(self.models):
            arrays |= outer(str(place), model.state())
            bias: object = getattr(model, "bias", None)
            damping = dict(bias.settings) if isinstance(bias, Bias) else None
            entries.append({"kind": _kind(model), "name": model.name, "settings": model.settings, "bias": damping})
        for name, ratings in (("known", self.known), ("taught", self.taught)):
            columns = {"persons": ratings.persons, "items": ratings.items, "values": ratings.values}
            arrays |= outer(name, cast("State", columns))
        arrays |= outer("weights", cast("State", dict(self.blend.weights)))
        said: Json = {
            "domain": self.domain,
            "persons": self.known.shape[0],
            "models": entries,
            "mean": self.blend.mean,
            "scale": list(self.blend.scale),
            "pseudonyms": None if self.pseudonyms is None else self.pseudonyms.to_json(),
        }
        write_parts(path, KIND, Parts(said, arrays, {"accounts": self.accounts, "items": self.items}))

    @classmethod
    def open(cls, path: Path) -> Rater:
        """Return the rater in folder ``path``.

        Raises
        ------
        ArtefactError
            None there, or damaged.
        """
        parts = read_parts(path, KIND)
        said = parts.said
        with whole_or_damaged(path):
            shape = int(cast("int", said["persons"])), parts.tables["items"].height
            models = [
                _model(entry, inner(str(place), parts.arrays))
                for place, entry in enumerate(cast("list[Json]", said["models"]))
            ]
            low, high = cast("list[float]", said["scale"])
            weights = cast("Mapping[str, Doubles]", inner("weights", parts.arrays))
            names = tuple(model.name for model in models)
            blend = RatingBlend(names, float(cast("float", said["mean"])), weights, (low, high))
            known, taught = (_ratings(inner(name, parts.arrays), shape) for name in ("known", "taught"))
            accounts, items = parts.tables["accounts"], parts.tables["items"]
            pseudonyms = Pseudonyms.of_json(said.get("pseudonyms"))
            return cls(str(said["domain"]), models, blend, known, taught, accounts, items, pseudonyms=pseudonyms)


#: Kinds of model, the narrower first.
_KINDS: Final[dict[str, type[RatingModel]]] = {
    "mean": Constant,
    "bias": Bias,
    "knn": ResidualKnn,
    "fm": FactorRatings,
    "content": ContentRatings,
}


def _kind(model: RatingModel) -> str:
    return next(name for name, kind in _KINDS.items() if isinstance(model, kind))


def _model(entry: Json, state: State) -> RatingModel:
    """Return a model as it was when it was written."""
    kind = _KINDS[str(entry["kind"])]
    settings = cast("dict[str, float]", entry["settings"])
    bias = cast("dict[str, float] | None", entry["bias"])
    if issubclass(kind, ContentRatings):
        model: RatingModel = kind(np.zeros((0, 1)), settings, name=str(entry["name"]), bias=bias)
    elif issubclass(kind, ResidualKnn):
        model = kind(settings, bias=bias)
    else:
        model = kind(settings)
    model.restore(state)
    return model


def _ratings(state: State, shape: tuple[int, int]) -> Ratings:
    values = state["values"].astype(np.float64)
    return Ratings(state["persons"].astype(np.int64), state["items"].astype(np.int64), values, shape)


def find_pairs(rater: Rater, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the predicted rating of each account and item.

    Parameters
    ----------
    rater : Rater
        What predicts.
    pairs : polars.DataFrame
        platform, user, item; accounts and items that nobody has met are served too.

    Returns
    -------
    polars.DataFrame
        platform, user, item, rating, and ``known``: which of person and item have ratings (``both``, ``person``,
        ``item``, ``neither``).

    Raises
    ------
    DataError
        An item of another domain.
    """
    items = rater.items.with_row_index("what")
    known = pairs.with_columns(as_known=hide(pairs.select("platform", "user"), rater.pseudonyms)["user"])
    accounts = rater.accounts.rename({"user": "as_known"})
    found = known.join(accounts, on=["platform", "as_known"], how="left", maintain_order="left").drop("as_known")
    found = found.join(items, on=["platform", "item"], how="left", maintain_order="left")
    foreign = found.filter(pl.col("domain") != rater.domain)
    if foreign.height:
        first = foreign.row(0, named=True)
        raise DataError(
            f"{foreign.height} pair(s) are not of domain '{rater.domain}'",
            where=f"{first['platform']}:{first['item']}",
            fix="name items of the target only",
        )
    who = found["who"].cast(pl.Int64).fill_null(rater.known.shape[0]).to_numpy()
    what = found["what"].cast(pl.Int64).fill_null(-1).to_numpy()
    home = rater.at_home(rater.known)
    has_person = np.append(home.person_counts > 0, False)[who]
    has_item = np.append(home.item_counts > 0, False)[what]
    words = np.array(["neither", "item", "person", "both"])[2 * has_person + has_item]
    return pairs.with_columns(rating=pl.Series(rater.predict(who, what)), known=pl.Series(words))
