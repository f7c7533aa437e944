"""Raw rows of every source but events → items, users, identities, edges, links and rules."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from isthmus.data.clean_texts import clean_text, clean_title
from isthmus.data.identity import Links, hashed
from isthmus.data.idmaps import IdMaps
from isthmus.data.ingest_columns import check_columns, filled, instants, joined
from isthmus.data.ingest_rejects import Rejects
from isthmus.data.media import named
from isthmus.data.pseudonyms import secret_of
from isthmus.data.sources.base import LINE, Batch
from isthmus.data.spec import Source, Spec
from isthmus.data.spec_checks import COLUMNS
from isthmus.data.tables import KEYS, SCHEMAS, TS, empty
from isthmus.errors import SpecError
from isthmus.types import RULES

_TIMES: Final = ("available_from", "available_until")
_PLAIN: Final = ("image", "audio", "lang", "domain", "platform", "item", "user")
_RULE_TESTS: Final = {
    f"no such rule (rules: {', '.join(RULES)})": ~pl.col("rule").is_in(RULES),
    "weight is no number": pl.col("weight").is_not_null()
    & ~pl.col("weight").cast(pl.Float64, strict=False).is_finite().fill_null(value=False),
}


@dataclass
class TableIngest:
    """Takes batches in and keeps the rows of the small tables (they have to fit in memory, events do not).

    Parameters
    ----------
    spec : Spec
        Cleaning rules and the name of the secret.
    rejects : Rejects
        Where rows go that cannot be used.
    """

    spec: Spec
    rejects: Rejects
    rows: dict[str, list[pl.DataFrame]] = field(default_factory=lambda: {name: [] for name in SCHEMAS})
    links: Links = field(default_factory=Links)

    def add(self, batch: Batch, source: Source, maps: IdMaps) -> None:
        """Parse one batch, keep its good rows, reject the others."""
        check_columns(batch.frame, source.mapping, batch.label)
        rows = self._good(_shape(batch, source, maps), batch, source)
        if source.kind == "items":
            self.rows["items"].append(_items(rows, self.spec, source))
        elif source.kind == "users":
            self.rows["users"].append(rows.select(list(SCHEMAS["users"])))
            self._link(rows, source)
        elif source.kind == "identities":
            self._link(rows, source)
        else:
            self.rows[source.kind].append(rows.select(list(SCHEMAS[source.kind])))

    def table(self, name: str) -> pl.DataFrame:
        """Return one table; several rows of one key become one, the first value of each column winning."""
        whole = pl.concat([empty(name), *(frame.cast(pl.Schema(SCHEMAS[name])) for frame in self.rows[name])])
        if name not in ("items", "users", "rules"):
            return whole.unique(maintain_order=True)
        key = list(KEYS[name])
        if not whole.select(key).is_duplicated().any():
            return whole
        one = whole.group_by(key, maintain_order=True).agg(pl.all().drop_nulls().first())
        self.rejects.count(f"merged_{name}", whole.height - one.height)
        return one

    def _good(self, rows: pl.DataFrame, batch: Batch, source: Source) -> pl.DataFrame:
        limit = self.spec.clean.max_cell
        texts = [name for name, kind in rows.schema.items() if kind == pl.String]
        mapped = [name for name in rows.columns if name in source.mapping]
        needed = dict.fromkeys([*COLUMNS[source.kind][0], *(["platform"] if "platform" in rows.columns else [])])
        tests = {
            "blank": pl.all_horizontal(pl.col(mapped).is_null()),
            **{f"no {name}": pl.col(name).is_null() for name in needed},
            "id not in the id map": pl.col("unmapped"),
            f"cell longer than {limit} characters": pl.any_horizontal(pl.col(texts).str.len_bytes() > limit),
            **(_RULE_TESTS if source.kind == "rules" else {}),
        }
        chain: pl.Expr = pl.lit(None, dtype=pl.String)
        for reason, test in reversed(tests.items()):
            chain = pl.when(test).then(pl.lit(reason)).otherwise(chain)
        marked = rows.with_columns(chain.alias("reason")).with_row_index("row")
        bad = marked.filter(pl.col("reason").is_not_null()).select("row", "reason")
        self.rejects.count("blank_rows", bad.filter(pl.col("reason") == "blank").height)
        bad = bad.filter(pl.col("reason") != "blank")
        raw = pl.struct(pl.all().exclude(LINE)).struct.json_encode().alias("raw")
        self.rejects.add(batch.label, batch.frame[bad["row"]].select(LINE, raw).with_columns(bad["reason"]))
        return marked.filter(pl.col("reason").is_null()).drop("reason", "row")

    def _link(self, rows: pl.DataFrame, source: Source) -> None:
        account = ["platform", "user"]
        if "key" in rows.columns:
            keyed = rows.select(*account, hashed(rows["key"], self._secret()).alias("key"))
            self.links.keys.append(keyed.drop_nulls())
        if "person" in rows.columns:
            self.links.persons.append(rows.select(*account, "person").drop_nulls())
        if "other_user" in rows.columns:
            other = pl.col("other_platform") if "other_platform" in rows.columns else pl.lit(source.platform)
            pairs = rows.select(*account, other.alias("other_platform"), "other_user")
            self.links.pairs.append(pairs.drop_nulls())

    def _secret(self) -> bytes:
        name = self.spec.identity.secret_env
        if name is None:
            raise SpecError(
                "columns.key needs a secret",
                where="identity",
                fix='add [identity] secret_env = "ISTHMUS_IDENTITY_SECRET"',
            )
        return secret_of(name, "identity.secret_env")


def _shape(batch: Batch, source: Source, maps: IdMaps) -> pl.DataFrame:
    """Return the mapped columns under their canonical names as clean text (times as datetimes), one row a row."""
    frame, mapping = batch.frame, source.mapping
    columns: dict[str, pl.Expr] = {}
    times: list[pl.Series] = []
    for name, names in mapping.items():
        if name in _TIMES:
            micros = instants(frame, names, source, batch.label)
            times.append(micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias(name))
        elif name == "attributes":
            columns[name] = _attributes(frame, names, source)
        else:
            columns[name] = filled(joined(frame, names), source.nulls)
    columns |= {name: named(columns[name], template) for name, template in source.files.items()}
    for name, constant in (("platform", source.platform), ("domain", source.domain), ("relation", source.relation)):
        if name in _wanted(source) and name not in columns:
            columns[name] = pl.lit(constant, dtype=pl.String)
    for kind, name in (("users", "attributes"), ("rules", "weight")):
        if source.kind == kind and name not in columns:
            columns[name] = pl.lit(None, dtype=pl.String)
    rows = frame.select(column.alias(name) for name, column in columns.items()).with_columns(times)
    return _mapped(rows, source, maps)


def _wanted(source: Source) -> tuple[str, ...]:
    required, optional = COLUMNS[source.kind]
    return (*required, *optional)


def _mapped(rows: pl.DataFrame, source: Source, maps: IdMaps) -> pl.DataFrame:
    present = set(rows.columns)
    padded = rows.with_columns(
        pl.lit(None, dtype=pl.String).alias(name)
        for name in ("platform", "domain", "item", "user")
        if name not in present
    )
    mapped = maps.apply(padded).with_columns(
        (pl.lit(prefix) + pl.col(name)).alias(name)
        for name, prefix in (("item", source.prefix.item), ("user", source.prefix.user))
        if prefix
    )
    return mapped.select([*rows.columns, "unmapped"])


def _attributes(frame: pl.DataFrame, names: tuple[str, ...], source: Source) -> pl.Expr:
    cells = [filled(joined(frame, [name]), source.nulls).alias(name) for name in names]
    whole = pl.struct(cells).struct.json_encode()
    return pl.when(pl.any_horizontal([cell.is_not_null() for cell in cells])).then(whole)


def _items(rows: pl.DataFrame, spec: Spec, source: Source) -> pl.DataFrame:
    """Return item rows with clean texts; with ``collect`` the rows of one item become one."""
    clean = spec.clean
    ready = [pl.coalesce("domain", "platform").alias("domain")]
    if "title" in rows.columns:
        ready.append(pl.lit(clean_title(_flat(rows["title"]), clean)).alias("title"))
    if "text" in rows.columns:
        ready.append(pl.lit(clean_text(_flat(rows["text"]), clean)).alias("text"))
    if "categories" in rows.columns:
        ready.append(pl.lit(_listed(rows["categories"], spec, source.separator)).alias("categories"))
    have = rows.with_columns(ready)
    missing = [name for name in SCHEMAS["items"] if name not in have.columns]
    whole = have.with_columns(pl.lit(None).cast(SCHEMAS["items"][name]).alias(name) for name in missing)
    shaped = whole.select(list(SCHEMAS["items"])).cast(dict.fromkeys(_TIMES, TS))
    return _collected(shaped) if source.collect else shaped


def _collected(items: pl.DataFrame) -> pl.DataFrame:
    others = [name for name in items.columns if name not in ("platform", "item", "text", "categories")]
    return (
        items.group_by("platform", "item", maintain_order=True)
        .agg(
            pl.col(others).drop_nulls().first(),
            pl.col("text").drop_nulls().unique(maintain_order=True).str.join(", "),
            pl.col("categories").drop_nulls().explode().unique(maintain_order=True),
        )
        .with_columns(pl.when(pl.col("text") != "").then(pl.col("text")).alias("text"))
        .select(items.columns)
    )


def _flat(texts: pl.Series) -> pl.Series:
    """Return texts in which a JSON list of texts has become one text."""
    if not texts.str.starts_with("[").any():
        return texts
    flat = _strings(texts).list.join(" ")
    frame = pl.DataFrame({"text": texts, "flat": flat})
    return frame.select(pl.when(_is_list(pl.col("text"))).then("flat").otherwise("text").alias("text"))["text"]


def _is_list(text: pl.Expr) -> pl.Expr:
    return text.str.contains(r'(?s)^\[\s*(?:\]|"|\[)') & text.str.ends_with("]")


def _strings(texts: pl.Series) -> pl.Series:
    """Return all quoted strings of JSON texts, nested or not, in order."""
    found = texts.str.extract_all(r'"(?:[^"\\]|\\.)*"')
    escaped = found.explode().drop_nulls().unique()
    escaped = escaped.filter(escaped.str.contains("\\", literal=True))
    if len(escaped):
        plain = pl.Series(['"' + str(json.loads(word, strict=False)) + '"' for word in escaped])
        found = found.list.eval(pl.element().replace(escaped, plain))
    return found.list.eval(pl.element().str.slice(1).str.head(-1))


def _listed(texts: pl.Series, spec: Spec, separator: str | None) -> pl.Series:
    """Return categories as a list: split at ``separator``, or a JSON list, or one word."""
    frame = pl.DataFrame({"text": texts}).with_columns(_strings(texts).alias("json"))
    one = pl.col("text").str.split(separator) if separator else pl.concat_list("text")
    lists = frame.select(pl.when(_is_list(pl.col("text"))).then("json").otherwise(one).alias("list")).with_row_index(
        "row"
    )
    long = lists.explode("list")
    long = long.with_columns(clean_text(long["list"], spec.clean).alias("list")).drop_nulls()
    kept = long.group_by("row", maintain_order=True).agg(pl.col("list").unique(maintain_order=True))
    return lists.select("row").join(kept, on="row", how="left", maintain_order="left")["list"]
