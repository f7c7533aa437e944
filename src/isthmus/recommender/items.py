"""The catalogue of a fitted model: new items are taken in without learning again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from isthmus.data.tables import conform
from isthmus.errors import DataError, NotFoundError, nearest
from isthmus.recommender.declared import declare
from isthmus.recommender.readers import stack
from isthmus.recommender.store import Content
from isthmus.room import appended
from isthmus.types import Ints


def with_items(content: Content, items: pl.DataFrame) -> Content:
    """Return the content that also knows ``items`` (columns as the items table); nothing is learned again.

    Raises
    ------
    DataError
        An item is known already, or given twice.
    NotFoundError
        No known item is in the domain of a new one.
    """
    new = conform("items", items, where="new items")
    known = new.join(content.items, on=["platform", "item"], how="semi")
    if known.height:
        raise DataError(f"{known.height} item(s) are known already, first {known['item'][0]}", where="new items")
    _require_domains(content.items, new)
    return lengthened(content, new)


def lengthened(content: Content, new: pl.DataFrame) -> Content:
    """Return the content that also knows the items ``new``, an items table of items not known yet in known domains.

    What is known is not copied, but for arrays behind which there is no room: these are when items come once more
    (:mod:`isthmus.room`).
    """
    table = _joined(content.items, new)
    features = stack(content.features, content.readers.read(new))
    targets = {}
    for domain, target in content.targets.items():
        fresh = np.flatnonzero((new["domain"] == domain).to_numpy()) + content.items.height
        every = appended(target.items, fresh.astype(np.int32))
        methods = [method.extended(features, every, table.height) for method in target.methods]
        flags = appended(target.new, np.ones(fresh.size, dtype=bool))
        targets[domain] = replace(target, items=every, new=flags, methods=methods)
    return declare(replace(content, targets=targets, items=table, features=features))


def _joined(table: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Return two tables as one in few pieces: those at the end that are no longer than what follows become one."""
    at = table.height
    for piece in reversed(table["item"].chunk_lengths()):
        if piece > table.height - at + new.height:
            break
        at -= piece
    return pl.concat([table[:at], pl.concat([table[at:], new], rechunk=True)])


def list_items(content: Content, *, new: bool = False) -> pl.DataFrame:
    """Return platform, item, domain, title and ``new`` (nothing was learned of it) of the items of all targets.

    Parameters
    ----------
    content : Content
        A model.
    new : bool
        Only those that are new.
    """
    flags = np.zeros(content.items.height, dtype=bool)
    served = np.zeros(content.items.height, dtype=bool)
    for target in content.targets.values():
        flags[target.items] = target.new
        served[target.items] = True
    table = content.items.select("platform", "item", "domain", "title").with_columns(new=pl.Series(flags))
    return table.filter(pl.Series(served & flags if new else served))


def exposures(shown: pl.DataFrame | None, items: pl.DataFrame) -> Ints:
    """Return how often each item was shown, (N,), from a table platform, item, shown; 0 where nothing is said.

    Raises
    ------
    DataError
        A column is lacking.
    """
    if shown is None:
        return np.zeros(items.height, np.int64)
    lacking = {"platform", "item", "shown"} - set(shown.columns)
    if lacking:
        raise DataError(f"lacks column(s) {', '.join(sorted(lacking))}", where="shown")
    counts = shown.group_by("platform", "item").agg(pl.col("shown").sum().cast(pl.Int64))
    found = items.select("platform", "item").join(counts, on=["platform", "item"], how="left", maintain_order="left")
    return found["shown"].fill_null(0).to_numpy()


def _require_domains(items: pl.DataFrame, new: pl.DataFrame) -> None:
    known = items["domain"].unique().sort().to_list()
    for domain in new["domain"].unique().sort():
        if domain not in known:
            hint = nearest(domain, known)
            raise NotFoundError(f"no domain '{domain}'{hint}", where="new items", fix=f"domains: {', '.join(known)}")
