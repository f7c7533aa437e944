"""The leak audit: what a split gives away about its own test events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast

import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.errors import LeakError
from isthmus.split.temporal import TEST, TRAIN, VALID, Split
from isthmus.types import PARTS

Level = Literal["ok", "flag", "refuse"]

#: Share of the targets that texts may name before the split is refused.
MANY: Final = 0.05
#: A name shorter than this is found in texts by chance.
SHORTEST: Final = 5
#: The smallest minimum count that looks like a k-core.
CORE: Final = 3

_WORDS: Final = r"\w+"
_CHUNKS: Final = r"[^\s,;|\"'()\[\]{}<>]+"
_EDGES: Final = ".:!?-_/\\#"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Parameters
    ----------
    check : str
        Name of the check.
    level : {"ok", "flag", "refuse"}
        ``flag``: state it beside the results. ``refuse``: results would mean nothing.
    count : int
        How many events, targets, items or words are concerned; the message says which.
    message : str
        What was found, in one sentence.
    """

    check: str
    level: Level
    count: int
    message: str


def audit(split: Split) -> list[Finding]:
    """Return one finding a check, in a fixed order; nothing is changed.

    The part that is audited is test, or valid where the split has no test part.

    Returns
    -------
    list of Finding
        Checks ``later events``, ``repeats across the cut``, ``item texts``, ``item attributes``,
        ``user attributes``, ``k-core``, ``ties across the cut``, ``tied timestamps``, ``catalogue``.

    Examples
    --------
    >>> from isthmus.data.corpus import Corpus
    >>> from isthmus.data.simulate import town_tables
    >>> split = Split.make(Corpus.from_tables(town_tables(seed=1, persons=50), name="town"))
    >>> [finding.check for finding in audit(split) if finding.level == "refuse"]
    []
    """
    checks: tuple[Callable[[Split], Finding], ...] = (
        _later,
        _repeats,
        _item_texts,
        _item_attributes,
        _user_attributes,
        _core,
        _torn_ties,
        _ties,
        _catalogue,
    )
    return [check(split) for check in checks]


def require_clean(findings: Sequence[Finding]) -> None:
    """Raise :class:`LeakError` if a finding is ``refuse``.

    Examples
    --------
    >>> require_clean([Finding("k-core", "flag", 3, "3 items")])
    """
    refused = [finding for finding in findings if finding.level == "refuse"]
    if refused:
        what = "; ".join(f"{finding.check}: {finding.message}" for finding in refused)
        raise LeakError(what, where="leak audit", fix="remove what gives the answers away, then split again")


def audit_vocabulary(vocabulary: Iterable[str], split: Split) -> Finding:
    """Return how many words of an encoder's vocabulary can only come from items met in the audited part alone.

    A word counts if it is in the text of an item whose events are all in that part, and in no text of an item with
    an earlier event. Words and n-grams are looked for inside texts, so scripts without spaces are audited too.

    Parameters
    ----------
    vocabulary : iterable of str
        Words or n-grams, such as :attr:`isthmus.encode.tfidf.TfidfEncoder.vocabulary`.
    split : Split
        The split that the encoder must respect.
    """
    words = sorted({word.strip() for word in vocabulary} - {""})
    seen, late = _met(split)
    texts = split.corpus.items.select(
        text=_joined(("title", "text", "categories", "attributes")).str.normalize("NFKC").str.to_lowercase()
    )["text"]
    suspects = _found(words, texts.gather(late))
    only = sorted(set(suspects) - set(_found(suspects, texts.gather(seen))))
    said = f"{len(only)} word(s) of the vocabulary come from items met in {_part_name(split)} only"
    return _finding("vocabulary", len(only), said + (f", such as '{only[0]}'" if only else ""), worst="refuse")


def _finding(check: str, count: int, message: str, *, worst: Level = "flag") -> Finding:
    return Finding(check, worst if count else "ok", count, message)


def _part(split: Split) -> int:
    """Return the part that is audited."""
    return TEST if (split.events["part"] == TEST).any() else VALID


def _part_name(split: Split) -> str:
    return PARTS[_part(split)]


def _targets(split: Split) -> pl.DataFrame:
    """Return the pairs (person, item) of the audited part."""
    return split.events.filter(pl.col("part") == _part(split)).select("person", "item").unique(maintain_order=True)


def _met(split: Split) -> tuple[pl.Series, pl.Series]:
    """Return the items with an event before the audited part, and those with events in it only."""
    seen = split.known(_part(split))["item"].unique().sort()
    late = _targets(split)["item"].unique().sort()
    return seen, late.filter(~late.is_in(seen.implode()))


def _platforms(split: Split) -> pl.Series:
    """Return the platform of each event."""
    return split.corpus.items["platform"].gather(split.events["item"])


def _later(split: Split) -> Finding:
    """Count events that may be known, and happened at or after what they are to predict."""
    return _past_the_cut(split) if split.card.get("protocol") == "time" else _source_future(split)


def _past_the_cut(split: Split) -> Finding:
    cuts = cast("dict[str, str]", split.card["cuts"])
    part, ts = pl.col("part"), pl.col("ts")
    wrong = (part == TRAIN) & (ts >= datetime.fromisoformat(cuts["valid"]))
    if "test" in cuts:
        wrong |= (part == VALID) & (ts >= datetime.fromisoformat(cuts["test"]))
    found = split.events.with_columns(platform=_platforms(split)).filter(wrong)
    names = ", ".join(found["platform"].unique().sort())
    said = f"{found.height} event(s) in train or valid happened at or after the next part's cut"
    return _finding("later events", found.height, said + (f", on {names}" if names else ""), worst="refuse")


def _source_future(split: Split) -> Finding:
    """Compare times on one clock only: a platform whose events have an order and no dates has a clock of its own."""
    platform = pl.col("platform")
    clock = pl.when(platform.is_in(split.corpus.order_only)).then(platform).otherwise(pl.lit("")).alias("clock")
    events = split.events.with_columns(platform=_platforms(split)).with_columns(clock)
    asked = events.filter(pl.col("part") == _part(split)).group_by("person", "clock").agg(first=pl.col("ts").min())
    known = events.filter((pl.col("part") < _part(split)) | (pl.col("part") > TEST))
    count = known.join(asked, on=["person", "clock"]).filter(pl.col("ts") > pl.col("first")).height
    said = f"{count} known event(s) are later than the same person's first target"
    return _finding("later events", count, said + (": the source can see the future" if count else ""))


def _repeats(split: Split) -> Finding:
    known = split.known(_part(split)).select("person", "item").unique()
    count = _targets(split).join(known, on=["person", "item"], how="semi").height
    said = f"{count} target(s) are in the history of their person: they cannot be listed where seen items are left out"
    return _finding("repeats across the cut", count, said)


def _item_texts(split: Split) -> Finding:
    return _named_by_items(split, "item texts", ("title", "text", "categories"), worst="refuse")


def _item_attributes(split: Split) -> Finding:
    """No method reads all attributes, so that names in them do no harm yet."""
    return _named_by_items(split, "item attributes", ("attributes",), worst="flag")


def _named_by_items(split: Split, check: str, columns: tuple[str, ...], *, worst: Level) -> Finding:
    names = _names(split.corpus, columns)
    known = split.known(_part(split)).select("person", "item").unique()
    given = known.join(names, on="item").select("person", item="named").unique()
    count = _targets(split).join(given, on=["person", "item"], how="semi").height
    others = names["item"].n_unique()
    said = f"{count} target(s) are named by items of their person's history; {others} item(s) name others in all"
    level = _level(split, count, worst) if count or not others else "flag"
    return Finding(check, level, count, said)


def _level(split: Split, count: int, worst: Level) -> Level:
    if not count:
        return "ok"
    return worst if count >= MANY * _targets(split).height else "flag"


def _names(corpus: Corpus, columns: tuple[str, ...]) -> pl.DataFrame:
    """Return the pairs (item, named): the text of ``item`` holds the id of the item ``named``."""
    items = corpus.items.with_row_index("index").with_columns(said=_joined(columns))
    ids = items.select("item", named="index").filter(_telling("item"))
    words = pl.concat_list(
        pl.col("said").str.extract_all(_WORDS),
        pl.col("said").str.extract_all(_CHUNKS).list.eval(pl.element().str.strip_chars(_EDGES)),
    )
    said = items.filter(pl.col("said").str.contains(r"\d")).select("index", own="item", word=words)
    pairs = said.explode("word").filter(_telling("word")).unique()
    return (
        pairs.join(ids, left_on="word", right_on="item")
        .filter(pl.col("word") != pl.col("own"))
        .select(item="index", named="named")
        .unique()
    )


def _telling(column: str) -> pl.Expr:
    """Return whether a word is long and odd enough to be an id."""
    return (pl.col(column).str.len_chars() >= SHORTEST) & pl.col(column).str.contains(r"\d")


def _joined(columns: tuple[str, ...]) -> pl.Expr:
    """Return the text of the named columns, joined; empty where there is none."""
    parts = [pl.col(name).list.join(" ") if name == "categories" else pl.col(name) for name in columns]
    return pl.concat_str(parts, separator=" ", ignore_nulls=True).fill_null("")


def _user_attributes(split: Split) -> Finding:
    corpus = split.corpus
    persons = pl.DataFrame({"person": corpus.persons}).with_row_index("index")
    accounts = corpus.identities.join(persons, on="person").select("platform", "user", person="index")
    said = corpus.users.drop_nulls("attributes").join(accounts, on=["platform", "user"])
    items = corpus.items.select("item", "title").with_row_index("place")
    pairs = _targets(split).join(items, left_on="item", right_on="place").select("person", "title", named="item_right")
    text, title, named = pl.col("attributes"), pl.col("title"), pl.col("named")
    by_title = (title.str.len_chars() >= SHORTEST) & text.str.contains(title, literal=True)
    found = pairs.join(said.select("person", "attributes"), on="person").filter(
        by_title.fill_null(False) | (_telling("named") & text.str.contains(named, literal=True))
    )
    count = found.select("person", "named").n_unique()
    said_so = f"{count} target(s) are named by the attributes of their user"
    return Finding("user attributes", _level(split, count, "refuse"), count, said_so)


def _core(split: Split) -> Finding:
    """Find domains in which everybody and everything reach a count, but not without the audited part."""
    domains = split.corpus.items["domain"]
    events = split.events.with_columns(domain=domains.gather(split.events["item"]))
    full = _smallest(events)
    rest = _smallest(events.filter(pl.col("part") != _part(split)))
    cores = full.join(rest, on="domain", suffix="_rest").filter(pl.col("k") >= CORE, pl.col("k_rest") < pl.col("k"))
    said = ", ".join(f"{row[0]} (k = {row[1]})" for row in cores.sort("domain").select("domain", "k").iter_rows())
    name = _part_name(split)
    message = f"persons and items seem to have been chosen by a count that {name} events are part of: {said}"
    return _finding("k-core", cores.height, message if said else f"no count over {name} events chose the rows")


def _smallest(events: pl.DataFrame) -> pl.DataFrame:
    """Return domain, k: the smallest number of events of a person or of an item in it."""
    counts = [events.group_by("domain", side).len("k").select("domain", "k") for side in ("person", "item")]
    return pl.concat(counts).group_by("domain").agg(pl.col("k").min())


def _tied(split: Split) -> pl.DataFrame:
    """Return the events that share person and time with another one, with ``parts``: over how many parts."""
    grouped = split.events.with_columns(
        same=pl.len().over("person", "ts"), parts=pl.col("part").n_unique().over("person", "ts")
    )
    return grouped.filter(pl.col("same") > 1)


def _torn_ties(split: Split) -> Finding:
    count = int((_tied(split)["parts"] > 1).sum())
    said = f"{count} event(s) share person and time with an event of another part: which is earlier is chance"
    return _finding("ties across the cut", count, said)


def _ties(split: Split) -> Finding:
    count = _tied(split).height
    share = count / max(split.events.height, 1)
    said = f"{count} event(s) ({share:.1%}) share person and time with another one: their order is chance"
    return _finding("tied timestamps", count, said)


def _catalogue(split: Split) -> Finding:
    late = _met(split)[1]
    bare = split.corpus.items.select(_joined(("title", "text", "categories")).str.strip_chars() == "").to_series()
    count = int(bare.gather(late).sum())
    name = _part_name(split)
    said = f"{count} item(s) have no text and events in {name} only: they are in the catalogue because of {name}"
    return _finding("catalogue", count, said)


def _found(words: Sequence[str], texts: pl.Series) -> list[str]:
    """Return which of ``words`` occur anywhere in ``texts``, sorted."""
    if not words or texts.is_empty():
        return []
    hits = texts.str.extract_many(list(words), overlapping=True).explode()
    return cast("list[str]", hits.drop_nulls().unique().sort().to_list())
