"""Models to try: the small ones of the service's tests, better and worse, each in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import httpx
import numpy as np
import polars as pl
from tests.small_service import WORDS

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, twin_world
from isthmus.model.blend import COHORTS, Blend
from isthmus.recommender import Recommender
from isthmus.recommender.people import People
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.recommender.store import Content
from isthmus.service.app import create_app
from isthmus.service.core import Places, Service
from isthmus.service.settings import ServiceSettings
from isthmus.split.temporal import TEST, Split
from isthmus.train.fit import Target, training_data
from isthmus.train.methods import make

#: Weights of popularity, knn and tfidf.
GOOD = (0.1, 0.6, 0.3)


@lru_cache(maxsize=1)
def town() -> Split:
    """Two domains on two platforms, 240 persons; their newest events are the test's."""
    world = twin_world(1, replace(WORLD, persons=240, items=60))
    return Split.make(Corpus.from_tables(world.tables, name="world"), valid_share=0.2, test_share=0.2)


def fitted(split: Split, *, weights: Sequence[float] = GOOD, domains: Sequence[str] = ("source", "target")) -> Content:
    """Return what is learned from ``split``, with the persons and histories before its test."""
    readers = Readers(vocabulary(split), vectors=False)
    features = readers.read(split.corpus.items)
    targets = {}
    for domain in domains:
        data = training_data(split, TEST, domain, features)
        methods = [make(word, {}).fit(data) for word in WORDS]
        blend = Blend(WORDS, dict.fromkeys(COHORTS, tuple(weights)))
        targets[domain] = Target(domain, data.target, data.popularity[data.target] == 0, methods, blend)
    return Content(targets, split.corpus.items, People.of(split), readers, features, {"corpus": "world"})


@lru_cache(maxsize=1)
def active() -> Recommender:
    """The model that answers."""
    return Recommender(fitted(town()))


def save(path: Path, change: Callable[[Content], Content] = lambda content: content) -> Path:
    """Write the model that answers, changed, to ``path``."""
    Recommender(change(active().content)).save(path)
    return path


def shuffled(seed: int) -> Content:
    """Return what is learned where items were dealt out to events at random."""
    split = town()
    items = split.events["item"].to_numpy()
    dealt = items.copy()
    rng = np.random.default_rng(seed)
    for domain in ("source", "target"):
        mine = (split.corpus.items["domain"] == domain).to_numpy()[items]
        dealt[mine] = rng.permutation(items[mine])
    events = split.events.with_columns(item=pl.Series(dealt, dtype=split.events["item"].dtype))
    return replace(
        fitted(Split(split.corpus, events, split.card), weights=(0.0, 1.0, 0.0)), people=active().content.people
    )


def newest() -> list[dict[str, object]]:
    """The events of the test, as they arrive at the service, in the order of time."""
    split = town()
    table = split.corpus.items
    rows = split.events.filter(pl.col("part") == TEST).sort("ts")
    accounts = active().content.people.accounts.select("person", "platform", "user").rows()
    users = {(person, platform): user for person, platform, user in accounts}
    start = datetime.now(UTC) - timedelta(hours=1)
    found: list[dict[str, object]] = []
    for place, (person, row) in enumerate(rows.select("person", "item").iter_rows()):
        platform, item = table.select("platform", "item").row(row)
        if (person, platform) in users:
            ts = (start + timedelta(milliseconds=100 * place)).isoformat()
            user = users[person, platform]
            found.append({"platform": platform, "user": user, "item": item, "event": "purchase", "ts": ts})
    return found


@asynccontextmanager
async def serving(
    folder: Path, data: Path, *, trust: Sequence[Path] = (), **settings: object
) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """Yield a client and the service it asks, in this process; the model ``active`` of ``folder`` was given."""
    said = ServiceSettings.model_validate({"deadline": 20.0, "warm": False, **settings})
    service = Service.open(Places(data, {"default": folder / "active"}, trust=trust), said)
    app = create_app(service)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            yield client, service


def with_weights(content: Content, weights: Sequence[float]) -> Content:
    """Return a model that blends otherwise."""
    blend = Blend(WORDS, dict.fromkeys(COHORTS, tuple(weights)))
    targets = {name: replace(target, blend=blend) for name, target in content.targets.items()}
    return replace(content, targets=targets)


def without_domain(content: Content, domain: str = "target") -> Content:
    """Return a model that forgot a domain."""
    return replace(content, targets={name: one for name, one in content.targets.items() if name != domain})


def accounts(n: int) -> list[dict[str, str]]:
    """Return an account of each of some persons."""
    rows = active().content.people.accounts.unique("person", keep="first", maintain_order=True).head(n)
    return [{"platform": platform, "user": user} for platform, user in rows.select("platform", "user").rows()]


async def ask(client: httpx.AsyncClient, persons: list[dict[str, str]], **more: object) -> dict[str, object]:
    """Return lists of the first domain; the request must not fail."""
    answer = await client.post("/v1/recommend", json={"persons": persons, "target": "source", "k": 5, **more})
    assert answer.status_code == 200, answer.text
    said: dict[str, object] = answer.json()
    return said
