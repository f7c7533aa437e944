"""Behaviour as language: what a person did, over all platforms, as sentences a language model reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.data.phrases import BARE, ESCAPES, Grammar, Language, Order, Told, grammar, parse
from isthmus.errors import InputError
from isthmus.types import EVENT_WEIGHTS, EVENTS, Ints

__all__ = ["Style", "Told", "narrate", "parse", "story"]

CountTokens = Callable[[list[str]], Sequence[int]]
_WIDE: Final = r"[\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF\uFF00-\uFFEF]"


@dataclass(frozen=True)
class Style:
    """How events are told and which are kept when there is no room for all.

    Parameters
    ----------
    order : str
        ``oldest`` tells from old to new ("…, then …"), ``newest`` from new to old ("…, before that …").
    weights : mapping of event to float
        How much an event is worth; events of weight 0 are not told.
    half_life : float
        After how many newer events an event is worth half.
    counted : collection of str
        Platforms whose values are numbers of times, where others have seconds.
    """

    order: Order = "oldest"
    weights: Mapping[str, float] = field(default_factory=lambda: EVENT_WEIGHTS)
    half_life: float = 10.0
    counted: Collection[str] = ()


def story(corpus: Corpus) -> pl.DataFrame:
    """Return all events of all persons in time order, with what it takes to tell them.

    Returns
    -------
    polars.DataFrame
        person (u32), platform, event, title (the item's id where it has none), value (f64 or null), ts;
        sorted by person, then time. Filter it (by time, by platform) before telling a part of it.
    """
    persons = pl.DataFrame({"name": corpus.persons}).with_row_index("number")
    accounts = corpus.identities.join(persons, left_on="person", right_on="name").select("platform", "user", "number")
    titles = corpus.items.select("platform", "item", pl.coalesce("title", "item").alias("title"))
    return (
        corpus.events.lazy()
        .join(accounts.lazy(), on=["platform", "user"], maintain_order="left")
        .join(titles.lazy(), on=["platform", "item"], maintain_order="left")
        .select("platform", "event", "title", "value", "ts", person="number")
        .select("person", "platform", "event", "title", "value", "ts")
        .sort("person", "ts", maintain_order=True)
        .collect()
    )


def narrate(
    source: Corpus | pl.DataFrame,
    persons: Ints | None = None,
    *,
    language: Language = "en",
    max_tokens: int = 512,
    count_tokens: CountTokens | None = None,
    style: Style = Style(),
) -> pl.DataFrame:
    """Tell what each person did, in English or Chinese.

    A platform is named where it changes. Within ``max_tokens`` the events kept are those of the highest
    ``weight * 0.5 ** (newer events / half_life)``: the newest of a kind first, and a purchase longer than a view.

    Parameters
    ----------
    source : Corpus or polars.DataFrame
        A corpus, or a frame like that of :func:`story` (sorted by person and time).
    persons : int64 array (B,), optional
        Which persons, all if not given.
    language : str
        ``en`` or ``zh``.
    max_tokens : int
        Room for one person's text.
    count_tokens : callable, optional
        Number of tokens of each of many texts, as the language model counts them. Default: one for each
        Chinese, Japanese or Korean character, and one for each three others begun.
    style : Style
        Order and weights.

    Returns
    -------
    polars.DataFrame
        person (u32), text; one row a person in the order asked for, an empty text for nothing to tell.

    Examples
    --------
    >>> from datetime import datetime
    >>> frame = pl.DataFrame({"person": [0, 0], "platform": ["books"] * 2, "event": ["view", "rate"],
    ...     "title": ["Reef", "Wreck"], "value": [None, 0.9], "ts": [datetime(2024, 1, 1), datetime(2024, 1, 2)]})
    >>> narrate(frame)["text"][0]
    'viewed "Reef" on books, then rated 4.5 of 5 "Wreck".'
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens}", fix="give at least 1")
    rules = grammar(language)
    events = story(source) if isinstance(source, Corpus) else source
    asked = events.select(pl.col("person").unique().sort()) if persons is None else pl.DataFrame({"person": persons})
    asked = asked.cast({"person": pl.UInt32})
    told = _clauses(events.cast({"person": pl.UInt32}).join(asked, on="person", how="semi"), rules, style)
    kept = _fit(told, rules, max_tokens, count_tokens or estimate, style)
    return asked.join(_join(kept, rules, style), on="person", how="left", maintain_order="left").with_columns(
        pl.col("text").fill_null("")
    )


def estimate(texts: list[str]) -> list[int]:
    """Return about how many tokens a language model makes of each text, rather too many than too few."""
    text = pl.Series("text", texts, dtype=pl.String)
    wide = text.str.count_matches(_WIDE).cast(pl.Int64)
    other = text.str.len_chars().cast(pl.Int64) - wide
    return (wide + (other + 2) // 3).to_list()


def _clauses(events: pl.DataFrame, rules: Grammar, style: Style) -> pl.DataFrame:
    """Return the events worth telling with columns weight, clause (without its place) and platform (quoted)."""
    value = pl.when(pl.col("value").is_finite()).then("value")
    shown = pl.when(pl.col("event") == "rate").then((value * 5).round(2)).otherwise(value.round(2))
    number = shown.cast(pl.String).str.strip_suffix(".0")
    counted = pl.col("platform").is_in(list(style.counted))
    kind = (
        pl.when(value.is_null())
        .then(pl.lit(""))
        .when(pl.col("event") == "rate")
        .then(pl.lit("rated"))
        .when(counted)
        .then(pl.lit("times"))
        .otherwise(pl.lit("seconds"))
    )
    return (
        events.with_columns(kind=kind, number=number.fill_null(""), place=_place(rules))
        .join(_phrases(rules, style), on=["event", "kind"], maintain_order="left")
        .with_columns(
            clause=pl.col("template")
            .str.replace("{v}", pl.col("number"), literal=True)
            .str.replace("{t}", _quote("title", rules.quotes), literal=True)
        )
        .select("person", "place", "clause", "weight")
    )


def _phrases(rules: Grammar, style: Style) -> pl.DataFrame:
    rows = [
        (event, kind, rules.template(event, kind), float(style.weights[event]))
        for event in EVENTS
        if style.weights.get(event, 0) > 0
        for kind in ("", "rated" if event == "rate" else "seconds", "times")
    ]
    return pl.DataFrame(rows, orient="row", schema=["event", "kind", "template", "weight"])


def _quote(column: str, quotes: tuple[str, str]) -> pl.Expr:
    escapes = {**ESCAPES, quotes[1]: "\\" + quotes[1]}
    inside = pl.col(column).fill_null("").str.replace_many(list(escapes), list(escapes.values()))
    return pl.lit(quotes[0]) + inside + pl.lit(quotes[1])


def _place(rules: Grammar) -> pl.Expr:
    quoted = _quote("platform", rules.place_quotes)
    if not rules.bare:
        return quoted
    return pl.when(pl.col("platform").str.contains(f"^{BARE}$")).then("platform").otherwise(quoted)


def _placed(rules: Grammar) -> pl.Expr:
    return pl.format(rules.place.replace("{c}", "{}").replace("{p}", "{}"), *_placed_parts(rules))


def _placed_parts(rules: Grammar) -> tuple[str, str]:
    return ("clause", "place") if rules.place.index("{c}") < rules.place.index("{p}") else ("place", "clause")


def _fit(told: pl.DataFrame, rules: Grammar, max_tokens: int, count_tokens: CountTokens, style: Style) -> pl.DataFrame:
    """Return the clauses that fit; each is counted with its place and a joiner, so the text is never longer."""
    whole = told.select((_placed(rules) + rules.joiners[style.order]).alias("text"))["text"].to_list()
    age = pl.len().over("person") - 1 - pl.int_range(pl.len()).over("person")
    tokens = pl.Series("tokens", list(count_tokens(whole)), dtype=pl.Int64)
    ranked = (
        told.with_columns(tokens, age=age)
        .with_row_index("row")
        .filter(pl.col("tokens") <= max_tokens)
        .with_columns(worth=pl.col("weight") * 0.5 ** (pl.col("age") / style.half_life))
        .sort("person", "worth", "age", descending=[False, True, False])
    )
    return ranked.filter(pl.col("tokens").cum_sum().over("person") <= max_tokens).sort("row")


def _join(kept: pl.DataFrame, rules: Grammar, style: Style) -> pl.DataFrame:
    ordered = kept if style.order == "oldest" else kept.sort("person", "age")
    same = (pl.col("place") == pl.col("place").shift(1).over("person")).fill_null(value=False)
    words = pl.when(same).then("clause").otherwise(_placed(rules))
    return (
        ordered.with_columns(words=words)
        .group_by("person", maintain_order=True)
        .agg(text=pl.col("words").str.join(rules.joiners[style.order]) + rules.stop)
    )
