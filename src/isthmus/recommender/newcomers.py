"""People without any event: what is popular among those alike, told by attributes or by the moment of asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from isthmus.data.sequences import Histories
from isthmus.errors import InputError, nearest
from isthmus.files import Json
from isthmus.log import logger
from isthmus.model.base import Method, TrainingData
from isthmus.model.segments import MOMENTS, SegmentPopularity, account_attributes, by_person
from isthmus.recommender.lifting import SHARES, Choice, chosen, each_ndcg, mixed
from isthmus.recommender.protected import names_protected
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, TRAIN, VALID, Split
from isthmus.train.fit import Target, training_data
from isthmus.train.methods import make
from isthmus.types import Bools, Floats, Ints

if TYPE_CHECKING:
    from isthmus.recommender.facade import Recommender

#: File of the attributes of accounts in a model's folder.
USERS: Final = "segments.parquet"
_OWN: Final = ("platform", "user", "person")


@dataclass(frozen=True)
class Newcomers:
    """What a model says to people without any event, besides its blend.

    Parameters
    ----------
    by : tuple of str
        Attributes and moments that may be told.
    users : polars.DataFrame
        platform, user, and the attributes among ``by`` as text.
    segments : mapping of str to SegmentPopularity
        Popularity by segment, of each domain where it was kept.
    shares : mapping of str to float
        Its part of the score there.
    tried : dict
        What validation said of it, by domain.
    """

    by: tuple[str, ...]
    users: pl.DataFrame
    segments: Mapping[str, SegmentPopularity] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    tried: Json = field(default_factory=dict)

    def lift(self, target: Target, scores: Floats, histories: Histories, told: pl.DataFrame) -> Floats:
        """Return the blend's ``scores`` (B, T), changed for those without any event who tell a segment.

        Parameters
        ----------
        target : Target
            Whose items are scored; new ones keep what the blend says.
        scores : float32 array (B, T)
            What the blend says.
        histories : Histories
            Of the ``B`` people.
        told : polars.DataFrame
            What each of them tells, one row a person.
        """
        found = self.segments.get(target.domain)
        rows = np.flatnonzero(histories.lengths == 0)
        if found is None or not rows.size:
            return scores
        rows = rows[found.knows(told[rows])]
        if rows.size:
            own = np.zeros((rows.size, target.items.size), np.float32)
            own[:, : found.target.size] = found.said(told[rows], rows.size)
            fixed = target.new.copy()
            fixed[found.target.size :] = True
            scores[rows] = mixed(scores[rows], own, self.shares[target.domain], fixed)
        return scores

    def save(self, folder: Path) -> Json:
        """Write what was learned into a model's folder; return the rest as JSON."""
        self.users.write_parquet(folder / USERS)
        said: Json = {}
        for place, (domain, found) in enumerate(self.segments.items()):
            arrays, rest = found.state()
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / _file(place))
            said[domain] = {**rest, "file": _file(place), "share": self.shares[domain]}
        return {"by": list(self.by), "segments": said, "tried": self.tried}

    @classmethod
    def open(cls, folder: Path, said: Json | None) -> Newcomers | None:
        """Return what :meth:`save` wrote, None where nothing was."""
        if not said:
            return None
        rows = cast("dict[str, Json]", said["segments"])
        return cls(
            tuple(cast("list[str]", said["by"])),
            pl.read_parquet(folder / USERS),
            {domain: SegmentPopularity.restored(load_file(folder / str(r["file"])), r) for domain, r in rows.items()},
            {domain: float(str(row["share"])) for domain, row in rows.items()},
            cast("Json", said["tried"]),
        )


@dataclass(frozen=True)
class Told:
    """What is known of the people who are asked about.

    Parameters
    ----------
    by : tuple of str
        Attributes and moments.
    known : polars.DataFrame
        person and what the model keeps of them.
    said : polars.DataFrame
        person and what was given with the request, which comes first.
    """

    by: tuple[str, ...]
    known: pl.DataFrame
    said: pl.DataFrame

    @classmethod
    def of(cls, newcomers: Newcomers | None, accounts: pl.DataFrame, users: pl.DataFrame | None) -> Told | None:
        """Return what is told of persons, by the model and by the columns of ``users``.

        ``accounts`` are those of the persons, also the ones not asked about: platform, user, person.

        Examples
        --------
        >>> model = Newcomers(("land",), pl.DataFrame({"platform": ["a"], "user": ["1"], "land": ["cn"]}))
        >>> asked = pl.DataFrame({"platform": ["a", "a"], "user": ["1", "2"], "person": [0, 1]})
        >>> told = Told.of(model, asked, asked.select("platform", "user", land=pl.Series([None, "fr"])))
        >>> told.rows(np.array([0, 1])).rows()
        [('cn',), ('fr',)]
        """
        if newcomers is None:
            return None
        said = accounts.select("person").head(0)
        given = [] if users is None else [name for name in newcomers.by if name in users.columns]
        if users is not None and given:
            said = by_person(users.select(pl.col("platform", "user", *given).cast(pl.String)), accounts)
        return cls(newcomers.by, by_person(newcomers.users, accounts), said)

    def rows(self, persons: Ints, silent: Bools | None = None) -> pl.DataFrame:
        """Return one row a person, columns ``by``, null where nothing is told.

        Where ``silent`` (B,) is true, only what was given with the request counts.
        """
        asked = pl.DataFrame({"person": persons, "silent": np.zeros(persons.size, bool) if silent is None else silent})
        for frame, suffix in ((self.said, "said"), (self.known, "known")):
            named = frame.rename({name: f"{name}:{suffix}" for name in frame.columns if name != "person"})
            named = named.with_columns(pl.col("person").cast(pl.Int64))
            asked = asked.join(named, on="person", how="left", maintain_order="left")
        none = pl.lit(None, pl.String)
        said, kept = (
            {name: pl.col(f"{name}:{kind}") if name in frame.columns else none for name in self.by}
            for kind, frame in (("said", self.said), ("known", self.known))
        )
        return asked.select(
            pl.coalesce(said[name], pl.when(~pl.col("silent")).then(kept[name])).alias(name) for name in self.by
        )


def with_segments(
    model: Recommender, split: Split, by: Sequence[str], *, protected: Sequence[str] = (), seed: int = 0
) -> Recommender:
    """Return the recommender that also knows what is popular among people alike, where validation says it helps.

    It is tried on validation people without any event who tell a segment; the methods that say something to them are
    learned again from the training part, so that validation is new to both. Where it is not better by more than a
    standard error on people who did not choose, or fewer than 30 chose, the blend stays as it is.

    Parameters
    ----------
    model : Recommender
        Fitted on ``split``.
    split : Split
        Train teaches and valid chooses; then both teach, if they taught the model. Test is never looked at.
    by : sequence of str
        Keys of the users' attributes, and moments (:data:`isthmus.model.segments.MOMENTS`).
    protected : sequence of str
        Protected attributes among them that may be used all the same.
    seed : int
        Of the halves that choose and judge.

    Raises
    ------
    InputError
        Nobody has an attribute, it is protected, or the model was fitted on other data.
    """
    if model.card.get("fingerprint") != split.corpus.fingerprint:
        raise InputError("the model was fitted on other data", where=split.corpus.name, fix="give its own split")
    names = tuple(dict.fromkeys(by))
    users = told_by_accounts(split, names, protected)
    refit = bool(model.card.get("refit"))
    segments, shares, tried = {}, {}, Json()
    for domain, target in model.targets.items():
        choice = _try(split, target, model, names, seed)
        tried[domain] = choice.said
        logger.info("segments in %s: %s", domain, choice.said)
        if choice.share:
            segments[domain] = SegmentPopularity.of(split, domain, names, part=TEST if refit else VALID)
            shares[domain] = choice.share
    content = replace(model.content, newcomers=Newcomers(names, users, segments, shares, tried))
    return type(model)(content)


def told_by_accounts(split: Split, names: Sequence[str], protected: Sequence[str] = ()) -> pl.DataFrame:
    """Return platform, user and the attributes among ``names``, as text; moments are left out.

    Raises
    ------
    InputError
        Nobody has an attribute, or its name or one of its values tells a protected attribute that is not among
        ``protected``.
    """
    unnamed = [name for name in protected if name not in names]
    if unnamed:
        raise InputError(
            f"'{unnamed[0]}' is allowed but not a segment{nearest(unnamed[0], list(names))}", where="protected"
        )
    if set(names) & set(_OWN):
        raise InputError(f"{', '.join(sorted(set(names) & set(_OWN)))} cannot be a segment", where="segments")
    attributes = [name for name in names if name not in MOMENTS]
    users = account_attributes(split.corpus, attributes)
    for name in attributes:
        words = pl.concat([pl.Series([name]).cast(pl.String), users[name].drop_nulls().unique()])
        if name not in protected and names_protected(words.str.replace_all(r"[_\-.]+", " ")).any():
            raise InputError(
                f"'{name}' tells a protected attribute",
                where="segments",
                fix=f"leave it out, or allow it by name: --protected {name}",
            )
    return users


def _try(split: Split, target: Target, model: Recommender, names: Sequence[str], seed: int) -> Choice:
    """Return what validation says of segments in a domain."""
    parts = split.events.filter(split.corpus.items["domain"].gather(split.events["item"]) == target.domain)["part"]
    if not {TRAIN, VALID} <= set(parts.unique()):
        return Choice(0.0, 0)
    task = build_task(split, VALID, target.domain)
    popular = SegmentPopularity.of(split, target.domain, names, part=VALID)
    told = _told(split, task, names)
    rows = np.flatnonzero((task.histories.lengths == 0) & popular.knows(told))
    if not rows.size:
        return Choice(0.0, 0)
    asked, told = task.take(rows), told[rows]
    data = training_data(split, VALID, target.domain, model.features)
    methods = of_training(target, data, seed, refit=bool(model.card.get("refit")))
    fixed = asked.popularity == 0

    def score(places: Ints) -> list[Floats]:
        base = target.blend.score(methods, asked.histories.take(places), fixed)
        own = popular.said(told[places], places.size)
        return [base, *(mixed(base, own, share, fixed) for share in SHARES)]

    return chosen(each_ndcg(asked, score), seed=seed)


def of_training(target: Target, data: TrainingData, seed: int, *, refit: bool, cold: bool = True) -> list[Method]:
    """Return the methods of ``target`` as they are without the validation part.

    Parameters
    ----------
    target : Target
        Fitted.
    data : TrainingData
        The training part.
    seed : int
        For methods that draw.
    refit : bool
        Whether the methods have learned from validation; if not, they are returned.
    cold : bool
        Whether only people without events are asked about: methods that say nothing to them are not learned again.
    """
    if not refit:
        return list(target.methods)
    nobody = Histories.of([[]])
    return [
        method if cold and not np.ptp(method.score(nobody)) else make(method.name, method.settings).fit(data, seed=seed)
        for method in target.methods
    ]


def _told(split: Split, task: Task, names: Sequence[str]) -> pl.DataFrame:
    """Return what the persons of a validation task tell: attributes, and the moment of their first event there."""
    persons = pl.DataFrame({"person": task.persons})
    users = account_attributes(split.corpus, [name for name in names if name not in MOMENTS])
    numbers = pl.DataFrame({"name": split.corpus.persons}).with_row_index("number")
    same = split.corpus.identities.join(numbers, left_on="person", right_on="name")
    own = by_person(users, same.select("platform", "user", person=pl.col("number").cast(pl.Int64)))
    told = persons.join(own, on="person", how="left", maintain_order="left")
    inside = pl.Series(np.isin(split.events["item"].to_numpy(), task.items))
    mine = split.events.filter((split.events["part"] == VALID) & inside)
    first = mine.group_by(pl.col("person").cast(pl.Int64)).agg(pl.col("ts").min())
    told = told.join(first, on="person", how="left", maintain_order="left")
    return told.select(MOMENTS[name].cast(pl.String).alias(name) if name in MOMENTS else name for name in names)


def _file(place: int) -> str:
    return f"segments-{place}.safetensors"
