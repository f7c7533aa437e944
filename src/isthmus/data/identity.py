"""One person, many platforms: accounts joined by declared links, shared keys and shared ids."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.errors import DataError
from isthmus.files import Json

_ACCOUNT = ["platform", "user"]
_EXAMPLES = 5


@dataclass
class Links:
    """What joins accounts; frames grow as sources are read.

    Parameters
    ----------
    persons : list of polars.DataFrame
        platform, user, person: the accounts of a named person.
    pairs : list of polars.DataFrame
        platform, user, other_platform, other_user: two accounts of one person.
    keys : list of polars.DataFrame
        platform, user, key: accounts with equal keys are one person's. Only hashes (:func:`hashed`).
    same_ids : tuple of tuples
        Platforms whose user ids are one id space.
    """

    persons: list[pl.DataFrame] = field(default_factory=list)
    pairs: list[pl.DataFrame] = field(default_factory=list)
    keys: list[pl.DataFrame] = field(default_factory=list)
    same_ids: tuple[tuple[str, ...], ...] = ()


def hashed(keys: pl.Series, secret: bytes) -> pl.Series:
    """Return the HMAC-SHA256 of each key (NFKC, lower case, no outer space) in hex; null stays null.

    Equal keys give equal hashes; without the secret nobody can test a guess (RFC 2104).
    """
    distinct = keys.drop_nulls().unique()
    forms = [unicodedata.normalize("NFKC", key).strip().casefold() for key in distinct]
    codes = [hmac.new(secret, form.encode(), hashlib.sha256).hexdigest() for form in forms]
    return keys.replace_strict(distinct, pl.Series(codes, dtype=pl.String), default=None, return_dtype=pl.String)


def resolve(accounts: pl.DataFrame, links: Links) -> tuple[pl.DataFrame, Json]:
    """Return the identities table of ``accounts`` (links may lead over further ones), and a report.

    A person is a connected component of accounts, named by the smallest declared person name in it, else by the
    smallest ``platform:user``. So names do not depend on the order of rows.

    Returns
    -------
    identities : polars.DataFrame
        platform, user, person; one row an account, sorted.
    report : dict
        accounts, persons, linked (persons with several accounts), conflicts (persons with two accounts on one
        platform: count and examples), merged_names (persons joined under several declared names: count, examples).

    Examples
    --------
    >>> shops = pl.DataFrame({"platform": ["a", "b"], "user": ["1", "1"]})
    >>> table, report = resolve(shops, Links(same_ids=(("a", "b"),)))
    >>> table["person"].to_list(), report["persons"]
    (['a:1', 'a:1'], 1)
    """
    nodes = _nodes(accounts, links)
    if not (links.persons or links.pairs or links.keys or links.same_ids):
        alone = nodes.with_columns((pl.col("platform") + ":" + pl.col("user")).alias("person"))
        return alone, _report(alone, alone.select("person").clear())
    names = _names(links)
    component = _components(nodes, names, links)
    labelled = nodes.with_columns(pl.Series("component", component[: nodes.height]))
    declared = names.with_columns(pl.Series("component", component[nodes.height : nodes.height + names.height]))
    own = labelled.group_by("component").agg((pl.col("platform") + ":" + pl.col("user")).min().alias("account"))
    first = declared.group_by("component").agg(pl.col("person").min().alias("declared"))
    person = own.join(first, on="component", how="left").select(
        "component", pl.coalesce("declared", "account").alias("person")
    )
    _check_distinct(person)
    table = labelled.join(person, on="component").select("platform", "user", "person").sort(_ACCOUNT)
    table = table.join(accounts, on=_ACCOUNT, how="semi", maintain_order="left")
    merged = declared.join(person, on="component", suffix="_final").filter(pl.col("person") != pl.col("person_final"))
    return table, _report(table, merged.select(pl.col("person_final").alias("person")))


def without_examples(report: Json) -> Json:
    """Return the report of :func:`resolve` without anybody's name."""
    return {name: {**said, "examples": []} if isinstance(said, dict) else said for name, said in report.items()}


def _nodes(accounts: pl.DataFrame, links: Links) -> pl.DataFrame:
    frames = [accounts.select(_ACCOUNT), *(frame.select(_ACCOUNT) for frame in (*links.persons, *links.pairs))]
    frames += [frame.select(_ACCOUNT) for frame in links.keys]
    frames += [frame.select(platform="other_platform", user="other_user") for frame in links.pairs]
    return pl.concat(frames).unique().sort(_ACCOUNT)


def _names(links: Links) -> pl.DataFrame:
    none = pl.DataFrame(schema={"person": pl.String})
    return pl.concat([none, *(frame.select("person") for frame in links.persons)]).unique().sort("person")


def _components(nodes: pl.DataFrame, names: pl.DataFrame, links: Links) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Return the component of each account, then of each declared name, key and shared id: the transitive closure."""
    index = nodes.with_row_index("node")
    person = names.with_row_index("hub", offset=nodes.height)
    edges = [_to_hub(frame, index, person, "person") for frame in links.persons]
    size = nodes.height + names.height
    for frame, column in [*((keys, "key") for keys in links.keys[:1]), *_shared(nodes, links)]:
        whole = pl.concat(links.keys) if column == "key" else frame
        hubs = whole.select(column).unique().sort(column).with_row_index("hub", offset=size)
        edges.append(_to_hub(whole, index, hubs, column))
        size += hubs.height
    for frame in links.pairs:
        other = index.select(other_platform="platform", other_user="user", hub="node")
        joined = frame.join(index, on=_ACCOUNT).join(other, on=["other_platform", "other_user"])
        edges.append(joined.select("node", "hub"))
    none = pl.DataFrame(schema={"node": pl.UInt32, "hub": pl.UInt32})
    both = pl.concat([none, *(edge.cast(pl.UInt32) for edge in edges)])
    start, stop = both["node"].to_numpy(), both["hub"].to_numpy()
    graph = sparse.coo_array((np.ones(both.height, dtype=np.int8), (start, stop)), shape=(size, size))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    return np.asarray(component, dtype=np.int32)


def _to_hub(frame: pl.DataFrame, index: pl.DataFrame, hubs: pl.DataFrame, column: str) -> pl.DataFrame:
    return frame.join(index, on=_ACCOUNT).join(hubs, on=column).select("node", "hub")


def _shared(nodes: pl.DataFrame, links: Links) -> list[tuple[pl.DataFrame, str]]:
    """Return for each group of platforms with one id space its accounts, with the id as hub."""
    groups = [nodes.filter(pl.col("platform").is_in(list(group))) for group in links.same_ids]
    return [(group.with_columns(pl.col("user").alias("id")), "id") for group in groups]


def _check_distinct(person: pl.DataFrame) -> None:
    double = person.filter(person["person"].is_duplicated())["person"]
    if len(double):
        raise DataError(
            f"the declared person '{double[0]}' has the name of another person's account",
            where="identities",
            fix="give declared persons names that are not PLATFORM:USER",
        )


def _report(table: pl.DataFrame, merged: pl.DataFrame) -> Json:
    sizes = table.group_by("person").len()
    several = table.group_by("person", "platform").agg(pl.col("user").sort()).filter(pl.col("user").list.len() > 1)
    shown = several.sort("person", "platform").head(_EXAMPLES)
    return {
        "accounts": table.height,
        "persons": sizes.height,
        "linked": sizes.filter(pl.col("len") > 1).height,
        "conflicts": {
            "count": several.height,
            "examples": [
                {"person": person, "platform": platform, "users": users[:_EXAMPLES]}
                for person, platform, users in shown.select("person", "platform", "user").rows()
            ],
        },
        "merged_names": {
            "count": merged["person"].n_unique(),
            "examples": merged["person"].unique().sort().head(_EXAMPLES).to_list(),
        },
    }
