"""Works: the same story as book, film and soundtrack, matched by title, text and attributes over platforms."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.data.clean_texts import PLACEHOLDERS
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.errors import DataError
from isthmus.log import logger
from isthmus.recommender.titles import title_parts
from isthmus.types import Ints

#: From this score on two items are one work; reviewed on the pairs of ``tests/works_pairs.csv`` (see docs/persons.md).
THRESHOLD: Final = 0.61
#: Pairs down to this score are shown for review.
SHOWN: Final = 0.45
COLUMNS: Final = ("platform", "item", "title", "other_platform", "other_item", "other_title", "score", "same")
#: A title, or a beginning or an end, that more items share than this is too common to compare them all.
CROWD: Final = 40
#: What a title as long as this says for itself; a letter of an unspaced script counts four times.
_LONG: Final = 12.0
#: Titles of nearly one length that share so many letter pairs are spellings of one title.
_SPELT: Final = 0.85
_MAKERS: Final = (
    "maker|author|writer|director|artist|creator|composer|performer|singer|brand|publisher|studio|developer"
)
_YES: Final = ("yes", "y", "true", "1", "是", "same")
_NO: Final = ("no", "n", "false", "0", "否", "other")


def find_works(items: pl.DataFrame, *, least: float = SHOWN) -> pl.DataFrame:
    """Return pairs of items of different platforms or domains that may be one work.

    Parameters
    ----------
    items : polars.DataFrame
        The items table: platform, item, domain, title, and where there are any text, categories, attributes.
    least : float
        Pairs with a lower score are left out.

    Returns
    -------
    polars.DataFrame
        platform, item, title, other_platform, other_item, other_title, score (0 to 1), same (``yes`` from
        :data:`THRESHOLD` on, else ``no``); the surest first.

    Notes
    -----
    Compared are items whose title key is equal, or equal up to a subtitle, or which begin or end alike; titles with
    other numbers, or where one is a sequel, never match. The score is ``t (0.5 + 0.2 d) + 0.2 m + 0.05 y + 0.2 s +
    0.05 c``: likeness of titles ``t``, how much a title of that length says ``d``, a maker both name ``m`` (-1 if two
    items of one domain name different ones), years ``y`` (-1 if two items of one domain are more than 2 apart), cosine
    of TF-IDF texts ``s``, a common category ``c``. Weights are set by hand; the threshold was reviewed.

    Examples
    --------
    >>> items = pl.DataFrame({"platform": ["shop", "cinema", "cinema"], "item": ["b1", "f1", "f2"],
    ...     "domain": ["books", "films", "films"], "title": ["三体", "《三体》（电影版）", "三体 II"]})
    >>> find_works(items).select("item", "other_item", "score", "same").rows()
    [('b1', 'f1', 0.6333, 'yes')]
    """
    table = _described(items)
    pairs = _pairs(table)
    if pairs.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    score = _score(table, pairs).clip(0, 1).round(4)
    found = pairs.with_columns(score=pl.Series(score)).filter(pl.col("score") >= least)
    said = pl.when(pl.col("score") >= THRESHOLD).then(pl.lit("yes")).otherwise(pl.lit("no"))
    left, right = (items.select("platform", "item", "title")[found[side]] for side in ("left", "right"))
    right = right.rename({name: f"other_{name}" for name in right.columns})
    whole = pl.concat([left, right, found.select("score", same=said)], how="horizontal")
    order = ["score", "platform", "item", "other_platform", "other_item"]
    return whole.select(COLUMNS).sort(order, descending=[True, *[False] * 4])


def read_works(path: Path) -> pl.DataFrame:
    """Return the pairs of a reviewed file (CSV or TSV as :func:`find_works` writes it, edited) that are one work.

    Raises
    ------
    DataError
        The file cannot be read, lacks a column, or ``same`` is neither yes nor no.
    """
    if path.suffix not in (".csv", ".tsv"):
        raise DataError(f"the ending '{path.suffix}' tells no format", where=path, fix="use .csv or .tsv")
    try:
        table = pl.read_csv(path, separator="\t" if path.suffix == ".tsv" else ",", infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise DataError(reason, where=path, fix="write it with isthmus works") from None
    needed = ("platform", "item", "other_platform", "other_item", "same")
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise DataError(f"lacks column(s) {', '.join(missing)}", where=path, fix="write it with isthmus works")
    said = table["same"].fill_null("").str.strip_chars().str.to_lowercase()
    odd = table.filter(~said.is_in([*_YES, *_NO]))
    if odd.height:
        raise DataError(f"'same' of {odd.height} pair(s) is neither yes nor no", where=path, fix="write yes or no")
    return table.filter(said.is_in(_YES)).select(needed)


def work_codes(pairs: pl.DataFrame, items: pl.DataFrame) -> Ints:
    """Return the number of the work of each item, (N,): items joined by ``pairs`` (``same`` not no) share one.

    Pairs on items that the table does not have are left out, with a warning.

    Examples
    --------
    >>> items = pl.DataFrame({"platform": ["a", "b", "c"], "item": ["1", "1", "1"]})
    >>> pairs = pl.DataFrame({"platform": ["a"], "item": ["1"], "other_platform": ["c"], "other_item": ["1"]})
    >>> work_codes(pairs, items).tolist()
    [0, 1, 0]
    """
    same = pairs.filter(~pl.col("same").str.to_lowercase().is_in(_NO)) if "same" in pairs.columns else pairs
    index = items.select("platform", "item").with_row_index("left")
    other = index.rename({"platform": "other_platform", "item": "other_item", "left": "right"})
    keys = ["platform", "item", "other_platform", "other_item"]
    known = same.select(pl.col(keys).cast(pl.String)).join(index, on=keys[:2]).join(other, on=keys[2:])
    if known.height < same.height:
        logger.warning("%d pair(s) of works name an item that the model does not have", same.height - known.height)
    edges = (known["left"].to_numpy(), known["right"].to_numpy())
    graph = sparse.coo_array((np.ones(known.height, np.int8), edges), shape=(items.height, items.height))
    codes = sparse.csgraph.connected_components(graph, directed=False)[1]
    return np.asarray(codes, dtype=np.int64)


def _described(items: pl.DataFrame) -> pl.DataFrame:
    """Return row, place, domain, key, main, numbers, year, makers, text, themes of each item that has a title."""
    table = pl.concat([items.select("platform", "domain"), title_parts(items["title"])], how="horizontal")
    table = table.with_row_index("row")
    for name, kind in (("attributes", pl.String()), ("text", pl.String()), ("categories", pl.List(pl.String()))):
        table = table.with_columns(items[name] if name in items.columns else pl.lit(None, kind).alias(name))
    said = pl.col("attributes")
    named = said.str.extract_all(rf'(?i)"(?:{_MAKERS})s?"\s*:\s*(?:\[[^\]]*\]|"(?:[^"\\]|\\.)*")')
    quoted = named.list.eval(pl.element().str.replace(r'^"[^"]*"\s*:\s*', "")).list.join(" ")
    names = quoted.str.to_lowercase().str.replace_all(r"\s*(?:;|/|&| and )\s*", '" "').str.extract_all(r'"[^"]+"')
    makers = names.list.eval(pl.element().str.replace_all(r"[^\p{L}\p{N}]+", "")).fill_null([])
    year = said.str.extract(r'(?i)"(?:year|released?|date|release_date|published)"\s*:\s*"?((?:18|19|20)\d\d)')
    themes = pl.col("categories").list.eval(pl.element().str.to_lowercase().str.strip_chars()).fill_null([])
    place = pl.concat_str("platform", "domain", separator="\x1f")
    table = table.with_columns(
        place=place, makers=makers, themes=themes, year=pl.coalesce("year", year.cast(pl.Int64)), title=pl.col("key")
    )
    return table.filter(pl.col("key").is_not_null() & ~pl.col("key").is_in([*PLACEHOLDERS, "na"]))


def _pairs(table: pl.DataFrame) -> pl.DataFrame:
    """Return left, right (rows of the items table) of the pairs worth comparing."""
    tight = pl.col("key").str.replace_all(" ", "")
    blocks = [
        pl.col("key"),
        pl.col("main"),
        pl.when(tight.str.len_chars() >= 8).then(tight.str.slice(0, 7)),
        pl.when(tight.str.len_chars() >= 8).then(tight.str.slice(-7)),
    ]
    found = []
    for number, block in enumerate(blocks):
        near = table.select("row", "place", "numbers", block=block).filter(pl.col("block").is_not_null())
        near = near.filter(pl.len().over("block") <= CROWD)
        both = near.join(near, on=["block", "numbers"], suffix="_other")
        both = both.filter((pl.col("row") < pl.col("row_other")) & (pl.col("place") != pl.col("place_other")))
        found.append(both.select(left="row", right="row_other").with_columns(block=pl.lit(number)))
    return pl.concat(found).unique(["left", "right"], maintain_order=True).drop("block").sort("left", "right")


def _score(table: pl.DataFrame, pairs: pl.DataFrame) -> np.ndarray:
    place = np.zeros(int(table["row"].max()) + 1, np.int64)  # type: ignore[arg-type]
    place[table["row"].to_numpy()] = np.arange(table.height)
    left, right = (table[place[pairs[side].to_numpy()]] for side in ("left", "right"))
    one_domain = (left["domain"] == right["domain"]).to_numpy()
    alike = _alike(left["key"], right["key"])
    subtitled = ((left["main"] == right["key"]) | (left["key"] == right["main"])).to_numpy()
    longer = (left["key"].str.len_chars().cast(pl.Int64) - right["key"].str.len_chars().cast(pl.Int64)).abs() > 2
    spelt = (alike >= _SPELT) & ~longer.to_numpy()
    alike = np.where(subtitled, np.maximum(alike, 0.75), np.where(spelt, alike, 0.0))
    short = np.minimum(_length(left["main"]), _length(right["main"]))
    says = np.minimum(short / _LONG, 1)
    pair = pl.DataFrame({"a": left["makers"], "b": right["makers"], "c": left["themes"], "d": right["themes"]})
    common = pair.select(pl.col("a").list.set_intersection("b").list.len() > 0).to_series().to_numpy()
    both = pair.select((pl.col("a").list.len() > 0) & (pl.col("b").list.len() > 0)).to_series().to_numpy()
    maker = np.where(common, 1.0, np.where(both & one_domain, -1.0, 0.0))
    theme = pair.select(pl.col("c").list.set_intersection("d").list.len() > 0).to_series().to_numpy()
    apart = (left["year"] - right["year"]).abs().to_frame("d").select(pl.col("d").fill_null(-1)).to_series().to_numpy()
    year = np.where(apart < 0, 0.0, np.where(apart <= 1, 1.0, np.where((apart > 2) & one_domain, -1.0, 0.0)))
    text = _cosine(table, left["row"], right["row"])
    return np.asarray(alike * (0.5 + 0.2 * says) + 0.2 * maker + 0.05 * year + 0.2 * text + 0.05 * theme)


def _cosine(table: pl.DataFrame, left: pl.Series, right: pl.Series) -> np.ndarray:
    """Return the cosine of the TF-IDF vectors of the texts of each pair; 0 where one has none."""
    rows = pl.concat([left, right]).unique().sort()
    told = table.filter(pl.col("row").is_in(rows.implode()))
    texts = told["text"].fill_null("").to_list()
    if not any(texts):
        return np.zeros(len(left))
    vectors = TfidfEncoder.fit(texts).transform(texts)
    number = told["row"].to_numpy()
    one, other = (vectors[np.searchsorted(number, side.to_numpy())] for side in (left, right))
    return np.asarray(one.multiply(other).sum(axis=1), np.float64).ravel()


def _length(keys: pl.Series) -> np.ndarray:
    wide = keys.str.count_matches(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")
    return np.asarray((keys.str.len_chars() + 3 * wide).to_numpy(), np.float64)


def _alike(one: pl.Series, other: pl.Series) -> np.ndarray:
    """Return the Dice coefficient of the letter pairs of two titles, 0 to 1."""
    grams = [_grams(keys) for keys in (one, other)]
    both = grams[0].join(grams[1], on=["row", "gram"]).group_by("row").len()
    sizes = pl.DataFrame({"row": np.arange(len(one), dtype=np.uint32)})
    for name, part in zip(("a", "b"), grams, strict=True):
        sizes = sizes.join(part.group_by("row").len(name=name), on="row", how="left")
    sizes = sizes.join(both, on="row", how="left").sort("row").fill_null(0)
    dice = (2 * sizes["len"] / (sizes["a"] + sizes["b"])).fill_nan(0).to_numpy()
    return np.where((one == other).to_numpy(), 1.0, np.minimum(dice, 0.99))


def _grams(keys: pl.Series) -> pl.DataFrame:
    letters = pl.col("key").str.replace_all(" ", "").str.extract_all(r".")
    frame = keys.rename("key").to_frame().with_row_index("row").with_columns(letters=letters).drop("key")
    flat = frame.explode("letters", empty_as_null=True, keep_nulls=True).with_columns(
        gram=pl.col("letters") + pl.col("letters").shift(-1).over("row").fill_null("$")
    )
    return flat.select("row", "gram").unique()


_SCHEMA: Final = {name: pl.Float64() if name == "score" else pl.String() for name in COLUMNS}
