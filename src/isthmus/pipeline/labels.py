"""Items with a label: what the label is, what may be read once it is hidden, and who teaches, chooses and examines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.encode.template import Template
from isthmus.errors import InputError, nearest
from isthmus.rng import generator
from isthmus.split.temporal import CARD, Split
from isthmus.types import Codes, Ints

#: Kinds of label, besides ``attribute:NAME``.
KINDS: Final = ("category", "single-category", "domain")
#: Parts of the labelled items.
TEACH, CHOOSE, EXAMINE = 0, 1, 2
#: Share of the labelled items that choose, and that examine.
SHARE: Final = 0.2


@dataclass(frozen=True)
class Labelled:
    """The items of a domain, or of all, with a label each or none.

    Parameters
    ----------
    items : polars.DataFrame
        The whole items table of the corpus without the labels: all that may be read.
    texts : tuple of str
        Text of each of them, N.
    rows : int64 array (n,)
        Items that take part: those of the domain with a text.
    names : tuple of str
        The C classes.
    codes : int64 array (n,)
        Class of each; -1 for none.
    parts : int8 array (n,)
        Teaches (0), chooses (1) or examines (2); -1 without a label, or left out.
    named : float
        Share of the labelled items whose text has the name of their class in it.
    rare : int
        Items whose label too few share.
    hidden : tuple of str
        Names of all classes, those of too few items too: what ``hide_names`` cuts out.
    """

    items: pl.DataFrame
    texts: tuple[str, ...]
    rows: Ints
    names: tuple[str, ...]
    codes: Ints
    parts: Codes
    named: float
    rare: int
    hidden: tuple[str, ...] = ()

    def of(self, *parts: int) -> tuple[Ints, Ints]:
        """Return the items of some parts, and their classes."""
        chosen = np.isin(self.parts, parts)
        return self.rows[chosen], self.codes[chosen]

    @property
    def unlabelled(self) -> Ints:
        """Items with a text and no label."""
        return self.rows[self.codes < 0]


@dataclass(frozen=True)
class LabelSettings:
    """Which label, and of which items.

    Parameters
    ----------
    label : str
        ``category`` (the last that an item names, the finest in most shops), ``single-category`` (of items that name
        exactly one), ``domain``, or ``attribute:NAME``.
    target : str, optional
        Domain of the items; all for the label ``domain``.
    least : int
        Items that a class needs.
    share : float
        Share of the items that could teach which do, in (0, 1].
    hide_names : bool
        Whether the names of the classes are cut out of titles and texts.
    seed : int
        Who teaches and who examines.

    Raises
    ------
    InputError
        No such label, no target, or impossible numbers.
    """

    label: str = "category"
    target: str | None = None
    least: int = 10
    share: float = 1.0
    hide_names: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        kind, _, name = self.label.partition(":")
        if self.label not in KINDS and not (kind == "attribute" and name):
            hint = nearest(self.label, [*KINDS, "attribute:NAME"])
            raise InputError(f"no label '{self.label}'{hint}", fix=f"use {', '.join(KINDS)} or attribute:NAME")
        if self.target is None and self.label != "domain":
            raise InputError(f"label {self.label} needs a target", where="--target", fix="name a domain")
        if self.least < 2 or not 0 < self.share <= 1:
            raise InputError(
                f"least {self.least} and share {self.share} are impossible", fix="least 2, share in (0, 1]"
            )


def open_items(path: Path) -> Split:
    """Return the split in folder ``path``, or a split without events over the corpus there."""
    if (path / CARD).is_file():
        return Split.open(path)
    corpus = Corpus.open(path)
    none = corpus.interactions().clear().with_columns(part=pl.lit(None, pl.UInt8))
    return Split(corpus, none, {"protocol": "items only", "fingerprint": corpus.fingerprint})


def labelled(corpus: Corpus, how: LabelSettings) -> Labelled:
    """Return the labelled items of a corpus, each label hidden from what is read of the items.

    Items with the same text go to the same part, so that no text both teaches and examines.

    Raises
    ------
    InputError
        No such domain, or there are not two classes with enough items in every part.
    """
    items = corpus.items
    here = pl.Series([True] * items.height)
    if how.target is not None and how.label != "domain":
        here = items["domain"] == corpus.require_domain(how.target)
    label = pl.Series(_labels(items, how.label), dtype=pl.String)
    hidden = sorted(name for name in label.filter(here).unique().to_list() if name)
    read = without_label(items, how, hidden)
    texts = Template().render(read)
    table = pl.DataFrame({"row": np.arange(items.height), "label": label, "text": texts}).filter(here)
    table = table.filter(pl.col("text") != "").with_columns(
        enough=pl.col("label").is_not_null() & (pl.len().over("label") >= how.least)
    )
    names = sorted(table.filter("enough")["label"].unique().to_list())
    if len(names) < 2:
        raise InputError(
            f"there are not two classes of {how.label} with {how.least} items each to tell apart",
            where=corpus.name if how.target is None else f"domain '{how.target}'",
            fix="take another --label, or a smaller --least",
        )
    code = pl.when("enough").then(pl.col("label").replace_strict(names, range(len(names)), default=-1)).otherwise(-1)
    rare = table.filter(pl.col("label").is_not_null() & ~pl.col("enough")).height
    table = table.filter(pl.col("enough") | pl.col("label").is_null()).with_columns(code=code)
    parts = _parts(table, how)
    for part, what in ((TEACH, "teach"), (CHOOSE, "choose"), (EXAMINE, "examine")):
        if not (parts == part).any():
            raise InputError(f"no labelled item is left to {what}", where=corpus.name, fix="label more items")
    said = table.filter(pl.col("code") >= 0)
    lower = pl.col("text").str.to_lowercase()
    named = said.select(lower.str.contains(pl.col("label").str.to_lowercase(), literal=True).mean()).item()
    return Labelled(
        items=read,
        texts=tuple(texts.to_list()),
        rows=table["row"].to_numpy().astype(np.int64),
        names=tuple(names),
        codes=table["code"].to_numpy().astype(np.int64),
        parts=parts,
        named=float(named),
        rare=rare,
        hidden=tuple(hidden),
    )


def hidden_split(split: Split, items: pl.DataFrame) -> Split:
    """Return the split with another items table of the same items."""
    corpus = split.corpus
    tables = {name: getattr(corpus, name) for name in ("events", "users", "identities", "edges", "links", "rules")}
    return Split(Corpus({**tables, "items": items}, corpus.manifest), split.events, split.card)


def _labels(items: pl.DataFrame, label: str) -> pl.Series:
    """Return the label of each item, null for none."""
    if label == "domain":
        return items["domain"]
    if label in ("category", "single-category"):
        if not isinstance(items.schema["categories"], pl.List):
            return pl.Series([None] * items.height, dtype=pl.String)
        last = pl.col("categories").list.last()
        chosen = last if label == "category" else pl.when(pl.col("categories").list.len() == 1).then(last)
        return items.select(chosen.replace("", None)).to_series()
    name = label.partition(":")[2]
    if name in items.columns:
        raise InputError(f"'{name}' is a column, no attribute", where="--label", fix="name a key of the attributes")
    return items.select(Template(parts=(name,)).render(items).replace("", None)).to_series()


def without_label(items: pl.DataFrame, how: LabelSettings, names: Sequence[str]) -> pl.DataFrame:
    """Return the items table without what the label is made of; ``names`` are those of the classes."""
    kind, _, name = how.label.partition(":")
    if kind.endswith("category"):
        items = items.with_columns(categories=pl.lit(None, items.schema["categories"]))
    if kind == "attribute":
        items = items.with_columns(
            attributes=pl.Series([_drop(text, name) for text in items["attributes"]], dtype=pl.String)
        )
    if how.hide_names and names:
        words = "|".join(sorted((_escaped(word) for word in names), key=len, reverse=True))
        items = items.with_columns(pl.col("title", "text").str.replace_all(f"(?i){words}", " "))
    return items


def _drop(attributes: str | None, name: str) -> str | None:
    if attributes is None or name not in attributes:
        return attributes
    return json.dumps({key: value for key, value in json.loads(attributes).items() if key != name}, ensure_ascii=False)


def _escaped(word: str) -> str:
    import re

    return re.escape(word)


def _parts(table: pl.DataFrame, how: LabelSettings) -> Codes:
    """Return the part of each item, (n,): drawn by text."""
    rng = generator(how.seed, "labels", how.label)
    group = table["text"].rank("dense").to_numpy().astype(np.int64) - 1
    drawn = rng.random(int(group.max()) + 1)[group]
    kept = rng.random(int(group.max()) + 1)[group] < how.share
    parts = np.where(drawn < SHARE, EXAMINE, np.where(drawn < 2 * SHARE, CHOOSE, TEACH))
    parts[(parts == TEACH) & ~kept] = -1
    parts[table["code"].to_numpy() < 0] = -1
    return parts.astype(np.int8)
