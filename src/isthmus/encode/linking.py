"""Which entity of a graph an item is, told by its name, where no links are given."""

from __future__ import annotations

from typing import Final

import polars as pl

from isthmus.encode.verbalise import entity_name

_YEAR: Final = r"\(.*?(\d{4}).*?\)\s*$"
_ARTICLE: Final = r"^(.*), (the|a|an|der|die|das|le|la|les|el|il)$"


def link_by_name(items: pl.DataFrame, entities: pl.Series) -> pl.DataFrame:
    """Return the links that names tell: platform, item, entity; at most one an item.

    Names are compared without case and signs, what stands in brackets, and a leading article moved to the
    end. Where several entities have the name of an item, the one with the item's year in its brackets is taken; if
    none has, or several have, the item is not linked: a wrong link does more harm than none.

    Parameters
    ----------
    items : polars.DataFrame
        Columns platform, item, title.
    entities : polars.Series
        Entities, such as those with an edge.

    Examples
    --------
    >>> titles = ["Matrix, The (1999)", "Solaris (2002)"]
    >>> items = pl.DataFrame({"platform": ["p"] * 2, "item": ["1", "2"], "title": titles})
    >>> known = pl.Series(["w:The_Matrix", "w:Solaris_(1972_film)", "w:Solaris_(2002_film)"])
    >>> link_by_name(items, known)["entity"].to_list()
    ['w:The_Matrix', 'w:Solaris_(2002_film)']
    """
    known = entities.unique().sort()
    names = pl.Series("name", [entity_name(word) for word in known], dtype=pl.String)
    table = pl.DataFrame({"entity": known, "name": names}).select("entity", key=_key("name"), year_of=_year("entity"))
    wanted = items.select("platform", "item", key=_key("title"), year=_year("title")).drop_nulls("key")
    pairs = wanted.filter(pl.col("key") != "").join(table, on="key")
    same = (pl.col("year") == pl.col("year_of")).fill_null(False)
    other = (pl.col("year") != pl.col("year_of")).fill_null(False)
    possible = pairs.filter(~other).with_columns(exact=same)
    best = possible.filter(pl.col("exact") == pl.col("exact").max().over("platform", "item"))
    alone = best.filter(pl.len().over("platform", "item") == 1)
    return alone.select("platform", "item", "entity").sort("platform", "item")


def link_quality(found: pl.DataFrame, labelled: pl.DataFrame) -> dict[str, float]:
    """Return ``precision`` and ``recall`` of links against labelled ones, and the number ``checked``.

    Precision is over the found links of items with a label, recall over all labelled items.
    """
    checked = found.join(labelled, on=["platform", "item"], how="semi")
    right = checked.join(labelled, on=["platform", "item", "entity"], how="semi").height
    wanted = labelled.select("platform", "item").n_unique()
    return {
        "precision": right / checked.height if checked.height else 0.0,
        "recall": right / wanted if wanted else 0.0,
        "checked": float(checked.height),
    }


def _key(column: str) -> pl.Expr:
    bare = pl.col(column).str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s*\([^()]*\)", "")
    moved = bare.str.strip_chars().str.replace(_ARTICLE, "${2} ${1}")
    return moved.str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()


def _year(column: str) -> pl.Expr:
    return pl.col(column).str.extract(_YEAR)
