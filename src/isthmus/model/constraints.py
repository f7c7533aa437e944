"""Declared rules between items: what follows on what, what needs what, what excludes what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import DataError, nearest
from isthmus.types import RULES, Floats, Indices

AFTER, NOT_BEFORE, EXCLUDES = RULES
_NAMED: Final = 10


@dataclass(frozen=True)
class Constraints:
    """Rules over the ``N`` items of a corpus.

    Parameters
    ----------
    lifts : csr array (N, N)
        ``after``: what is added to the score of the column's item for who has the row's.
    barred : csr array (N, N) bool
        ``excludes``: who has the row's item is never shown the column's.
    held, needs : csr arrays (K, N) bool
        ``not before``: rule ``k`` holds the items of its row in ``held`` back until one of those in ``needs`` was met.
    problems : tuple of str
        Rules that contradict each other or name nothing, in words; the stricter rule wins.
    """

    lifts: sparse.csr_array
    barred: sparse.csr_array
    held: sparse.csr_array
    needs: sparse.csr_array
    problems: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, rules: pl.DataFrame, items: pl.DataFrame, links: pl.DataFrame | None = None) -> Constraints:
        """Return the constraints of a table of rules.

        Parameters
        ----------
        rules : polars.DataFrame
            Columns rule, head, tail and perhaps weight (1 by default, in standard deviations of a score). ``after``:
            who has the head is recommended the tail. ``not before``: the head is not shown before the tail was met.
            ``excludes``: who has the head is not shown the tail. Head and tail are entities of ``links`` (every item
            linked to one is meant), or ``PLATFORM:ITEM``.
        items : polars.DataFrame
            The items table.
        links : polars.DataFrame, optional
            platform, item, entity.

        Raises
        ------
        DataError
            A column is missing, or there is no such rule.

        Examples
        --------
        >>> items = pl.DataFrame({"platform": ["shop"] * 3, "item": ["console", "game", "sequel"]})
        >>> rows = [("after", "shop:console", "shop:game"), ("not before", "shop:sequel", "shop:game")]
        >>> rules = pl.DataFrame(rows, schema=["rule", "head", "tail"], orient="row")
        >>> made = Constraints.of(rules, items)
        >>> made.apply(np.zeros((1, 3), "float32"), Histories.of([[0]]), np.arange(3, dtype="int32")).tolist()
        [[0.0, 1.0, -inf]]
        """
        check_rules(rules)
        weight = pl.col("weight").cast(pl.Float64).fill_null(1.0) if "weight" in rules.columns else pl.lit(1.0)
        table = rules.select("rule", "head", "tail", weight=weight).unique(maintain_order=True)
        named = _named(items, links)
        ends = {side: _ends(table, side, named) for side in ("head", "tail")}
        lost = [side.filter(pl.col("index").is_null()) for side in ends.values()]
        unknown = pl.concat([side["name"] for side in lost]).unique(maintain_order=True)
        problems = [f"no item or entity '{name}'" for name in unknown.head(_NAMED)]
        pairs = ends["head"].drop_nulls().join(ends["tail"].drop_nulls(), on="row", suffix="_tail")
        pairs = pairs.join(table.with_row_index("row"), on="row")
        size = items.height
        lifts = _matrix(pairs.filter(pl.col("rule") == AFTER), size, np.float32)
        barred = _matrix(pairs.filter(pl.col("rule") == EXCLUDES), size, np.bool_)
        kept = pairs.filter(pl.col("rule") == NOT_BEFORE)
        place = kept["row"].rank("dense").to_numpy().astype(np.int64) - 1
        shape = (int(place.max(initial=-1)) + 1, size)
        held, needs = (
            sparse.csr_array((np.ones(place.size, bool), (place, kept[side].to_numpy())), shape=shape)
            for side in ("index", "index_tail")
        )
        problems += _conflicts(pairs, size)
        return cls(lifts, barred, held, needs, tuple(problems))

    def apply(self, scores: Floats, histories: Histories, target: Indices) -> Floats:
        """Return ``scores`` (B, T) lifted by ``after``; ``-inf`` for what the other rules keep back.

        A rule that names an item of a person's history alone holds for that person whatever else was met.
        """
        size, met = self.lifts.shape[0], self._met(histories)
        place = np.flatnonzero(target < size)
        columns = target[place]
        out = np.array(scores, dtype=np.float32)
        out[:, place] += (met @ self.lifts)[:, columns].toarray()
        gone = (met @ self.barred.astype(np.float32))[:, columns].toarray() > 0
        waiting = (met @ self.needs.T.astype(np.float32)).toarray() == 0
        gone |= waiting.astype(np.float32) @ self.held[:, columns].astype(np.float32).toarray() > 0
        out[:, place] = np.where(gone, -np.inf, out[:, place])
        return out

    def concerned(self, histories: Histories) -> tuple[Indices, Indices]:
        """Return the items that the rules lift for one person, and those they keep back."""
        met = self._met(histories)
        waiting = np.flatnonzero((met @ self.needs.T.astype(np.float32)).toarray()[0] == 0)
        barred = sparse.csr_array(met @ self.barred.astype(np.float32))
        gone = np.concatenate([barred.indices, self.held[waiting].indices])
        return sparse.csr_array(met @ self.lifts).indices.astype(np.int32), gone.astype(np.int32)

    def _met(self, histories: Histories) -> sparse.csr_array:
        """Return a 1 for everything that is in a history, (B, N)."""
        size = self.lifts.shape[0]
        met = histories.keep(histories.items < size).matrix(size)
        met.data[:] = 1.0
        return met


def check_rules(rules: pl.DataFrame) -> None:
    """Refuse a table that lacks a column of rules, or holds a rule that there is not."""
    lacking = {"rule", "head", "tail"} - set(rules.columns)
    if lacking:
        raise DataError(f"lacks column(s) {', '.join(sorted(lacking))}", where="rules", fix="give rule, head, tail")
    for word in rules["rule"].unique():
        if word not in RULES:
            raise DataError(
                f"no rule '{word}'{nearest(str(word), list(RULES))}", where="rules", fix=f"rules: {', '.join(RULES)}"
            )


def _named(items: pl.DataFrame, links: pl.DataFrame | None) -> pl.DataFrame:
    """Return name and index of everything a rule can name."""
    rows = items.select("platform", "item").with_row_index("index")
    own = rows.select(name=pl.col("platform") + ":" + pl.col("item"), index="index")
    if links is None:
        return own
    return pl.concat([own, links.join(rows, on=["platform", "item"]).select(name="entity", index="index")]).unique()


def _ends(table: pl.DataFrame, side: str, named: pl.DataFrame) -> pl.DataFrame:
    """Return the items that one end of each rule means: row, name, index (null: nothing is called that)."""
    return table.with_row_index("row").select("row", name=side).join(named, on="name", how="left")


def _matrix(pairs: pl.DataFrame, size: int, kind: type[np.generic]) -> sparse.csr_array:
    cells = (pairs["index"].to_numpy(), pairs["index_tail"].to_numpy())
    return sparse.csr_array((pairs["weight"].to_numpy(), cells), shape=(size, size)).astype(kind)


def _conflicts(pairs: pl.DataFrame, size: int) -> list[str]:
    """Return what cannot hold together: a rule and its opposite, and items that wait for each other for ever."""
    cells = {rule: set(pairs.filter(pl.col("rule") == rule).select("head", "tail").iter_rows()) for rule in RULES}
    found = [f"'{a}' {AFTER} and {EXCLUDES} '{b}': it is excluded" for a, b in sorted(cells[AFTER] & cells[EXCLUDES])]
    swapped = {(b, a) for a, b in cells[NOT_BEFORE]}
    found += [f"'{b}' waits for '{a}', which excludes it" for a, b in sorted(swapped & cells[EXCLUDES])]
    found += [f"'{a}' {rule} itself" for rule in RULES for a, b in sorted(cells[rule]) if a == b]
    waits = pairs.filter((pl.col("rule") == NOT_BEFORE) & (pl.col("head") != pl.col("tail")))
    found += [f"{' and '.join(ring)} wait for each other: none is ever listed" for ring in _rings(waits, size)]
    return found[:_NAMED]


def _rings(waits: pl.DataFrame, size: int) -> Iterable[list[str]]:
    """Yield the names of items that wait for each other in a ring."""
    cells = (waits["index"].to_numpy(), waits["index_tail"].to_numpy())
    graph = sparse.csr_array((np.ones(waits.height), cells), shape=(size, size))
    _, label = sparse.csgraph.connected_components(graph, connection="strong")
    counts = np.bincount(label)
    for ring in np.flatnonzero(counts > 1):
        inside = waits.filter(pl.Series(label[cells[0]] == ring))
        yield [f"'{name}'" for name in inside["head"].unique().sort()]
