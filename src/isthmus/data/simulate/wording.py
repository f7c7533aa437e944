"""Titles and descriptions of made-up items, in English and Chinese, from the word lists in ``data/town/words.toml``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, cast

import numpy as np
import polars as pl

from isthmus.config import read_toml
from isthmus.types import Bools, Ints

WORDS: Final = Path(__file__).parents[1] / "town" / "words.toml"
_SMALL: Final = frozenset({"a", "an", "and", "before", "for", "from", "in", "of", "the", "to", "with"})
_ARTICLE: Final = re.compile(r"\b([Aa])(?= (?!eu)[aeiou])")
_SLOTS: Final = {"thing": "things", "place": "places", "mood": "moods", "figure": "figures"}

Words = dict[str, list[str]]


@dataclass(frozen=True)
class Lexicon:
    """Word lists: ``themes[t][lang]`` lists of words, ``makers[lang]`` names, ``styles[style][lang]`` templates."""

    names: list[str]
    themes: list[dict[str, Words]]
    makers: Words
    styles: dict[str, dict[str, Words]]


@cache
def lexicon() -> Lexicon:
    """Return the word lists of the town."""
    content = read_toml(WORDS)
    themes = cast("list[dict[str, Words]]", content["theme"])
    styles = {key: value for key, value in content.items() if key not in ("theme", "makers")}
    return Lexicon(
        names=[cast("str", theme["name"]) for theme in themes],
        themes=themes,
        makers=cast("Words", content["makers"]),
        styles=cast("dict[str, dict[str, Words]]", styles),
    )


def compose(rng: np.random.Generator, style: str, themes: Ints, strands: Ints, chinese: Bools) -> pl.DataFrame:
    """Return the words of ``N`` items of one domain.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    style : str
        Which templates: ``books``, ``films`` or ``music``.
    themes, strands : int64 arrays (N,)
        Theme of each item, and the strand inside it: items of one theme and strand have one maker.
    chinese : bool array (N,)
        Items written in Chinese.

    Returns
    -------
    polars.DataFrame
        title, text, categories, attributes (JSON with the maker), lang; no title repeats. Texts are in NFKC form.
    """
    words = lexicon()
    draws = rng.integers(0, 1 << 30, size=(themes.size, len(_SLOTS) + 2)).tolist()
    rows = [
        _one(words, style, theme, strand, "zh" if zh else "en", draw)
        for theme, strand, zh, draw in zip(themes.tolist(), strands.tolist(), chinese.tolist(), draws, strict=True)
    ]
    frame = pl.DataFrame(
        rows,
        orient="row",
        schema={
            "title": pl.String,
            "text": pl.String,
            "categories": pl.List(pl.String),
            "attributes": pl.String,
            "lang": pl.String,
        },
    )
    volume = pl.int_range(1, pl.len() + 1).over("title")
    return frame.with_columns(pl.col("title", "text").str.normalize("NFKC")).with_columns(
        title=pl.when(volume > 1).then(pl.col("title") + " " + volume.cast(pl.String)).otherwise("title")
    )


def _one(
    words: Lexicon, style: str, theme: int, strand: int, lang: str, draw: list[int]
) -> tuple[str, str, list[str], str, str]:
    lists, templates = words.themes[theme][lang], words.styles[style][lang]
    slots = {slot: _pick(lists[name], number) for (slot, name), number in zip(_SLOTS.items(), draw, strict=False)}
    makers = words.makers[lang]
    slots["maker"] = makers[(5 * theme + 4 * strand + 3 * len(style)) % len(makers)]
    slots["other"] = _pick([thing for thing in lists["things"] if thing != slots["thing"]], draw[1] // 7)
    title = _ARTICLE.sub(r"\1n", _pick(templates["titles"], draw[-1]).format(**slots))
    text = _ARTICLE.sub(r"\1n", _pick(templates["texts"], draw[-2]).format(**slots))
    shelf = cast("str", cast("object", lists["shelf"]))
    maker = json.dumps({"maker": slots["maker"]}, ensure_ascii=False)
    return headline(title) if lang == "en" else title, text, [shelf], maker, lang


def _pick(choices: list[str], number: int) -> str:
    return choices[number % len(choices)]


def headline(text: str) -> str:
    """Return ``text`` with the capitals of an English title.

    Examples
    --------
    >>> headline("the last coral reef of Chang'an")
    "The Last Coral Reef of Chang'an"
    """
    words = text.split(" ")
    raised = [word if word in _SMALL else word[:1].upper() + word[1:] for word in words]
    return " ".join([words[0][:1].upper() + words[0][1:], *raised[1:]])
