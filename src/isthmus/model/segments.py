"""What is popular among people alike, for somebody without any event: by attributes, by the moment, or by nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.errors import InputError
from isthmus.files import Json
from isthmus.model.base import DAY, Doubles, State
from isthmus.split.cohorts import target_items
from isthmus.split.temporal import CONTEXT, Split
from isthmus.types import Bools, Floats, Indices, Ints

#: Pseudo-events that a segment borrows from everybody; :meth:`SegmentPopularity.of` chooses by the newest events.
SHRINKS: Final = (1.0, 10.0, 100.0, 1000.0, 10_000.0, 1e9)
#: Share of the training events, the newest, that choose.
NEWEST: Final = 0.1
#: A segment of fewer people than this is nobody's: it would say what single people did.
LEAST: Final = 5
#: Values of one attribute that are segments, the most common ones.
MOST: Final = 200
#: What the time of an event says of the moment: name -> expression over ``ts``.
MOMENTS: Final = {
    "weekday": pl.col("ts").dt.weekday(),
    "hour": pl.col("ts").dt.hour(),
    "month": pl.col("ts").dt.month(),
}


@dataclass(frozen=True)
class SegmentPopularity:
    """Recent popularity, changed by how much more a segment meets an item than everybody does.

    With counts ``n`` halved every ``half_life`` days and ``p(i)`` the share of item ``i`` among everybody, a segment
    ``s`` has ``p_s(i) = (n_s(i) + shrink * p(i)) / (n_s + shrink)``: Dirichlet smoothing (Zhai and Lafferty, SIGIR
    2001, equation 6). The score is ``log p(i) + sum over s of log(p_s(i) / p(i))``, as in naive Bayes. A segment
    of fewer than :data:`LEAST` people, one beyond the :data:`MOST` most common values, or one that is not told,
    changes nothing.

    Parameters
    ----------
    target : int32 array (T,)
        Corpus item index of each column.
    everybody : float32 array (T,)
        ``log p(i)``.
    names : tuple of (str, str)
        Attribute and value of each segment, ``S``.
    ratios : float32 array (S, T)
        ``log(p_s(i) / p(i))``.
    shrink, half_life : float
        As above.
    """

    target: Indices
    everybody: Floats
    names: tuple[tuple[str, str], ...]
    ratios: Floats
    shrink: float
    half_life: float

    @classmethod
    def of(
        cls, split: Split, domain: str, by: Sequence[str] = (), *, part: int = 2, half_life: float = 30.0
    ) -> SegmentPopularity:
        """Return the popularity in ``domain`` before ``part``, by attributes of users and by :data:`MOMENTS`.

        ``shrink`` is the one of :data:`SHRINKS` under which the newest tenth of those events is most likely, given the
        rest.

        Parameters
        ----------
        split : Split
            Its training events count; without dates all count the same.
        domain : str
            Target domain.
        by : sequence of str
            Keys of the users' attributes, and names of moments.
        part : int
            ``VALID`` or ``TEST``.
        half_life : float
            Days; 0 for never.

        Raises
        ------
        InputError
            No event of the domain, nobody has one of the attributes, or a moment is named and there are no dates.
        """
        timed = [name for name in by if name in MOMENTS]
        if timed and split.corpus.order_only:
            raise InputError(f"the events have no dates, so no {timed[0]}", where=split.corpus.name)
        target = target_items(split, domain)
        inside = pl.Series(np.isin(np.arange(split.corpus.items.height), target))
        learned = split.events.filter((pl.col("part") < part) & (pl.col("part") != CONTEXT))
        events = learned.filter(inside.gather(learned["item"])).sort("ts", maintain_order=True)
        if not events.height:
            raise InputError(f"no training event in domain '{domain}'", where=split.corpus.name)
        log = _Log.of(split, events, target, by, 0.0 if split.corpus.order_only else half_life)
        first, last = log.parts(NEWEST)
        shrink = max(SHRINKS, key=lambda each: _counted(target, first, each, half_life).likelihood(last))
        return _counted(target, log, shrink, half_life)

    def score(self, people: Sequence[Mapping[str, str]]) -> Floats:
        """Return the scores of some new people, told by attributes and moment, (B, T).

        Examples
        --------
        >>> young = SegmentPopularity(
        ...     np.arange(2, dtype=np.int32), np.log(np.float32([0.6, 0.4])), (("age", "20"),),
        ...     np.float32([[-0.5, 0.5]]), 10.0, 30.0,
        ... )
        >>> young.score([{}, {"age": "20"}, {"age": "90"}]).argmax(axis=1).tolist()
        [0, 1, 0]
        """
        columns = list(dict.fromkeys(name for person in people for name in person))
        rows = {name: [person.get(name) for person in people] for name in columns}
        return self.said(pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String)), len(people))

    def said(self, told: pl.DataFrame, people: int) -> Floats:
        """Return the same for a table of attributes and moments, one row a person, null where it is not told."""
        found = np.repeat(self.everybody[None], people, axis=0)
        for codes in self._codes(told).T:
            known = codes >= 0
            found[known] += self.ratios[codes[known]]
        return found

    def knows(self, told: pl.DataFrame) -> Bools:
        """Return whether each row of a table of attributes and moments tells a segment, bool (B,)."""
        return np.asarray((self._codes(told) >= 0).any(axis=1))

    def state(self) -> tuple[State, Json]:
        """Return the arrays, and the rest as JSON."""
        arrays: State = {"target": self.target, "everybody": self.everybody, "ratios": self.ratios}
        rest: Json = {"names": [list(n) for n in self.names], "shrink": self.shrink, "half_life": self.half_life}
        return arrays, rest

    @classmethod
    def restored(cls, arrays: State, rest: Json) -> SegmentPopularity:
        """Return what :meth:`state` returned, as it was."""
        said = cast("list[tuple[str, str]]", rest["names"])
        return cls(
            arrays["target"].astype(np.int32),
            arrays["everybody"].astype(np.float32),
            tuple((str(name), str(value)) for name, value in said),
            arrays["ratios"].astype(np.float32),
            float(str(rest["shrink"])),
            float(str(rest["half_life"])),
        )

    def _codes(self, told: pl.DataFrame) -> Ints:
        """Return the place in :attr:`names` of what each row tells by each column, (B, A), -1 for none."""
        found = np.full((told.height, told.width), -1, np.int64)
        for column, name in enumerate(told.columns):
            places = {value: row for row, (own, value) in enumerate(self.names) if own == name}
            if places:
                codes = told[name].replace_strict(places, default=-1, return_dtype=pl.Int64).fill_null(-1)
                found[:, column] = codes.to_numpy()
        return found

    def likelihood(self, log: _Log) -> float:
        """Return the mean log-likelihood of the events of ``log`` given their segments."""
        keys, row = np.unique(log.segments, axis=0, return_inverse=True)
        place = {name: number for number, name in enumerate(self.names)}
        total = np.repeat(self.everybody[None].astype(np.float64), len(keys), axis=0)
        for number, key in enumerate(keys):
            for segment in key[key >= 0]:
                if log.names[segment] in place:
                    total[number] += self.ratios[place[log.names[segment]]]
        total -= np.log(np.exp(total).sum(axis=1, keepdims=True))
        return float(total[row.ravel(), log.items].mean())


@dataclass(frozen=True)
class _Log:
    """Events of a domain, oldest first: column of the item, worth, and place in ``names`` of each segment or -1."""

    items: Ints
    worth: Doubles
    segments: Ints
    names: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, split: Split, events: pl.DataFrame, target: Indices, by: Sequence[str], half_life: float) -> _Log:
        age = events.select((pl.col("ts").max() - pl.col("ts")).dt.total_microseconds()).to_series().to_numpy() / DAY
        worth = events["weight"].to_numpy() * (0.5 ** (age / half_life) if half_life else 1.0)
        known = _attributes(split, [name for name in by if name not in MOMENTS])
        columns, names = [], list[tuple[str, str]]()
        for name in by:
            values = events.select(MOMENTS[name])["ts"] if name in MOMENTS else known[name].gather(events["person"])
            words = values.cast(pl.String)
            own = _common(words, events["person"])
            places = range(len(names), len(names) + len(own))
            codes = words.replace_strict(own, places, default=-1, return_dtype=pl.Int64)
            columns.append(codes.fill_null(-1).to_numpy())
            names += [(name, word) for word in own]
        segments = np.stack(columns, axis=1) if columns else np.zeros((events.height, 0), np.int64)
        items = np.searchsorted(target, events["item"].to_numpy())
        return cls(items, worth.astype(np.float64), segments, tuple(names))

    def parts(self, newest: float) -> tuple[_Log, _Log]:
        """Return the older events, and the newest share."""
        edge = max(int((1 - newest) * self.items.size), 1)
        cut = (slice(None, edge), slice(min(edge, self.items.size - 1), None))
        first, last = (_Log(self.items[c], self.worth[c], self.segments[c], self.names) for c in cut)
        return first, last


def _counted(target: Indices, log: _Log, shrink: float, half_life: float) -> SegmentPopularity:
    """Return the popularity that the events of ``log`` give."""
    counts = np.bincount(log.items, weights=log.worth, minlength=target.size)
    everybody = (counts + 0.5) / (counts + 0.5).sum()
    own = np.zeros((len(log.names), target.size))
    for column in log.segments.T:
        told = column >= 0
        np.add.at(own, (column[told], log.items[told]), log.worth[told])
    smooth = (own + shrink * everybody) / (own.sum(axis=1, keepdims=True) + shrink)
    ratios = np.log(smooth / everybody).astype(np.float32)
    return SegmentPopularity(target, np.log(everybody).astype(np.float32), log.names, ratios, shrink, half_life)


def _common(words: pl.Series, persons: pl.Series) -> pl.Series:
    """Return the :data:`MOST` values that most people have, of those that :data:`LEAST` have, sorted."""
    pairs = pl.DataFrame({"word": words, "person": persons}).drop_nulls("word").unique()
    counts = pairs.group_by("word").len().filter(pl.col("len") >= LEAST).sort(["len", "word"], descending=[True, False])
    return counts["word"].head(MOST).sort()


def account_attributes(corpus: Corpus, names: Sequence[str]) -> pl.DataFrame:
    """Return platform, user and the named attributes as text, null where not known, of the accounts that have any.

    Raises
    ------
    InputError
        Nobody has one of the attributes.
    """
    told = corpus.users.filter(pl.col("attributes").is_not_null())
    rows = [json.loads(text) for text in told["attributes"]]
    known = told.select("platform", "user")
    for name in names:
        values = pl.Series(name, [None if row.get(name) is None else str(row[name]) for row in rows], dtype=pl.String)
        if values.null_count() == len(values):
            raise InputError(f"nobody has the attribute '{name}'", where=corpus.name, fix=f"or {', '.join(MOMENTS)}")
        known = known.with_columns(values)
    return known.filter(pl.any_horizontal(pl.col(names).is_not_null())) if names else known.clear()


def by_person(accounts: pl.DataFrame, persons: pl.DataFrame) -> pl.DataFrame:
    """Return ``person`` and the attributes of each person: of each attribute the first that one of the accounts tells.

    Parameters
    ----------
    accounts : polars.DataFrame
        platform, user, and attributes.
    persons : polars.DataFrame
        platform, user, person.

    Examples
    --------
    >>> told = pl.DataFrame({"platform": ["a", "b"], "user": ["1", "1"], "land": [None, "cn"], "age": ["20", "30"]})
    >>> same = pl.DataFrame({"platform": ["a", "b"], "user": ["1", "1"], "person": [7, 7]})
    >>> by_person(told, same).rows()
    [(7, 'cn', '20')]
    """
    mine = accounts.join(persons.select("platform", "user", "person"), on=["platform", "user"], maintain_order="left")
    attributes = [name for name in accounts.columns if name not in ("platform", "user")]
    return mine.group_by("person", maintain_order=True).agg(pl.col(attributes).drop_nulls().first())


def _attributes(split: Split, names: Sequence[str]) -> dict[str, pl.Series]:
    """Return each attribute of the persons of a corpus, in their order; null where it is not known."""
    if not names:
        return {}
    corpus = split.corpus
    told = by_person(account_attributes(corpus, names), corpus.identities)
    persons = pl.DataFrame({"person": corpus.persons}).join(told, on="person", how="left", maintain_order="left")
    return {name: persons[name] for name in names}
