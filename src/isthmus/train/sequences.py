"""Learning a sequence model from histories: from scratch, or from a pre-trained one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from isthmus.data.sequences import Histories
from isthmus.model.base import Places, TrainingData
from isthmus.model.sequence import UNKNOWN, SequenceConfig, SequenceModel
from isthmus.train.batches import BatchSettings, SequenceBatches
from isthmus.train.carriers import CANDIDATES, SAMPLED_FROM, subset
from isthmus.train.loop import LoopSettings, train
from isthmus.types import Floats, Indices

if TYPE_CHECKING:
    from isthmus.train.carriers import SequenceCarrier


def learn_sequence(
    method: SequenceCarrier, data: TrainingData, vectors: Floats | None, seed: int
) -> tuple[SequenceModel, Indices]:
    """Return a trained model, and the rows of the items that it has embeddings of.

    Only items with an event, and those of the target domain, take part in learning.
    """
    histories = data.learn_from(bool(method.settings["sources"]))
    taking = data.in_target.copy()
    taking[histories.items] = True
    rows = np.flatnonzero(taking).astype(np.int32)
    places = subset(method.places, rows)
    small = Histories(
        histories.indptr,
        np.searchsorted(rows, histories.items).astype(np.int32),
        histories.weights,
        histories.ts,
        histories.events,
    )
    met = np.unique(small.items)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _start(method, vectors, places, met.size)
    known = met if model.ids is not None else met[:0]
    model.attend(None if vectors is None else vectors[rows], places, known)
    largest = int(np.bincount(places.domain).max())
    settings = BatchSettings(
        events=int(method.number("batch")),
        length=model.config.length,
        half_life=method.number("half_life"),
        sampled=CANDIDATES if largest >= SAMPLED_FROM else 0,
        seed=seed,
    )
    predict = np.ones(rows.size, dtype=bool)
    batches = SequenceBatches(small, places, predict, settings, now=data.now, dated=data.dated)
    loop = LoopSettings(
        epochs=method.number("epochs"),
        learning_rate=method.number("learning_rate"),
        seed=seed,
        patience=2 if method.watch else 0,
        precision="bf16",
        name="sequence",
    )
    watch = None
    if method.watch is not None:
        watch = _watcher(method, vectors, rows[known])
    log = train(model, batches, loop, watch=watch)
    if watch is not None:
        method.settings["epochs"] = max(round(log.best_step / len(batches)), 1)
    return model, rows[known]


def _start(method: SequenceCarrier, vectors: Floats | None, places: Places, n_items: int) -> SequenceModel:
    """Return the model to train: new, or the pre-trained one with room for the names and ids of these items."""
    ids = n_items if method.settings["ids"] or vectors is None else 0
    start = str(method.settings["start"])
    if start:
        loaded: SequenceModel = SequenceModel.from_pretrained(Path(start))
        return loaded.grown(places, ids)
    config = SequenceConfig(
        width=0 if vectors is None else vectors.shape[1],
        dim=int(method.number("dim")),
        layers=int(method.number("layers")),
        dropout=method.number("dropout"),
        domains=[UNKNOWN, *places.domains],
        platforms=[UNKNOWN, *places.platforms],
        n_items=ids,
    )
    return SequenceModel(config)


def _watcher(method: SequenceCarrier, vectors: Floats | None, known: Indices) -> Callable[[SequenceModel], float]:
    """Return what judges the model while it learns: the method, as if it were done."""

    def watch(model: SequenceModel) -> float:
        catalogue = model.catalogue
        method.known, method.models = known, [model]
        method.tables = [model.whole(vectors, method.places, known)]
        found = method.watch(method) if method.watch else 0.0
        method.models, method.tables = [], []
        model.catalogue = catalogue
        return found

    return watch
