"""The corpus: canonical tables, their vocabularies and a manifest, as one frozen value in a folder."""

from __future__ import annotations

import hashlib
import platform as machine
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

import polars as pl

from isthmus.data.pseudonyms import Pseudonyms
from isthmus.data.tables import OPTIONAL, SCHEMAS, conform, empty
from isthmus.errors import ArtefactError, DataError, NotFoundError, nearest
from isthmus.files import Json, new_folder, read_json, sha256, write_json
from isthmus.types import EVENT_WEIGHTS, EVENTS

FORMAT: Final = 1
MANIFEST: Final = "corpus.json"


class Corpus:
    """People's events over all platforms, and the items they met.

    Items are numbered by their row in :attr:`items`, persons by their place in :attr:`persons`; both orders
    are sorted by external id, so the same tables give the same numbers everywhere.

    Examples
    --------
    >>> from isthmus.data.simulate import town_tables
    >>> corpus = Corpus.from_tables(town_tables(seed=1, persons=50), name="town")
    >>> sorted(corpus.domains)
    ['books', 'films', 'music']
    """

    def __init__(self, tables: Mapping[str, pl.DataFrame], manifest: Json, path: Path | None = None) -> None:
        self._tables = dict(tables)
        self.manifest = manifest
        self.path = path

    @classmethod
    def from_tables(
        cls, tables: Mapping[str, pl.DataFrame], *, name: str, notes: Mapping[str, object] | None = None
    ) -> Corpus:
        """Return a corpus in memory; every table is checked, items and identities are completed.

        ``notes`` are added to the manifest (for example ``{"time": {"shop": "order"}}`` for a platform whose
        events have an order and no dates).
        """
        unknown = set(tables) - set(SCHEMAS)
        if unknown:
            raise DataError(f"no such table: {', '.join(sorted(unknown))}", fix=f"tables are {', '.join(SCHEMAS)}")
        shaped = {table: conform(table, tables[table]) if table in tables else empty(table) for table in SCHEMAS}
        shaped["identities"] = complete_identities(shaped["events"], shaped["identities"])
        lost = shaped["events"].join(shaped["items"], on=["platform", "item"], how="anti")
        if lost.height:
            raise DataError(f"{lost.height} event(s) on items that the items table lacks", where="events")
        digest = hashlib.sha256()
        for table in SCHEMAS:
            digest.update(shaped[table].hash_rows(seed=0).to_numpy().tobytes())
        manifest = _manifest(
            name, {table: frame.height for table, frame in shaped.items()}, digest.hexdigest(), notes or {}
        )
        return cls(shaped, manifest)

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """Return the corpus in folder ``path``; tables are read when first used.

        Raises
        ------
        ArtefactError
            No corpus there, a file is missing, or it has another format version.
        """
        path = Path(path)
        manifest = read_json(path / MANIFEST, what="corpus")
        if manifest.get("format") != FORMAT:
            raise ArtefactError(
                f"corpus format {manifest.get('format')}, this version reads {FORMAT}",
                where=path,
                fix="import it again",
            )
        if not {"name", "fingerprint", "counts"} <= set(manifest):
            raise ArtefactError(f"{MANIFEST} is damaged", where=path, fix="import it again")
        for table in SCHEMAS:
            if table not in OPTIONAL and not (path / f"{table}.parquet").exists():
                raise ArtefactError(f"{table}.parquet is missing", where=path, fix="import it again")
        return cls({}, manifest, path)

    def save(self, path: str | Path) -> Corpus:
        """Write all tables and the manifest to folder ``path``, whole or not at all; return the corpus opened there."""
        with new_folder(Path(path)) as folder:
            for table in SCHEMAS:
                if table not in OPTIONAL or self._table(table).height:
                    self._table(table).write_parquet(folder / f"{table}.parquet")
            write_json(folder / MANIFEST, self.manifest)
        return Corpus.open(path)

    def _table(self, table: str) -> pl.DataFrame:
        if table not in self._tables:
            assert self.path is not None
            if table in OPTIONAL and not (self.path / f"{table}.parquet").exists():
                return empty(table)
            try:
                self._tables[table] = pl.read_parquet(self.path / f"{table}.parquet")
            except (pl.exceptions.PolarsError, OSError) as error:
                raise ArtefactError(
                    f"{table}.parquet is damaged: {error}", where=self.path, fix="import it again"
                ) from error
        return self._tables[table]

    @property
    def name(self) -> str:
        """Name given in the spec."""
        return str(self.manifest["name"])

    @property
    def fingerprint(self) -> str:
        """Hash of the content of all tables."""
        return str(self.manifest["fingerprint"])

    @property
    def pseudonyms(self) -> Pseudonyms | None:
        """What made the names of users and persons, None where they are their own."""
        return Pseudonyms.of_json(self.manifest.get("pseudonyms"))

    @property
    def events(self) -> pl.DataFrame:
        """Table ``events``, sorted by platform, user, time."""
        return self._table("events")

    @property
    def items(self) -> pl.DataFrame:
        """Table ``items``, sorted by platform, item; the row number is the item's index."""
        return self._table("items")

    @property
    def users(self) -> pl.DataFrame:
        """Table ``users``."""
        return self._table("users")

    @property
    def identities(self) -> pl.DataFrame:
        """Table ``identities``: every account with an event, and the person it belongs to."""
        return self._table("identities")

    @property
    def edges(self) -> pl.DataFrame:
        """Table ``edges`` (knowledge graph)."""
        return self._table("edges")

    @property
    def links(self) -> pl.DataFrame:
        """Table ``links`` (item to entity)."""
        return self._table("links")

    @property
    def rules(self) -> pl.DataFrame:
        """Table ``rules`` (declared by hand: what follows on what, what excludes what); empty where there are none."""
        return self._table("rules")

    @cached_property
    def persons(self) -> pl.Series:
        """Names of all persons, sorted; the place is the person's index."""
        return self.identities["person"].unique().sort()

    @cached_property
    def platforms(self) -> list[str]:
        """Platforms with events or items, sorted."""
        both = pl.concat([self.events["platform"], self.items["platform"]])
        return cast("list[str]", both.unique().sort().to_list())

    @cached_property
    def domains(self) -> list[str]:
        """Domains of the items, sorted."""
        return cast("list[str]", self.items["domain"].unique().sort().to_list())

    @property
    def order_only(self) -> list[str]:
        """Platforms whose events have an order and no dates."""
        time = cast("dict[str, str]", self.manifest.get("time", {}))
        return sorted(name for name, kind in time.items() if kind == "order")

    def with_domains(self, domains: pl.Series) -> Corpus:
        """Return a view of the corpus in which the items (N,) are in other domains; it is not for keeping."""
        items = self.items.with_columns(domain=domains)
        return Corpus({**self._tables, "items": items}, self.manifest, self.path)

    def require_domain(self, domain: str) -> str:
        """Return ``domain``, or raise :class:`NotFoundError` that suggests the nearest known one."""
        if domain not in self.domains:
            hint = nearest(domain, self.domains)
            raise NotFoundError(
                f"no domain '{domain}'{hint}", where=self.name, fix=f"domains: {', '.join(self.domains)}"
            )
        return domain

    def interactions(self) -> pl.DataFrame:
        """Return the events that say something about taste, as numbers.

        Returns
        -------
        polars.DataFrame
            person (u32), item (u32), event (u8: place in ``EVENTS``), weight (f32), value (f64), ts; sorted by
            person, then time, then the order of the log.
        """
        weights = pl.DataFrame(
            {"event": EVENTS, "weight": list(EVENT_WEIGHTS.values()), "code": range(len(EVENTS))},
            schema={"event": pl.String, "weight": pl.Float32, "code": pl.UInt8},
        )
        persons = pl.DataFrame({"person": self.persons}).with_row_index("person_index")
        accounts = self.identities.join(persons, on="person").select("platform", "user", "person_index")
        items = self.items.select("platform", "item").with_row_index("item_index")
        return (
            self.events.lazy()
            .join(weights.lazy().filter(pl.col("weight") > 0), on="event", maintain_order="left")
            .join(accounts.lazy(), on=["platform", "user"], maintain_order="left")
            .join(items.lazy(), on=["platform", "item"], maintain_order="left")
            .select(person="person_index", item="item_index", event="code", weight="weight", value="value", ts="ts")
            .sort("person", "ts", maintain_order=True)
            .collect()
        )


def complete_identities(events: pl.DataFrame, identities: pl.DataFrame) -> pl.DataFrame:
    """Return ``identities`` with one person of their own for each account of ``events`` that it lacks."""
    accounts = events.select("platform", "user").unique()
    alone = accounts.join(identities, on=["platform", "user"], how="anti").with_columns(
        person=pl.col("platform") + ":" + pl.col("user")
    )
    return pl.concat([identities, alone]).sort("platform", "user")


def seal(folder: Path, *, name: str, notes: Mapping[str, object]) -> Json:
    """Write the manifest of a folder that holds all table files already (a streamed import); return it.

    The fingerprint is the hash of the table files' hashes, so nothing has to be loaded.
    """
    files = {table: folder / f"{table}.parquet" for table in SCHEMAS}
    here = {table: file for table, file in files.items() if table not in OPTIONAL or file.exists()}
    counts = {table: pl.scan_parquet(file).select(pl.len()).collect().item() for table, file in here.items()}
    hashes = "".join(map(sha256, here.values()))
    manifest = _manifest(name, counts, hashlib.sha256(hashes.encode()).hexdigest(), notes)
    write_json(folder / MANIFEST, manifest)
    return manifest


def _manifest(name: str, counts: Mapping[str, int], digest: str, notes: Mapping[str, object]) -> Json:
    versions = {"isthmus": version("isthmus"), "polars": version("polars"), "python": machine.python_version()}
    base = {"format": FORMAT, "name": name, "counts": dict(counts), "fingerprint": digest, "versions": versions}
    return {**notes, **base}
