"""The import: a spec and anybody's logs → a corpus folder, whole or not at all."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import polars as pl

from isthmus import log
from isthmus.data.corpus import Corpus, seal
from isthmus.data.graph_notes import graph_notes
from isthmus.data.identity import resolve, without_examples
from isthmus.data.idmaps import IdMaps
from isthmus.data.ingest_events import EventIngest
from isthmus.data.ingest_rejects import Rejects
from isthmus.data.ingest_store import ROWS_IN_MEMORY, EventStore
from isthmus.data.ingest_tables import TableIngest
from isthmus.data.ingest_write import EventWriter, Written
from isthmus.data.media import folders_of
from isthmus.data.pseudonyms import Pseudonyms
from isthmus.data.sources.readers import read_source
from isthmus.data.spec import Source, Spec, read_spec
from isthmus.data.tables import conform
from isthmus.files import Json, new_folder

REJECTS = "rejects.parquet"


def import_corpus(spec_path: Path, out: Path, *, rows_in_memory: int = ROWS_IN_MEMORY) -> Corpus:
    """Import everything a spec names into the corpus folder ``out``, and return the corpus opened there.

    Beside the tables the folder holds ``rejects.parquet`` (source, line, reason, raw) with every row that was
    rejected or taken out by a cleaning rule; the manifest counts both (``rejects``, ``cleaning``).

    Parameters
    ----------
    spec_path : Path
        A ``SPEC.toml`` (docs/spec.md); paths in it are relative to it.
    out : Path
        Corpus folder; one that is there already is replaced after the new one is complete.
    rows_in_memory : int
        Events kept in memory; more go through files beside ``out``, so that memory does not grow with the logs.

    Raises
    ------
    SpecError
        The spec is wrong.
    DataError
        A source cannot be read, lacks a column, has times without a zone, or too many rows are rejected.
    StorageError
        The disk is full. In every case the old corpus stays as it was.
    """
    spec_path, out = Path(spec_path), Path(out)
    spec = read_spec(spec_path)
    with new_folder(out) as folder:
        run = _Run(spec, spec_path, folder, rows_in_memory)
        run.read()
        run.write()
    return Corpus.open(out)


class _Run:
    """One import: first all sources are read, then the tables written."""

    def __init__(self, spec: Spec, spec_path: Path, folder: Path, rows_in_memory: int) -> None:
        self.spec = spec
        self.spec_path = spec_path
        self.folder = folder
        env = spec.identity.pseudonyms_env
        self.pseudonyms = None if env is None else Pseudonyms(env)
        self.hidden = {} if self.pseudonyms is None else {"pseudonyms": self.pseudonyms.to_json()}
        self.rejects = Rejects(folder / REJECTS, raw=env is None)
        self.tables = TableIngest(spec, self.rejects)
        self.tables.links.same_ids = spec.identity.same_ids
        now = spec.clean.now or datetime.now(UTC)
        self.events = EventIngest(spec, EventStore(folder / "scratch", rows_in_memory), self.rejects, now)
        self.sources: list[Json] = []

    def read(self) -> None:
        """Read every source; stop if too many rows are rejected."""
        with log.progress("import: sources", len(self.spec.source)) as advance:
            for source in self.spec.source:
                self._read_source(source)
                advance(1)
        rows = sum(cast("int", source["rows"]) for source in self.sources)
        self.rejects.check(rows, self.spec.max_reject_share, self.spec_path)

    def _read_source(self, source: Source) -> None:
        maps = IdMaps.of(source, self.spec_path)
        rows = 0
        for batch in read_source(source, self.spec_path):
            rows += batch.frame.height + batch.spoilt.height
            self.rejects.count("blank_rows", batch.blank)
            self.rejects.add(batch.label, batch.spoilt)
            if batch.frame.height:
                (self.events if source.kind == "events" else self.tables).add(batch, source, maps)
        self.sources.append({"kind": source.kind, "source": source.label, "rows": rows})

    def write(self) -> None:
        """Clean and write all tables, the rejects and the manifest."""
        items = self.tables.table("items")
        writer = EventWriter(self.events, items.select("platform", "item"), self.pseudonyms)
        written = writer.write(self.folder / "events.parquet")
        items = conform("items", self._all_items(items, writer))
        items.write_parquet(self.folder / "items.parquet")
        identities, report = resolve(written.accounts, self.tables.links)
        others = {name: self.tables.table(name) for name in ("users", "edges", "links")}
        if self.pseudonyms is not None:
            identities, report = self.pseudonyms.hide(identities), without_examples(report)
            others["users"] = self.pseudonyms.hide(others["users"])
        conform("identities", identities).write_parquet(self.folder / "identities.parquet")
        others = {name: conform(name, table) for name, table in others.items()}
        for name, table in others.items():
            table.write_parquet(self.folder / f"{name}.parquet")
        rules = conform("rules", self.tables.table("rules"))
        if rules.height:
            rules.write_parquet(self.folder / "rules.parquet")
        graph = graph_notes(others["edges"], others["links"], items)
        self.rejects.close()
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        seal(self.folder, name=self.spec.name, notes={**self._notes(report, written), "graph": graph})

    def _all_items(self, items: pl.DataFrame, writer: EventWriter) -> pl.DataFrame:
        """Return the items table with the items that only events know, if the spec keeps them."""
        clean = self.spec.clean
        codes = self.events.met.total()
        met = codes.select(
            platform=writer.platforms.gather(codes["platform"]),
            item=writer.items.gather(codes["item"]),
            domain=self.events.words.domains.all()
            .gather(codes["domain"])
            .fill_null(writer.platforms.gather(codes["platform"])),
            rows="rows",
        )
        if clean.items == "met":
            items = items.join(met, on=["platform", "item"], how="semi", maintain_order="left")
        if clean.unknown_items == "drop":
            return items
        unknown = met.join(items, on=["platform", "item"], how="anti", maintain_order="left")
        self.rejects.count("text_less_items", unknown.height)
        return pl.concat([items, unknown.select("platform", "item", "domain")], how="diagonal")

    def _notes(self, identities: Json, written: Written) -> Json:
        platforms = self.events.words.platforms.all().to_list()
        order = self.events.order_platforms - self.events.timed_platforms
        return {
            "time": {name: "order" if code in order else "timestamp" for code, name in enumerate(platforms)},
            "cleaning": {rule: count for rule, count in sorted(self.rejects.cleaned.items()) if count},
            "rejects": dict(sorted(self.rejects.rejected.items())),
            "sources": self.sources,
            "folders": folders_of(self.spec.source, self.spec_path),
            "identity": identities,
            **self.hidden,
            "events_read": self.events.store.rows,
            "events_kept": written.rows,
            "config": _public(self.spec),
        }


def _public(spec: Spec) -> Json:
    """Return the spec without defaults and without database addresses (they may hold passwords)."""
    content = spec.model_dump(mode="json", exclude_defaults=True)
    for source in content["source"]:
        source.pop("url", None)
    return cast("Json", content)
