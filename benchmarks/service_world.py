"""A synthetic catalogue, its people, and models of them for the benchmarks of the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.data.tables import conform
from isthmus.encode.template import Template
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.model.base import Features, Places, TrainingData
from isthmus.model.blend import COHORTS, Blend
from isthmus.recommender import Recommender
from isthmus.recommender.people import People
from isthmus.recommender.readers import Readers
from isthmus.recommender.store import Content
from isthmus.train.fit import Target
from isthmus.train.methods import make

METHODS = ("popularity", "knn", "tfidf")
#: Weights of the methods, by name of the model.
MODELS = {"first": (0.2, 0.5, 0.3), "second": (0.1, 0.4, 0.5)}
FIRST = ("first",)


@dataclass(frozen=True)
class World:
    """Models of one catalogue in one folder."""

    folder: Path
    items: int
    persons: int

    @property
    def model(self) -> Path:
        """The model a service starts with."""
        return self.folder / "first"


def world(folder: Path, n_items: int, n_persons: int, names: Sequence[str] = FIRST) -> World:
    """Return a world of 100 themes with a long tail; models that are in ``folder`` already are not made again."""
    found = World(folder / f"{n_items}-{n_persons}", n_items, n_persons)
    lacking = [name for name in names if not (found.folder / name / "model.json").is_file()]
    if lacking:
        found.folder.mkdir(parents=True, exist_ok=True)
        _write(found, lacking)
    return found


def _write(made: World, names: Sequence[str]) -> None:
    rng = np.random.default_rng(0)
    items = _items(made.items, rng)
    encoder = TfidfEncoder.fit(Template().render(items).to_list())
    features = Features(encoder.transform(Template().render(items).to_list()), None, Places.of(items))
    histories = _histories(made, rng)
    target = np.arange(made.items, dtype=np.int32)
    data = TrainingData(histories, target, made.items, int(histories.ts[-1]), features)
    methods = [make(name, {}).fit(data) for name in METHODS]
    people = _people(histories, made.persons)
    for name in names:
        blend = Blend(METHODS, dict.fromkeys(COHORTS, MODELS[name]))
        learned = Target("books", data.target, np.zeros(made.items, dtype=bool), methods, blend)
        content = Content({"books": learned}, items, people, Readers(encoder, vectors=False), features, {})
        Recommender(content).save(made.folder / name)


def _items(n_items: int, rng: np.random.Generator) -> pl.DataFrame:
    theme = rng.integers(0, 100, n_items)
    words = theme[:, None] * 50 + rng.integers(0, 50, (n_items, 8))
    titles = [" ".join(f"w{word}" for word in row) for row in words.tolist()]
    ids = [f"i{n:07d}" for n in range(n_items)]
    return conform("items", pl.DataFrame({"platform": "shop", "item": ids, "domain": "books", "title": titles}))


def _histories(made: World, rng: np.random.Generator) -> Histories:
    lengths = rng.poisson(14, made.persons) + 1
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    met = np.minimum(rng.pareto(1.0, indptr[-1]) * made.items / 50, made.items - 1).astype(np.int64)
    met = rng.permutation(made.items).astype(np.int32)[met]
    ts = np.arange(met.size, dtype=np.int64) * 1_000_000
    return Histories(indptr, met, np.ones(met.size, np.float32), ts)


def _people(histories: Histories, n_persons: int) -> People:
    users = [f"u{n:07d}" for n in range(n_persons)]
    accounts = pl.DataFrame({"platform": "shop", "user": users, "person": np.arange(n_persons, dtype=np.uint32)})
    events = pl.DataFrame(
        {
            "person": histories.rows.astype(np.uint32),
            "item": histories.items.astype(np.uint32),
            "event": np.zeros(histories.items.size, np.uint8),
        }
    ).with_columns(weight=pl.lit(1.0, pl.Float32), ts=pl.Series(histories.ts).cast(pl.Datetime("us", "UTC")))
    return People(accounts, events)
