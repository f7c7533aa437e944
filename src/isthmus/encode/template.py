"""Prompt template: the columns of an item become the one text that an encoder reads."""

from __future__ import annotations

from typing import Final

import polars as pl
from pydantic import Field

from isthmus.config import Settings

_EDGES: Final = " \t\r\n.,;:·。，；：、"


class Template(Settings):
    """Which parts of an item make up its text, in which order, and how they are joined.

    A name in ``parts`` is a column of the items table (title, categories, text, domain, …) or else a key of its
    JSON column ``attributes`` (brand, author, …). A part that is missing or blank vanishes with its label and its
    separator. ``description`` is another word for ``text``.

    Parameters
    ----------
    parts : tuple of str
        Parts in order.
    labels : dict of str to str
        Words put before a part, such as ``{"brand": "by "}``.
    separator : str
        Put between parts.
    prefix : str
        Put before every text that is not empty, such as the ``"passage: "`` some models were trained with.
    max_chars : int
        Longest text, in characters.

    Examples
    --------
    >>> items = pl.DataFrame({"title": ["Tea", None], "categories": [["Food", "Drinks"], None],
    ...                       "text": [None, " "], "attributes": ['{"brand": "Yamamoto"}', None]})
    >>> Template(labels={"brand": "by "}).render(items).to_list()
    ['Tea. Food, Drinks. by Yamamoto', '']
    """

    parts: tuple[str, ...] = Field(default=("title", "categories", "brand", "text"), min_length=1)
    labels: dict[str, str] = Field(default_factory=dict)
    separator: str = ". "
    prefix: str = ""
    max_chars: int = Field(default=4000, ge=1)

    def render(self, items: pl.DataFrame) -> pl.Series:
        """Return the text of each row of ``items``: String, no nulls, empty where an item has no part."""
        parts = [self._part(items, name) for name in self.parts]
        joined = pl.concat_str(parts, separator=self.separator, ignore_nulls=True)
        joined = joined.str.normalize("NFC").str.slice(0, self.max_chars)
        text = pl.when(joined != "").then(pl.lit(self.prefix) + joined).otherwise(pl.lit("")).alias("text")
        return items.select(text).to_series()

    def _part(self, items: pl.DataFrame, name: str) -> pl.Expr:
        found = _column(items, "text" if name == "description" else name)
        clean = found.str.strip_chars_start().str.strip_chars_end(_EDGES)
        label = self.labels.get(name, "")
        return pl.when(clean != "").then(pl.lit(label) + clean)


def _column(items: pl.DataFrame, name: str) -> pl.Expr:
    """Return the part called ``name`` as text: a column, else an attribute, else null."""
    if name in items.columns:
        if isinstance(items.schema[name], pl.List):
            words = pl.col(name).list.eval(pl.element().cast(pl.String).replace("", None)).list.drop_nulls()
            return words.list.join(", ")
        return pl.col(name).cast(pl.String)
    if "attributes" not in items.columns:
        return pl.lit(None, dtype=pl.String)
    key = name.replace("\\", "\\\\").replace("'", "\\'")
    found = pl.col("attributes").str.json_path_match(f"$['{key}']")
    listed = found.str.starts_with("[") & found.str.ends_with("]")
    plain = found.str.strip_chars("[]").str.replace_all('","', ", ", literal=True).str.strip_chars('"')
    return pl.when(listed).then(plain).otherwise(found)
