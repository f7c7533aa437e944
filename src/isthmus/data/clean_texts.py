"""Cleaning of words: markup, HTML entities, Unicode forms, white space and placeholder titles."""

from __future__ import annotations

import html
from typing import Final

import polars as pl

from isthmus.data.spec import Clean

#: Titles that say nothing, as they stand after normalisation, in lower case.
PLACEHOLDERS: Final[tuple[str, ...]] = (
    *("n/a", "na", "nan", "null", "none", "nil", "untitled", "no title", "notitle", "unknown", "undefined", "tbd"),
    *("title", "-", "--", "---", ".", "..", "...", "?", "??", "???", "_", "#n/a", "[deleted]", "(untitled)"),
    *(
        "无标题",
        "無標題",
        "未命名",
        "未知",
        "暂无",
        "暫無",
        "无",
        "無",
        "タイトルなし",
        "無題",
        "제목 없음",
    ),
)

_BLOCKS = r"(?is)<(script|style)\b[^<>]*>.*?</(?:script|style)\s*>"
_TAGS = r"(?s)<!--.*?-->|</?[A-Za-z][^<>]*>|<!\[CDATA\[|\]\]>"
_CONTROL = r"[\x00-\x08\x0e-\x1f\x7f\u200b\u200e\u200f\ufeff]"


def clean_text(texts: pl.Series, clean: Clean) -> pl.Series:
    """Return texts without markup and HTML entities, in Unicode form NFKC, white space single; empty becomes null.

    Examples
    --------
    >>> clean_text(pl.Series(["<b>Tea</b> &amp;  Ｃake", "  "]), Clean()).to_list()
    ['Tea & Cake', None]
    """
    out = texts.cast(pl.String)
    if clean.markup:
        out = _entities(_tags(_entities(out)))
    if clean.unicode:
        out = out.str.normalize("NFKC").str.replace_all(_CONTROL, "").str.replace_all(r"\s+", " ")
    frame = out.str.strip_chars().to_frame("text")
    return frame.select(pl.when(pl.col("text") != "").then(pl.col("text")).alias(texts.name))[texts.name]


def clean_title(titles: pl.Series, clean: Clean) -> pl.Series:
    """Return cleaned titles; placeholders such as "n/a" or "无标题" become null.

    Examples
    --------
    >>> clean_title(pl.Series(["Untitled", "无标题", "Dune"]), Clean()).to_list()
    [None, None, 'Dune']
    """
    out = clean_text(titles, clean)
    if not clean.placeholders:
        return out
    says_nothing = [*PLACEHOLDERS, *(word.lower() for word in clean.placeholder_titles)]
    frame = out.to_frame("title")
    kept = pl.when(~pl.col("title").str.to_lowercase().is_in(says_nothing)).then(pl.col("title"))
    return frame.select(kept.alias(titles.name))[titles.name]


def _tags(texts: pl.Series) -> pl.Series:
    if not texts.str.contains("<", literal=True).any():
        return texts
    return texts.str.replace_all(_BLOCKS, " ").str.replace_all(_TAGS, " ")


def _entities(texts: pl.Series) -> pl.Series:
    """Undo HTML entities; only the distinct texts that have one are touched."""
    escaped = texts.filter(texts.str.contains(r"&(#|[A-Za-z])")).unique()
    if escaped.is_empty():
        return texts
    plain = [html.unescape(text) for text in escaped]
    return texts.replace(escaped, pl.Series(plain, dtype=pl.String))
