"""What the console asks besides lists: what a key opens, the last hour, items, the audit log, reports."""

from __future__ import annotations

import asyncio
import json
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import polars as pl

from isthmus.errors import InputError
from isthmus.evaluate.report import FORMAT
from isthmus.files import Json
from isthmus.model.blend import COHORTS, Blend
from isthmus.service.changes import account_of
from isthmus.service.core import Service
from isthmus.service.lists.answers import as_known
from isthmus.service.lists.items import Account
from isthmus.service.lists.live import Live, Version, clock
from isthmus.service.lock.key import SCOPES, Key
from isthmus.service.lock.operations import OPERATIONS
from isthmus.service.looking.forms import Hidden
from isthmus.service.tenant import Tenant
from isthmus.service.watch.health import reasons, simpler

#: Items found, entries of the audit log shown, at most.
FOUND: Final = 20
ENTRIES: Final = 200
#: People below whose number they are not counted: so few could be somebody.
FEW: Final = 10
#: Microseconds for which it is said that a trial ended by itself.
DAY: Final = 86_400_000_000
_REPORT: Final = "report.json"
_MANIFEST: Final = "model.json"
_LARGEST: Final = 32 << 20
_FOLDERS: Final = 200


def access(service: Service, key: Key | None, paths: set[tuple[str, str]]) -> dict[str, object]:
    """Return what ``key`` opens, of the routes ``paths`` this service has."""
    locked = service.vault.locked
    known = service.tenants.get(key.tenant) if key is not None else None if locked else service.tenant()
    scopes = list(SCOPES) if not locked else [] if key is None or known is None else list(key.scopes)
    bound = () if key is None else key.platforms
    platforms = (
        [] if known is None else sorted(set(known.live.shelf.platforms) & set(bound or known.live.shelf.platforms))
    )
    opened = [one for one in OPERATIONS if (one.method, one.path) in paths and (not one.scope or one.scope in scopes)]
    return {
        "locked": locked,
        "key": None if key is None else key.prefix,
        "tenant": None if known is None else known.name,
        "scopes": scopes,
        "platforms": platforms,
        "domains": [] if known is None else known.live.domains,
        "operations": [{"method": one.method, "path": one.path} for one in opened],
    }


def overview(service: Service, tenant: Tenant) -> dict[str, object]:
    """Return the last hour and the sizes of a tenant."""
    live, trend = tenant.live, service.monitor.trend(tenant.name)
    manifest = tenant.models.folder / live.version.name / _MANIFEST
    return {
        "now": time.time(),
        "began": trend.began,
        "model": live.version.name,
        "model_version": live.version.digest,
        "model_loaded": tenant.loaded / 1e6,
        "model_written": manifest.stat().st_mtime if manifest.is_file() else None,
        **trend.hour(),
        "sizes": {
            "persons": live.state.persons,
            "items": len(live.shelf.ids),
            "data_version": live.seq,
            "events_waiting": tenant.log.waiting,
            "events_on_unknown_items": live.state.waiting,
            "lists_waiting": tenant.lister.waiting,
            "lists_ready": tenant.lister.kept,
            "in_flight": service.doors.inside,
        },
        "index_recall": {domain: shortlist.recall for domain, shortlist in sorted(live.shortlists.items())},
        "alerts": [{"of": of, "said": said} for of, said in _alerts(service, tenant)],
    }


def _alerts(service: Service, tenant: Tenant) -> Iterator[tuple[str, str]]:
    """Yield what needs somebody's attention: the page that says more, and what it is."""
    for said in (*reasons(service), *simpler(service)):
        yield "health", said
    for name, feature in tenant.observer.features.items():
        if feature.finding.alarm:
            yield "drift", name
    ended = tenant.models.pointer.ended
    if ended is not None and clock() - ended.at < DAY:
        yield "models", f"{ended.role} {ended.model}: {ended.reason}"
    if not service.patrol.intact:
        yield "privacy", "the audit log was changed"


async def find(tenant: Tenant, words: str) -> dict[str, object]:
    """Return the first items whose title or id holds ``words``, in whatever case and way to write accents."""
    table, wanted = tenant.live.shelf.table, unicodedata.normalize("NFC", words).strip().lower()
    plain = [pl.col(name).str.normalize("NFC").str.to_lowercase() for name in ("title", "item")]
    names = [column.str.contains(wanted, literal=True) for column in plain]
    holds = pl.any_horizontal(names).fill_null(value=False)
    columns = table.lazy().filter(holds).select("platform", "item", "title", "domain").head(FOUND)
    return {**as_known(tenant), "items": (await asyncio.to_thread(columns.collect)).to_dicts()}


def item(tenant: Tenant, name: str) -> dict[str, object]:
    """Return what is known of an item, and how often it was listed of late."""
    live = tenant.live
    account = account_of(name, "item")
    row = live.row(*account)
    said = live.shelf.table.row(row, named=True)
    hidden = list(_hidden(live, row, account, clock()))
    met = live.state.met_by(row)
    columns = ("platform", "item", "title", "domain", "text", "categories", "attributes", "lang")
    times = {column: said[column] and said[column].isoformat() for column in ("available_from", "available_until")}
    return {
        **as_known(tenant, live),
        **{column: said[column] for column in columns},
        **times,
        "added": account in live.added,
        "removed": "removed" in hidden,
        "listable": not hidden,
        "hidden": hidden,
        "met": met if met >= FEW else None,
        "exposure": tenant.lister.exposure.of(row),
    }


def _hidden(live: Live, row: int, account: Account, now: int) -> Iterator[Hidden]:
    """Yield why nobody is shown an item at the time ``now``."""
    begins, ends = live.shelf.times(row)
    if account in live.shelf.removed:
        yield "removed"
    if now < begins:
        yield "early"
    if now >= ends:
        yield "late"
    if live.shelf.table["domain"][row] not in live.scorers:
        yield "domain"


def audit(service: Service, tenant: Tenant, before: int | None, most: int, *, whole: bool) -> dict[str, object]:
    """Return a page of the entries of one tenant, and whether the log is as it was written.

    What is shown and what came since the last time is checked here; all of it if ``whole``, and by the patrol.
    """
    try:
        mine = service.vault.verify(whole=whole).get(tenant.name, 0)
        shown = service.vault.newest(tenant.name, before, most)
        problem = (
            None if whole or service.patrol.intact else "an entry was changed or is missing; ?verify=true says which"
        )
    except InputError as error:
        problem = error.what
    if problem is not None:
        return {"intact": False, "problem": problem, "whole": whole, "entries": 0, "newest": [], "before": None}
    older = shown[-1]["number"] if len(shown) == most else None
    return {"intact": True, "problem": None, "whole": whole, "entries": mine, "newest": shown, "before": older}


def report(tenant: Tenant, name: str) -> dict[str, object]:
    """Return the report of a model: from ``NAME.report`` or another folder beside it."""
    version = tenant.models.version(name)
    folder = tenant.models.folder
    corpus = _corpus(folder / name)
    live = tenant.live
    weights = {}
    if name == live.version.name:
        weights = {domain: _weights(target.blend) for domain, target in live.base.targets.items()}
    empty: Json = {"model": name, "report": None, "title": "", "created": "", "domains": [], "weights": weights}
    for place in _places(folder, name):
        found = _json(place / _REPORT)
        data = found.get("data")
        ours = found.get("format") == FORMAT and isinstance(data, dict) and corpus and data.get("fingerprint") == corpus
        if ours and _judges(found, place, tenant, version):
            sections = cast("list[Json]", found["sections"])
            said = {"title": str(found["title"]), "created": str(found["created"])}
            return {**empty, "report": place.name, **said, "domains": [_judged(one) for one in sections]}
    return empty


def _corpus(model: Path) -> object:
    """Return the fingerprint of the corpus a model was made of, None if it does not say."""
    card = _json(model / _MANIFEST).get("card")
    return card.get("fingerprint") if isinstance(card, dict) else None


def _judges(found: Json, place: Path, tenant: Tenant, version: Version) -> bool:
    """Return whether a report of the model's corpus is one of this very model.

    One that does not say which models it judges is so by its name, or where no other model here has this corpus.
    """
    models = found.get("models")
    if isinstance(models, dict):
        return version.digest in models.values()
    if place.name == f"{version.name}.report":
        return True
    folder = tenant.models.folder
    others = [name for name in tenant.models.names() if name != version.name]
    return _corpus(folder / version.name) not in [_corpus(folder / name) for name in others[:_FOLDERS]]


def _places(folder: Path, name: str) -> list[Path]:
    """Return the folders that may hold the report of a model, the likeliest first."""
    beside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())[:_FOLDERS]
    likely = [folder / f"{name}.report", folder / "report"]
    return [path for path in dict.fromkeys([*likely, *beside]) if (path / _REPORT).is_file()]


def _json(path: Path) -> Json:
    """Return a JSON object; empty if it is none, or too large to be looked at."""
    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _weights(blend: Blend) -> dict[str, dict[str, float]]:
    return {
        cohort: {name: round(float(weight), 4) for name, weight in zip(blend.methods, weights, strict=True)}
        for cohort, weights in ((name, blend.weights[name]) for name in COHORTS)
    }


def _judged(section: Json) -> Json:
    metric = str(section["metric"])
    verdict = section.get("verdict")
    cohorts = []
    for part in cast("list[Json]", section["slices"]):
        systems = cast("dict[str, dict[str, Json]]", part["systems"])
        estimates = {name: figures[metric] for name, figures in systems.items() if metric in figures}
        cohorts.append({"name": part["name"], "of": part["of"], "n": part["n"], "systems": estimates})
    whole = {
        str(row["name"]): cast("dict[str, Json]", row["metrics"])[metric]
        for row in cast("list[Json]", section["systems"])
    }
    first = {"name": "", "of": "persons", "n": section["persons"], "systems": whole}
    names = ("domain", "main", "persons", "items")
    sentence = verdict.get("sentence") if isinstance(verdict, dict) else None
    said = {name: section[name] for name in names}
    return {**said, "metric": metric, "cohorts": [first, *cohorts], "verdict": sentence}
