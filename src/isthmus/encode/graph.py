"""A knowledge graph as something to know of items: which entities each one is tied to, and by which relation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.data.tables import conform
from isthmus.types import Floats, Indices

#: The relation of an item to its own entity, and to entities two edges away.
ITSELF: Final = "itself"
TWO_STEPS: Final = "two steps"
#: Put before a relation that is read from tail to head.
BACK: Final = "^"
#: Two edges are walked only over entities with so many neighbours at most: over a genre everything meets everything.
HUB: Final = 25

#: Rows, relations, entities and values of some ties.
Ties: TypeAlias = tuple[Indices, Indices, Indices, Floats]


@dataclass(frozen=True)
class Neighbours:
    """Which entities ``N`` items are tied to: one entry a tie, in parallel arrays.

    Parameters
    ----------
    rows : int32 array (K,)
        Item of each tie.
    relation : int32 array (K,)
        Place of its relation in ``relations``.
    entity : int32 array (K,)
        Number of the entity.
    value : float32 array (K,)
        1 for an edge; the chance of a random step for two.
    n_items, n_entities : int
        Sizes.
    relations : tuple of str
        ``itself``, each relation, each relation backwards (``^relation``), ``two steps``.

    Examples
    --------
    >>> ties = Neighbours(*np.array([[0, 1], [0, 0], [5, 5]], np.int32), np.ones(2, np.float32), 2, 9, ("author",))
    >>> ties.matrix(np.ones(1, np.float32))[:, [5]].toarray().tolist()
    [[1.0], [1.0]]
    """

    rows: Indices
    relation: Indices
    entity: Indices
    value: Floats
    n_items: int
    n_entities: int
    relations: tuple[str, ...]

    def matrix(self, weights: Floats) -> sparse.csr_array:
        """Return items × entities (N, E) float32, each tie as strong as ``weights`` (R,) says of its relation."""
        values = self.value * weights[self.relation]
        kept = values != 0
        data = (values[kept].astype(np.float32), (self.rows[kept], self.entity[kept]))
        return sparse.csr_array(data, shape=(self.n_items, self.n_entities))

    def idf(self, *, known: Indices | None = None) -> Floats:
        """Return ``ln((1 + n) / (1 + df))`` of each entity, (E,), with df counted over ``known`` items (all)."""
        some = np.ones(self.n_items, dtype=bool)
        if known is not None:
            some[:] = False
            some[known] = True
        pairs = np.unique(np.stack([self.rows, self.entity])[:, some[self.rows]], axis=1)
        df = np.bincount(pairs[1], minlength=self.n_entities)
        return np.asarray(np.log((1.0 + some.sum()) / (1.0 + df)), dtype=np.float32)

    def take(self, rows: Indices) -> Neighbours:
        """Return the ties of some items, numbered in that order; no item twice."""
        place = np.full(self.n_items, -1, np.int32)
        place[rows] = np.arange(rows.size, dtype=np.int32)
        kept = place[self.rows] >= 0
        parts = (place[self.rows[kept]], self.relation[kept], self.entity[kept], self.value[kept])
        return Neighbours(*parts, rows.size, self.n_entities, self.relations)

    def __add__(self, later: Neighbours) -> Neighbours:
        """Return the ties of these items followed by those of ``later`` ones of the same graph."""
        return Neighbours(
            np.concatenate([self.rows, later.rows + np.int32(self.n_items)]),
            np.concatenate([self.relation, later.relation]),
            np.concatenate([self.entity, later.entity]),
            np.concatenate([self.value, later.value]),
            self.n_items + later.n_items,
            self.n_entities,
            self.relations,
        )


class Graph:
    """Edges between entities, and which item is which entity.

    Parameters
    ----------
    edges : polars.DataFrame
        head, relation, tail. An edge from an entity to itself says nothing and is passed over.
    links : polars.DataFrame
        platform, item, entity; an item may have several, an entity too. Items that a table of items lacks are kept for
        later, entities without an edge are known by themselves alone.

    Examples
    --------
    >>> edges = pl.DataFrame({"head": ["dune", "messiah"], "relation": ["author"] * 2, "tail": ["herbert"] * 2})
    >>> links = pl.DataFrame({"platform": ["shop"] * 2, "item": ["1", "2"], "entity": ["dune", "messiah"]})
    >>> ties = Graph(edges, links).neighbours(links.select("platform", "item"))
    >>> ties.relations
    ('itself', 'author', '^author', 'two steps')
    >>> shared = ties.matrix(np.ones(4, np.float32))
    >>> float((shared @ shared.T).toarray()[0, 1]) > 0
    True
    """

    def __init__(self, edges: pl.DataFrame, links: pl.DataFrame) -> None:
        self.edges = conform("edges", edges.unique())
        self.links = conform("links", links.unique())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of edges and links, 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for table in (self.edges, self.links):
            digest.update(table.hash_rows(seed=0).to_numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def entities(self) -> pl.Series:
        """All entities, sorted; the place is the entity's number."""
        every = pl.concat([self.edges["head"], self.edges["tail"], self.links["entity"]])
        return every.unique().sort().alias("entity")

    @cached_property
    def names(self) -> list[str]:
        """Relations, sorted."""
        return list(self.edges["relation"].unique().sort())

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """What a tie of an item to an entity can be."""
        return (ITSELF, *self.names, *(BACK + name for name in self.names), TWO_STEPS)

    @cached_property
    def triples(self) -> Indices:
        """Head, relation and tail as numbers, (3, edges) int32; edges from an entity to itself left out."""
        kept = self.edges.filter(pl.col("head") != pl.col("tail"))
        kinds = kept.select(
            pl.col("relation").replace_strict(self.names, range(len(self.names)), return_dtype=pl.Int32)
        )
        parts = [self._number(kept["head"]), kinds["relation"].to_numpy(), self._number(kept["tail"])]
        return np.stack(parts).astype(np.int32).reshape(3, kept.height)

    def entities_of(self, items: pl.DataFrame) -> tuple[Indices, Indices]:
        """Return item row and entity number of each link, (2, links): links, else the attribute ``entity``.

        Links to entities the graph does not know are left out.
        """
        rows = items.select("platform", "item").with_row_index("row")
        found = rows.join(self.links, on=["platform", "item"]).select("row", "entity")
        if "attributes" in items.columns:
            told = pl.col("attributes").cast(pl.String).str.json_path_match("$.entity").alias("entity")
            alone = items.select(told).with_row_index("row").drop_nulls()
            found = pl.concat([found, alone.join(found, on="row", how="anti")])
        numbers = self.entities.to_frame().with_row_index("number")
        coded = found.unique().join(numbers, on="entity").sort("row", "number")
        return coded["row"].to_numpy().astype(np.int32), coded["number"].to_numpy().astype(np.int32)

    def neighbours(self, items: pl.DataFrame, *, two_steps: bool = True) -> Neighbours:
        """Return the ties of each row of ``items`` (columns platform, item, perhaps attributes)."""
        rows, entities = self.entities_of(items)
        own = sparse.csr_array(
            (np.ones(rows.size, np.float32), (rows, entities)), shape=(items.height, self.entities.len())
        )
        head, kind, tail = self.triples
        parts: list[Ties] = [(rows, np.zeros(rows.size, np.int32), entities, np.ones(rows.size, np.float32))]
        for offset, start, end in ((1, head, tail), (1 + len(self.names), tail, head)):
            parts.append(_step(own, start, end, kind + np.int32(offset)))
        if two_steps:
            parts.append(self._far(own, parts[1:], len(self.relations) - 1))
        item, kinds, ends = (np.concatenate([part[place] for part in parts]) for place in range(3))
        value = np.concatenate([part[3] for part in parts])
        return Neighbours(item, kinds, ends, value, items.height, self.entities.len(), self.relations)

    def _far(self, own: sparse.csr_array, near: Sequence[Ties], kind: int) -> Ties:
        """Return the ties over one entity that is no hub, to entities that are not tied more closely."""
        head, _, tail = self.triples
        size = self.entities.len()
        pairs = (np.concatenate([head, tail]), np.concatenate([tail, head]))
        steps = sparse.csr_array((np.ones(pairs[0].size, np.float32), pairs), shape=(size, size))
        steps.data[:] = 1.0
        degree = np.diff(steps.indptr)
        chance = np.where((degree > 0) & (degree <= HUB), 1.0 / np.maximum(degree, 1), 0.0).astype(np.float32)
        close = sparse.csr_array(
            (
                np.ones(sum(part[0].size for part in near), np.float32),
                (np.concatenate([part[0] for part in near]), np.concatenate([part[2] for part in near])),
            ),
            shape=own.shape,
        )
        close.data[:] = 1.0
        through = close @ sparse.diags_array(chance, format="csr")
        through.eliminate_zeros()
        far = (through @ steps).tocoo()
        mask = (close + own).astype(bool)
        fresh = (far - far.multiply(mask)).tocoo()
        kept = fresh.data > 0
        value = np.minimum(fresh.data[kept], 1.0).astype(np.float32)
        rows, entities = fresh.row[kept].astype(np.int32), fresh.col[kept].astype(np.int32)
        return rows, np.full(rows.size, kind, np.int32), entities, value

    def _number(self, names: pl.Series) -> Indices:
        places = self.entities.search_sorted(names)
        return np.asarray(places.to_numpy(), dtype=np.int32)


def _step(own: sparse.csr_array, start: Indices, end: Indices, kind: Indices) -> Ties:
    """Return row, relation, entity and value of the ties that one edge away from each item's entities gives."""
    order = np.argsort(start, kind="stable")
    first = np.searchsorted(start[order], own.indices, "left")
    count = np.searchsorted(start[order], own.indices, "right") - first
    offset = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    edges = order[offset + np.arange(int(count.sum()))]
    rows = np.repeat(np.repeat(np.arange(own.shape[0]), np.diff(own.indptr)), count)
    return rows.astype(np.int32), kind[edges], end[edges], np.ones(edges.size, np.float32)
