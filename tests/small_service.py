"""A small model to serve, and the service in this process or in one of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from typing import IO

import httpx
import polars as pl

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

WORDS = ("popularity", "knn", "tfidf")
Test = Callable[[httpx.AsyncClient, Service], Awaitable[None]]


@lru_cache(maxsize=1)
def recommender() -> Recommender:
    """Two domains on two platforms, 60 persons with an account on each or on one."""
    world = twin_world(1, replace(WORLD, persons=60, items=40))
    return learned(Split.make(Corpus.from_tables(world.tables, name="world"), valid_share=0.2, test_share=0.1))


def learned(split: Split) -> Recommender:
    """Return what is quickly learned of a split."""
    table = split.corpus.items
    readers = Readers(vocabulary(split), vectors=False)
    features = readers.read(table)
    targets = {}
    for domain in ("source", "target"):
        data = training_data(split, TEST, domain, features)
        methods = [make(word, {}).fit(data) for word in WORDS]
        blend = Blend(WORDS, dict.fromkeys(COHORTS, (0.2, 0.4, 0.4)))
        targets[domain] = Target(domain, data.target, data.popularity[data.target] == 0, methods, blend)
    return Recommender(
        Content(targets, table, People.of(split), readers, features, {"corpus": "world", "fingerprint": "world"})
    )


@lru_cache(maxsize=1)
def models() -> Path:
    """A folder with two models: first, and second, which knows popularity only for its first target."""
    folder = Path(mkdtemp(prefix="isthmus-models-"))
    first = recommender().save(folder / "first")
    content = first.content
    one = sorted(content.targets)[0]
    Recommender(replace(content, targets={one: content.targets[one]})).save(folder / "second")
    return folder


def account(number: int = 0, platform: str = "north") -> dict[str, str]:
    """Return an account of a person with a history on that platform."""
    rows = recommender().content.people.accounts.filter(platform=platform).sort("user")
    return dict(zip(("platform", "user"), rows.select("platform", "user").row(number), strict=True))


def item(number: int = 0, domain: str = "source") -> dict[str, str]:
    """Return an item of a domain."""
    rows = recommender().items.filter(pl.col("domain") == domain).select("platform", "item")
    return dict(zip(("platform", "item"), rows.row(number), strict=True))


def event(number: int = 0, who: dict[str, str] | None = None, **more: object) -> dict[str, object]:
    """Return a purchase of the item ``number`` on the north platform."""
    return {**(who or account()), **item(number), "event": "purchase", **more}


@asynccontextmanager
async def serving(data: Path, **settings: object) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """Yield a client and the service it asks, in this process."""
    tenants = settings.pop("tenants", ("default",))
    given = dict.fromkeys(tenants, settings.pop("model", models() / "first"))  # type: ignore[call-overload]
    said = ServiceSettings.model_validate({"deadline": 20.0, "warm": False, **settings})
    service = Service.open(Places(data, given), said)
    app = create_app(service)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client, service


def served(data: Path, test: Test, **settings: object) -> None:
    """Run ``test`` with a client and the service."""

    async def run() -> None:
        async with serving(data, **settings) as (client, service):
            await test(client, service)

    asyncio.run(run())


class Process(subprocess.Popen[str]):
    """A process whose errors go to a file: a pipe that nobody reads would halt it once the pipe is full."""

    said: IO[str]

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:  # noqa: A002
        """Return output and errors when it has ended."""
        out, _ = super().communicate(input, timeout)
        self.said.seek(0)
        return out, self.said.read()


@contextmanager
def started(data: Path, *words: object, model: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``isthmus serve`` on a free port; yield the process and its address; end it if it still runs."""
    command = [
        Path(sys.executable).parent / "isthmus",
        "serve",
        model or models() / "first",
        "--port",
        0,
        "--data",
        data,
        *words,
    ]
    with TemporaryFile("w+") as said:
        process = Process(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        process.said = said
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), process.communicate(timeout=20)
            yield process, line.split()[-1]
        finally:
            process.kill()
            process.communicate()
