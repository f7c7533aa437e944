"""From a split to questions: who is asked, what is known of them, which slices they belong to."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.split.task import Task
from isthmus.split.temporal import CONTEXT, TEST, Split
from isthmus.types import PARTS, Bools, Indices, Ints

#: A person with at most this many events in the target domain is a few-shot person.
FEW: Final = 3
#: The most popular share of the catalogue.
HEAD: Final = 0.2


def build_task(split: Split, part: int, domain: str, *, exclude_seen: bool = True, most: int | None = None) -> Task:
    """Return the question "which items of ``domain`` did each person take in ``part``?".

    Parameters
    ----------
    split : Split
        Where the events come from.
    part : int
        ``VALID`` or ``TEST``; whatever is earlier, and context, is known.
    domain : str
        Target domain.
    exclude_seen : bool
        Whether items of the history may not be listed.
    most : int, optional
        Ask at most this many persons, spread evenly over all of them.

    Raises
    ------
    InputError
        The part has no event in the domain.
    """
    split.corpus.require_domain(domain)
    items = target_items(split, domain)
    inside = pl.Series(np.isin(np.arange(split.corpus.items.height), items)).alias("inside")
    wanted = split.events.filter((pl.col("part") == part) & inside.gather(split.events["item"]))
    pairs = wanted.select("person", "item").unique().sort("person", "item")
    persons = pairs["person"].unique().sort().to_numpy().astype(np.int64)
    if persons.size == 0:
        raise InputError(
            f"the part {PARTS[part]} has no event in domain '{domain}'",
            where=split.corpus.name,
            fix="split with a larger share" if part != TEST else "split with a test share above 0",
        )
    if most is not None and persons.size > most:
        persons = persons[np.linspace(0, persons.size - 1, most).astype(np.int64)]
        pairs = pairs.filter(pl.col("person").is_in(persons))
    counts = np.unique(pairs["person"].to_numpy(), return_counts=True)[1]
    known = split.known(part)
    histories = Histories.from_frame(known, persons)
    popularity = _popularity(known.filter(pl.col("part") != CONTEXT), items)
    learned = known.filter((pl.col("part") != CONTEXT) & inside.gather(known["item"]))
    return Task(
        domain=domain,
        part=PARTS[part],
        items=items,
        persons=persons,
        histories=histories,
        target_indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        targets=np.searchsorted(items, pairs["item"].to_numpy()).astype(np.int32),
        popularity=popularity,
        train_persons=learned["person"].n_unique(),
        exclude_seen=exclude_seen,
        cohorts=person_cohorts(histories, items),
        item_groups=_item_groups(split, items, popularity),
    )


def target_items(split: Split, domain: str) -> Indices:
    """Return the corpus indices of all items of ``domain``, rising, (T,) int32."""
    return np.flatnonzero((split.corpus.items["domain"] == domain).to_numpy()).astype(np.int32)


def person_cohorts(histories: Histories, items: Indices) -> dict[str, Bools]:
    """Return which persons are cold, few-shot or warm in the target domain, and who has events elsewhere, (B,) each."""
    return cohorts_of(histories, np.isin(histories.items, items))


def cohorts_of(histories: Histories, inside: Bools) -> dict[str, Bools]:
    """Return the same where ``inside`` (E,) says which events are on items of the target domain."""
    own = np.bincount(histories.rows[inside], minlength=len(histories))
    elsewhere = np.bincount(histories.rows[~inside], minlength=len(histories)) > 0
    return {
        "cold person": own == 0,
        f"1-{FEW} events": (own > 0) & (own <= FEW),
        "warm person": own > FEW,
        "overlap": elsewhere,
        "no overlap": ~elsewhere,
        "cold, overlap": (own == 0) & elsewhere,
    }


def _popularity(events: pl.DataFrame, items: Indices) -> Ints:
    """Return the number of persons with an event on each target item, (T,)."""
    counts = events.group_by("item").agg(pl.col("person").n_unique())
    full = np.zeros(int(items.max(initial=0)) + 1, dtype=np.int64)
    near = counts.filter(pl.col("item") < full.size)
    full[near["item"].to_numpy()] = near["person"].to_numpy()
    return full[items]


def _item_groups(split: Split, items: Indices, popularity: Ints) -> dict[str, Bools]:
    """Return which target items are new, head or tail, and on which platform, (T,) each."""
    head = np.zeros(items.size, dtype=bool)
    head[np.argsort(-popularity, kind="stable")[: max(1, int(HEAD * items.size))]] = True
    head &= popularity > 0
    groups = {"new item": popularity == 0, "known item": popularity > 0, "head": head, "tail": ~head & (popularity > 0)}
    platform = split.corpus.items["platform"].gather(items)
    for name in platform.unique().sort():
        groups[f"platform {name}"] = (platform == name).to_numpy()
    return groups
