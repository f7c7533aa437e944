"""What is in a corpus: overlap of platforms and domains, density, time, head and tail, texts, languages, histories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.files import Json
from isthmus.types import EVENT_WEIGHTS

#: Writing systems by their Unicode letters; Japanese is told from Chinese by its kana.
SCRIPTS: Final[dict[str, str]] = {
    "Japanese": r"[\p{Hiragana}\p{Katakana}]",
    "Korean": r"\p{Hangul}",
    "Chinese": r"\p{Han}",
    "Cyrillic": r"\p{Cyrillic}",
    "Greek": r"\p{Greek}",
    "Arabic": r"\p{Arabic}",
    "Hebrew": r"\p{Hebrew}",
    "Thai": r"\p{Thai}",
    "Devanagari": r"\p{Devanagari}",
    "Latin": r"\p{Latin}",
}
_QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_HEAD: Final = 0.1
_EXAMPLES: Final = 5


def describe(corpus: Corpus) -> Json:
    """Return what a corpus holds, as a dictionary that can be written as JSON.

    Returns
    -------
    dict
        ``name``, ``fingerprint``, ``counts``; ``platforms`` and ``domains`` (one entry each: persons, items,
        events, density, time span, head share, Gini, texts, languages, history lengths); ``overlap`` of persons
        per pair of platforms and of domains; ``events`` per type; ``histories``; ``identity`` (conflicts);
        ``cleaning`` and ``rejects`` as the import counted them.

    Examples
    --------
    >>> from isthmus.data.simulate import town_tables
    >>> facts = describe(Corpus.from_tables(town_tables(seed=1, persons=50), name="town"))
    >>> facts["counts"]["items"], sorted(facts["domains"])
    (900, ['books', 'films', 'music'])
    """
    met = _met(corpus)
    items = corpus.items.with_columns(language=detect(_words()))
    return {
        "name": corpus.name,
        "fingerprint": corpus.fingerprint,
        "counts": {
            "persons": corpus.persons.len(),
            "accounts": corpus.identities.height,
            "items": items.height,
            "events": corpus.events.height,
            "taste_events": met.filter("taste").height,
            "users": corpus.users.height,
            "edges": corpus.edges.height,
            "links": corpus.links.height,
            "rules": corpus.rules.height,
        },
        "platforms": _places(met, items, "platform", corpus.order_only),
        "domains": _places(met, items, "domain", _undated(met, corpus.order_only)),
        "overlap": {"platforms": _overlap(met, "platform"), "domains": _overlap(met, "domain")},
        "events": _shares(met["event"], share=False),
        "histories": _lengths(met.group_by("person").len()["len"]),
        "identity": _identity(corpus),
        "cleaning": corpus.manifest.get("cleaning", {}),
        "rejects": corpus.manifest.get("rejects", {}),
    }


def detect(words: pl.Expr) -> pl.Expr:
    """Return the writing system most letters of a text belong to; null where there is no letter.

    A text with kana is Japanese even if most of its letters are Chinese characters.

    Examples
    --------
    >>> frame = pl.DataFrame({"text": ["深海 diving", "すしの本", "Reef", "42"]})
    >>> frame.select(detect(pl.col("text")).alias("script"))["script"].to_list()
    ['Latin', 'Japanese', 'Latin', None]
    """
    counts = {name: words.str.count_matches(pattern) for name, pattern in SCRIPTS.items()}
    most = pl.max_horizontal(*counts.values())
    kana = (counts["Japanese"] > 0) & (counts["Japanese"] + counts["Chinese"] >= most)
    label = pl.when(most == 0).then(None).when(kana).then(pl.lit("Japanese"))
    for name, count in counts.items():
        label = label.when(count == most).then(pl.lit(name))
    return label.otherwise(None)


def gini(counts: pl.Series) -> float:
    """Return the Gini coefficient of non-negative counts: 0 for all equal, towards 1 for all on one.

    Source: Gini, *Variabilità e mutabilità*, 1912; with ranks i from 1, ``sum((2 i - n - 1) x_i) / (n sum x)``.

    Examples
    --------
    >>> gini(pl.Series([1, 1, 1, 1])), gini(pl.Series([0, 0, 0, 8]))
    (0.0, 0.75)
    """
    values = np.sort(counts.to_numpy().astype(np.float64))
    n, total = values.size, float(values.sum())
    if not total:
        return 0.0
    return float(((2 * np.arange(1, n + 1) - n - 1) * values).sum()) / (n * total)


def _words() -> pl.Expr:
    return pl.concat_str([pl.col("title").fill_null(""), pl.col("text").fill_null("")], separator=" ")


def _met(corpus: Corpus) -> pl.DataFrame:
    """Return the events with person and domain, and whether they say something about taste."""
    silent = [event for event, weight in EVENT_WEIGHTS.items() if weight == 0]
    domains = corpus.items.lazy().select("platform", "item", "domain")
    return (
        corpus.events.lazy()
        .join(corpus.identities.lazy(), on=["platform", "user"])
        .join(domains, on=["platform", "item"])
        .select("platform", "person", "item", "domain", "event", "ts", taste=~pl.col("event").is_in(silent))
        .collect()
    )


def _places(met: pl.DataFrame, items: pl.DataFrame, by: str, order_only: list[str]) -> dict[str, Json]:
    names = sorted({*met[by].unique().to_list(), *items[by].unique().to_list()})
    return {
        name: _place(met.filter(pl.col(by) == name), items.filter(pl.col(by) == name), dated=name not in order_only)
        for name in names
    }


def _undated(met: pl.DataFrame, order_only: list[str]) -> list[str]:
    """Return the domains all of whose events come from platforms that have an order and no dates."""
    dated = met.group_by("domain").agg(dated=(~pl.col("platform").is_in(order_only)).any())
    return dated.filter(~pl.col("dated"))["domain"].to_list()


def _place(met: pl.DataFrame, items: pl.DataFrame, *, dated: bool) -> Json:
    persons, n = met["person"].n_unique(), items.height
    pairs = met.select("person", "platform", "item").unique().height
    popularity = (
        items.select("platform", "item")
        .join(met.group_by("platform", "item").len(), on=["platform", "item"], how="left")["len"]
        .fill_null(0)
    )
    return {
        "persons": persons,
        "items": n,
        "items_met": int((popularity > 0).sum()),
        "events": met.height,
        "by_event": _shares(met["event"], share=False),
        "density": pairs / (persons * n) if persons and n else 0.0,
        "time": _span(met) if dated else "order only",
        "head_share": _head(popularity),
        "gini": gini(popularity),
        "titles": _filled(items["title"]),
        "texts": _filled(items["text"]),
        "languages": _shares(items["language"].drop_nulls(), share=True),
        "histories": _lengths(met.group_by("person").len()["len"]),
    }


def _span(met: pl.DataFrame) -> Json:
    """Return first and last time, and how many events share theirs with another of the same person."""
    bounds = met.select(first=pl.col("ts").min(), last=pl.col("ts").max())
    row = bounds.select(pl.all().dt.to_string("iso:strict")).row(0, named=True)
    return {**row, "tied": int(met.select("person", "ts").is_duplicated().sum())}


def _head(popularity: pl.Series) -> float:
    """Return the share of events on the tenth of the items that have most of them."""
    total = int(popularity.sum())
    top = popularity.sort(descending=True).head(max(1, round(_HEAD * popularity.len())))
    return int(top.sum()) / total if total else 0.0


def _filled(column: pl.Series) -> float:
    return int((column.fill_null("").str.len_chars() > 0).sum()) / max(column.len(), 1)


def _shares(values: pl.Series, *, share: bool) -> dict[str, float]:
    counts = values.value_counts(sort=True)
    name, total = values.name, max(values.len(), 1)
    return {
        row[name]: row["count"] / total if share else row["count"]
        for row in counts.sort("count", name, descending=[True, False]).iter_rows(named=True)
    }


def _lengths(lengths: pl.Series) -> dict[str, float]:
    if lengths.is_empty():
        return {}
    quantiles = {f"p{round(100 * q)}": float(lengths.quantile(q, "nearest") or 0) for q in _QUANTILES}
    return {"mean": round(int(lengths.sum()) / lengths.len(), 2), **quantiles}


def _overlap(met: pl.DataFrame, by: str) -> list[Json]:
    """Return for each pair of places how many persons are in either and in both."""
    members = met.select("person", by).unique()
    sizes: Mapping[str, int] = dict(members.group_by(by).len().iter_rows())
    both = (
        members.join(members, on="person", suffix="_right")
        .filter(pl.col(by) < pl.col(f"{by}_right"))
        .group_by(by, f"{by}_right")
        .len()
    )
    shared = {(a, b): count for a, b, count in both.iter_rows()}
    names = sorted(sizes)
    return [_pair(a, b, sizes, shared.get((a, b), 0)) for place, a in enumerate(names) for b in names[place + 1 :]]


def _pair(a: str, b: str, sizes: Mapping[str, int], both: int) -> Json:
    smaller = min(sizes[a], sizes[b])
    return {
        "pair": [a, b],
        "persons": [sizes[a], sizes[b]],
        "both": both,
        "share_of_smaller": both / smaller,
        "jaccard": both / (sizes[a] + sizes[b] - both),
    }


def _identity(corpus: Corpus) -> Json:
    """Return how many persons have several platforms, and the conflicts: two accounts on one platform."""
    per_person = corpus.identities.group_by("person").agg(platforms=pl.col("platform").n_unique())
    twice = corpus.identities.group_by("person", "platform").len().filter(pl.col("len") > 1).sort("person", "platform")
    return {
        "on_several_platforms": per_person.filter(pl.col("platforms") > 1).height,
        "conflicts": twice.height,
        "examples": twice.head(_EXAMPLES)["person"].to_list(),
    }
