"""A neighbourhood of the graph told in words, for a language model to read: nothing is trained, new items work too."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

import polars as pl

from isthmus.encode.graph import Graph

#: Names of one relation that are told, at most.
MOST: Final = 5
#: How some relations are said; others by their own name. Read from the tail, a relation is said as the second.
PHRASES: Final[dict[str, tuple[str, str]]] = {
    "director": ("directed by", "director of"),
    "writer": ("written by", "writer of"),
    "author": ("written by", "author of"),
    "producer": ("produced by", "producer of"),
    "starring": ("starring", "plays in"),
    "musicComposer": ("music by", "composer of"),
    "cinematography": ("photographed by", "photographer of"),
    "editing": ("edited by", "editor of"),
    "narrator": ("narrated by", "narrator of"),
    "basedOn": ("based on", "adapted as"),
    "series": ("part of the series", "series with"),
    "previousWork": ("follows", "followed by"),
    "subsequentWork": ("followed by", "follows"),
    "literaryGenre": ("genre", "genre of"),
    "bandMember": ("with", "member of"),
    "formerBandMember": ("formerly with", "former member of"),
    "associatedBand": ("goes with", "goes with"),
    "associatedMusicalArtist": ("goes with", "goes with"),
    "recordLabel": ("on the label", "label of"),
}
_SCHEME: Final = re.compile(r"^(?:https?://\S*[/#]|\w+:)")


def entity_name(entity: str) -> str:
    """Return an entity as a reader would say it.

    Examples
    --------
    >>> entity_name("http://dbpedia.org/resource/Harry_Potter_(film_series)"), entity_name("作者:刘慈欣")
    ('Harry Potter', '刘慈欣')
    """
    name = unquote(_SCHEME.sub("", entity)).replace("_", " ").strip()
    return re.sub(r"\s*\([^()]*\)$", "", name) or name


def relation_name(relation: str, *, back: bool = False) -> str:
    """Return a relation as a reader would say it.

    Examples
    --------
    >>> relation_name("dbo:musicComposer"), relation_name("dbo:sisterShip"), relation_name("dbo:author", back=True)
    ('music by', 'sister ship', 'author of')
    """
    bare = _SCHEME.sub("", relation)
    if bare in PHRASES:
        return PHRASES[bare][back]
    said = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", bare).replace("_", " ").lower()
    return f"{said} of" if back else said


def verbalise(graph: Graph, items: pl.DataFrame) -> pl.Series:
    """Return what the graph tells of each row of ``items``, (N,) texts; empty where it tells nothing.

    Of each relation the entities that fewest items share come first, :data:`MOST` of them.

    Examples
    --------
    >>> triples = [("w:Dune", "author", "w:Frank_Herbert"), ("w:Dune", "genre", "w:SF")]
    >>> edges = pl.DataFrame(triples, schema=["head", "relation", "tail"], orient="row")
    >>> links = pl.DataFrame({"platform": ["shop"], "item": ["1"], "entity": ["w:Dune"]})
    >>> verbalise(Graph(edges, links), pl.DataFrame({"platform": ["shop", "shop"], "item": ["1", "2"]})).to_list()
    ['written by Frank Herbert; genre SF', '']
    """
    rows, entities = graph.entities_of(items)
    own = pl.DataFrame({"row": rows, "entity": graph.entities.gather(entities)})
    edges = graph.edges.filter(pl.col("head") != pl.col("tail"))
    parts = [
        own.join(edges, left_on="entity", right_on=near).select("row", "relation", other=far, back=pl.lit(back))
        for near, far, back in (("head", "tail", False), ("tail", "head", True))
    ]
    ties = pl.concat(parts).unique(maintain_order=True)
    shared = ties.group_by("other").len("shared")
    ties = ties.join(shared, on="other").sort("row", "back", "relation", "shared", "other")
    words = ties.with_columns(_said(ties, "relation", "back"), _names(ties["other"]))
    told = (
        words.unique(["row", "phrase", "name"], keep="first", maintain_order=True)
        .group_by("row", "phrase", maintain_order=True)
        .agg(pl.col("name").head(MOST).str.join(", "))
        .group_by("row", maintain_order=True)
        .agg((pl.col("phrase") + " " + pl.col("name")).str.join("; ").alias("told"))
    )
    every = pl.DataFrame({"row": pl.int_range(items.height, dtype=pl.Int32, eager=True)})
    return every.join(told, on="row", how="left", maintain_order="left")["told"].fill_null("")


def told_items(graph: Graph, items: pl.DataFrame) -> pl.DataFrame:
    """Return ``items`` with what the graph tells of each put after its text."""
    told = verbalise(graph, items)
    text = pl.col("text") if "text" in items.columns else pl.lit(None, dtype=pl.String)
    joined = pl.concat_str(text, pl.when(told != "").then(told), separator=". ", ignore_nulls=True)
    return items.with_columns(text=pl.when(joined != "").then(joined))


def _said(ties: pl.DataFrame, relation: str, back: str) -> pl.Series:
    kinds = ties.select(relation, back).unique()
    phrases = pl.Series("phrase", [relation_name(name, back=flag) for name, flag in kinds.iter_rows()], dtype=pl.String)
    return ties.join(kinds.with_columns(phrases), on=[relation, back], how="left", maintain_order="left")["phrase"]


def _names(entities: pl.Series) -> pl.Series:
    known = entities.unique()
    names = pl.DataFrame({"other": known, "name": pl.Series([entity_name(word) for word in known], dtype=pl.String)})
    return entities.to_frame("other").join(names, on="other", how="left", maintain_order="left")["name"]
