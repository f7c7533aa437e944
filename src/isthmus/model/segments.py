"""What is popular among people alike, for somebody without any event: by attributes, by the moment, or by nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from isthmus.errors import InputError
from isthmus.model.base import DAY, Doubles
from isthmus.split.cohorts import target_items
from isthmus.split.temporal import CONTEXT, Split
from isthmus.types import Floats, Indices, Ints

#: Pseudo-events that a segment borrows from everybody; :meth:`SegmentPopularity.of` chooses by the newest events.
SHRINKS: Final = (1.0, 10.0, 100.0, 1000.0, 10_000.0, 1e9)
#: Share of the training events, the newest, that choose.
NEWEST: Final = 0.1
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
    nobody was in, or one that is not told, changes nothing.

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
            No event of the domain, or nobody has one of the attributes.
        """
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
        place = {name: row for row, name in enumerate(self.names)}
        found = np.repeat(self.everybody[None], len(people), axis=0)
        for row, person in enumerate(people):
            for name in person.items():
                if name in place:
                    found[row] += self.ratios[place[name]]
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
            own = words.drop_nulls().unique().sort()
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


def _attributes(split: Split, names: Sequence[str]) -> dict[str, pl.Series]:
    """Return each attribute of the persons of a corpus, in their order; null where it is not known."""
    if not names:
        return {}
    corpus = split.corpus
    told = corpus.users.filter(pl.col("attributes").is_not_null())
    rows = [json.loads(text) for text in told["attributes"]]
    found: dict[str, pl.Series] = {}
    for name in names:
        values = pl.Series(name, [None if row.get(name) is None else str(row[name]) for row in rows], dtype=pl.String)
        if values.null_count() == len(values):
            raise InputError(f"nobody has the attribute '{name}'", where=corpus.name, fix=f"or {', '.join(MOMENTS)}")
        accounts = told.select("platform", "user").with_columns(values).drop_nulls(name)
        mine = accounts.join(corpus.identities, on=["platform", "user"], maintain_order="left")
        mine = mine.unique("person", keep="first", maintain_order=True)
        persons = pl.DataFrame({"person": corpus.persons}).join(mine, on="person", how="left", maintain_order="left")
        found[name] = persons[name]
    return found
