"""What is odd in a knowledge graph: counted when it is imported, harmless to whoever reads it."""

from __future__ import annotations

from typing import Final

import polars as pl

from isthmus.files import Json
from isthmus.log import logger

_EXAMPLES: Final = 5


def graph_notes(edges: pl.DataFrame, links: pl.DataFrame, items: pl.DataFrame) -> Json:
    """Return counts that tell whether edges and links fit the items; empty without edges and links.

    Returns
    -------
    dict
        ``relations`` (edges of each), ``entities``, ``linked_items``; and what carries nothing: ``self_loops`` (head
        is tail), ``single_edge_relations`` (a relation with one edge: it can tie no two items), ``dangling_edges``
        (neither end is a linked entity or next to one), ``links_without_item`` (the item is not in the corpus),
        ``links_without_edge`` (the entity has no edge).

    Examples
    --------
    >>> edges = pl.DataFrame({"head": ["a", "b", "b"], "relation": ["by", "by", "as"], "tail": ["x", "x", "b"]})
    >>> links = pl.DataFrame({"platform": ["p", "p"], "item": ["1", "9"], "entity": ["a", "z"]})
    >>> items = pl.DataFrame({"platform": ["p"], "item": ["1"]})
    >>> notes = graph_notes(edges, links, items)
    >>> notes["self_loops"], notes["single_edge_relations"], notes["links_without_item"], notes["links_without_edge"]
    (1, ['as'], 1, 0)
    """
    if not edges.height and not links.height:
        return {}
    counts = edges.group_by("relation").len().sort("relation")
    here = links.join(items, on=["platform", "item"], how="semi")
    linked = here["entity"].unique()
    ends = pl.concat([edges["head"], edges["tail"]]).unique()
    notes: Json = {
        "relations": dict(counts.iter_rows()),
        "entities": ends.len(),
        "linked_items": here.select("platform", "item").n_unique() if here.height else 0,
        "self_loops": edges.filter(pl.col("head") == pl.col("tail")).height,
        "single_edge_relations": counts.filter(pl.col("len") == 1)["relation"].to_list(),
        "dangling_edges": _dangling(edges, linked),
        "links_without_item": links.height - here.height,
        "links_without_edge": here.filter(~pl.col("entity").is_in(ends.implode())).height,
    }
    if links.height and not here.height:
        logger.warning("no link names an item of the corpus, first %s", _examples(links))
    return notes


def _dangling(edges: pl.DataFrame, linked: pl.Series) -> int:
    """Return the number of edges that lie more than one edge away from every linked entity."""
    touched = edges.filter(pl.col("head").is_in(linked.implode()) | pl.col("tail").is_in(linked.implode()))
    near = pl.concat([linked, touched["head"], touched["tail"]]).unique()
    return edges.filter(~(pl.col("head").is_in(near.implode()) | pl.col("tail").is_in(near.implode()))).height


def _examples(links: pl.DataFrame) -> str:
    return ", ".join(f"{platform}:{item}" for platform, item, _ in links.head(_EXAMPLES).iter_rows())
